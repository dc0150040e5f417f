//! `vmgate probe`: what this host, or this guest, can tell of itself. Runs where the facts are; reads only.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, output};
use crate::{collect::probe, verdict::ExitCode};

#[derive(Debug, Args)]
pub(super) struct Probe {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// This hypervisor host: interfaces, routes, memory, load, clock
    Host {
        /// Also resolve this name as this host does; may be repeated
        #[arg(long, value_name = "NAME")]
        resolve: Vec<String>,
    },
    /// The guest this runs in: kernel settings, sockets, processes
    Guest,
}

impl Probe {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        match &self.what {
            What::Host { resolve } => print(&probe::host::look(resolve)),
            What::Guest => print(&probe::guest::look()),
        }
    }
}

fn print(seen: &impl Serialize) -> Result<ExitCode, Failure> {
    let text = serde_json::to_string(seen).map_err(Failure::failed)?;
    output::to_stdout(|out| writeln!(out, "{text}"))?;
    Ok(ExitCode::Go)
}
