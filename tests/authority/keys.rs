//! Promise 16: keys end.
