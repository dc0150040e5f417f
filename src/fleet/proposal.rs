//! What a plan comes to: the change file that is reviewed, and the summary for whoever asked for it.

use std::fmt;

use super::{Fleet, HostId, Judge, Notes, Plan, Scheduled, VmId, Wave, inventory::Inventory, plan::counted};
use crate::change::{ChangeDraft, DraftMove, DraftWave, UnplacedVm};

/// What a change is for.
#[derive(Debug, Clone, Default)]
pub struct Purpose {
    /// Its id in the operator's own books.
    pub id: String,
    /// What it is for, in a line.
    pub title: String,
    /// When it may run.
    pub window: Option<(jiff::Timestamp, jiff::Timestamp)>,
    /// Longest silence of a guest that is accepted, where it is not the default.
    pub longest_blackout_seconds: Option<f64>,
    /// Longest duration of a migration that is accepted.
    pub deadline_seconds: Option<f64>,
}

/// A plan, with all that it was made from.
pub struct Proposal<'a> {
    /// The hosts.
    pub inventory: &'a Inventory,
    /// What was counted.
    pub fleet: &'a Fleet,
    /// Who was asked.
    pub judge: &'a Judge<'a>,
    /// What is to be done.
    pub plan: &'a Plan,
    /// What was left open.
    pub notes: &'a Notes,
    /// What for.
    pub purpose: Purpose,
}

impl Proposal<'_> {
    /// The change file.
    pub fn draft(&self) -> ChangeDraft {
        let limits = &self.fleet.limits;
        let number = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
        let waves = self.plan.waves.as_slice();
        let several = waves.len() > 1;
        let mut moves = Vec::new();
        let mut places: Vec<HostId> = self.fleet.vms.iter().map(|vm| vm.host).collect();
        for wave in waves {
            for moved in &wave.schedule.moves {
                if let Some(draft) = self.moved(moved, &mut places, several.then_some(wave)) {
                    moves.push(draft);
                }
            }
        }
        let mut before: &[HostId] = &[];
        let waves = waves.iter().filter(|_| several).map(|wave| {
            let hosts = before.iter().filter_map(|host| self.uri(*host));
            let waits = wave.empties.is_empty() && !before.is_empty();
            let wait_for = waits.then(|| (hosts.collect(), self.inventory.after_maintenance));
            before = &wave.empties;
            DraftWave { name: wave.title.clone(), wait_for }
        });
        ChangeDraft {
            id: self.purpose.id.clone(),
            title: self.purpose.title.clone(),
            window: self.purpose.window,
            longest_blackout_seconds: self.purpose.longest_blackout_seconds,
            deadline_seconds: self.purpose.deadline_seconds,
            per_source: number(limits.outgoing_per_host),
            per_destination: number(limits.incoming_per_host),
            at_once: (limits.total != usize::MAX).then(|| number(limits.total)),
            waves: waves.collect(),
            moves,
            stays: self.stays(),
        }
    }

    fn moved(&self, moved: &Scheduled, places: &mut [HostId], wave: Option<&Wave>) -> Option<DraftMove> {
        let place = places.get_mut(moved.vm.0)?;
        let from = std::mem::replace(place, moved.destination);
        let to = self.inventory.hosts.get(moved.destination.0)?;
        let groups = self.fleet.affinities.iter();
        let exclusive = groups.filter(|group| group.one_at_a_time && group.vms.contains(&moved.vm));
        Some(DraftMove {
            vm: self.fleet.vm(moved.vm)?.name.clone(),
            from: self.uri(from)?,
            to: to.uri.to_string(),
            migrate_address: to.migrate_address.map(|address| address.to_string()),
            bandwidth_limit_bytes_per_second: self.judge.limit(from, moved.destination),
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

    /// Whether the plan takes longer than its window, seconds: what it takes, and what there is.
    pub fn outlasts_window(&self) -> Option<(f64, f64)> {
        let (start, end) = self.purpose.window?;
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
            "{}: {moving} of {} move in {}; these moves cannot take less than {}",
            self.purpose.title,
            counted(moving + stays, "VM"),
            duration(self.plan.makespan_seconds()),
            duration(bound)
        )?;
        for wave in self.plan.waves.iter().filter(|_| self.plan.waves.len() > 1) {
            let moves = counted(wave.schedule.moves.len(), "move");
            writeln!(f, "  {}: {moves}, {}", wave.title, duration(wave.schedule.makespan_seconds))?;
        }
        if let Some((takes, has)) = self.outlasts_window() {
            writeln!(
                f,
                "the window has {}, and the moves alone take {}: what does not fit is not begun; raise the limits of \
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
        f.write_str(&self.open_ends())
    }
}

impl Proposal<'_> {
    /// What the plan could not know.
    fn open_ends(&self) -> String {
        let mut text = String::new();
        let mut line = |words: fmt::Arguments| text.extend([words.to_string().as_str(), "\n"]);
        for (host, why) in &self.notes.unreached {
            line(format_args!("{host} did not answer and is planned around: {why}"));
        }
        for (group, vm) in &self.notes.missing {
            line(format_args!("the group `{group}` names {vm}, which runs on no host that answered"));
        }
        if let [first, more @ ..] = self.notes.assumed_links.as_slice() {
            let others = if more.is_empty() { String::new() } else { format!(" and {} others", more.len()) };
            line(format_args!(
                "the link of {first}{others} is taken for 1 Gbit/s: give bandwidth_bytes_per_second in the inventory"
            ));
        }
        match self.judge.counted_as_idle(self.moving()) {
            0 => {}
            idle => line(format_args!(
                "how they dirty memory is not known of {}, which are planned as idle: `vmgate observe` learns it",
                counted(idle, "VM")
            )),
        }
        text
    }
}

/// Seconds as people say them: 42 s, 12 min, 3 h 5 min.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a plan is shorter than a century
fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).ceil() as u64;
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min", whole.div_ceil(60)),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}
