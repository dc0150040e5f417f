//! `vmgate probe`: what this host, or this guest, can tell of itself. Runs where the facts are; reads only.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, output};
use crate::{
    collect::probe::{self, host::Questions},
    verdict::ExitCode,
};

#[derive(Debug, Args)]
pub(super) struct Probe {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// This hypervisor host: interfaces, routes, memory, load, clock
    Host {
        /// Also resolve this name as this host does
        #[arg(long, value_name = "NAME")]
        resolve: Option<String>,
        /// Also look at the QEMU process of the VM with this UUID
        #[arg(long, value_name = "UUID")]
        vm: Option<String>,
    },
    /// The guest this runs in: kernel settings, sockets, processes
    Guest,
}

impl Probe {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        match &self.what {
            What::Host { resolve, vm } => {
                print(&probe::host::look(&Questions { resolve: resolve.clone(), vm: vm.clone() }))
            }
            What::Guest => print(&probe::guest::look(&probe::guest::LocalGuest)),
        }
    }
}

fn print(seen: &impl Serialize) -> Result<ExitCode, Failure> {
    let text = serde_json::to_string(seen).map_err(Failure::failed)?;
    output::to_stdout(|out| writeln!(out, "{text}"))?;
    Ok(ExitCode::Go)
}
