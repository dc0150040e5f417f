//! Basis of a verdict: the packs of rules that judged, and the origin of each group of facts.
//!
//! A destination may demand one or the other. An origin that a reader does not know is none that it accepts.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Digest;

/// Rules and facts that a verdict rests on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Basis {
    /// Everything that shaped the judgement: packs of rules in the order in which they were loaded, then the parameters.
    #[serde(default)]
    pub rules: Vec<RulesBasis>,
    /// Origin of each group of facts.
    #[serde(default)]
    pub facts: Vec<FactsBasis>,
}

/// A pack of rules, or values of parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RulesBasis {
    /// Origin of the pack.
    pub origin: RulesOrigin,
    /// Folder of the pack, or the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Digest of all files of the pack, as `vmgate rules digest` prints it.
    pub digest: Digest,
    /// Ids of the rules of other packs that it replaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
    /// Id of the key that signed the pack, where the signature was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
}

/// Origin of a pack of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RulesOrigin {
    /// Shipped with vmgate.
    Builtin,
    /// A folder that was named to vmgate.
    Folder,
    /// Parameters and profile, from the configuration or the command line.
    Parameters,
    /// An origin that only newer versions know.
    #[serde(other)]
    Other,
}

/// A group of facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FactsBasis {
    /// The group, such as `source` or `guest`.
    pub group: String,
    /// Origin of its facts.
    pub origin: FactsOrigin,
    /// Collectors of the facts, as the facts name them: believed only as far as the origin is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collectors: Vec<String>,
    /// Time of the oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// File that the facts were read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Id of the key that signed the facts where they were collected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
}

/// Origin of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FactsOrigin {
    /// Measured by the vmgate that reached the verdict.
    Live,
    /// Read from a file that a trusted key signed.
    Signed,
    /// Read from a file, which anybody may have edited.
    File,
    /// An origin that only newer versions know.
    #[serde(other)]
    Other,
}

impl FactsBasis {
    /// The origin in words, such as `read from a file (web1.yaml)`.
    pub fn in_words(&self) -> String {
        let file = self.file.as_ref().map_or_else(String::new, |file| format!(" ({file})"));
        match (self.origin, &self.signed_by) {
            (FactsOrigin::Live, _) => "measured live".to_owned(),
            (FactsOrigin::Signed, Some(key)) => format!("signed by key {key}{file}"),
            (FactsOrigin::File | FactsOrigin::Signed, _) => format!("read from a file{file}"),
            (FactsOrigin::Other, _) => "of an origin that this version does not know".to_owned(),
        }
    }
}

impl RulesBasis {
    /// The pack in words, with its digest and what it replaces.
    pub fn in_words(&self) -> String {
        format!("{} ({}){}", self.title(), self.digest, self.replaced())
    }

    /// Replacements by the pack as a text that follows its name; empty for none.
    pub fn replaced(&self) -> String {
        match self.replaces.as_slice() {
            [] => String::new(),
            replaced => format!(", which replace {}", replaced.join(", ")),
        }
    }

    /// The pack in words, such as `the rules of the folder site-rules`.
    pub fn title(&self) -> String {
        let name = self.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        match self.origin {
            RulesOrigin::Builtin => "the shipped rules".to_owned(),
            RulesOrigin::Folder => format!("the rules of the folder{name}"),
            RulesOrigin::Parameters => format!("parameters{name}"),
            RulesOrigin::Other => format!("rules{name} of an origin that this version does not know"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_of_a_newer_version_is_read_and_is_none_that_is_known() {
        let text = r#"{"facts": [{"group": "guest", "origin": "oracle", "of": 1}],
            "rules": [{"origin": "cloud", "digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000"}]}"#;
        let basis: Basis = serde_json::from_str(text).unwrap();
        assert_eq!(basis.facts.first().map(|facts| facts.origin), Some(FactsOrigin::Other));
        assert_eq!(basis.rules.first().map(|rules| rules.origin), Some(RulesOrigin::Other));
    }
}
