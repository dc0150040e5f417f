//! Promises 1 and 2: time is the machine's own, and a verdict ends.
