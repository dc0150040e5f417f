//! `vmgate serve`: a read-only page of a campaign for browsers, and metrics for Prometheus.

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
use crate::serve::StatusServer;

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
}

impl Serve {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let token = self.token_file.as_deref().map(key_files::secret_text).transpose()?;
        let ledger = campaign::open(shared)?;
        let campaign = campaign::find(&ledger, self.change.as_deref())?;
        let page = StatusServer::open(self.listen, token.as_deref().map(str::trim), ledger, &campaign)
            .map_err(Failure::usage)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(|error| Failure::failed(format!("signals could not be caught: {error}")))?;
        }
        if let Some(address) = page.address() {
            output::say(shared, &format!("http://{address}/ and http://{address}/metrics, until Ctrl-C"));
        }
        page.serve(&|| stop.load(Ordering::Relaxed));
        Ok(ExitCode::Go)
    }
}
