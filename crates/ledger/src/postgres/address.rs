//! Parser of PostgreSQL URLs, with their TLS settings: fully verified TLS, unless the URL says otherwise.

use std::{env, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use vmgate_facts::text::with_causes;

use crate::ledger_url;

/// Largest file of certificates: the system's own is a quarter of it.
const MOST_BYTES: u64 = 1 << 20;

/// Address of a server, with TLS settings.
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

impl Address {
    /// Parses a URL; the error says what is wrong with it. A password that the URL lacks may be in `PGPASSWORD`.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, who, at, parameters) = ledger_url::url_parts(url)
            .ok_or("it cannot be read: in a name or password write @ as %40, / as %2F and ? as %3F")?;
        if !["postgres", "postgresql"].contains(&scheme) {
            return Err(format!("`{scheme}` is unknown: give a file, or postgres://USER@HOST:PORT/NAME"));
        }
        let (mut tls, mut roots, mut rest) = (None, None, Vec::new());
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", mode)) => tls = Some(is_verified(mode)?),
                Some(("sslrootcert", "system")) => roots = None,
                Some(("sslrootcert", file)) => roots = Some(file),
                _ => rest.push(parameter),
            }
        }
        let separator = if who.is_empty() { "" } else { "@" };
        let plain = format!("postgres://{who}{separator}{at}?{}", rest.join("&"));
        let mut config: Config = plain.parse().map_err(|error| with_causes(&error))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("the URL names no host: for a local server add ?host=/run/postgresql".to_owned());
        }
        if config.get_password().is_none()
            && let Ok(password) = env::var("PGPASSWORD")
        {
            config.password(password);
        }
        config.application_name("vmgate");
        let is_local = config.get_hostaddrs().is_empty()
            && config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let tls = tls.unwrap_or(!is_local);
        config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
        Ok(Self { config, tls: verifying(if tls { trusted(roots)? } else { RootCertStore::empty() })? })
    }
}

/// True for the fully verified TLS mode, false for none. The modes between them do not protect from a man in the middle.
fn is_verified(mode: &str) -> Result<bool, String> {
    match mode {
        "verify-full" => Ok(true),
        "disable" => Ok(false),
        other => Err(format!(
            "sslmode={other} does not verify the identity of the server: give verify-full, which is the default, or disable"
        )),
    }
}

/// Trusted certificate authorities: those in a file, else the system's.
fn trusted(file: Option<&str>) -> Result<RootCertStore, String> {
    let certificates = match file {
        Some(file) => from_file(file).map_err(|why| format!("sslrootcert={file}: {why}"))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err("no certificate authority is trusted here: name one with sslrootcert=FILE".to_owned());
    }
    Ok(roots)
}

fn from_file(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    // Who can write this file decides which server gets the password.
    let bytes = vmgate_trust::read(Path::new(file), MOST_BYTES).map_err(|why| why.to_string())?;
    let read = CertificateDer::pem_slice_iter(&bytes);
    let certificates: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if certificates.is_empty() { Err("the file holds no certificate".to_owned()) } else { Ok(certificates) }
}

fn verifying(roots: RootCertStore) -> Result<MakeRustlsConnect, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> Result<SslMode, String> {
        Address::parse(url).map(|address| address.config.get_ssl_mode())
    }

    #[test]
    fn what_the_url_asks_for_holds_and_nothing_weaker() {
        assert_eq!(mode("postgres://ann@db/x?sslmode=verify-full"), Ok(SslMode::Require));
        assert_eq!(mode("postgresql://ann@db/x"), Ok(SslMode::Require));
        assert_eq!(mode("postgres://ann@db/x?sslmode=disable"), Ok(SslMode::Disable));
        assert_eq!(mode("postgres:///x?host=/run/postgresql"), Ok(SslMode::Disable));
        assert_eq!(mode("postgres://%2Frun%2Fpostgresql,db/x"), Ok(SslMode::Require));
        assert_eq!(mode("postgres:///x?hostaddr=10.0.0.7"), Ok(SslMode::Require));
        for weaker in ["allow", "prefer", "require", "verify-ca", "verify-ful"] {
            let error = mode(&format!("postgres://ann:secret@db/x?sslmode={weaker}")).unwrap_err();
            assert!(error.contains("verify-full") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_its_password() {
        for (url, says) in [
            ("mysql://ann:secret@db/x", "`mysql` is unknown"),
            ("postgres://ann:sec@ret@db/x", "%40"),
            ("postgres://ann:secret@db:port/x", "port"),
            ("postgres://ann:secret@db/x?sslcrt=a", "unknown option `sslcrt`"),
            ("postgres:///x", "names no host"),
            ("postgres://ann:secret@db/x?sslrootcert=/no/such.pem", "sslrootcert=/no/such.pem"),
            ("postgres://ann:secret@db/x?sslrootcert=Cargo.toml", "holds no certificate"),
        ] {
            let error = mode(url).unwrap_err();
            assert!(error.contains(says) && !error.contains("sec"), "{url}: {error}");
        }
    }
}
