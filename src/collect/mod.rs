//! Collection: the one part of vmgate that reads the world.
//!
//! [`collect`] learns everything about one move; [`document::read`] takes it from a file instead. Whatever cannot be
//! learnt is an unknown fact with its reason. The probes ([`probe`]) and their parsers need no hypervisor; what
//! talks to one is behind the feature `libvirt`.

pub mod agent;
#[cfg(feature = "libvirt")]
mod asker;
pub mod capabilities;
#[cfg(feature = "libvirt")]
mod dirtying;
pub mod document;
pub mod domain_xml;
#[cfg(feature = "libvirt")]
mod flows;
#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(feature = "libvirt")]
mod gather;
#[cfg(feature = "libvirt")]
mod guest;
#[cfg(feature = "libvirt")]
mod host;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod path;
#[cfg(feature = "libvirt")]
mod peers;
pub mod probe;
#[cfg(feature = "libvirt")]
mod provenance;
pub mod text;
pub mod transport;
mod uri;
#[cfg(feature = "libvirt")]
mod vm;
#[cfg(feature = "libvirt")]
mod worker;

#[cfg(feature = "libvirt")]
pub use gather::{CollectError, Request, collect};
pub use uri::{InvalidUri, Uri};
