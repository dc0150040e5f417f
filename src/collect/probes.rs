//! Both hosts' probes: first each for itself, then, when the two ends of the path are known, each about the other.
//!
//! The second look watches the interfaces while the guest's dirty rate is measured. A stream waits until nothing else is
//! measured, and is refused while a migration or a backup runs.

use std::{
    net::{IpAddr, SocketAddr},
    sync::mpsc::Receiver,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Request, Uri,
    libvirt::{Domain, Hypervisor},
    path::{self, End},
    probe::host::{
        HostProbe, PeerProbe, PeerQuestions, Questions,
        trial::{Role, Stream, Trial},
    },
    transport::{Answer, Transport},
    worker::{Clock, Found, Worker},
};
use crate::fact::{Cause, Fact, PathNic, Unknown};

/// Part of a link that a stream may take where others use the link too, and where none do.
const SHARED_LINK_RATIO: f64 = 0.5;
const OWN_LINK_RATIO: f64 = 0.9;
/// libvirt's way to say that a migration's speed is not limited, in MiB a second (QEMU_DOMAIN_MIG_BANDWIDTH_MAX).
const NO_LIMIT_MIB: u64 = i64::MAX.cast_unsigned() >> 20;

/// How far the user lets the migration path be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryPath {
    /// No packet is sent on it.
    No,
    /// One connection and a few pings.
    Connect,
    /// Those, and a stream.
    Stream(Stream),
}

/// What both probes told.
#[derive(Debug)]
pub(super) struct Probes {
    /// The source's answer.
    pub(super) source: Found<Answer>,
    /// The destination's.
    pub(super) destination: Found<Answer>,
    /// Where the migration will go.
    pub(super) address: Fact<IpAddr>,
    /// What the source says of the way to the destination.
    pub(super) there: Fact<PeerProbe>,
    /// What the destination says of the way back.
    pub(super) back: Fact<PeerProbe>,
    /// When those were there.
    pub(super) peers_at: Timestamp,
    /// What a stream was allowed, or why there was none.
    pub(super) cap_bytes_per_second: Result<u64, Unknown>,
}

impl Probes {
    /// The answers where the work was lost.
    pub(super) fn lost(why: &Unknown, at: Timestamp) -> Self {
        let found = || Found { value: Err(why.clone()), at };
        Self {
            source: found(),
            destination: found(),
            address: Fact::Unknown(why.clone()),
            there: Fact::Unknown(why.clone()),
            back: Fact::Unknown(why.clone()),
            peers_at: at,
            cap_bytes_per_second: Err(why.clone()),
        }
    }
}

/// The hosts' names as each tells its own, and the VM.
pub(super) struct About {
    /// The source's host name.
    pub(super) source_name: Option<String>,
    /// The end of the line that the destination's comes through.
    pub(super) destination_name: Receiver<String>,
    /// UUID of the VM, where it is known.
    pub(super) vms: Vec<String>,
    /// Paths that it needs at both hosts.
    pub(super) files: Vec<String>,
}

/// The way to a host's probe.
pub(super) fn way(given: Option<&Transport>, uri: &Uri) -> Transport {
    given.cloned().unwrap_or_else(|| Transport::for_uri(uri))
}

/// Starts looking. `quiet` closes when nothing else is measured any more.
pub(super) fn start(request: &Request, about: About, quiet: Receiver<()>, clock: Clock) -> Worker<Probes> {
    let request = request.clone();
    Worker::start(clock, move || Ok(look(&request, about, &quiet, clock)))
}

fn look(request: &Request, about: About, quiet: &Receiver<()>, clock: Clock) -> Probes {
    let timeout = request.timeout;
    let source_way = way(request.source_probe.as_ref(), &request.from);
    let destination_way = way(request.destination_probe.as_ref(), &request.to);
    let destination = {
        let way = destination_way.clone();
        let questions =
            Questions { resolve: about.source_name, files: about.files.clone(), ..Questions::default() };
        Worker::start(clock, move || way.probe_host(&questions, timeout))
    };
    let wanted = request.migrate_address.as_deref().map(|text| path::host_of_address(text).to_owned());
    let named = about.destination_name.recv_timeout(timeout).ok();
    let questions = Questions { vms: about.vms, files: about.files, ..Questions::default() };
    let (source, address) = probe_source(&source_way, wanted, named, questions, timeout);
    let source = Found { value: source, at: clock.now() };
    let destination = destination.join();
    let mut probes = Probes {
        address,
        there: Fact::default(),
        back: Fact::default(),
        peers_at: clock.now(),
        cap_bytes_per_second: Err(not_measured()),
        source,
        destination,
    };
    if let Err(why) = ask_each_other(request, &source_way, &destination_way, &mut probes, quiet, clock) {
        probes.there = Fact::Unknown(why.clone());
        probes.back = Fact::Unknown(why);
    }
    probes
}

/// Asks the source's probe, and has it resolve the destination's name, as libvirt there would.
fn probe_source(
    way: &Transport,
    wanted: Option<String>,
    named: Option<String>,
    questions: Questions,
    timeout: Duration,
) -> (Result<Answer, Unknown>, Fact<IpAddr>) {
    let literal: Option<IpAddr> = wanted.as_deref().and_then(|name| name.parse().ok());
    // Where an address is given, libvirt does not ask for the name; people and their tools do.
    let resolve = wanted.clone().filter(|_| literal.is_none()).or(named);
    let answer =
        way.probe_host(&Questions { resolve: resolve.clone(), route: literal, ..questions }, timeout);
    let address = match (literal, resolve, &answer) {
        (Some(address), ..) => Fact::Known(address),
        (None, None, _) => Fact::unknown(
            Cause::HostUnreachable,
            "the destination did not tell its host name, and no migration address was given",
        ),
        (None, Some(_), Err(why)) => Fact::Unknown(why.clone()),
        (None, Some(name), Ok(answer)) => first_address(&name, &answer.probe.resolved),
    };
    (answer, address)
}

/// The address that a migration to a name goes to: the first. One that is the source itself leads nowhere.
fn first_address(name: &str, resolved: &Fact<Vec<IpAddr>>) -> Fact<IpAddr> {
    resolved.as_ref().and_then(|addresses| match addresses.first() {
        Some(address) if address.is_loopback() => Fact::unknown(
            Cause::NotSupported,
            format!("the source resolves the destination's name `{name}` to itself ({address})"),
        ),
        Some(address) => Fact::Known(*address),
        None => Fact::unknown(Cause::NotSupported, format!("the source cannot resolve `{name}`")),
    })
}

/// Asks each probe about the other host, at the same time.
fn ask_each_other(
    request: &Request,
    source_way: &Transport,
    destination_way: &Transport,
    probes: &mut Probes,
    quiet: &Receiver<()>,
    clock: Clock,
) -> Result<(), Unknown> {
    let source = &probes.source.value.as_ref().map_err(Clone::clone)?.probe;
    let destination = &probes.destination.value.as_ref().map_err(Clone::clone)?.probe;
    let to = result(&probes.address)?;
    let from = result(&source.network.route)?.from;
    let window = Duration::from_secs(request.dirty_window_seconds.into());
    let ask = |way: &Transport, address, trial| {
        let (way, timeout) = (way.clone(), request.timeout);
        let peer = Some(PeerQuestions { address, window, trial });
        Worker::start(clock, move || way.probe_host(&Questions { peer, ..Questions::default() }, timeout))
    };
    let port = match request.try_path {
        TryPath::No => Ok(None),
        TryPath::Connect | TryPath::Stream(_) => {
            result(&path::ports::free_port(&destination.network)).map(Some)
        }
    };
    let stream = match request.try_path {
        TryPath::Stream(stream) => bounded(stream, request, &probes.address, (source, destination), quiet),
        TryPath::No | TryPath::Connect => Err(not_measured()),
    };
    probes.cap_bytes_per_second =
        stream.as_ref().map(|stream| stream.cap_bytes_per_second).map_err(Clone::clone);
    let trial = |role| Trial { role, stream: stream.as_ref().ok().copied() };
    let (listen, connect, refused) = match port {
        Ok(port) => (
            port.map(|port| trial(Role::Listen(SocketAddr::new(to, port)))),
            port.map(|port| trial(Role::Connect(port))),
            None,
        ),
        Err(why) => (None, None, Some(why)),
    };
    let back = ask(destination_way, from, listen);
    let there = ask(source_way, to, connect);
    let peer = |found: Found<Answer>| match found.value {
        Ok(answer) => answer.probe.peer,
        Err(why) => Fact::Unknown(why),
    };
    let because = |peer: Fact<PeerProbe>| match &refused {
        Some(why) => peer.map(|peer| PeerProbe {
            largest_packet_bytes: Fact::Unknown(why.clone()),
            tried: Fact::Unknown(why.clone()),
            ..peer
        }),
        None => peer,
    };
    probes.there = because(peer(there.join()));
    probes.back = because(peer(back.join()));
    probes.peers_at = clock.now();
    Ok(())
}

/// A stream that no end of the path minds, when nothing else is measured any more; or why there may be none.
fn bounded(
    stream: Stream,
    request: &Request,
    address: &Fact<IpAddr>,
    (source, destination): (&HostProbe, &HostProbe),
    quiet: &Receiver<()>,
) -> Result<Stream, Unknown> {
    // Nothing is ever sent through it: it closes.
    let _ = quiet.recv();
    no_job_runs(request)?;
    let source = End::of(Ok(source), &source.nics, &source.routes, Fact::default());
    let destination = End::of(Ok(destination), &destination.nics, &destination.routes, Fact::default());
    let (source, destination) = path::ends(address, &source, &destination);
    let cap = stream.cap_bytes_per_second.min(allowed(&source)?).min(allowed(&destination)?);
    Ok(Stream { cap_bytes_per_second: cap, ..stream })
}

fn not_measured() -> Unknown {
    Unknown::new(Cause::NotAllowed, "it was not measured: --measure-goodput MIB_PER_S allows it")
}

/// What a stream may take of the link of one end.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
// no link carries 2^53 bytes a second
fn allowed(end: &Fact<PathNic>) -> Result<u64, Unknown> {
    let nic = result(end)?;
    let Some(speed) = nic.speed_bytes_per_second else {
        let why = format!(
            "the driver of {} names no speed, so that no share of it can be kept: goodput is not measured",
            nic.name
        );
        return Err(Unknown::new(Cause::NotSupported, why));
    };
    let has_storage = nic.storage.known().is_none_or(|storage| !storage.is_empty());
    let is_shared = nic.guest_bridge.is_some() || nic.carries_default_route || has_storage;
    let share = if is_shared { SHARED_LINK_RATIO } else { OWN_LINK_RATIO };
    Ok((speed as f64 * share) as u64)
}

/// Whether neither host has a job on any VM.
fn no_job_runs(request: &Request) -> Result<(), Unknown> {
    for uri in [&request.from, &request.to] {
        let job =
            Hypervisor::open(uri, request.timeout).and_then(|host| host.running_job()).map_err(|error| {
                Unknown::new(Cause::NotAllowed, format!("goodput is not measured, since {error}"))
            })?;
        if let Some(job) = job {
            let why = format!(
                "goodput is not measured while a job runs on {} ({job}): measure again when it has ended",
                uri.host_for_people()
            );
            return Err(Unknown::new(Cause::NotAllowed, why));
        }
    }
    Ok(())
}

/// The limit that libvirt keeps for a VM's migrations, in bytes a second.
pub(super) fn libvirt_limit(domain: &Domain) -> Fact<Option<u64>> {
    Fact::from(domain.max_migration_speed())
        .map(|mebibytes| (mebibytes < NO_LIMIT_MIB).then(|| mebibytes.saturating_mul(1 << 20)))
}

fn result<T: Clone>(fact: &Fact<T>) -> Result<T, Unknown> {
    match fact {
        Fact::Known(value) => Ok(value.clone()),
        Fact::Unknown(why) => Err(why.clone()),
    }
}
