//! Plans: hosts are emptied at once, or rack after rack with their VMs brought back.

use std::collections::BTreeMap;

use super::{Fleet, HostId, Oracle, Schedule, Unplaced, VmId, place::Placer, schedule};

/// What is to be emptied, and into what.
pub struct PlanRequest<'a> {
    /// Hosts that are to have no VM afterwards.
    pub empty: Vec<HostId>,
    /// Hosts that may take VMs; those that are to be emptied at the same time do not.
    pub into: Vec<HostId>,
    /// The destination that an earlier plan gave a VM: kept where it still serves.
    pub earlier: &'a dyn Fn(VmId) -> Option<HostId>,
}

/// Moves that run together; the next wave begins when this one is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Wave {
    /// What it does, for people: `empty rack r1`.
    pub title: String,
    /// Hosts that are empty after it; none for a wave that brings VMs back.
    pub empties: Vec<HostId>,
    /// Its moves in time.
    pub schedule: Schedule,
}

/// What is to be done, and what cannot be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// In order.
    pub waves: Vec<Wave>,
    /// VMs that stay, each with its reasons.
    pub unplaced: Vec<Unplaced>,
}

impl Plan {
    /// All waves after each other, seconds. The maintenance between them is not counted.
    pub fn makespan_seconds(&self) -> f64 {
        self.waves.iter().map(|wave| wave.schedule.makespan_seconds).sum()
    }
}

/// Empties all hosts in one wave.
pub fn evacuate(fleet: &Fleet, oracle: &dyn Oracle, request: &PlanRequest<'_>) -> Plan {
    let (wave, unplaced) = empty(fleet, oracle, request, &request.empty);
    Plan { waves: vec![wave], unplaced }
}

/// Empties one rack at a time, and brings its VMs back before the next: each VM of the hosts moves there and back.
/// While a rack is away, the other racks of `request.empty` take VMs as well as those of `request.into`.
pub fn rolling(fleet: &Fleet, oracle: &dyn Oracle, request: &PlanRequest<'_>) -> Plan {
    let mut racks: BTreeMap<&str, Vec<HostId>> = BTreeMap::new();
    for host in &request.empty {
        if let Some(known) = fleet.host(*host) {
            racks.entry(&known.rack).or_default().push(*host);
        }
    }
    let mut plan = Plan::default();
    for (rack, hosts) in racks {
        let mut into = request.into.clone();
        into.extend(
            request.empty.iter().filter(|host| !hosts.contains(host) && !request.into.contains(host)),
        );
        let (mut wave, unplaced) = empty(
            fleet,
            oracle,
            &PlanRequest { empty: hosts.clone(), into, earlier: request.earlier },
            &hosts,
        );
        wave.title = format!("empty {rack}");
        let back = back(fleet, oracle, &wave);
        plan.unplaced.extend(unplaced);
        plan.waves.push(wave);
        plan.waves.push(Wave { title: format!("back to {rack}"), empties: Vec::new(), schedule: back });
    }
    plan
}

fn empty(
    fleet: &Fleet,
    oracle: &dyn Oracle,
    request: &PlanRequest<'_>,
    hosts: &[HostId],
) -> (Wave, Vec<Unplaced>) {
    let vms: Vec<VmId> = (0..fleet.vms.len())
        .map(VmId)
        .filter(|vm| fleet.vm(*vm).is_some_and(|vm| hosts.contains(&vm.host)))
        .collect();
    let placement = Placer::new(fleet, oracle, &request.into, hosts).place(&vms, request.earlier);
    let timed: Vec<(VmId, HostId, f64)> =
        placement.moves.iter().map(|(vm, to)| (*vm, *to, seconds(fleet, oracle, *vm, *to))).collect();
    let title = format!("empty {}", counted(hosts.len(), "host"));
    (Wave { title, empties: hosts.to_vec(), schedule: schedule(fleet, &timed) }, placement.unplaced)
}

/// The same moves the other way. A VM's source is then where the first wave put it.
fn back(fleet: &Fleet, oracle: &dyn Oracle, wave: &Wave) -> Schedule {
    let mut away = fleet.clone();
    let mut moves = Vec::new();
    for moved in &wave.schedule.moves {
        let Some(vm) = away.vms.get_mut(moved.vm.0) else { continue };
        let home = std::mem::replace(&mut vm.host, moved.destination);
        moves.push((moved.vm, home));
    }
    let timed: Vec<_> =
        moves.into_iter().map(|(vm, home)| (vm, home, seconds(&away, oracle, vm, home))).collect();
    schedule(&away, &timed)
}

/// How long a move takes with its share of the links; an hour where the forecast sees no end.
fn seconds(fleet: &Fleet, oracle: &dyn Oracle, vm: VmId, to: HostId) -> f64 {
    let source = fleet.vm(vm).map_or(to, |vm| vm.host);
    oracle.seconds(vm, fleet.share_bytes_per_second(source, to)).unwrap_or(3600.0)
}

fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}
