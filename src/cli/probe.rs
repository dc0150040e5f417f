//! `vmgate probe`: facts of the host or guest that it runs on. Reads only.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, options::seconds, output};
use crate::{
    collect::probe::{
        self, flows,
        host::{
            HostQuestions, PeerQuestions, listen_address,
            trial::{LONGEST_STREAM, Role, Stream, Trial},
        },
        trace,
    },
    fact::Fact,
    verdict::ExitCode,
};

#[derive(Debug, Args)]
pub(super) struct Probe {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// This hypervisor host: interfaces, routes, shapers, storage, firewall, certificates, memory, load, clock
    ///
    /// Reads only; only --listen, --connect and --stream send packets. Facts that it may not read are unknown with the reason, and
    /// the others are printed. It needs: for the VM's process, root or QEMU's own user (ptrace access to /proc/PID/exe); for the
    /// firewall's chains, CAP_NET_ADMIN; for pings, CAP_NET_RAW; for the migration ports and certificates, read access to
    /// /etc/libvirt/qemu.conf and /etc/pki, which distributions give to root alone. Any user may read the rest: /proc,
    /// /sys and the kernel's routes and qdiscs by netlink.
    #[command(verbatim_doc_comment)]
    Host(HostArguments),
    /// This guest: kernel settings, sockets, processes
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
}

#[derive(Debug, Args)]
struct HostArguments {
    /// Also resolve this name with the resolver of this host
    #[arg(long, value_name = "NAME")]
    resolve: Option<String>,
    /// Also look at the QEMU process of the VM with this UUID; may be repeated
    #[arg(long = "vm", value_name = "UUID")]
    vms: Vec<String>,
    /// Also look at this file or block device; may be repeated
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<String>,
    /// Destination address of a migration: print the route to it; the first address of --resolve if not given
    #[arg(long, value_name = "ADDRESS")]
    route: Option<IpAddr>,
    /// Also look at the path to this address of the other host, and at the traffic on the interfaces
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<IpAddr>,
    /// Time to watch the interfaces, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, requires = "peer")]
    window: Duration,
    /// Listen on this address for one connection of the other host, and ping that host
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address, requires = "peer")]
    listen: Option<SocketAddr>,
    /// Connect to this port of the other host, and ping that host
    #[arg(long, value_name = "PORT", requires = "peer", conflicts_with = "listen")]
    connect: Option<u16>,
    /// Send or receive a stream of at most this many bytes per second
    #[arg(long, value_name = "BYTES", requires = "peer", value_parser = clap::value_parser!(u64).range(1..))]
    stream: Option<u64>,
    /// Duration of the stream, in seconds, at most 30
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds, requires = "stream")]
    stream_seconds: Duration,
    /// Only trace which pages of this VM change; needs root. Ends by itself when a migration, a
    /// snapshot or another measurement of the VM begins
    #[arg(long, value_name = "VM", conflicts_with_all = ["resolve", "vms", "files", "route", "peer"])]
    trace: Option<String>,
    /// Duration of the trace, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds, requires = "trace")]
    seconds: Duration,
    /// Limit on the CPU time of the trace, as a share of a core
    #[arg(long, value_name = "RATIO", default_value = "0.05", value_parser = core_ratio, requires = "trace")]
    core_ratio: f64,
}

impl HostArguments {
    fn questions(&self) -> HostQuestions {
        let stream = self.stream.map(|cap_bytes_per_second| Stream {
            cap_bytes_per_second,
            length: self.stream_seconds.min(LONGEST_STREAM),
        });
        let role = self.listen.map(Role::Listen).or(self.connect.map(Role::Connect));
        let peer = self.peer.map(|address| PeerQuestions {
            address,
            window: self.window,
            trial: role.map(|role| Trial { role, stream }),
        });
        HostQuestions {
            resolve: self.resolve.clone(),
            vms: self.vms.clone(),
            files: self.files.clone(),
            route: self.route,
            peer,
        }
    }
}

impl Probe {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        match &self.action {
            Action::Host(arguments) => match &arguments.trace {
                Some(vm) => {
                    let (length, core_ratio) = (arguments.seconds, arguments.core_ratio);
                    let options =
                        trace::TraceOptions { length, core_ratio, ..trace::TraceOptions::default() };
                    print(&Fact::from(trace::of_vm(vm, &options)))
                }
                None => print(&probe::host::look(&arguments.questions())),
            },
            Action::Guest { attribute } => {
                let mut guest = probe::guest::look(&probe::guest::LocalGuest);
                if let Some(window) = attribute {
                    guest.dirty_writers = probe::guest::dirty_writers(*window).into();
                }
                print(&guest)
            }
            Action::Flows { interfaces, seconds } => {
                print(&flows::probe(interfaces, *seconds, &flows::Limits::default()))
            }
        }
    }
}

/// Parses a share of one core, up to half of it.
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
