//! Demands of a host on a verdict beyond GO: rules, facts, waivers, and what each key may sign.
//!
//! All of it stands in hook.yaml and is optional. What is demanded and not said by a verdict is refused, with a message that
//! names it. No I/O.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmgate_attest::{Digest, FactsBasis, Permit, RulesBasis, VerifiedVerdict};

use super::demand::{FactsDemand, KeyId, RulesDemand};

/// Demands of a host on what a verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Demands {
    /// The packs of rules that must have judged, and no others; any if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RulesDemand>,
    /// The origins that facts may have; any if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<FactsDemand>,
    /// Waivers in a verdict.
    #[serde(skip_serializing_if = "is_default")]
    pub waivers: WaiversDemand,
}

/// Waivers that a verdict may rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WaiversDemand {
    /// Any.
    #[default]
    Accepted,
    /// None: a verdict with a waived outcome is refused.
    Refused,
}

/// Revocation list: keys and verdicts that are no longer believed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Revoked {
    /// Ids of keys, as `vmgate hook status` shows them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyId>,
    /// Digests of verdicts, as `vmgate verdict push` prints them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Digest>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Demands {
    /// True if nothing is demanded.
    pub fn is_empty(&self) -> bool {
        is_default(self)
    }
}

impl Revoked {
    /// True if nothing is revoked.
    pub fn is_empty(&self) -> bool {
        is_default(self)
    }
}

/// A demand that a verdict does not meet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnmetDemand {
    /// The verdict does not say what is demanded.
    #[error(
        "the verdict for this VM does not say which {0} it rests on, and hook.yaml of this host demands {1}: check again with this version of vmgate"
    )]
    Unsaid(&'static str, String),
    /// A demanded pack did not judge.
    #[error(
        "the verdict for this VM was not judged by {0}, which `demand: rules` in hook.yaml of this host names; it was judged by {1}"
    )]
    RulesMissing(String, String),
    /// A pack judged that is not demanded.
    #[error(
        "the verdict for this VM was judged by {0} too, which `demand: rules` in hook.yaml of this host does not name"
    )]
    OtherRules(String),
    /// Facts have another origin.
    #[error(
        "the verdict for this VM rests on facts that were {0}: {1}; `demand: facts` in hook.yaml of this host accepts {2}"
    )]
    Facts(String, String, String),
    /// There are waivers.
    #[error(
        "the verdict for this VM rests on {0} waived findings, and `demand: waivers` in hook.yaml of this host is `refused`"
    )]
    Waivers(usize),
    /// The verdict was revoked.
    #[error(
        "the verdict for this VM was revoked: {0} is under `revoked: verdicts` in hook.yaml of this host"
    )]
    RevokedVerdict(Digest),
}

/// Checks a verdict with a valid signature against what a host demands, and what it has revoked.
pub(super) fn check(
    demands: &Demands,
    revoked: &Revoked,
    verdict: &VerifiedVerdict<Permit>,
) -> Result<(), UnmetDemand> {
    if revoked.verdicts.contains(&verdict.statement) {
        return Err(UnmetDemand::RevokedVerdict(verdict.statement));
    }
    demands.check(&verdict.verdict)
}

impl Demands {
    /// Checks what a verdict rests on.
    fn check(&self, permit: &Permit) -> Result<(), UnmetDemand> {
        self.check_rules(permit)?;
        self.check_facts(permit)?;
        if self.waivers == WaiversDemand::Refused {
            match permit.counts.map(|counts| counts.waived) {
                Some(0) => {}
                Some(waived) => return Err(UnmetDemand::Waivers(waived)),
                None => return Err(UnmetDemand::Unsaid("waivers", "none".to_owned())),
            }
        }
        Ok(())
    }

    fn check_rules(&self, permit: &Permit) -> Result<(), UnmetDemand> {
        if self.rules.is_empty() {
            return Ok(());
        }
        let said = permit.basis.as_ref().map(|basis| basis.rules.as_slice()).unwrap_or_default();
        if said.is_empty() {
            return Err(UnmetDemand::Unsaid("rules", words(&self.rules)));
        }
        let missing = self.rules.iter().find(|demanded| !said.iter().any(|pack| demanded.is_met_by(pack)));
        if let Some(missing) = missing {
            let judged: Vec<String> = said.iter().map(RulesBasis::in_words).collect();
            return Err(UnmetDemand::RulesMissing(missing.in_words(), judged.join(", ")));
        }
        match said.iter().find(|pack| !self.rules.iter().any(|demanded| demanded.is_met_by(pack))) {
            Some(other) => Err(UnmetDemand::OtherRules(other.in_words())),
            None => Ok(()),
        }
    }

    fn check_facts(&self, permit: &Permit) -> Result<(), UnmetDemand> {
        if self.facts.is_empty() {
            return Ok(());
        }
        let said = permit.basis.as_ref().map(|basis| basis.facts.as_slice()).unwrap_or_default();
        if said.is_empty() {
            return Err(UnmetDemand::Unsaid("facts", words(&self.facts)));
        }
        let refused: Vec<&FactsBasis> = said
            .iter()
            .filter(|facts| !self.facts.iter().any(|demanded| demanded.is_met_by(facts)))
            .collect();
        let Some(first) = refused.first() else { return Ok(()) };
        let groups: Vec<&str> = refused.iter().map(|facts| facts.group.as_str()).collect();
        Err(UnmetDemand::Facts(first.in_words(), groups.join(", "), words(&self.facts)))
    }
}

fn words<T: ToString>(demanded: &[T]) -> String {
    demanded.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
