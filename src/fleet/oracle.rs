//! Oracle of the planner: judges single moves with the rules and the forecast of `vmgate check`, on the facts of an audit.

use std::{cell::RefCell, collections::HashMap};

use jiff::Timestamp;
use vmgate_facts::{Change, Fact, Facts, MigrationPath, Uuid, Vm};
use vmgate_judge::{Policy, VerdictRequest, change::Versions};
use vmgate_verdict::{Effect, JudgedOutcome, Status};

use super::{Fleet, HostId, Oracle, RefusalReason, Ruling, Site, VmId, inventory::VmBound};
use crate::audit::{self, MoveAnswer};

/// Time of a move besides sending the memory that the guest has touched, for a guest with unknown dirty rate: the same value as in
/// the forecast from rates.
const SETUP_SECONDS: f64 = 1.0;

/// Groups of facts that do not depend on the destination.
const WHEREVER_IT_GOES: [&str; 4] = ["vm", "guest", "source", "change"];

/// Oracle of rules and forecast, for the moves of one fleet.
pub struct PolicyOracle<'a> {
    policy: &'a Policy,
    site: &'a dyn Site,
    fleet: &'a Fleet,
    asked: Change,
    now: Timestamp,
    /// Hosts that the manager of the moves takes for a VM, by its UUID.
    bounds: HashMap<&'a Uuid, Vec<&'a VmBound>>,
    /// Versions of the sources when VMs move back; `None` if VMs do not move back.
    back_to: Option<Versions>,
    times: RefCell<HashMap<(VmId, u64), Option<f64>>>,
}

impl<'a> PolicyOracle<'a> {
    /// An oracle at the time `now`. The window of `asked` is ignored: the plan is made before the window opens.
    pub fn new(
        policy: &'a Policy,
        site: &'a dyn Site,
        fleet: &'a Fleet,
        asked: &Change,
        now: Timestamp,
    ) -> Self {
        let asked = Change { window_start: None, window_end: None, ..asked.clone() };
        let (bounds, times) = (HashMap::new(), RefCell::default());
        Self { policy, site, fleet, asked, now, bounds, back_to: None, times }
    }

    /// The same oracle, which refuses destinations that the manager of the moves would refuse.
    #[must_use]
    pub fn with_bounds(mut self, bounds: &'a [VmBound]) -> Self {
        for bound in bounds {
            self.bounds.entry(&bound.vm).or_default().push(bound);
        }
        self
    }

    /// Reasons of the manager against a destination.
    fn bounds_against(&self, vm: VmId, destination: HostId) -> Vec<RefusalReason> {
        let bounds = || self.bounds.get(self.site.vms().get(vm.0)?.vm.uuid.known()?);
        let against = bounds().into_iter().flatten().filter(|bound| !bound.hosts.contains(&destination.0));
        let way_out = "give hosts with --into that the manager takes for it";
        against
            .map(|bound| RefusalReason { reason: bound.because.clone(), way_out: Some(way_out.to_owned()) })
            .collect()
    }

    /// The same oracle for VMs that move back later, to hosts that have these versions then.
    #[must_use]
    pub fn with_way_back(self, versions: Versions) -> Self {
        Self { back_to: Some(versions), ..self }
    }

    /// Bandwidth limit of a move between two hosts, so that simultaneous moves get the bandwidth of their forecast; `None`
    /// if the move does not share its links.
    pub fn bandwidth_limit(&self, source: HostId, destination: HostId) -> Option<u64> {
        let limits = &self.fleet.limits;
        let shared = limits.outgoing_per_host > 1
            || limits.incoming_per_host > 1
            || self.fleet.networks.iter().any(|network| network.bandwidth_bytes_per_second.is_some());
        let least = self.asked.bandwidth_limit_bytes_per_second;
        if !shared {
            return least;
        }
        let share = self.fleet.share_bytes_per_second(source, destination);
        Some(least.map_or(share, |least| least.min(share)))
    }

    /// Number of VMs with unknown dirty rate, which are planned as idle.
    pub fn assumed_idle(&self, vms: impl Iterator<Item = VmId>) -> usize {
        let knows = |vm: &&super::SiteVm| {
            vm.vm.dirty_rate.known().is_none()
                && vm.vm.dirty_windows.known().is_none()
                && vm.vm.dirty_trace.known().is_none()
        };
        vms.filter_map(|vm| self.site.vms().get(vm.0)).filter(knows).count()
    }

    fn facts(&self, vm: VmId, destination: HostId) -> Facts {
        let mut facts = self.site.facts(vm.0, destination.0);
        let source = self.fleet.vm(vm).map_or(destination, |vm| vm.host);
        let share = self.bandwidth_limit(source, destination);
        let limits = &self.fleet.limits;
        let at_once = limits.outgoing_per_host.max(limits.incoming_per_host).min(limits.total);
        facts.change = Change {
            bandwidth_limit_bytes_per_second: share,
            moves_at_once: u32::try_from(at_once).unwrap_or(u32::MAX),
            ..self.asked.clone()
        };
        let carries = |id: HostId| self.fleet.host(id).map_or(0, |host| host.bandwidth_bytes_per_second);
        if let Fact::Known(path) = &mut facts.path {
            let link = path.bandwidth_bytes_per_second.known().copied();
            let link = link.unwrap_or_else(|| carries(source).min(carries(destination)));
            // A manager sets no limit on a move for its share, which is all that the other moves leave it.
            let left = share.filter(|_| self.asked.run_by.is_some()).unwrap_or(link);
            path.bandwidth_bytes_per_second = Fact::Known(link.min(left));
        }
        facts
    }

    /// Obstacles of the VM's later move back to its source.
    fn way_back_obstacles(&self, facts: &Facts) -> Vec<RefusalReason> {
        let Some(versions) = self.back_to else { return Vec::new() };
        let mut facts = facts.clone();
        if let Fact::Known(source) = &mut facts.source {
            let set = |known: &mut Fact<_>, version: Option<_>| {
                if let Some(version) = version {
                    *known = Fact::Known(version);
                }
            };
            set(&mut source.qemu_version, versions.qemu_version);
            set(&mut source.libvirt_version, versions.libvirt_version);
        }
        let found = self.policy.way_back(&facts, self.now).into_iter();
        found
            .map(|found| RefusalReason {
                reason: format!("{}: {}", found.rule, found.message),
                way_out: found.remediation,
            })
            .collect()
    }

    fn forecast_seconds(&self, vm: &Vm, bytes_per_second: u64) -> Option<f64> {
        let mut facts = Facts::empty(self.now);
        facts.vm = Fact::Known(vm.clone());
        facts.change.clone_from(&self.asked);
        facts.path = Fact::Known(MigrationPath {
            bandwidth_bytes_per_second: Fact::Known(bytes_per_second),
            goodput_bytes_per_second: Fact::Known(bytes_per_second),
            ..MigrationPath::default()
        });
        let (_, forecast) = vmgate_forecast::derive(facts, &self.policy.catalogues);
        match forecast.total_seconds {
            Fact::Known(total) => Some(total.p95),
            #[allow(clippy::cast_precision_loss)] // no link carries 2^53 bytes a second
            Fact::Unknown(_) if vm.dirty_rate.known().is_none() => {
                let touched = vmgate_forecast::touched_bytes(vm)?;
                Some(SETUP_SECONDS + touched / bytes_per_second.max(1) as f64)
            }
            Fact::Unknown(_) => None,
        }
    }
}

impl Oracle for PolicyOracle<'_> {
    fn judge(&self, vm: VmId, destination: HostId) -> Ruling {
        let against = self.bounds_against(vm, destination);
        if !against.is_empty() {
            return Ruling::NoGo(against);
        }
        let facts = self.facts(vm, destination);
        let back = self.way_back_obstacles(&facts);
        let verdict = self.policy.judge(facts, self.now, &VerdictRequest::default());
        let name = self.fleet.host(destination).map_or("?", |host| host.name.as_str());
        let seen = audit::rate_destination(name, &verdict);
        let mut reasons: Vec<RefusalReason> = seen
            .because
            .iter()
            .map(|because| RefusalReason {
                reason: format!("{}: {}", because.rule, because.message),
                way_out: because.remediation.as_ref().map(|text| text.trim().to_owned()),
            })
            .collect();
        if seen.answer == MoveAnswer::No
            && verdict.outcomes.iter().filter(|judged| blocks(judged)).any(is_independent_of_destination)
        {
            return Ruling::NoGoAnywhere(reasons);
        }
        reasons.extend(seen.undecided.iter().map(|rule| {
            let way_out = verdict.unknown.first().map(|group| group.way_out.clone());
            RefusalReason { reason: format!("{rule}: evidence is missing"), way_out }
        }));
        reasons.extend(back);
        if reasons.is_empty() { Ruling::Go } else { Ruling::NoGo(reasons) }
    }

    fn seconds(&self, vm: VmId, bytes_per_second: u64) -> Option<f64> {
        let known = self.times.borrow().get(&(vm, bytes_per_second)).copied();
        known.unwrap_or_else(|| {
            let seconds =
                self.site.vms().get(vm.0).and_then(|seen| self.forecast_seconds(&seen.vm, bytes_per_second));
            self.times.borrow_mut().insert((vm, bytes_per_second), seconds);
            seconds
        })
    }
}

fn blocks(judged: &JudgedOutcome) -> bool {
    judged.effect_now == Some(Effect::Block) && judged.outcome.status == Status::Fail
}

/// True if a violation does not depend on facts of the destination, so that no other destination helps.
fn is_independent_of_destination(judged: &JudgedOutcome) -> bool {
    let evidence = &judged.outcome.evidence;
    !evidence.is_empty()
        && evidence.iter().all(|seen| {
            let group = seen.path.split(['.', '[']).next().unwrap_or_default();
            WHEREVER_IT_GOES.contains(&group)
        })
}
