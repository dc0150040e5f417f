//! Steps of a manager against a migration that makes no progress: it looks at the memory left every so often, and acts on what it saw.
//!
//! Proxmox VE counts the looks at which more is left than at the one before, oVirt the rounds.

use serde::{Deserialize, Serialize};

use super::schedule::ScheduledAction;

/// Rule of a manager on migrations that make no progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StallRule {
    /// Time between two looks.
    pub look_seconds: f64,
    /// Steps, in their order; each look takes one at most.
    pub steps: Vec<StallStep>,
}

/// One step: an action, and the evidence on which it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StallStep {
    /// Evidence.
    pub after: StallEvidence,
    /// Action.
    pub action: ScheduledAction,
}

/// Evidence that a migration makes no progress.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StallEvidence {
    /// More was left than a look before, this many times.
    Rises(u32),
    /// So many rounds began since the first look, one of them since the last.
    Rounds(u32),
}

impl StallRule {
    /// Time that a migration without progress may take until the last step, about.
    pub(super) fn longest_seconds(&self) -> f64 {
        let times = self.steps.iter().map(|step| match step.after {
            StallEvidence::Rises(times) | StallEvidence::Rounds(times) => times,
        });
        2.0 * f64::from(times.max().unwrap_or(0)) * self.look_seconds
    }
}

/// A manager that watches one simulated migration.
#[derive(Debug, Clone)]
pub(super) struct StallWatch<'a> {
    rule: Option<&'a StallRule>,
    taken: usize,
    next_look: f64,
    rises: u32,
    last: f64,
    first_round: Option<u32>,
    last_round: u32,
}

impl<'a> StallWatch<'a> {
    pub(super) fn new(rule: Option<&'a StallRule>) -> Self {
        let next_look = rule.map_or(f64::INFINITY, |rule| rule.look_seconds);
        Self { rule, taken: 0, next_look, rises: 0, last: f64::INFINITY, first_round: None, last_round: 0 }
    }

    /// Looks if it is time to; returns the action to take. `round` is the number of the present one.
    pub(super) fn look(&mut self, now: f64, left: f64, round: u32) -> Option<ScheduledAction> {
        let rule = self.rule.filter(|_| now >= self.next_look)?;
        while self.next_look <= now {
            self.next_look += rule.look_seconds.max(1e-3);
        }
        self.rises += u32::from(left > self.last);
        self.last = left;
        let rounds = round - *self.first_round.get_or_insert(round);
        let is_new = round > std::mem::replace(&mut self.last_round, round);
        let step = rule.steps.get(self.taken)?;
        let is_due = match step.after {
            StallEvidence::Rises(times) => self.rises >= times,
            StallEvidence::Rounds(times) => is_new && rounds >= times,
        };
        if !is_due {
            return None;
        }
        self.taken += 1;
        Some(step.action)
    }

    /// True while something may still be done.
    pub(super) fn may_act(&self) -> bool {
        self.rule.is_some_and(|rule| self.taken < rule.steps.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABORT: ScheduledAction = ScheduledAction::Abort;

    fn rule(look_seconds: f64, steps: &[(StallEvidence, ScheduledAction)]) -> StallRule {
        let steps = steps.iter().map(|&(after, action)| StallStep { after, action });
        StallRule { look_seconds, steps: steps.collect() }
    }

    #[test]
    fn rises_are_counted_from_look_to_look_and_each_look_takes_one_step() {
        let limit = ScheduledAction::DowntimeLimit(0.15);
        let rule = rule(10.0, &[(StallEvidence::Rises(2), limit), (StallEvidence::Rises(2), ABORT)]);
        let mut watch = StallWatch::new(Some(&rule));
        assert_eq!(watch.look(5.0, 9.0, 1), None, "between two looks");
        let left = [9.0, 5.0, 6.0, 6.0, 7.0, 3.0];
        let taken: Vec<_> =
            (1..).zip(left).map(|(look, left)| watch.look(10.0 * f64::from(look), left, 1)).collect();
        assert_eq!(taken, [None, None, None, None, Some(limit), Some(ABORT)]);
        assert!(!watch.may_act());
    }

    #[test]
    fn rounds_are_counted_from_the_first_look_and_count_where_a_look_finds_a_new_one() {
        let limit = ScheduledAction::DowntimeLimit(0.15);
        let rule = rule(10.0, &[(StallEvidence::Rounds(2), limit), (StallEvidence::Rounds(3), ABORT)]);
        let mut watch = StallWatch::new(Some(&rule));
        let rounds = [5, 6, 9, 9, 10];
        let taken: Vec<_> =
            (1..).zip(rounds).map(|(look, round)| watch.look(10.0 * f64::from(look), 9.0, round)).collect();
        assert_eq!(taken, [None, None, Some(limit), None, Some(ABORT)]);
    }

    #[test]
    fn without_a_rule_nothing_is_done() {
        assert_eq!(StallWatch::new(None).look(1e9, 1.0, 1), None);
    }
}
