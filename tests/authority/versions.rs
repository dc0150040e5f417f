//! Promise 14: programs of different releases.
