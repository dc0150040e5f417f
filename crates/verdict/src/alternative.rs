//! Ranking of the destinations that one VM could move to: the best verdict first, the others with the reasons against them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_attest::{Decision, NameAndUuid};

use super::{ExitCode, Status, Verdict};
use crate::Effect;

/// Another destination that was judged for the same VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Alternative {
    /// The destination.
    pub destination: NameAndUuid,
    /// GO or NO-GO for a move there, with the class of the reason.
    pub decision: Decision,
    /// Forecast of the blackout there, 95th percentile, in seconds; absent without a forecast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackout_seconds: Option<f64>,
    /// Findings that make this destination worse: what blocks, else what warns, as `RULE: finding`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

impl Verdict {
    /// The best of the verdicts on moves of one VM to several destinations, with the others as its alternatives, best first.
    /// None of no verdicts. Equal ones keep their order.
    pub fn best_of(mut verdicts: Vec<Self>) -> Option<Self> {
        verdicts.sort_by(|a, b| a.rank().cmp(&b.rank()).then(a.blackout().total_cmp(&b.blackout())));
        let mut ranked = verdicts.into_iter();
        let mut best = ranked.next()?;
        best.alternatives = ranked.map(|other| other.alternative()).collect();
        Some(best)
    }

    /// Place in a ranking: GO, then GO with fewer warnings, then missing evidence, then the fewest violated rules.
    fn rank(&self) -> (u8, usize, usize) {
        let class = match self.decision {
            Decision::Go(_) => 0,
            Decision::NoGo(_) if self.exit_code() == ExitCode::EvidenceMissing => 1,
            Decision::NoGo(_) => 2,
        };
        (class, self.counts.blocking, self.counts.warnings)
    }

    fn blackout(&self) -> f64 {
        self.blackout_p95().unwrap_or(f64::INFINITY)
    }

    fn blackout_p95(&self) -> Option<f64> {
        Some(self.forecast.as_ref()?.blackout_seconds.known()?.p95)
    }

    fn alternative(&self) -> Alternative {
        let effect = if self.counts.blocking > 0 { Effect::Block } else { Effect::Warn };
        let mut reasons: Vec<String> = Vec::new();
        for judged in self.with_effect(effect) {
            let outcome = &judged.outcome;
            let text = match outcome.status {
                Status::Unknown => "evidence is missing",
                _ => &*outcome.message,
            };
            let reason = format!("{}: {text}", outcome.rule);
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        Alternative {
            destination: self.moved.destination.clone(),
            decision: self.decision,
            blackout_seconds: self.blackout_p95(),
            reasons,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn to(host: &str, verdict: Verdict) -> Verdict {
        let mut verdict = verdict;
        verdict.moved.destination.name = Some(host.to_owned());
        verdict
    }

    #[test]
    fn a_go_comes_first_and_every_other_destination_says_why_not() {
        let best = Verdict::best_of(vec![to("hv2", sample::no_go()), to("hv3", sample::go())]).unwrap();
        assert_eq!((best.moved.destination.label(), best.exit_code()), ("hv3", ExitCode::Go));
        let [other] = best.alternatives.as_slice() else { panic!("{:?}", best.alternatives) };
        assert_eq!(other.destination.label(), "hv2");
        assert!(other.reasons.iter().all(|reason| reason.contains(": ")) && !other.reasons.is_empty());
        assert!(Verdict::best_of(Vec::new()).is_none());
    }
}
