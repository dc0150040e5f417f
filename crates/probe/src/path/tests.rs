//! The path worked out from made-up networks.

use vmgate_facts::{Cause, NicKind, PortsBasis, ShaperKind};

use crate::{
    host::{
        Firewall, MigrationConfig, RateLimit, RemoteStorage, RouteTo, Shapers,
        trial::{Rates, TrialResult},
    },
    path::*,
};

fn nic(name: &str, kind: NicKind, lower: &[&str], addresses: &[&str]) -> Nic {
    Nic {
        name: name.into(),
        kind,
        up: true,
        speed_bytes_per_second: (kind == NicKind::Physical).then_some(1_250_000_000),
        mtu_bytes: 1500,
        master: None,
        lower: lower.iter().map(|name| (*name).to_owned()).collect(),
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        errors: 0,
        drops: Fact::Known(0),
        duplex: None,
        vlan_id: None,
        bond: None,
    }
}

/// An end whose probe told interfaces and routes, and nothing else.
fn end<'a>(nics: &'a Fact<Vec<Nic>>, routes: &'a Fact<Vec<Route>>) -> PathEnd<'a> {
    PathEnd {
        nics,
        routes,
        network: NetworkProbe::default(),
        resolved: Fact::default(),
        peer: Fact::default(),
        tls_name: None,
    }
}

fn worked_out(source: &PathEnd, destination: &PathEnd, change: &Change) -> MigrationPath {
    path(
        Fact::Known(ADDRESS.parse().unwrap()),
        source,
        destination,
        change,
        Fact::Known(None),
        Err(not_measured()),
    )
}

fn not_measured() -> Unknown {
    Unknown::new(Cause::NotAllowed, "not measured")
}

const ADDRESS: &str = "10.77.1.2";

fn route(destination: &str, nic: &str, metric: u32) -> Route {
    Route { destination: destination.into(), nic: nic.into(), gateway: None, metric }
}

fn found(nics: Vec<Nic>, routes: Vec<Route>) -> MigrationPath {
    let (nics, routes) = (Fact::Known(nics), Fact::Known(routes));
    let end = end(&nics, &routes);
    worked_out(&end, &end, &Change::default())
}

#[test]
fn a_dedicated_interface_is_seen_as_one() {
    let nics = vec![
        nic("mig0", NicKind::Physical, &[], &["10.77.1.2/24"]),
        nic("eth0", NicKind::Physical, &[], &["192.0.2.1/24"]),
        nic("br0", NicKind::Bridge, &["eth0", "vnet0"], &[]),
        nic("vnet0", NicKind::Tap, &[], &[]),
    ];
    let routes = vec![
        route("0.0.0.0/0", "br0", 0),
        route("10.77.1.0/24", "mig0", 100),
        route("10.0.0.0/8", "eth0", 0),
    ];
    let path = found(nics, routes);
    let source = path.source_nic.known().unwrap();
    assert_eq!(
        (source.name.as_str(), source.guest_bridge.as_deref(), source.carries_default_route),
        ("mig0", None, false)
    );
    assert_eq!(path.destination_nic.known().unwrap().name, "mig0");
    assert_eq!(path.bandwidth_bytes_per_second, Fact::Known(1_250_000_000));
    assert_eq!(path.destination_address, Fact::Known("10.77.1.2".into()));
}

#[test]
fn sharing_with_guests_is_found_through_vlans_and_bonds() {
    let shared = |nics: Vec<Nic>, via: &str| {
        let path = found(nics, vec![route("10.77.0.0/16", via, 0), route("0.0.0.0/0", "br0", 0)]);
        let nic = path.source_nic.known().unwrap().clone();
        (nic.guest_bridge, nic.carries_default_route)
    };
    let eth0 = || nic("eth0", NicKind::Physical, &[], &[]);
    let bridge = |lower: &[&str]| nic("br0", NicKind::Bridge, lower, &["10.77.1.2/24"]);
    let tap = || Nic { master: Some("br0".into()), ..nic("vnet0", NicKind::Tap, &[], &[]) };
    assert_eq!(
        shared(vec![eth0(), bridge(&["eth0"]), tap()], "br0"),
        (Some("br0".into()), true),
        "the bridge itself"
    );
    assert_eq!(
        shared(vec![eth0(), bridge(&["eth0"]), tap()], "eth0"),
        (Some("br0".into()), true),
        "its port"
    );
    let vlan = |name: &str| nic(name, NicKind::Vlan, &["eth0"], &[]);
    assert_eq!(
        shared(vec![eth0(), vlan("eth0.10"), vlan("eth0.20"), bridge(&["eth0.20"]), tap()], "eth0.10"),
        (Some("br0".into()), true),
        "two VLANs on one wire"
    );
    let bond = nic("bond0", NicKind::Bond, &["eth0", "eth1"], &[]);
    assert_eq!(
        shared(
            vec![eth0(), nic("eth1", NicKind::Physical, &[], &[]), bond, bridge(&["bond0"]), tap()],
            "bond0"
        ),
        (Some("br0".into()), true),
        "the bond below the bridge"
    );
    let alone = nic("mig0", NicKind::Physical, &[], &[]);
    assert_eq!(shared(vec![eth0(), alone, bridge(&["eth0"]), tap()], "mig0"), (None, false));
}

#[test]
fn a_vlan_has_the_speed_of_its_wire_and_a_limit_counts() {
    let nics =
        vec![nic("eth0", NicKind::Physical, &[], &[]), nic("v", NicKind::Vlan, &["eth0"], &["10.77.1.2/24"])];
    let (nics, routes) = (Fact::Known(nics), Fact::Known(vec![route("10.77.1.0/24", "v", 0)]));
    let end = end(&nics, &routes);
    let change = Change { bandwidth_limit_bytes_per_second: Some(100), ..Change::default() };
    let limited = worked_out(&end, &end, &change);
    assert_eq!(limited.source_nic.known().unwrap().speed_bytes_per_second, Some(1_250_000_000));
    assert_eq!(limited.bandwidth_bytes_per_second, Fact::Known(100));
}

#[test]
fn what_is_missing_is_unknown_with_its_reason() {
    let path = found(vec![], vec![route("192.0.2.0/24", "eth0", 0)]);
    assert!(matches!(&path.source_nic, Fact::Unknown(why) if why.reason.contains("no route to 10.77.1.2")));
    assert!(
        matches!(&path.destination_nic, Fact::Unknown(why) if why.reason.contains("has the address 10.77.1.2"))
    );
    assert!(path.bandwidth_bytes_per_second.known().is_none());
}

#[test]
fn interfaces_in_a_circle_do_not_hang() {
    let a = nic("a", NicKind::Bridge, &["b"], &["10.77.1.2/24"]);
    let b = nic("b", NicKind::Vlan, &["a"], &[]);
    assert!(found(vec![a, b], vec![route("10.77.1.0/24", "a", 0)]).source_nic.known().is_some());
}

#[test]
fn the_kernels_own_answer_goes_before_the_main_table() {
    let nics = Fact::Known(vec![
        nic("mig0", NicKind::Physical, &[], &["10.77.1.2/24"]),
        nic("eth0", NicKind::Physical, &[], &["192.0.2.1/24"]),
    ]);
    let routes = Fact::Known(vec![route("10.77.1.0/24", "mig0", 0)]);
    let mut source = end(&nics, &routes);
    source.network.route = Fact::Known(RouteTo {
        to: ADDRESS.parse().unwrap(),
        from: "192.0.2.1".parse().unwrap(),
        route: PathRoute { nic: "eth0".into(), gateway: Some("192.0.2.254".into()), table: 100 },
    });
    let path = worked_out(&source, &end(&nics, &routes), &Change::default());
    assert_eq!(path.source_nic.known().unwrap().name, "eth0");
    assert_eq!(path.source_address, Fact::Known("192.0.2.1".into()));
    assert_eq!(path.route_there.known().unwrap().table, 100);
    assert!(path.route_back.known().is_none());
}

fn shaped(nics: Vec<Nic>, via: &str, on: &str, kind: ShaperKind) -> MigrationPath {
    let nics = Fact::Known(nics);
    let routes = Fact::Known(vec![route("10.77.1.0/24", via, 0)]);
    let mut end = end(&nics, &routes);
    let limit = RateLimit { nic: on.into(), kind, rate_bytes_per_second: 1000 };
    end.network.storage = Fact::Known(Vec::new());
    end.network.shapers = Fact::Known(Shapers { sent: vec![limit], received: Vec::new() });
    worked_out(&end, &end, &Change::default())
}

#[test]
fn a_bucket_that_guests_dip_into_limits_and_does_not_protect_them() {
    let nics = || {
        vec![
            nic("eth0", NicKind::Physical, &[], &[]),
            nic("eth0.10", NicKind::Vlan, &["eth0"], &["10.77.1.2/24"]),
            nic("eth0.20", NicKind::Vlan, &["eth0"], &[]),
            nic("br0", NicKind::Bridge, &["eth0.20"], &[]),
        ]
    };
    let shared = |on, kind| {
        let path = shaped(nics(), "eth0.10", on, kind);
        assert_eq!(path.limit_bytes_per_second, Fact::Known(Some(1000)));
        assert_eq!(path.bandwidth_bytes_per_second, Fact::Known(1000));
        path.source_nic.known().unwrap().shapers.known().unwrap()[0].shared
    };
    assert!(!shared("eth0.10", ShaperKind::Tbf), "the migration's own VLAN");
    assert!(shared("eth0", ShaperKind::Tbf), "the wire of both VLANs");
    assert!(!shared("eth0", ShaperKind::Htb), "a class of its own there");
    let elsewhere = shaped(nics(), "eth0.10", "eth0.20", ShaperKind::Tbf);
    assert_eq!(elsewhere.limit_bytes_per_second, Fact::Known(None));

    let bridge = || {
        vec![
            nic("eth0", NicKind::Physical, &[], &[]),
            nic("br0", NicKind::Bridge, &["eth0"], &["10.77.1.2/24"]),
        ]
    };
    let of_bridge = |on| shaped(bridge(), "br0", on, ShaperKind::Tbf).source_nic.known().unwrap().clone();
    assert!(!of_bridge("br0").shapers.known().unwrap()[0].shared, "guests' frames do not pass its queue");
    assert!(of_bridge("eth0").shapers.known().unwrap()[0].shared, "they pass its port's");
    assert_eq!(of_bridge("br0").devices, Fact::Known(vec!["br0".into(), "eth0".into()]));
}

#[test]
fn storage_over_the_same_wire_is_named() {
    let nics = Fact::Known(vec![
        nic("eth0", NicKind::Physical, &[], &[]),
        nic("eth0.10", NicKind::Vlan, &["eth0"], &["10.77.1.2/24"]),
        nic("eth0.30", NicKind::Vlan, &["eth0"], &[]),
        nic("eth1", NicKind::Physical, &[], &[]),
    ]);
    let routes = Fact::Known(vec![route("10.77.1.0/24", "eth0.10", 0)]);
    let mut end = end(&nics, &routes);
    let mount = |nic: &str| RemoteStorage {
        what: format!("nfs nas:/{nic}"),
        address: "10.77.9.9".parse().unwrap(),
        nic: nic.into(),
    };
    end.network.storage = Fact::Known(vec![mount("eth0.30"), mount("eth1")]);
    let path = worked_out(&end, &end, &Change::default());
    assert_eq!(path.source_nic.known().unwrap().storage, Fact::Known(vec!["nfs nas:/eth0.30".into()]));
}

#[test]
fn ports_are_reachable_when_no_rule_could_stop_it_and_unknown_when_one_could() {
    let (nics, routes) = (Fact::Known(Vec::new()), Fact::Known(Vec::new()));
    let config = MigrationConfig { first_port: 49152, last_port: 49155, ..MigrationConfig::default() };
    let mut destination = end(&nics, &routes);
    destination.network.config = Fact::Known(config);
    destination.network.taken_ports = Fact::Known(vec![49155, 49152]);
    destination.network.firewall = Fact::Known(Firewall::default());
    let mut source = end(&nics, &routes);
    source.network.firewall = Fact::Known(Firewall::default());
    let ports = |source: &PathEnd, destination: &PathEnd| {
        worked_out(source, destination, &Change::default()).ports.known().unwrap().clone()
    };
    let open = ports(&source, &destination);
    assert_eq!(
        (open.free, open.reachable, open.basis),
        (Fact::Known(2), Fact::Known(true), PortsBasis::Rules)
    );
    assert_eq!(crate::path::ports::free_port(&destination.network), Fact::Known(49154));

    let incoming = vec!["inet filter input".to_owned()];
    destination.network.firewall = Fact::Known(Firewall { incoming, outgoing: Vec::new() });
    let perhaps = ports(&source, &destination);
    assert!(perhaps.detail.contains("inet filter input at the destination"));
    assert!(matches!(perhaps.reachable, Fact::Unknown(why) if why.cause == Cause::NotAllowed));

    let tried = |met: bool, detail: &str| {
        Fact::Known(PeerProbe {
            route: Fact::default(),
            traffic: Fact::default(),
            largest_packet_bytes: Fact::default(),
            tried: Fact::Known(TrialResult {
                met,
                detail: detail.into(),
                rtt_seconds: None,
                held_ratio: None,
                rates: None,
            }),
        })
    };
    source.peer = tried(true, "it was reached");
    assert_eq!(ports(&source, &destination).reachable, Fact::Known(true), "trying goes before rules");
    source.peer = tried(false, "it was not");
    assert!(ports(&source, &destination).reachable.known().is_none(), "nobody says that one listened");
    destination.peer = tried(false, "nothing came");
    let closed = ports(&source, &destination);
    assert_eq!((closed.reachable, closed.detail.as_str()), (Fact::Known(false), "it was not"));
}

#[test]
fn goodput_needs_both_ends_accounts() {
    let (nics, routes) = (Fact::Known(Vec::new()), Fact::Known(Vec::new()));
    let rates = Rates {
        mean_bytes_per_second: 100,
        p5_bytes_per_second: 90,
        p95_bytes_per_second: 110,
        carried_bytes: 200,
        window_seconds: 2.0,
    };
    let said = |held_ratio, rates| {
        let tried =
            TrialResult { met: true, detail: "met".into(), rtt_seconds: Some(0.001), held_ratio, rates };
        let mut end = end(&nics, &routes);
        end.peer = Fact::Known(PeerProbe {
            route: Fact::default(),
            traffic: Fact::default(),
            largest_packet_bytes: Fact::Known(1500),
            tried: Fact::Known(tried),
        });
        end
    };
    let goodput = |source: &PathEnd, destination: &PathEnd, cap| {
        let address = Fact::Known(ADDRESS.parse().unwrap());
        path(address, source, destination, &Change::default(), Fact::Known(None), cap)
    };
    let there = said(Some(0.0), None);
    let free = goodput(&there, &said(None, Some(rates)), Ok(1000));
    assert!(!free.goodput.known().unwrap().held_at_cap);
    assert_eq!((free.goodput_bytes_per_second, free.rtt_seconds), (Fact::Known(100), Fact::Known(0.001)));
    assert_eq!(free.mtu_bytes, Fact::Known(1500));
    let held = goodput(&said(Some(0.5), None), &said(None, Some(rates)), Ok(100));
    assert!(held.goodput.known().unwrap().held_at_cap);
    assert!(goodput(&there, &said(None, None), Ok(1000)).goodput.known().is_none());
    let refused = goodput(&there, &said(None, Some(rates)), Err(not_measured()));
    assert_eq!(refused.goodput, Fact::Unknown(not_measured()));
}
