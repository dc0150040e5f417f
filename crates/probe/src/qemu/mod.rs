//! QEMU without libvirt: a VM as its own monitor, its command line and its process show it, the VMs of a host by their
//! processes, and the offer of an installed QEMU.
//!
//! Reads only: see [`monitor`] for what a monitor can be asked.

mod devices;
mod disks;
mod monitor;
mod nics;
mod offer;
pub(crate) mod process;
mod sockets;
mod vm;
mod vm_process;
mod vms;

pub use offer::{OfferQuestions, QemuOffer};
pub use process::{MONITOR, Qemu, QemuError};
pub use vm::{MonitoredVm, of_monitor};
pub use vm_process::{QemuMigration, QemuState, RamMigration, VmProcess, processes_of};
pub use vms::{RunningVms, VmMonitor};
pub(crate) use {offer::offer, vms::running};
