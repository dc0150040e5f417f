//! Collects the facts of a move and judges them: before the gate, and again just before the start.
//!
//! The time is that of the machine's clock: nobody can give another one to what acts.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use vmgate_collect::{CollectError, CollectRequest};
use vmgate_facts::Facts;
use vmgate_judge::{EvidenceOrigin, Policy, VerdictRequest, change::MovePlan};
use vmgate_ledger::Ledger;
use vmgate_verdict::Verdict;

/// Collects and judges one move, as often as needed.
pub struct Judge<'a> {
    /// The rules, with waivers.
    pub policy: &'a Policy,
    /// Request to collect the facts.
    pub request: CollectRequest,
    /// Request for the verdict.
    pub asked: VerdictRequest,
}

/// Difference of wall time and elapsed time from which the machine's clock was set meanwhile.
const STEP: Duration = Duration::from_secs(2);
/// Number of collections, of which the last counts even if the clock was set during each.
const COLLECTIONS: u32 = 3;

impl Judge<'_> {
    /// The move as it is planned: what the plan stops counts as stopped.
    pub fn planned(&self, plan: &MovePlan, ledger: &Ledger) -> Result<(Facts, Verdict), CollectError> {
        let mut facts = self.collect(ledger)?;
        plan.apply_preparation(&mut facts);
        let verdict = self.judge(&facts);
        Ok((facts, verdict))
    }

    /// Facts and verdict of the move as it is now.
    pub fn judge_current(&self, ledger: &Ledger) -> Result<(Facts, Verdict), CollectError> {
        let facts = self.collect(ledger)?;
        let verdict = self.judge(&facts);
        Ok((facts, verdict))
    }

    /// The verdict at the present time on facts that were just collected.
    pub fn judge(&self, facts: &Facts) -> Verdict {
        let asked = VerdictRequest { evidence: EvidenceOrigin::Live, ..self.asked.clone() };
        self.policy.judge(facts.clone(), Timestamp::now(), &asked)
    }

    /// The facts, with the ledger's history of earlier moves: both verdicts of a run rest on the same kind of evidence.
    fn collect(&self, ledger: &Ledger) -> Result<Facts, CollectError> {
        let mut facts = on_steady_clock(WallClock::start, |now| vmgate_collect::collect(&self.request, now))?;
        // The history stays unknown, and the forecast uncorrected; a ledger that cannot be written stops the run itself.
        if let Err(error) = ledger.add_history(&mut facts) {
            tracing::warn!("the history of earlier moves cannot be read from the ledger: {error}");
        }
        Ok(facts)
    }
}

/// Wall time at the start of some work, with the means to see if it was set since.
struct WallClock {
    begun_at: Timestamp,
    begun: Instant,
}

impl WallClock {
    fn start() -> Self {
        Self { begun_at: Timestamp::now(), begun: Instant::now() }
    }

    /// True if wall time and elapsed time disagree: the clock was set, or the machine slept.
    fn was_set(&self, now: Timestamp, elapsed: Duration) -> bool {
        let by_wall = now.duration_since(self.begun_at).as_secs_f64();
        (by_wall - elapsed.as_secs_f64()).abs() > STEP.as_secs_f64()
    }
}

/// Does the work again if the machine's clock was set meanwhile. The facts are dated from its start, so that after a step
/// they would look old, or as if they were from the future.
fn on_steady_clock<T, E>(
    start: impl Fn() -> WallClock,
    mut work: impl FnMut(Timestamp) -> Result<T, E>,
) -> Result<T, E> {
    for _ in 1..COLLECTIONS {
        let clock = start();
        let done = work(clock.begun_at)?;
        if !clock.was_set(Timestamp::now(), clock.begun.elapsed()) {
            return Ok(done);
        }
        tracing::warn!(
            "the clock of this machine was set while facts were collected: they are collected again"
        );
    }
    work(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible};

    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn what_is_collected_while_the_clock_is_set_is_collected_again() {
        for step in [SignedDuration::from_hours(24), -SignedDuration::from_hours(24)] {
            // The clock reads wrong at the first start, so it is set before the work ends.
            let starts = Cell::new(0);
            let start = || {
                starts.set(starts.get() + 1);
                let clock = WallClock::start();
                if starts.get() == 1 { WallClock { begun_at: clock.begun_at - step, ..clock } } else { clock }
            };
            let now = Timestamp::now();
            let dated = on_steady_clock(start, Ok::<_, Infallible>).unwrap();
            assert_eq!(starts.get(), 2);
            assert!(dated.duration_since(now).abs() < SignedDuration::from_secs(5), "{dated}");
        }
    }

    #[test]
    fn a_clock_that_is_never_left_alone_ends_in_facts_all_the_same() {
        let calls = Cell::new(0);
        let start = || WallClock { begun_at: Timestamp::UNIX_EPOCH, begun: Instant::now() };
        let count = |_| {
            calls.set(calls.get() + 1);
            Ok::<_, Infallible>(())
        };
        on_steady_clock(start, count).unwrap();
        assert_eq!(calls.get(), COLLECTIONS);
    }

    #[test]
    fn drift_is_no_step() {
        let clock = WallClock::start();
        let slewed = clock.begun_at + SignedDuration::from_millis(61_000);
        assert!(!clock.was_set(slewed, Duration::from_mins(1)));
        assert!(clock.was_set(clock.begun_at, Duration::from_mins(1)), "set back by a minute");
    }
}
