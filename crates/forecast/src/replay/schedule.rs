//! Schedule of a migration: what a manager, or the executor's guard, does to it as time passes.
//!
//! Managers raise the downtime limit in steps (Nova, KubeVirt), and force or abort a migration that takes too long.

use serde::{Deserialize, Serialize};

/// Steps of a schedule, in the order of their times.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schedule {
    steps: Vec<ScheduledStep>,
}

/// One step: an action and its time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduledStep {
    /// Time of the step, in seconds from the order to migrate.
    pub at_seconds: f64,
    /// Action at that time.
    pub action: ScheduledAction,
}

/// Action of a schedule on a running migration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduledAction {
    /// Sets QEMU's downtime-limit, in seconds.
    DowntimeLimit(f64),
    /// Sets QEMU's max-bandwidth, in bytes per second; none for no limit.
    BandwidthLimit(Option<f64>),
    /// Switches to post-copy.
    PostCopy,
    /// Stops the guest, which makes any migration complete: the rest is sent while the guest is silent.
    Pause,
    /// Aborts the migration: the guest stays at the source.
    Abort,
}

impl Schedule {
    /// A schedule of these steps, put in the order of their times.
    pub fn new(mut steps: Vec<ScheduledStep>) -> Self {
        steps.sort_by(|one, other| one.at_seconds.total_cmp(&other.at_seconds));
        Self { steps }
    }

    /// Downtime limit raised from `first` to `last` seconds in equal steps, one every `every` seconds. The first limit is
    /// set at once.
    pub fn downtime_ramp(first: f64, last: f64, steps: u32, every: f64) -> Self {
        let share = |step: u32| f64::from(step) / f64::from(steps.max(1));
        let limit = |step| ScheduledStep {
            at_seconds: f64::from(step) * every,
            action: ScheduledAction::DowntimeLimit(first + (last - first) * share(step)),
        };
        Self::new((0..=steps).map(limit).collect())
    }

    /// Nova's downtime limits: `live_migration_downtime`, `_downtime_steps`, and `_downtime_delay` for each GiB of RAM, of
    /// which Nova counts at least two.
    pub fn nova(downtime_seconds: f64, steps: u32, delay_seconds: f64, ram_gib: f64) -> Self {
        let first = downtime_seconds / f64::from(steps.max(1));
        Self::downtime_ramp(first, downtime_seconds, steps, delay_seconds * ram_gib.max(2.0))
    }

    /// The schedule with one more step, such as a completion time-out.
    #[must_use]
    pub fn and(mut self, at_seconds: f64, action: ScheduledAction) -> Self {
        self.steps.push(ScheduledStep { at_seconds, action });
        Self::new(self.steps)
    }

    /// The steps, in the order of their times.
    pub fn steps(&self) -> &[ScheduledStep] {
        &self.steps
    }

    /// Time of the last step; 0 without steps.
    pub(super) fn ends_seconds(&self) -> f64 {
        self.steps.last().map_or(0.0, |step| step.at_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(schedule: &Schedule) -> Vec<(f64, f64)> {
        let limit = |step: &ScheduledStep| match step.action {
            ScheduledAction::DowntimeLimit(limit) => Some((step.at_seconds, (limit * 1e3).round())),
            _ => None,
        };
        schedule.steps().iter().filter_map(limit).collect()
    }

    #[test]
    fn novas_defaults_are_the_limits_that_a_real_nova_set() {
        let limits = limits(&Schedule::nova(0.5, 10, 75.0, 1.0));
        assert_eq!(limits.len(), 11);
        assert_eq!(limits.get(..3), Some(&[(0.0, 50.0), (150.0, 95.0), (300.0, 140.0)][..]));
        assert_eq!(limits.last(), Some(&(1500.0, 500.0)));
    }

    #[test]
    fn steps_are_kept_in_the_order_of_their_times() {
        let schedule = Schedule::downtime_ramp(0.15, 1.05, 6, 15.0).and(20.0, ScheduledAction::Abort);
        let times: Vec<f64> = schedule.steps().iter().map(|step| step.at_seconds).collect();
        assert_eq!(times, [0.0, 15.0, 20.0, 30.0, 45.0, 60.0, 75.0, 90.0]);
        assert!((schedule.ends_seconds() - 90.0).abs() < 1e-9);
    }
}
