//! Promises 9 and 10: where output goes, and what it may say to its reader.
