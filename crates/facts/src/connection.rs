//! Timers and socket options that decide how long a TCP connection or SCTP association survives silence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fact;

/// Source of the figures of a TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TcpEvidence {
    /// Socket monitoring interface of the kernel (sock_diag(7)), exact to the microsecond.
    InetDiag,
    /// /proc/net/tcp and tcp6: in hundredths of a second, rounded down.
    #[default]
    Proc,
    /// Packets at the host's side of the VM's interfaces; the budget is that of a system with its vendor's settings
    /// (assumed).
    Wire,
}

/// Running timer of a connection (net/ipv4/inet_diag.c, idiag_timer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TcpTimer {
    /// No timer: nothing is in flight and keepalive is off.
    Off,
    /// Retransmission, loss probe or reordering.
    Retransmission,
    /// Keepalive, or the end of a closed connection.
    Keepalive,
    /// Probe of a window that the peer has closed (zero window probe).
    ZeroWindowProbe,
}

/// Keepalive of one socket (socket(7) SO_KEEPALIVE, tcp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KeepAlive {
    /// Idle time before the first probe (TCP_KEEPIDLE).
    #[schemars(example = 7200.0)]
    pub idle_seconds: f64,
    /// Time between probes (TCP_KEEPINTVL).
    #[schemars(example = 75.0)]
    pub interval_seconds: f64,
    /// Unanswered probes before the connection is dropped (TCP_KEEPCNT).
    #[schemars(example = 9)]
    pub probes: i64,
}

/// Mechanism that ends a silent connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DecidedBy {
    /// net.ipv4.tcp_retries2: data stays unacknowledged.
    Retries2,
    /// TCP_USER_TIMEOUT of the socket.
    UserTimeout,
    /// Keepalive probes stay unanswered.
    Keepalive,
    /// net.ipv4.tcp_syn_retries: the connection is being opened by this end.
    SynRetries,
    /// net.ipv4.tcp_synack_retries: the connection is being opened by the other end.
    SynackRetries,
    /// Probes of a closed window stay unanswered.
    ZeroWindowProbe,
    /// net.ipv4.tcp_orphan_retries: the process has closed it, the kernel still sends.
    Orphan,
    /// Nothing: it sends nothing and has no keepalive.
    None,
}

/// SCTP in the guest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Sctp {
    /// Associations; empty where none is open or the kernel has no SCTP.
    pub associations: Fact<Vec<SctpAssociation>>,
}

/// One SCTP association (RFC 9260; /proc/net/sctp/assocs, sysctl net.sctp).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SctpAssociation {
    /// Addresses and port at the guest.
    #[schemars(example = &"10.0.0.5:36412")]
    pub local: String,
    /// Addresses and port of the peer, the one in use first.
    #[schemars(example = &"10.0.0.7,10.1.0.7:36412")]
    pub remote: String,
    /// Consecutive retransmissions after which one path is given up (net.sctp.path_max_retrans).
    #[schemars(example = 5)]
    pub path_max_retrans: Fact<i64>,
    /// Retransmission time-out (RTO) of the path in use.
    #[schemars(example = 1.0)]
    pub rto_seconds: Fact<f64>,
    /// Least retransmission time-out (net.sctp.rto_min).
    #[schemars(example = 1.0)]
    pub rto_min_seconds: Fact<f64>,
    /// Greatest retransmission time-out (net.sctp.rto_max).
    #[schemars(example = 60.0)]
    pub rto_max_seconds: Fact<f64>,
    /// Retransmission time-out before a round trip was measured (net.sctp.rto_initial).
    #[schemars(example = 3.0)]
    pub rto_initial_seconds: Fact<f64>,
    /// Time between heartbeats of an idle path, before the RTO is added.
    #[schemars(example = 30.0)]
    pub heartbeat_seconds: Fact<f64>,
    /// Consecutive retransmissions after which the association ends (net.sctp.association_max_retrans).
    #[schemars(example = 10)]
    pub association_max_retrans: Fact<i64>,
    /// Longest silence that the association survives before its path in use is given up. With a single path most users
    /// have a service failure then, long before the association ends.
    #[schemars(example = 31.0)]
    pub budget_seconds: Fact<f64>,
}
