//! TCP budgets: a simulation of the kernel's retransmission and keepalive timers, one firing after another.

use vmgate_facts::{DecidedBy, KeepAlive};

use super::{Budget, ConnectionState, KernelSettings, MODEL_RTO_SECONDS, Phase, Traffic};

/// RTO of a SYN before a round trip was measured (TCP_TIMEOUT_INIT).
const INITIAL_RTO_SECONDS: f64 = 1.0;
/// Retransmissions of a live orphan while tcp_orphan_retries is 0 (tcp_orphan_retries()).
const ORPHAN_RETRIES: u32 = 8;
/// Maximum number of firings, more than any setting allows: these settings are bytes in the kernel.
const MOST_FIRINGS: usize = 1024;
/// Tolerance far below the kernel's resolution; sums of decimal fractions may miss an equality.
const EPSILON: f64 = 1e-9;

/// Factor of an RTO that was doubled so many times, exact on every platform.
pub(super) fn power_of_two(times: u32) -> f64 {
    libm::scalbn(1.0, i32::try_from(times.min(1000)).unwrap_or(1000))
}

/// The kernel's time-out for `retries` retransmissions from an RTO of `base_seconds` (tcp_model_timeout).
pub fn model_timeout_seconds(retries: u32, base_seconds: f64, rto_max_seconds: f64) -> f64 {
    let mut doublings = 0_u32;
    while doublings < 31 && base_seconds * power_of_two(doublings + 1) <= rto_max_seconds + EPSILON {
        doublings += 1;
    }
    let doubled = |times: u32| (power_of_two(times + 1) - 1.0) * base_seconds;
    let linear = retries.saturating_sub(doublings);
    doubled(retries.min(doublings)) + f64::from(linear) * rto_max_seconds
}

/// Budget of one end of a connection: the sooner of the ends by lost data and by keepalive.
pub fn tcp_budget(kernel: &KernelSettings, connection: &ConnectionState) -> Budget {
    let sending = match connection.traffic {
        Traffic::MaySend => TimerSchedule::of_data(kernel, connection).budget(kernel),
        Traffic::StaysIdle => Budget::endless(),
    };
    // Keepalive waits while data is in flight, and serves neither the opening of a connection nor an orphan.
    let idle = match (connection.phase, connection.keepalive) {
        (Phase::Established, Some(keepalive)) if connection.retransmits == 0 => {
            TimerSchedule::of_keepalive(connection, keepalive).budget(kernel)
        }
        _ => Budget::endless(),
    };
    if idle.survives_seconds < sending.survives_seconds { idle } else { sending }
}

/// Start of the kernel's time-out.
#[derive(Debug, Clone, Copy)]
enum TimeoutOrigin {
    /// Counted from the first firing.
    FirstTry,
    /// Counted from this many seconds before the next firing.
    BeforeFirstFiring(f64),
}

/// Schedule of the firings of one timer.
#[derive(Debug)]
struct TimerSchedule {
    /// Delay of the next firing.
    first_seconds: f64,
    /// Additional delay by a loss probe.
    probe_seconds: f64,
    /// Delay after that firing, before doubling.
    delay_seconds: f64,
    /// Number of firings that do not double the delay.
    linear: u32,
    /// Maximum delay.
    most_seconds: f64,
    /// Number of retransmissions so far.
    tries: u32,
    /// Retransmissions after which the next firing ends the connection; absent where time alone decides.
    most_tries: Option<u32>,
    /// Time after which a firing ends the connection; infinite where the number of retransmissions alone decides.
    limit_seconds: f64,
    clock: TimeoutOrigin,
    /// True if a firing is moved onto the limit (tcp_clamp_rto_to_user_timeout).
    clamped: bool,
    decided_by: DecidedBy,
}

impl TimerSchedule {
    fn of_data(kernel: &KernelSettings, c: &ConnectionState) -> Self {
        let rto_max = kernel.rto_max_seconds.max(1.0);
        let rto = match c.phase {
            // Here the kernel keeps the RTO as it is and applies the backoff when it sets the timer.
            Phase::ZeroWindow => c.rto_seconds.max(MODEL_RTO_SECONDS) * power_of_two(c.backoff),
            _ => c.rto_seconds,
        };
        let rto = rto.clamp(0.001, rto_max);
        // Past delays, newest first: each is half of the one after it, down to the RTO without backoff.
        let gone = |delays: u32| -> f64 {
            let halved = |times: u32| rto / power_of_two(times.min(c.backoff));
            (0..delays.min(64)).map(halved).sum()
        };
        let lost = c.retransmits > 0;
        // If the running timer is not known, the worst case is that it fires at once.
        let next = if lost { c.timer_seconds.unwrap_or(0.0).clamp(0.0, rto_max) } else { rto };
        let mut plan = Self {
            first_seconds: next,
            probe_seconds: 0.0,
            delay_seconds: rto,
            linear: 0,
            most_seconds: rto_max,
            tries: c.retransmits,
            most_tries: None,
            limit_seconds: f64::INFINITY,
            clock: if lost {
                TimeoutOrigin::BeforeFirstFiring(gone(c.retransmits))
            } else {
                TimeoutOrigin::FirstTry
            },
            clamped: false,
            decided_by: DecidedBy::Retries2,
        };
        match c.phase {
            Phase::Established | Phase::Orphan => {
                plan.probe_seconds = if kernel.loss_probes && !lost { rto } else { 0.0 };
                let (retries, by) = match (c.phase, kernel.orphan_retries) {
                    (Phase::Orphan, 0) if rto < rto_max => (ORPHAN_RETRIES, DecidedBy::Orphan),
                    (Phase::Orphan, retries) => (retries, DecidedBy::Orphan),
                    _ => (kernel.retries2, DecidedBy::Retries2),
                };
                plan.limit_seconds = model_timeout_seconds(retries, MODEL_RTO_SECONDS, rto_max);
                plan.decided_by = by;
            }
            Phase::SynSent => {
                plan.most_tries = Some(kernel.syn_retries.saturating_add(kernel.syn_linear_timeouts));
                plan.linear = kernel.syn_linear_timeouts.saturating_sub(c.retransmits);
                plan.limit_seconds = model_timeout_seconds(kernel.syn_retries, INITIAL_RTO_SECONDS, rto_max);
                plan.clock = TimeoutOrigin::BeforeFirstFiring(gone(c.retransmits.saturating_add(1)));
                plan.decided_by = DecidedBy::SynRetries;
            }
            Phase::SynReceived => {
                plan.most_tries = Some(kernel.synack_retries);
                plan.decided_by = DecidedBy::SynackRetries;
                return plan;
            }
            Phase::ZeroWindow => {
                plan.most_tries = Some(kernel.retries2);
                // The delay doubles no more often than probes are allowed (tcp_send_probe0).
                let doublings = kernel.retries2.saturating_sub(c.backoff).min(31);
                plan.most_seconds = (rto * power_of_two(doublings)).min(rto_max);
                plan.decided_by = DecidedBy::ZeroWindowProbe;
            }
        }
        if let Some(timeout) = c.user_timeout_seconds.filter(|&seconds| seconds > 0.0) {
            plan.limit_seconds = timeout;
            plan.clamped = true;
            plan.decided_by = DecidedBy::UserTimeout;
        }
        plan
    }

    fn of_keepalive(c: &ConnectionState, keepalive: KeepAlive) -> Self {
        let interval = keepalive.interval_seconds.max(0.001);
        // If the idle time is not known, the worst case is a first probe at the start of the silence.
        let first = c.idle_seconds.map_or(0.0, |idle| (keepalive.idle_seconds - idle).max(0.0));
        let mut plan = Self {
            first_seconds: first,
            probe_seconds: 0.0,
            delay_seconds: interval,
            linear: u32::MAX,
            most_seconds: interval,
            tries: 0,
            most_tries: Some(u32::try_from(keepalive.probes).unwrap_or(0)),
            limit_seconds: f64::INFINITY,
            clock: TimeoutOrigin::BeforeFirstFiring(keepalive.idle_seconds),
            clamped: false,
            decided_by: DecidedBy::Keepalive,
        };
        if let Some(timeout) = c.user_timeout_seconds.filter(|&seconds| seconds > 0.0) {
            // The user time-out replaces the number of probes, and counts from the last packet of the peer.
            plan.most_tries = None;
            plan.limit_seconds = timeout;
            plan.decided_by = DecidedBy::UserTimeout;
        }
        plan
    }

    /// Simulates the firings; returns the times of the retransmissions and of the end. `late` adds to each delay; with
    /// `firings` the end is the firing after that many retransmissions, whatever the limit is.
    fn run(&self, probe: bool, late: &dyn Fn(f64) -> f64, firings: Option<usize>) -> (Vec<f64>, f64) {
        let mut at = self.first_seconds + late(self.first_seconds);
        if probe {
            at += self.probe_seconds + late(self.probe_seconds);
        }
        let mut begin = match self.clock {
            TimeoutOrigin::FirstTry => None,
            TimeoutOrigin::BeforeFirstFiring(seconds) => Some(self.first_seconds - seconds),
        };
        let (mut tries, mut linear, mut delay) = (self.tries, self.linear, self.delay_seconds);
        let mut made = Vec::new();
        while made.len() < firings.unwrap_or(MOST_FIRINGS) {
            let elapsed = begin.map_or(0.0, |begin| at - begin);
            let spent = self.most_tries.is_some_and(|most| tries >= most);
            let timed_out = tries > 0 && elapsed >= self.limit_seconds - EPSILON;
            if firings.is_none() && (spent || timed_out) {
                break;
            }
            made.push(at);
            tries = tries.saturating_add(1);
            let begin = *begin.get_or_insert(at);
            if linear > 0 {
                linear -= 1;
            } else {
                delay = (delay * 2.0).min(self.most_seconds);
            }
            let next =
                if self.clamped { delay.min((self.limit_seconds - (at - begin)).max(0.0)) } else { delay };
            at += next + late(next);
        }
        (made, at)
    }

    fn budget(&self, kernel: &KernelSettings) -> Budget {
        let punctual = |_: f64| 0.0;
        let late = |delay: f64| if delay > 0.0 { kernel.ticks.lateness_seconds(delay) } else { 0.0 };
        let (tries, end) = self.run(true, &punctual, None);
        let (early_tries, early_end) = self.run(false, &punctual, None);
        let (late_tries, _) = self.run(true, &late, None);
        let (_, latest_end) = self.run(true, &late, Some(tries.len()));
        // Late firings reach the limit with fewer retransmissions. As many as in the latest course happen in every
        // course, and in none of them earlier than with timers on time.
        let certain = late_tries.len().min(early_tries.len());
        let survives = certain.checked_sub(1).and_then(|last| early_tries.get(last)).copied();
        let limit_at = self.limit_seconds
            + match self.clock {
                TimeoutOrigin::FirstTry => self.first_seconds,
                TimeoutOrigin::BeforeFirstFiring(seconds) => self.first_seconds - seconds,
            };
        let earliest_end = match early_tries.get(certain) {
            Some(&skipped) => skipped.max(limit_at),
            None => early_end,
        };
        Budget {
            survives_seconds: survives.unwrap_or(0.0),
            gives_up_after_seconds: if self.limit_seconds.is_finite() {
                self.limit_seconds
            } else {
                early_end
            },
            actual_end_seconds: end,
            earliest_end_seconds: earliest_end.min(end),
            latest_end_seconds: latest_end.max(end),
            decided_by: self.decided_by,
            tries_seconds: tries,
        }
    }
}
