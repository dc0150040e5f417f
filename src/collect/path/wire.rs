//! Which interfaces share a wire: bonds, VLANs and bridges stand on others, and what stands on one third shares it.

use crate::fact::{Nic, NicKind};

/// Most interfaces that may stand on top of one another.
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

/// The bridge that shares a wire with the interface: it is that bridge; or the bridge stands on it, or on a bond or
/// VLAN that stands on it; or both stand on the same interface below. A bridge without guests now may have some in a
/// minute, so every bridge counts.
pub(super) fn guest_bridge(nic: &Nic, nics: &[Nic]) -> Option<String> {
    let mut bridges = nics.iter().filter(|other| other.kind == NicKind::Bridge);
    bridges.find(|bridge| share_a_wire(nic, bridge, nics)).map(|bridge| bridge.name.clone())
}

/// Whether two interfaces are the same, stand on one another, or stand on the same third.
fn share_a_wire(one: &Nic, other: &Nic, nics: &[Nic]) -> bool {
    let wires = |nic: &Nic| {
        let mut wires: Vec<String> = lower_interfaces(nic, nics, 0).iter().map(|lower| lower.name.clone()).collect();
        wires.push(nic.name.clone());
        wires
    };
    let (one, other) = (wires(one), wires(other));
    one.iter().any(|wire| other.contains(wire))
}

/// Whether `upper` is `lower` or stands on it, or the two share an interface below.
pub(super) fn shares_a_wire_by_name(upper: &str, lower: &str, nics: &[Nic]) -> bool {
    let find = |name: &str| nics.iter().find(|nic| nic.name == name);
    upper == lower
        || matches!((find(upper), find(lower)), (Some(upper), Some(lower)) if share_a_wire(upper, lower, nics))
}

/// Every interface below one: those it lists, those that name it as their master, and theirs in turn.
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

/// The interface and everything that its packets go through below it; a guest's tap is a way into the guest and not on.
pub(super) fn devices(nic: &Nic, nics: &[Nic]) -> Vec<String> {
    let mut names = vec![nic.name.clone()];
    for lower in lower_interfaces(nic, nics, 0).into_iter().filter(|lower| lower.kind != NicKind::Tap) {
        if !names.contains(&lower.name) {
            names.push(lower.name.clone());
        }
    }
    names
}

/// Whether packets of others go through an interface too: it is a part of a bridge or of something that is, or another
/// interface stands on it. A bridge's own queue is passed by what the host itself sends, and not by its guests' frames.
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
            // What lies between the two belongs to the same way.
            && find(top).is_none_or(|top| !lower_interfaces(top, nics, 0).iter().any(|lower| lower.name == other.name))
    };
    nics.iter().any(|other| others(&other)) || find(top).is_some_and(|top| top.kind == NicKind::Bridge)
}
