//! The pure way from facts to verdict: derive what follows, evaluate the rules, lay waivers over, decide.

use jiff::Timestamp;
use thiserror::Error;

use crate::{
    document::Problems,
    fact::Facts,
    forecast,
    rule::{Catalogues, Outcome, Pack, ParamErrors, ParamOverrides, RuleSource},
    verdict::{self, Context, Digest, Digests, Place, Verdict, Waivers},
    way_back,
};

/// Rules, parameters or catalogues that cannot be used: the user's mistake, told with every place.
#[derive(Debug, Error)]
pub enum InvalidPolicy {
    /// Files of rules, profiles or catalogues.
    #[error(transparent)]
    Files(#[from] Problems),
    /// Values for parameters.
    #[error(transparent)]
    Parameters(#[from] ParamErrors),
}

/// What facts are judged by: rules with their parameters, catalogues and waivers.
pub struct Policy {
    /// The rules.
    pub pack: Pack,
    /// What is known of software by name.
    pub catalogues: Catalogues,
    waivers: Waivers,
}

/// How a verdict was asked for.
#[derive(Debug, Clone, Default)]
pub struct VerdictRequest {
    /// Whether warnings are to count as a failure of the check.
    pub strict: bool,
    /// Where in a file the move is asked for.
    pub place: Option<Place>,
    /// Digest of that file, where it is a change.
    pub change: Option<Digest>,
}

impl Policy {
    /// The rules of `sources`, with the parameters of a profile and of the site.
    pub fn load(
        sources: &[RuleSource],
        profile: Option<&str>,
        parameters: &ParamOverrides,
    ) -> Result<Self, InvalidPolicy> {
        let (pack, catalogues) = match (Pack::load(sources), Catalogues::load(sources)) {
            (Ok(pack), Ok(catalogues)) => (pack, catalogues),
            (pack, catalogues) => {
                let found = [pack.err(), catalogues.err()].into_iter().flatten();
                return Err(Problems::new(found.flat_map(|errors| errors.problems).collect()).into());
            }
        };
        let pack = pack.with_parameters(profile, parameters)?;
        Ok(Self { pack, catalogues, waivers: Waivers::default() })
    }

    /// The same policy with waivers.
    #[must_use]
    pub fn with_waivers(self, waivers: Waivers) -> Self {
        Self { waivers, ..self }
    }

    /// The same policy with further waivers.
    #[must_use]
    pub fn and_waivers(self, waivers: Waivers) -> Self {
        Self { waivers: self.waivers.and(waivers), ..self }
    }

    /// The digest of the rules with their parameters, as verdicts name it.
    pub fn digest(&self) -> Option<Digest> {
        format!("sha256:{}", self.pack.digest()).parse().ok()
    }

    /// What stands in the way back and not in the way there.
    pub fn way_back(&self, facts: &Facts, now: Timestamp) -> Vec<Outcome> {
        let (facts, forecast) = forecast::derive(facts.clone(), &self.catalogues);
        let there = self.pack.evaluate(&facts, &forecast, now);
        way_back::outcomes(&self.pack, &facts, &forecast, now, &there)
    }

    /// The verdict on one move at the time `now`. The same input gives the same verdict, byte for byte.
    pub fn judge(&self, facts: Facts, now: Timestamp, asked: &VerdictRequest) -> Verdict {
        let digests = Digests {
            facts: serde_json::to_vec(&facts).ok().map(|bytes| Digest::of(&bytes)),
            rules: self.digest(),
            change: asked.change,
            ..Digests::default()
        };
        let (facts, forecast) = forecast::derive(facts, &self.catalogues);
        let mut outcomes = self.pack.evaluate(&facts, &forecast, now);
        let back = way_back::outcomes(&self.pack, &facts, &forecast, now, &outcomes);
        outcomes.extend(back);
        let context = Context {
            strict: asked.strict,
            asked_in: asked.place.clone(),
            digests,
            other_rules: self.pack.rules().iter().map(|rule| rule.id.to_string()).collect(),
            forecast: Some(forecast),
            ..Context::at(now)
        };
        verdict::decide(outcomes, &self.waivers, &facts, &context)
    }
}
