//! Derived facts: connection budgets, recognised software, and the predicted migration.
//!
//! Pure: no I/O, no clock, no input except the facts and the catalogues. A fact that is already known is never replaced,
//! so a facts file may provide a better value. Never judges: a rule compares the forecast with the goals of the move. For
//! `vmgate_judge`, and for the parts of the command line that show or measure forecasts.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_libvirt::Hypervisor;
//! ```

#![forbid(unsafe_code)]

pub mod budget;
mod conditions;
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of forecasts are small and above zero"
)]
pub mod conformal;
mod dark;
mod history;
mod load;
mod managed;
mod memory;
mod migratable;
mod precopy;
mod predict;
pub mod replay;
mod wire;

pub use budget::{established_timeout_seconds, handshake_timeout_seconds, survived_silence_seconds};
pub use managed::parameters as managed_parameters;
pub use predict::guest_of_windows;
use vmgate_facts::{Cause, ControlSession, Fact, Facts, Forecast, Guest, UdpService, UdpSocket, Vm};
use vmgate_rules::catalogue::Catalogues;

/// Most bytes that one pass over the VM's memory sends: what its guest has touched, as far as the host tells; none where its size
/// is not known.
pub fn touched_bytes(vm: &Vm) -> Option<f64> {
    memory::TouchedMemory::of(vm).map(|memory| memory.most_bytes())
}

/// Fills in all derived facts and predicts the migration.
pub fn derive(mut facts: Facts, catalogues: &Catalogues) -> (Facts, Forecast) {
    if let Fact::Known(guest) = &mut facts.guest {
        wire::fill(guest);
        fill_budgets(guest);
        fill_services(guest, catalogues);
        if guest.control_sessions.known().is_none() {
            guest.control_sessions = control_sessions(guest, catalogues);
        }
        if guest.memory_sync.known().is_none() {
            let mut found = catalogues.recognise(guest);
            if let Fact::Known(found) = &mut found {
                catalogues.apply_guest_detectors(found, guest);
            }
            guest.memory_sync = found;
        }
    }
    if let Fact::Known(vm) = &mut facts.vm {
        if vm.manager.known().is_none() {
            vm.manager = catalogues.manager_of(vm, &facts.source);
        }
        fill_dirtying(vm);
        let hosts = (&facts.source, &facts.destination);
        migratable::fill((vm, &facts.guest), hosts, &facts.trial, catalogues);
    }
    let migration = managed::migration(&facts, catalogues);
    let mut forecast = match &migration {
        Fact::Known(Some(of_manager)) => {
            managed::apply(of_manager, &mut facts.change);
            predict::forecast(&mut facts, managed::Managed::of(of_manager, catalogues))
        }
        Fact::Known(None) => predict::forecast(&mut facts, None),
        Fact::Unknown(why) => predict::unknown(why),
    };
    forecast.managed = migration;
    dark::derive(&mut facts, &mut forecast);
    wire::fill_members(&mut facts, &forecast, catalogues);
    if let Fact::Known(guest) = &mut facts.guest {
        catalogues.join_sessions(guest);
    }
    (facts, forecast)
}

/// Sessions that the packets show, completed by the catalogue.
fn control_sessions(guest: &Guest, catalogues: &Catalogues) -> Fact<Vec<ControlSession>> {
    match &guest.wire {
        Fact::Known(wire) => {
            let mut sessions = wire.control.clone();
            for session in &mut sessions {
                catalogues.complete_control(session);
            }
            Fact::Known(sessions)
        }
        // The guest's own account covers its software: memory_sync, sockets.
        Fact::Unknown(_) if guest.processes.known().is_some() => Fact::Known(Vec::new()),
        Fact::Unknown(why) => Fact::Unknown(why.clone()),
    }
}

fn fill_budgets(guest: &mut Guest) {
    if let Fact::Known(sctp) = &mut guest.sctp
        && let Fact::Known(associations) = &mut sctp.associations
    {
        associations.iter_mut().for_each(budget::fill_sctp);
    }
    let Fact::Known(tcp) = &mut guest.tcp else { return };
    if let Fact::Known(connections) = &mut tcp.connections {
        for connection in connections {
            budget::fill_tcp(connection, &guest.sysctl);
        }
    }
    budget::fill_peers(tcp);
}

fn fill_services(guest: &mut Guest, catalogues: &Catalogues) {
    let Fact::Known(udp) = &mut guest.udp else { return };
    if let Fact::Known(sockets) = &mut udp.sockets {
        for socket in sockets.iter_mut().filter(|socket| socket.service.known().is_none()) {
            let service: Option<UdpService> = catalogues.classify(socket);
            socket.service = Fact::Known(service);
        }
    }
    let Fact::Known(capture) = &mut udp.flows else { return };
    for flow in capture.flows.iter_mut().filter(|flow| flow.service.known().is_none()) {
        let owner = flow_owner(&udp.sockets, &flow.local);
        flow.service = Fact::Known(catalogues.classify_flow(flow, owner));
    }
}

/// Owner of the guest's end of a flow: the owner of the sockets with the flow's port, if all have the same owner.
fn flow_owner(sockets: &Fact<Vec<UdpSocket>>, local: &str) -> Fact<Option<String>> {
    let port = local.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    sockets.as_ref().and_then(|sockets| {
        let mut owners =
            sockets.iter().filter(|socket| Some(socket.port) == port).map(|socket| &socket.owner);
        match (owners.next(), owners.next()) {
            (Some(owner), None) => owner.clone(),
            (Some(owner), Some(other)) if owner == other && owners.all(|other| owner == other) => {
                owner.clone()
            }
            _ => Fact::unknown(
                Cause::NotSupported,
                "no socket has the port, or sockets of different owners have it",
            ),
        }
    })
}

/// Fills in dirty rate and dirty windows from the trace, unless they are known.
fn fill_dirtying(vm: &mut Vm) {
    let Some(trace) = vm.dirty_trace.known().filter(|trace| trace.check().is_ok()) else { return };
    if vm.dirty_windows.known().is_none() {
        vm.dirty_windows = Fact::Known(trace.dirty_windows());
    }
    if vm.dirty_rate.known().is_none() {
        vm.dirty_rate = Fact::Known(trace.dirty_rate());
    }
}

#[cfg(test)]
mod tests;
