//! What is inside the guest: kernel settings, sockets, processes and the software recognised from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    DecidedBy, Detector, Fact, GuestClock, GuestMemory, KeepAlive, KernelBypass, Means, MulticastGroup, Sctp,
    TcpEvidence, TcpTimer, UdpCapture, Unknown,
};

/// The guest, seen from inside.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Guest {
    /// The guest's own host name.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    #[schemars(example = &"web1")]
    pub hostname: Fact<String>,
    /// The operating system, as it calls itself. Of Windows nothing else but its name, its release and its addresses is
    /// known.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    #[schemars(example = &"Debian GNU/Linux 12 (bookworm)")]
    pub os: Fact<String>,
    /// Addresses of its interfaces, none of the loopback.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    #[schemars(example = vec!["10.0.0.5"])]
    pub addresses: Fact<Vec<String>>,
    /// Kernel release, as `uname -r` prints it.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    #[schemars(example = &"6.1.0-32-cloud-amd64")]
    pub kernel_release: Fact<String>,
    /// Kernel settings that decide how long connections survive silence.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    pub sysctl: Fact<Sysctl>,
    /// TCP sockets. The kernel's own timers (inet-diag) by ssh and exec only.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    pub tcp: Fact<Tcp>,
    /// SCTP associations.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    pub sctp: Fact<Sctp>,
    /// UDP sockets and flows.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    pub udp: Fact<Udp>,
    /// Multicast groups that it has joined, on whatever interface but the loopback.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    pub multicast_groups: Fact<Vec<MulticastGroup>>,
    /// IPv4 neighbours whose hardware address is known.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    pub neighbours: Fact<Vec<Neighbour>>,
    /// Processes.
    #[schemars(extend("x-learnt-by" = Means::GUEST_PROGRAMS))]
    pub processes: Fact<Vec<Process>>,
    /// The processes that dirty most memory, at most ten, the busiest first. Only with `--attribute`; by exec where the
    /// command says so.
    #[schemars(extend("x-learnt-by" = [Means::Ssh, Means::Exec]))]
    pub dirty_writers: Fact<Vec<DirtyWriter>>,
    /// Software that synchronises memory with other servers, recognised from the catalogue.
    #[schemars(extend("x-learnt-by" = Means::GUEST_PROGRAMS))]
    pub memory_sync: Fact<Vec<MemorySync>>,
    /// Failure detectors as configured in the guest, one for each process, whether or not a rule's catalogue knows it.
    #[schemars(extend("x-learnt-by" = Means::GUEST_PROGRAMS))]
    pub detectors: Fact<Vec<Detector>>,
    /// Memory: how much is left, locked, shared, and being allocated now.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    pub memory: Fact<GuestMemory>,
    /// Devices and programs that go past the kernel.
    #[schemars(extend("x-learnt-by" = Means::GUEST_PROGRAMS))]
    pub kernel_bypass: Fact<KernelBypass>,
    /// The clock.
    #[schemars(extend("x-learnt-by" = Means::GUEST))]
    pub clock: Fact<GuestClock>,
}

impl Guest {
    /// A guest of which nothing is known, for one reason.
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
    /// Retransmissions of what a closed socket still has to send (net.ipv4.tcp_orphan_retries); 0 stands for 8.
    #[schemars(example = 0)]
    pub tcp_orphan_retries: Fact<i64>,
    /// Loss probes: 3 or 4 for on (net.ipv4.tcp_early_retrans). They delay the first retransmission by one RTO.
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
    /// VMs on either host that are the other end of a connection, by their own guest agents. Only with `--ask-peers`;
    /// found by the guest's IPv4 neighbours.
    pub peers: Fact<Vec<TcpPeer>>,
}

/// The VM at the other end of connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TcpPeer {
    /// Its name.
    #[schemars(example = &"db1")]
    pub vm: String,
    /// Its kernel's settings.
    pub sysctl: Fact<Sysctl>,
    /// Its ends of the common connections.
    pub connections: Fact<Vec<TcpConnection>>,
}

/// A neighbour of the guest on one of its links.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Neighbour {
    /// Its address.
    #[schemars(example = &"10.0.0.7")]
    pub address: String,
    /// Its hardware address.
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
    /// The longest silence that this end certainly survives: up to its last retransmission before it gives up
    /// (Linux net/ipv4/tcp_timer.c). Its data is taken to be lost and the next to be sent as the silence begins.
    #[schemars(example = 462.4)]
    pub budget_seconds: Fact<f64>,
    /// The time that the kernel's settings allow, counted from the first retransmission.
    #[schemars(example = 924.6)]
    #[serde(default)]
    pub gives_up_after_seconds: Fact<f64>,
    /// When the connection ends: at the first firing of its timer at or after that, counted from the send.
    #[schemars(example = 940.1)]
    #[serde(default)]
    pub actual_end_seconds: Fact<f64>,
    /// What ends it.
    #[schemars(example = &"retries2")]
    #[serde(default)]
    pub decided_by: Fact<DecidedBy>,
    /// The retransmission time-out in force, backed off where it is.
    #[schemars(example = 0.204)]
    #[serde(default)]
    pub rto_seconds: Fact<f64>,
    /// Least retransmission time-out of the route (`ip route … rto_min`); absent where the route sets none.
    #[schemars(example = 0.05)]
    #[serde(default)]
    pub rto_min_seconds: Fact<Option<f64>>,
    /// How many times the retransmission time-out has been doubled.
    #[schemars(example = 0)]
    #[serde(default)]
    pub backoff: Fact<i64>,
    /// Whether data waits for an acknowledgement or to be sent.
    #[schemars(example = true)]
    #[serde(default)]
    pub unacknowledged: Fact<bool>,
    /// The timer that runs.
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
    /// The budget of the other end, whose timers run through the blackout; absent where the peer is no VM that was
    /// asked (guest.tcp.peers).
    #[schemars(example = 462.4)]
    #[serde(default)]
    pub peer_budget_seconds: Fact<Option<f64>>,
    /// Where these figures come from.
    #[schemars(example = &"inet-diag")]
    #[serde(default)]
    pub evidence: TcpEvidence,
    /// Name of the process that owns the socket; absent where the kernel holds it.
    #[schemars(example = &"postgres", extend("x-learnt-by" = Means::GUEST_PROGRAMS))]
    pub owner: Fact<Option<String>>,
}

impl TcpConnection {
    /// A connection of which nothing more is known.
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
            owner: Fact::default(),
        }
    }
}

/// States of a connection that carries data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TcpState {
    /// Both ends agree.
    Established,
    /// A SYN was sent.
    SynSent,
    /// A SYN came and a SYN-ACK was sent.
    SynReceived,
    /// One of the closing states that still waits for the peer.
    Closing,
}

/// A socket that waits for connections or datagrams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Listener {
    /// Address and port it is bound to.
    #[schemars(example = &"0.0.0.0:22")]
    pub local: String,
    /// The port.
    #[schemars(example = 22)]
    pub port: u16,
    /// Name of the process that owns it; absent where the kernel holds it.
    #[schemars(example = &"sshd", extend("x-learnt-by" = Means::GUEST_PROGRAMS))]
    pub owner: Fact<Option<String>>,
}

/// UDP sockets of the guest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Udp {
    /// Every socket of both families; none bound to loopback.
    pub sockets: Fact<Vec<UdpSocket>>,
    /// What really flows, counted on the host's side of the VM's interfaces, whatever the guest allows.
    #[schemars(extend("x-learnt-by" = [Means::HostProbe]))]
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
    /// Datagrams the kernel dropped because the socket's buffer was full.
    #[schemars(example = 0)]
    pub drops: i64,
    /// Name of the process that owns it; absent where the kernel holds it.
    #[schemars(example = &"corosync", extend("x-learnt-by" = Means::GUEST_PROGRAMS))]
    pub owner: Fact<Option<String>>,
    /// The service, by the catalogue's ports and process names; absent where the catalogue does not know it.
    pub service: Fact<Option<UdpService>>,
}

/// What the catalogue knows of a UDP service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct UdpService {
    /// The catalogue's id of it.
    #[schemars(example = &"syslog")]
    pub id: String,
    /// What becomes of datagrams lost in the blackout.
    #[schemars(example = &"lost")]
    pub loss: LossTolerance,
    /// Why, in one sentence.
    #[schemars(example = &"syslog over UDP never repeats a message")]
    pub why: String,
}

/// What a service does about datagrams that were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LossTolerance {
    /// The protocol repeats or does not need them: nothing is lost that matters.
    Repeats,
    /// They are gone, and a person or a counter may notice.
    Lost,
    /// A failure detector counts them: silence has consequences beyond the packets.
    Detector,
}

/// A process that dirties memory, by the kernel's soft-dirty bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DirtyWriter {
    /// Process id in the guest.
    #[schemars(example = 812)]
    pub pid: u32,
    /// The kernel's name of it.
    #[schemars(example = &"postgres")]
    pub name: String,
    /// Memory that it wrote to in the window, each page once, by the window's length. A huge page counts whole.
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
    /// The kernel's name of it, at most 15 characters.
    #[schemars(example = &"corosync")]
    pub name: String,
    /// Command line with secrets replaced; empty for kernel threads.
    #[schemars(example = &"/usr/sbin/corosync -f")]
    pub command: String,
    /// Scheduler state letter, as in /proc/PID/stat.
    #[schemars(example = &"S")]
    pub state: String,
    /// Resident memory.
    #[schemars(example = 52_428_800_u64)]
    pub resident_bytes: u64,
}

/// Software that synchronises memory or leases with other servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MemorySync {
    /// The catalogue's id of it.
    #[schemars(example = &"corosync")]
    pub id: String,
    /// Its name for people.
    #[schemars(example = &"Corosync")]
    pub title: String,
    /// The process it was recognised by.
    #[schemars(example = &"corosync (pid 812)")]
    pub seen: String,
    /// How long its peers bear silence before they declare this member dead.
    #[schemars(example = 3.0)]
    pub detector_seconds: Fact<f64>,
    /// Where that figure comes from: a configuration file, or the vendor's default.
    #[schemars(example = &"vendor default (corosync.conf(5) token)")]
    pub detector_source: String,
    /// What stops it for the time of the move and starts it again.
    #[schemars(example = &"systemctl stop corosync")]
    pub stop: String,
}
