//! What is looked at again on the destination, after a migration.

use std::time::Duration;

use super::{Request, flows::Interfaces, guest, transport::Transport, vm};
use vmgate_facts::{Guest, UdpCapture, Unknown, VmState};
use vmgate_libvirt::Domain;

/// The guest, by the way that the request names, wherever it runs now.
pub fn guest(request: &Request, domain: &Domain) -> Result<Guest, Unknown> {
    let way = &request.guest_way;
    guest::look(way, domain.clone(), VmState::Running, true, None, request.timeout).map(|(guest, _)| guest)
}

/// The guest's UDP flows, watched on the destination for `window`.
pub fn flows(request: &Request, domain: &Domain, window: Duration) -> Result<UdpCapture, Unknown> {
    let way = request.destination_probe.clone().unwrap_or_else(|| Transport::for_uri(&request.to));
    let vm = vm::look(domain, vm::Monitor::Forbidden)?;
    Interfaces::of(&vm)?.watch(&way, window, request.timeout)
}
