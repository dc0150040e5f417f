//! Promise 11: commands that are shown to be copied.
