//! Collection: the one part of vmgate that reads the world.

pub mod agent;
pub mod capabilities;
pub mod domain_xml;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod probe;
pub mod text;
mod uri;

pub use uri::{InvalidUri, Uri};
