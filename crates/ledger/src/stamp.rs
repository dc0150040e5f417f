//! Stamp of a record: the role that the database saw, and the signature of the writer.
//!
//! Both stand before the entry's own fields in the stored text, `{"role":"…","signature":"…",` and the entry: so the digest of
//! the record holds for them, versions that know neither ignore them, and what was signed can be told byte for byte.

use serde_json::Deserializer;
use vmgate_attest::{DetachedSignature, PrivateKey, PublicKey};

use super::{Head, Row};

/// Context that is signed with the text: it is a record of a ledger.
const PURPOSE: &str = "vmgate ledger record v1";

/// Stamp of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp<'a> {
    /// Role of the database that appended the record, as the database saw it; none in a file.
    pub(super) role: Option<String>,
    /// Text of the signature.
    signature: Option<String>,
    /// The entry's own text, without the brace that begins it.
    entry: &'a str,
}

/// Signature of a record, held against the keys that are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureState {
    /// The record has no signature.
    Unsigned,
    /// The key with this index signed the record at its place in the chain.
    SignedBy(usize),
    /// The record names the key with this id, which was not given: nothing is known.
    OtherKey(String),
    /// The signature does not hold.
    Bad(String),
}

impl<'a> Stamp<'a> {
    /// Reads the stamp of a stored text.
    pub(super) fn of(body: &'a str) -> Self {
        let entry = body.strip_prefix('{').unwrap_or(body);
        let (role, entry) = leading("role", entry);
        let (signature, entry) = leading("signature", entry);
        Self { role, signature, entry }
    }

    /// The entry with a signature over it and its place in the chain: the record after `head`, and no other.
    pub(super) fn sign(entry: &str, head: &Head, key: &PrivateKey) -> String {
        let signature = DetachedSignature::sign(key, PURPOSE, &message(head, entry));
        format!("{{\"signature\":\"{signature}\",{}", entry.strip_prefix('{').unwrap_or(entry))
    }

    /// Holds the signature of a stored record against keys.
    pub(super) fn check(row: &'a Row, keys: &[PublicKey]) -> SignatureState {
        let Self { signature, entry, .. } = Stamp::of(&row.body);
        let Some(text) = signature else { return SignatureState::Unsigned };
        let Ok(signature) = text.parse::<DetachedSignature>() else {
            return SignatureState::Bad("it is no signature".to_owned());
        };
        let Some(index) = keys.iter().position(|key| key.id() == signature.key) else {
            return SignatureState::OtherKey(signature.key);
        };
        let head = Head { sequence: row.sequence.saturating_sub(1), digest: row.previous.clone() };
        let holds = keys
            .get(index)
            .is_some_and(|key| signature.is_of(key, PURPOSE, &message(&head, &format!("{{{entry}"))));
        if holds {
            return SignatureState::SignedBy(index);
        }
        let key = &signature.key;
        SignatureState::Bad(format!(
            "key {key} did not sign this content as record {}, after those before it",
            row.sequence
        ))
    }
}

/// The signed message: digest and number of the record before fix the place, so that no record can be written a second time.
fn message(head: &Head, entry: &str) -> Vec<u8> {
    format!("{}\n{}\n{entry}", head.digest, head.sequence + 1).into_bytes()
}

/// Splits off a leading `"name":"text",`; gives the text back as it is where it does not begin so.
fn leading<'a>(name: &str, text: &'a str) -> (Option<String>, &'a str) {
    let split = || {
        let value = text.strip_prefix(&format!("\"{name}\":"))?;
        let mut values = Deserializer::from_str(value).into_iter::<String>();
        let found = values.next()?.ok()?;
        Some((found, value.get(values.byte_offset()..)?.strip_prefix(',')?))
    };
    split().map_or((None, text), |(found, rest)| (Some(found), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_before_the_entry_is_a_stamp() {
        let Stamp { role, signature, entry } = Stamp::of(r#"{"role":"a \"b\",","signature":"x","kind":"y"}"#);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!((role, signature, entry), (text("a \"b\","), text("x"), r#""kind":"y"}"#));
        for entry in [
            r#""by":"a","role":"x"}"#,
            r#""kind":"a","signature":"x"}"#,
            r#""role":7,"kind":"a"}"#,
            r#""role":"x"}"#,
            r#""role""#,
            "",
        ] {
            let body = format!("{{{entry}");
            let Stamp { role, signature, entry: rest } = Stamp::of(&body);
            assert_eq!((role, signature, rest), (None, None, entry));
        }
    }
}
