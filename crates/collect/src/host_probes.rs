//! Runs of both hosts' probes, twice each: first to find the two ends of the migration path, in parallel with the questions
//! to libvirt, then for all other facts: of the host, of the VM, and of the path to the other host. Collections of several VMs
//! between the same open hosts share the first runs.
//!
//! The second run watches the interfaces while the guest's dirty rate is measured. A goodput stream waits until nothing else
//! is measured, and is refused while a migration or a backup runs.

use std::{
    net::{IpAddr, SocketAddr},
    sync::mpsc::Receiver,
    time::Duration,
};

use jiff::Timestamp;
use vmgate_facts::{Cause, Fact, OpenedFile, PathNic, QemuUser, Unknown, Uuid};
use vmgate_libvirt::{Domain, Hypervisor};
use vmgate_probe::{
    host::{
        DeviceAddress, HostProbe, HostQuestions, PeerProbe, PeerQuestions,
        trial::{Role, Stream, Trial},
    },
    path::{self, PathEnd},
    qemu::OfferQuestions,
};

use super::{
    CollectRequest,
    shared::HostAnswers,
    transport::{Answer, Transport},
    worker::{Clock, TimedResult, Worker},
};

/// Part of a link that a stream may take where others use the link too, and where nobody else does.
const SHARED_LINK_RATIO: f64 = 0.5;
const OWN_LINK_RATIO: f64 = 0.9;
/// libvirt's figure for a migration speed without a limit, in MiB a second (QEMU_DOMAIN_MIG_BANDWIDTH_MAX).
const NO_LIMIT_MIB: u64 = i64::MAX.cast_unsigned() >> 20;

/// Tests of the migration path that the user permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryPath {
    /// No packet is sent on it.
    No,
    /// One connection and a few pings.
    Connect,
    /// One connection, a few pings, and a bounded stream.
    Stream(Stream),
}

/// Answers of both probes.
#[derive(Debug)]
pub(super) struct ProbeAnswers {
    /// Answer of the source's probe.
    pub(super) source: TimedResult<Answer>,
    /// Answer of the destination's probe.
    pub(super) destination: TimedResult<Answer>,
    /// Address that the migration will connect to.
    pub(super) address: Fact<IpAddr>,
    /// Answer of the source's probe about the path to the destination.
    pub(super) source_peer: Fact<PeerProbe>,
    /// Answer of the destination's probe about the path back.
    pub(super) destination_peer: Fact<PeerProbe>,
    /// Time of the older of both first answers, whose facts of the network make the path.
    pub(super) network_at: Timestamp,
    /// Time at which both answers about the path were complete.
    pub(super) peers_at: Timestamp,
    /// Cap of the stream, or the reason for which there was none.
    pub(super) cap_bytes_per_second: Result<u64, Unknown>,
}

impl ProbeAnswers {
    /// Answers that are all unknown for this reason.
    pub(super) fn unknown(why: &Unknown, at: Timestamp) -> Self {
        let found = || TimedResult { value: Err(why.clone()), at };
        Self {
            source: found(),
            destination: found(),
            address: Fact::Unknown(why.clone()),
            source_peer: Fact::Unknown(why.clone()),
            destination_peer: Fact::Unknown(why.clone()),
            network_at: at,
            peers_at: at,
            cap_bytes_per_second: Err(why.clone()),
        }
    }
}

/// Details from the source's libvirt that the second run of the probes needs.
pub(super) struct SourceDetails {
    /// Host name of the source.
    pub(super) source_name: Option<String>,
    /// UUID of the VM, where it is known.
    pub(super) vms: Vec<Uuid>,
    /// Paths that the VM needs at both hosts.
    pub(super) files: Vec<String>,
    /// Files of these that QEMU opens as its own user.
    pub(super) opened: Vec<OpenedFile>,
    /// Ports that QEMU binds by their number.
    pub(super) ports: Vec<u16>,
    /// User of the VM itself; none for the user of the host.
    pub(super) qemu_user: Option<Fact<QemuUser>>,
    /// Programs that run it.
    pub(super) programs: Vec<String>,
    /// Devices that it has from its host.
    pub(super) devices: Vec<DeviceAddress>,
    /// QEMU that it needs at the destination, for a VM that libvirt does not have.
    pub(super) needs: Option<OfferQuestions>,
}

/// Inputs that arrive while the probes run.
pub(super) struct ProbeInputs {
    /// Host name of the destination, from its libvirt.
    pub(super) destination_name: Receiver<String>,
    /// User that runs QEMU at the destination, from its libvirt.
    pub(super) destination_user: Receiver<Fact<QemuUser>>,
    pub(super) source_details: Receiver<SourceDetails>,
    /// Closes when all other measurements are over.
    pub(super) quiet: Receiver<()>,
}

/// Starts the probes.
pub(super) fn start(request: &CollectRequest, told: ProbeInputs, clock: Clock) -> Worker<ProbeAnswers> {
    let request = request.clone();
    Worker::start(clock, move || Ok(look(&request, &told, clock)))
}

fn look(request: &CollectRequest, told: &ProbeInputs, clock: Clock) -> ProbeAnswers {
    let timeout = request.timeout;
    let wanted = request.migrate_address.as_deref().map(path::host_of_address);
    let literal: Option<IpAddr> = wanted.and_then(|name| name.parse().ok());
    let [source_first, destination_first] = request.probe_answers();
    let destination = {
        let way = request.destination_probe.clone();
        Worker::start(clock, move || destination_first.of_probe(&way, &HostQuestions::default(), timeout))
    };
    let destination_name = || told.destination_name.recv_timeout(timeout).ok();
    // libvirt resolves the destination's name where no address is given.
    let name = match (literal, wanted) {
        (Some(_), _) => None,
        (None, Some(name)) => Some(name.to_owned()),
        (None, None) => destination_name(),
    };
    let (source, address) =
        find_address(&source_first, &request.source_probe, literal, name.clone(), timeout);
    let destination = destination.join().value;
    let received = [&source, &destination].into_iter().flatten().map(|answer| answer.received).min();
    let network_at = received.map_or_else(|| clock.now(), |received| clock.at(received));
    let Ok(about) = told.source_details.recv() else {
        return ProbeAnswers::unknown(
            &Unknown::new(Cause::NotCollected, "the source host was not reached"),
            clock.now(),
        );
    };
    let questions_of_path = PathQuestions::plan(request, &address, (&source, &destination), &told.quiet);
    let (there, back) = match &questions_of_path {
        Ok(questions_of_path) => (Some(questions_of_path.source), Some(questions_of_path.destination)),
        Err(_) => (None, None),
    };
    let back = ask_details(
        &request.destination_probe,
        destination,
        HostQuestions {
            resolve: about.source_name,
            files: about.files.clone(),
            opened: about.opened,
            ports: about.ports,
            qemu_user: about.qemu_user.unwrap_or_else(|| user_at(&told.destination_user, timeout)),
            programs: about.programs.clone(),
            devices: about.devices.clone(),
            managers: request.managers.clone(),
            qemu: about.needs,
            running: request.to.as_ref().is_some_and(|to| !to.names_libvirt()),
            peer: back,
            ..HostQuestions::default()
        },
        timeout,
        clock,
    );
    let there = ask_details(
        &request.source_probe,
        source,
        HostQuestions {
            // Where an address is given libvirt does not ask for the name; people and their tools do.
            resolve: name.or_else(destination_name),
            vms: about.vms,
            files: about.files,
            programs: about.programs,
            devices: about.devices,
            managers: request.managers.clone(),
            running: !request.from.names_libvirt(),
            peer: there,
            ..HostQuestions::default()
        },
        timeout,
        clock,
    );
    let dated = |found: TimedResult<Answer>| TimedResult {
        at: found.value.as_ref().map_or(found.at, |answer| clock.at(answer.received)),
        ..found
    };
    let (source, destination) = (dated(there.join()), dated(back.join()));
    let peer = |found: &TimedResult<Answer>| match (&questions_of_path, &found.value) {
        (Ok(questions_of_path), Ok(answer)) => questions_of_path.with_refusal(answer.probe.peer.clone()),
        (Err(why), _) | (_, Err(why)) => Fact::Unknown(why.clone()),
    };
    ProbeAnswers {
        source_peer: peer(&source),
        destination_peer: peer(&destination),
        network_at,
        peers_at: clock.now(),
        cap_bytes_per_second: questions_of_path
            .map_or_else(|_| Err(not_measured()), |questions_of_path| questions_of_path.cap),
        address,
        source,
        destination,
    }
}

/// User that runs QEMU at the destination, which its libvirt tells at the beginning of its answers.
fn user_at(told: &Receiver<Fact<QemuUser>>, timeout: Duration) -> Fact<QemuUser> {
    told.recv_timeout(timeout).unwrap_or_else(|_| {
        Fact::unknown(
            Cause::HostUnreachable,
            "the destination's libvirt did not tell under which user it runs QEMU",
        )
    })
}

/// Asks a probe that has answered before for all other facts. If the probe fails now, its first answer is kept. Facts of
/// the network are kept in any case: the port of the trial would count as taken now.
fn ask_details(
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
            Err(why) => before.without_details(&why),
        })
    })
}

/// Finds the address of the migration: the literal one, or the name as the source's probe resolves it, like libvirt there.
pub(super) fn find_address(
    answers: &HostAnswers,
    way: &Transport,
    literal: Option<IpAddr>,
    name: Option<String>,
    timeout: Duration,
) -> (Result<Answer, Unknown>, Fact<IpAddr>) {
    let questions = HostQuestions { resolve: name.clone(), route: literal, ..HostQuestions::default() };
    let answer = answers.of_probe(way, &questions, timeout);
    let address = match (literal, name, &answer) {
        (Some(address), ..) => Fact::Known(address),
        (None, None, _) => Fact::unknown(
            Cause::HostUnreachable,
            "the destination's host name is not known, and no --migrate-address was given",
        ),
        (None, Some(_), Err(why)) => Fact::Unknown(why.clone()),
        (None, Some(name), Ok(answer)) => first_address(&name, &answer.probe.resolved),
    };
    (answer, address)
}

/// Address of a migration to a name: the first one. Unknown where the name leads back to the source itself.
fn first_address(name: &str, resolved: &Fact<Vec<IpAddr>>) -> Fact<IpAddr> {
    resolved.as_ref().and_then(|addresses| match addresses.first() {
        Some(address) if address.is_loopback() => Fact::unknown(
            Cause::NotSupported,
            format!("the source resolves the destination's name `{name}` to itself ({address}): correct /etc/hosts on the source, or use --migrate-address"),
        ),
        Some(address) => Fact::Known(*address),
        None => Fact::unknown(Cause::NotSupported, format!("the source cannot resolve `{name}`: add the name to DNS or to /etc/hosts on the source, or use --migrate-address")),
    })
}

impl Answer {
    /// The answer of the second run, with the network facts of the first.
    fn with_network_of(self, first: Self) -> Self {
        Self { probe: HostProbe { network: first.probe.network, ..self.probe }, ..self }
    }

    /// The answer of the first run, where the second run failed for this reason.
    fn without_details(self, why: &Unknown) -> Self {
        let resolved = match self.probe.resolved {
            Fact::Unknown(_) => Fact::Unknown(why.clone()),
            known @ Fact::Known(_) => known,
        };
        let probe = HostProbe {
            resolved,
            qemus: Fact::Unknown(why.clone()),
            files: Fact::Unknown(why.clone()),
            bound_ports: Fact::Unknown(why.clone()),
            program_builds: Fact::Unknown(why.clone()),
            passthrough_devices: Fact::Unknown(why.clone()),
            qemu_offer: Fact::Unknown(why.clone()),
            running: Fact::Unknown(why.clone()),
            peer: Fact::Unknown(why.clone()),
            ..self.probe
        };
        Self { probe, ..self }
    }
}

/// Questions to each host's probe about the path to the other host.
struct PathQuestions {
    /// Questions to the source's probe.
    source: PeerQuestions,
    /// Questions to the destination's probe.
    destination: PeerQuestions,
    /// Cap of the stream, or the reason for which there is none.
    cap: Result<u64, Unknown>,
    /// Reason why no packet is sent, though the user permits it.
    refused: Option<Unknown>,
}

impl PathQuestions {
    /// Plans the questions. Fails unless both probes have answered and the address of the migration is known.
    fn plan(
        request: &CollectRequest,
        address: &Fact<IpAddr>,
        (source, destination): (&Result<Answer, Unknown>, &Result<Answer, Unknown>),
        quiet: &Receiver<()>,
    ) -> Result<Self, Unknown> {
        let source = &source.as_ref().map_err(Clone::clone)?.probe;
        let destination = &destination.as_ref().map_err(Clone::clone)?.probe;
        let to = result(address)?;
        let from = result(&source.network.route)?.from;
        let stream = match request.try_path {
            TryPath::Stream(stream) => allowed_stream(stream, request, address, (source, destination), quiet),
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
            source: ask(to, port.map(Role::Connect)),
            destination: ask(from, port.map(|port| Role::Listen(SocketAddr::new(to, port)))),
            cap: stream.as_ref().map(|stream| stream.cap_bytes_per_second).map_err(Clone::clone),
            refused,
        })
    }

    /// An end's answer; where the trial was refused, with that reason in place of its results.
    fn with_refusal(&self, peer: Fact<PeerProbe>) -> Fact<PeerProbe> {
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

/// The stream with a cap that is safe for both ends, after all other measurements; or the reason for which there may be none.
fn allowed_stream(
    stream: Stream,
    request: &CollectRequest,
    address: &Fact<IpAddr>,
    (source, destination): (&HostProbe, &HostProbe),
    quiet: &Receiver<()>,
) -> Result<Stream, Unknown> {
    // Nothing is ever sent through this channel: it closes.
    let _ = quiet.recv();
    no_job_runs(request)?;
    let source = PathEnd::of(Ok(source), &source.nics, &source.routes, Fact::default());
    let destination = PathEnd::of(Ok(destination), &destination.nics, &destination.routes, Fact::default());
    let (source, destination) = path::interfaces(address, &source, &destination);
    let cap = stream.cap_bytes_per_second.min(stream_cap(&source)?).min(stream_cap(&destination)?);
    Ok(Stream { cap_bytes_per_second: cap, ..stream })
}

fn not_measured() -> Unknown {
    Unknown::new(
        Cause::NotAllowed,
        "goodput was not measured: allow the measurement with --measure-goodput MIB_PER_S",
    )
}

/// Rate that a stream may take of the link of one end, in bytes a second.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
// no link carries 2^53 bytes a second
fn stream_cap(end: &Fact<PathNic>) -> Result<u64, Unknown> {
    let nic = result(end)?;
    let Some(speed) = nic.speed_bytes_per_second else {
        let why = format!(
            "goodput was not measured: the network driver of {} reports no link speed, so a safe rate is not known",
            nic.name
        );
        return Err(Unknown::new(Cause::NotSupported, why));
    };
    let has_storage = nic.storage.known().is_none_or(|storage| !storage.is_empty());
    let is_shared = nic.guest_bridge.is_some() || nic.carries_default_route || has_storage;
    let share = if is_shared { SHARED_LINK_RATIO } else { OWN_LINK_RATIO };
    Ok((speed as f64 * share) as u64)
}

/// Checks that no job runs on any VM of either host.
fn no_job_runs(request: &CollectRequest) -> Result<(), Unknown> {
    for uri in [&request.from, request.destination()?] {
        let job =
            Hypervisor::open(uri, request.timeout).and_then(|host| host.running_job()).map_err(|error| {
                Unknown::new(
                    Cause::NotAllowed,
                    format!("goodput was not measured: vmgate could not check for running jobs: {error}"),
                )
            })?;
        if let Some(job) = job {
            let why = format!(
                "goodput was not measured: a job runs on {} ({job}); measure again after the job has ended",
                uri.host_for_people()
            );
            return Err(Unknown::new(Cause::NotAllowed, why));
        }
    }
    Ok(())
}

/// Limit that libvirt keeps for a VM's migrations, in bytes a second.
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
