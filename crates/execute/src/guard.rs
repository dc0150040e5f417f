//! Guard of a running migration: estimates its end from its statistics, and takes measures if it will miss its goals.
//!
//! Pure: the inputs are statistics and the elapsed time, the result is a measure. The measures are taken in the order of
//! their harm: a longer downtime limit within the goal, QEMU's own auto-converge, post-copy, a suspended guest (the
//! last two only where the change allows them), and an abort, which leaves the guest running on the source.

use std::time::Duration;

use vmgate_facts::guarded_limit_seconds;
use vmgate_judge::change::MovePlan;
use vmgate_libvirt::JobStats;

/// Share of the longest blackout that is QEMU's first downtime limit where the forecast has none.
const FIRST_PART: f64 = 0.5;
/// Factor by which the downtime limit is raised at a time.
const RAISE: f64 = 1.4;
/// Smallest downtime limit that QEMU is given.
const LEAST_LIMIT_SECONDS: f64 = 0.01;
/// Duration of the switchover without the remaining memory: 30 to 110 ms were measured.
const SWITCH_SECONDS: f64 = 0.1;
/// Consecutive bad rounds before a measure is taken: a single one may be caused by a burst.
const BAD_ROUNDS: u32 = 2;
/// Time for which the estimated end must lie beyond the deadline before a measure is taken within a round.
const BAD_SECONDS: f64 = 5.0;
/// Largest ratio of the memory left after a round to the least before it that counts as progress.
const PROGRESS: f64 = 0.95;
/// Time without any data sent after which the link counts as cut.
const STALLED_SECONDS: f64 = 30.0;
/// Strongest throttle of auto-converge in QEMU, in percent.
const MOST_THROTTLE: u64 = 99;

/// Measure that the guard takes on a migration.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Measure {
    /// Raise QEMU's downtime limit to this.
    RaiseLimit(Duration),
    /// Switch to post-copy: the guest runs on the destination at once.
    PostCopy(String),
    /// Suspend the guest until the migration has ended.
    Suspend(String),
    /// Abort the migration; the guest continues on the source.
    GiveUp(String),
}

/// Estimate of the end of a running pre-copy, from its statistics.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ConvergenceEstimate {
    /// Time until the end, in seconds; `None` if the migration does not converge.
    pub remaining_seconds: Option<f64>,
    /// Estimated blackout, in seconds.
    pub blackout_seconds: Option<f64>,
    /// Dirty rate divided by the transfer rate.
    pub ratio: Option<f64>,
}

/// Guard of one migration.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "what a change allows, each by itself")]
pub(super) struct Guard {
    longest_blackout_seconds: f64,
    deadline_seconds: Option<f64>,
    auto_converge: bool,
    post_copy: bool,
    suspend: bool,
    limit_seconds: f64,
    round: u64,
    least_left: f64,
    bad_rounds: u32,
    late_since: Option<f64>,
    /// Bytes sent, and the time of the last change of that number.
    sent: (u64, f64),
    /// True after the last measure: the guard only waits for the end.
    resigned: bool,
}

impl Guard {
    /// `forecast_limit_seconds` is the limit that the forecast rests on: with another one, another migration would run
    /// than the one that was judged.
    pub(super) fn new(plan: &MovePlan, forecast_limit_seconds: Option<f64>) -> Self {
        let goal = plan.longest_blackout_seconds;
        let yes = |setting: Option<bool>| setting.unwrap_or(false);
        Self {
            longest_blackout_seconds: goal,
            deadline_seconds: plan.deadline_seconds,
            auto_converge: yes(plan.settings.auto_converge),
            post_copy: yes(plan.settings.post_copy),
            suspend: yes(plan.settings.suspend),
            limit_seconds: forecast_limit_seconds
                .unwrap_or(goal * FIRST_PART)
                .min(goal)
                .max(LEAST_LIMIT_SECONDS),
            round: 0,
            least_left: f64::INFINITY,
            bad_rounds: 0,
            late_since: None,
            sent: (0, 0.0),
            resigned: false,
        }
    }

    /// QEMU's downtime limit as it is now.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.limit_seconds)
    }

    /// Assesses the statistics, `elapsed` after the start.
    pub(super) fn assess(
        &mut self,
        job: &JobStats,
        elapsed: Duration,
    ) -> (ConvergenceEstimate, Option<Measure>) {
        let elapsed = elapsed.as_secs_f64();
        let estimate = estimate(job, self.limit_seconds);
        if let Some(measure) = self.stalled(job, elapsed) {
            return (estimate, Some(measure));
        }
        let (Some(left), Some(round)) = (job.memory_remaining_bytes, job.iteration) else {
            return (estimate, self.past_deadline(elapsed, job));
        };
        let left = precise(left);
        if self.resigned {
            return (estimate, None);
        }
        if round != self.round {
            self.new_round(round, left, &estimate, elapsed);
        }
        let measure = if let Some(measure) = self.past_deadline(elapsed, job) {
            Some(measure)
        } else if self.bad_rounds >= BAD_ROUNDS || self.is_late(&estimate, elapsed) {
            self.bad_rounds = 0;
            self.late_since = None;
            self.measure(job, &estimate)
        } else {
            None
        };
        self.resigned = !matches!(measure, None | Some(Measure::RaiseLimit(_)));
        (estimate, measure)
    }

    /// Counts the round that has just ended as good or bad.
    fn new_round(&mut self, round: u64, left: f64, estimate: &ConvergenceEstimate, elapsed: f64) {
        self.round = round;
        // The first passes tell nothing of convergence.
        if round < 3 {
            self.least_left = self.least_left.min(left);
            return;
        }
        let shrinks = left < self.least_left * PROGRESS;
        self.least_left = self.least_left.min(left);
        let in_time = match (estimate.remaining_seconds, self.deadline_seconds) {
            (Some(remaining), Some(deadline)) => elapsed + remaining <= deadline,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if shrinks && in_time { self.bad_rounds = 0 } else { self.bad_rounds += 1 }
    }

    /// True if the estimated end has been beyond the deadline for a while. The first pass counts as well: a link that is too
    /// slow for one pass is too slow.
    fn is_late(&mut self, estimate: &ConvergenceEstimate, elapsed: f64) -> bool {
        let (Some(deadline), Some(remaining)) = (self.deadline_seconds, estimate.remaining_seconds) else {
            return false;
        };
        if elapsed + remaining <= deadline {
            self.late_since = None;
            return false;
        }
        elapsed - *self.late_since.get_or_insert(elapsed) >= BAD_SECONDS
    }

    /// Measure for a cut link. QEMU reports none: it waits until TCP gives up the connection, which takes 15 minutes.
    fn stalled(&mut self, job: &JobStats, elapsed: f64) -> Option<Measure> {
        let sent = job.data_processed_bytes?;
        if sent != self.sent.0 {
            self.sent = (sent, elapsed);
            return None;
        }
        let (_, since) = self.sent;
        if self.resigned || elapsed - since < STALLED_SECONDS {
            return None;
        }
        self.resigned = true;
        Some(Measure::GiveUp(format!(
            "no data has been sent for {STALLED_SECONDS:.0} s: check the migration link"
        )))
    }

    fn past_deadline(&self, elapsed: f64, job: &JobStats) -> Option<Measure> {
        let deadline = self.deadline_seconds.filter(|deadline| elapsed > *deadline)?;
        let why =
            format!("the migration has run for {elapsed:.0} s, and at most {deadline:.0} s are allowed");
        Some(self.last_resort(format!("{why}; {}", rates(job))))
    }

    /// The least harmful measure that is left.
    fn measure(&mut self, job: &JobStats, estimate: &ConvergenceEstimate) -> Option<Measure> {
        let most = guarded_limit_seconds(self.longest_blackout_seconds);
        if self.limit_seconds < most {
            self.limit_seconds = (self.limit_seconds * RAISE).min(most);
            return Some(Measure::RaiseLimit(self.limit()));
        }
        let throttled = job.throttle_percent.unwrap_or(0);
        if self.auto_converge && throttled < MOST_THROTTLE {
            return None;
        }
        let end = match estimate.remaining_seconds {
            None => "it would not end".to_owned(),
            Some(remaining) => format!("it would take {remaining:.0} s more"),
        };
        let slowed = if throttled > 0 {
            format!(" although the guest is slowed by {throttled} %")
        } else {
            String::new()
        };
        Some(self.last_resort(format!("the migration does not converge{slowed}: {}; {end}", rates(job))))
    }

    fn last_resort(&self, why: String) -> Measure {
        // All of the memory must have been sent once, or post-copy would fault for nearly every page.
        if self.post_copy && self.round >= 2 {
            Measure::PostCopy(why)
        } else if self.suspend && self.round >= 2 {
            Measure::Suspend(why)
        } else {
            Measure::GiveUp(why)
        }
    }
}

/// Estimate by the geometric model of pre-copy: each round sends the pages dirtied during the one before, and the
/// guest is stopped when the rest fits into the limit (QEMU's migration_iteration_run).
pub(super) fn estimate(job: &JobStats, limit_seconds: f64) -> ConvergenceEstimate {
    let (Some(left), Some(speed)) = (job.memory_remaining_bytes, job.memory_bytes_per_second) else {
        return ConvergenceEstimate::default();
    };
    let (left, speed) = (precise(left), precise(speed));
    if speed <= 0.0 {
        return ConvergenceEstimate::default();
    }
    let ratio = job.dirty_bytes_per_second.map(|dirty| precise(dirty) / speed);
    let fits = speed * limit_seconds;
    let blackout = |left: f64| Some(SWITCH_SECONDS + left.min(fits) / speed);
    let rounds = match ratio {
        // In the first pass nothing is known of the dirty rate yet: at least this pass is to be made.
        None | Some(0.0) => {
            return ConvergenceEstimate {
                remaining_seconds: Some(left / speed),
                blackout_seconds: blackout(left),
                ratio,
            };
        }
        _ if left <= fits => 1.0,
        Some(ratio) if ratio >= 1.0 => {
            return ConvergenceEstimate {
                remaining_seconds: None,
                blackout_seconds: None,
                ratio: Some(ratio),
            };
        }
        Some(ratio) => ((fits / left).ln() / ratio.ln()).ceil().max(1.0),
    };
    let ratio_known = ratio.unwrap_or(0.0).min(0.999);
    let remaining = left / speed * (1.0 - ratio_known.powf(rounds)) / (1.0 - ratio_known);
    ConvergenceEstimate {
        remaining_seconds: Some(remaining),
        blackout_seconds: blackout(left * ratio_known.powf(rounds)),
        ratio,
    }
}

fn rates(job: &JobStats) -> String {
    let sent = mebibytes(job.memory_bytes_per_second.unwrap_or(0));
    match job.dirty_bytes_per_second {
        Some(dirty) => format!("the guest dirties {} MiB/s and {sent} MiB/s are sent", mebibytes(dirty)),
        None => format!("{sent} MiB/s are sent"),
    }
}

/// `0.4`, `3.2`, `150`: two digits at least.
#[allow(clippy::cast_precision_loss)] // for people
fn mebibytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{mebibytes:.*}", usize::from(mebibytes < 10.0))
}

#[allow(clippy::cast_precision_loss)] // no guest has 2^53 bytes
fn precise(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmgate_judge::change::MoveSettings;
    use vmgate_libvirt::JobOperation;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn job(round: u64, left_mib: u64, sent: u64, dirtied: Option<u64>) -> JobStats {
        JobStats {
            operation: JobOperation::MigrationOut,
            end: None,
            elapsed: None,
            data_total_bytes: None,
            data_processed_bytes: None,
            data_remaining_bytes: None,
            memory_remaining_bytes: Some(left_mib * MIB),
            memory_bytes_per_second: Some(sent * MIB),
            dirty_bytes_per_second: dirtied.map(|dirtied| dirtied * MIB),
            iteration: Some(round),
            downtime: None,
            throttle_percent: None,
            error: None,
        }
    }

    fn plan(deadline: Option<f64>, settings: MoveSettings) -> MovePlan {
        MovePlan {
            longest_blackout_seconds: 1.0,
            deadline_seconds: deadline,
            settings,
            ..MovePlan::default()
        }
    }

    /// Measures of a guard over rounds of 2 s in which the remaining memory does not shrink.
    fn stuck(guard: &mut Guard, rounds: u64, throttle: Option<u64>) -> Vec<Measure> {
        let look = |round| {
            let stats = JobStats { throttle_percent: throttle, ..job(round, 500, 100, Some(150)) };
            guard.assess(&stats, Duration::from_secs(round * 2)).1
        };
        (1..=rounds).filter_map(look).collect()
    }

    #[test]
    fn what_does_not_converge_gets_a_longer_stop_within_the_goal_and_is_then_given_up_with_the_reason() {
        let mut guard = Guard::new(&plan(None, MoveSettings::default()), None);
        assert_eq!(guard.limit(), Duration::from_millis(500));
        let measures = stuck(&mut guard, 40, None);
        let (last, raised) = measures.split_last().unwrap();
        assert_eq!(raised.len(), 2);
        for measure in raised {
            assert!(
                matches!(measure, Measure::RaiseLimit(limit) if *limit < Duration::from_secs(1)),
                "{measure:?}"
            );
        }
        let Measure::GiveUp(why) = last else { panic!("{last:?}") };
        assert!(
            why.contains("dirties 150 MiB/s and 100 MiB/s are sent") && why.contains("would not end"),
            "{why}"
        );
    }

    #[test]
    fn it_begins_with_the_limit_of_the_forecast_and_still_goes_no_further_than_the_goal() {
        let begin = |limit| Guard::new(&plan(None, MoveSettings::default()), Some(limit)).limit();
        assert_eq!(begin(0.72), Duration::from_millis(720));
        assert_eq!(begin(3.0), Duration::from_secs(1), "no forecast goes beyond the goal");
        assert_eq!(begin(0.0), Duration::from_secs_f64(LEAST_LIMIT_SECONDS));
        let mut guard = Guard::new(&plan(None, MoveSettings::default()), Some(0.72));
        let measures = stuck(&mut guard, 40, None);
        assert_eq!(measures[0], Measure::RaiseLimit(Duration::from_secs_f64(guarded_limit_seconds(1.0))));
        assert!(matches!(measures[1], Measure::GiveUp(_)), "{measures:?}");
    }

    #[test]
    fn what_the_change_allows_comes_before_giving_up_and_nothing_else_does() {
        let allowed = |settings| stuck(&mut Guard::new(&plan(None, settings), None), 40, None).pop().unwrap();
        let yes = Some(true);
        assert!(matches!(
            allowed(MoveSettings { post_copy: yes, suspend: yes, ..MoveSettings::default() }),
            Measure::PostCopy(_)
        ));
        assert!(matches!(
            allowed(MoveSettings { suspend: yes, ..MoveSettings::default() }),
            Measure::Suspend(_)
        ));
        let mut patient =
            Guard::new(&plan(None, MoveSettings { auto_converge: yes, ..MoveSettings::default() }), None);
        assert!(
            stuck(&mut patient, 40, Some(50)).iter().all(|measure| matches!(measure, Measure::RaiseLimit(_)))
        );
        let mut spent =
            Guard::new(&plan(None, MoveSettings { auto_converge: yes, ..MoveSettings::default() }), None);
        assert!(
            matches!(stuck(&mut spent, 40, Some(99)).pop(), Some(Measure::GiveUp(why)) if why.contains("slowed by 99 %"))
        );
    }

    #[test]
    fn a_link_too_slow_for_the_first_pass_is_given_up_early() {
        let mut guard = Guard::new(&plan(Some(60.0), MoveSettings::default()), None);
        let mut measures = Vec::new();
        for second in 1..30 {
            let stats = job(1, 1000 - 5 * second, 5, None);
            measures.extend(guard.assess(&stats, Duration::from_secs(second)).1);
        }
        assert!(matches!(measures.last(), Some(Measure::GiveUp(_))), "{measures:?}");
    }

    #[test]
    fn past_its_deadline_a_migration_is_given_up_even_without_statistics() {
        let mut guard = Guard::new(&plan(Some(60.0), MoveSettings::default()), None);
        let silent = JobStats { memory_remaining_bytes: None, iteration: None, ..job(0, 0, 0, None) };
        assert_eq!(guard.assess(&silent, Duration::from_secs(59)).1, None);
        assert!(matches!(guard.assess(&silent, Duration::from_secs(61)).1, Some(Measure::GiveUp(_))));
    }

    #[test]
    fn a_link_that_carries_nothing_is_given_up() {
        let mut guard = Guard::new(&plan(None, MoveSettings::default()), None);
        let mut at = |second, sent| {
            let stats = JobStats { data_processed_bytes: Some(sent), ..job(1, 500, 100, None) };
            guard.assess(&stats, Duration::from_secs(second)).1
        };
        assert_eq!(at(1, 10), None);
        assert_eq!(at(25, 20), None);
        assert_eq!(at(54, 20), None);
        assert!(matches!(at(55, 20), Some(Measure::GiveUp(why)) if why.contains("migration link")));
        assert_eq!(at(90, 20), None, "once");
    }

    #[test]
    fn a_migration_that_converges_is_left_alone() {
        let mut guard = Guard::new(&plan(Some(60.0), MoveSettings::default()), None);
        for (second, (round, left)) in
            [(1, 900), (1, 400), (2, 300), (3, 150), (4, 80), (5, 40)].into_iter().enumerate()
        {
            let (estimate, measure) = guard.assess(
                &job(round, left, 100, (round > 1).then_some(50)),
                Duration::from_secs(second as u64),
            );
            assert_eq!(measure, None);
            assert!(estimate.remaining_seconds.unwrap() < 20.0);
        }
    }

    proptest! {
        #[test]
        fn no_statistics_make_it_panic_or_stop_the_guest_for_longer_than_the_goal(
            stats in prop::collection::vec((any::<u64>(), any::<u64>(), any::<Option<u64>>(), 0_u64..9, 0_u64..120), 1..60),
            auto_converge: Option<bool>,
            post_copy: Option<bool>,
        ) {
            let settings = MoveSettings { auto_converge, post_copy, ..MoveSettings::default() };
            let mut guard = Guard::new(&plan(Some(60.0), settings), None);
            for (left, sent, dirtied, round, throttle) in stats {
                let stats = JobStats {
                    memory_remaining_bytes: Some(left),
                    memory_bytes_per_second: Some(sent),
                    dirty_bytes_per_second: dirtied,
                    throttle_percent: Some(throttle),
                    ..job(round, 0, 0, None)
                };
                let (_, measure) = guard.assess(&stats, Duration::from_secs(1));
                prop_assert!(guard.limit() <= Duration::from_secs(1));
                if post_copy != Some(true) {
                    prop_assert!(!matches!(measure, Some(Measure::PostCopy(_))));
                }
                prop_assert!(!matches!(measure, Some(Measure::Suspend(_))));
            }
        }
    }
}
