//! Waivers, `vmgate/waivers/v1`: dated exceptions with an owner, which take the effect from findings.
//!
//! A waiver names one rule, the findings, the owner and the last valid day. Days are UTC, the last one
//! included. Only one function matches waivers with outcomes: [`apply_waivers`].

mod apply;
mod glob;
mod load;

use std::path::Path;

pub use apply::{WaivedOutcomes, WaiverFault, WaiverProblem, apply_waivers};
pub use glob::Glob;
pub use load::problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_attest::Digest;
use vmgate_documents::Problems;
pub use vmgate_facts::{Day, InvalidDay};

use super::{Move, NameAndUuid};
use vmgate_facts::Uuid;

/// Most days from a waiver's creation to its last valid day. Longer exceptions belong in the rule.
pub const MAX_DAYS: i32 = 90;

/// The waiver document as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WaiverFile {
    /// Id of this format.
    pub schema: WaiversSchema,
    /// The waivers; their order has no effect.
    pub waivers: Vec<Waiver>,
}

vmgate_facts::schema_id!(pub WaiversSchema = "vmgate/waivers/v1");

/// One exception. Of several matching waivers, the order of the fields decides which one applies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Waiver {
    /// Id of the one rule that is waived.
    #[schemars(example = &"tcp-retransmission-budget")]
    pub rule: String,
    /// Matchers of the findings: at least one, and all given ones must fit.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Person or team responsible for the waiver.
    #[schemars(example = &"dba@example.org")]
    pub owner: String,
    /// Reason why the waiver is safe.
    #[schemars(example = &"the client reconnects by itself, tested 2026-11-02")]
    pub reason: String,
    /// Ticket in which the waiver was agreed.
    #[schemars(example = &"OPS-4711")]
    pub ticket: String,
    /// Day of creation, and the first valid day.
    pub created: Day,
    /// Last valid day, UTC; at most 90 days after `created`.
    pub expires: Day,
}

/// Matchers of a waiver. `*` stands for any text, `?` for one character; the whole text must fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Match {
    /// The subject of the finding; a finding on the move as a whole has an empty one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"* -> 10.0.0.7:5432")]
    pub subject: Option<Glob>,
    /// Name or UUID of the VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"web*")]
    pub vm: Option<Glob>,
    /// Name or UUID of either host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"hv1.example.org")]
    pub host: Option<Glob>,
}

/// Valid waivers, ready to be applied to outcomes. Sorted, so that the order in the files has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waivers {
    sorted: Vec<Waiver>,
}

impl Waivers {
    /// Reads a waiver file.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        load::read(path).map(Self::from_iter)
    }

    /// Reads waivers that are already in memory; `name` stands for their file in errors.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problems> {
        load::parse(name, bytes).map(Self::from_iter)
    }

    /// Joins the waivers of several files.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        self.sorted.into_iter().chain(others.sorted).collect()
    }

    /// The waivers in the order of preference: by rule, the longest valid first.
    pub fn iter(&self) -> impl Iterator<Item = &Waiver> {
        self.sorted.iter()
    }

    /// Digest of the waivers' content; layout, comments and order of the files do not count. `None` without waivers.
    pub fn digest(&self) -> Option<Digest> {
        let texts: Vec<String> = self.sorted.iter().filter_map(|w| serde_json::to_string(w).ok()).collect();
        (!texts.is_empty()).then(|| Digest::of_parts(texts.iter().map(|text| ("waiver", text.as_bytes()))))
    }
}

impl FromIterator<Waiver> for Waivers {
    /// Takes the waivers unchecked: code that builds waivers is responsible for their dates.
    fn from_iter<I: IntoIterator<Item = Waiver>>(waivers: I) -> Self {
        let mut sorted: Vec<Waiver> = waivers.into_iter().collect();
        sorted.sort_by(|a, b| a.rule.cmp(&b.rule).then(b.expires.cmp(&a.expires)).then_with(|| a.cmp(b)));
        Self { sorted }
    }
}

impl Match {
    /// True if no matcher is given. A file must not do that: `subject: "*"` matches everything explicitly.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// True if the VM and host matchers fit this move. An unknown name fits no matcher.
    fn fits_move(&self, moved: &Move) -> bool {
        let fits = |glob: &Glob, named: &NameAndUuid| {
            let names = [named.name.as_deref(), named.uuid.as_ref().map(Uuid::as_str)];
            names.into_iter().flatten().any(|text| glob.fits(text))
        };
        self.vm.as_ref().is_none_or(|glob| fits(glob, &moved.vm))
            && self
                .host
                .as_ref()
                .is_none_or(|glob| fits(glob, &moved.source) || fits(glob, &moved.destination))
    }

    fn fits_subject(&self, subject: Option<&str>) -> bool {
        self.subject.as_ref().is_none_or(|glob| glob.fits(subject.unwrap_or_default()))
    }
}

impl std::fmt::Display for Match {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let matchers = [("subject", &self.subject), ("vm", &self.vm), ("host", &self.host)];
        let given = matchers.iter().filter_map(|(name, glob)| glob.as_ref().map(|glob| (name, glob)));
        for (position, (name, glob)) in given.enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{name} {}", glob.text())?;
        }
        Ok(())
    }
}
