//! What follows from the facts by arithmetic: budgets, recognised software, and the predicted migration.
//!
//! Pure: no clock, no input but the facts and the catalogues. A fact that is already known is never replaced, so that
//! a facts file may say better.

pub mod budget;
mod precopy;
pub mod replay;

pub use budget::{established, handshake, of_connection};

use crate::{
    fact::{Cause, Fact, Facts, Forecast, ForecastMethod, Guest, Quantiles, UdpService, UdpSocket},
    rule::catalogue::Catalogues,
};

/// Fills in what follows from the facts, and predicts the migration.
pub fn derive(mut facts: Facts, catalogues: &Catalogues) -> (Facts, Forecast) {
    if let Fact::Known(guest) = &mut facts.guest {
        fill_budgets(guest);
        fill_services(guest, catalogues);
        if guest.memory_sync.known().is_none() {
            let mut found = catalogues.recognise(guest);
            if let Fact::Known(found) = &mut found {
                catalogues.prefer_detectors(found, guest);
            }
            guest.memory_sync = found;
        }
    }
    let forecast = forecast(&facts);
    (facts, forecast)
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
            budget::fill(connection, &guest.sysctl);
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

/// Who owns the guest's end of a flow: the owner of the sockets with its port, where that is one.
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
            _ => {
                Fact::unknown(Cause::NotSupported, "no socket, or several of different owners, has the port")
            }
        }
    })
}

/// The prediction from rates alone. A replay of a measured trace will take its place where there is one.
fn forecast(facts: &Facts) -> Forecast {
    let limit = facts.change.longest_blackout_seconds;
    let bandwidth = facts.path.as_ref().and_then(|path| precopy::bandwidth(path, &facts.change));
    let rate = facts.vm.as_ref().and_then(|vm| vm.dirty_rate.as_ref().map(|rate| rate.rate_bytes_per_second));
    let memory = facts.vm.as_ref().and_then(|vm| vm.memory_bytes.clone());
    let ratio = precopy::ratio(&rate, &bandwidth);
    Forecast {
        method: Fact::Known(ForecastMethod::Assumed),
        blackout_seconds: assumed_blackout(limit),
        total_seconds: precopy::total(&memory, &bandwidth, &ratio),
        dirty_to_bandwidth_ratio: ratio,
    }
}

/// QEMU stops the guest when it believes that the rest can be sent within the limit. It does not count what the socket
/// still holds, device state, the hand-over of locks and libvirt's round trips: of a limit of 300 ms, 285 to 353 ms
/// were measured for the first alone (FORECAST.md). Twice the limit covers them, half of it is a guest that hardly
/// writes. An assumption, and said to be one.
fn assumed_blackout(limit_seconds: f64) -> Fact<Quantiles> {
    if limit_seconds.is_finite() && limit_seconds > 0.0 {
        let p50 = limit_seconds;
        Fact::Known(Quantiles { p5: p50 / 2.0, p50, p95: p50 * 2.0 })
    } else {
        Fact::unknown(Cause::Malformed, format!("a longest blackout of {limit_seconds} s is not one"))
    }
}

#[cfg(test)]
mod tests;
