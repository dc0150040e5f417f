//! The verdict taken again, on fresh facts.

use jiff::Timestamp;

use crate::{
    change::Plan,
    collect::{self, CollectError, Request},
    fact::Facts,
    preflight::{Asked, Policy},
    verdict::Verdict,
};

/// All that it takes to judge one move, as often as need be.
pub struct Judge<'a> {
    /// The rules, with waivers.
    pub policy: &'a Policy,
    /// What is to be collected.
    pub request: Request,
    /// How the verdict is asked for.
    pub asked: Asked,
    /// The time to evaluate at; the present for none.
    pub at: Option<Timestamp>,
}

impl Judge<'_> {
    /// The time to evaluate at.
    pub fn now(&self) -> Timestamp {
        self.at.unwrap_or_else(Timestamp::now)
    }

    /// The move as it is planned: what the plan stops counts as stopped.
    pub fn planned(&self, plan: &Plan) -> Result<(Facts, Verdict), CollectError> {
        let mut facts = collect::collect(&self.request, self.now())?;
        plan.prepare(&mut facts);
        let verdict = self.policy.judge(facts.clone(), self.now(), &self.asked);
        Ok((facts, verdict))
    }

    /// The move as it is now.
    pub fn as_it_is(&self) -> Result<(Facts, Verdict), CollectError> {
        let facts = collect::collect(&self.request, self.now())?;
        let verdict = self.policy.judge(facts.clone(), self.now(), &self.asked);
        Ok((facts, verdict))
    }
}
