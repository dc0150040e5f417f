//! Collects the facts of a move and judges them: before the gate, and again just before the start.

use jiff::Timestamp;
use vmgate_collect::{CollectError, CollectRequest};
use vmgate_facts::Facts;
use vmgate_judge::{Policy, VerdictRequest, change::MovePlan};
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
    /// The time to evaluate at; the present for none.
    pub at: Option<Timestamp>,
}

impl Judge<'_> {
    /// The time to evaluate at.
    pub fn now(&self) -> Timestamp {
        self.at.unwrap_or_else(Timestamp::now)
    }

    /// The move as it is planned: what the plan stops counts as stopped.
    pub fn planned(&self, plan: &MovePlan, ledger: &Ledger) -> Result<(Facts, Verdict), CollectError> {
        let mut facts = self.collect(ledger)?;
        plan.apply_preparation(&mut facts);
        let verdict = self.policy.judge(facts.clone(), self.now(), &self.asked);
        Ok((facts, verdict))
    }

    /// Facts and verdict of the move as it is now.
    pub fn judge_current(&self, ledger: &Ledger) -> Result<(Facts, Verdict), CollectError> {
        let facts = self.collect(ledger)?;
        let verdict = self.policy.judge(facts.clone(), self.now(), &self.asked);
        Ok((facts, verdict))
    }

    /// The facts, with the ledger's history of earlier moves: both verdicts of a run rest on the same kind of evidence.
    fn collect(&self, ledger: &Ledger) -> Result<Facts, CollectError> {
        let mut facts = vmgate_collect::collect(&self.request, self.now())?;
        // The history stays unknown, and the forecast uncorrected; a ledger that cannot be written stops the run itself.
        if let Err(error) = ledger.add_history(&mut facts) {
            tracing::warn!("the history of earlier moves cannot be read from the ledger: {error}");
        }
        Ok(facts)
    }
}
