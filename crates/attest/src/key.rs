//! Ed25519 keys in PEM, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them.

use std::fmt;

use ed25519_dalek::{
    Signature, Signer as _, SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePublicKey as _, spki::der::pem::LineEnding},
};
use thiserror::Error;

use crate::Digest;

/// A key to sign with. Never printed; wiped from memory when it is dropped.
pub struct PrivateKey(SigningKey);

/// A key to check signatures with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// A text that is not the expected kind of key.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{from} is not an Ed25519 {kind} key: {problem}")]
pub struct InvalidKey {
    /// The file or environment variable of the text.
    pub from: String,
    /// `private` or `public`.
    pub kind: &'static str,
    /// The problem and the way out. Never contains a part of the key.
    pub problem: &'static str,
}

impl PrivateKey {
    /// Reads PKCS#8 in PEM. `from` names the file or variable for messages.
    pub fn from_pem(from: &str, pem: &str) -> Result<Self, InvalidKey> {
        SigningKey::from_pkcs8_pem(pem.trim()).map(Self).map_err(|_| InvalidKey {
            from: from.to_owned(),
            kind: "private",
            problem: if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") {
                "the key is encrypted; decrypt it first with `openssl pkey -in KEY`"
            } else if pem.contains("BEGIN PUBLIC KEY") {
                "this is a public key, and signing needs the private key"
            } else if pem.contains("BEGIN OPENSSH PRIVATE KEY") {
                "the key is in OpenSSH format; make a key with `openssl genpkey -algorithm ed25519`"
            } else if pem.contains("PRIVATE KEY") {
                "the key is damaged or of another kind; make one with `openssl genpkey -algorithm ed25519`"
            } else {
                "it contains no PEM; make a key with `openssl genpkey -algorithm ed25519`"
            },
        })
    }

    /// The public key of this private key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in PEM. `from` names the file or variable for messages.
    pub fn from_pem(from: &str, pem: &str) -> Result<Self, InvalidKey> {
        let key = VerifyingKey::from_public_key_pem(pem.trim()).ok().filter(|key| !key.is_weak());
        key.map(Self).ok_or_else(|| InvalidKey {
            from: from.to_owned(),
            kind: "public",
            problem: if pem.contains("PRIVATE KEY") {
                "this is a private key; keep it secret and give the output of `openssl pkey -in KEY -pubout`"
            } else if pem.contains("BEGIN PUBLIC KEY") {
                "the key is damaged or of another kind"
            } else {
                "it contains no PEM; `openssl pkey -in KEY -pubout` writes one"
            },
        })
    }

    /// The key as a SubjectPublicKeyInfo in PEM.
    pub fn to_pem(&self) -> String {
        // The encoding of an Ed25519 key has a fixed form and cannot fail.
        self.0.to_public_key_pem(LineEnding::LF).unwrap_or_default()
    }

    /// The SHA-256 digest of the key's SubjectPublicKeyInfo, in hexadecimal: `openssl pkey -pubin -in KEY -outform
    /// DER | sha256sum`.
    pub fn id(&self) -> String {
        // The encoding of an Ed25519 key has a fixed form and cannot fail; the raw key would be a unique id as well.
        let der = self.0.to_public_key_der().map_or_else(|_| self.0.to_bytes().to_vec(), |der| der.to_vec());
        Digest::of(&der).hex()
    }

    /// True if this key made `signature` over `message`; strict, so that one signature has one key and one form.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey of {}", self.public().id())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey {}", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_is_named_for_what_it_is_and_never_shown() {
        let pem = |label: &str| format!("-----BEGIN {label}-----\nc2VjcmV0\n-----END {label}-----\n");
        for (label, part) in [
            ("ENCRYPTED PRIVATE KEY", "encrypted"),
            ("PUBLIC KEY", "public key"),
            ("OPENSSH PRIVATE KEY", "OpenSSH"),
            ("RSA PRIVATE KEY", "of another kind"),
            ("CERTIFICATE", "no PEM"),
        ] {
            let error = PrivateKey::from_pem("VMGATE_KEY", &pem(label)).unwrap_err().to_string();
            assert!(
                error.starts_with("VMGATE_KEY is not an Ed25519 private key") && error.contains(part),
                "{error}"
            );
            assert!(!error.contains("c2VjcmV0"));
        }
        let error = PublicKey::from_pem("key.pem", &pem("PRIVATE KEY")).unwrap_err().to_string();
        assert!(error.contains("keep it secret"), "{error}");
    }

    #[test]
    fn a_weak_public_key_is_refused() {
        // The point of order one: any signature would hold for it.
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----";
        assert!(PublicKey::from_pem("k", pem).is_err());
    }
}
