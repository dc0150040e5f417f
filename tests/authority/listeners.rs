//! Promise 13: listeners and strangers.
