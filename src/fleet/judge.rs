//! The oracle that a plan asks: the same rules and the same forecast as `vmgate check`, on what an audit knows.

use std::{cell::RefCell, collections::HashMap};

use jiff::Timestamp;

use super::{Fleet, HostId, Oracle, Ruling, Site, VmId, Why};
use crate::{
    audit::{self, MoveAnswer},
    change::Versions,
    fact::{Change, Fact, Facts, Path, Vm},
    forecast,
    preflight::{Asked, Policy},
    rule::{Effect, Status},
    verdict::Judged,
};

/// What a move takes beside the memory that is sent, where nothing is known of how the guest dirties it: what the
/// forecast from rates counts for it.
const SETUP_SECONDS: f64 = 1.0;

/// Groups of facts that are the same wherever the VM would go.
const WHEREVER_IT_GOES: [&str; 4] = ["vm", "guest", "source", "change"];

/// Rules and forecast, for the moves of one fleet.
pub struct Judge<'a> {
    policy: &'a Policy,
    site: &'a dyn Site,
    fleet: &'a Fleet,
    asked: Change,
    now: Timestamp,
    /// What sources will have when VMs come back; none where they are not brought back.
    back_to: Option<Versions>,
    times: RefCell<HashMap<(VmId, u64), Option<f64>>>,
}

impl<'a> Judge<'a> {
    /// A judge at the time `now`. The window of `asked` is the plan's business: the plan is made before it opens.
    pub fn new(
        policy: &'a Policy,
        site: &'a dyn Site,
        fleet: &'a Fleet,
        asked: &Change,
        now: Timestamp,
    ) -> Self {
        let asked = Change { window_start: None, window_end: None, ..asked.clone() };
        Self { policy, site, fleet, asked, now, back_to: None, times: RefCell::default() }
    }

    /// The same for VMs that come back to hosts that have these versions then.
    #[must_use]
    pub fn there_and_back(self, versions: Versions) -> Self {
        Self { back_to: Some(versions), ..self }
    }

    /// The limit that a move between two hosts is given, so that those beside it get what they were forecast with; none
    /// where it has its links for itself.
    pub fn limit(&self, source: HostId, destination: HostId) -> Option<u64> {
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

    /// VMs of which it is not known how they dirty memory, so that they count as idle.
    pub fn counted_as_idle(&self, vms: impl Iterator<Item = VmId>) -> usize {
        let knows = |vm: &&super::SeenVm| {
            vm.vm.dirty_rate.known().is_none()
                && vm.vm.dirty_windows.known().is_none()
                && vm.vm.dirty_trace.known().is_none()
        };
        vms.filter_map(|vm| self.site.vms().get(vm.0)).filter(knows).count()
    }

    fn facts(&self, vm: VmId, destination: HostId) -> Facts {
        let mut facts = self.site.facts(vm.0, destination.0);
        let source = self.fleet.vm(vm).map_or(destination, |vm| vm.host);
        facts.change = Change {
            bandwidth_limit_bytes_per_second: self.limit(source, destination),
            ..self.asked.clone()
        };
        let carries = |id: HostId| self.fleet.host(id).map_or(0, |host| host.bandwidth_bytes_per_second);
        if let Fact::Known(path) = &mut facts.path
            && path.bandwidth_bytes_per_second.known().is_none()
        {
            path.bandwidth_bytes_per_second = Fact::Known(carries(source).min(carries(destination)));
        }
        facts
    }

    /// What would stand in the way of the VM when it is to come home.
    fn back(&self, facts: &Facts) -> Vec<Why> {
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
            .map(|found| Why {
                reason: format!("{}: {}", found.rule, found.message),
                way_out: found.remediation,
            })
            .collect()
    }

    fn forecast_seconds(&self, vm: &Vm, bytes_per_second: u64) -> Option<f64> {
        let mut facts = Facts::empty(self.now);
        facts.vm = Fact::Known(vm.clone());
        facts.change.clone_from(&self.asked);
        facts.path = Fact::Known(Path {
            bandwidth_bytes_per_second: Fact::Known(bytes_per_second),
            goodput_bytes_per_second: Fact::Known(bytes_per_second),
            ..Path::default()
        });
        let (_, forecast) = forecast::derive(facts, &self.policy.catalogues);
        match (&forecast.total_seconds, vm.memory_bytes.known().or(vm.memory_max_bytes.known())) {
            (Fact::Known(total), _) => Some(total.p95),
            #[allow(clippy::cast_precision_loss)] // no guest has 2^53 bytes
            (Fact::Unknown(_), Some(memory)) if vm.dirty_rate.known().is_none() => {
                Some(SETUP_SECONDS + *memory as f64 / bytes_per_second.max(1) as f64)
            }
            _ => None,
        }
    }
}

impl Oracle for Judge<'_> {
    fn judge(&self, vm: VmId, destination: HostId) -> Ruling {
        let facts = self.facts(vm, destination);
        let back = self.back(&facts);
        let verdict = self.policy.judge(facts, self.now, &Asked::default());
        let name = self.fleet.host(destination).map_or("?", |host| host.name.as_str());
        let seen = audit::rate_destination(name, &verdict);
        let mut reasons: Vec<Why> = seen
            .because
            .iter()
            .map(|because| Why {
                reason: format!("{}: {}", because.rule, because.message),
                way_out: because.remediation.as_ref().map(|text| text.trim().to_owned()),
            })
            .collect();
        if seen.answer == MoveAnswer::No
            && verdict.outcomes.iter().filter(|judged| blocks(judged)).any(anywhere)
        {
            return Ruling::Nowhere(reasons);
        }
        reasons.extend(seen.undecided.iter().map(|rule| {
            let way_out = verdict.unknown.first().map(|group| group.way_out.clone());
            Why { reason: format!("{rule}: the evidence is missing"), way_out }
        }));
        reasons.extend(back);
        if reasons.is_empty() { Ruling::Go } else { Ruling::Not(reasons) }
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

fn blocks(judged: &Judged) -> bool {
    judged.effect_now == Some(Effect::Block) && judged.outcome.status == Status::Fail
}

/// Whether a violation was found without a look at the destination, so that another one changes nothing.
fn anywhere(judged: &Judged) -> bool {
    let evidence = &judged.outcome.evidence;
    !evidence.is_empty()
        && evidence.iter().all(|seen| {
            let group = seen.path.split(['.', '[']).next().unwrap_or_default();
            WHEREVER_IT_GOES.contains(&group)
        })
}
