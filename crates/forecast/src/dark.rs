//! The dark time of the guest's network: the time from the guest's start at the destination until packets reach it again.
//!
//! QEMU announces each interface at the start and after 50, 200, 450 and 800 ms (announce-initial, -step, -rounds), so that
//! a network that learns from packets follows at once. Three things make it slower: a bridge with a spanning tree, whose new
//! port does not forward for twice the forward delay (Linux br_make_forwarding; the port is new when the destination
//! prepares, so that the copy runs meanwhile); a control plane that must be told (EVPN, OVN, OpenFlow, a routing daemon);
//! and an attachment that vmgate cannot see through. The second and third are unknown unless somebody measured them.

use vmgate_facts::{
    Bridge, BridgeController, Cause, DarkInterface, Fact, Facts, Forecast, GuestNetwork, Host, Quantiles,
    SpanningTree, Unknown, VmNic,
};

/// Dark time of a network that learns from QEMU's announcements: the first is sent with the start, and where it is lost the
/// second comes 50 ms later.
const ANNOUNCED: Quantiles = Quantiles { p5: 0.0, p50: 0.01, p95: 0.05 };

/// Cause of a dark time that comes from announcements alone.
const LEARNT: &str = "switches learn the guest's new port from QEMU's announcements";

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
        let because = network.dark_because.as_ref();
        because.map(|because| format!("{:.2} s (QEMU) + {:.2} s ({because})", blackout.p50, dark.p50))
    });
}

fn guest_network(facts: &Facts, copy: &Fact<Quantiles>) -> Fact<GuestNetwork> {
    if let Some(measured) = facts.change.network_dark_seconds {
        return Fact::Known(GuestNetwork {
            dark_seconds: Fact::Known(Quantiles { p5: measured, p50: measured, p95: measured }),
            dark_because: Fact::Known("as measured, by the change or --network-dark".to_owned()),
            interfaces: Fact::Known(Vec::new()),
        });
    }
    let nics = facts.vm.as_ref().and_then(|vm| vm.nics.as_ref());
    nics.map(|nics| {
        let up = nics.iter().filter(|nic| nic.link_up);
        let mut interfaces: Vec<_> = up.map(|nic| interface(nic, &facts.destination, copy)).collect();
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

const ZERO: Quantiles = Quantiles { p5: 0.0, p50: 0.0, p95: 0.0 };

fn longest(interface: &DarkInterface) -> f64 {
    interface.dark_seconds.known().map_or(f64::INFINITY, |dark| dark.p95)
}

fn sum(a: Quantiles, b: Quantiles) -> Quantiles {
    Quantiles { p5: a.p5 + b.p5, p50: a.p50 + b.p50, p95: a.p95 + b.p95 }
}

fn interface(nic: &VmNic, destination: &Fact<Host>, copy: &Fact<Quantiles>) -> DarkInterface {
    let (dark_seconds, because) = match attachment(nic, destination) {
        Ok(bridge) => of_bridge(&bridge, &host_name(destination), copy),
        Err(unknown) => (Fact::Unknown(unknown.clone()), unknown.reason),
    };
    DarkInterface { mac: nic.mac.clone(), dark_seconds, because }
}

/// Bridge at the destination to which the interface will be attached.
fn attachment(nic: &VmNic, destination: &Fact<Host>) -> Result<Bridge, Unknown> {
    let host = known(destination.as_ref())?;
    let source = nic.source.as_deref().unwrap_or_default();
    let name = match nic.kind.as_str() {
        "bridge" => source.to_owned(),
        "network" => network_bridge(host, source)?,
        kind => return Err(nobody_measured(&format!("interface {} of kind {kind}", nic.mac))),
    };
    let bridges = known(host.bridges.as_ref())?;
    bridges.iter().find(|bridge| bridge.name == name).cloned().ok_or_else(|| {
        Unknown::new(
            Cause::NotSupported,
            format!("the destination has no bridge {name} for interface {}", nic.mac),
        )
    })
}

/// Bridge of a libvirt network, if guests are on one network with it at both hosts or behind each host's own NAT.
fn network_bridge(host: &Host, name: &str) -> Result<String, Unknown> {
    let networks = known(host.virtual_networks.as_ref())?;
    let network = networks.iter().find(|network| network.name == name).ok_or_else(|| {
        Unknown::new(Cause::NotSupported, format!("the destination has no active network {name}"))
    })?;
    let forward = known(network.forward.as_ref())?;
    match (forward.as_str(), &network.bridge) {
        ("bridge" | "nat" | "isolated", Some(bridge)) => Ok(bridge.clone()),
        (mode, _) => Err(nobody_measured(&format!("network {name} with forward mode {mode}"))),
    }
}

fn of_bridge(bridge: &Bridge, host: &str, copy: &Fact<Quantiles>) -> (Fact<Quantiles>, String) {
    let (name, unknown) = (&bridge.name, |why: &Unknown| (Fact::Unknown(why.clone()), why.reason.clone()));
    match &bridge.controlled_by {
        Fact::Known(BridgeController::Itself) => {}
        Fact::Known(controller) => {
            let plane = match controller {
                BridgeController::Ovn => "OVN",
                BridgeController::Evpn => "EVPN",
                _ => "an OpenFlow controller",
            };
            let what = format!("bridge {name} of {host}, which {plane} tells where to forward");
            return unknown(&nobody_measured(&what));
        }
        Fact::Unknown(why) => return unknown(why),
    }
    let delay = match (&bridge.spanning_tree, &bridge.forward_delay_seconds) {
        (Fact::Known(SpanningTree::None), _) => return (Fact::Known(ANNOUNCED), LEARNT.to_owned()),
        (Fact::Known(_), Fact::Known(delay)) => *delay,
        (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => return unknown(why),
    };
    if bridge.spanning_tree == Fact::Known(SpanningTree::Rstp) {
        let what = format!(
            "bridge {name} of {host}, where RSTP lets a new port wait for up to 2 × {delay} s unless it is an edge port"
        );
        return unknown(&nobody_measured(&what));
    }
    // The port is made when the destination prepares: what the copy takes is over when the guest starts there.
    let copy = copy.known().copied().unwrap_or(ZERO);
    let dark = |copied: f64, least: f64| (2.0 * delay - copied).max(least);
    let dark = Quantiles {
        p5: dark(copy.p95, ANNOUNCED.p5),
        p50: dark(copy.p50, ANNOUNCED.p50),
        p95: dark(copy.p5, ANNOUNCED.p95),
    };
    let because = format!(
        "bridge {name} of {host} listens and learns for 2 × {delay} s before a new port forwards (STP)"
    );
    (Fact::Known(dark), because)
}

fn nobody_measured(what: &str) -> Unknown {
    Unknown::new(
        Cause::NotAllowed,
        format!(
            "nobody measured how soon the network follows a VM on {what}: measure it, and give the seconds as \
             --network-dark or as network_dark_seconds in the goals of the change"
        ),
    )
}

fn host_name(host: &Fact<Host>) -> String {
    let name = host.known().and_then(|host| host.hostname.known());
    name.map_or("the destination", |name| name.split('.').next().unwrap_or(name)).to_owned()
}

fn known<T>(fact: Fact<T>) -> Result<T, Unknown> {
    match fact {
        Fact::Known(value) => Ok(value),
        Fact::Unknown(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::VirtualNetwork;

    use super::*;
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
        assert_eq!((dark.p5, dark.p50, dark.p95), (4.0, 6.0, 7.0));
        assert!(
            network
                .dark_because
                .known()
                .unwrap()
                .contains("bridge br0 of hv2 listens and learns for 2 × 4 s")
        );
        let short = derived(|_, bridge, _| {
            bridge.spanning_tree = Fact::Known(SpanningTree::Stp);
            bridge.forward_delay_seconds = Fact::Known(0.5);
        });
        assert_eq!(short.dark_seconds, Fact::Known(ANNOUNCED));
    }

    #[test]
    fn nobody_guesses_what_a_controller_or_an_unseen_attachment_takes() {
        for controller in [BridgeController::Ovn, BridgeController::Evpn, BridgeController::Openflow] {
            let network = derived(|_, bridge, _| bridge.controlled_by = Fact::Known(controller));
            assert!(unknown(&network).contains("--network-dark"), "{controller:?}");
        }
        let rstp = derived(|_, bridge, _| bridge.spanning_tree = Fact::Known(SpanningTree::Rstp));
        assert!(unknown(&rstp).contains("unless it is an edge port"));
        for kind in ["direct", "hostdev", "vhostuser", "ethernet", "user", "what-comes-next"] {
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
        assert!(unknown(&on("bridge", None)).contains("forward mode bridge"));
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
        second.kind = "direct".to_owned();
        nics.push(second);
        let network = guest_network(&facts, &Fact::default());
        assert!(unknown(network.known().unwrap()).contains("of kind direct"));
    }

    #[test]
    fn the_silence_is_the_blackout_and_the_dark_time() {
        let mut facts = fixture("idle-vm");
        let mut forecast = Forecast { blackout_seconds: Fact::Known(COPY), ..Forecast::default() };
        derive(&mut facts, &mut forecast);
        let parts = forecast.silence_parts.known().unwrap();
        assert!(parts.starts_with("2.00 s (QEMU) + 0.01 s (switches learn"), "{parts}");
        assert_eq!(forecast.silence_seconds, Fact::Known(Quantiles { p5: 1.0, p50: 2.01, p95: 4.05 }));
    }
}
