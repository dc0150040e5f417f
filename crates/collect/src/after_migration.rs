//! Facts that are collected again on the destination after a migration.

use std::time::Duration;

use vmgate_facts::{Guest, UdpCapture, Unknown, VmState};
use vmgate_libvirt::Domain;

use super::{CollectRequest, flows::WatchedInterfaces, guest, vm};

/// Collects the guest's facts through the access that the request names, on whichever host the VM runs now.
pub fn guest(request: &CollectRequest, domain: &Domain) -> Result<Guest, Unknown> {
    let way = &request.guest_access;
    guest::look(way, Some(domain.clone()), VmState::Running, true, None, request.timeout)
        .map(|(guest, _)| guest)
}

/// Watches the guest's UDP flows on the destination for `window`.
pub fn flows(request: &CollectRequest, domain: &Domain, window: Duration) -> Result<UdpCapture, Unknown> {
    let vm = vm::look(domain, vm::Monitor::Forbidden)?;
    WatchedInterfaces::of(&vm)?
        .watch(&request.destination_probe, window, request.timeout)
        .map(|traffic| traffic.udp)
}
