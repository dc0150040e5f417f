//! Placement: finds a destination for each VM.
//!
//! Hardest first: the VM that needs the largest part of the free resources. Its destination is the host that is
//! least busy with incoming moves, as long as any host is busier than the busiest source (which decides the total
//! duration), and among those the host with most free resources afterwards. Only the chosen pair is judged by the
//! rules; if they refuse, the next host is tried. For a VM that fits nowhere, a VM that is already placed goes elsewhere.

use std::collections::HashSet;

use super::{AffinityRule, Fleet, HostId, VmId, free_resources::FreeResources, groups::Groups};

/// Judges one move by the rules and the forecast.
pub trait Oracle {
    /// Judges this move by the rules and the forecast. The planner itself counts the free resources.
    fn judge(&self, vm: VmId, destination: HostId) -> Ruling;

    /// Duration of the move at this bandwidth, seconds; `None` if it does not complete.
    fn seconds(&self, vm: VmId, bytes_per_second: u64) -> Option<f64>;
}

/// Judgement of the rules on one move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// GO.
    Go,
    /// NO-GO for this destination.
    NoGo(Vec<RefusalReason>),
    /// NO-GO for every destination: the reason is in the VM or its source.
    NoGoAnywhere(Vec<RefusalReason>),
}

/// Reason why a move is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalReason {
    /// The rule and its message.
    pub reason: String,
    /// Remediation; `None` if the rule gives none.
    pub way_out: Option<String>,
}

/// A destination that was refused for a VM, with the reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedDestination {
    /// The refused destination.
    pub destination: HostId,
    /// Reasons of the refusal.
    pub reasons: Vec<RefusalReason>,
}

/// A VM without a destination, with the reasons and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnplacedVm {
    /// The VM.
    pub vm: VmId,
    /// Reasons why the VM cannot move, the easiest to remove first.
    pub reasons: Vec<String>,
    /// The cheapest way out.
    pub way_out: String,
}

/// Destinations of VMs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Each placed VM with its destination, in the order of placement.
    pub moves: Vec<(VmId, HostId)>,
    /// VMs without a destination.
    pub unplaced: Vec<UnplacedVm>,
    /// True if one of these VMs may fit if fewer hosts are emptied: no rule refuses it on all destinations.
    pub lacks_room: bool,
}

impl Placement {
    /// Records that the unit stays on its host, for reasons that no destination removes.
    fn stay(&mut self, unit: &PlacementUnit, reasons: Vec<RefusalReason>) {
        let way_out = reasons.iter().find_map(|why| why.way_out.clone()).unwrap_or_else(|| {
            "no other destination helps: fix the cause in the VM or on its source, or shut the VM down for the change".to_owned()
        });
        let reasons: Vec<String> = reasons.into_iter().map(|why| why.reason).collect();
        let stays = |vm: &VmId| UnplacedVm { vm: *vm, reasons: reasons.clone(), way_out: way_out.clone() };
        self.unplaced.extend(unit.vms.iter().map(stays));
    }
}

/// VMs that must move to one host together; usually a single VM.
#[derive(Debug)]
struct PlacementUnit {
    vms: Vec<VmId>,
    needs: Vec<u64>,
    /// The host of group members that do not move.
    bound_to: Option<HostId>,
}

/// State of a placement in progress.
pub(super) struct Placer<'a> {
    fleet: &'a Fleet,
    oracle: &'a dyn Oracle,
    destinations: Vec<HostId>,
    /// Destinations that take no VMs.
    closed: Vec<HostId>,
    leaving: HashSet<HostId>,
    room: FreeResources,
    groups: Groups<'a>,
    /// Seconds of moves into a host, divided by its number of simultaneous moves.
    busy: Vec<f64>,
    /// Seconds of outgoing moves of the busiest source.
    bottleneck_seconds: f64,
    placed: Vec<(PlacementUnit, HostId)>,
    /// True if the placement stops at the first VM that lacks resources.
    all_or_none: bool,
}

impl<'a> Placer<'a> {
    /// A placer that may use `destinations` and empties `leaving`.
    pub(super) fn new(
        fleet: &'a Fleet,
        oracle: &'a dyn Oracle,
        destinations: &[HostId],
        leaving: &[HostId],
    ) -> Self {
        let leaving: HashSet<HostId> = leaving.iter().copied().collect();
        let others = destinations.iter().filter(|id| !leaving.contains(id));
        let (closed, open): (Vec<HostId>, Vec<HostId>) =
            others.partition(|id| fleet.host(**id).is_none_or(|host| host.closed.is_some()));
        Self {
            destinations: open,
            closed,
            room: FreeResources::of(fleet),
            groups: Groups::of(fleet),
            busy: vec![0.0; fleet.hosts.len()],
            bottleneck_seconds: 0.0,
            placed: Vec::new(),
            all_or_none: false,
            fleet,
            oracle,
            leaving,
        }
    }

    /// The same placer; with `true`, it stops at the first VM that lacks resources.
    pub(super) fn all_or_none(self, all_or_none: bool) -> Self {
        Self { all_or_none, ..self }
    }

    /// Finds a destination for each of `vms`. `preferred` gives the one of an earlier plan, which is kept if still possible.
    pub(super) fn place(&mut self, vms: &[VmId], preferred: &dyn Fn(VmId) -> Option<HostId>) -> Placement {
        self.bottleneck_seconds = self.busiest_source(vms);
        let mut units = self.units(vms);
        let roomiest = self.room.most(&self.destinations);
        units.sort_by(|one, other| {
            let (one_hard, other_hard) = (Self::hardness(one, &roomiest), Self::hardness(other, &roomiest));
            other_hard.total_cmp(&one_hard).then(one.vms.cmp(&other.vms))
        });
        let (kept, fresh): (Vec<_>, Vec<_>) =
            units.into_iter().partition(|unit| unit.vms.iter().any(|vm| preferred(*vm).is_some()));
        let mut placement = Placement::default();
        for unit in kept.into_iter().chain(fresh) {
            let wish = unit.vms.iter().find_map(|vm| preferred(*vm));
            self.place_unit(unit, wish, &mut placement);
            if self.all_or_none && placement.lacks_room {
                break;
            }
        }
        placement.moves =
            self.placed.iter().flat_map(|(unit, host)| unit.vms.iter().map(|vm| (*vm, *host))).collect();
        placement
    }

    fn place_unit(&mut self, unit: PlacementUnit, wish: Option<HostId>, placement: &mut Placement) {
        let mut banned = Vec::new();
        let mut candidates = self.candidates(&unit);
        if let Some(wish) = wish {
            candidates.sort_by_key(|host| *host != wish);
        }
        for host in candidates {
            match self.judge(&unit, host) {
                Ruling::Go => return self.put(unit, host),
                Ruling::NoGo(reasons) => banned.push(RefusedDestination { destination: host, reasons }),
                Ruling::NoGoAnywhere(reasons) => return placement.stay(&unit, reasons),
            }
        }
        let refused: HashSet<HostId> = banned.iter().map(|banned| banned.destination).collect();
        if let Some(host) = self.make_room(&unit, &refused) {
            return self.put(unit, host);
        }
        // If no rule was asked because resources are missing, a reason that holds for every destination is reported all the same.
        if banned.is_empty()
            && let Some((_, nearest)) = self.nearest(&unit, &[])
            && let Ruling::NoGoAnywhere(reasons) = self.judge(&unit, nearest)
        {
            return placement.stay(&unit, reasons);
        }
        placement.lacks_room |= self.nearest(&unit, &banned).is_some();
        let unplaced = self.explain(&unit, &banned);
        placement.unplaced.extend(unplaced);
    }

    /// The destination where the unit lacks the least, with the missing amounts; without those that a rule refused.
    fn nearest(
        &self,
        unit: &PlacementUnit,
        refused: &[RefusedDestination],
    ) -> Option<(Vec<(usize, u64)>, HostId)> {
        self.destinations
            .iter()
            .filter(|host| !refused.iter().any(|banned| banned.destination == **host))
            .map(|host| (self.room.missing(&unit.needs, *host), *host))
            .min_by_key(|(missing, _)| missing.iter().map(|(_, amount)| *amount).fold(0, u64::saturating_add))
    }

    /// Hosts where the unit fits and is allowed, best first.
    fn candidates(&self, unit: &PlacementUnit) -> Vec<HostId> {
        let mut scored: Vec<(u64, f64, f64, HostId)> = self
            .destinations
            .iter()
            .filter(|host| self.room.fits(&unit.needs, **host) && self.allowed(unit, **host))
            .map(|host| {
                let busy = self.busy_after(unit, *host);
                (self.over_the_bottleneck(busy), self.room.fill_after(&unit.needs, *host), busy, *host)
            })
            .collect();
        scored.sort_by(|one, other| {
            (one.0.cmp(&other.0))
                .then(one.1.total_cmp(&other.1))
                .then(one.2.total_cmp(&other.2))
                .then(one.3.cmp(&other.3))
        });
        scored.into_iter().map(|(.., host)| host).collect()
    }

    fn allowed(&self, unit: &PlacementUnit, host: HostId) -> bool {
        let elsewhere = unit.bound_to.is_some_and(|bound| bound != host);
        let leaving = |host: HostId| self.leaving.contains(&host);
        !elsewhere
            && unit.vms.iter().all(|vm| {
                self.fleet
                    .vm(*vm)
                    .is_some_and(|vm| vm.host != host && self.fleet.route(vm.host, host).is_some())
                    && self.groups.forbidding_group(*vm, host, &leaving).is_none()
            })
    }

    /// Score of a host that would be busier than the busiest source, by its busy milliseconds; 0 if it would not.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a small number, and not below 0
    fn over_the_bottleneck(&self, busy: f64) -> u64 {
        if busy <= self.bottleneck_seconds { 0 } else { (busy * 1e3) as u64 + 1 }
    }

    fn judge(&self, unit: &PlacementUnit, host: HostId) -> Ruling {
        unit.vms
            .iter()
            .map(|vm| self.oracle.judge(*vm, host))
            .find(|ruling| *ruling != Ruling::Go)
            .unwrap_or(Ruling::Go)
    }

    fn put(&mut self, unit: PlacementUnit, host: HostId) {
        self.room.take(&unit.needs, host);
        let busy = self.busy_after(&unit, host);
        if let Some(seconds) = self.busy.get_mut(host.0) {
            *seconds = busy;
        }
        for vm in &unit.vms {
            self.groups.put(*vm, host);
        }
        self.placed.push((unit, host));
    }

    /// Removes the placed unit at index `at` from its host.
    fn remove_placed(&mut self, at: usize) -> (PlacementUnit, HostId) {
        let (unit, host) = self.placed.remove(at);
        self.room.release(&unit.needs, host);
        let seconds = self.seconds_into(&unit, host);
        if let Some(busy) = self.busy.get_mut(host.0) {
            *busy = (*busy - seconds).max(0.0);
        }
        for vm in &unit.vms {
            if let Some(home) = self.fleet.vm(*vm).map(|vm| vm.host) {
                self.groups.put(*vm, home);
            }
        }
        (unit, host)
    }

    /// Moves one placed unit to another host, so that this unit fits on the host it leaves.
    fn make_room(&mut self, unit: &PlacementUnit, refused: &HashSet<HostId>) -> Option<HostId> {
        for at in (0..self.placed.len()).rev() {
            let Some((_, host)) = self.placed.get(at) else { continue };
            let host = *host;
            if refused.contains(&host) || self.room.fits(&unit.needs, host) {
                continue;
            }
            let (other, _) = self.remove_placed(at);
            let helps = self.room.fits(&unit.needs, host) && self.allowed(unit, host);
            if helps && self.judge(unit, host) == Ruling::Go {
                self.room.take(&unit.needs, host);
                let elsewhere = self
                    .candidates(&other)
                    .into_iter()
                    .find(|candidate| *candidate != host && self.judge(&other, *candidate) == Ruling::Go);
                self.room.release(&unit.needs, host);
                if let Some(elsewhere) = elsewhere {
                    self.put(other, elsewhere);
                    return Some(host);
                }
            }
            self.put_back(at, other, host);
        }
        None
    }

    fn put_back(&mut self, at: usize, unit: PlacementUnit, host: HostId) {
        self.put(unit, host);
        if let Some(last) = self.placed.pop() {
            self.placed.insert(at, last);
        }
    }

    fn busy_after(&self, unit: &PlacementUnit, host: HostId) -> f64 {
        self.busy.get(host.0).copied().unwrap_or(0.0) + self.seconds_into(unit, host)
    }

    #[allow(clippy::cast_precision_loss)] // a number of slots
    fn seconds_into(&self, unit: &PlacementUnit, host: HostId) -> f64 {
        let slots = self.fleet.limits.incoming_per_host.max(1) as f64;
        unit.vms.iter().map(|vm| self.seconds(*vm, host)).sum::<f64>() / slots
    }

    /// Duration of a move, seconds. A move that does not complete counts as an hour: the rules refuse it if they must.
    fn seconds(&self, vm: VmId, host: HostId) -> f64 {
        let Some(source) = self.fleet.vm(vm).map(|vm| vm.host) else { return 0.0 };
        self.oracle.seconds(vm, self.fleet.share_bytes_per_second(source, host)).unwrap_or(3600.0)
    }

    #[allow(clippy::cast_precision_loss)] // a number of slots
    fn busiest_source(&self, vms: &[VmId]) -> f64 {
        let mut out = vec![0.0; self.fleet.hosts.len()];
        let Some(some) = self.destinations.first() else { return 0.0 };
        for vm in vms {
            if let Some(source) = self.fleet.vm(*vm)
                && let Some(seconds) = out.get_mut(source.host.0)
            {
                *seconds += self.seconds(*vm, *some) / self.fleet.limits.outgoing_per_host.max(1) as f64;
            }
        }
        out.into_iter().fold(0.0, f64::max)
    }

    /// Largest part of the emptiest host that the unit would fill. Units that fit on few hosts are placed first; units
    /// of several VMs or bound to one host before all.
    #[allow(clippy::cast_precision_loss)] // amounts are compared
    fn hardness(unit: &PlacementUnit, roomiest: &[u64]) -> f64 {
        let bound = f64::from(u8::from(unit.bound_to.is_some() || unit.vms.len() > 1));
        let part = unit.needs.iter().zip(roomiest).map(|(need, most)| *need as f64 / (*most).max(1) as f64);
        bound + part.fold(0.0, f64::max).min(1.0)
    }

    /// Joins VMs that must be on one host into units.
    fn units(&self, vms: &[VmId]) -> Vec<PlacementUnit> {
        let moving: HashSet<VmId> = vms.iter().copied().collect();
        let mut seen = HashSet::new();
        let mut units = Vec::new();
        for vm in vms {
            if !seen.insert(*vm) {
                continue;
            }
            let mut unit = PlacementUnit { vms: vec![*vm], needs: Vec::new(), bound_to: None };
            let mut next = 0;
            while let Some(member) = unit.vms.get(next).copied() {
                next += 1;
                let together = self
                    .groups
                    .of_vm(member)
                    .filter(|group| group.rule == Some((AffinityRule::Together, super::GroupScope::Host)));
                for other in together.flat_map(|group| &group.vms) {
                    if moving.contains(other) {
                        if seen.insert(*other) {
                            unit.vms.push(*other);
                        }
                    } else if unit.bound_to.is_none() {
                        unit.bound_to = self.groups.host_of(*other).filter(|at| !self.leaving.contains(at));
                    }
                }
            }
            unit.vms.sort_unstable();
            unit.needs = self.sum(&unit.vms);
            units.push(unit);
        }
        units
    }

    fn sum(&self, vms: &[VmId]) -> Vec<u64> {
        let mut sum = vec![0_u64; self.fleet.resources.len()];
        for vm in vms.iter().filter_map(|vm| self.fleet.vm(*vm)) {
            for (sum, need) in sum.iter_mut().zip(&vm.needs) {
                *sum = sum.saturating_add(*need);
            }
        }
        sum
    }

    /// Reasons why a unit has no destination, and the cheapest way out.
    fn explain(&self, unit: &PlacementUnit, banned: &[RefusedDestination]) -> Vec<UnplacedVm> {
        let name = |host: HostId| self.fleet.host(host).map_or("?", |host| host.name.as_str());
        let mut reasons: Vec<String> = Vec::new();
        let mut ways: Vec<String> = Vec::new();
        let mut refused = banned.to_vec();
        refused.sort_by_key(|banned| banned.reasons.len());
        for banned in refused.iter().take(3) {
            let words: Vec<&str> = banned.reasons.iter().map(|why| why.reason.as_str()).collect();
            reasons.push(format!("{}: {}", name(banned.destination), words.join("; ")));
        }
        if let Some(best) = refused.first() {
            let remedies: Vec<&str> = best.reasons.iter().filter_map(|why| why.way_out.as_deref()).collect();
            let remedy = match remedies.as_slice() {
                [only] if best.reasons.len() == 1 => format!(": {only}"),
                _ => String::new(),
            };
            ways.push(format!("remove the cause of the refusal by {}{remedy}", name(best.destination)));
        }
        let leaving = |host: HostId| self.leaving.contains(&host);
        let short = self.nearest(unit, &refused);
        if let Some((missing, host)) = short {
            for (resource, amount) in &missing {
                if let Some(resource) = self.fleet.resources.get(*resource) {
                    let amount = super::model::amount_in_words(resource, *amount);
                    reasons.push(format!("{}, the closest fit, lacks {amount} of {resource}", name(host)));
                    ways.insert(0, format!("free {amount} of {resource} on {}", name(host)));
                }
            }
            let group = unit.vms.iter().find_map(|vm| self.groups.forbidding_group(*vm, host, &leaving));
            let source = unit.vms.first().and_then(|vm| self.fleet.vm(*vm)).map(|vm| vm.host);
            if source.is_some_and(|source| self.fleet.route(source, host).is_none()) {
                reasons.push(format!("{} shares no migration network with the VM's host", name(host)));
                ways.push(
                    "give a destination with --into that shares a migration network with the VM's host"
                        .to_owned(),
                );
            }
            if let Some(group) = group {
                reasons.push(format!("the group `{}` forbids this VM on {}", group.name, name(host)));
                ways.push(format!(
                    "give hosts with --into that the group `{}` allows, or change the group",
                    group.name
                ));
            }
        }
        if self.destinations.is_empty() {
            let why = |id: &HostId| self.fleet.host(*id)?.closed.as_deref();
            let closed =
                self.closed.iter().filter_map(|id| Some(format!("{} takes no VMs, {}", name(*id), why(id)?)));
            reasons.extend(closed.take(3));
            if reasons.is_empty() {
                reasons.push("there is no destination".to_owned());
            }
        }
        let way_out =
            ways.into_iter().next().unwrap_or_else(|| "give more destinations with --into".to_owned());
        unit.vms
            .iter()
            .map(|vm| UnplacedVm { vm: *vm, reasons: reasons.clone(), way_out: way_out.clone() })
            .collect()
    }
}
