//! The DSSE envelope of a signed verdict: a payload with its type, and signatures over both (DSSE v1.0).

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD,
};
use serde::{Deserialize, Serialize};

use super::{AttestError, PrivateKey, PublicKey};

/// Most signatures of an envelope: each is tried with every trusted key, over the whole payload.
const MOST_SIGNATURES: usize = 16;

/// A signed payload. Fields that are not known are ignored, as the specification demands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Type of the payload; covered by the signature.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The payload in base64.
    pub payload: String,
    /// One signature or more, of which one by a trusted key is enough.
    pub signatures: Vec<DsseSignature>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DsseSignature {
    /// Id of the signing key, as a hint. Not signed itself, so never relied on.
    #[serde(default)]
    pub keyid: String,
    /// The signature in base64.
    pub sig: String,
}

impl Envelope {
    pub(super) fn sign(payload_type: &str, payload: &[u8], key: &PrivateKey) -> Self {
        let signature = key.sign(&pre_authentication(payload_type, payload));
        Self {
            payload_type: payload_type.to_owned(),
            payload: BASE64_STANDARD.encode(payload),
            signatures: vec![DsseSignature {
                keyid: key.public().id(),
                sig: BASE64_STANDARD.encode(signature),
            }],
        }
    }

    /// Returns the payload and the trusted key that signed it. The payload is not parsed before a signature is valid.
    pub(super) fn open<'k>(
        &self,
        payload_type: &str,
        trusted: &'k [PublicKey],
    ) -> Result<(Vec<u8>, &'k PublicKey), AttestError> {
        if self.signatures.len() > MOST_SIGNATURES {
            return Err(AttestError::TooManySignatures(self.signatures.len()));
        }
        let payload = self.unverified_payload(payload_type)?;
        let message = pre_authentication(&self.payload_type, &payload);
        for signature in &self.signatures {
            let bytes = decode(&signature.sig).ok_or(AttestError::NotBase64("signature"))?;
            if let Some(key) = trusted.iter().find(|key| key.verifies(&message, &bytes)) {
                return Ok((payload, key));
            }
        }
        let list = |ids: Vec<String>| if ids.is_empty() { "no key".to_owned() } else { ids.join(", ") };
        let named = |id: &str| if id.is_empty() { "a key without an id".to_owned() } else { id.to_owned() };
        Err(AttestError::NotTrusted {
            signed_by: list(self.signatures.iter().map(|signature| named(&signature.keyid)).collect()),
            trusted: list(trusted.iter().map(PublicKey::id).collect()),
        })
    }

    /// The payload, if it has this type; its signatures are not looked at.
    pub(super) fn unverified_payload(&self, payload_type: &str) -> Result<Vec<u8>, AttestError> {
        if self.payload_type != payload_type {
            return Err(AttestError::OtherPayload(self.payload_type.clone()));
        }
        decode(&self.payload).ok_or(AttestError::NotBase64("payload"))
    }
}

/// The signed bytes (DSSE pre-authentication encoding): type and payload with their lengths, so that neither can pass
/// for a part of the other.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Decodes standard or URL-safe base64: writers may use either.
fn decode(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let standard = GeneralPurpose::new(&alphabet::STANDARD, config);
    let url_safe = GeneralPurpose::new(&alphabet::URL_SAFE, config);
    standard.decode(text).or_else(|_| url_safe.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // The example of protocol.md.
        let encoded = pre_authentication("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        assert_eq!(pre_authentication("ä", b""), "DSSEv1 2 ä 0 ".as_bytes());
    }

    #[test]
    fn both_alphabets_of_base64_are_read() {
        assert_eq!(decode("+/8="), Some(vec![0xfb, 0xff]));
        assert_eq!(decode("-_8="), Some(vec![0xfb, 0xff]));
        assert_eq!(decode("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(decode("*"), None);
    }
}
