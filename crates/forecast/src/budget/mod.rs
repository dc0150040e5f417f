//! Budgets: the longest silence that a connection survives, by the kernel's own arithmetic.
//!
//! Source: Linux net/ipv4/tcp_timer.c (tcp_write_timeout, retransmits_timed_out, tcp_model_timeout, tcp_probe_timer,
//! tcp_keepalive_timer), net/ipv4/inet_connection_sock.c (reqsk_timer_handler), kernel/time/timer.c; 6.1 and 6.18 were
//! measured, see docs/truth-tcp.md. Four things that a table of tcp_retries2 does not show:
//!
//! - The modelled time-out runs from the **first retransmission by timer**, not from the send. With loss probes (the
//!   default) that is two RTOs after the send.
//! - The connection ends at the **first timer at or after** the modelled time-out. It is twice as far off as the timer
//!   before it, so that the end may come at up to twice the modelled time-out, and depends on the RTO in jumps: with a
//!   longer RTO it may come sooner.
//! - At that timer nothing is sent any more. A network that returns after the last retransmission returns too late, so
//!   that the silence a connection **survives** ends there: never less than half the modelled time-out.
//! - Timers fire late, by up to an eighth of their delay (the timer wheel), and so may jump a try: four ninths.

mod derive;
mod sctp;
mod silence;
mod tcp;
#[cfg(test)]
mod tests;
mod timer_wheel;

pub use derive::{
    established_timeout_seconds, fill_peers, fill_tcp, handshake_timeout_seconds, survived_silence_seconds,
};
pub use sctp::{SctpBudget, SctpPath, fill_sctp, sctp_budget};
pub use silence::{ConnectionEnd, Silence, Survival, SurvivalEstimate};
pub use tcp::{model_timeout_seconds, tcp_budget};
pub use timer_wheel::TickRate;
use vmgate_facts::{DecidedBy, KeepAlive};

/// Least RTO in the kernel's model, whatever the connection's own (TCP_RTO_MIN).
pub const MODEL_RTO_SECONDS: f64 = 0.2;

/// TCP settings of one kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelSettings {
    /// net.ipv4.tcp_retries2.
    pub retries2: u32,
    /// net.ipv4.tcp_syn_retries.
    pub syn_retries: u32,
    /// net.ipv4.tcp_syn_linear_timeouts; 0 in kernels before 6.5.
    pub syn_linear_timeouts: u32,
    /// net.ipv4.tcp_synack_retries.
    pub synack_retries: u32,
    /// net.ipv4.tcp_orphan_retries.
    pub orphan_retries: u32,
    /// net.ipv4.tcp_rto_max_ms; 120 s in kernels before 6.15.
    pub rto_max_seconds: f64,
    /// True if tail loss probes are on (net.ipv4.tcp_early_retrans 3 or 4).
    pub loss_probes: bool,
    /// Tick rate of the kernel's timers.
    pub ticks: TickRate,
}

impl Default for KernelSettings {
    /// Linux's defaults.
    fn default() -> Self {
        Self {
            retries2: 15,
            syn_retries: 6,
            syn_linear_timeouts: 0,
            synack_retries: 5,
            orphan_retries: 0,
            rto_max_seconds: 120.0,
            loss_probes: true,
            ticks: TickRate::Unknown,
        }
    }
}

/// Phase of a connection, as far as it matters for its end by silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Open at both ends; sent data is acknowledged.
    Established,
    /// Waits for a SYN-ACK.
    SynSent,
    /// Waits for the acknowledgement of its SYN-ACK.
    SynReceived,
    /// The peer's window is closed: this end sends window probes.
    ZeroWindow,
    /// The process has closed the socket; the kernel still sends.
    Orphan,
}

/// Traffic of a connection during the silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Data may be sent at any time, in the worst case at the start of the silence. The right assumption unless more is
    /// known.
    MaySend,
    /// Nothing is sent during the silence: only keepalive can end the connection.
    StaysIdle,
}

/// State of one end of a TCP connection when the silence begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConnectionState {
    /// Phase of the connection.
    pub phase: Phase,
    /// Expected traffic during the silence.
    pub traffic: Traffic,
    /// RTO in force, including backoff (tcpi_rto).
    pub rto_seconds: f64,
    /// Number of times that the RTO was doubled (tcpi_backoff).
    pub backoff: u32,
    /// Retransmissions by timer so far, or unanswered window probes (tcpi_retransmits, tcpi_probes).
    pub retransmits: u32,
    /// Time until the timer fires; absent where not known, and then the worst case is assumed.
    pub timer_seconds: Option<f64>,
    /// TCP_USER_TIMEOUT.
    pub user_timeout_seconds: Option<f64>,
    /// Keepalive settings, if keepalive is on.
    pub keepalive: Option<KeepAlive>,
    /// Time since the last packet from the peer; absent where not known, and then the worst case is assumed.
    pub idle_seconds: Option<f64>,
}

impl ConnectionState {
    /// An established connection without any loss so far.
    pub fn established(rto_seconds: f64) -> Self {
        Self {
            phase: Phase::Established,
            traffic: Traffic::MaySend,
            rto_seconds,
            backoff: 0,
            retransmits: 0,
            timer_seconds: None,
            user_timeout_seconds: None,
            keepalive: None,
            idle_seconds: None,
        }
    }
}

/// Silence that one end of a connection survives. Seconds from the start of the silence, when its data is sent and
/// lost; infinite where nothing ends the connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// Longest silence that is certainly survived although data is lost: up to the last retransmission before the end.
    pub survives_seconds: f64,
    /// Time-out by the settings, counted from the first retransmission (tcp_model_timeout, or TCP_USER_TIMEOUT).
    pub gives_up_after_seconds: f64,
    /// End of the connection if timers fire on time.
    pub actual_end_seconds: f64,
    /// Earliest end: no loss probe, and timers late enough to skip a retransmission.
    pub earliest_end_seconds: f64,
    /// Latest end.
    pub latest_end_seconds: f64,
    /// Mechanism that ends the connection.
    pub decided_by: DecidedBy,
    /// Times of the retransmissions if timers fire on time.
    pub tries_seconds: Vec<f64>,
}

impl Budget {
    /// Budget of a connection that nothing ends.
    pub fn endless() -> Self {
        Self {
            survives_seconds: f64::INFINITY,
            gives_up_after_seconds: f64::INFINITY,
            actual_end_seconds: f64::INFINITY,
            earliest_end_seconds: f64::INFINITY,
            latest_end_seconds: f64::INFINITY,
            decided_by: DecidedBy::None,
            tries_seconds: Vec::new(),
        }
    }

    /// Time of the retransmission that repairs the loss, if the network returns after `silence_seconds`; none if the
    /// connection ends first.
    pub fn repaired_after_seconds(&self, silence_seconds: f64) -> Option<f64> {
        self.tries_seconds.iter().copied().find(|&at| at >= silence_seconds)
    }
}
