//! Collection of facts: the one part of vmgate that reads from hosts and guests.
//!
//! [`collect`] gathers the facts of one move; [`facts_file::read`] reads them from a file instead. Whatever cannot be
//! learnt is an unknown fact with its reason. The probes ([`probe`]) and their parsers need no hypervisor; what
//! talks to one is behind the feature `libvirt`.

#[cfg(feature = "libvirt")]
pub mod after_migration;
pub mod agent;
#[cfg(feature = "libvirt")]
mod asker;
pub mod capabilities;
#[cfg(feature = "libvirt")]
mod claims;
#[cfg(feature = "libvirt")]
mod dirty_measurement;
pub mod domain_capabilities;
pub mod domain_xml;
pub mod facts_file;
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
mod host_probes;
#[cfg(feature = "libvirt")]
pub mod host_versions;
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
mod provenance;
#[cfg(feature = "libvirt")]
pub mod survey;
pub mod text;
pub mod transport;
mod uri;
#[cfg(feature = "libvirt")]
mod vm;
#[cfg(feature = "libvirt")]
mod without_move;
#[cfg(feature = "libvirt")]
mod worker;

#[cfg(feature = "libvirt")]
pub use claims::PlannedMove;
#[cfg(feature = "libvirt")]
pub use gather::{CollectError, CollectRequest, collect};
#[cfg(feature = "libvirt")]
pub use host_probes::TryPath;
pub use uri::{InvalidUri, Uri};
#[cfg(feature = "libvirt")]
pub use without_move::collect_without_move;
