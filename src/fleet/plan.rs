//! Plans: evacuation of hosts in one wave, or rolling maintenance rack by rack with the VMs moved back.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use super::{
    Fleet, HostId, Oracle, Resource, Schedule, ScheduledMove, UnplacedVm, VmId,
    model::amount_in_words,
    placement::{Placement, Placer},
    schedule,
};

/// Hosts to empty, and hosts that may take the VMs.
pub struct PlanRequest<'a> {
    /// Hosts that are to have no VM afterwards.
    pub empty: Vec<HostId>,
    /// Hosts that may take VMs; hosts that are emptied at the same time do not.
    pub into: Vec<HostId>,
    /// Destination of a VM in an earlier plan: kept if still possible.
    pub earlier: &'a dyn Fn(VmId) -> Option<HostId>,
}

/// Moves that run together; the next wave begins when this one is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Wave {
    /// Title of the wave, for people: `empty rack r1`.
    pub title: String,
    /// Hosts that are empty after the wave; none for a wave that moves VMs back.
    pub empties: Vec<HostId>,
    /// Schedule of its moves.
    pub schedule: Schedule,
}

/// Plan of a fleet: waves of moves, and VMs that cannot move.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FleetPlan {
    /// The waves in order.
    pub waves: Vec<Wave>,
    /// VMs that stay, each with its reasons.
    pub unplaced: Vec<UnplacedVm>,
    /// Resources that the destinations of a wave lack in total: no placement is possible for all VMs.
    pub shortfalls: Vec<Shortfall>,
}

/// A resource of which the destinations together have too little.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Title of the wave.
    pub wave: String,
    /// The resource.
    pub resource: Resource,
    /// Amount that the VMs need.
    pub needed: u64,
    /// Amount that is free.
    pub free: u64,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |amount| amount_in_words(&self.resource, amount);
        write!(
            f,
            "{}: the destinations lack {} of {}: {} needed, {} free",
            self.wave,
            amount(self.needed.saturating_sub(self.free)),
            self.resource,
            amount(self.needed),
            amount(self.free)
        )
    }
}

impl FleetPlan {
    /// Duration of all waves one after the other, seconds, without the maintenance between them.
    pub fn makespan_seconds(&self) -> f64 {
        self.waves.iter().map(|wave| wave.schedule.makespan_seconds).sum()
    }

    /// Every move with its wave and the host that it leaves: a VM that is moved back leaves the one to which it was moved.
    pub fn moves<'a>(
        &'a self,
        fleet: &Fleet,
    ) -> impl Iterator<Item = (&'a Wave, &'a ScheduledMove, HostId)> + use<'a> {
        let mut places: Vec<HostId> = fleet.vms.iter().map(|vm| vm.host).collect();
        let moves =
            self.waves.iter().flat_map(|wave| wave.schedule.moves.iter().map(move |moved| (wave, moved)));
        moves.filter_map(move |(wave, moved)| {
            let place = places.get_mut(moved.vm.0)?;
            Some((wave, moved, std::mem::replace(place, moved.destination)))
        })
    }

    /// Duration of the moves one after the other, each with the whole bandwidth of its hosts, seconds.
    pub fn one_by_one_seconds(&self, fleet: &Fleet, oracle: &dyn Oracle) -> f64 {
        let carries = |host| fleet.host(host).map_or(0, |host| host.bandwidth_bytes_per_second);
        let seconds = |(_, moved, from): (_, &ScheduledMove, _)| {
            let alone = oracle.seconds(moved.vm, carries(from).min(carries(moved.destination)));
            alone.unwrap_or(moved.end_seconds - moved.start_seconds)
        };
        self.moves(fleet).map(seconds).sum()
    }
}

/// Empties all hosts in one wave.
pub fn evacuate(fleet: &Fleet, oracle: &dyn Oracle, request: &PlanRequest<'_>) -> FleetPlan {
    let placement = placement(fleet, oracle, request, false);
    let wave = wave(fleet, oracle, &request.empty, &placement);
    let shortfalls = shortfalls(fleet, request, &wave.title);
    FleetPlan { waves: vec![wave], unplaced: placement.unplaced, shortfalls }
}

/// Number of racks that a rolling maintenance empties at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollingPace {
    /// One rack after the other.
    RackByRack,
    /// As many racks as fit on the other hosts: fewer waits for the maintenance.
    AsRoomAllows,
}

/// Empties some racks at a time, and moves their VMs back before the next racks: each VM moves away and back.
/// While a rack is empty, the other racks of `request.empty` take VMs as well as those of `request.into`.
pub fn rolling(
    fleet: &Fleet,
    oracle: &dyn Oracle,
    request: &PlanRequest<'_>,
    pace: RollingPace,
) -> FleetPlan {
    let mut racks: BTreeMap<&str, Vec<HostId>> = BTreeMap::new();
    for host in &request.empty {
        if let Some(known) = fleet.host(*host) {
            racks.entry(&known.rack).or_default().push(*host);
        }
    }
    let mut left: Vec<(&str, Vec<HostId>)> = racks.into_iter().collect();
    let mut plan = FleetPlan::default();
    while !left.is_empty() {
        let mut count = match pace {
            RollingPace::RackByRack => 1,
            RollingPace::AsRoomAllows => most_by_room(fleet, request, &left),
        };
        // VMs that fit in total may not fit host by host: then some racks wait for the next wave.
        let (of_racks, placement) = loop {
            let hosts: Vec<HostId> = left.iter().take(count).flat_map(|(_, hosts)| hosts).copied().collect();
            let of_racks = PlanRequest {
                into: destinations_without(request, &hosts),
                empty: hosts,
                earlier: request.earlier,
            };
            let placement = placement(fleet, oracle, &of_racks, count > 1);
            if !placement.lacks_room || count == 1 {
                break (of_racks, placement);
            }
            count -= (count / 8).max(1);
        };
        let racks = match left.drain(..count).map(|(rack, _)| rack).collect::<Vec<_>>().as_slice() {
            [rack] => (*rack).to_owned(),
            [first, .., last] => format!("{first} to {last}"),
            [] => String::new(),
        };
        let wave =
            Wave { title: format!("empty {racks}"), ..wave(fleet, oracle, &of_racks.empty, &placement) };
        plan.shortfalls.extend(shortfalls(fleet, &of_racks, &wave.title));
        let back = reverse_schedule(fleet, oracle, &wave);
        plan.unplaced.extend(placement.unplaced);
        plan.waves.push(wave);
        plan.waves.push(Wave { title: format!("back to {racks}"), empties: Vec::new(), schedule: back });
    }
    plan
}

/// Destinations of the VMs of `hosts` while these are empty.
fn destinations_without(request: &PlanRequest<'_>, hosts: &[HostId]) -> Vec<HostId> {
    let away: HashSet<HostId> = hosts.iter().copied().collect();
    let named: HashSet<HostId> = request.into.iter().copied().collect();
    let mut into = request.into.clone();
    into.extend(request.empty.iter().filter(|host| !away.contains(host) && !named.contains(host)));
    into
}

/// Most racks that can be empty at the same time, by the total resources alone.
fn most_by_room(fleet: &Fleet, request: &PlanRequest<'_>, racks: &[(&str, Vec<HostId>)]) -> usize {
    let mut needs: HashMap<HostId, Vec<u64>> = HashMap::new();
    for vm in &fleet.vms {
        let sum = needs.entry(vm.host).or_insert_with(|| vec![0; fleet.resources.len()]);
        add(sum, &vm.needs);
    }
    let sum = |hosts: &mut dyn Iterator<Item = &Vec<u64>>| {
        let mut sum = vec![0_u64; fleet.resources.len()];
        hosts.for_each(|amounts| add(&mut sum, amounts));
        sum
    };
    let fits = |count: &usize| {
        let hosts: Vec<HostId> = racks.iter().take(*count).flat_map(|(_, hosts)| hosts).copied().collect();
        let needed = sum(&mut hosts.iter().filter_map(|host| needs.get(host)));
        let into = destinations_without(request, &hosts);
        let takes = into.iter().filter_map(|host| fleet.host(*host)).filter(|host| host.closed.is_none());
        let free = sum(&mut takes.map(|host| &host.free));
        needed.iter().zip(&free).all(|(needed, free)| needed <= free)
    };
    (1..=racks.len()).take_while(fits).last().unwrap_or(1)
}

fn add(sum: &mut [u64], amounts: &[u64]) {
    for (sum, amount) in sum.iter_mut().zip(amounts) {
        *sum = sum.saturating_add(*amount);
    }
}

/// Finds a destination for each VM of the hosts to empty; `all_or_none` stops at the first VM that lacks resources.
fn placement(fleet: &Fleet, oracle: &dyn Oracle, request: &PlanRequest<'_>, all_or_none: bool) -> Placement {
    let emptied: HashSet<HostId> = request.empty.iter().copied().collect();
    let vms: Vec<VmId> = (0..fleet.vms.len())
        .map(VmId)
        .filter(|vm| fleet.vm(*vm).is_some_and(|vm| emptied.contains(&vm.host)))
        .collect();
    let mut placer = Placer::new(fleet, oracle, &request.into, &request.empty).all_or_none(all_or_none);
    placer.place(&vms, request.earlier)
}

/// Wave with the schedule of a placement's moves.
fn wave(fleet: &Fleet, oracle: &dyn Oracle, hosts: &[HostId], placement: &Placement) -> Wave {
    let timed: Vec<(VmId, HostId, f64)> =
        placement.moves.iter().map(|(vm, to)| (*vm, *to, seconds(fleet, oracle, *vm, *to))).collect();
    let title = format!("empty {}", counted(hosts.len(), "host"));
    Wave { title, empties: hosts.to_vec(), schedule: schedule(fleet, &timed) }
}

/// Resources of which the VMs need more in total than all destinations have; none where no destination takes VMs.
fn shortfalls(fleet: &Fleet, request: &PlanRequest<'_>, wave: &str) -> Vec<Shortfall> {
    let takes = |id: &&HostId| {
        !request.empty.contains(id) && fleet.host(**id).is_some_and(|host| host.closed.is_none())
    };
    if !request.into.iter().any(|host| takes(&host)) {
        return Vec::new();
    }
    let sum = |amounts: &mut dyn Iterator<Item = Option<u64>>| amounts.flatten().fold(0, u64::saturating_add);
    let of = |(at, resource): (usize, &Resource)| {
        let into = request.into.iter().filter(takes).filter_map(|id| fleet.host(*id));
        let leaving = fleet.vms.iter().filter(|vm| request.empty.contains(&vm.host));
        let free = sum(&mut into.map(|host| host.free.get(at).copied()));
        let needed = sum(&mut leaving.map(|vm| vm.needs.get(at).copied()));
        let short = Shortfall { wave: wave.to_owned(), resource: resource.clone(), needed, free };
        (needed > free).then_some(short)
    };
    fleet.resources.iter().enumerate().filter_map(of).collect()
}

/// Schedule of the same moves in reverse. A VM's source is then its destination of the first wave.
fn reverse_schedule(fleet: &Fleet, oracle: &dyn Oracle, wave: &Wave) -> Schedule {
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

/// Duration of a move with its share of the links, seconds; an hour if the forecast does not converge.
fn seconds(fleet: &Fleet, oracle: &dyn Oracle, vm: VmId, to: HostId) -> f64 {
    let source = fleet.vm(vm).map_or(to, |vm| vm.host);
    oracle.seconds(vm, fleet.share_bytes_per_second(source, to)).unwrap_or(3600.0)
}

/// `1 host`, `2 hosts`.
pub(super) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}
