//! Trial of a migration port without a VM: for a moment the destination listens, and the source connects.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use vmgate_facts::{Cause, Fact, Unknown};
use vmgate_probe::{
    host::{
        HostQuestions, PeerQuestions,
        trial::{Role, Trial},
    },
    path,
};

use super::{OpenHost, host_probes::find_address, shared::HostAnswers};

/// Time for which the interfaces are watched meanwhile: nobody reads it.
const WINDOW: Duration = Duration::from_millis(100);

/// Tries a migration port of the destination from the source, and returns what was seen, in words. The error is the reason for
/// which nothing could be tried, or the obstacle.
pub fn try_migration_port(
    source: &OpenHost,
    destination: &OpenHost,
    address: Option<IpAddr>,
    timeout: Duration,
) -> Result<String, Unknown> {
    let name = match address {
        Some(_) => None,
        None => Some(destination.hostname()?),
    };
    let (answer, address) = find_address(&HostAnswers::default(), &source.probe, address, name, timeout);
    let from = known(&answer?.probe.network.route)?.from;
    let to = known(&address)?;
    let network = destination.probe.probe_host(&HostQuestions::default(), timeout)?.probe.network;
    let port = known(&path::ports::free_port(&network))?;
    let ask = |host: &OpenHost, address, role| {
        let peer = Some(PeerQuestions { address, window: WINDOW, trial: Some(Trial { role, stream: None }) });
        host.probe.probe_host(&HostQuestions { peer, ..HostQuestions::default() }, timeout)
    };
    let (there, here) = std::thread::scope(|scope| {
        let listening = scope.spawn(|| ask(destination, from, Role::Listen(SocketAddr::new(to, port))));
        let connecting = ask(source, to, Role::Connect(port));
        (connecting, listening.join())
    });
    let here = here.unwrap_or_else(|_| {
        Err(Unknown::new(Cause::Malformed, "vmgate panicked: please report this defect"))
    });
    let tried = known(&known(&there?.probe.peer)?.tried)?;
    if tried.met {
        return Ok(tried.detail);
    }
    known(&known(&here?.probe.peer)?.tried)?;
    Err(Unknown::new(Cause::HostUnreachable, tried.detail))
}

fn known<T: Clone>(fact: &Fact<T>) -> Result<T, Unknown> {
    match fact {
        Fact::Known(value) => Ok(value.clone()),
        Fact::Unknown(why) => Err(why.clone()),
    }
}
