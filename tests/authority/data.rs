//! Promises 3 and 4: data is not code.
