//! The part of a verdict that whoever admits a VM acts on. Every other field is ignored, so that a hook obeys verdicts
//! of newer versions too.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::Uuid;

use super::{Basis, Digest, Predicate, Validity};

/// A verdict, `vmgate/verdict/v1`, as far as a destination host reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// Name of the verdict's format.
    pub schema: PermitSchema,
    /// Time of the evaluation.
    pub evaluated_at: Timestamp,
    /// End of its validity.
    pub expires_at: Timestamp,
    /// True if it was evaluated at a chosen time, which permits nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
    /// The VM and where it may go.
    #[serde(rename = "move")]
    pub moved: PermittedMove,
    /// GO or NO-GO.
    pub decision: Decision,
    /// True if warnings count as a failure of the check (`--strict`).
    pub strict: bool,
    /// Digests of what it was reached from.
    pub digests: PermitDigests,
    /// Rules and facts that it rests on; absent in verdicts of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    /// Numbers of outcomes; absent if the writer does not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<PermitCounts>,
}

/// The numbers of outcomes of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitCounts {
    /// Outcomes that a waiver applies to.
    pub waived: usize,
}

vmgate_facts::schema_id!(pub PermitSchema = "vmgate/verdict/v1");

/// The move of a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermittedMove {
    /// The VM.
    pub vm: NameAndUuid,
    /// The host that it leaves.
    #[serde(default)]
    pub source: NameAndUuid,
    /// The host that it may go to.
    pub destination: NameAndUuid,
    /// Address at the destination for the migration traffic; absent where libvirt chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrate_address: Option<String>,
}

/// The digests of a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitDigests {
    /// Of the facts.
    pub facts: Option<Digest>,
}

impl Predicate for Permit {
    const TYPE: &'static str = "https://vmgate.dev/verdict/v1";

    fn facts(&self) -> Option<Digest> {
        self.digests.facts
    }

    fn label(&self) -> &str {
        self.moved.vm.label()
    }
}

impl Permit {
    /// Its times, to be checked before anything acts on it.
    pub fn validity(&self) -> Validity {
        Validity { evaluated_at: self.evaluated_at, expires_at: self.expires_at, simulated: self.simulated }
    }

    /// True if a migration may run on it at `now`: GO, not simulated, not expired, and without warnings where they count.
    pub fn permits_migration(&self, now: Timestamp) -> bool {
        let go = match self.decision {
            Decision::Go(GoReason::AllClear) => true,
            Decision::Go(GoReason::WithWarnings) => !self.strict,
            Decision::NoGo(_) => false,
        };
        go && !self.simulated && now < self.expires_at
    }
}

/// Name and UUID of a VM or host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NameAndUuid {
    /// Name; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// UUID; absent if unknown.
    #[serde(default, deserialize_with = "Uuid::or_absent", skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
}

/// GO or NO-GO, with the class of the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "answer", content = "because")]
pub enum Decision {
    /// Nothing blocks.
    #[serde(rename = "GO")]
    Go(GoReason),
    /// Something blocks, or nothing was looked at.
    #[serde(rename = "NO-GO")]
    NoGo(NoGoReason),
}

/// Reason for a GO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GoReason {
    /// No rule has anything against it.
    AllClear,
    /// Nothing blocks, but there are warnings.
    WithWarnings,
}

/// Reason for a NO-GO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoGoReason {
    /// A rule that blocks is violated; there may be missing evidence besides.
    RuleViolated,
    /// No rule that blocks is violated, but some cannot be decided.
    EvidenceMissing,
    /// There were no rules, none applied, or nobody saw the destination: nobody looked, so nobody can say GO.
    NothingEvaluated,
}

impl Decision {
    /// GO or NO-GO.
    pub fn word(self) -> &'static str {
        match self {
            Self::Go(_) => "GO",
            Self::NoGo(_) => "NO-GO",
        }
    }

    /// Class of the reason, in words that end a sentence.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Go(GoReason::AllClear) => "nothing speaks against it",
            Self::Go(GoReason::WithWarnings) => "nothing blocks, but there are warnings",
            Self::NoGo(NoGoReason::RuleViolated) => "a rule is violated",
            Self::NoGo(NoGoReason::EvidenceMissing) => "evidence is missing",
            Self::NoGo(NoGoReason::NothingEvaluated) => "nothing was evaluated",
        }
    }
}

impl NameAndUuid {
    /// The name, else the UUID, else what it is not.
    pub fn label(&self) -> &str {
        self.name.as_deref().or(self.uuid.as_ref().map(Uuid::as_str)).unwrap_or("(none named)")
    }

    /// True if `given`, by a person, is this name or any spelling of this UUID.
    pub fn is(&self, given: &str) -> bool {
        self.name.as_deref() == Some(given)
            || given.parse().is_ok_and(|uuid: Uuid| self.uuid.as_ref() == Some(&uuid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decision_is_two_words_in_a_document() {
        let decision = Decision::NoGo(NoGoReason::EvidenceMissing);
        let text = serde_json::to_string(&decision).unwrap();
        assert_eq!(text, r#"{"answer":"NO-GO","because":"evidence-missing"}"#);
        assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision);
        let crossed = r#"{"answer":"GO","because":"evidence-missing"}"#;
        assert!(serde_json::from_str::<Decision>(crossed).is_err(), "GO for missing evidence must not parse");
    }
}
