//! Both hosts' probes: first where the path's two ends are, beside the questions to libvirt, then all that they know: of
//! themselves, of the VM, and each of the other.
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
    Request,
    libvirt::{Domain, Hypervisor},
    path::{self, End},
    probe::host::{
        HostProbe, HostQuestions, PeerProbe, PeerQuestions,
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

/// The ways to both hosts' probes.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    pub(super) source: Transport,
    pub(super) destination: Transport,
}

impl Ways {
    /// Those that the request names, or its URIs suggest. Over ssh, both logins begin now.
    pub(super) fn to_hosts_of(request: &Request) -> Self {
        let way = |given: &Option<Transport>, uri| {
            given.clone().unwrap_or_else(|| Transport::for_uri(uri)).kept(request.timeout)
        };
        Self {
            source: way(&request.source_probe, &request.from),
            destination: way(&request.destination_probe, &request.to),
        }
    }
}

/// What libvirt at the source told.
pub(super) struct About {
    /// The source's host name.
    pub(super) source_name: Option<String>,
    /// UUID of the VM, where it is known.
    pub(super) vms: Vec<String>,
    /// Paths that it needs at both hosts.
    pub(super) files: Vec<String>,
}

/// What is told while the probes look.
pub(super) struct Told {
    /// The destination's host name, as its libvirt says.
    pub(super) destination_name: Receiver<String>,
    pub(super) about: Receiver<About>,
    /// Closes when nothing else is measured any more.
    pub(super) quiet: Receiver<()>,
}

/// Starts looking.
pub(super) fn start(request: &Request, ways: &Ways, told: Told, clock: Clock) -> Worker<Probes> {
    let (request, ways) = (request.clone(), ways.clone());
    Worker::start(clock, move || Ok(look(&request, &ways, &told, clock)))
}

fn look(request: &Request, ways: &Ways, told: &Told, clock: Clock) -> Probes {
    let timeout = request.timeout;
    let wanted = request.migrate_address.as_deref().map(path::host_of_address);
    let literal: Option<IpAddr> = wanted.and_then(|name| name.parse().ok());
    let destination = {
        let way = ways.destination.clone();
        Worker::start(clock, move || way.probe_host(&HostQuestions::default(), timeout))
    };
    let destination_name = || told.destination_name.recv_timeout(timeout).ok();
    // libvirt resolves the destination's name where no address is given.
    let name = match (literal, wanted) {
        (Some(_), _) => None,
        (None, Some(name)) => Some(name.to_owned()),
        (None, None) => destination_name(),
    };
    let (source, address) = find_address(&ways.source, literal, name.clone(), timeout);
    let destination = destination.join().value;
    let Ok(about) = told.about.recv() else {
        return Probes::lost(&Unknown::new(Cause::NotCollected, "the source was not reached"), clock.now());
    };
    let encounter = Encounter::plan(request, &address, (&source, &destination), &told.quiet);
    let (there, back) = match &encounter {
        Ok(encounter) => (Some(encounter.there), Some(encounter.back)),
        Err(_) => (None, None),
    };
    let back = ask_again(
        &ways.destination,
        destination,
        HostQuestions {
            resolve: about.source_name,
            files: about.files.clone(),
            peer: back,
            ..HostQuestions::default()
        },
        timeout,
        clock,
    );
    let there = ask_again(
        &ways.source,
        source,
        HostQuestions {
            // Where an address is given libvirt does not ask for the name; people and their tools do.
            resolve: name.or_else(destination_name),
            vms: about.vms,
            files: about.files,
            peer: there,
            ..HostQuestions::default()
        },
        timeout,
        clock,
    );
    let (source, destination) = (there.join(), back.join());
    let peer = |found: &Found<Answer>| match (&encounter, &found.value) {
        (Ok(encounter), Ok(answer)) => encounter.judge(answer.probe.peer.clone()),
        (Err(why), _) | (_, Err(why)) => Fact::Unknown(why.clone()),
    };
    Probes {
        there: peer(&source),
        back: peer(&destination),
        peers_at: clock.now(),
        cap_bytes_per_second: encounter.map_or_else(|_| Err(not_measured()), |encounter| encounter.cap),
        address,
        source,
        destination,
    }
}

/// Asks a probe that has answered before for the rest. Where it fails now, what it said then holds; of the network it holds
/// in any case, since a port that is tried is not a port that is taken.
fn ask_again(
    way: &Transport,
    before: Result<Answer, Unknown>,
    questions: HostQuestions,
    timeout: Duration,
    clock: Clock,
) -> Worker<Answer> {
    let way = way.clone();
    Worker::start(clock, move || {
        let before = before?;
        Ok(match way.probe_host(&questions, timeout) {
            Ok(answer) => answer.with_network_of(before),
            Err(why) => before.without_the_rest(&why),
        })
    })
}

/// Has the source's probe find where the migration goes: to that address, or to that name as libvirt there would resolve it.
fn find_address(
    way: &Transport,
    literal: Option<IpAddr>,
    name: Option<String>,
    timeout: Duration,
) -> (Result<Answer, Unknown>, Fact<IpAddr>) {
    let answer = way.probe_host(
        &HostQuestions { resolve: name.clone(), route: literal, ..HostQuestions::default() },
        timeout,
    );
    let address = match (literal, name, &answer) {
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

impl Answer {
    /// The answer to a second question, with what the first one said of the network.
    fn with_network_of(self, first: Self) -> Self {
        Self { probe: HostProbe { network: first.probe.network, ..self.probe }, ..self }
    }

    /// The answer to a first question, where the probe failed at the second for this reason.
    fn without_the_rest(self, why: &Unknown) -> Self {
        let resolved = match self.probe.resolved {
            Fact::Unknown(_) => Fact::Unknown(why.clone()),
            known @ Fact::Known(_) => known,
        };
        let probe = HostProbe {
            resolved,
            qemus: Fact::Unknown(why.clone()),
            files: Fact::Unknown(why.clone()),
            peer: Fact::Unknown(why.clone()),
            ..self.probe
        };
        Self { probe, ..self }
    }
}

/// What each end is asked about the other.
struct Encounter {
    /// Asked of the source.
    there: PeerQuestions,
    /// Asked of the destination.
    back: PeerQuestions,
    /// What a stream may take, or why there is none.
    cap: Result<u64, Unknown>,
    /// Why no packet is sent, though it was allowed.
    refused: Option<Unknown>,
}

impl Encounter {
    /// Possible where both ends have answered and it is known where the migration goes.
    fn plan(
        request: &Request,
        address: &Fact<IpAddr>,
        (source, destination): (&Result<Answer, Unknown>, &Result<Answer, Unknown>),
        quiet: &Receiver<()>,
    ) -> Result<Self, Unknown> {
        let source = &source.as_ref().map_err(Clone::clone)?.probe;
        let destination = &destination.as_ref().map_err(Clone::clone)?.probe;
        let to = result(address)?;
        let from = result(&source.network.route)?.from;
        let stream = match request.try_path {
            TryPath::Stream(stream) => bounded(stream, request, address, (source, destination), quiet),
            TryPath::No | TryPath::Connect => Err(not_measured()),
        };
        let (port, refused) = match request.try_path {
            TryPath::No => (None, None),
            TryPath::Connect | TryPath::Stream(_) => {
                match result(&path::ports::free_port(&destination.network)) {
                    Ok(port) => (Some(port), None),
                    Err(why) => (None, Some(why)),
                }
            }
        };
        let window = Duration::from_secs(request.dirty_window_seconds.into());
        let trial = |role| Trial { role, stream: stream.as_ref().ok().copied() };
        let ask = |address, role: Option<Role>| PeerQuestions { address, window, trial: role.map(trial) };
        Ok(Self {
            there: ask(to, port.map(Role::Connect)),
            back: ask(from, port.map(|port| Role::Listen(SocketAddr::new(to, port)))),
            cap: stream.as_ref().map(|stream| stream.cap_bytes_per_second).map_err(Clone::clone),
            refused,
        })
    }

    /// What an end said, with the reason where it was not to try.
    fn judge(&self, peer: Fact<PeerProbe>) -> Fact<PeerProbe> {
        match &self.refused {
            Some(why) => peer.map(|peer| PeerProbe {
                largest_packet_bytes: Fact::Unknown(why.clone()),
                tried: Fact::Unknown(why.clone()),
                ..peer
            }),
            None => peer,
        }
    }
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
