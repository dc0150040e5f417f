//! The dark time of the guest's network: the time from the guest's start at the destination until packets reach it again.
//!
//! A figure that somebody measured for this move comes first, then a rehearsal of the network, then what follows from the attachments
//! at both hosts. Earlier moves between the same hosts over the same network are held beside the derived figure: they can make
//! it longer, and decide what cannot be derived.

mod attachment;

use attachment::{Derived, Meanwhile, host_name};
use vmgate_facts::{
    DarkBasis, DarkInterface, Fact, Facts, FlowDirection, Forecast, GuestNetwork, NetworkRehearsal,
    Quantiles, VmNic,
};

/// Fewest earlier moves that decide an unknown dark time: the next is longer than the longest of 19 once in twenty times.
const DECIDES: usize = 19;
/// Fewest earlier moves that make a derived dark time longer: what happened can happen again.
const CORRECTS: usize = 3;

/// Part of a silence that was heard which is neither QEMU's downtime nor the network's: libvirt's hand-over. The forecast of the
/// blackout has it already.
const HAND_OVER_SECONDS: f64 = 0.5;

const ZERO: Quantiles = Quantiles { p5: 0.0, p50: 0.0, p95: 0.0 };

/// Derives the dark time of the guest's network and, with the blackout, the silence that its peers see.
pub(super) fn derive(facts: &mut Facts, forecast: &mut Forecast) {
    let network = guest_network(facts, &forecast.total_seconds);
    if let Fact::Known(path) = &mut facts.path
        && path.guest_network.known().is_none()
    {
        path.guest_network = network;
    }
    let network = facts.path.as_ref().and_then(|path| path.guest_network.as_ref());
    let both = forecast.blackout_seconds.as_ref().and_then(|blackout| {
        network.and_then(|network| network.dark_seconds.as_ref().map(|dark| (*blackout, *dark, network)))
    });
    forecast.silence_seconds = both.clone().map(|(blackout, dark, _)| sum(blackout, dark));
    forecast.silence_parts = both.and_then(|(blackout, dark, network)| {
        network.dark_because.as_ref().map(|why| parts(blackout, dark, why))
    });
}

/// The parts of a silence in words.
fn parts(blackout: Quantiles, dark: Quantiles, because: &str) -> String {
    let seconds =
        |seconds: f64| if seconds >= 9.95 { format!("{seconds:.0}") } else { format!("{seconds:.2}") };
    format!(
        "{} s (QEMU) + {} s ({because}); at most {} s + {} s (p95)",
        seconds(blackout.p50),
        seconds(dark.p50),
        seconds(blackout.p95),
        seconds(dark.p95)
    )
}

fn guest_network(facts: &Facts, copy: &Fact<Quantiles>) -> Fact<GuestNetwork> {
    if let Some(measured) = facts.change.network_dark_seconds {
        return Fact::Known(GuestNetwork {
            dark_seconds: Fact::Known(always(measured)),
            dark_because: Fact::Known("as measured, by the change or --network-dark".to_owned()),
            interfaces: Fact::Known(Vec::new()),
        });
    }
    let nics = facts.vm.as_ref().and_then(|vm| vm.nics.as_ref());
    nics.map(|nics| {
        let up: Vec<_> = nics.iter().filter(|nic| nic.link_up).collect();
        // Of several interfaces nobody noted which one it spoke at.
        let speaks_every_seconds = speaks_every_seconds(facts).filter(|_| up.len() == 1);
        let meanwhile = Meanwhile { copy, speaks_every_seconds };
        let mut interfaces: Vec<_> = up.iter().map(|nic| interface(nic, facts, meanwhile)).collect();
        // What is unknown may take longest.
        interfaces.sort_by(|a, b| longest(b).total_cmp(&longest(a)));
        let slowest = interfaces.first();
        GuestNetwork {
            dark_seconds: slowest.map_or(Fact::Known(ZERO), |slowest| slowest.dark_seconds.clone()),
            dark_because: Fact::Known(
                slowest.map_or("the VM has no interface that is up", |slowest| &slowest.because).to_owned(),
            ),
            interfaces: Fact::Known(interfaces),
        }
    })
}

/// Time between two packets that the guest was seen to send unasked: datagrams that nobody answers, sessions that it keeps alive.
fn speaks_every_seconds(facts: &Facts) -> Option<f64> {
    let guest = facts.guest.known()?;
    let capture = guest.udp.known().and_then(|udp| udp.flows.known());
    let datagrams = capture.into_iter().flat_map(|capture| {
        let unasked = capture.flows.iter().filter(|flow| flow.direction == FlowDirection::FromGuest);
        unasked.map(|flow| 1.0 / flow.packets_per_second)
    });
    let sessions = guest.wire.known().into_iter().flat_map(|wire| &wire.control);
    let sessions = sessions.filter(|session| session.packets_from_guest > 0);
    let keepalives = sessions.filter_map(|session| session.interval_seconds.known().copied());
    datagrams.chain(keepalives).filter(|every| every.is_finite()).min_by(f64::total_cmp)
}

fn always(seconds: f64) -> Quantiles {
    Quantiles { p5: seconds, p50: seconds, p95: seconds }
}

fn longest(interface: &DarkInterface) -> f64 {
    interface.dark_seconds.known().map_or(f64::INFINITY, |dark| dark.p95)
}

fn sum(a: Quantiles, b: Quantiles) -> Quantiles {
    Quantiles { p5: a.p5 + b.p5, p50: a.p50 + b.p50, p95: a.p95 + b.p95 }
}

fn interface(nic: &VmNic, facts: &Facts, meanwhile: Meanwhile<'_>) -> DarkInterface {
    let network = nic.network();
    let derived = attachment::derive(nic, &facts.source, &facts.destination, meanwhile);
    let rehearsals = facts.path.known().and_then(|path| path.network_rehearsals.known());
    let rehearsal = rehearsals.and_then(|all| all.iter().find(|one| one.network == network));
    let (dark_seconds, because, basis) = match rehearsal {
        Some(rehearsal) => rehearsed(rehearsal, &derived, facts, meanwhile),
        None => with_past_moves(derived, &past_dark_seconds(facts, &network)),
    };
    DarkInterface {
        mac: nic.mac.clone(),
        network,
        dark_seconds,
        because,
        announcements: attachment::announcements(nic).to_owned(),
        basis,
    }
}

type Dark = (Fact<Quantiles>, String, DarkBasis);

/// The dark time that a rehearsal measured, from the making of the port on.
fn rehearsed(
    rehearsal: &NetworkRehearsal,
    derived: &Derived,
    facts: &Facts,
    meanwhile: Meanwhile<'_>,
) -> Dark {
    let bridge = &rehearsal.destination_bridge;
    let host = host_name(&facts.destination, "the destination");
    let measured = rehearsal.dark_seconds.unwrap_or(rehearsal.waited_seconds);
    // What waits from the making of the port does so while the copy runs; a control plane begins with the guest.
    let during_copy = derived.runs_during_copy && rehearsal.dark_seconds.is_some();
    let copy = if during_copy { meanwhile.copy } else { &Fact::Known(ZERO) };
    let mut dark = Quantiles { p5: 0.0, ..Meanwhile { copy, ..meanwhile }.after_copy(measured) };
    if !derived.runs_during_copy {
        // A control plane has heard the announcements, and passes them on.
        dark.p50 = measured;
    }
    let because = match rehearsal.dark_seconds {
        Some(seconds) => {
            let part =
                if derived.runs_during_copy { format!("; {}", derived.because) } else { String::new() };
            format!("a rehearsal reached bridge {bridge} of {host} after {seconds:.2} s{part}")
        }
        None => format!("a rehearsal did not reach bridge {bridge} of {host} within {measured:.0} s"),
    };
    (Fact::Known(dark), because, DarkBasis::Rehearsed)
}

/// Dark times of earlier moves between the same hosts over this network, the shortest first.
fn past_dark_seconds(facts: &Facts, network: &str) -> Vec<f64> {
    let past = facts.history.known().and_then(|history| history.past_silences.known());
    let of_network = past.into_iter().flatten().filter(|past| past.network == network);
    let mut seconds: Vec<f64> = of_network.map(|past| past.dark_seconds).collect();
    seconds.sort_by(f64::total_cmp);
    seconds
}

fn with_past_moves(derived: Derived, past: &[f64]) -> Dark {
    let seen = past.get(past.len() / 2).zip(past.first()).zip(past.last());
    let seen = seen.map(|((p50, p5), p95)| Quantiles { p5: *p5, p50: *p50, p95: *p95 });
    let because = |seen: Quantiles| {
        let moves = past.len();
        format!(
            "as {moves} earlier moves between these hosts had it, from {:.2} to {:.2} s",
            seen.p5, seen.p95
        )
    };
    match (&derived.dark_seconds, seen) {
        (Fact::Unknown(_), Some(seen)) if past.len() >= DECIDES => {
            (Fact::Known(seen), because(seen), DarkBasis::PastMoves)
        }
        (Fact::Known(dark), Some(seen))
            if past.len() >= CORRECTS && seen.p50 > dark.p95 + HAND_OVER_SECONDS =>
        {
            let longer = Quantiles { p5: dark.p5, p50: seen.p50, p95: seen.p95 };
            (Fact::Known(longer), because(seen), DarkBasis::PastMoves)
        }
        _ => (derived.dark_seconds, derived.because, DarkBasis::Derived),
    }
}

#[cfg(test)]
mod tests;
