//! `vmgate probe`: facts of the host or guest that it runs on. Reads only.

use std::{io, time::Duration};

use clap::{Args, Subcommand};
use vmgate_probe::{
    host::HostQuestions,
    wire::{self, Question},
};
use vmgate_verdict::ExitCode;

use super::{Failure, options::seconds, output};
use crate::report;
use vmgate_facts::Uuid;

#[derive(Debug, Args)]
pub(super) struct Probe {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, Subcommand)]
enum Subject {
    /// This hypervisor host: interfaces, routes, shapers, storage, firewall, certificates, memory, load, clock
    ///
    /// Reads only. What this user may not read is unknown, with the reason; the rest is printed. It needs: for the VM's
    /// process, root or QEMU's own user (ptrace access to /proc/PID/exe); for the firewall's chains, CAP_NET_ADMIN; for the
    /// migration ports and certificates, to read /etc/libvirt/qemu.conf and /etc/pki, which packages give to root alone.
    /// Everything else any user may read: /proc, /sys and the kernel's routes and qdiscs by netlink.
    Host {
        /// Also look at the QEMU process of the VM with this UUID; may be repeated
        #[arg(long = "vm", value_name = "UUID")]
        vms: Vec<Uuid>,
        /// Also look at this file or block device; may be repeated
        #[arg(long = "file", value_name = "PATH")]
        files: Vec<String>,
    },
    /// The guest this runs in: kernel settings, sockets, processes
    Guest {
        /// Also trace for this time which processes dirty memory; each page that they write next takes a page fault
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        attribute: Option<Duration>,
    },
    /// UDP flows on interfaces of VMs on this host; needs CAP_NET_RAW, and CAP_BPF for counting in the kernel
    Flows {
        /// Interfaces of the VM, as `virsh domiflist` names them
        #[arg(required = true, value_name = "IFACE")]
        interfaces: Vec<String>,
        /// Time to watch, in seconds
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
        seconds: Duration,
    },
    /// The pages of a VM's memory that change; needs root. Ends when a migration or another job of the VM begins
    Trace {
        /// The VM, by its UUID or name, or by its monitor (qmp:SOCKET)
        vm: String,
        /// Length of the trace
        #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
        seconds: Duration,
        /// Most CPU time that tracing may take, by wall time
        #[arg(long, value_name = "RATIO", default_value = "0.03", value_parser = core_ratio)]
        core_ratio: f64,
    },
    /// Answer the question in JSON on standard input, as the on-host program does: for an `exec` of vmgate.yaml
    Ask,
}

impl Probe {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        let question = match &self.subject {
            Subject::Host { vms, files } => Question::Host(HostQuestions {
                vms: vms.clone(),
                files: files.clone(),
                ..HostQuestions::default()
            }),
            Subject::Guest { attribute } => Question::Guest { attribute_seconds: *attribute },
            Subject::Flows { interfaces, seconds } => {
                Question::Flows { interfaces: interfaces.clone(), window_seconds: *seconds }
            }
            Subject::Trace { vm, seconds, core_ratio } => {
                Question::Trace { vm: vm.clone(), length_seconds: *seconds, core_ratio: *core_ratio }
            }
            Subject::Ask => {
                let mut reply = Vec::new();
                wire::serve(io::stdin(), &mut reply, env!("CARGO_PKG_VERSION")).map_err(Failure::usage)?;
                output::to_stdout_as_it_is(|out| out.write_all(&reply))?;
                return Ok(ExitCode::Go);
            }
        };
        let answer = question.answer().map_err(Failure::failed)?;
        output::to_stdout(|out| report::document_line(&answer, out))?;
        Ok(ExitCode::Go)
    }
}

/// Parses a share of one core, up to half of it.
pub(super) fn core_ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.001..=0.5).contains(&ratio) => Ok(ratio),
        _ => Err("expected a share of a core from 0.001 to 0.5".to_owned()),
    }
}
