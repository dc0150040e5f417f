//! Signature of a folder of rules: `pack.dsse.json` in the folder, with the public key that made it.
//!
//! The file brings its own key, so it proves only that the holder of that key signed these rules. A verdict names the key, and
//! the destination decides if it is one of those that it demands. A pack that was changed afterwards counts as not signed.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vmgate_attest::{AttestError, Digest, Envelope, Predicate, PrivateKey, PublicKey};
use vmgate_documents::SourceFile;
use vmgate_rules::RuleSource;

/// Name of the file in the folder.
pub const SIGNATURE_FILE: &str = "pack.dsse.json";
/// Largest file of that kind, bytes.
const LIMIT: u64 = 64 << 10;

/// The statement about a pack.
#[derive(Debug, Serialize, Deserialize)]
struct SignedPack {
    digest: Digest,
}

impl Predicate for SignedPack {
    const TYPE: &'static str = "https://vmgate.dev/rules/v1";

    fn facts(&self) -> Option<Digest> {
        Some(self.digest)
    }

    fn label(&self) -> &'static str {
        "a pack of rules"
    }

    fn subject(&self) -> String {
        "rules".to_owned()
    }
}

/// The file with the signature.
#[derive(Debug, Serialize, Deserialize)]
struct SignatureFile {
    #[serde(flatten)]
    envelope: Envelope,
    public_key: String,
}

/// Digest of the files of a pack.
pub(crate) fn digest_of(source: &RuleSource) -> Digest {
    let files = vmgate_rules::pack_files(source);
    Digest::of_parts(files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())))
}

/// Text of [`SIGNATURE_FILE`] for a folder of rules.
pub fn sign_rules(folder: &Path, key: &PrivateKey) -> Result<String, AttestError> {
    let envelope =
        vmgate_attest::sign(&SignedPack { digest: digest_of(&RuleSource::Dir(folder.to_owned())) }, key)?;
    let file = SignatureFile { envelope, public_key: key.public().to_pem() };
    serde_json::to_string_pretty(&file).map(|text| text + "\n").map_err(AttestError::Encode)
}

/// Id of the key that signed the folder's rules as they are.
pub(crate) fn signer_of(folder: &Path, digest: Digest) -> Option<String> {
    let file = SourceFile::read(&folder.join(SIGNATURE_FILE), LIMIT).ok()?;
    let signature: SignatureFile = serde_json::from_str(&file.text).ok()?;
    let key = PublicKey::from_pem(SIGNATURE_FILE, &signature.public_key).ok()?;
    let signed =
        vmgate_attest::verify::<SignedPack>(file.text.as_bytes(), std::slice::from_ref(&key)).ok()?;
    (signed.verdict.digest == digest).then_some(signed.key_id)
}
