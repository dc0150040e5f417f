//! Facts from inside the guest: kernel settings, sockets, processes and the software recognised from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CollectionMethod, ControlSession, DecidedBy, Detector, Fact, GuestClock, GuestMachine, GuestMemory,
    KeepAlive, KernelBypass, MulticastGroup, Names, Sctp, TcpEvidence, TcpTimer, UdpCapture, Unknown, Wire,
};

/// The guest as seen from inside.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Guest {
    /// Host name of the guest.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST), example = &"web1")]
    pub hostname: Fact<String>,
    /// Operating system of the guest, as the system itself reports it. Of a Windows guest only name, release and
    /// addresses are known.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST), example = &"Debian GNU/Linux 12 (bookworm)")]
    pub os: Fact<String>,
    /// Addresses of its interfaces, none of the loopback.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST), example = vec!["10.0.0.5"])]
    pub addresses: Fact<Vec<String>>,
    /// Kernel release, as `uname -r` prints it.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST), example = &"6.1.0-32-cloud-amd64")]
    pub kernel_release: Fact<String>,
    /// Kernel settings that decide how long connections survive silence.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST))]
    pub sysctl: Fact<Sysctl>,
    /// TCP sockets. The kernel's own timers (inet-diag) by ssh and exec only.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST))]
    pub tcp: Fact<Tcp>,
    /// SCTP associations.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST))]
    pub sctp: Fact<Sctp>,
    /// UDP sockets and flows.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST))]
    pub udp: Fact<Udp>,
    /// Multicast groups that the guest has joined on any interface except loopback.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST))]
    pub multicast_groups: Fact<Vec<MulticastGroup>>,
    /// IPv4 neighbours whose hardware address is known.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST))]
    pub neighbours: Fact<Vec<Neighbour>>,
    /// Processes of the guest.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST_PROGRAMS))]
    pub processes: Fact<Vec<Process>>,
    /// Processes that dirty most memory, at most ten, the busiest first. Collected only with `--attribute`; over exec
    /// only if the configured command supports it.
    #[schemars(extend("x-learnt-by" = [CollectionMethod::Ssh, CollectionMethod::Exec]))]
    pub dirty_writers: Fact<Vec<DirtyWriter>>,
    /// Software that synchronises memory with other servers, recognised from the catalogue.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST_PROGRAMS))]
    pub memory_sync: Fact<Vec<MemorySync>>,
    /// Failure detectors as configured in the guest, one for each process, also of software that is in no catalogue.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST_PROGRAMS))]
    pub detectors: Fact<Vec<Detector>>,
    /// Memory of the guest: available, locked, shared, and allocation activity at present.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST))]
    pub memory: Fact<GuestMemory>,
    /// Devices and programs that bypass the guest's kernel.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST_PROGRAMS))]
    pub kernel_bypass: Fact<KernelBypass>,
    /// Clock source and time synchronisation of the guest.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST))]
    pub clock: Fact<GuestClock>,
    /// Parts of the machine that the guest uses: VMs of its own, watchdogs, hardware clocks.
    #[schemars(extend("x-learnt-by" = CollectionMethod::GUEST))]
    pub machine: Fact<GuestMachine>,
    /// Evidence from the packets at the host's side of the VM's interfaces, independent of the guest.
    #[schemars(extend("x-learnt-by" = [CollectionMethod::HostProbe]))]
    pub wire: Fact<Wire>,
    /// Sessions by which other machines watch the guest, with the silence that they tolerate. Derived from the packets; none
    /// where no packets could be watched but the guest's own account is known, since its software is judged by that.
    #[schemars(extend("x-learnt-by" = [CollectionMethod::HostProbe]))]
    pub control_sessions: Fact<Vec<ControlSession>>,
}

impl Guest {
    /// A guest with every fact unknown for the same reason.
    pub fn unknown(why: &Unknown) -> Self {
        Self {
            hostname: Fact::Unknown(why.clone()),
            os: Fact::Unknown(why.clone()),
            addresses: Fact::Unknown(why.clone()),
            kernel_release: Fact::Unknown(why.clone()),
            sysctl: Fact::Unknown(why.clone()),
            tcp: Fact::Unknown(why.clone()),
            sctp: Fact::Unknown(why.clone()),
            udp: Fact::Unknown(why.clone()),
            multicast_groups: Fact::Unknown(why.clone()),
            neighbours: Fact::Unknown(why.clone()),
            processes: Fact::Unknown(why.clone()),
            dirty_writers: Fact::Unknown(why.clone()),
            memory_sync: Fact::Unknown(why.clone()),
            detectors: Fact::Unknown(why.clone()),
            memory: Fact::Unknown(why.clone()),
            kernel_bypass: Fact::Unknown(why.clone()),
            clock: Fact::Unknown(why.clone()),
            machine: Fact::Unknown(why.clone()),
            wire: Fact::Unknown(why.clone()),
            control_sessions: Fact::Unknown(why.clone()),
        }
    }
}

/// Kernel settings under net.ipv4, which hold for IPv6 too (Linux, Documentation/networking/ip-sysctl).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Sysctl {
    /// Retransmissions after which the route is looked up again (net.ipv4.tcp_retries1).
    #[schemars(example = 3)]
    pub tcp_retries1: Fact<i64>,
    /// Retransmissions after which an established connection is given up (net.ipv4.tcp_retries2).
    #[schemars(example = 15)]
    pub tcp_retries2: Fact<i64>,
    /// Retransmissions of a SYN before a connect fails (net.ipv4.tcp_syn_retries).
    #[schemars(example = 6)]
    pub tcp_syn_retries: Fact<i64>,
    /// Retransmissions of a SYN-ACK before a half-open connection is dropped (net.ipv4.tcp_synack_retries).
    #[schemars(example = 5)]
    pub tcp_synack_retries: Fact<i64>,
    /// SYN retransmissions before their time-out doubles (net.ipv4.tcp_syn_linear_timeouts, Linux 6.5); absent in
    /// kernels without it.
    #[schemars(example = 4)]
    pub tcp_syn_linear_timeouts: Fact<Option<i64>>,
    /// Retransmissions for a closed socket that still has data to send (net.ipv4.tcp_orphan_retries); 0 stands for 8.
    #[schemars(example = 0)]
    pub tcp_orphan_retries: Fact<i64>,
    /// Tail loss probes: 3 or 4 for on (net.ipv4.tcp_early_retrans). A probe delays the first retransmission by one
    /// RTO.
    #[schemars(example = 3)]
    pub tcp_early_retrans: Fact<i64>,
    /// Least retransmission time-out (net.ipv4.tcp_rto_min_us, Linux 6.11); absent in kernels without it: 0.2 s.
    #[schemars(example = 0.2)]
    pub tcp_rto_min_seconds: Fact<Option<f64>>,
    /// Greatest retransmission time-out (net.ipv4.tcp_rto_max_ms, Linux 6.15); absent in kernels without it: 120 s.
    #[schemars(example = 120.0)]
    pub tcp_rto_max_seconds: Fact<Option<f64>>,
    /// Idle time before the first keepalive probe (net.ipv4.tcp_keepalive_time).
    #[schemars(example = 7200.0)]
    pub tcp_keepalive_time_seconds: Fact<f64>,
    /// Time between keepalive probes (net.ipv4.tcp_keepalive_intvl).
    #[schemars(example = 75.0)]
    pub tcp_keepalive_interval_seconds: Fact<f64>,
    /// Unanswered keepalive probes before the connection is dropped (net.ipv4.tcp_keepalive_probes).
    #[schemars(example = 9)]
    pub tcp_keepalive_probes: Fact<i64>,
}

/// TCP sockets of the guest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Tcp {
    /// Connections that carry data: every state but listening, time-wait and closed; none over loopback.
    pub connections: Fact<Vec<TcpConnection>>,
    /// Sockets that wait for connections.
    pub listeners: Fact<Vec<Listener>>,
    /// VMs on either host that are the other end of a connection, as their own guest agents report. Collected only with
    /// `--ask-peers`; found through the guest's IPv4 neighbours.
    pub peers: Fact<Vec<TcpPeer>>,
}

/// VM at the other end of TCP connections of the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TcpPeer {
    /// Name of the VM.
    #[schemars(example = &"db1")]
    pub vm: String,
    /// Kernel settings of that VM.
    pub sysctl: Fact<Sysctl>,
    /// Ends of the common connections at that VM.
    pub connections: Fact<Vec<TcpConnection>>,
}

/// Entry of the guest's neighbour table (ARP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Neighbour {
    /// IPv4 address of the neighbour.
    #[schemars(example = &"10.0.0.7")]
    pub address: String,
    /// Hardware (MAC) address of the neighbour.
    #[schemars(example = &"52:54:00:aa:bb:cc")]
    pub mac: String,
}

/// One TCP connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TcpConnection {
    /// Address and port at the guest.
    #[schemars(example = &"10.0.0.5:41822")]
    pub local: String,
    /// Address and port of the peer.
    #[schemars(example = &"10.0.0.7:5432")]
    pub remote: String,
    /// State of the connection.
    #[schemars(example = &"established")]
    pub state: TcpState,
    /// Retransmissions of the oldest unacknowledged data so far.
    #[schemars(example = 0)]
    pub retransmits: i64,
    /// Longest silence that this end certainly survives: up to its last retransmission before it gives up (Linux
    /// net/ipv4/tcp_timer.c). Assumes that data sent at the start of the silence is lost.
    #[schemars(example = 462.4)]
    pub budget_seconds: Fact<f64>,
    /// Time-out that the kernel's settings allow, counted from the first retransmission.
    #[schemars(example = 924.6)]
    #[serde(default)]
    pub gives_up_after_seconds: Fact<f64>,
    /// End of the connection, counted from the lost send: the first retransmission timer at or after
    /// gives_up_after_seconds.
    #[schemars(example = 940.1)]
    #[serde(default)]
    pub actual_end_seconds: Fact<f64>,
    /// Mechanism that ends the connection.
    #[schemars(example = &"retries2")]
    #[serde(default)]
    pub decided_by: Fact<DecidedBy>,
    /// Retransmission time-out (RTO) in force, including exponential backoff.
    #[schemars(example = 0.204)]
    #[serde(default)]
    pub rto_seconds: Fact<f64>,
    /// Least retransmission time-out of the route (`ip route … rto_min`); absent where the route sets none.
    #[schemars(example = 0.05)]
    #[serde(default)]
    pub rto_min_seconds: Fact<Option<f64>>,
    /// Number of times that the retransmission time-out has been doubled.
    #[schemars(example = 0)]
    #[serde(default)]
    pub backoff: Fact<i64>,
    /// True if data waits for an acknowledgement or to be sent.
    #[schemars(example = true)]
    #[serde(default)]
    pub unacknowledged: Fact<bool>,
    /// Running timer of the connection.
    #[schemars(example = &"retransmission")]
    #[serde(default)]
    pub timer: Fact<TcpTimer>,
    /// TCP_USER_TIMEOUT of the socket; absent where the program set none.
    #[schemars(example = 30.0)]
    #[serde(default)]
    pub user_timeout_seconds: Fact<Option<f64>>,
    /// Keepalive of the socket; absent where it is off.
    #[serde(default)]
    pub keepalive: Fact<Option<KeepAlive>>,
    /// Budget of the other end, whose timers run through the blackout; absent where the peer is no VM that was asked
    /// (guest.tcp.peers).
    #[schemars(example = 462.4)]
    #[serde(default)]
    pub peer_budget_seconds: Fact<Option<f64>>,
    /// Source of these figures.
    #[schemars(example = &"inet-diag")]
    #[serde(default)]
    pub evidence: TcpEvidence,
    /// Settings that the budget assumes because nobody could read them; absent where they were read.
    #[schemars(example = &"the defaults of Windows: 5 retransmissions, the first after 0.3 s")]
    #[serde(default)]
    pub assumed: Option<String>,
    /// Name of the process that owns the socket; absent where the kernel holds it.
    #[schemars(example = &"postgres", extend("x-learnt-by" = CollectionMethod::GUEST_PROGRAMS))]
    pub owner: Fact<Option<String>>,
}

impl TcpConnection {
    /// A connection with every other fact unknown.
    pub fn new(local: impl Into<String>, remote: impl Into<String>, state: TcpState) -> Self {
        Self {
            local: local.into(),
            remote: remote.into(),
            state,
            retransmits: 0,
            budget_seconds: Fact::default(),
            gives_up_after_seconds: Fact::default(),
            actual_end_seconds: Fact::default(),
            decided_by: Fact::default(),
            rto_seconds: Fact::default(),
            rto_min_seconds: Fact::default(),
            backoff: Fact::default(),
            unacknowledged: Fact::default(),
            timer: Fact::default(),
            user_timeout_seconds: Fact::default(),
            keepalive: Fact::default(),
            peer_budget_seconds: Fact::default(),
            evidence: TcpEvidence::default(),
            assumed: None,
            owner: Fact::default(),
        }
    }
}

/// States of a connection that carries data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TcpState {
    /// Open at both ends.
    Established,
    /// Being opened by this end: a SYN was sent.
    SynSent,
    /// Being opened by the peer: a SYN came and a SYN-ACK was sent.
    SynReceived,
    /// One of the closing states that still waits for the peer.
    Closing,
}

/// A socket that waits for connections or datagrams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Listener {
    /// Address and port that the socket is bound to.
    #[schemars(example = &"0.0.0.0:22")]
    pub local: String,
    /// Local port.
    #[schemars(example = 22)]
    pub port: u16,
    /// Name of the process that owns the socket; absent where the kernel holds it.
    #[schemars(example = &"sshd", extend("x-learnt-by" = CollectionMethod::GUEST_PROGRAMS))]
    pub owner: Fact<Option<String>>,
}

/// UDP sockets of the guest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Udp {
    /// UDP sockets of IPv4 and IPv6, without those bound to loopback.
    pub sockets: Fact<Vec<UdpSocket>>,
    /// UDP traffic as counted on the host's side of the VM's interfaces, independent of the guest.
    #[schemars(extend("x-learnt-by" = [CollectionMethod::HostProbe]))]
    pub flows: Fact<UdpCapture>,
}

/// One UDP socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct UdpSocket {
    /// Address and port at the guest.
    #[schemars(example = &"0.0.0.0:5405")]
    pub local: String,
    /// The local port.
    #[schemars(example = 5405)]
    pub port: u16,
    /// Address and port of the peer; absent where the socket is not connected to one.
    #[schemars(example = &"10.0.0.9:514")]
    pub remote: Option<String>,
    /// Datagrams that the kernel dropped because the socket's buffer was full.
    #[schemars(example = 0)]
    pub drops: Fact<i64>,
    /// Name of the process that owns the socket; absent where the kernel holds it.
    #[schemars(example = &"corosync", extend("x-learnt-by" = CollectionMethod::GUEST_PROGRAMS))]
    pub owner: Fact<Option<String>>,
    /// UDP service that the catalogue recognises by ports and process names; absent where the catalogue does not know
    /// it.
    pub service: Fact<Option<UdpService>>,
}

/// UDP service as the catalogue describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct UdpService {
    /// Id of the entry in the catalogue.
    #[schemars(example = &"syslog", extend("x-names" = Names::OWN))]
    pub id: String,
    /// Consequence of datagrams lost in the blackout.
    #[schemars(example = &"lost")]
    pub loss: LossTolerance,
    /// Explanation in one sentence.
    #[schemars(example = &"syslog over UDP never repeats a message")]
    pub why: String,
}

/// Reaction of a service to lost datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LossTolerance {
    /// The protocol repeats lost datagrams or does not need them: the loss does not matter.
    Repeats,
    /// Lost datagrams stay lost, and a user or a counter may notice.
    Lost,
    /// A failure detector counts missing datagrams: silence has consequences beyond the lost packets.
    Detector,
}

/// Process that dirties memory, by the kernel's soft-dirty bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DirtyWriter {
    /// Process id in the guest.
    #[schemars(example = 812)]
    pub pid: u32,
    /// Name of the process in the kernel (comm).
    #[schemars(example = &"postgres")]
    pub name: String,
    /// Memory that the process wrote to in the window, each page counted once, divided by the window's length. A huge
    /// page counts whole.
    #[schemars(example = 52_428_800_u64)]
    pub dirty_bytes_per_second: u64,
}

/// One process of the guest. Command lines are redacted before they are stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Process {
    /// Process id in the guest.
    #[schemars(example = 812)]
    pub pid: u32,
    /// Name of the process in the kernel (comm), at most 15 characters.
    #[schemars(example = &"corosync")]
    pub name: String,
    /// Command line with secrets replaced; empty for kernel threads.
    #[schemars(example = &"/usr/sbin/corosync -f")]
    pub command: String,
    /// Scheduler state letter, as in /proc/PID/stat.
    #[schemars(example = &"S", extend("x-names" = Names::PROCESS_STATES))]
    pub state: String,
    /// Resident memory.
    #[schemars(example = 52_428_800_u64)]
    pub resident_bytes: u64,
}

/// Software that synchronises memory or leases with other servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MemorySync {
    /// Id of the entry in the catalogue.
    #[schemars(example = &"corosync", extend("x-names" = Names::OWN))]
    pub id: String,
    /// Name of the software for display.
    #[schemars(example = &"Corosync")]
    pub title: String,
    /// Process by which the software was recognised.
    #[schemars(example = &"corosync (pid 812)")]
    pub seen: String,
    /// Time of silence after which the peers declare this member dead.
    #[schemars(example = 3.0)]
    pub detector_seconds: Fact<f64>,
    /// Source of that figure: a configuration file, or the vendor's default.
    #[schemars(example = &"vendor default (corosync.conf(5) token)", extend("x-names" = Names::OWN))]
    pub detector_source: String,
    /// Longest time between two packets that its peers wait for, as the wire shows it: the last one before the blackout may be
    /// that old. 0 where the wire does not tell. Derived.
    #[schemars(example = 1.0)]
    #[serde(default)]
    pub heartbeat_seconds: f64,
    /// Word of the vendor on moving an active member live.
    #[schemars(example = &"unsupported")]
    #[serde(default)]
    pub live_move: Fact<LiveMoveSupport>,
    /// Reason of that word; absent where the vendor says nothing.
    #[schemars(example = &"SUSE and Red Hat give no support for a live migration of an active member")]
    #[serde(default)]
    pub live_move_why: Option<String>,
    /// Sign that the others can do without this member now; empty where the catalogue names none.
    #[schemars(example = &"corosync-quorumtool -s shows Quorate: Yes")]
    #[serde(default)]
    pub ready: String,
    /// Command that takes the software out of service for the time of the move.
    #[schemars(example = &"systemctl stop corosync")]
    pub stop: String,
    /// Command that puts it back into service.
    #[schemars(example = &"systemctl start corosync")]
    #[serde(default)]
    pub start: String,
    /// Word of a change file (`prepare: [{take_out: …}]`) by which vmgate itself takes the software out for the time of a move and brings
    /// it back; absent where only people can.
    #[schemars(example = &"corosync", extend("x-names" = Names::OWN))]
    #[serde(default)]
    pub take_out: Option<String>,
}

/// Word of a vendor on moving an active member of its cluster live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LiveMoveSupport {
    /// The vendor supports it.
    Supported,
    /// The vendor supports it under conditions that it names.
    Conditional,
    /// The vendor supports it not, or advises against it.
    Unsupported,
    /// The vendor says nothing about it.
    #[default]
    Unstated,
}
