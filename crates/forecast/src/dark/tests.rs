//! Dark times of fixtures whose interface, bridges or past were changed.

use vmgate_facts::{
    Bridge, BridgeController, History, Host, PastSilence, RehearsedSettings, SpanningTree, SwitchPort,
    Uplink, VirtualNetwork,
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
    assert_eq!((dark.p5, dark.p50, dark.p95), (4.0, 38.0, 53.0));
    assert!(network.dark_because.known().unwrap().contains("bridge br0 of hv2 learns for 2 × 4 s, STP"));
    let short = derived(|_, bridge, _| {
        bridge.spanning_tree = Fact::Known(SpanningTree::Stp);
        bridge.forward_delay_seconds = Fact::Known(0.5);
    });
    assert_eq!(short.dark_seconds, Fact::Known(ANNOUNCED));
}

#[test]
fn a_switch_that_names_its_ports_vlans_must_name_the_guests() {
    let with = |vlans: &[u32], tag: Option<u32>, of_uplink: Option<u32>| {
        derived(|nic, bridge, _| {
            nic.vlan_tags = tag.into_iter().collect();
            let port = SwitchPort {
                nic: "eth0".to_owned(),
                switch: "sw2".to_owned(),
                port: "Ethernet1/7".to_owned(),
                vlans: vlans.to_vec(),
            };
            let uplink = Uplink {
                name: "eth0".to_owned(),
                forwards: true,
                vlans: None,
                tag: of_uplink,
                switch_ports: vec![port],
            };
            bridge.uplinks = Fact::Known(vec![uplink]);
        })
    };
    for (vlans, tag, of_uplink) in
        [(&[][..], Some(42), None), (&[1, 42], Some(42), None), (&[7], None, None), (&[42], None, Some(42))]
    {
        assert_eq!(with(vlans, tag, of_uplink).dark_seconds, Fact::Known(ANNOUNCED), "{vlans:?}");
    }
    for missing in [with(&[1, 7], Some(42), None), with(&[1, 7], None, Some(42))] {
        let says = "switch sw2 names the VLANs of its port Ethernet1/7, which leads to eth0 of hv2, and the guest's VLAN 42 is not";
        assert!(unknown(&missing).contains(says), "{}", unknown(&missing));
    }
}

#[test]
fn the_switches_are_named_by_what_they_told() {
    let because = |here: &str, there: &str| {
        let mut facts = fixture("idle-vm");
        for (host, switch) in [(&mut facts.source, here), (&mut facts.destination, there)] {
            let Fact::Known(host) = host else { panic!("no host") };
            let Fact::Known(bridges) = &mut host.bridges else { panic!("no bridges") };
            let Fact::Known(uplinks) = &mut bridges[0].uplinks else { panic!("no uplinks") };
            uplinks[0].switch_ports =
                vec![SwitchPort { switch: switch.to_owned(), port: "7".to_owned(), ..SwitchPort::default() }];
        }
        guest_network(&facts, &Fact::Known(COPY)).known().unwrap().dark_because.known().unwrap().clone()
    };
    assert!(because("sw1", "sw1").starts_with("switch sw1 learns the guest's new port 7 from"));
    assert!(because("sw1", "sw2").starts_with("switches sw1 and sw2 (port 7) learn"));
}

#[test]
fn a_guest_that_speaks_is_found_when_the_port_forwards() {
    let dark = |speaks_every_seconds, delay: f64| {
        Meanwhile { copy: &Fact::Known(COPY), speaks_every_seconds }.after_copy(2.0 * delay)
    };
    assert_eq!(dark(Some(0.02), 4.0), Quantiles { p5: 4.0, p50: 6.01, p95: 7.02 });
    assert_eq!(dark(Some(600.0), 4.0), dark(None, 4.0));
    assert_eq!(dark(None, 30.0), Quantiles { p5: 56.0, p50: 58.0, p95: 59.0 });

    let speaks_every = |direction| {
        let mut facts = fixture("busy-cluster-member");
        let flow = serde_json::json!({"local": "10.0.0.5:514", "remote": "10.0.0.9:514", "direction": direction,
            "packets_per_second": 50.0, "bytes_per_second": 5e3, "packets": 50, "bytes": 5000,
            "service": null});
        let capture = serde_json::json!({"interface": "vnet0", "window_seconds": 1.0, "method": "captured",
            "frames": 50, "drops": 0, "complete": true, "holes": [], "flows": [flow]});
        let Fact::Known(guest) = &mut facts.guest else { panic!("no guest") };
        let Fact::Known(udp) = &mut guest.udp else { panic!("no datagrams") };
        udp.flows = Fact::Known(serde_json::from_value(capture).unwrap());
        speaks_every_seconds(&facts)
    };
    assert_eq!(speaks_every(FlowDirection::FromGuest), Some(0.02));
    assert_eq!(speaks_every(FlowDirection::Both), None, "an answer is no speech");
}

#[test]
fn nobody_guesses_what_a_controller_or_an_unseen_attachment_takes() {
    for controller in
        [BridgeController::Ovn, BridgeController::Evpn, BridgeController::Openflow, BridgeController::Echo]
    {
        let network = derived(|_, bridge, _| bridge.controlled_by = Fact::Known(controller));
        assert!(unknown(&network).starts_with("nobody measured"), "{controller:?}");
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
                tag: None,
                switch_ports: Vec::new(),
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
    assert_eq!(dark(&measured(Some(30.1), stp)), Quantiles { p5: 0.0, p50: 38.0, p95: 53.0 });
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
