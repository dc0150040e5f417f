//! Budgets: how long a connection survives silence, by the kernel's own arithmetic.
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

use crate::fact::{DecidedBy, KeepAlive};

pub use derive::{established_timeout_seconds, fill_tcp, fill_peers, handshake_timeout_seconds, survived_silence_seconds};
pub use sctp::{SctpBudget, SctpPath, fill_sctp, sctp_budget};
pub use silence::{SurvivalEstimate, ConnectionEnd, Silence, Survival};
pub use tcp::{model_timeout_seconds, tcp_budget};
pub use timer_wheel::TickRate;

/// Least RTO in the kernel's model, whatever the connection's own (TCP_RTO_MIN).
pub const MODEL_RTO_SECONDS: f64 = 0.2;

/// The settings of one kernel.
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
    /// Whether loss probes are on (net.ipv4.tcp_early_retrans 3 or 4).
    pub loss_probes: bool,
    /// How finely its timers are kept.
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

/// What a connection is doing, as far as its end by silence goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Both ends agree; what it sends is acknowledged.
    Established,
    /// It waits for a SYN-ACK.
    SynSent,
    /// It waits for the acknowledgement of its SYN-ACK.
    SynReceived,
    /// The peer's window is closed: it probes.
    ZeroWindow,
    /// Its process has closed it; the kernel still sends.
    Orphan,
}

/// What is known of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Data may be sent at any time, as the silence begins if that is worst. Right unless more is known.
    MaySend,
    /// Nothing is sent during the silence: only keepalive can end the connection.
    StaysIdle,
}

/// One end of a connection at the moment when the silence begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConnectionState {
    /// What it is doing.
    pub phase: Phase,
    /// What it sends.
    pub traffic: Traffic,
    /// Its RTO in force, backed off where it is (tcpi_rto).
    pub rto_seconds: f64,
    /// How many times that was doubled (tcpi_backoff).
    pub backoff: u32,
    /// Retransmissions by timer so far, or unanswered window probes (tcpi_retransmits, tcpi_probes).
    pub retransmits: u32,
    /// Until its timer fires; absent where not known, and then the worst is taken.
    pub timer_seconds: Option<f64>,
    /// TCP_USER_TIMEOUT.
    pub user_timeout_seconds: Option<f64>,
    /// Keepalive, where it is on.
    pub keepalive: Option<KeepAlive>,
    /// How long nothing has come from the peer; absent where not known, and then the worst is taken.
    pub idle_seconds: Option<f64>,
}

impl ConnectionState {
    /// An established connection on which nothing was lost so far.
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

/// How long one end survives silence. Seconds from the moment when the silence begins, which is when its data is
/// sent and lost; infinite where nothing ends it.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// The longest silence that is certainly survived, its data lost: up to the last try before the end.
    pub survives_seconds: f64,
    /// What the settings allow, counted from the first retransmission (tcp_model_timeout, or TCP_USER_TIMEOUT).
    pub gives_up_after_seconds: f64,
    /// The end, were timers punctual.
    pub actual_end_seconds: f64,
    /// The end at the earliest: no loss probe, timers late enough to skip one.
    pub earliest_end_seconds: f64,
    /// The end at the latest.
    pub latest_end_seconds: f64,
    /// What ends it.
    pub decided_by: DecidedBy,
    /// When it tries again, were timers punctual.
    pub tries_seconds: Vec<f64>,
}

impl Budget {
    /// Of what nothing ends.
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

    /// When the loss is repaired by a try of this end, if the network returns after `silence_seconds`; none where that
    /// is too late.
    pub fn repaired_after_seconds(&self, silence_seconds: f64) -> Option<f64> {
        self.tries_seconds.iter().copied().find(|&at| at >= silence_seconds)
    }
}
