//! Collection: the one part of vmgate that reads the world.
#[cfg(feature = "libvirt")]
pub mod libvirt;
mod uri;

pub use uri::{InvalidUri, Uri};
