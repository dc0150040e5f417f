//! Signature beside what it signs, in one line of text, for records that are kept as they are.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{PrivateKey, PublicKey};

/// Signature of a message, with the id of the key that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachedSignature {
    /// Id of the key, see [`PublicKey::id`]. A hint: only a verification tells who signed.
    pub key: String,
    signature: Vec<u8>,
}

impl DetachedSignature {
    /// Signs a message. `purpose` is signed too, so that a signature for one purpose holds for no other.
    pub fn sign(key: &PrivateKey, purpose: &str, message: &[u8]) -> Self {
        Self { key: key.public().id(), signature: key.sign(&framed(purpose, message)).to_vec() }
    }

    /// True if this key signed this message for this purpose.
    pub fn is_of(&self, key: &PublicKey, purpose: &str, message: &[u8]) -> bool {
        key.verifies(&framed(purpose, message), &self.signature)
    }
}

/// No purpose begins as the pre-authentication encoding of DSSE does, so that neither can be taken for the other.
fn framed(purpose: &str, message: &[u8]) -> Vec<u8> {
    [purpose.as_bytes(), b"\n", message].concat()
}

/// `KEY:SIGNATURE`: the key's id in hexadecimal, the signature in base64.
impl fmt::Display for DetachedSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key, STANDARD.encode(&self.signature))
    }
}

impl FromStr for DetachedSignature {
    type Err = InvalidSignature;

    fn from_str(text: &str) -> Result<Self, InvalidSignature> {
        let (key, signature) = text.split_once(':').ok_or(InvalidSignature)?;
        let is_id = key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
        let signature = STANDARD.decode(signature).map_err(|_| InvalidSignature)?;
        if is_id { Ok(Self { key: key.to_owned(), signature }) } else { Err(InvalidSignature) }
    }
}

/// A text that is not a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a signature (KEY:SIGNATURE)")]
pub struct InvalidSignature;

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: [&str; 2] = [
        "MC4CAQAwBQYDK2VwBCIEIDikzXlKGZ1qybCLpCXCFs67+xLTwtozuLSMKLM5C8pu",
        "MC4CAQAwBQYDK2VwBCIEIHtjCk4d3y8DVMX6Bld69kytS0ikMRhAcxlBOigLltDf",
    ];

    #[test]
    fn a_signature_holds_for_its_key_message_and_purpose_alone() {
        let [key, other] = SEEDS.map(|seed| {
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{seed}\n-----END PRIVATE KEY-----");
            PrivateKey::from_pem("test", &pem).unwrap()
        });
        let signed = DetachedSignature::sign(&key, "a record", b"text");
        let read: DetachedSignature = signed.to_string().parse().unwrap();
        assert_eq!(read, signed);
        assert!(read.is_of(&key.public(), "a record", b"text"));
        for (key, purpose, message) in
            [(&other, "a record", &b"text"[..]), (&key, "a permit", b"text"), (&key, "a record", b"texts")]
        {
            assert!(!read.is_of(&key.public(), purpose, message), "{purpose}");
        }
        for wrong in ["", ":", "abc:def", &format!("{}:*", signed.key)] {
            assert_eq!(wrong.parse::<DetachedSignature>(), Err(InvalidSignature), "{wrong}");
        }
    }
}
