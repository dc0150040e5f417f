//! Interfaces that share a wire: bonds, VLANs and bridges stand on lower interfaces, and two that stand on the same one
//! share its wire.

use vmgate_facts::{Nic, NicKind};

/// Greatest depth of stacked interfaces.
const DEEPEST: usize = 8;

/// Nominal speed of an interface: its own, or that of the slowest below it, since VLANs and bridges may have none.
pub(super) fn speed(nic: &Nic, nics: &[Nic]) -> Option<u64> {
    nic.speed_bytes_per_second.or_else(|| {
        lower_interfaces(nic, nics, 0)
            .iter()
            .filter(|lower| lower.kind != NicKind::Tap)
            .filter_map(|lower| lower.speed_bytes_per_second)
            .min()
    })
}

/// Bridge that shares a wire with the interface: the interface is that bridge; or the bridge stands on it, or on a bond or
/// VLAN that stands on it; or both stand on the same lower interface. A bridge without guests now may have some in a
/// minute, so every bridge counts.
pub(super) fn guest_bridge(nic: &Nic, nics: &[Nic]) -> Option<String> {
    let mut bridges = nics.iter().filter(|other| other.kind == NicKind::Bridge);
    bridges.find(|bridge| share_a_wire(nic, bridge, nics)).map(|bridge| bridge.name.clone())
}

/// True if two interfaces are the same, one stands on the other, or both stand on the same third.
fn share_a_wire(one: &Nic, other: &Nic, nics: &[Nic]) -> bool {
    let wires = |nic: &Nic| {
        let mut wires: Vec<String> =
            lower_interfaces(nic, nics, 0).iter().map(|lower| lower.name.clone()).collect();
        wires.push(nic.name.clone());
        wires
    };
    let (one, other) = (wires(one), wires(other));
    one.iter().any(|wire| other.contains(wire))
}

/// As [`share_a_wire`], for the names of two interfaces. Equal names share a wire, known or not.
pub(super) fn shares_a_wire_by_name(upper: &str, lower: &str, nics: &[Nic]) -> bool {
    let find = |name: &str| nics.iter().find(|nic| nic.name == name);
    upper == lower
        || matches!((find(upper), find(lower)), (Some(upper), Some(lower)) if share_a_wire(upper, lower, nics))
}

/// All lower interfaces of one: those that it lists, those that name it as their master, and theirs in turn.
fn lower_interfaces<'a>(nic: &Nic, nics: &'a [Nic], depth: usize) -> Vec<&'a Nic> {
    if depth >= DEEPEST {
        return Vec::new();
    }
    let direct = nics.iter().filter(|other| {
        other.name != nic.name
            && (nic.lower.contains(&other.name) || other.master.as_deref() == Some(nic.name.as_str()))
    });
    direct.flat_map(|lower| std::iter::once(lower).chain(lower_interfaces(lower, nics, depth + 1))).collect()
}

/// Names of the interface and of all lower interfaces that its packets pass, without guests' taps, which lead into the
/// guest only.
pub(super) fn devices(nic: &Nic, nics: &[Nic]) -> Vec<String> {
    let mut names = vec![nic.name.clone()];
    for lower in lower_interfaces(nic, nics, 0).into_iter().filter(|lower| lower.kind != NicKind::Tap) {
        if !names.contains(&lower.name) {
            names.push(lower.name.clone());
        }
    }
    names
}

/// True if packets of others pass an interface, too: it is part of a bridge, directly or not, or another interface stands
/// on it. Only the host's own packets pass a bridge's own queue, not its guests' frames.
pub(super) fn is_passed_by_others(name: &str, top: &str, nics: &[Nic]) -> bool {
    let find = |name: &str| nics.iter().find(|nic| nic.name == name);
    let Some(nic) = find(name) else { return false };
    if nic.kind == NicKind::Bridge {
        return false;
    }
    let others = |other: &&Nic| {
        other.name != name
            && other.name != top
            && lower_interfaces(other, nics, 0).iter().any(|lower| lower.name == name)
            // Interfaces between the two belong to the same path.
            && find(top).is_none_or(|top| !lower_interfaces(top, nics, 0).iter().any(|lower| lower.name == other.name))
    };
    nics.iter().any(|other| others(&other)) || find(top).is_some_and(|top| top.kind == NicKind::Bridge)
}
