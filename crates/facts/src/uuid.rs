//! UUIDs of VMs and hosts, compared by their value however they are spelt.
//!
//! A text is parsed once, where it enters. A text that is no UUID is equal to nothing: it becomes an unknown fact, an absent
//! field or an error, and never a value of this type.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize as _, Deserializer};
use thiserror::Error;

/// UUID of a VM or host, kept in the one spelling that libvirt writes: lower case, with hyphens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", inline)]
pub struct Uuid(String);

/// Error for a text that identifies nothing.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidUuid {
    /// The text is no UUID.
    #[error(
        "`{0}` is not a UUID: expected 32 hexadecimal digits, such as 5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11"
    )]
    NotAUuid(String),
    /// All digits are 0: firmware and templates that have no UUID report this one, so two machines with it are not the same.
    #[error("a UUID of zeros identifies no VM and no host")]
    Nil,
}

impl Uuid {
    /// The UUID in a text; none where the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    /// Text in lower case, with hyphens.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads a field of a program's document that may hold anything: a text that is no UUID is as absent as none. For
    /// `#[serde(deserialize_with)]`.
    pub fn or_absent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
    }
}

impl FromStr for Uuid {
    type Err = InvalidUuid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uuid = uuid::Uuid::try_parse(text.trim())
            .map_err(|_| InvalidUuid::NotAUuid(super::text::plain(text)))?;
        if uuid.is_nil() { Err(InvalidUuid::Nil) } else { Ok(Self(uuid.hyphenated().to_string())) }
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

crate::serde_by_text!(Uuid);

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11";

    #[test]
    fn every_spelling_of_a_uuid_is_the_same_value() {
        let uuid: Uuid = WRITTEN.parse().unwrap();
        for spelling in [WRITTEN.to_uppercase(), WRITTEN.replace('-', ""), format!(" {WRITTEN}\n")] {
            assert_eq!(spelling.parse(), Ok(uuid.clone()), "{spelling}");
        }
        assert_eq!(uuid.to_string(), WRITTEN);
        assert_eq!(serde_json::to_string(&uuid).unwrap(), format!("\"{WRITTEN}\""));
    }

    #[test]
    fn what_is_no_uuid_is_refused() {
        for text in ["", "web1", "5e7c9b3e", "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d1", &format!("{WRITTEN}0")] {
            assert!(matches!(text.parse::<Uuid>(), Err(InvalidUuid::NotAUuid(_))), "{text}");
        }
        assert_eq!("00000000-0000-0000-0000-000000000000".parse::<Uuid>(), Err(InvalidUuid::Nil));
    }

    #[test]
    fn a_field_of_a_programs_document_that_is_no_uuid_is_absent() {
        let read = |text: &str| Uuid::or_absent(&mut serde_json::Deserializer::from_str(text)).unwrap();
        assert_eq!(read("\"web1\""), None);
        assert_eq!(read("null"), None);
        assert_eq!(read(&format!("\"{}\"", WRITTEN.to_uppercase())).unwrap().as_str(), WRITTEN);
    }
}
