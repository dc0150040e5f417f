//! Options that several commands share.

#[cfg(feature = "libvirt")]
use std::net::IpAddr;
use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
#[cfg(feature = "libvirt")]
use vmgate_collect::{CollectRequest, SharedWork, TryPath, guest_probe::GuestAccess, transport::Transport};
use vmgate_documents::closest;
use vmgate_facts::Change;
#[cfg(feature = "libvirt")]
use vmgate_facts::{Cause, Unknown, Uri};
use vmgate_ledger::LedgerUrl;
#[cfg(feature = "libvirt")]
use vmgate_probe::host::trial::{LONGEST_STREAM, Stream};
use vmgate_rules::Catalogues;

use super::Failure;
#[cfg(feature = "libvirt")]
use super::{session::Session, site::ANY};

/// Options that every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct GlobalOptions {
    /// Configuration file; vmgate.yaml in the current folder is read if it is there
    #[arg(long, global = true, value_name = "FILE", env = "VMGATE_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// Folder with additional rules; may be repeated
    #[arg(long, global = true, value_name = "DIR")]
    pub rules: Vec<PathBuf>,
    /// Do not load the built-in rules
    #[arg(long, global = true)]
    pub no_builtin_rules: bool,
    /// Named set of rule parameters: standard, strict or realtime
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// File of waivers to apply to the outcomes
    #[arg(long, global = true, value_name = "FILE")]
    pub waivers: Option<PathBuf>,
    /// Ledger of checks and moves: an SQLite file, which is created if it does not exist, or
    /// postgres://USER@HOST:PORT/NAME, which runners on several machines can share
    #[arg(
        long,
        visible_alias = "store",
        global = true,
        value_name = "PLACE",
        env = "VMGATE_LEDGER",
        hide_env_values = true
    )]
    pub ledger: Option<LedgerUrl>,
    /// Longest wait for one answer of a host or guest, in seconds
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Print more: passed rules in the report, progress on stderr
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Print only the report and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Format of the log and of messages on stderr
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Use of colour; NO_COLOR is obeyed too
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColourChoice::Auto)]
    pub color: ColourChoice,
}

/// Time of an evaluation, for commands that look. A command that acts has no such option, and no other way to be given a
/// time: it uses the machine's clock.
#[derive(Debug, Args)]
pub(super) struct EvaluationTime {
    /// Time to evaluate at, such as 2026-11-23T22:00:00Z, to see what would be: the verdict is simulated and permits nothing
    /// [default: the present]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
}

/// Parses a time of the command line.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "write it as 2026-11-23T22:00:00Z".to_owned())
}

impl EvaluationTime {
    /// The time that was given, else that of the machine's clock.
    pub(super) fn now(&self) -> Timestamp {
        self.at.unwrap_or_else(Timestamp::now)
    }

    /// True if the time was given.
    pub(super) fn is_simulated(&self) -> bool {
        self.at.is_some()
    }
}

/// Format of the log and of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people
    Text,
    /// A JSON object a line
    Json,
}

/// Use of colour on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ColourChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Options of a single move: its hosts, the way into its guest, and the measurements to make.
#[cfg(feature = "libvirt")]
#[derive(Debug, Args)]
pub(super) struct MoveOptions {
    #[command(flatten)]
    pub hosts: MoveHosts,
    #[command(flatten)]
    pub measurements: Measurements,
}

/// Hosts of a single move, and the way into its guest.
#[cfg(feature = "libvirt")]
#[derive(Debug, Args)]
pub(super) struct MoveHosts {
    /// Source: the host that the VM runs on, by its name in vmgate.yaml or the inventory, as ssh takes it (hv1, root@hv1), or by a
    /// libvirt URI [default: the host of the site that runs the VM, which is found out]
    #[arg(long, value_name = "HOST")]
    pub from: Option<String>,
    /// Destination, in the same ways
    #[arg(long, value_name = "HOST")]
    pub to: Option<String>,
    /// Address at the destination for the migration traffic [default: as vmgate.yaml or the inventory says, else
    /// libvirt's choice]
    #[arg(long, value_name = "ADDRESS")]
    pub migrate_address: Option<IpAddr>,
    /// Access to the guest: agent, ssh://USER@HOST[:PORT], exec (the command that vmgate.yaml names for this
    /// VM), ssh (the address named there), wire (only the headers of its packets on the source host, for guests that let
    /// nobody in) or none [default: as vmgate.yaml says for this VM, else agent].
    /// libvirt marks a domain as tainted (custom-ga-command) when its guest agent is asked; wire, none, ssh and exec
    /// leave it unmarked, and with none nobody looks into the guest
    #[arg(long, value_name = "WAY")]
    pub guest: Option<String>,
}

/// Measurements and questions of a check.
#[cfg(feature = "libvirt")]
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // flags of a command line
pub(super) struct Measurements {
    /// Duration of the trace of the guest's dirty pages on the source host, in whole seconds; longer is better, up to the
    /// duration of the migration. It takes at most 3 % of a core there. If a trace is not possible (no root, encrypted
    /// memory), QEMU's page sampling in several windows is used instead; 0 asks for that
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=30))]
    pub trace_seconds: u32,
    /// Time to watch the guest's packets on the source host, in whole seconds, and the shortest window of page
    /// sampling if there is no trace [default: 1, with --guest wire 10]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=60))]
    pub dirty_window: Option<u32>,
    /// Also measure which processes of the guest dirty its memory, over ssh as root. This has a cost: every page that the
    /// guest's processes write next takes one fault of about a microsecond, and a CRIU dump that runs in the guest is
    /// disturbed
    #[arg(long)]
    pub attribute: bool,
    /// Also test the migration path. For a moment the destination listens on a free migration port, to which the source
    /// connects, and both send a few pings that may not be fragmented; this proves ports, MTU and round-trip time
    #[arg(long)]
    pub probe_path: bool,
    /// Also measure the goodput of one TCP stream between the migration addresses, at no more than this rate and at most
    /// half of the link if others use it, nine tenths if none do; implies --probe-path. Refused while a migration
    /// or backup runs on either host
    #[arg(long, value_name = "MIB_PER_S", value_parser = clap::value_parser!(u64).range(1..1_000_000))]
    pub measure_goodput: Option<u64>,
    /// Duration of that stream, in seconds, at most 30
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds, requires = "measure_goodput")]
    pub measure_seconds: Duration,
    /// Also ask the VMs on both hosts that are peers of a TCP connection, through their guest agents, how long
    /// they tolerate silence: during the blackout their settings decide. libvirt then marks those VMs as tainted
    #[arg(long)]
    pub ask_peers: bool,
    /// Also ask QEMU's monitor for its reasons against a migration, and for the queues of virtio devices. libvirt then
    /// marks the domain as tainted (custom-monitor) until the VM ends or has moved
    #[arg(long)]
    pub allow_monitor: bool,
}

#[cfg(feature = "libvirt")]
impl MoveHosts {
    /// Source and destination of a move. The source is asked for where it was not given.
    fn uris(&self, vm: &str, session: &Session) -> Result<(Uri, Option<Uri>), Failure> {
        if self.to.as_deref() == Some(ANY) {
            return Err(Failure::usage(
                "--to any is for `vmgate check`, which names the best destination: give that one with --to HOST",
            ));
        }
        let to = self.to.as_deref().map(|to| session.host_named(to)).transpose()?;
        Ok((self.source(vm, session)?, to))
    }

    /// Begins the logins at the hosts that are named: rules are read meanwhile.
    pub(super) fn begin_logins(&self, session: &Session) {
        let from = self.from.as_deref().and_then(|from| session.host_named(from).ok());
        let to = self.to.as_deref().and_then(|to| session.destinations(to).ok());
        for uri in from.into_iter().chain(to.filter(|hosts| hosts.len() == 1).into_iter().flatten()) {
            if let Ok(way) = session.way(&uri) {
                way.begin();
            }
        }
    }

    /// Source of a move: as given, else the host that runs the VM.
    pub(super) fn source(&self, vm: &str, session: &Session) -> Result<Uri, Failure> {
        match &self.from {
            Some(from) => session.host_named(from),
            None => session.source_of(vm),
        }
    }
}

#[cfg(feature = "libvirt")]
impl MoveOptions {
    /// Request to collect the facts of this move; without a destination those of the VM where it runs.
    pub(super) fn request(
        &self,
        vm: &str,
        change: Change,
        session: &Session,
    ) -> Result<CollectRequest, Failure> {
        self.request_between(self.hosts.uris(vm, session)?, vm, change, session)
    }

    /// Request to collect the facts of a move between these hosts.
    pub(super) fn request_between(
        &self,
        hosts: (Uri, Option<Uri>),
        vm: &str,
        change: Change,
        session: &Session,
    ) -> Result<CollectRequest, Failure> {
        let guest = session.guest_access(vm, self.hosts.guest.as_deref())?;
        let address = match (self.hosts.migrate_address, &hosts.1) {
            (None, Some(to)) => session.migrate_address(to)?,
            (given, _) => given,
        };
        let vm = session.vm_at(&hosts.0, vm)?;
        self.measurements.request(hosts, &vm, guest, address, change, session)
    }
}

#[cfg(feature = "libvirt")]
impl Measurements {
    /// Collection request for a move between these hosts.
    pub(super) fn request(
        &self,
        (from, to): (Uri, Option<Uri>),
        vm: &str,
        guest_access: GuestAccess,
        migrate_address: Option<IpAddr>,
        change: Change,
        session: &Session,
    ) -> Result<CollectRequest, Failure> {
        // Alone, the wire is watched for as long as machines take that say something to each other every few seconds.
        let window = if guest_access == GuestAccess::Wire { 10 } else { 1 };
        Ok(CollectRequest {
            vm: vm.to_owned(),
            source_probe: session.way(&from)?,
            destination_probe: match &to {
                Some(to) => session.way(to)?,
                None => Transport::None(Unknown::new(Cause::NoDestination, "no destination was named")),
            },
            attribute: self.attribute,
            try_path: self.try_path(),
            ask_peers: self.ask_peers,
            allow_monitor: self.allow_monitor,
            planned: Vec::new(),
            managers: session.manager_questions()?,
            maintenance: to.as_ref().map(|to| session.maintenance(to)).transpose()?.flatten(),
            guest_access,
            from,
            to,
            migrate_address: migrate_address.map(|address| address.to_string()),
            timeout: session.timeout(),
            trace_seconds: self.trace_seconds,
            dirty_window_seconds: self.dirty_window.unwrap_or(window),
            change,
            shared: SharedWork::default(),
        })
    }

    fn try_path(&self) -> TryPath {
        match self.measure_goodput {
            Some(mebibytes) => TryPath::Stream(Stream {
                cap_bytes_per_second: mebibytes << 20,
                length: self.measure_seconds.min(LONGEST_STREAM),
            }),
            None if self.probe_path => TryPath::Connect,
            None => TryPath::No,
        }
    }
}

/// Goals and limits of a move.
#[derive(Debug, Args)]
pub(super) struct Goals {
    /// Id of the change that the move belongs to
    #[arg(long, value_name = "ID")]
    pub change_id: Option<String>,
    /// Longest acceptable blackout of the guest, in seconds [default: 0.3]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub longest_blackout: Option<f64>,
    /// Dark time that you measured on the guest's network, in seconds: from the guest's start at the destination until its
    /// network reaches it [default: derived from the hosts' bridges]
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub network_dark: Option<f64>,
    /// Longest acceptable duration of the migration, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub deadline: Option<f64>,
    /// Limit on the migration traffic, in MiB/s
    #[arg(long, value_name = "MIB_PER_S", value_parser = clap::value_parser!(u64).range(1..1_000_000))]
    pub bandwidth_limit: Option<u64>,
    /// Judge and forecast the migration that this manager of VMs would run, by its own settings: nova, ovirt, kubevirt, cloudstack,
    /// opennebula, pacemaker, proxmox or ganeti, or the id of one in a catalogue of yours
    #[arg(long = "as", value_name = "MANAGER", conflicts_with = "bandwidth_limit")]
    pub run_by: Option<String>,
    /// This move is a rehearsal for a pair of hypervisor versions, on a VM that may be lost: it needs no earlier rehearsal
    #[arg(long)]
    pub rehearsal: bool,
}

impl Goals {
    /// The goals, if the manager that they name is one of the catalogues.
    pub(super) fn checked(&self, catalogues: &Catalogues) -> Result<&Self, Failure> {
        let known = || catalogues.managers().iter().map(|entry| entry.id.as_str());
        match &self.run_by {
            Some(id) if !known().any(|one| one == id) => Err(Failure::usage(match closest(id, known()) {
                Some(like) => format!("--as {id}: there is no such manager; did you mean `{like}`?"),
                None => format!(
                    "--as {id}: there is no such manager; known are {}",
                    known().collect::<Vec<_>>().join(", ")
                ),
            })),
            _ => Ok(self),
        }
    }

    /// Replaces the goals in `change` by those that were given.
    pub(super) fn over(&self, change: Change) -> Change {
        Change {
            id: self.change_id.clone().or(change.id),
            longest_blackout_seconds: self.longest_blackout.unwrap_or(change.longest_blackout_seconds),
            network_dark_seconds: self.network_dark.or(change.network_dark_seconds),
            deadline_seconds: self.deadline.or(change.deadline_seconds),
            bandwidth_limit_bytes_per_second: self
                .bandwidth_limit
                .map(|mebibytes| mebibytes << 20)
                .or(change.bandwidth_limit_bytes_per_second),
            run_by: self.run_by.clone().or(change.run_by),
            rehearsal: self.rehearsal || change.rehearsal,
            ..change
        }
    }
}

/// A positive, finite number.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("expected a number above 0, in seconds".to_owned()),
    }
}

/// A duration of at least 10 ms and at most one day.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match positive(text) {
        Ok(number) if (0.01..=86_400.0).contains(&number) => Ok(Duration::from_secs_f64(number)),
        _ => Err("expected a number of seconds from 0.01 to 86400".to_owned()),
    }
}
