//! Proposal of a plan: the change file for the review, and the summary for the operator.

use std::fmt;

use vmgate_judge::change::{ChangeDraft, DraftMove, DraftWave, UnplacedVm};

use super::{
    BuildNotes, Fleet, FleetPlan, HostId, PolicyOracle, ScheduledMove, VmId, Wave, inventory::Inventory,
    plan::counted,
};

/// Head of a change file: id, title, window and limits.
#[derive(Debug, Clone, Default)]
pub struct ChangeHeader {
    /// Change id of the operator.
    pub id: String,
    /// Purpose of the change, in one line.
    pub title: String,
    /// Maintenance window: start and end.
    pub window: Option<(jiff::Timestamp, jiff::Timestamp)>,
    /// Longest accepted blackout of a guest, if not the default.
    pub longest_blackout_seconds: Option<f64>,
    /// Dark time that was measured on the guests' network, in seconds; none to derive it.
    pub network_dark_seconds: Option<f64>,
    /// Longest accepted duration of a migration.
    pub deadline_seconds: Option<f64>,
    /// True if each move is begun and taken back before it is judged.
    pub trial: bool,
    /// Manager that runs the moves; none for libvirt.
    pub run_by: Option<String>,
    /// True if the switchover is rehearsed on the networks before the moves are judged.
    pub probe_network: bool,
}

/// A plan with all its inputs.
pub struct Proposal<'a> {
    /// The inventory of the hosts.
    pub inventory: &'a Inventory,
    /// The fleet that was planned.
    pub fleet: &'a Fleet,
    /// The oracle that judged the moves.
    pub judge: &'a PolicyOracle<'a>,
    /// The plan.
    pub plan: &'a FleetPlan,
    /// Gaps and assumptions of the fleet.
    pub notes: &'a BuildNotes,
    /// Head of the change file.
    pub header: ChangeHeader,
}

impl Proposal<'_> {
    /// The change file.
    pub fn draft(&self) -> ChangeDraft {
        let limits = &self.fleet.limits;
        let number = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
        let waves = self.plan.waves.as_slice();
        let several = waves.len() > 1;
        let moves = self.plan.moves(self.fleet);
        let moves = moves.filter_map(|(wave, moved, from)| self.moved(moved, from, several.then_some(wave)));
        let mut before: &[HostId] = &[];
        let waves = waves.iter().filter(|_| several).map(|wave| {
            let hosts = before.iter().filter_map(|host| self.uri(*host));
            let waits = wave.empties.is_empty() && !before.is_empty();
            let wait_for = waits.then(|| (hosts.collect(), self.inventory.after_maintenance));
            before = &wave.empties;
            DraftWave { name: wave.title.clone(), wait_for }
        });
        ChangeDraft {
            id: self.header.id.clone(),
            title: self.header.title.clone(),
            window: self.header.window,
            longest_blackout_seconds: self.header.longest_blackout_seconds,
            network_dark_seconds: self.header.network_dark_seconds,
            deadline_seconds: self.header.deadline_seconds,
            per_source: number(limits.outgoing_per_host),
            per_destination: number(limits.incoming_per_host),
            at_once: (limits.total != usize::MAX).then(|| number(limits.total)),
            trial: self.header.trial,
            run_by: self.header.run_by.clone(),
            probe_network: self.header.probe_network,
            waves: waves.collect(),
            moves: moves.collect(),
            stays: self.stays(),
        }
    }

    fn moved(&self, moved: &ScheduledMove, from: HostId, wave: Option<&Wave>) -> Option<DraftMove> {
        let to = self.inventory.hosts.get(moved.destination.0)?;
        let groups = self.fleet.affinities.iter();
        let exclusive = groups.filter(|group| group.one_at_a_time && group.vms.contains(&moved.vm));
        Some(DraftMove {
            vm: self.fleet.vm(moved.vm)?.name.clone(),
            from: self.uri(from)?,
            to: to.uri.to_string(),
            migrate_address: to.migrate_address.map(|address| address.to_string()),
            bandwidth_limit_bytes_per_second: self
                .judge
                .bandwidth_limit(from, moved.destination)
                .filter(|_| self.header.run_by.is_none()),
            wave: wave.map(|wave| wave.title.clone()),
            exclusive: exclusive.map(|group| group.name.clone()).collect(),
            expected_seconds: moved.end_seconds - moved.start_seconds,
        })
    }

    fn stays(&self) -> Vec<UnplacedVm> {
        let stays = self.plan.unplaced.iter().filter_map(|unplaced| {
            let vm = self.fleet.vm(unplaced.vm)?;
            Some(UnplacedVm {
                vm: vm.name.clone(),
                on: self.uri(vm.host)?,
                because: unplaced.reasons.clone(),
                way_out: unplaced.way_out.clone(),
            })
        });
        stays.collect()
    }

    fn uri(&self, host: HostId) -> Option<String> {
        self.inventory.hosts.get(host.0).map(|host| host.uri.to_string())
    }

    fn moving(&self) -> impl Iterator<Item = VmId> {
        let waves = self.plan.waves.iter().filter(|wave| !wave.empties.is_empty());
        waves.flat_map(|wave| &wave.schedule.moves).map(|moved| moved.vm)
    }

    /// Duration of the plan and of its window, seconds, if the plan takes longer.
    pub fn outlasts_window(&self) -> Option<(f64, f64)> {
        let (start, end) = self.header.window?;
        let (takes, has) = (self.plan.makespan_seconds(), end.duration_since(start).as_secs_f64());
        (takes > has).then_some((takes, has))
    }
}

impl fmt::Display for Proposal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (moving, stays) = (self.moving().count(), self.plan.unplaced.len());
        let bound: f64 = self.plan.waves.iter().map(|wave| wave.schedule.lower_bound_seconds).sum();
        writeln!(
            f,
            "{}: {moving} of {} move in {}; the shortest possible time is {}",
            self.header.title,
            counted(moving + stays, "VM"),
            duration(self.plan.makespan_seconds()),
            duration(bound)
        )?;
        let one_by_one = self.plan.one_by_one_seconds(self.fleet, self.judge);
        if let Some(manager) = &self.header.run_by
            && one_by_one > self.plan.makespan_seconds() + 1.0
        {
            let takes = duration(one_by_one);
            writeln!(f, "ordered from {manager} one after the other, the same moves take {takes}")?;
        }
        for wave in self.plan.waves.iter().filter(|_| self.plan.waves.len() > 1) {
            let moves = counted(wave.schedule.moves.len(), "move");
            writeln!(f, "  {}: {moves}, {}", wave.title, duration(wave.schedule.makespan_seconds))?;
        }
        if let Some((takes, has)) = self.outlasts_window() {
            writeln!(
                f,
                "the window is {} long, but the moves alone take {}: moves that do not fit are not started; raise the limits of \
                 the inventory, or split the change",
                duration(has),
                duration(takes)
            )?;
        }
        for shortfall in &self.plan.shortfalls {
            writeln!(f, "{shortfall}; add destinations to --into, or empty fewer hosts")?;
        }
        for unplaced in &self.plan.unplaced {
            let Some(vm) = self.fleet.vm(unplaced.vm) else { continue };
            let host = self.fleet.host(vm.host).map_or("?", |host| host.name.as_str());
            writeln!(f, "{} stays on {host}", vm.name)?;
            for reason in &unplaced.reasons {
                writeln!(f, "  {reason}")?;
            }
            writeln!(f, "  way out: {}", unplaced.way_out)?;
        }
        f.write_str(&self.gap_lines())
    }
}

impl Proposal<'_> {
    /// Lines on the gaps and assumptions of the plan.
    fn gap_lines(&self) -> String {
        let mut text = String::new();
        let mut line = |words: fmt::Arguments| text.extend([words.to_string().as_str(), "\n"]);
        for (host, why) in &self.notes.unreached {
            line(format_args!("{host} did not answer and is not used in the plan: {why}"));
        }
        for (group, vm) in &self.notes.missing {
            line(format_args!("the group `{group}` names {vm}, which runs on no host that answered"));
        }
        if let [first, more @ ..] = self.notes.assumed_links.as_slice() {
            let others = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            line(format_args!(
                "the link speed of {first}{others} is unknown, 1 Gbit/s is assumed: set bandwidth_bytes_per_second in the inventory"
            ));
        }
        match self.judge.assumed_idle(self.moving()) {
            0 => {}
            idle => line(format_args!(
                "the dirty rate of {} is unknown, planned as idle: measure it with `vmgate observe`",
                counted(idle, "VM")
            )),
        }
        text
    }
}

/// A duration in words: 42 s, 12 min, 3 h 5 min.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a plan is shorter than a century
fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).ceil() as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min", whole.div_ceil(60)),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}
