//! Collection: the one part of vmgate that reads the world.

pub mod probe;
