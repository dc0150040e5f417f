//! `vmgate probe`: what this host, or this guest, can tell of itself. Runs where the facts are; reads only.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, options::seconds, output};
use crate::{
    collect::probe::{self, flows, host::Questions, trace},
    fact::Fact,
    verdict::ExitCode,
};

#[derive(Debug, Args)]
pub(super) struct Probe {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// This hypervisor host: interfaces, routes, memory, load, clock; or, with --trace, how a VM dirties its memory
    Host {
        /// Also resolve this name as this host does
        #[arg(long, value_name = "NAME")]
        resolve: Option<String>,
        /// Also look at the QEMU process of the VM with this UUID
        #[arg(long, value_name = "UUID")]
        vm: Option<String>,
        /// Trace which pages of this VM change, and tell nothing else; needs root. Ends by itself when a migration, a
        /// snapshot or another measurement of the VM begins
        #[arg(long, value_name = "VM", conflicts_with_all = ["resolve", "vm"])]
        trace: Option<String>,
        /// How long to trace
        #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds, requires = "trace")]
        seconds: Duration,
        /// Most CPU time that tracing may take, by wall time
        #[arg(long, value_name = "RATIO", default_value = "0.05", value_parser = core_ratio, requires = "trace")]
        core_ratio: f64,
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
            What::Host { trace: Some(vm), seconds, core_ratio, .. } => {
                let options =
                    trace::Options { length: *seconds, core_ratio: *core_ratio, ..trace::Options::default() };
                print(&Fact::from(trace::of_vm(vm, &options)))
            }
            What::Host { resolve, vm, .. } => {
                print(&probe::host::look(&Questions { resolve: resolve.clone(), vm: vm.clone() }))
            }
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

/// A share of one core, up to half of it.
pub(super) fn core_ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.001..=0.5).contains(&ratio) => Ok(ratio),
        _ => Err("expected a share of a core from 0.001 to 0.5".to_owned()),
    }
}

fn print(seen: &impl Serialize) -> Result<ExitCode, Failure> {
    let text = serde_json::to_string(seen).map_err(Failure::failed)?;
    output::to_stdout(|out| writeln!(out, "{text}"))?;
    Ok(ExitCode::Go)
}
