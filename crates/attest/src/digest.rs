//! SHA-256 digests that tie a verdict to its inputs.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", inline, extend("pattern" = "^sha256:[0-9a-f]{64}$"))]
pub struct Digest([u8; 32]);

/// A text that is not a digest.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a digest: expected `sha256:` and 64 lower-case hexadecimal digits")]
pub struct InvalidDigest(pub String);

impl Digest {
    /// The digest of one run of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest that was calculated elsewhere.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of several named parts, such as rule files. Lengths are hashed too, so that bytes cannot move
    /// from one part to the next unseen; the order counts, so sort by name.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut hash = Sha256::new();
        for (name, bytes) in parts {
            for piece in [name.as_bytes(), bytes] {
                hash.update((piece.len() as u64).to_be_bytes());
                hash.update(piece);
            }
        }
        Self(hash.finalize().into())
    }

    /// The 64 hexadecimal digits alone, as in-toto writes a digest.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
            text
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

vmgate_facts::serde_by_text!(Digest);

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDigest(text.to_owned());
        let digits = text.strip_prefix("sha256:").map(str::as_bytes).ok_or_else(invalid)?;
        let nibble = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = digits.as_chunks::<2>();
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect();
        match bytes.map(<[u8; 32]>::try_from) {
            Some(Ok(bytes)) if rest.is_empty() => Ok(Self(bytes)),
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_what_it_wrote() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        for wrong in ["", "sha256:", "sha256:e3", &text.to_uppercase(), &format!("{text}0"), &text[7..]] {
            assert_eq!(wrong.parse::<Digest>(), Err(InvalidDigest(wrong.to_owned())), "{wrong}");
        }
    }

    #[test]
    fn bytes_cannot_move_between_parts() {
        let one = Digest::of_parts([("a", b"bc".as_slice()), ("d", b"")]);
        let other = Digest::of_parts([("ab", b"c".as_slice()), ("d", b"")]);
        assert_ne!(one, other);
    }
}
