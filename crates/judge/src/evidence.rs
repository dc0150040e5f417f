//! Origin of the facts that a verdict rests on: measured now, or read from a file, signed or not.
//!
//! A facts file is believed as far as a key signed it: anybody may edit the others, and every verdict says so.

use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmgate_attest::{
    AttestError, Digest, Envelope, FactsBasis, FactsOrigin, Predicate, PrivateKey, PublicKey,
};
use vmgate_documents::{Problems, SourceFile, facts_file};
use vmgate_facts::{Facts, text::with_causes};

/// Largest file with signed facts, bytes: a facts file in base64.
const LIMIT: u64 = 48 << 20;

/// Origin of all facts of one move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidenceOrigin {
    /// This program measured them.
    Live,
    /// A file without a signature that was verified; its name, if there was one.
    File(Option<String>),
    /// A file that a trusted key signed.
    Signed {
        /// The file.
        file: String,
        /// Id of the key.
        key: String,
    },
}

impl Default for EvidenceOrigin {
    /// Facts that nobody vouches for count as read from a file.
    fn default() -> Self {
        Self::File(None)
    }
}

/// Facts as `vmgate collect --sign` signs them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct SignedFacts(Facts);

impl Predicate for SignedFacts {
    const TYPE: &'static str = "https://vmgate.dev/facts/v1";

    fn facts(&self) -> Option<Digest> {
        serde_json::to_vec(&self.0).ok().map(|bytes| Digest::of(&bytes))
    }

    fn label(&self) -> &str {
        self.0.vm.known().and_then(|vm| vm.name.known()).map_or("a VM without a name", String::as_str)
    }
}

/// Facts that cannot be read, or whose signature does not hold.
#[derive(Debug, Error)]
pub enum EvidenceError {
    /// The file has problems.
    #[error(transparent)]
    Document(#[from] Problems),
    /// No trusted key signed the facts, or they were changed afterwards.
    #[error("{file}: {}", with_causes(source))]
    NotSigned {
        /// The file.
        file: String,
        /// Problem of the envelope.
        source: AttestError,
    },
}

/// Signs facts where they were collected.
pub fn sign_facts(facts: Facts, key: &PrivateKey) -> Result<Envelope, AttestError> {
    vmgate_attest::sign(&SignedFacts(facts), key)
}

/// Reads facts from a file, in an envelope or not. Without keys no signature is verified, and an envelope is a file like
/// another; with keys an envelope that none of them signed is an error.
pub fn read_facts(path: &Path, keys: &[PublicKey]) -> Result<(Facts, EvidenceOrigin), EvidenceError> {
    let name = path.display().to_string();
    let Some(envelope) = envelope(path) else {
        return Ok((facts_file::read(path)?, EvidenceOrigin::File(Some(name))));
    };
    let problem = |source| EvidenceError::NotSigned { file: name.clone(), source };
    if keys.is_empty() {
        let SignedFacts(facts) = vmgate_attest::read_unverified(envelope.as_bytes()).map_err(problem)?;
        return Ok((facts, EvidenceOrigin::File(Some(name))));
    }
    let signed = vmgate_attest::verify::<SignedFacts>(envelope.as_bytes(), keys).map_err(problem)?;
    Ok((signed.verdict.0, EvidenceOrigin::Signed { file: name, key: signed.key_id }))
}

/// Text of a file that is an envelope; none for any other file.
fn envelope(path: &Path) -> Option<String> {
    let file = SourceFile::read(path, LIMIT).ok()?;
    let is_envelope =
        file.text.trim_start().starts_with('{') && serde_json::from_str::<Envelope>(&file.text).is_ok();
    is_envelope.then(|| file.text.clone())
}

impl EvidenceOrigin {
    /// Origin of each group of facts.
    pub(crate) fn basis(&self, facts: &Facts) -> Vec<FactsBasis> {
        let (origin, file, signed_by) = match self {
            Self::Live => (FactsOrigin::Live, None, None),
            Self::File(file) => (FactsOrigin::File, file.clone(), None),
            Self::Signed { file, key } => (FactsOrigin::Signed, Some(file.clone()), Some(key.clone())),
        };
        let mut groups: Vec<FactsBasis> = Vec::new();
        let names = ["vm", "measurements", "guest", "source", "destination", "path"];
        for name in names.into_iter().chain(facts.history.known().map(|_| "history")) {
            let of_group =
                || facts.provenance.iter().filter(|(path, _)| group_of(path) == name).map(|(_, from)| from);
            let mut collectors: Vec<String> = of_group().map(|from| from.collector.clone()).collect();
            collectors.sort();
            collectors.dedup();
            if name == "history" {
                collectors = vec!["ledger".to_owned()];
            }
            groups.push(FactsBasis {
                group: name.to_owned(),
                origin,
                collectors,
                at: of_group().map(|from| from.at).min(),
                file: file.clone(),
                signed_by: signed_by.clone(),
            });
        }
        groups
    }
}

/// Group of the fact at a path: how fast the VM writes to its memory is measured by itself.
fn group_of(path: &str) -> &str {
    if path.starts_with("vm.dirty_") {
        return "measurements";
    }
    path.split(['.', '[']).next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const IDLE: &str = include_str!("../../../rules/fixtures/idle-vm.yaml");
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIBcofuvXRC/XHa29NnGB1nWYCIk0JoxAtksjpKzCrbLs\n-----END PRIVATE KEY-----\n";

    #[test]
    fn signed_facts_are_read_as_what_they_were_and_an_edited_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts.json");
        let facts: Facts = serde_yaml::from_str(IDLE).unwrap();
        let key = PrivateKey::from_pem("test", PRIVATE).unwrap();
        let envelope = sign_facts(facts.clone(), &key).unwrap();
        fs::write(&path, serde_json::to_string(&envelope).unwrap()).unwrap();
        let (read, origin) = read_facts(&path, &[key.public()]).unwrap();
        assert_eq!(read, facts);
        assert!(matches!(&origin, EvidenceOrigin::Signed { key: id, .. } if *id == key.public().id()));
        assert!(origin.basis(&facts).iter().all(|group| group.origin == FactsOrigin::Signed));
        let (_, unverified) = read_facts(&path, &[]).unwrap();
        assert!(matches!(unverified, EvidenceOrigin::File(_)), "no key says that it is signed");

        let mut edited = envelope;
        edited.payload.replace_range(400..401, if &edited.payload[400..401] == "A" { "B" } else { "A" });
        fs::write(&path, serde_json::to_string(&edited).unwrap()).unwrap();
        assert!(matches!(read_facts(&path, &[key.public()]), Err(EvidenceError::NotSigned { .. })));
        fs::write(&path, IDLE).unwrap();
        assert!(matches!(read_facts(&path, &[key.public()]).unwrap().1, EvidenceOrigin::File(_)));
    }

    #[test]
    fn every_group_names_its_collectors() {
        let facts: Facts = serde_yaml::from_str(IDLE).unwrap();
        let groups = EvidenceOrigin::Live.basis(&facts);
        let of = |name: &str| groups.iter().find(|group| group.group == name).unwrap();
        assert_eq!(of("guest").collectors, ["guest agent"]);
        assert_eq!(of("measurements").collectors, ["libvirt"]);
        assert_eq!(
            (of("source").collectors.as_slice(), of("source").at.is_some()),
            (["host probe".to_owned()].as_slice(), true)
        );
    }
}
