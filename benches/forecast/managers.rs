//! Managers of VMs: the migrations that they would run by their settings, and the orders that they give to a running one.

use vmgate_facts::{ManagedEnd, ManagedEndAction, ManagedMigration, ManagedStallStep};
use vmgate_rules::catalogue::{Catalogues, MigrationKnob};

use crate::Outcome;

/// A manager with the settings of a site: those of the catalogue, but for these in the manager's own units. Times are short, as
/// the guests are small.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    manager: &'static str,
    settings: &'static [(MigrationKnob, &'static str)],
}

use MigrationKnob::{
    AutoConverge, BandwidthLimit, CompletionAction, CompletionSeconds, CompletionSecondsPerGib,
    DowntimeLimit, DowntimeSteps, StepSecondsPerGib, Tunnelled,
};

pub(crate) const SITES: [Site; 9] = [
    Site {
        manager: "nova",
        settings: &[(DowntimeSteps, "3"), (StepSecondsPerGib, "3"), (CompletionSecondsPerGib, "10")],
    },
    Site {
        manager: "nova",
        settings: &[
            (DowntimeSteps, "3"),
            (StepSecondsPerGib, "3"),
            (CompletionSecondsPerGib, "6"),
            (CompletionAction, "force_complete"),
        ],
    },
    Site { manager: "ovirt", settings: &[] },
    Site { manager: "kubevirt", settings: &[(BandwidthLimit, "20971520"), (CompletionSecondsPerGib, "15")] },
    Site {
        manager: "kubevirt",
        settings: &[(CompletionSecondsPerGib, "12"), (CompletionAction, "true"), (AutoConverge, "true")],
    },
    Site { manager: "proxmox", settings: &[(Tunnelled, "insecure")] },
    Site { manager: "proxmox", settings: &[(Tunnelled, "insecure"), (BandwidthLimit, "20480")] },
    Site { manager: "ganeti", settings: &[] },
    Site {
        manager: "cloudstack",
        settings: &[(DowntimeLimit, "100"), (BandwidthLimit, "160"), (CompletionSeconds, "10000")],
    },
];

impl Site {
    /// The migration of a VM with this much memory. It goes over the lab's link itself: KubeVirt's own proxy is not there.
    pub(crate) fn migration(&self, memory_bytes: u64) -> Outcome<ManagedMigration> {
        let catalogues = Catalogues::shipped().map_err(|problems| problems.to_string())?;
        let entry = catalogues.managers().iter().find(|entry| entry.id == self.manager);
        let instead: Vec<_> =
            self.settings.iter().map(|(knob, value)| (*knob, (*value).to_owned())).collect();
        let migration = entry.ok_or("no such manager")?.migration(&[], memory_bytes, &instead);
        let migration = migration.map_err(|unknown| unknown.reason)?;
        // What the replay does not need is not kept in the results.
        Ok(ManagedMigration { tunnelled: false, settings: Vec::new(), not_replayed: None, ..migration })
    }
}

/// Title of the manager and its end of a migration, for a row of a table.
pub(crate) fn in_words(migration: &ManagedMigration) -> String {
    let end = match migration.end {
        Some(ManagedEnd { at_seconds, action: ManagedEndAction::Abort }) => {
            format!(", abort at {at_seconds:.0} s")
        }
        Some(ManagedEnd { at_seconds, .. }) => format!(", pause at {at_seconds:.0} s"),
        None => String::new(),
    };
    let limits: Vec<String> = match &migration.stall {
        Some(stall) => stall.steps.iter().filter_map(|step| step.limit_seconds).map(in_ms).collect(),
        None => migration.downtime_limits.iter().skip(1).map(|step| in_ms(step.limit_seconds)).collect(),
    };
    let limits = limits.last().map(|last| format!(", limit up to {last} ms")).unwrap_or_default();
    format!("{}{limits}{end}", migration.title)
}

fn in_ms(seconds: f64) -> String {
    format!("{:.0}", seconds * 1e3)
}

/// Options of `virsh migrate` by which the manager's migration begins.
pub(crate) fn options(migration: &ManagedMigration) -> Vec<String> {
    let auto_converge = migration.auto_converge.then_some("--auto-converge");
    let xbzrle = ["--compressed", "--comp-methods", "xbzrle", "--comp-xbzrle-cache", "67108864"];
    let xbzrle = xbzrle.into_iter().filter(|_| migration.xbzrle);
    auto_converge.into_iter().chain(xbzrle).map(str::to_owned).collect()
}

/// Order to a running migration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Order {
    Limit(f64),
    Pause,
    Abort,
}

impl Order {
    /// The order as virsh takes it.
    pub(crate) fn words(self, vm: &str) -> String {
        match self {
            Self::Limit(seconds) => format!("migrate-setmaxdowntime {vm} {}\n", in_ms(seconds)),
            Self::Pause => format!("suspend {vm}\n"),
            Self::Abort => format!("domjobabort {vm}\n"),
        }
    }
}

/// A manager that watches one migration, as its own program does: not the replay's idea of it.
pub(crate) struct Manager<'a> {
    migration: &'a ManagedMigration,
    limits_set: usize,
    ended: bool,
    next_look: f64,
    last: f64,
    rises: u32,
    steps_taken: usize,
    first_round: Option<f64>,
    last_round: f64,
}

impl<'a> Manager<'a> {
    pub(crate) fn of(migration: &'a ManagedMigration) -> Self {
        Self {
            migration,
            limits_set: 1,
            ended: false,
            next_look: migration.stall.as_ref().map_or(0.0, |stall| stall.look_seconds),
            last: f64::INFINITY,
            rises: 0,
            steps_taken: 0,
            first_round: None,
            last_round: 0.0,
        }
    }

    /// The order that is due at a time from the start, where so many bytes are left in this round.
    pub(crate) fn order(&mut self, elapsed: f64, told: Option<(f64, f64)>) -> Option<Order> {
        if self.ended {
            return None;
        }
        if let Some(end) = self.migration.end.filter(|end| elapsed >= end.at_seconds) {
            self.ended = true;
            return Some(if end.action == ManagedEndAction::Abort { Order::Abort } else { Order::Pause });
        }
        if let Some(step) = self.migration.downtime_limits.get(self.limits_set)
            && elapsed >= step.at_seconds
        {
            self.limits_set += 1;
            return Some(Order::Limit(step.limit_seconds));
        }
        let (remaining, round) = told?;
        let stall = self.migration.stall.as_ref().filter(|_| elapsed >= self.next_look)?;
        self.next_look = elapsed + stall.look_seconds;
        self.rises += u32::from(remaining > self.last);
        self.last = remaining;
        let rounds = round - *self.first_round.get_or_insert(round);
        let is_new = round > std::mem::replace(&mut self.last_round, round);
        let is_due = |step: &&ManagedStallStep| match step.rounds {
            0 => self.rises >= step.rises,
            wanted => is_new && rounds >= f64::from(wanted),
        };
        let step = stall.steps.get(self.steps_taken).filter(is_due)?;
        self.steps_taken += 1;
        self.ended = step.limit_seconds.is_none();
        Some(step.limit_seconds.map_or(Order::Abort, Order::Limit))
    }
}
