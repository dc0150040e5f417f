//! From captures to the fact that rules see.

use super::flow::{Flow, FlowCapture};
use crate::fact::{CaptureMethod, Cause, Fact, UdpCapture, UdpFlow};

/// The fact `guest.udp.flows` from the captures of all the VM's interfaces; `None` without any.
///
/// It is complete only where every one of them is. The service of a flow is for the catalogue to say.
pub fn udp_capture(captures: &[FlowCapture]) -> Option<UdpCapture> {
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
        flows: captures.iter().flat_map(|capture| &capture.flows).map(fact).collect(),
    })
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
        service: Fact::unknown(Cause::NotCollected, "the catalogue was not asked"),
    }
}
