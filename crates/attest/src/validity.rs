//! The time in which something may act on a verdict, apart from what the verdict says.
//!
//! The reader gives the present time of its own clock, so a verdict cannot bring a time with it.

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;

/// Difference between the clocks of two machines that is no sign of a verdict from the future.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(1);

/// Times of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Time of the evaluation.
    pub evaluated_at: Timestamp,
    /// End of its validity.
    pub expires_at: Timestamp,
    /// True if it was evaluated at a time that somebody chose (`--at`).
    pub simulated: bool,
}

/// Reason why nothing may act on a verdict, whether it is GO or not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum NoAuthority {
    /// The verdict was evaluated at a chosen time.
    #[error(
        "the verdict is simulated: it was evaluated for {0} with --at, so it shows what would be, and permits nothing. Check \
         again without --at"
    )]
    Simulated(Timestamp),
    /// The verdict was evaluated later than now.
    #[error(
        "the verdict was evaluated at {evaluated_at}, but the time here is {now}: compare the clocks of both machines \
         (`timedatectl` shows one), then check again"
    )]
    Future { evaluated_at: Timestamp, now: Timestamp },
    /// The facts were too old when the verdict was reached, or dated later.
    #[error(
        "the verdict was evaluated at {evaluated_at} on facts that were too old by then, or dated later: it was valid until \
         {expires_at}. Collect the facts again, and check again"
    )]
    StaleFacts { evaluated_at: Timestamp, expires_at: Timestamp },
    /// The verdict is valid for longer than it may be.
    #[error(
        "the verdict is valid for {lifetime:#} (from {evaluated_at} until {expires_at}), and at most {longest:#} is accepted \
         here: check again"
    )]
    TooLong {
        evaluated_at: Timestamp,
        expires_at: Timestamp,
        lifetime: SignedDuration,
        longest: SignedDuration,
    },
}

impl Validity {
    /// Checks that a verdict was evaluated on a real clock, not later than now, on fresh facts, and not for longer than
    /// `longest`. That it has not expired, and is GO, is checked where the verdict is used.
    pub fn check(
        self,
        now: Timestamp,
        skew: SignedDuration,
        longest: SignedDuration,
    ) -> Result<(), NoAuthority> {
        let Self { evaluated_at, expires_at, simulated } = self;
        if simulated {
            return Err(NoAuthority::Simulated(evaluated_at));
        }
        if evaluated_at.duration_since(now) > skew {
            return Err(NoAuthority::Future { evaluated_at, now });
        }
        if expires_at <= evaluated_at {
            return Err(NoAuthority::StaleFacts { evaluated_at, expires_at });
        }
        let lifetime = expires_at.duration_since(evaluated_at);
        if lifetime > longest {
            return Err(NoAuthority::TooLong { evaluated_at, expires_at, lifetime, longest });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    fn at(text: &str) -> Timestamp {
        format!("2026-11-23T{text}Z").parse().unwrap()
    }

    fn check(evaluated_at: &str, expires_at: &str, now: &str) -> Result<(), NoAuthority> {
        let validity =
            Validity { evaluated_at: at(evaluated_at), expires_at: at(expires_at), simulated: false };
        validity.check(at(now), CLOCK_SKEW, HOUR)
    }

    #[test]
    fn a_verdict_of_the_present_has_authority_whatever_is_left_of_it() {
        assert_eq!(check("10:00:00", "11:00:00", "10:00:00"), Ok(()));
        assert_eq!(check("10:00:00", "10:01:00", "10:59:00"), Ok(()), "expiry is another question");
        assert_eq!(check("10:00:00", "11:00:00", "09:59:00"), Ok(()), "within the skew");
    }

    #[test]
    fn a_chosen_time_the_future_stale_facts_and_a_long_life_are_refused() {
        use NoAuthority::{Future, Simulated, StaleFacts, TooLong};
        let validity = Validity { evaluated_at: at("10:00:00"), expires_at: at("11:00:00"), simulated: true };
        assert!(matches!(validity.check(at("10:00:00"), CLOCK_SKEW, HOUR), Err(Simulated(_))));
        assert!(matches!(check("10:00:00", "11:00:00", "09:58:59"), Err(Future { .. })));
        assert!(matches!(check("10:00:00", "10:00:00", "10:00:00"), Err(StaleFacts { .. })));
        assert!(matches!(check("10:00:00", "11:00:01", "10:00:00"), Err(TooLong { .. })));
    }

    #[test]
    fn no_time_overflows() {
        let times = [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX];
        for evaluated_at in times {
            for expires_at in times {
                for now in times {
                    let validity = Validity { evaluated_at, expires_at, simulated: false };
                    assert!(validity.check(now, CLOCK_SKEW, HOUR).is_err(), "{validity:?} at {now}");
                }
            }
        }
    }

    #[test]
    fn a_refusal_names_the_way_out() {
        let why = check("10:00:00", "13:30:00", "10:00:00").unwrap_err().to_string();
        assert!(why.contains("valid for 3h 30m") && why.contains("at most 1h"), "{why}");
        let why = check("10:00:00", "11:00:00", "08:00:00").unwrap_err().to_string();
        assert!(why.contains("timedatectl"), "{why}");
    }
}
