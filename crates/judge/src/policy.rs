//! Policy, and the pure path from facts to verdict: derive facts, evaluate the rules, apply waivers, decide.

use std::path::Path;

use jiff::Timestamp;
use thiserror::Error;
use vmgate_attest::{Basis, Digest, RulesBasis, RulesOrigin};
use vmgate_documents::Problems;
use vmgate_facts::Facts;
use vmgate_rules::{Catalogues, Pack, ParamErrors, ParamOverrides, RuleSource};
use vmgate_verdict::{DecisionContext, Digests, FileLine, Outcome, Verdict, Waivers};

use crate::{evidence::EvidenceOrigin, signed_pack, way_back};

/// Invalid rules, parameters or catalogues: an error of the user, reported with every position.
#[derive(Debug, Error)]
pub enum InvalidPolicy {
    /// Problems in files of rules, profiles or catalogues.
    #[error(transparent)]
    Files(#[from] Problems),
    /// Invalid values for parameters.
    #[error(transparent)]
    Parameters(#[from] ParamErrors),
}

/// Policy by which facts are judged: rules with their parameters, catalogues and waivers.
pub struct Policy {
    /// Rules with their parameters.
    pub pack: Pack,
    /// Catalogues of known software and UDP services.
    pub catalogues: Catalogues,
    waivers: Waivers,
    /// Packs and parameters that the rules were made from.
    basis: Vec<RulesBasis>,
}

/// Options of one request for a verdict.
#[derive(Debug, Clone, Default)]
pub struct VerdictRequest {
    /// True if warnings count as a failure of the check.
    pub strict: bool,
    /// True if the time of the evaluation is not that of the machine's clock.
    pub simulated: bool,
    /// Line of a file that asks for the move.
    pub place: Option<FileLine>,
    /// Digest of that file, where it is a change.
    pub change: Option<Digest>,
    /// Origin of the facts.
    pub evidence: EvidenceOrigin,
}

impl Policy {
    /// Loads the rules of `sources`, with the parameters of a profile and of the site.
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
        let mut basis: Vec<RulesBasis> = sources.iter().map(|source| basis_of(source, &pack)).collect();
        basis.extend(basis_of_parameters(profile, parameters));
        Ok(Self { pack, catalogues, waivers: Waivers::default(), basis })
    }

    /// Replaces the waivers of the policy.
    #[must_use]
    pub fn with_waivers(self, waivers: Waivers) -> Self {
        Self { waivers, ..self }
    }

    /// Adds waivers to the policy.
    #[must_use]
    pub fn and_waivers(self, waivers: Waivers) -> Self {
        Self { waivers: self.waivers.and(waivers), ..self }
    }

    /// Packs and parameters that the rules were made from, as in verdicts.
    pub fn basis(&self) -> &[RulesBasis] {
        &self.basis
    }

    /// Digest of the rules with their parameters, as in verdicts.
    pub fn digest(&self) -> Option<Digest> {
        format!("sha256:{}", self.pack.digest()).parse().ok()
    }

    /// Outcomes of rules that fail for the return move and not for the move itself.
    pub fn way_back(&self, facts: &Facts, now: Timestamp) -> Vec<Outcome> {
        let (facts, forecast) = vmgate_forecast::derive(facts.clone(), &self.catalogues);
        let there = self.pack.evaluate(&facts, &forecast, now);
        way_back::outcomes(&self.pack, &facts, &forecast, now, &there)
    }

    /// Returns the verdict on one move at the time `now`. The same input gives the same verdict, byte for byte.
    pub fn judge(&self, facts: Facts, now: Timestamp, request: &VerdictRequest) -> Verdict {
        let basis = Basis { rules: self.basis.clone(), facts: request.evidence.basis(&facts) };
        let digests = Digests {
            facts: serde_json::to_vec(&facts).ok().map(|bytes| Digest::of(&bytes)),
            rules: self.digest(),
            change: request.change,
            ..Digests::default()
        };
        let (facts, forecast) = vmgate_forecast::derive(facts, &self.catalogues);
        let mut outcomes = self.pack.evaluate(&facts, &forecast, now);
        let back = way_back::outcomes(&self.pack, &facts, &forecast, now, &outcomes);
        outcomes.extend(back);
        let context = DecisionContext {
            strict: request.strict,
            simulated: request.simulated,
            asked_in: request.place.clone(),
            digests,
            other_rules: self.pack.rules().iter().map(|rule| rule.id.to_string()).collect(),
            forecast: Some(forecast),
            basis: Some(basis),
            ..DecisionContext::at(now)
        };
        vmgate_verdict::decide(outcomes, &self.waivers, &facts, &context)
    }
}

fn basis_of(source: &RuleSource, pack: &Pack) -> RulesBasis {
    let digest = signed_pack::digest_of(source);
    let (origin, name, replaces, signed_by) = match source {
        RuleSource::Builtin => (RulesOrigin::Builtin, None, Vec::new(), None),
        RuleSource::Dir(folder) => {
            let of_folder = pack.rules().iter().filter(|rule| Path::new(&rule.file).starts_with(folder));
            let replaces = of_folder.filter_map(|rule| rule.replaces.clone()).collect();
            let signer = signed_pack::signer_of(folder, digest);
            (RulesOrigin::Folder, Some(folder.display().to_string()), replaces, signer)
        }
    };
    RulesBasis { origin, name, digest, replaces, signed_by }
}

/// Parameters of a site judge as much as rules do, so they count as a pack of their own.
fn basis_of_parameters(profile: Option<&str>, parameters: &ParamOverrides) -> Option<RulesBasis> {
    if profile.is_none() && parameters.is_empty() {
        return None;
    }
    let values = serde_json::to_string(parameters).unwrap_or_default();
    let parts = [("profile", profile.unwrap_or_default()), ("parameters", values.as_str())];
    Some(RulesBasis {
        origin: RulesOrigin::Parameters,
        name: profile.map(|profile| format!("of the profile {profile}")),
        digest: Digest::of_parts(parts.map(|(name, text)| (name, text.as_bytes()))),
        replaces: Vec::new(),
        signed_by: None,
    })
}
