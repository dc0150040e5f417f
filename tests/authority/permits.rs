//! Promise 7: what was refused cannot be used later.
