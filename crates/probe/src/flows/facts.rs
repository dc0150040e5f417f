//! The facts `guest.udp.flows` and `guest.wire`, made from captures.

use vmgate_facts::{CaptureMethod, Cause, Fact, UdpCapture, UdpFlow, Wire};

use crate::flows::flow::{Flow, FlowCapture};

/// The fact `guest.udp.flows` from the captures of all the VM's interfaces; `None` without any.
///
/// The fact is complete only if every capture is. The service of a flow comes from the catalogue.
pub fn udp_capture(captures: &[FlowCapture]) -> Option<UdpCapture> {
    let mut flows: Vec<_> = captures.iter().flat_map(|capture| &capture.flows).collect();
    flows.sort_by_key(|flow| std::cmp::Reverse(flow.packets));
    let names: Vec<_> = captures.iter().map(|capture| capture.interface.as_str()).collect();
    let lossy = captures.iter().any(|capture| capture.method == CaptureMethod::Captured);
    let frames = captures.iter().map(|capture| capture.frames).sum::<Option<u64>>();
    Some(UdpCapture {
        interface: names.join(", "),
        window_seconds: captures.iter().map(|capture| capture.window_seconds).reduce(f64::min)?,
        method: if lossy { CaptureMethod::Captured } else { CaptureMethod::KernelCounted },
        frames: frames.map_or_else(
            || Fact::unknown(Cause::NotSupported, "only UDP was captured, other frames were not counted"),
            Fact::Known,
        ),
        drops: captures.iter().fold(0, |sum, capture| sum.saturating_add(capture.drops)),
        complete: captures.iter().all(|capture| capture.complete),
        holes: captures.iter().flat_map(FlowCapture::holes).collect(),
        flows: flows.into_iter().map(fact).collect(),
    })
}

/// The fact `guest.wire` from the captures of all the VM's interfaces; `None` where one has no evidence, as that of an older
/// program.
pub fn wire(captures: &[FlowCapture]) -> Option<Wire> {
    let mut all = captures.iter().map(|capture| capture.wire.clone());
    let mut whole = all.next()??;
    for wire in all {
        let wire = wire?;
        whole.interface = format!("{}, {}", whole.interface, wire.interface);
        whole.window_seconds = whole.window_seconds.min(wire.window_seconds);
        whole.packets_read = whole.packets_read.saturating_add(wire.packets_read);
        whole.complete &= wire.complete;
        whole.holes.extend(wire.holes);
        whole.addresses.extend(wire.addresses);
        if whole.system.family.known().is_none() {
            whole.system = wire.system;
        }
        whole.tcp.extend(wire.tcp);
        whole.protocols.extend(wire.protocols);
        whole.control.extend(wire.control);
        whole.groups.extend(wire.groups);
        whole.groups_complete &= wire.groups_complete;
        whole.leases.extend(wire.leases);
        whole.neighbours.questions = whole.neighbours.questions.saturating_add(wire.neighbours.questions);
        whole.neighbours.answers = whole.neighbours.answers.saturating_add(wire.neighbours.answers);
        whole.neighbours.announcements =
            whole.neighbours.announcements.saturating_add(wire.neighbours.announcements);
    }
    whole
        .tcp
        .sort_by_key(|one| std::cmp::Reverse(one.packets_from_guest.saturating_add(one.packets_to_guest)));
    Some(whole)
}

fn fact(flow: &Flow) -> UdpFlow {
    UdpFlow {
        local: flow.guest.to_string(),
        remote: flow.peer.to_string(),
        direction: flow.direction,
        packets_per_second: flow.packets_per_second,
        bytes_per_second: flow.bytes_per_second,
        packets: flow.packets,
        bytes: flow.bytes,
        multicast_group: flow.multicast_group.map(|group| group.to_string()),
        vlan: flow.vlan,
        inner_vlan: flow.inner_vlan,
        service: Fact::unknown(Cause::NotCollected, "the service catalogue was not consulted"),
    }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::{FlowDirection, Udp};

    use crate::flows::{
        directed_flow::{Count, DirectedFlow, Totals},
        evidence::Evidence,
        facts::*,
        parse::UDP,
        raw_capture::RawCapture,
    };

    fn capture(interface: &str, drops: u64) -> FlowCapture {
        let directed = |from_guest, source: &str, destination: &str| DirectedFlow {
            from_guest,
            protocol: UDP,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            vlan: 7,
            inner_vlan: 0,
        };
        let count = |packets| Count { packets, bytes: 100 * packets, ..Count::default() };
        let directed_flows = vec![
            (directed(true, "10.0.0.5:514", "10.0.0.9:4000"), count(30)),
            (directed(false, "10.0.0.9:4000", "10.0.0.5:514"), count(20)),
            (directed(false, "10.0.0.9:4000", "239.1.2.3:514"), count(90)),
        ];
        let totals = Totals { frames: Some(200), ..Totals::default() };
        let raw = RawCapture {
            directed_flows,
            streams: Vec::new(),
            evidence: Evidence::new(),
            totals,
            drops,
            unseen: 0,
            interrupted: false,
            begin: 0,
            end: 2_000_000_000,
        };
        FlowCapture::new(interface.into(), CaptureMethod::KernelCounted, None, raw)
    }

    #[test]
    fn flows_of_all_interfaces_become_one_fact_that_survives_a_file() {
        let fact = udp_capture(&[capture("vnet1", 0), capture("vnet2", 0)]).unwrap();
        assert_eq!(
            (fact.interface.as_str(), fact.frames.known(), fact.complete),
            ("vnet1, vnet2", Some(&400), true)
        );
        let [group, _, both, _] = &fact.flows[..] else { panic!() };
        assert_eq!(group.multicast_group.as_deref(), Some("239.1.2.3"));
        assert_eq!((group.local.as_str(), group.direction), ("239.1.2.3:514", FlowDirection::ToGuest));
        assert_eq!((both.direction, both.packets, both.vlan), (FlowDirection::Both, 50, Some(7)));
        assert!(
            (both.packets_per_second - 25.0).abs() < 1e-9 && (both.bytes_per_second - 2500.0).abs() < 1e-9
        );

        let udp = Udp { flows: Fact::Known(fact), ..Udp::default() };
        let again: Udp = serde_yaml::from_str(&serde_yaml::to_string(&udp).unwrap()).unwrap();
        assert_eq!(again, udp);
    }

    #[test]
    fn one_hole_makes_the_whole_incomplete() {
        let fact = udp_capture(&[capture("vnet1", 0), capture("vnet2", 17)]).unwrap();
        assert!(!fact.complete);
        assert_eq!(fact.holes, ["vnet2: 17 packets were dropped by the capture"]);
        assert_eq!(udp_capture(&[]), None);
    }
}
