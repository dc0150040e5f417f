//! Promise 17: bytes of strangers.
