//! Facts about the guest, read from inside it through any [`GuestReader`].

pub mod ask;
mod clock;
mod dirty_writers;
mod kernel_bypass;
mod local;
mod machine;
mod memory;
mod multicast;
mod neighbour;
mod process;
mod redact;
mod sctp;
mod socket;
mod software;
mod sysctl;
mod tcp;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

pub use dirty_writers::dirty_writers;
pub use local::LocalGuest;
pub use process::{KernelUnits, RawProcess};
pub use software::recognised_software;
pub use tcp::KernelSockets;
use vmgate_facts::{Cause, Fact, Guest, Sctp, Tcp, Udp, Unknown, text::plain_bytes};

use crate::guest::ask::{Answers, Question};

/// Most bytes taken of one file of the guest: room for [`MOST_SOCKETS`] lines of 150 bytes.
pub const FILE_LIMIT: usize = 4 << 20;
/// Most bytes taken from one guest in all.
pub const TOTAL_LIMIT: usize = 16 << 20;
/// Most sockets of one table; a longer table is not judged at all, since its rest would go unseen.
pub const MOST_SOCKETS: usize = 20_000;
/// Most processes; as for sockets.
pub const MOST_PROCESSES: usize = 20_000;

/// Every file that [`look`] reads, for access paths that fetch all of them at once.
pub const FILES: &[&str] = &[
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/osrelease",
    "/proc/self/auxv",
    "/proc/sys/net/ipv4/tcp_retries1",
    "/proc/sys/net/ipv4/tcp_retries2",
    "/proc/sys/net/ipv4/tcp_syn_retries",
    "/proc/sys/net/ipv4/tcp_synack_retries",
    "/proc/sys/net/ipv4/tcp_syn_linear_timeouts",
    "/proc/sys/net/ipv4/tcp_orphan_retries",
    "/proc/sys/net/ipv4/tcp_early_retrans",
    "/proc/sys/net/ipv4/tcp_rto_min_us",
    "/proc/sys/net/ipv4/tcp_rto_max_ms",
    "/proc/sys/net/ipv4/tcp_keepalive_time",
    "/proc/sys/net/ipv4/tcp_keepalive_intvl",
    "/proc/sys/net/ipv4/tcp_keepalive_probes",
    "/proc/net/tcp",
    "/proc/net/tcp6",
    "/proc/net/udp",
    "/proc/net/udp6",
    neighbour::ARP,
    multicast::V4,
    multicast::V6,
    "/proc/net/sctp/assocs",
    "/proc/net/sctp/remaddr",
    "/proc/sys/net/sctp/rto_initial",
    "/proc/sys/net/sctp/rto_min",
    "/proc/sys/net/sctp/rto_max",
    "/proc/sys/net/sctp/hb_interval",
    "/proc/sys/net/sctp/path_max_retrans",
    "/proc/sys/net/sctp/association_max_retrans",
    memory::FILES[0],
    memory::FILES[1],
    memory::FILES[2],
    memory::FILES[3],
];

/// Access to a guest's files and processes. Implementations bound what they read and say why a read failed.
pub trait GuestReader {
    /// The whole text of a file under /proc or /sys, at most [`FILE_LIMIT`] bytes.
    fn read(&self, path: &str) -> Result<Vec<u8>, Unknown>;

    /// Beginning of the reading of [`FILES`], for access paths that fetched all of them at once; else now.
    fn began_at(&self) -> Instant {
        Instant::now()
    }

    /// The processes, each with its open sockets.
    fn processes(&self) -> Result<Vec<RawProcess>, Unknown>;

    /// TCP sockets as the guest's kernel reports them over netlink; only a probe that runs in the guest can ask.
    fn kernel_sockets(&self) -> Result<KernelSockets, Unknown> {
        Err(tcp::needs_guest_probe())
    }

    /// Facts known without reading a file; for a guest without /proc, the only facts.
    fn hints(&self) -> GuestHints {
        GuestHints::default()
    }

    /// Answers further questions, in one round trip if possible; see [`ask`].
    fn ask(&self, questions: &BTreeSet<Question>) -> Answers {
        let answer = |question: &Question| match question {
            Question::File(path) => self.read(path.as_str()),
            Question::Command(command) => Err(Unknown::new(
                Cause::NotSupported,
                format!("vmgate cannot run a command in the guest over this connection: {command}"),
            )),
        };
        questions.iter().map(|question| (question.clone(), answer(question))).collect()
    }
}

/// Facts about a guest that its access path (guest agent, this machine) knows without reading a file.
#[derive(Debug, Clone, Default)]
pub struct GuestHints {
    /// Name of the operating system, as the guest reports it.
    pub os: Fact<String>,
    /// The guest's own host name.
    pub hostname: Fact<String>,
    /// Kernel release.
    pub kernel_release: Fact<String>,
    /// IP addresses.
    pub addresses: Fact<Vec<String>>,
}

/// Text of a table under /proc/net, with its path for errors.
struct Table<'a> {
    path: &'a str,
    text: Vec<u8>,
}

/// Reads all facts of a [`Guest`], each on its own: one unreadable file leaves the other facts known.
///
/// Not set here, derived later: the budget of a connection, the service of a UDP socket and the software recognised
/// from the catalogue.
pub fn look(reader: &dyn GuestReader) -> Guest {
    let processes = reader.processes();
    let owners = processes.as_ref().map(|processes| Owners::of(processes)).map_err(Clone::clone);
    let page_bytes = reader.read("/proc/self/auxv").ok().and_then(|auxv| process::page_bytes(&auxv));
    let units = KernelUnits { page_bytes: page_bytes.unwrap_or(4096) };
    let hints = reader.hints();
    let line = |path: &str, hints: Fact<String>| match reader.read(path) {
        Ok(text) => Fact::Known(plain_bytes(&text)),
        Err(why) => hints.known().cloned().map_or(Fact::Unknown(why), Fact::Known),
    };
    let tcp =
        tables(reader, ["/proc/net/tcp", "/proc/net/tcp6"]).and_then(|tables| socket::tcp(&tables, &owners));
    let (connections, listeners) = match tcp {
        Ok((mut connections, listeners)) => {
            tcp::refine(&mut connections, reader.kernel_sockets());
            (Fact::Known(connections), Fact::Known(listeners))
        }
        Err(why) => (Fact::Unknown(why.clone()), Fact::Unknown(why)),
    };
    let sockets =
        tables(reader, ["/proc/net/udp", "/proc/net/udp6"]).and_then(|tables| socket::udp(&tables, &owners));
    let memory = memory::FirstSample::take(reader);
    let members = software::ClusterMembers::find(reader, &processes);
    let processes: Fact<_> = processes.and_then(|processes| process::facts(&processes, units)).into();
    let about_members = members.iter().flat_map(software::ClusterMembers::questions);
    let others = kernel_bypass::questions().chain(clock::questions()).chain(machine::questions());
    let answers = reader.ask(&about_members.chain(others).collect());
    Guest {
        hostname: line("/proc/sys/kernel/hostname", hints.hostname),
        kernel_release: line("/proc/sys/kernel/osrelease", hints.kernel_release),
        os: hints.os,
        addresses: hints.addresses,
        sysctl: Fact::Known(sysctl::look(reader)),
        tcp: Fact::Known(Tcp { connections, listeners, peers: not_asked() }),
        sctp: Fact::Known(Sctp { associations: sctp::look(reader).into() }),
        udp: Fact::Known(Udp { sockets: sockets.into(), ..Udp::default() }),
        multicast_groups: multicast::look(reader).into(),
        neighbours: neighbour::look(reader).into(),
        memory_sync: Fact::default(),
        kernel_bypass: Fact::Known(kernel_bypass::facts(&answers, &processes)),
        clock: Fact::Known(clock::facts(&answers, &processes)),
        machine: Fact::Known(machine::facts(&answers)),
        detectors: Fact::from(members).and_then(|members| members.detectors(reader, answers)),
        dirty_writers: Fact::unknown(
            Cause::NotAllowed,
            "not measured: needs --attribute (which slows the guest's writes) and --guest ssh://… or exec",
        ),
        processes,
        wire: Fact::unknown(Cause::NotCollected, "the wire is read on the host"),
        control_sessions: Fact::unknown(Cause::NotCollected, "the wire is read on the host"),
        // Last, so that all other reads fill the time between its two samples.
        memory: Fact::Known(memory.take_second(reader, units.page_bytes)),
    }
}

fn not_asked<T>() -> Fact<T> {
    Fact::unknown(
        Cause::NotAllowed,
        "the peers were not asked: --ask-peers allows this, and libvirt then marks the peers' VMs as tainted",
    )
}

/// The IPv4 and IPv6 tables of a protocol. A kernel without IPv6 lacks the second one, which is no error.
fn tables<'a>(reader: &dyn GuestReader, [v4, v6]: [&'a str; 2]) -> Result<Vec<Table<'a>>, Unknown> {
    let mut tables = vec![Table { path: v4, text: reader.read(v4)? }];
    match reader.read(v6) {
        Ok(text) => tables.push(Table { path: v6, text }),
        Err(why) if why.cause == Cause::NotSupported => {}
        Err(why) => return Err(why),
    }
    Ok(tables)
}

/// Names of the processes that hold each socket, by the socket's inode.
struct Owners {
    names: BTreeMap<u64, String>,
    /// True if the sockets of every process were readable.
    complete: bool,
}

impl Owners {
    fn of(processes: &[RawProcess]) -> Self {
        let mut names = BTreeMap::new();
        for process in processes {
            for &inode in process.sockets.iter().flatten() {
                // Several processes may share a socket, for example a server and its workers: the first is the eldest.
                names.entry(inode).or_insert_with(|| process.name());
            }
        }
        Self { names, complete: processes.iter().all(|process| process.sockets.is_some()) }
    }

    /// Name of the owner of a socket; known to be none if no process holds it, so that only the kernel is left.
    fn name(owners: &Result<Self, Unknown>, inode: u64) -> Fact<Option<String>> {
        let owners = match owners {
            Ok(owners) => owners,
            Err(why) => return Fact::Unknown(why.clone()),
        };
        match owners.names.get(&inode) {
            Some(name) => Fact::Known(Some(name.clone())),
            None if owners.complete => Fact::Known(None),
            None => Fact::unknown(
                Cause::PermissionDenied,
                "only root sees the sockets of every process in the guest",
            ),
        }
    }
}

/// Parses the kernel's answer about TCP sockets and routes.
#[cfg(feature = "fuzzing")]
pub fn fuzz_netlink(datagram: &[u8]) {
    tcp::fuzz(datagram);
}

/// The unknown of a text that could not be parsed.
fn malformed(path: &str, why: &str) -> Unknown {
    Unknown::new(Cause::Malformed, format!("{path} in the guest: {why}"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// This machine as a guest, which remembers the names of the files that it was asked for.
    #[derive(Default)]
    struct Recorder(RefCell<BTreeSet<String>>);

    impl GuestReader for Recorder {
        fn read(&self, path: &str) -> Result<Vec<u8>, Unknown> {
            self.0.borrow_mut().insert(path.to_owned());
            // A file that this machine lacks is empty, so that its readers go on.
            Ok(std::fs::read(path).unwrap_or_default())
        }

        fn processes(&self) -> Result<Vec<RawProcess>, Unknown> {
            Ok(Vec::new())
        }

        /// Questions that follow are asked one by one, by every access path.
        fn ask(&self, _: &BTreeSet<Question>) -> Answers {
            Answers::new()
        }
    }

    #[test]
    fn every_file_that_is_read_is_in_the_list_that_is_fetched_at_once() {
        let guest = Recorder::default();
        look(&guest);
        let read = guest.0.into_inner();
        let forgotten: Vec<&String> = read.iter().filter(|path| !FILES.contains(&path.as_str())).collect();
        assert!(forgotten.is_empty(), "read and not in FILES: {forgotten:?}");
        assert!(read.len() > 20, "only {} are read", read.len());
    }
}
