//! Promise 12: what a runner may do to the ledger it shares.
