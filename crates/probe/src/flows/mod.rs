//! The real UDP flows of a VM, seen from the hypervisor host on the VM's tap.
//!
//! UDP has no budget: what is sent during the blackout is lost, so what matters is which flows there are and how
//! fast. The kernel counts them where it may (CAP_BPF and CAP_NET_RAW, see `bpf`), else headers are captured
//! (CAP_NET_RAW, see `captured`). Either way a hole is told: only where [`FlowCapture::complete`] holds does
//! "no such flow" mean that there is none.
//!
//! Not seen: UDP inside tunnels (the tunnel itself is seen where it is UDP), PPPoE and MPLS, encrypted extension
//! headers (ESP), and devices that bypass the tap: SR-IOV, vhost-user, XDP redirects.

mod batch;
mod bpf;
mod packet_capture;
mod facts;
mod filter;
mod flow;
mod interface;
mod kernel_counter;
mod limits;
mod parse;
mod socket;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod directed_flow;

#[cfg(fuzzing)]
pub(crate) fn fuzz_frames(bytes: &[u8]) {
    let mut table = table::Table::new(64);
    let mut rest = bytes;
    for now in 0_u64.. {
        let Some((&length, after)) = rest.split_first() else { break };
        let (frame, after) = after.split_at(usize::from(length).min(after.len()));
        let tag = (length & 1 == 1).then_some(u16::from(length));
        let segment_bytes = u16::from(length & 2) * 700;
        let from_guest = length & 4 == 0;
        table.count(
            parse::parse(parse::Frame { bytes: frame, length: frame.len(), from_guest, tag, segment_bytes }),
            now << 28,
        );
        rest = after;
    }
    let _ = table.finish();
}

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use bpf::BrokenJump;
pub use facts::udp_capture;
pub use flow::{Family, Flow, FlowCapture, Protocol, Traffic};
pub use interface::GuestEnd;
pub use limits::{LONGEST_WINDOW, Limits};

pub use vmgate_facts::CaptureMethod as Method;
use vmgate_facts::{Cause, Unknown};

/// Why flows could not be watched.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// There is no interface of that name in this network namespace.
    #[error(
        "there is no interface {interface:?} here; there are: {others}. Run vmgate on the VM's host, and take the name from `virsh domiflist`"
    )]
    NoSuchInterface {
        /// The name that was given.
        interface: String,
        /// Those that exist.
        others: String,
    },
    /// The interface is down: nothing crosses it.
    #[error("interface {interface} is down: is the VM running?")]
    InterfaceDown {
        /// The interface.
        interface: String,
    },
    /// The interface has no Ethernet headers.
    #[error(
        "interface {interface} is not Ethernet, so it is not the tap of a VM: take the name from `virsh domiflist`"
    )]
    NotEthernet {
        /// The interface.
        interface: String,
    },
    /// The interface cannot be asked what it is.
    #[error("cannot ask what kind of interface {interface} is")]
    Interface {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The window is empty or longer than [`LONGEST_WINDOW`].
    #[error("cannot watch for {} s: give a time from 0.001 to {} s", .window.as_secs_f64(), LONGEST_WINDOW.as_secs())]
    Window {
        /// The window that was given.
        window: Duration,
    },
    /// Packets may not be seen.
    #[error(
        "may not open a packet socket for {interface}: run as root, or give vmgate CAP_NET_RAW and CAP_BPF"
    )]
    NotPermitted {
        /// The interface.
        interface: String,
    },
    /// The kernel may not count, and nothing else was allowed.
    #[error("the kernel cannot count the flows of {interface}: {why}")]
    KernelRefused {
        /// The interface.
        interface: String,
        /// What was refused.
        why: String,
    },
    /// The capture broke off.
    #[error("the capture on {interface} broke off; try again")]
    Capture {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
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

/// Watches an interface of this thread's network namespace for the window, which passes in this call.
///
/// Reads only: nothing on the interface changes. When the call returns, or the process dies, nothing is left.
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
        let counter = kernel::Counter::load(guest, limits.max_ways());
        match counter.and_then(|counter| counter.attach(&socket).map(|()| counter)) {
            Ok(counter) => {
                let tally = counter.run(socket, &interface, window).map_err(failed)?;
                return Ok(FlowCapture::new(name, Method::KernelCounted, None, tally));
            }
            Err(why) => refused = Some(why.to_string()),
        }
    }
    match refused {
        Some(why) if limits.method == Some(Method::KernelCounted) => {
            Err(FlowError::KernelRefused { interface: name, why })
        }
        refused => {
            let tally = captured::run(&socket, &interface, guest, window, limits).map_err(failed)?;
            Ok(FlowCapture::new(name, Method::Captured, refused, tally))
        }
    }
}

/// What `vmgate probe flows` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowProbe {
    /// One for each interface, in the order they were given.
    pub interfaces: Vec<InterfaceFlows>,
}

/// One interface of the probe: its flows, or why they are not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceFlows {
    /// It was watched.
    Captured(FlowCapture),
    /// It could not be.
    Failed {
        /// The interface.
        interface: String,
        /// Why.
        unknown: Unknown,
    },
}

/// Watches the interfaces of one VM at the same time: one measurement, so that it costs one window.
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
                Ok(Ok(Ok(capture))) => InterfaceFlows::Captured(capture),
                Ok(Ok(Err(error))) => failed(interface, error.into()),
                Ok(Err(_)) => {
                    failed(interface, Unknown::new(Cause::Malformed, "the capture panicked: a bug in vmgate"))
                }
                Err(error) => {
                    failed(interface, Unknown::new(Cause::NotSupported, format!("no thread: {error}")))
                }
            })
            .collect()
    });
    FlowProbe { interfaces }
}
