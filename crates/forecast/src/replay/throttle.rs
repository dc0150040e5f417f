//! Auto-converge and the dirty limit: the brakes that QEMU puts on the vCPUs, and their effect on the dirty rate.

use super::settings::AutoConverge;

/// Trigger: dirtied bytes above this share of the bytes sent count as too many (throttle-trigger-threshold).
const TRIGGER: f64 = 0.5;
/// Minimum time between two syncs that count.
const PERIOD_SECONDS: f64 = 1.0;

/// Throttle of QEMU: `migration_trigger_throttle` and its counters.
#[derive(Debug, Clone)]
pub(super) struct Throttle {
    rule: Option<AutoConverge>,
    /// Dirty limit in bytes per second, and the speed of the guest once it holds.
    dirty_limit: Option<f64>,
    limited_speed: f64,
    percent: f64,
    high: u32,
    last: Option<f64>,
    dirtied_bytes: f64,
    sent_bytes: f64,
}

impl Throttle {
    pub(super) fn new(rule: Option<AutoConverge>, dirty_limit: Option<f64>) -> Self {
        let (percent, high, last, dirtied_bytes, sent_bytes) = (0.0, 0, None, 0.0, 0.0);
        Self { rule, dirty_limit, limited_speed: 1.0, percent, high, last, dirtied_bytes, sent_bytes }
    }

    /// Strength of the throttle in percent.
    pub(super) fn percent(&self) -> f64 {
        self.percent
    }

    /// True if the throttle can still become stronger.
    pub(super) fn may_grow(&self) -> bool {
        self.rule.is_some_and(|rule| self.percent < rule.most.clamp(1.0, 99.0))
    }

    /// Records a sync at `now` with the bytes dirtied since the last one and the bytes sent since the start.
    pub(super) fn synced(&mut self, now: f64, dirtied_bytes: f64, sent_bytes: f64) {
        self.dirtied_bytes += dirtied_bytes;
        let last = *self.last.get_or_insert(now);
        if now <= last + PERIOD_SECONDS {
            return;
        }
        if self.dirtied_bytes > TRIGGER * (sent_bytes - self.sent_bytes) {
            self.high += 1;
            if self.high >= 2 {
                self.high = 0;
                self.stronger(self.dirtied_bytes / (now - last));
            }
        }
        self.last = Some(now);
        self.dirtied_bytes = 0.0;
        self.sent_bytes = sent_bytes;
    }

    /// Puts the brake on for a guest that writes this many bytes per second: auto-converge step by step, the dirty limit at once
    /// (migration_dirty_limit_guest). Of two brakes QEMU takes one.
    fn stronger(&mut self, dirty_rate: f64) {
        if let Some(limit) = self.dirty_limit.filter(|_| self.rule.is_none()) {
            self.limited_speed = self.limited_speed.min(limit / dirty_rate.max(1.0));
        }
        if let Some(rule) = self.rule {
            let next = if self.percent > 0.0 { self.percent + rule.increment } else { rule.initial };
            self.percent = next.min(rule.most).clamp(1.0, 99.0);
        }
    }

    /// Speed of the guest relative to its usual speed: between the time left to the vCPU, and that time divided by the
    /// vCPU's busy share. `where_between` in [0, 1] selects the point between the two.
    pub(super) fn speed(&self, busy: f64, where_between: f64) -> f64 {
        let left = 1.0 - self.percent / 100.0;
        let at_most = (left / busy.clamp(0.01, 1.0)).min(1.0);
        (left + (at_most - left) * where_between).min(self.limited_speed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_throttle_starts_at_the_second_high_sync_and_grows_to_its_most() {
        let mut throttle = Throttle::new(Some(AutoConverge::default()), None);
        let mut seen = Vec::new();
        for second in 0..40 {
            let now = f64::from(second) * 1.5;
            throttle.synced(now, 6e6, f64::from(second) * 1e7);
            seen.push(throttle.percent());
        }
        assert_eq!(seen.get(..6), Some(&[0.0, 0.0, 20.0, 20.0, 30.0, 30.0][..]));
        assert!((seen.last().copied().unwrap() - 99.0).abs() < 1e-9);
    }

    #[test]
    fn a_dirty_limit_slows_the_guest_to_it_at_once() {
        let mut throttle = Throttle::new(None, Some(4e6));
        (0..3).for_each(|second| throttle.synced(f64::from(second) * 2.0, 4e7, 0.0));
        assert!((throttle.speed(1.0, 0.5) - 0.2).abs() < 1e-9, "20 MB/s are slowed to 4");
        assert!(throttle.percent() < 1e-9);
    }

    #[test]
    fn syncs_within_a_second_are_not_looked_at() {
        let mut throttle = Throttle::new(Some(AutoConverge::default()), None);
        (0..10).for_each(|at| throttle.synced(f64::from(at) * 0.1, 1e9, 0.0));
        assert!(throttle.percent() < 1e-9);
    }

    #[test]
    fn an_idle_vcpu_is_not_slowed_at_one_end_of_the_range() {
        let mut throttle = Throttle::new(Some(AutoConverge::default()), None);
        throttle.percent = 50.0;
        assert!((throttle.speed(0.3, 1.0) - 1.0).abs() < 1e-9);
        assert!((throttle.speed(0.3, 0.0) - 0.5).abs() < 1e-9);
        assert!((throttle.speed(1.0, 1.0) - 0.5).abs() < 1e-9);
    }
}
