//! Capture of a VM's traffic on its tap, from the hypervisor host: UDP flows, and evidence from the other packets.
//!
//! UDP has no budget: packets sent during the blackout are lost, so the list of flows and their rates matter. The
//! kernel counts them if it can (CAP_BPF and CAP_NET_RAW, see `bpf`), else headers are captured (CAP_NET_RAW, see
//! `packet_capture`). Both report gaps: only if [`FlowCapture::complete`] is true does the absence of a flow mean that
//! it does not exist.
//!
//! In the same window the headers of a bounded number of packets are read: see `evidence`.
//!
//! Not covered: UDP inside tunnels (the tunnel itself is, if it uses UDP), PPPoE and MPLS, encrypted extension headers
//! (ESP), and devices that bypass the tap: SR-IOV, vhost-user, XDP redirects.

mod bpf;
mod control;
mod directed_flow;
mod evidence;
mod facts;
mod filter;
mod flow;
mod interface;
mod kernel_counter;
mod limits;
pub(crate) mod lldp;
pub(crate) mod octets;
mod packet;
mod packet_capture;
mod parse;
mod raw_capture;
mod ring;
mod socket;
mod table;
#[cfg(test)]
mod tests;

/// Counts frames of a VM's tap, each after a byte that is its length (255: the rest), and makes facts of them.
#[cfg(feature = "fuzzing")]
pub fn fuzz_frames(bytes: &[u8]) {
    let mut table = table::Table::new(64);
    let mut evidence = evidence::Evidence::new();
    let mut rest = bytes;
    for now in 0_u64.. {
        let Some((&length, after)) = rest.split_first() else { break };
        // 255 takes the rest: some packets are longer.
        let taken = if length == u8::MAX { after.len() } else { usize::from(length) };
        let (frame, after) = after.split_at(taken.min(after.len()));
        let tag = (length & 1 == 1).then_some(u16::from(length));
        let segment_bytes = u16::from(length & 2) * 700;
        let from_guest = length & 4 == 0;
        let frame = parse::Frame { bytes: frame, length: frame.len(), from_guest, tag, segment_bytes };
        table.count(parse::parse(frame), now << 28);
        evidence.observe(frame, now << 28);
        rest = after;
    }
    let (_, streams, _) = table.finish();
    let counts =
        evidence::Counts { interface: "tap", streams: &streams, begin: 0, end: 1 << 40, holes: Vec::new() };
    let _ = evidence.finish(counts);
}

use std::{io, time::Duration};

pub use bpf::BrokenJump;
pub use facts::{udp_capture, wire};
pub use flow::{Family, Flow, FlowCapture, Protocol, Traffic};
pub use interface::GuestEnd;
pub use limits::{LONGEST_WINDOW, Limits};
use serde::{Deserialize, Serialize};
pub(crate) use socket::{PacketSocket, WaitResult};
pub use vmgate_facts::CaptureMethod as Method;
use vmgate_facts::{Cause, Unknown};

/// Reason why flows could not be captured.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum FlowError {
    /// There is no interface of that name in this network namespace.
    #[error(
        "this host has no interface {interface:?}; existing interfaces: {others}. Run vmgate on the VM's host, and take the name from `virsh domiflist`"
    )]
    NoSuchInterface { interface: String, others: String },
    /// The interface is down: nothing crosses it.
    #[error("interface {interface} is down: is the VM running?")]
    InterfaceDown { interface: String },
    /// The interface has no Ethernet headers.
    #[error(
        "interface {interface} is not Ethernet, so it is not the tap of a VM: take the name from `virsh domiflist`"
    )]
    NotEthernet { interface: String },
    /// The kind of the interface cannot be determined.
    #[error("cannot determine the kind of interface {interface}")]
    Interface { interface: String, source: io::Error },
    /// The window is empty or longer than [`LONGEST_WINDOW`].
    #[error("cannot capture for {} s: give a time from 0.001 to {} s", .window.as_secs_f64(), LONGEST_WINDOW.as_secs())]
    Window { window: Duration },
    /// No permission to read packets.
    #[error(
        "no permission to open a packet socket for {interface}: run as root, or give vmgate CAP_NET_RAW and CAP_BPF"
    )]
    NotPermitted { interface: String },
    /// The kernel cannot count, and no other method was allowed.
    #[error("the kernel cannot count the flows of {interface}: {why}")]
    KernelRefused { interface: String, why: String },
    /// The capture failed.
    #[error("the capture on {interface} failed; try again")]
    Capture { interface: String, source: io::Error },
}

impl From<FlowError> for Unknown {
    fn from(error: FlowError) -> Self {
        let cause = match error {
            FlowError::NoSuchInterface { .. } | FlowError::Window { .. } => Cause::NotCollected,
            FlowError::InterfaceDown { .. } => Cause::GuestNotRunning,
            FlowError::NotEthernet { .. } | FlowError::KernelRefused { .. } => Cause::NotSupported,
            FlowError::NotPermitted { .. } => Cause::PermissionDenied,
            FlowError::Interface { .. } | FlowError::Capture { .. } => Cause::Malformed,
        };
        let source =
            std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Self::new(cause, format!("{error}{source}"))
    }
}

/// Captures on an interface of this thread's network namespace. Blocks for the window.
///
/// Read-only: nothing on the interface changes, and nothing remains after the call returns or the process dies.
pub fn watch(interface: &str, window: Duration, limits: &Limits) -> Result<FlowCapture, FlowError> {
    if window < Duration::from_millis(1) || window > LONGEST_WINDOW {
        return Err(FlowError::Window { window });
    }
    let interface = interface::find(interface)?;
    let name = interface.name.clone();
    let open = || {
        socket::PacketSocket::new().map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => FlowError::NotPermitted { interface: name.clone() },
            _ => FlowError::Capture { interface: name.clone(), source },
        })
    };
    let failed = |source| FlowError::Capture { interface: name.clone(), source };
    let socket = open()?;
    let guest = interface::guest_end(socket.raw(), &interface)?;

    let mut refused = None;
    if limits.method != Some(Method::Captured) {
        let counter = kernel_counter::Counter::load(guest, limits.max_directed_flows());
        match counter.and_then(|counter| counter.attach(&socket).map(|()| counter)) {
            Ok(counter) => {
                let raw = counter.run(socket, &interface, window).map_err(failed)?;
                return Ok(FlowCapture::new(name, Method::KernelCounted, None, raw));
            }
            Err(why) => refused = Some(why.to_string()),
        }
    }
    match refused {
        Some(why) if limits.method == Some(Method::KernelCounted) => {
            Err(FlowError::KernelRefused { interface: name, why })
        }
        refused => {
            let raw = packet_capture::run(&socket, &interface, guest, window, limits).map_err(failed)?;
            Ok(FlowCapture::new(name, Method::Captured, refused, raw))
        }
    }
}

/// Output of `vmgate probe flows`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowProbe {
    /// Results of the interfaces, in the order of the arguments.
    pub interfaces: Vec<InterfaceFlows>,
}

/// Result for one interface: its flows, or the reason why they are unknown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceFlows {
    /// The capture succeeded.
    Captured(Box<FlowCapture>),
    /// The capture failed.
    Failed {
        /// The interface.
        interface: String,
        /// Reason of the failure.
        unknown: Unknown,
    },
}

/// Captures on all interfaces of one VM at the same time, so that the measurement takes one window.
pub fn probe(interfaces: &[String], window: Duration, limits: &Limits) -> FlowProbe {
    let failed =
        |interface: &String, unknown| InterfaceFlows::Failed { interface: interface.clone(), unknown };
    let interfaces = std::thread::scope(|scope| {
        let running: Vec<_> = interfaces
            .iter()
            .map(|interface| {
                let watching = || watch(interface, window, limits);
                (interface, std::thread::Builder::new().spawn_scoped(scope, watching))
            })
            .collect();
        running
            .into_iter()
            .map(|(interface, thread)| match thread.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(Ok(capture))) => InterfaceFlows::Captured(Box::new(capture)),
                Ok(Ok(Err(error))) => failed(interface, error.into()),
                Ok(Err(_)) => {
                    failed(interface, Unknown::new(Cause::Malformed, "the capture panicked: a bug in vmgate"))
                }
                Err(error) => failed(
                    interface,
                    Unknown::new(Cause::NotSupported, format!("cannot start a thread: {error}")),
                ),
            })
            .collect()
    });
    FlowProbe { interfaces }
}
