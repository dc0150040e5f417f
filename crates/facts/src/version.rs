//! Versions of hypervisor software: up to three numbers, compared as numbers.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use thiserror::Error;

/// Version such as `7.2.22`, written as text and compared number by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", inline, extend("format" = "version", "pattern" = r"^\d+(\.\d+){0,2}$"))]
pub struct Version {
    /// Major version, the first number.
    pub major: u32,
    /// Minor version, the second number; 0 where the text has none.
    pub minor: u32,
    /// Micro version, the third number; 0 where the text has none.
    pub micro: u32,
}

/// A text that is not a version.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a version: expected one to three numbers with dots between, such as 7.2.22")]
pub struct InvalidVersion(pub String);

impl Version {
    /// Decodes libvirt's form, `major * 1_000_000 + minor * 1_000 + micro` (virConnectGetVersion).
    pub fn from_libvirt(encoded: u32) -> Self {
        Self { major: encoded / 1_000_000, minor: encoded / 1_000 % 1_000, micro: encoded % 1_000 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

crate::serde_by_text!(Version);

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidVersion(text.to_owned());
        let number = |part: Option<&str>| part.map_or(Ok(0), |digits| digits.parse().map_err(|_| invalid()));
        let mut parts = text.split('.');
        let major = parts.next().ok_or_else(invalid)?.parse().map_err(|_| invalid())?;
        let version = Self { major, minor: number(parts.next())?, micro: number(parts.next())? };
        if parts.next().is_some() { Err(invalid()) } else { Ok(version) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers_not_as_text() {
        let older: Version = "7.2.22".parse().unwrap();
        let newer: Version = "10.0".parse().unwrap();
        assert!(older < newer);
        assert_eq!(newer.to_string(), "10.0.0");
        assert_eq!(Version::from_libvirt(7_002_022), older);
    }

    #[test]
    fn what_is_not_a_version_is_refused() {
        for text in ["", "7.", "7.2.3.4", "v7", "-1", "7,2"] {
            assert_eq!(text.parse::<Version>(), Err(InvalidVersion(text.to_owned())), "{text}");
        }
    }
}
