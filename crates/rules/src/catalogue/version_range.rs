//! Range of versions, such as `>=8.0 <8.0.3`.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use thiserror::Error;
use vmgate_facts::Version;

/// Versions that meet every bound; written as bounds with blanks between them.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", inline, extend("pattern" = r"^(>=|<|=)\d+(\.\d+){0,2}( (>=|<|=)\d+(\.\d+){0,2})*$"))]
pub struct VersionRange {
    bounds: Vec<(Bound, Version)>,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    AtLeast,
    Below,
    Exactly,
}

/// A text that is not a range of versions.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a range of versions: write bounds such as `>=8.0 <8.0.3` or `=6.2.0`")]
pub struct InvalidRange(String);

impl VersionRange {
    /// True if the range contains the version.
    pub fn contains(&self, version: Version) -> bool {
        self.bounds.iter().all(|(bound, limit)| match bound {
            Bound::AtLeast => version >= *limit,
            Bound::Below => version < *limit,
            Bound::Exactly => version == *limit,
        })
    }
}

impl FromStr for VersionRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bound = |part: &str| {
            let of = |sign, bound| Some((bound, part.strip_prefix(sign)?.parse().ok()?));
            of(">=", Bound::AtLeast).or_else(|| of("<", Bound::Below)).or_else(|| of("=", Bound::Exactly))
        };
        let bounds: Option<Vec<_>> = text.split_whitespace().map(bound).collect();
        let bounds =
            bounds.filter(|bounds| !bounds.is_empty()).ok_or_else(|| InvalidRange(text.to_owned()))?;
        Ok(Self { bounds, text: text.to_owned() })
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

vmgate_facts::serde_by_text!(VersionRange);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_must_meet_every_bound() {
        let within = |range: &str, version: &str| {
            range.parse::<VersionRange>().unwrap().contains(version.parse().unwrap())
        };
        assert!(within(">=8.0 <8.0.3", "8.0") && within(">=8.0 <8.0.3", "8.0.2"));
        assert!(!within(">=8.0 <8.0.3", "8.0.3") && !within(">=8.0 <8.0.3", "7.2.22"));
        assert!(within("=6.2.0", "6.2") && !within("=6.2.0", "6.2.1"));
        for wrong in ["", "8.0", ">8.0", ">= 8.0", ">=8.0,<9"] {
            assert!(wrong.parse::<VersionRange>().is_err(), "{wrong}");
        }
    }
}
