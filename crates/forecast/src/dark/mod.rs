//! The dark time of the guest's network: the time from the guest's start at the destination until packets reach it again.
//!
//! A figure that somebody measured for this move comes first, then a rehearsal of the network, then what follows from the attachments
//! at both hosts. Earlier moves between the same hosts over the same network are held beside the derived figure: they can make
//! it longer, and decide what cannot be derived.

mod attachment;

use attachment::{Derived, after_copy, host_name};
use vmgate_facts::{
    DarkBasis, DarkInterface, Fact, Facts, Forecast, GuestNetwork, NetworkRehearsal, Quantiles, VmNic,
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
        let up = nics.iter().filter(|nic| nic.link_up);
        let mut interfaces: Vec<_> = up.map(|nic| interface(nic, facts, copy)).collect();
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

fn always(seconds: f64) -> Quantiles {
    Quantiles { p5: seconds, p50: seconds, p95: seconds }
}

fn longest(interface: &DarkInterface) -> f64 {
    interface.dark_seconds.known().map_or(f64::INFINITY, |dark| dark.p95)
}

fn sum(a: Quantiles, b: Quantiles) -> Quantiles {
    Quantiles { p5: a.p5 + b.p5, p50: a.p50 + b.p50, p95: a.p95 + b.p95 }
}

fn interface(nic: &VmNic, facts: &Facts, copy: &Fact<Quantiles>) -> DarkInterface {
    let network = nic.network();
    let derived = attachment::derive(nic, &facts.source, &facts.destination, copy);
    let rehearsals = facts.path.known().and_then(|path| path.network_rehearsals.known());
    let rehearsal = rehearsals.and_then(|all| all.iter().find(|one| one.network == network));
    let (dark_seconds, because, basis) = match rehearsal {
        Some(rehearsal) => rehearsed(rehearsal, &derived, facts, copy),
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
fn rehearsed(rehearsal: &NetworkRehearsal, derived: &Derived, facts: &Facts, copy: &Fact<Quantiles>) -> Dark {
    let bridge = &rehearsal.destination_bridge;
    let host = host_name(&facts.destination, "the destination");
    let measured = rehearsal.dark_seconds.unwrap_or(rehearsal.waited_seconds);
    // What waits from the making of the port does so while the copy runs; a control plane begins with the guest.
    let copy =
        if derived.runs_during_copy && rehearsal.dark_seconds.is_some() { copy } else { &Fact::Known(ZERO) };
    let dark = Quantiles { p5: 0.0, ..after_copy(measured, copy) };
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
mod tests {
    use vmgate_facts::{
        Bridge, BridgeController, History, Host, PastSilence, RehearsedSettings, SpanningTree, Uplink,
        VirtualNetwork,
    };

    use super::{attachment::ANNOUNCED, *};
    use crate::tests::fixture;

    const COPY: Quantiles = Quantiles { p5: 1.0, p50: 2.0, p95: 4.0 };

    /// Derived network of a fixture whose interface and destination were changed.
    fn derived(change: impl Fn(&mut VmNic, &mut Bridge, &mut Host)) -> GuestNetwork {
        let mut facts = fixture("idle-vm");
        let Fact::Known(vm) = &mut facts.vm else { panic!("no VM") };
        let Fact::Known(nics) = &mut vm.nics else { panic!("no interfaces") };
        let Fact::Known(host) = &mut facts.destination else { panic!("no destination") };
        let mut bridge = host.bridges.known().unwrap()[0].clone();
        change(&mut nics[0], &mut bridge, host);
        host.bridges = Fact::Known(vec![bridge]);
        guest_network(&facts, &Fact::Known(COPY)).known().unwrap().clone()
    }

    fn unknown(network: &GuestNetwork) -> &str {
        let Fact::Unknown(why) = &network.dark_seconds else { panic!("{network:?}") };
        &why.reason
    }

    #[test]
    fn a_bridge_that_learns_follows_the_announcement() {
        let network = derived(|_, _, _| {});
        assert_eq!(network.dark_seconds, Fact::Known(ANNOUNCED));
        let none = derived(|nic, _, _| nic.link_up = false);
        assert_eq!(none.dark_seconds, Fact::Known(ZERO));
    }

    #[test]
    fn the_copy_runs_while_a_spanning_tree_listens() {
        let network = derived(|_, bridge, _| {
            bridge.spanning_tree = Fact::Known(SpanningTree::Stp);
            bridge.forward_delay_seconds = Fact::Known(4.0);
        });
        let dark = *network.dark_seconds.known().unwrap();
        assert_eq!((dark.p5, dark.p50, dark.p95), (4.0, 6.0, 53.0));
        assert!(network.dark_because.known().unwrap().contains("bridge br0 of hv2 learns for 2 × 4 s, STP"));
        let short = derived(|_, bridge, _| {
            bridge.spanning_tree = Fact::Known(SpanningTree::Stp);
            bridge.forward_delay_seconds = Fact::Known(0.5);
        });
        assert_eq!(short.dark_seconds, Fact::Known(ANNOUNCED));
    }

    #[test]
    fn nobody_guesses_what_a_controller_or_an_unseen_attachment_takes() {
        for controller in [
            BridgeController::Ovn,
            BridgeController::Evpn,
            BridgeController::Openflow,
            BridgeController::Echo,
        ] {
            let network = derived(|_, bridge, _| bridge.controlled_by = Fact::Known(controller));
            assert!(unknown(&network).contains("--network-dark"), "{controller:?}");
            let can_be_rehearsed = controller == BridgeController::Evpn;
            assert_eq!(unknown(&network).contains("--probe-network"), can_be_rehearsed, "{controller:?}");
        }
        let rstp = derived(|_, bridge, _| bridge.spanning_tree = Fact::Known(SpanningTree::Rstp));
        assert!(unknown(&rstp).contains("unless it is an edge port"));
        let controlled = derived(|nic, _, _| nic.virtual_port = Some("midonet".to_owned()));
        assert!(unknown(&controlled).contains("virtual port (midonet)"));
        for kind in ["hostdev", "vdpa", "vhostuser", "ethernet", "user", "what-comes-next"] {
            let network = derived(|nic, _, _| nic.kind = kind.to_owned());
            assert!(unknown(&network).contains(&format!("of kind {kind}")), "{kind}");
        }
        let gone = derived(|nic, _, _| nic.source = Some("br7".to_owned()));
        assert!(unknown(&gone).contains("no bridge br7"));
        let old = derived(|_, bridge, _| bridge.spanning_tree = Fact::default());
        assert!(old.dark_seconds.known().is_none());
    }

    #[test]
    fn a_network_of_libvirt_stands_for_its_bridge() {
        let on = |forward: &str, bridge: Option<&str>| {
            derived(|nic, _, host| {
                (nic.kind, nic.source) = ("network".to_owned(), Some("lan".to_owned()));
                let mut network: VirtualNetwork = host.virtual_networks.known().unwrap()[0].clone();
                network.name = "lan".to_owned();
                network.forward = Fact::Known(forward.to_owned());
                network.bridge = bridge.map(str::to_owned);
                host.virtual_networks = Fact::Known(vec![network]);
            })
        };
        for forward in ["bridge", "nat", "isolated"] {
            assert_eq!(on(forward, Some("br0")).dark_seconds, Fact::Known(ANNOUNCED), "{forward}");
        }
        for forward in ["route", "open", "what-comes-next"] {
            assert!(unknown(&on(forward, Some("br0"))).contains(forward));
        }
        // A pool of physical interfaces for macvtap.
        assert!(on("private", None).dark_seconds.known().is_some());
        assert!(unknown(&on("passthrough", None)).contains("forward mode passthrough"));
    }

    #[test]
    fn macvtap_is_announced_but_to_neighbours_on_the_source_host() {
        let mode = |mode: Option<&str>| {
            derived(|nic, _, _| {
                (nic.kind, nic.source) = ("direct".to_owned(), Some("eth1".to_owned()));
                nic.direct_mode = mode.map(str::to_owned);
            })
        };
        for shared in [None, Some("vepa"), Some("bridge"), Some("private")] {
            let because = mode(shared).dark_because.known().unwrap().clone();
            assert!(because.contains("neighbours on hv1"), "{because}");
        }
        assert!(unknown(&mode(Some("passthrough"))).contains("has eth1 for itself"));
    }

    #[test]
    fn a_bridge_must_lead_out_in_the_vlan_of_the_interface() {
        let with = |uplinks: Vec<(bool, Option<Vec<u32>>)>, tag: Option<u32>| {
            derived(|nic, bridge, _| {
                nic.vlan_tags = tag.into_iter().collect();
                bridge.default_vlan = Some(1);
                let uplink = |(forwards, vlans): &(bool, Option<Vec<u32>>)| Uplink {
                    name: "eth0".to_owned(),
                    forwards: *forwards,
                    vlans: vlans.clone(),
                };
                bridge.uplinks = Fact::Known(uplinks.iter().map(uplink).collect());
            })
        };
        let both = Some(vec![1, 42]);
        assert_eq!(with(vec![(true, both.clone())], Some(42)).dark_seconds, Fact::Known(ANNOUNCED));
        assert_eq!(with(vec![(true, None)], Some(42)).dark_seconds, Fact::Known(ANNOUNCED));
        assert_eq!(with(vec![(false, None), (true, None)], None).dark_seconds, Fact::Known(ANNOUNCED));
        let missing = with(vec![(true, both)], Some(7));
        assert!(unknown(&missing).contains("`bridge vlan add dev eth0 vid 7`"), "{}", unknown(&missing));
        assert!(unknown(&with(vec![(true, Some(vec![42]))], None)).contains("carries VLAN 1"));
        assert!(unknown(&with(vec![(false, None)], None)).contains("forwards to the network now (eth0)"));
        assert!(unknown(&with(vec![], None)).contains("no port but guests'"));
        let own = derived(|nic, bridge, host| {
            (nic.kind, nic.source) = ("network".to_owned(), Some("default".to_owned()));
            bridge.uplinks = Fact::Known(Vec::new());
            let mut network: VirtualNetwork = host.virtual_networks.known().unwrap()[0].clone();
            (network.name, network.bridge) = ("default".to_owned(), Some("br0".to_owned()));
            network.forward = Fact::Known("nat".to_owned());
            host.virtual_networks = Fact::Known(vec![network]);
        });
        assert_eq!(own.dark_seconds, Fact::Known(ANNOUNCED));
    }

    fn measured(dark_seconds: Option<f64>, change: impl Fn(&mut Bridge)) -> GuestNetwork {
        let mut facts = fixture("idle-vm");
        let Fact::Known(host) = &mut facts.destination else { panic!("no destination") };
        let mut bridge = host.bridges.known().unwrap()[0].clone();
        change(&mut bridge);
        host.bridges = Fact::Known(vec![bridge.clone()]);
        let Fact::Known(path) = &mut facts.path else { panic!("no path") };
        path.network_rehearsals = Fact::Known(vec![NetworkRehearsal {
            at: facts.collected_at,
            network: "bridge br0".to_owned(),
            source_bridge: "br0".to_owned(),
            destination_bridge: "br0".to_owned(),
            settings: RehearsedSettings::of(&bridge),
            dark_seconds,
            waited_seconds: 75.0,
        }]);
        guest_network(&facts, &Fact::Known(COPY)).known().unwrap().clone()
    }

    #[test]
    fn a_rehearsal_is_believed_and_the_copy_runs_while_a_port_waits() {
        let evpn = |bridge: &mut Bridge| bridge.controlled_by = Fact::Known(BridgeController::Evpn);
        let stp = |bridge: &mut Bridge| {
            bridge.spanning_tree = Fact::Known(SpanningTree::Stp);
            bridge.forward_delay_seconds = Fact::Known(15.0);
        };
        let dark = |network: &GuestNetwork| *network.dark_seconds.known().unwrap();
        let found = measured(Some(3.0), evpn);
        assert_eq!(dark(&found), Quantiles { p5: 0.0, p50: 3.0, p95: 53.0 });
        assert_eq!(found.interfaces.known().unwrap()[0].basis, DarkBasis::Rehearsed);
        assert_eq!(dark(&measured(Some(30.1), stp)), Quantiles { p5: 0.0, p50: 28.1, p95: 53.0 });
        assert!((dark(&measured(Some(0.02), |_| {})).p95 - 0.05).abs() < 1e-9);
        let never = measured(None, |_| {});
        assert!(dark(&never).p95 >= 75.0);
        assert!(never.dark_because.known().unwrap().contains("did not reach bridge br0 of hv2 within 75 s"));
    }

    #[test]
    fn earlier_moves_lengthen_what_is_derived_and_decide_what_is_not() {
        let past = |number: usize, seconds: f64, controller: BridgeController| {
            let mut facts = fixture("idle-vm");
            let Fact::Known(host) = &mut facts.destination else { panic!("no destination") };
            let Fact::Known(bridges) = &mut host.bridges else { panic!("no bridges") };
            bridges[0].controlled_by = Fact::Known(controller);
            let at = facts.collected_at;
            let silence = |network: &str, dark_seconds| PastSilence {
                at,
                network: network.to_owned(),
                silence_seconds: dark_seconds + 0.2,
                dark_seconds,
            };
            let mut all = vec![silence("bridge br0", seconds); number];
            all.push(silence("bridge br9", 60.0));
            facts.history = Fact::Known(History { past_silences: Fact::Known(all), ..History::default() });
            let network = guest_network(&facts, &Fact::Known(COPY)).known().unwrap().clone();
            (network.dark_seconds.known().map(|dark| dark.p95), network.interfaces.known().unwrap()[0].basis)
        };
        assert_eq!(past(19, 8.0, BridgeController::Evpn), (Some(8.0), DarkBasis::PastMoves));
        assert_eq!(past(18, 8.0, BridgeController::Evpn), (None, DarkBasis::Derived));
        assert_eq!(past(3, 8.0, BridgeController::Itself), (Some(8.0), DarkBasis::PastMoves));
        assert_eq!(past(2, 8.0, BridgeController::Itself), (Some(0.05), DarkBasis::Derived));
        assert_eq!(
            past(40, 0.02, BridgeController::Itself),
            (Some(0.05), DarkBasis::Derived),
            "never shorter than derived"
        );
        assert_eq!(
            past(40, 0.4, BridgeController::Itself),
            (Some(0.05), DarkBasis::Derived),
            "libvirt's hand-over is no network's"
        );
    }

    #[test]
    fn a_measured_figure_decides_and_the_longest_interface_counts() {
        let mut facts = fixture("idle-vm");
        facts.change.network_dark_seconds = Some(25.0);
        let network = guest_network(&facts, &Fact::default());
        assert_eq!(network.known().unwrap().dark_seconds.known().unwrap().p95.to_bits(), 25.0_f64.to_bits());
        facts.change.network_dark_seconds = None;
        let Fact::Known(vm) = &mut facts.vm else { panic!("no VM") };
        let Fact::Known(nics) = &mut vm.nics else { panic!("no interfaces") };
        let mut second = nics[0].clone();
        second.kind = "hostdev".to_owned();
        nics.push(second);
        let network = guest_network(&facts, &Fact::default());
        assert!(unknown(network.known().unwrap()).contains("of kind hostdev"));
    }

    #[test]
    fn the_silence_is_the_blackout_and_the_dark_time() {
        let mut facts = fixture("idle-vm");
        let mut forecast = Forecast { blackout_seconds: Fact::Known(COPY), ..Forecast::default() };
        derive(&mut facts, &mut forecast);
        let parts = forecast.silence_parts.known().unwrap();
        assert!(parts.starts_with("2.00 s (QEMU) + 0.01 s (switches learn"), "{parts}");
        assert!(parts.ends_with("; at most 4.00 s + 0.05 s (p95)"), "{parts}");
        assert_eq!(forecast.silence_seconds, Fact::Known(Quantiles { p5: 1.0, p50: 2.01, p95: 4.05 }));
    }
}
