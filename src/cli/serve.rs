//! `vmgate serve`: a read-only page of the checks of a site and of a campaign for browsers, and metrics for Prometheus.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use vmgate_verdict::ExitCode;

use super::{Failure, campaign, key_files, options::GlobalOptions, output};
use crate::serve::{Certificate, StatusServer};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Id of the change; the newest campaign of the ledger if none is given
    change: Option<String>,
    /// Address to listen on; other addresses than loopback need a token
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8480")]
    listen: SocketAddr,
    /// File with the token that readers must send: as a bearer token, or as the password of any user
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificate of this server in PEM, and after it those of its issuers: the page is served over TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM; only its owner may be able to read it
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl Serve {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let token = self.token_file.as_deref().map(key_files::secret_text).transpose()?;
        let certificate = self.certificate()?;
        let ledger = campaign::open(shared)?;
        // Without a campaign the page shows the checks of the site alone.
        let campaign = match campaign::find(&ledger, self.change.as_deref()) {
            Err(_) if self.change.is_none() => String::new(),
            found => found?,
        };
        let page = StatusServer::open(
            self.listen,
            token.as_deref().map(str::trim),
            certificate.as_ref(),
            ledger,
            &campaign,
        )
        .map_err(Failure::usage)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(|error| Failure::failed(format!("signals could not be caught: {error}")))?;
        }
        if certificate.is_none() && !self.listen.ip().is_loopback() {
            output::say(
                shared,
                "without --tls-cert and --tls-key the token goes over the network readable by everybody on its way",
            );
        }
        if let Some(url) = page.url() {
            output::say(shared, &format!("{url} and {url}metrics, until Ctrl-C"));
        }
        page.serve(&|| stop.load(Ordering::Relaxed));
        Ok(ExitCode::Go)
    }

    fn certificate(&self) -> Result<Option<Certificate>, Failure> {
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let chain = key_files::public_text(certificate)?;
        let private = key_files::secret_text(key)?;
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        Certificate::from_pem((&certificate, chain.as_bytes()), (&key, private.as_bytes()))
            .map(Some)
            .map_err(Failure::usage)
    }
}
