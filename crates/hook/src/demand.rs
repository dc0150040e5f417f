//! Words of hook.yaml that name rules, facts and keys: `builtin`, `live`, a digest, or the id of a key.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use thiserror::Error;
use vmgate_attest::{Digest, FactsBasis, FactsOrigin, RulesBasis, RulesOrigin};

/// Id of a key: 64 hexadecimal digits, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct KeyId(String);

/// A pack of rules that a verdict must have been judged by.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub enum RulesDemand {
    /// The rules that are shipped with vmgate, of any version.
    Builtin,
    /// The pack, or the parameters, with this digest.
    Digest(Digest),
    /// A pack that this key signed.
    SignedBy(KeyId),
}

/// An origin that facts may have.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub enum FactsDemand {
    /// Measured by the vmgate that reached the verdict.
    Live,
    /// Signed by this key where they were collected.
    SignedBy(KeyId),
}

/// A word that names nothing of this kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{word}` is not {expected}")]
pub struct InvalidWord {
    word: String,
    expected: &'static str,
}

impl FromStr for KeyId {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 64 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let expected = "the id of a key: 64 hexadecimal digits, as `vmgate hook status` shows them";
        if digits { Ok(Self(text.to_owned())) } else { Err(InvalidWord { word: text.to_owned(), expected }) }
    }
}

impl KeyId {
    pub(super) fn is(&self, id: &str) -> bool {
        self.0 == id
    }
}

impl FromStr for RulesDemand {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected =
            "`builtin`, a digest (`vmgate rules digest` prints them), or the id of a key that signs rules";
        let invalid = |_| InvalidWord { word: text.to_owned(), expected };
        match text {
            "builtin" => Ok(Self::Builtin),
            digest if digest.starts_with("sha256:") => {
                digest.parse().map(Self::Digest).map_err(|_| InvalidWord { word: text.to_owned(), expected })
            }
            key => key.parse().map(Self::SignedBy).map_err(invalid),
        }
    }
}

impl FromStr for FactsDemand {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "`live`, or the id of a key that signs facts (`vmgate collect --sign` prints it)";
        match text {
            "live" => Ok(Self::Live),
            key => {
                key.parse().map(Self::SignedBy).map_err(|_| InvalidWord { word: text.to_owned(), expected })
            }
        }
    }
}

impl RulesDemand {
    pub(super) fn is_met_by(&self, pack: &RulesBasis) -> bool {
        match self {
            Self::Builtin => pack.origin == RulesOrigin::Builtin,
            Self::Digest(digest) => pack.digest == *digest,
            Self::SignedBy(key) => pack.signed_by.as_deref().is_some_and(|id| key.is(id)),
        }
    }

    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Builtin => "the shipped rules".to_owned(),
            Self::Digest(digest) => format!("the rules {digest}"),
            Self::SignedBy(key) => format!("rules that the key {key} signed"),
        }
    }
}

impl FactsDemand {
    pub(super) fn is_met_by(&self, facts: &FactsBasis) -> bool {
        match self {
            Self::Live => facts.origin == FactsOrigin::Live,
            Self::SignedBy(key) => {
                facts.origin == FactsOrigin::Signed && facts.signed_by.as_deref().is_some_and(|id| key.is(id))
            }
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RulesDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin => f.write_str("builtin"),
            Self::Digest(digest) => digest.fmt(f),
            Self::SignedBy(key) => key.fmt(f),
        }
    }
}

impl fmt::Display for FactsDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => f.write_str("live"),
            Self::SignedBy(key) => key.fmt(f),
        }
    }
}

vmgate_facts::serde_by_text!(KeyId);
vmgate_facts::serde_by_text!(RulesDemand);
vmgate_facts::serde_by_text!(FactsDemand);
