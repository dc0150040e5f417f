//! The true silence of a move: before it begins, the source host starts to ask the guest by ARP over its own bridge, as any
//! neighbour may, and the longest time without an answer is what the guest's peers saw.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use vmgate_facts::{Facts, HeardGuest, Host, NetworkOrder, VmNic};
use vmgate_ledger::NetworkSilence;
use vmgate_reach::LastingRun;

use super::{Hosts, network_rehearsal::start};

/// Most addresses that one interface is asked for.
const MOST_ADDRESSES: usize = 2;
/// Time before the switchover for which the guest must have been heard.
const HEARD_BEFORE: Duration = Duration::from_millis(500);
/// Shortest wait for a guest that is not heard after its move.
const PATIENCE_SECONDS: f64 = 15.0;

/// Listening to the interfaces of a VM, which ends when this is dropped.
pub(super) struct Listening(Vec<ListenedTo>);

struct ListenedTo {
    mac: String,
    network: String,
    run: LastingRun,
}

impl Listening {
    /// Starts to listen to all interfaces that can be asked: on a bridge that both hosts share, with an address of the guest.
    pub(super) fn start(hosts: &Hosts, facts: &Facts) -> Self {
        let addresses = addresses(facts);
        let nics = facts.vm.known().and_then(|vm| vm.nics.known()).map(Vec::as_slice).unwrap_or_default();
        let dark = facts.path.known().and_then(|path| path.guest_network.known()?.dark_seconds.known());
        let patience_seconds = PATIENCE_SECONDS.max(dark.map_or(0.0, |dark| 2.0 * dark.p95));
        let listened = |nic: &VmNic| {
            let bridge = shared_bridge(nic, facts.source.known()?)?;
            let (mac, addresses) = (nic.mac.clone(), addresses.clone());
            let order = NetworkOrder::Listen { bridge, mac, addresses, patience_seconds };
            let run = start(&hosts.source, &order).ok()?;
            Some(ListenedTo { mac: nic.mac.clone(), network: nic.network(), run })
        };
        let asked = nics.iter().filter(|nic| nic.link_up && !addresses.is_empty());
        Self(asked.filter_map(listened).collect())
    }

    /// Ends listening, some time after the guest is heard again. `arrived` is the time at which the migration was seen to
    /// have ended.
    pub(super) fn end(self, arrived: Instant, downtime: Duration) -> Vec<NetworkSilence> {
        self.0.into_iter().filter_map(|one| one.end(arrived, downtime)).collect()
    }
}

impl ListenedTo {
    fn end(self, arrived: Instant, downtime: Duration) -> Option<NetworkSilence> {
        let answer = self.run.end().map_err(|error| error.to_string());
        let heard = answer.and_then(|answer| {
            serde_json::from_slice::<HeardGuest>(&answer).map_err(|error| error.to_string())
        });
        match heard {
            Ok(heard) => {
                silence(&heard, arrived.elapsed() + downtime).map(|(silence_seconds, heard_again)| {
                    NetworkSilence { mac: self.mac, network: self.network, silence_seconds, heard_again }
                })
            }
            Err(why) => {
                tracing::warn!("nobody listened to interface {} during the move: {why}", self.mac);
                None
            }
        }
    }
}

/// Silence and whether the guest was heard again; none if it was not heard before the switchover, which began this long ago.
fn silence(heard: &HeardGuest, since_switchover: Duration) -> Option<(f64, bool)> {
    let before = heard.heard_for_seconds > (since_switchover + HEARD_BEFORE).as_secs_f64();
    let (longest, now) = (heard.longest_silence_seconds, heard.silent_since_seconds);
    before.then_some((longest.max(now), now < longest.max(1.0)))
}

/// IPv4 addresses of the guest.
fn addresses(facts: &Facts) -> Vec<Ipv4Addr> {
    let known = facts.guest.known().and_then(|guest| guest.addresses.known());
    let parsed = known.into_iter().flatten().filter_map(|text| text.parse().ok());
    parsed.filter(|address: &Ipv4Addr| !address.is_link_local()).take(MOST_ADDRESSES).collect()
}

/// Bridge of the source over which a guest at the destination can be reached as well: not one behind each host's own NAT.
fn shared_bridge(nic: &VmNic, source: &Host) -> Option<String> {
    match nic.kind.as_str() {
        "bridge" => nic.source.clone(),
        "network" => {
            let networks = source.virtual_networks.known()?;
            let network = networks.iter().find(|network| Some(&network.name) == nic.source.as_ref())?;
            let bridged = network.forward.known().is_some_and(|forward| forward == "bridge");
            network.bridge.clone().filter(|_| bridged)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(heard_for: f64, longest: f64, since: f64) -> HeardGuest {
        HeardGuest {
            frames: 10,
            heard_for_seconds: heard_for,
            longest_silence_seconds: longest,
            silent_since_seconds: since,
        }
    }

    #[test]
    fn a_guest_that_was_not_heard_before_tells_nothing() {
        let since = Duration::from_secs(3);
        assert_eq!(silence(&heard(10.0, 0.2, 0.01), since), Some((0.2, true)));
        assert_eq!(silence(&heard(2.0, 0.1, 0.01), since), None);
        assert_eq!(silence(&heard(40.0, 0.1, 20.0), since), Some((20.0, false)));
    }
}
