//! Facts that are collected again on the destination after a migration.

use std::time::Duration;

use vmgate_facts::{Guest, UdpCapture, Unknown, VmState};

use super::{CollectRequest, HostedVm, flows::WatchedInterfaces, guest};

/// Collects the guest's facts through the access that the request names, on whichever host the VM runs now.
pub fn guest(request: &CollectRequest, vm: &HostedVm) -> Result<Guest, Unknown> {
    let way = &request.guest_access;
    guest::look(way, vm.domain().ok().cloned(), VmState::Running, true, None, request.timeout)
        .map(|(guest, _)| guest)
}

/// Watches the guest's UDP flows on the destination for `window`.
pub fn flows(request: &CollectRequest, vm: &HostedVm, window: Duration) -> Result<UdpCapture, Unknown> {
    WatchedInterfaces::of(&vm.found()?)?
        .watch(&request.destination_probe, window, request.timeout)
        .map(|traffic| traffic.udp)
}
