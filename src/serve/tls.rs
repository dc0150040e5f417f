//! Certificate and private key of the server, from PEM files.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject as _},
    },
};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// A certificate with its private key, as a server presents them.
pub struct Certificate {
    config: Arc<ServerConfig>,
}

/// A certificate or a key that a server cannot use.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum CertificateError {
    /// The file of the certificate holds none.
    #[error(
        "{file}: holds no certificate in PEM ({problem}): give the server's certificate, and after it those of its issuers"
    )]
    NoCertificate { file: String, problem: String },
    /// The file of the key holds none.
    #[error("{file}: holds no private key in PEM ({problem}): `openssl pkey -in KEY -out FILE` writes one")]
    NoKey { file: String, problem: String },
    /// The two cannot be used together.
    #[error("{certificate} and {key} cannot be used together: {problem}")]
    Unusable { certificate: String, key: String, problem: String },
}

impl Certificate {
    /// Reads a chain of certificates and the key of its first, each from the text of a file; the names are for messages.
    pub fn from_pem(certificate: (&str, &[u8]), key: (&str, &[u8])) -> Result<Self, CertificateError> {
        let absent = |error: PemError| CertificateError::NoCertificate {
            file: certificate.0.to_owned(),
            problem: error.to_string(),
        };
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificate.1).collect::<Result<_, _>>().map_err(absent)?;
        if chain.is_empty() {
            return Err(absent(PemError::NoItemsFound));
        }
        let private = PrivateKeyDer::from_pem_slice(key.1).map_err(|error| CertificateError::NoKey {
            file: key.0.to_owned(),
            problem: error.to_string(),
        })?;
        let unusable = |error: rustls::Error| CertificateError::Unusable {
            certificate: certificate.0.to_owned(),
            key: key.0.to_owned(),
            problem: error.to_string(),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A reader asks once and goes: sessions to resume would only hold memory for strangers.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config) })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}
