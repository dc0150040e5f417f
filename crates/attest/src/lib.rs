//! Signed statements: an in-toto Statement v1 about the facts, with a verdict as its predicate, in a DSSE envelope signed
//! with Ed25519.
//!
//! Only the key is trusted, and nothing in the envelope: its key id is only a hint, and the statement is read
//! after the signature was verified. Specifications: in-toto attestation v1 (spec/v1), DSSE v1.0 (protocol.md, envelope.md).
//! [`Permit`] is the part of a verdict that whoever admits a VM acts on. No I/O, no clock, no rules: small, since the hook
//! on a destination depends on it. Every crate may; it depends on no other crate of vmgate.
//!
//! Walls, which the compiler keeps:
//!
//! ```compile_fail
//! use vmgate_verdict::Verdict;
//! ```

#![forbid(unsafe_code)]

mod basis;
mod detached;
mod digest;
mod dsse;
mod key;
mod permit;
mod validity;

use std::collections::BTreeMap;

pub use basis::{Basis, FactsBasis, FactsOrigin, RulesBasis, RulesOrigin};
pub use detached::{DetachedSignature, InvalidSignature};
pub use digest::{Digest, InvalidDigest};
pub use dsse::{DsseSignature, Envelope};
pub use key::{InvalidKey, PrivateKey, PublicKey};
pub use permit::{
    Decision, GoReason, NameAndUuid, NoGoReason, Permit, PermitCounts, PermitDigests, PermitSchema,
    PermittedMove,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;
pub use validity::{CLOCK_SKEW, NoAuthority, Validity};

/// A document that is signed as the predicate of a statement about facts.
pub trait Predicate {
    /// The in-toto predicate type, a URI.
    const TYPE: &'static str;

    /// Digest of the facts that the document is about; none where it does not name them.
    fn facts(&self) -> Option<Digest>;

    /// Name of the VM, for the subject and for messages.
    fn label(&self) -> &str;

    /// Name of the subject of the statement.
    fn subject(&self) -> String {
        format!("facts of {}", self.label())
    }
}

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// An in-toto Statement whose predicate is a verdict.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement<P> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: P,
}

/// Subject of the statement: the facts of a move, by digest.
#[derive(Debug, Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

/// A verdict with a verified signature.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedVerdict<P> {
    /// The verdict that was signed, or the part of it that its reader needs.
    pub verdict: P,
    /// The id of the trusted key that signed it, see [`PublicKey::id`].
    pub key_id: String,
    /// Digest of the signed statement: independent of the envelope's layout and of further signatures.
    pub statement: Digest,
}

/// A verdict that cannot be signed, or an envelope that cannot be trusted.
#[derive(Debug, Error)]
pub enum AttestError {
    /// The verdict has no digest of its facts, so a signature would not cover the facts.
    #[error(
        "the verdict on {0} has no digest of its facts, so a signature would not cover the facts: check again with this version of vmgate"
    )]
    NoFactsDigest(String),
    /// The verdict does not serialise.
    #[error("the verdict cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// The file is not a DSSE envelope.
    #[error("this is not a DSSE envelope (a JSON object with payloadType, payload and signatures)")]
    NotAnEnvelope(#[source] serde_json::Error),
    /// The payload is not an in-toto statement.
    #[error("the envelope holds `{0}`, not an in-toto statement ({PAYLOAD_TYPE})")]
    OtherPayload(String),
    /// The envelope has more signatures than are tried.
    #[error("the envelope has {0} signatures; at most 16 are read: have it signed again, by one key")]
    TooManySignatures(usize),
    /// A field is not base64.
    #[error("the envelope's {0} is not base64: the file is damaged")]
    NotBase64(&'static str),
    /// No trusted key was given.
    #[error("no public key was given, so no signature can be trusted: give the signer's key")]
    NoKeys,
    /// No signature is from a trusted key.
    #[error(
        "no signature of the envelope is valid for the trusted keys (signed by {signed_by}; trusted: {trusted}): the \
         file was changed after it was signed, or another key signed it"
    )]
    NotTrusted {
        /// Key ids that the envelope names; not verified.
        signed_by: String,
        /// The ids of the keys that were given.
        trusted: String,
    },
    /// The signature is valid, but the signed statement is not a verdict.
    #[error(
        "the signature is valid, but the signed statement is not a verdict of this version of vmgate: {0}"
    )]
    NotAVerdict(String),
    /// Statement and verdict name different facts.
    #[error("the signature is valid, but the statement is about {subject} and its verdict is on {verdict}")]
    OtherSubject {
        /// The digest in the statement's subject.
        subject: String,
        /// The facts' digest in the verdict.
        verdict: String,
    },
}

/// Signs a verdict. The envelope's bytes depend only on the verdict and the key.
pub fn sign<P: Predicate + Serialize>(verdict: &P, key: &PrivateKey) -> Result<Envelope, AttestError> {
    let label = verdict.label();
    let facts = verdict.facts().ok_or_else(|| AttestError::NoFactsDigest(label.to_owned()))?;
    let statement = Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![Subject {
            name: verdict.subject(),
            digest: BTreeMap::from([("sha256".to_owned(), facts.hex())]),
        }],
        predicate_type: P::TYPE.to_owned(),
        predicate: verdict,
    };
    let payload = serde_json::to_vec(&statement).map_err(AttestError::Encode)?;
    Ok(Envelope::sign(PAYLOAD_TYPE, &payload, key))
}

/// Reads an envelope and gives out its verdict if one of the `trusted` keys signed it. Whether the verdict is still
/// valid, and whether it is on the facts at hand, is for the caller to ask.
///
/// `P` may be the whole document or only the fields that its reader needs, so that readers of different versions agree.
pub fn verify<P: Predicate + DeserializeOwned>(
    envelope: &[u8],
    trusted: &[PublicKey],
) -> Result<VerifiedVerdict<P>, AttestError> {
    if trusted.is_empty() {
        return Err(AttestError::NoKeys);
    }
    let envelope: Envelope = serde_json::from_slice(envelope).map_err(AttestError::NotAnEnvelope)?;
    let (payload, key) = envelope.open(PAYLOAD_TYPE, trusted)?;
    let wrong = |problem: String| AttestError::NotAVerdict(problem);
    let statement: Statement<serde_json::Value> =
        serde_json::from_slice(&payload).map_err(|error| wrong(error.to_string()))?;
    if statement.kind != STATEMENT_TYPE {
        return Err(wrong(format!("its _type is `{}`, not {STATEMENT_TYPE}", statement.kind)));
    }
    if statement.predicate_type != P::TYPE {
        return Err(wrong(format!("its predicateType is `{}`, not {}", statement.predicate_type, P::TYPE)));
    }
    let verdict: P = serde_json::from_value(statement.predicate).map_err(|error| wrong(error.to_string()))?;
    same_facts(&statement.subject, verdict.facts())?;
    Ok(VerifiedVerdict { verdict, key_id: key.id(), statement: Digest::of(&payload) })
}

/// Reads the verdict of an envelope without a look at its signatures. Only a refusal may rest on it.
pub fn read_unverified<P: Predicate + DeserializeOwned>(envelope: &[u8]) -> Result<P, AttestError> {
    let envelope: Envelope = serde_json::from_slice(envelope).map_err(AttestError::NotAnEnvelope)?;
    let payload = envelope.unverified_payload(PAYLOAD_TYPE)?;
    let statement: Statement<P> =
        serde_json::from_slice(&payload).map_err(|error| AttestError::NotAVerdict(error.to_string()))?;
    Ok(statement.predicate)
}

fn same_facts(subjects: &[Subject], facts: Option<Digest>) -> Result<(), AttestError> {
    let digest = |subject: &Subject| -> Result<Digest, InvalidDigest> {
        let hex = subject.digest.get("sha256").map_or("", String::as_str);
        format!("sha256:{hex}").parse()
    };
    if let [subject] = subjects
        && digest(subject).ok() == facts
        && facts.is_some()
    {
        return Ok(());
    }
    let names: Vec<String> = subjects.iter().map(|subject| format!("{:?}", subject.digest)).collect();
    Err(AttestError::OtherSubject {
        subject: names.join(", "),
        verdict: facts.map_or_else(|| "no facts".to_owned(), |digest| digest.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample::Verdict;

    /// A verdict as small as one can be.
    mod sample {
        use serde::{Deserialize, Serialize};

        use crate::{Digest, Predicate};

        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub(super) struct Verdict {
            schema: Schema,
            vm: String,
            pub(super) digests: Digests,
        }

        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        enum Schema {
            #[serde(rename = "vmgate/verdict/v1")]
            V1,
        }

        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub(super) struct Digests {
            pub(super) facts: Option<Digest>,
        }

        impl Predicate for Verdict {
            const TYPE: &'static str = "https://vmgate.dev/verdict/v1";

            fn facts(&self) -> Option<Digest> {
                self.digests.facts
            }

            fn label(&self) -> &str {
                &self.vm
            }
        }

        pub(super) fn go() -> Verdict {
            verdict("idle1")
        }

        pub(super) fn no_go() -> Verdict {
            verdict("redis1")
        }

        fn verdict(vm: &str) -> Verdict {
            let facts = Some(Digest::of(vm.as_bytes()));
            Verdict { schema: Schema::V1, vm: vm.to_owned(), digests: Digests { facts } }
        }
    }

    /// RFC 8410 section 10.3 gives this key pair.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

    fn private() -> PrivateKey {
        PrivateKey::from_pem("test", PRIVATE).unwrap()
    }

    fn public() -> PublicKey {
        PublicKey::from_pem("test", PUBLIC).unwrap()
    }

    fn other() -> PublicKey {
        let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        PublicKey::from_pem("other", pem).unwrap()
    }

    fn bytes(envelope: &Envelope) -> Vec<u8> {
        serde_json::to_vec(envelope).unwrap()
    }

    fn signed(payload: &serde_json::Value) -> Vec<u8> {
        bytes(&Envelope::sign(PAYLOAD_TYPE, &serde_json::to_vec(payload).unwrap(), &private()))
    }

    fn statement() -> serde_json::Value {
        serde_json::json!({
            "_type": STATEMENT_TYPE,
            "subject": [{"name": "x", "digest": {"sha256": sample::no_go().digests.facts.unwrap().hex()}}],
            "predicateType": Verdict::TYPE,
            "predicate": sample::no_go(),
        })
    }

    #[test]
    fn what_was_signed_is_what_is_read() {
        let envelope = sign(&sample::no_go(), &private()).unwrap();
        let attested = verify::<Verdict>(&bytes(&envelope), &[other(), public()]).unwrap();
        assert_eq!((attested.verdict, attested.key_id), (sample::no_go(), public().id()));
        assert_eq!(bytes(&envelope), bytes(&sign(&sample::no_go(), &private()).unwrap()), "deterministic");
    }

    #[test]
    fn another_key_or_no_key_is_not_trusted() {
        let envelope = bytes(&sign(&sample::go(), &private()).unwrap());
        let error = verify::<Verdict>(&envelope, &[other()]).unwrap_err();
        assert!(error.to_string().contains(&public().id()), "{error}");
        assert!(matches!(error, AttestError::NotTrusted { .. }));
        assert!(matches!(verify::<Verdict>(&envelope, &[]), Err(AttestError::NoKeys)));
    }

    #[test]
    fn a_changed_envelope_is_refused_wherever_it_was_changed() {
        let envelope = sign(&sample::no_go(), &private()).unwrap();
        let go = sign(&sample::go(), &private()).unwrap();
        let mut swapped = envelope.clone();
        swapped.signatures = go.signatures;
        let mut other_type = envelope.clone();
        other_type.payload_type = "text/plain".into();
        let mut unsigned = envelope.clone();
        unsigned.signatures.clear();
        for changed in [swapped, other_type, unsigned] {
            assert!(verify::<Verdict>(&bytes(&changed), &[public()]).is_err(), "{changed:?}");
        }
        let good = bytes(&envelope);
        for position in (0..good.len()).step_by(97) {
            let mut changed = good.clone();
            changed[position] ^= 1;
            let result = verify::<Verdict>(&changed, &[public()]);
            // A key id is a hint that nobody relies on; everything else is signed.
            assert!(!matches!(result, Ok(found) if found.verdict != sample::no_go()), "at {position}");
        }
    }

    #[test]
    fn countless_signatures_are_not_tried() {
        let mut envelope = sign(&sample::go(), &private()).unwrap();
        envelope.signatures = vec![envelope.signatures[0].clone(); 17];
        let refused = verify::<Verdict>(&bytes(&envelope), &[other()]);
        assert!(matches!(refused, Err(AttestError::TooManySignatures(17))), "{refused:?}");
    }

    #[test]
    fn a_key_id_that_lies_changes_nothing() {
        let mut envelope = sign(&sample::go(), &private()).unwrap();
        envelope.signatures[0].keyid = other().id();
        assert!(verify::<Verdict>(&bytes(&envelope), &[public()]).is_ok());
        assert!(verify::<Verdict>(&bytes(&envelope), &[other()]).is_err());
    }

    #[test]
    fn a_valid_signature_on_something_else_is_not_a_verdict() {
        assert!(verify::<Verdict>(&signed(&statement()), &[public()]).is_ok());
        let change = |pointer: &str, value: serde_json::Value| {
            let mut statement = statement();
            *statement.pointer_mut(pointer).unwrap() = value;
            verify::<Verdict>(&signed(&statement), &[public()]).unwrap_err()
        };
        assert!(matches!(
            change("/_type", "https://in-toto.io/Statement/v0.1".into()),
            AttestError::NotAVerdict(_)
        ));
        assert!(matches!(
            change("/predicateType", "https://slsa.dev/provenance/v1".into()),
            AttestError::NotAVerdict(_)
        ));
        assert!(matches!(
            change("/predicate/schema", "vmgate/verdict/v9".into()),
            AttestError::NotAVerdict(_)
        ));
        assert!(matches!(
            change("/subject/0/digest", serde_json::json!({})),
            AttestError::OtherSubject { .. }
        ));
        assert!(matches!(change("/subject", serde_json::json!([])), AttestError::OtherSubject { .. }));
        let none = serde_json::Value::Null;
        assert!(matches!(change("/predicate/digests/facts", none), AttestError::OtherSubject { .. }));
    }

    #[test]
    fn without_a_digest_of_the_facts_nothing_is_signed() {
        let mut verdict = sample::go();
        verdict.digests.facts = None;
        assert!(matches!(sign(&verdict, &private()), Err(AttestError::NoFactsDigest(vm)) if vm == "idle1"));
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        for text in ["", "{}", "[]", "{\"payload\": 1}"] {
            assert!(
                matches!(verify::<Verdict>(text.as_bytes(), &[public()]), Err(AttestError::NotAnEnvelope(_))),
                "{text}"
            );
        }
    }
}
