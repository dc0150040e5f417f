//! Migration ports of the destination: free ports, and their reachability from the source.

use std::ops::RangeInclusive;

use vmgate_facts::{Cause, Fact, MigrationPorts, PortsBasis, Unknown};

use crate::{host::NetworkProbe, path::PathEnd};

/// Range of migration ports in the destination's qemu.conf.
pub(crate) fn range(destination: &NetworkProbe) -> Fact<RangeInclusive<u16>> {
    destination.config.as_ref().map(|config| config.first_port..=config.last_port)
}

/// Port for a trial: the highest free one, since libvirt uses the lowest.
pub fn free_port(destination: &NetworkProbe) -> Fact<u16> {
    range(destination).and_then(|range| {
        destination.taken_ports.as_ref().and_then(|taken| {
            match range.clone().rev().find(|port| !taken.contains(port)) {
                Some(port) => Fact::Known(port),
                None => Fact::unknown(
                    Cause::NotSupported,
                    format!(
                        "no migration port from {} to {} is free at the destination",
                        range.start(),
                        range.end()
                    ),
                ),
            }
        })
    })
}

pub(super) fn of(source: &PathEnd, destination: &PathEnd) -> Fact<MigrationPorts> {
    range(&destination.network).map(|range| {
        let free = destination.network.taken_ports.as_ref().map(|taken| {
            u32::try_from(range.clone().filter(|port| !taken.contains(port)).count()).unwrap_or(0)
        });
        let (reachable, basis, detail) = match &source.peer {
            Fact::Known(peer) if peer.tried.known().is_some() => tried(source, destination),
            _ => by_rules(source, destination),
        };
        MigrationPorts { first: *range.start(), last: *range.end(), free, reachable, basis, detail }
    })
}

/// Result of the trial at the source. If the trial failed and the destination could not listen, nothing is proven.
fn tried(source: &PathEnd, destination: &PathEnd) -> (Fact<bool>, PortsBasis, String) {
    let there = source.with_peer(|peer| peer.tried.clone());
    let here = destination.with_peer(|peer| peer.tried.clone());
    match (there, here) {
        (Fact::Known(there), _) if there.met => (Fact::Known(true), PortsBasis::Tried, there.detail),
        (Fact::Known(there), Fact::Known(_)) => (Fact::Known(false), PortsBasis::Tried, there.detail),
        (Fact::Known(_), Fact::Unknown(why)) | (Fact::Unknown(why), _) => {
            let detail = why.reason.clone();
            (Fact::Unknown(why), PortsBasis::Tried, detail)
        }
    }
}

/// Reachability as far as the firewalls' rules show it.
fn by_rules(source: &PathEnd, destination: &PathEnd) -> (Fact<bool>, PortsBasis, String) {
    let chains = source.network.firewall.as_ref().and_then(|source| {
        destination.network.firewall.as_ref().map(|destination| {
            let out = source.outgoing.iter().map(|chain| format!("{chain} at the source"));
            let into = destination.incoming.iter().map(|chain| format!("{chain} at the destination"));
            out.chain(into).collect::<Vec<_>>()
        })
    });
    let (reachable, detail) = match chains {
        Fact::Known(chains) if chains.is_empty() => (
            Fact::Known(true),
            "neither host's firewall has a rule that could block the migration".to_owned(),
        ),
        Fact::Known(chains) => {
            let why = format!(
                "firewall rules may block the migration ({}): test with --probe-path",
                chains.join(", ")
            );
            (Fact::Unknown(Unknown::new(Cause::NotAllowed, why.clone())), why)
        }
        Fact::Unknown(why) => {
            let detail = why.reason.clone();
            (Fact::Unknown(why), detail)
        }
    };
    (reachable, PortsBasis::Rules, detail)
}
