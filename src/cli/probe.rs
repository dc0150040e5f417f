//! `vmgate probe`: what this host, or this guest, can tell of itself. Runs where the facts are; reads only.

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
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// This hypervisor host: interfaces, routes, shapers, storage, firewall, certificates, memory, load, clock
    ///
    /// Reads only; only --listen, --connect and --stream send packets. What it may not see is unknown with the reason, and
    /// the rest is told. It needs: for the VM's process, root or QEMU's own user (ptrace access to /proc/PID/exe); for the
    /// firewall's chains, CAP_NET_ADMIN; for pings, CAP_NET_RAW; for the migration ports and certificates, to read
    /// /etc/libvirt/qemu.conf and /etc/pki, which packages give to root alone. Everything else any user may read: /proc,
    /// /sys and the kernel's routes and qdiscs by netlink.
    #[command(verbatim_doc_comment)]
    Host(HostArguments),
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

#[derive(Debug, Args)]
struct HostArguments {
    /// Also resolve this name as this host does
    #[arg(long, value_name = "NAME")]
    resolve: Option<String>,
    /// Also look at the QEMU process of the VM with this UUID; may be repeated
    #[arg(long = "vm", value_name = "UUID")]
    vms: Vec<String>,
    /// Also look at this file or block device; may be repeated
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<String>,
    /// Where the migration would go: tell the route there; the first address of --resolve if not given
    #[arg(long, value_name = "ADDRESS")]
    route: Option<IpAddr>,
    /// Also look at the way to this address of the other host, and at what the interfaces carry
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<IpAddr>,
    /// How long the interfaces are watched
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, requires = "peer")]
    window: Duration,
    /// Listen there for one connection of the other host, and ping it
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen_address, requires = "peer")]
    listen: Option<SocketAddr>,
    /// Connect to this port of the other host, and ping it
    #[arg(long, value_name = "PORT", requires = "peer", conflicts_with = "listen")]
    connect: Option<u16>,
    /// Send or take a stream of at most so many bytes a second
    #[arg(long, value_name = "BYTES", requires = "peer", value_parser = clap::value_parser!(u64).range(1..))]
    stream: Option<u64>,
    /// How long the stream lasts, at most 30
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds, requires = "stream")]
    stream_seconds: Duration,
    /// Trace which pages of this VM change, and tell nothing else; needs root. Ends by itself when a migration, a
    /// snapshot or another measurement of the VM begins
    #[arg(long, value_name = "VM", conflicts_with_all = ["resolve", "vms", "files", "route", "peer"])]
    trace: Option<String>,
    /// How long to trace
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds, requires = "trace")]
    seconds: Duration,
    /// Most CPU time that tracing may take, by wall time
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
        match &self.what {
            What::Host(arguments) => match &arguments.trace {
                Some(vm) => {
                    let (length, core_ratio) = (arguments.seconds, arguments.core_ratio);
                    let options =
                        trace::TraceOptions { length, core_ratio, ..trace::TraceOptions::default() };
                    print(&Fact::from(trace::of_vm(vm, &options)))
                }
                None => print(&probe::host::look(&arguments.questions())),
            },
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
