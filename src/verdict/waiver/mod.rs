//! Waivers, `vmgate/waivers/v1`: dated, owned exceptions that are laid over findings.
//!
//! A waiver names one rule and what it is about, who answers for it and until when. Days are UTC, the last one
//! included. One function lays them over the outcomes, [`apply_waivers`]; there is no second place that matches.

mod glob;
mod apply;
mod load;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use glob::Glob;
pub use apply::{WaivedOutcomes, WaiverFault, WaiverProblem, apply_waivers};

pub(crate) use load::problems;

use std::path::Path;

use super::{Digest, Move, NameAndUuid};
use crate::document::Problems;
pub use crate::document::{Day, InvalidDay};

/// The most days from a waiver's creation to its last valid day. Longer exceptions belong into the rule.
pub const MAX_DAYS: i32 = 90;

/// The waiver document as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaiverFile {
    /// Names this format.
    pub schema: WaiversSchema,
    /// The waivers; their order means nothing.
    pub waivers: Vec<Waiver>,
}

/// The names of the waiver format that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WaiversSchema {
    /// The first format.
    #[serde(rename = "vmgate/waivers/v1")]
    V1,
}

/// One exception. The order of the fields is the order in which several that fit are preferred.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// Id of the one rule it is about.
    #[schemars(example = &"tcp-retransmission-budget")]
    pub rule: String,
    /// What it is about; at least one matcher, and all that are given must fit.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Who answers for it.
    #[schemars(example = &"dba@example.org")]
    pub owner: String,
    /// Why it is safe.
    #[schemars(example = &"the client reconnects by itself, tested 2026-11-02")]
    pub reason: String,
    /// Where it was agreed.
    #[schemars(example = &"OPS-4711")]
    pub ticket: String,
    /// The day on which it was made, and the first on which it holds.
    pub created: Day,
    /// The last day on which it holds, UTC; at most 90 days after `created`.
    pub expires: Day,
}

/// What a waiver is about. `*` stands for any text, `?` for one character; the whole text must fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
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

/// Valid waivers, ready to be laid over outcomes. Sorted, so that the order in the files means nothing.
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

    /// These and those, for several files.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        self.sorted.into_iter().chain(others.sorted).collect()
    }

    /// The waivers in the order in which they are tried: by rule, the longest valid first.
    pub fn iter(&self) -> impl Iterator<Item = &Waiver> {
        self.sorted.iter()
    }

    /// The digest of what they say; layout, comments and order of the files do not count. None where there are none.
    pub fn digest(&self) -> Option<Digest> {
        let texts: Vec<String> = self.sorted.iter().filter_map(|w| serde_json::to_string(w).ok()).collect();
        (!texts.is_empty()).then(|| Digest::of_parts(texts.iter().map(|text| ("waiver", text.as_bytes()))))
    }
}

impl FromIterator<Waiver> for Waivers {
    /// Takes them as they are: whoever builds waivers in code answers for their dates.
    fn from_iter<I: IntoIterator<Item = Waiver>>(waivers: I) -> Self {
        let mut sorted: Vec<Waiver> = waivers.into_iter().collect();
        sorted.sort_by(|a, b| a.rule.cmp(&b.rule).then(b.expires.cmp(&a.expires)).then_with(|| a.cmp(b)));
        Self { sorted }
    }
}

impl Match {
    /// Whether no matcher is given, which is not allowed in a file: `subject: "*"` says it plainly.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Whether the VM and host matchers fit this move. A name that is not known fits none.
    fn fits_move(&self, moved: &Move) -> bool {
        let fits = |glob: &Glob, named: &NameAndUuid| {
            [&named.name, &named.uuid].into_iter().flatten().any(|text| glob.fits(text))
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
