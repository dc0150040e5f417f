//! Collection: the one part of vmgate that reads the world.
//!
//! [`collect`] learns everything about one move; [`document::read`] takes it from a file instead. Whatever cannot be
//! learnt is an unknown fact with its reason. The probes ([`probe`]) and their parsers need no hypervisor; what
//! talks to one is behind the feature `libvirt`.

#[cfg(feature = "libvirt")]
pub mod again;
pub mod agent;
#[cfg(feature = "libvirt")]
mod alone;
#[cfg(feature = "libvirt")]
mod asker;
pub mod capabilities;
#[cfg(feature = "libvirt")]
mod claims;
#[cfg(feature = "libvirt")]
mod dirtying;
pub mod domain_capabilities;
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
#[cfg(feature = "libvirt")]
mod needed_files;
pub mod network_xml;
#[cfg(feature = "libvirt")]
mod offer;
pub mod path;
#[cfg(feature = "libvirt")]
mod peers;
pub mod probe;
#[cfg(feature = "libvirt")]
mod probes;
#[cfg(feature = "libvirt")]
mod provenance;
#[cfg(feature = "libvirt")]
pub mod ready;
#[cfg(feature = "libvirt")]
pub mod survey;
pub mod transport;
#[cfg(feature = "libvirt")]
mod vm;
#[cfg(feature = "libvirt")]
mod worker;

#[cfg(feature = "libvirt")]
pub use alone::collect_alone;
#[cfg(feature = "libvirt")]
pub use claims::PlannedMove;
#[cfg(feature = "libvirt")]
pub use gather::{CollectError, Request, collect};
#[cfg(feature = "libvirt")]
pub use probes::TryPath;
