//! `vmgate probe`: what this host, or this guest, can tell of itself. Runs where the facts are; reads only.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, options::seconds, output};
use crate::{
    collect::probe::{self, flows, host::Questions},
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
        /// Also look at the QEMU process of the VM with this UUID; may be repeated
        #[arg(long = "vm", value_name = "UUID")]
        vms: Vec<String>,
        /// Also look at this file or block device; may be repeated
        #[arg(long = "file", value_name = "PATH")]
        files: Vec<String>,
    },
    /// The guest this runs in: kernel settings, sockets, processes
    Guest {
        /// Also trace for so long which processes dirty memory; each page that they write next costs a fault
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        attribute: Option<Duration>,
    },
    /// The UDP flows on interfaces of VMs on this host; needs CAP_NET_RAW, and CAP_BPF to let the kernel count
    Flows {
        /// The VM's interfaces, as `virsh domiflist` names them
        #[arg(required = true, value_name = "IFACE")]
        interfaces: Vec<String>,
        /// How long to watch
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
        seconds: Duration,
    },
}

impl Probe {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        match &self.what {
            What::Host { resolve, vms, files } => print(&probe::host::look(&Questions {
                resolve: resolve.clone(),
                vms: vms.clone(),
                files: files.clone(),
            })),
            What::Guest { attribute } => {
                let mut guest = probe::guest::look(&probe::guest::LocalGuest);
                if let Some(window) = attribute {
                    guest.dirty_writers = probe::guest::dirty_writers(*window).into();
                }
                print(&guest)
            }
            What::Flows { interfaces, seconds } => {
                print(&flows::probe(interfaces, *seconds, &flows::Limits::default()))
            }
        }
    }
}

fn print(seen: &impl Serialize) -> Result<ExitCode, Failure> {
    let text = serde_json::to_string(seen).map_err(Failure::failed)?;
    output::to_stdout(|out| writeln!(out, "{text}"))?;
    Ok(ExitCode::Go)
}
