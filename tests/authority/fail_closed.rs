//! Promise 15: what cannot be known.
