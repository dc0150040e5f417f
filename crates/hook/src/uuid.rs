//! UUIDs as names of folders and files: one spelling, whatever spelling libvirt, a verdict or an operator uses.

use std::fmt;

/// A UUID in lower case with its hyphens, so that equal ones are equal text. Safe in a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Uuid(String);

impl Uuid {
    /// Reads 32 hexadecimal digits; case and hyphens do not matter. None for anything else: what is no UUID matches nothing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut spelt = String::with_capacity(36);
        let digits = text.trim().chars().filter(|c| *c != '-');
        for (position, digit) in digits.enumerate() {
            if !digit.is_ascii_hexdigit() || position >= 32 {
                return None;
            }
            if matches!(position, 8 | 12 | 16 | 20) {
                spelt.push('-');
            }
            spelt.push(digit.to_ascii_lowercase());
        }
        (spelt.len() == 36).then_some(Self(spelt))
    }

    /// True if both texts are the same UUID.
    pub(super) fn same(one: &str, other: &str) -> bool {
        Self::parse(one).is_some_and(|one| Self::parse(other) == Some(one))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_uuid_is_the_same_and_nothing_else_is_one() {
        let uuid = "5e7c9b3e-0000-4000-8000-00000000000a";
        for spelling in [uuid.to_owned(), uuid.to_uppercase(), uuid.replace('-', ""), format!(" {uuid}\n")] {
            assert_eq!(Uuid::parse(&spelling).unwrap().as_str(), uuid);
        }
        let long = format!("{uuid}0");
        for wrong in
            ["", "web1", "../../etc/passwd", &uuid[1..], &long, "5e7c9b3e/0000-4000-8000-00000000000a"]
        {
            assert_eq!(Uuid::parse(wrong), None, "{wrong}");
            assert!(!Uuid::same(wrong, wrong), "{wrong}");
        }
    }
}
