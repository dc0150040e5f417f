//! Collects the facts of a move and judges them: before the gate, and again just before the start.

use jiff::Timestamp;

use crate::{
    change::Plan,
    collect::{self, CollectError, Request},
    fact::Facts,
    ledger::Ledger,
    preflight::{Asked, Policy},
    verdict::Verdict,
};

/// Collects and judges one move, as often as needed.
pub struct Judge<'a> {
    /// The rules, with waivers.
    pub policy: &'a Policy,
    /// Facts to collect.
    pub request: Request,
    /// Options of the verdict.
    pub asked: Asked,
    /// Time to evaluate at; the present if `None`.
    pub at: Option<Timestamp>,
}

impl Judge<'_> {
    /// The time to evaluate at.
    pub fn now(&self) -> Timestamp {
        self.at.unwrap_or_else(Timestamp::now)
    }

    /// Facts and verdict of the move as planned: services that the plan stops count as stopped.
    pub fn judge_planned(&self, plan: &Plan, ledger: &Ledger) -> Result<(Facts, Verdict), CollectError> {
        let mut facts = self.collect(ledger)?;
        plan.prepare(&mut facts);
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
        let mut facts = collect::collect(&self.request, self.now())?;
        // Without history the forecast stays uncorrected; a ledger that cannot be written to stops the run elsewhere.
        if let Err(error) = ledger.add_history(&mut facts) {
            tracing::warn!("the history of earlier moves cannot be read from the ledger: {error}");
        }
        Ok(facts)
    }
}
