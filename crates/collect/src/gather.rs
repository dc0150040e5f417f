//! Collection of the facts of one move: both hosts, the guest and the dirty rate at the same time.
//!
//! A missing answer becomes an unknown fact with its reason, and the rest is still collected. Only an unreachable source
//! and a missing VM are errors: without them there is nothing to judge.

use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use jiff::Timestamp;
use thiserror::Error;
use vmgate_facts::{Cause, Change, Fact, Facts, Guest, Host, QemuUser, Unknown, Uri, Uuid, text::plain};
use vmgate_libvirt::{Domain, Hypervisor, LibvirtError, domain_xml::DomainConfig};
use vmgate_probe::{
    host::{ManagerQuestions, PeerProbe},
    path::{self, PathEnd},
};

use super::{
    claims::{self, PlannedMove},
    denied,
    dirty_measurement::{DirtyMeasurement, MeasuredVm, MeasurementPlan},
    flows::{self, WatchedTraffic},
    guest, host,
    host_probes::{self, ProbeAnswers, ProbeInputs, SourceDetails, TryPath},
    monitored, needed_files,
    offer::{self, Offer, OfferRequest},
    peers, provenance,
    shared::{self, SharedWork},
    transport::{Answer, Transport},
    vm::{self, FoundVm, Monitor},
    worker::{Clock, TimedResult, Worker},
};
use crate::guest_probe::GuestAccess;

/// The move whose facts are to be collected, and the permitted means.
#[derive(Debug, Clone)]
pub struct CollectRequest {
    /// Name or UUID of the VM.
    pub vm: String,
    /// URI of the source, where the VM runs.
    pub from: Uri,
    /// URI of the destination; none for a VM that is judged where it runs.
    pub to: Option<Uri>,
    /// Target of the source QEMU's connection: an address, a name, or a migration URI. None takes the destination's
    /// host name, as libvirt does.
    pub migrate_address: Option<String>,
    /// Longest wait for one answer of a host or guest.
    pub timeout: Duration,
    /// Length of the dirty-rate measurement in seconds, 1 to 60.
    pub dirty_window_seconds: u32,
    /// Length of the page trace from the source host, in whole seconds; 0 for no trace.
    pub trace_seconds: u32,
    /// Settings of the migration that the operator asked for; copied into the facts.
    pub change: Change,
    /// Transport of the source's probe.
    pub source_probe: Transport,
    /// Transport of the destination's probe.
    pub destination_probe: Transport,
    /// Permitted tests of the migration path.
    pub try_path: TryPath,
    /// Means of access to the guest.
    pub guest_access: GuestAccess,
    /// True if the guest's kernel traces which process dirties memory; it slows the guest's writes.
    pub attribute: bool,
    /// True if VMs on either host that are TCP peers of the guest are asked, too; libvirt marks them as
    /// tainted.
    pub ask_peers: bool,
    /// True if QEMU's monitor may be asked for migration blockers; libvirt marks the domain as tainted for it.
    pub allow_monitor: bool,
    /// VMs that are planned to move to the destination before this one.
    pub planned: Vec<PlannedMove>,
    /// Managers of VMs that are looked for on both hosts.
    pub managers: ManagerQuestions,
    /// Reason why the destination must not receive VMs, from the site's configuration; none where there is none.
    pub maintenance: Option<String>,
    /// Work that other collections share with this one.
    pub shared: SharedWork,
}

impl CollectRequest {
    /// The destination, or the fact that none was named.
    pub fn destination(&self) -> Result<&Uri, Unknown> {
        self.to.as_ref().ok_or_else(|| Unknown::new(Cause::NoDestination, "no destination was named"))
    }
}

/// Error for which no facts are collected at all.
#[derive(Debug, Error)]
pub enum CollectError {
    /// Source and destination are one host.
    #[error("{from} and {to} are the same host ({why}): name another destination")]
    SameHost {
        /// The source's URI.
        from: String,
        /// The destination's URI.
        to: String,
        /// Evidence for it.
        why: String,
    },
    /// The source or the VM cannot be reached.
    #[error(transparent)]
    Source(#[from] LibvirtError),
    /// The VM's monitor cannot be asked.
    #[error("host {host}: cannot look at {vm}: {}", .why.reason)]
    Monitor {
        /// The source.
        host: String,
        /// The VM, as it was named.
        vm: String,
        /// The reason.
        why: Unknown,
    },
    /// A VM is named as one of libvirt, on a host that is only logged in to.
    #[error(
        "{uri} names no libvirt that could have a VM `{vm}`: name a VM without libvirt by its monitor, such as \
         qmp:/var/run/qemu-server/100.qmp, or give --from qemu+ssh://{host}/system"
    )]
    NoLibvirt {
        /// The VM, as it was named.
        vm: String,
        /// The source's URI.
        uri: String,
        /// The source.
        host: String,
    },
}

/// Collects the facts of a move. `now` is the time on the operator's machine; every fact is dated from it.
#[expect(clippy::too_many_lines, reason = "the order of all questions, in one place")]
pub fn collect(request: &CollectRequest, now: Timestamp) -> Result<Facts, CollectError> {
    if Some(&request.from) == request.to.as_ref() {
        return Err(same_host(request, "the URIs are equal".to_owned()));
    }
    let clock = Clock::starting_at(now);
    request.source_probe.begin();
    request.destination_probe.begin();
    let (destination, names, users) = start_destination(request, clock);
    let (details_sender, source_details) = channel();
    let (measuring, quiet) = channel();
    let probes = host_probes::start(
        request,
        ProbeInputs { destination_name: names, destination_user: users, source_details, quiet },
        clock,
    );
    let (source, domain, vm) = match vm_at_source(request) {
        Ok(found) => found,
        Err(error) => {
            drop(details_sender);
            // Probes that were started on the hosts are ended there before this returns.
            probes.join();
            return Err(error);
        }
    };
    let vm_at = clock.now();
    let hostname = source.as_ref().map_or_else(
        |_| Fact::Known(request.from.host_for_people().to_owned()),
        |source| Fact::from(source.hostname()),
    );
    // If the probes' worker has died, its own result says so.
    let _ = details_sender.send(details_of(&vm, hostname.known().cloned()));
    let parallel =
        request.seen().is_none().then(|| ParallelWork::start(request, domain.as_ref(), &vm, clock));
    let limit = limit_of(domain.as_ref(), &vm);
    let [answers, _] = request.libvirt_answers();
    let (source_answers, source_at) = answers.of_libvirt(|| match &source {
        Ok(source) => host::ask(source, &request.from, hostname),
        Err(why) => host::unreachable(Some(&request.from), why),
    });

    let destination = DestinationAnswers::from(destination.join(), request);
    let offer = offer_of(&destination.hypervisor, &vm);
    let refused = refusal_of(&destination.hypervisor, &vm);
    let parallel = parallel.map_or_else(|| ParallelWork::done_before(clock), ParallelWork::join);
    // All other measurements are over.
    drop(measuring);
    let probes = probes.join().value.unwrap_or_else(|why| ProbeAnswers::unknown(&why, clock.now()));
    refuse_one_host(request, source_answers.uuid(), destination.answers.uuid())?;

    let arch = vm.config.as_ref().and_then(|config| config.arch.as_deref());
    let emulator = source_answers.offer(arch).known().and_then(|offer| offer.emulator.clone());
    let source_probe = &probes.source.value;
    let source_host = source_answers.with_probe(arch, source_probe);
    let source_host = monitored::with_running(source_host, &request.from, source_probe);
    let probed = &probes.destination.value;
    let destination_host = offer.apply_to(destination.answers.with_probe(arch, probed));
    let destination_host = complete_destination(
        Host { configuration_refused: refused, ..destination_host },
        request,
        &vm,
        probed,
    );
    let mut facts = Facts { change: request.change.clone(), ..Facts::empty(now) };
    let dirtying = DirtyMeasurement::of(&parallel.dirtying.value);
    facts.provenance = provenance::of(&provenance::Sources {
        vm_at,
        monitored: vm.monitored.is_some(),
        dirtying: &dirtying,
        dirtying_at: parallel.dirtying.at,
        guest_collector: request.guest_access.collector(),
        guest: parallel.guest.value.as_ref().map_or("none", |(_, method)| method),
        guest_at: parallel.guest.at,
        flows_at: parallel.flows.at,
        flows_window_seconds: parallel.flows.value.as_ref().ok().map(|traffic| traffic.udp.window_seconds),
        source: provenance::HostSource {
            libvirt_at: clock.at(source_at),
            probe_at: probes.source.at,
            way: &request.source_probe,
            probe: source_probe.as_ref().ok().map(|answer| &answer.probe),
        },
        destination: provenance::HostSource {
            libvirt_at: destination.at,
            probe_at: probes.destination.at,
            way: &request.destination_probe,
            probe: probes.destination.value.as_ref().ok().map(|answer| &answer.probe),
        },
        path_at: probes.network_at,
        peers_at: probes.peers_at,
        path_window_seconds: request.dirty_window_seconds.into(),
        path_tried: request.try_path != TryPath::No,
    });
    facts.path = Fact::from(request.destination().map(|to| {
        path::path(
            probes.address.clone(),
            &end_of(source_probe, &source_host, probes.source_peer).reached_by(&request.from),
            &end_of(&probes.destination.value, &destination_host, probes.destination_peer).reached_by(to),
            &request.change,
            limit,
            probes.cap_bytes_per_second,
        )
    }));
    facts.vm =
        Fact::Known(dirtying.into_vm(vm::complete(&vm, &source_host, source_probe, emulator.as_deref())));
    if let Some(seen) = request.seen() {
        shared::take_over(seen, &mut facts);
    } else {
        let guest = parallel.guest.value.map(|(guest, _)| guest);
        facts.guest = flows::into_guest(guest, parallel.flows.value, &request.guest_access);
        compare_with_the_wire(&mut facts.guest, request, domain.as_ref(), &vm);
    }
    if request.ask_peers {
        let hosts: Vec<&Hypervisor> =
            [source.as_ref().ok(), destination.hypervisor.as_ref().ok()].into_iter().flatten().collect();
        ask_peers(&mut facts.guest, vm.uuid.as_ref(), &hosts, request.timeout);
    }
    facts.source = Fact::Known(source_host);
    facts.destination = Fact::from(request.destination().map(|_| destination_host));
    Ok(facts)
}

/// Bandwidth limit that is set where the VM runs.
fn limit_of(domain: Option<&Domain>, vm: &FoundVm) -> Fact<Option<u64>> {
    match (domain, &vm.monitored) {
        (Some(domain), _) => host_probes::libvirt_limit(domain),
        (None, Some(seen)) => seen.bandwidth_limit.clone(),
        (None, None) => Fact::default(),
    }
}

/// The destination with what a plan says of it, and what its probe tells where libvirt does not.
fn complete_destination(
    host: Host,
    request: &CollectRequest,
    vm: &FoundVm,
    probed: &Result<Answer, Unknown>,
) -> Host {
    let host = match &request.to {
        Some(to) => with_the_plan(monitored::with_running(host, to, probed), request),
        None => host,
    };
    match &vm.monitored {
        Some(seen) => monitored::with_offer(host, seen, probed),
        None => host,
    }
}

/// Asks the VMs on these hosts that are peers of the guest's connections.
fn ask_peers(guest: &mut Fact<Guest>, vm: Option<&Uuid>, hosts: &[&Hypervisor], timeout: Duration) {
    let Fact::Known(guest) = guest else { return };
    let peers = peers::ask(guest, vm, hosts, timeout);
    if let Fact::Known(tcp) = &mut guest.tcp {
        tcp.peers = peers.into();
    }
}

/// Compares the guest's account with the wire; where it lacks something, the guest is asked once more.
fn compare_with_the_wire(
    guest: &mut Fact<Guest>,
    request: &CollectRequest,
    domain: Option<&Domain>,
    vm: &FoundVm,
) {
    let Fact::Known(guest) = guest else { return };
    let Fact::Known(wire) = &guest.wire else { return };
    let again = || {
        let has_channel = vm.facts.has_agent_channel.known().is_none_or(|has| *has);
        guest::look(&request.guest_access, domain.cloned(), vm.state, has_channel, None, request.timeout)
            .map(|(guest, _)| guest)
    };
    let denied = denied::compared(guest, wire, again);
    if let Fact::Known(wire) = &mut guest.wire {
        wire.denied = denied;
    }
}

/// The destination with what the operator plans for it: moves that come first, and maintenance.
fn with_the_plan(mut host: Host, request: &CollectRequest) -> Host {
    host.claims = host.claims.map(|claims| claims::with_planned(claims, &request.planned));
    if let Some(reason) = &request.maintenance {
        host.maintenance = Fact::Known(Some(reason.clone()));
    }
    host
}

/// The source's libvirt, or the reason for which it is not asked; the VM in libvirt, if it has it; and the VM.
type FoundAtSource = (Result<Hypervisor, Unknown>, Option<Domain>, FoundVm);

fn vm_at_source(request: &CollectRequest) -> Result<FoundAtSource, CollectError> {
    if let Some(socket) = request.monitor() {
        let vm = monitored::look(request, socket)?;
        return Ok((request.open_source().map_err(Unknown::from), None, vm));
    }
    if !request.from.names_libvirt() {
        return Err(CollectError::NoLibvirt {
            vm: request.vm.clone(),
            uri: request.from.to_string(),
            host: request.from.host_for_people().to_owned(),
        });
    }
    let source = request.open_source()?;
    let domain = source.domain(&request.vm)?;
    let monitor = if request.allow_monitor { Monitor::Allowed } else { Monitor::Forbidden };
    let vm = vm::look(&domain, monitor)?;
    Ok((Ok(source), Some(domain), vm))
}

fn end_of<'a>(answer: &Result<Answer, Unknown>, host: &'a Host, peer: Fact<PeerProbe>) -> PathEnd<'a> {
    PathEnd::of(answer.as_ref().map(|answer| &answer.probe), &host.nics, &host.routes, peer)
}

fn refuse_one_host(
    request: &CollectRequest,
    source: Option<&Uuid>,
    destination: Option<&Uuid>,
) -> Result<(), CollectError> {
    match (source, destination) {
        (Some(one), Some(other)) if one == other => Err(same_host(
            request,
            format!(
                "both have the host UUID {one}; if they are two machines, set a different host_uuid in libvirtd.conf (or virtqemud.conf) on one of them and restart its libvirt"
            ),
        )),
        _ => Ok(()),
    }
}

fn same_host(request: &CollectRequest, why: String) -> CollectError {
    let to = request.to.as_ref().map(Uri::to_string).unwrap_or_default();
    CollectError::SameHost { from: request.from.to_string(), to, why }
}

/// The destination's libvirt, its answers, and the time of these.
type ConnectedDestination = (Hypervisor, host::LibvirtAnswers, Timestamp);

/// Starts asking the destination's libvirt. Also returns channels for what the probes need of it: its host name, which is
/// asked first since the source must resolve it, and the user that runs QEMU.
fn start_destination(
    request: &CollectRequest,
    clock: Clock,
) -> (Worker<ConnectedDestination>, Receiver<String>, Receiver<Fact<QemuUser>>) {
    let (sender, names) = channel();
    let (tell_user, users) = channel();
    let (open, uri) = (request.destination_opener(), request.destination().cloned());
    let [_, answers] = request.libvirt_answers();
    let libvirt = Worker::start(clock, move || {
        let uri = uri?;
        if !uri.names_libvirt() {
            let _ = sender.send(monitored::hostname(&uri));
        }
        let hypervisor = open(&uri)?;
        let hostname = Fact::from(hypervisor.hostname());
        if let Fact::Known(name) = &hostname {
            // After an error at the source the receiver is gone.
            let _ = sender.send(name.clone());
        }
        let tell = |user: &Fact<QemuUser>| {
            let _ = tell_user.send(user.clone());
        };
        let (answers, at) = answers.of_libvirt(|| host::ask_and_tell(&hypervisor, &uri, hostname, tell));
        // Another collection may have asked; who has been told does not listen any more.
        tell(&answers.qemu_user());
        Ok((hypervisor, answers, clock.at(at)))
    });
    (libvirt, names, users)
}

/// Answers of the destination's libvirt, and the connection.
struct DestinationAnswers {
    hypervisor: Result<Hypervisor, Unknown>,
    answers: host::LibvirtAnswers,
    at: Timestamp,
}

impl DestinationAnswers {
    fn from(asked: TimedResult<ConnectedDestination>, request: &CollectRequest) -> Self {
        match asked.value {
            Ok((hypervisor, answers, at)) => Self { hypervisor: Ok(hypervisor), answers, at },
            Err(why) => {
                let answers = host::unreachable(request.to.as_ref(), &why);
                Self { hypervisor: Err(why), answers, at: asked.at }
            }
        }
    }
}

/// Details of the VM for the probes.
fn details_of(vm: &FoundVm, source_name: Option<String>) -> SourceDetails {
    if let Some(seen) = &vm.monitored {
        return monitored::details(seen, source_name);
    }
    SourceDetails {
        source_name,
        vms: vm.uuid.clone().into_iter().collect(),
        files: needed_files::of(&vm.config),
        opened: vm.config.as_ref().map(DomainConfig::opened_files).unwrap_or_default(),
        ports: vm.config.iter().flat_map(needed_files::ports).collect(),
        qemu_user: vm.config.as_ref().and_then(|config| config.user_label.user.clone()),
        programs: needed_files::programs(&vm.config),
        devices: needed_files::devices(&vm.config),
        needs: None,
    }
}

/// Offer of the destination's hypervisor to the VM.
fn offer_of(destination: &Result<Hypervisor, Unknown>, vm: &FoundVm) -> Offer {
    match (destination, &vm.config) {
        (Ok(hypervisor), Some(config)) => offer::ask(hypervisor, &OfferRequest::of(config)),
        (Err(why), _) => Offer::unknown(why),
        (Ok(_), None) => {
            Offer::unknown(&Unknown::new(Cause::NotCollected, "the VM's configuration could not be read"))
        }
    }
}

/// Words with which libvirt at the destination refuses what a migration sends it of the VM's configuration.
fn refusal_of(destination: &Result<Hypervisor, Unknown>, vm: &FoundVm) -> Fact<Option<String>> {
    let refusal = destination.as_ref().map_err(Clone::clone).and_then(|hypervisor| {
        let xml = vm.migratable_xml.as_deref().map_err(Clone::clone)?;
        hypervisor.configuration_refused(xml).map_err(Unknown::from)
    });
    Fact::from(refusal).map(|words| words.map(|words| plain(&words)))
}

/// Results of the work that goes on in parallel with the questions to the source's libvirt.
struct ParallelResults {
    guest: TimedResult<GuestAndMethod>,
    flows: TimedResult<WatchedTraffic>,
    dirtying: TimedResult<DirtyMeasurement>,
}

/// That work: questions to the guest, and the measurements.
struct ParallelWork {
    guest: Worker<GuestAndMethod>,
    measured: Worker<(TimedResult<WatchedTraffic>, TimedResult<DirtyMeasurement>)>,
}

/// Facts of the guest, and the method for provenance.
type GuestAndMethod = (Guest, String);

impl ParallelWork {
    fn start(request: &CollectRequest, domain: Option<&Domain>, vm: &FoundVm, clock: Clock) -> Self {
        let timeout = request.timeout;
        let has_channel = vm.facts.has_agent_channel.known().is_none_or(|has| *has);
        let window = Duration::from_secs(request.dirty_window_seconds.into());
        let attribute = request.attribute.then_some(window);
        let (guests, state, into) = (domain.cloned(), vm.state, request.guest_access.clone());
        let guest =
            Worker::start(clock, move || guest::look(&into, guests, state, has_channel, attribute, timeout));
        let interfaces = flows::WatchedInterfaces::of(vm);
        let plan = MeasurementPlan {
            way: request.source_probe.clone(),
            trace_seconds: request.trace_seconds,
            window_seconds: request.dirty_window_seconds,
            timeout,
        };
        let (measured, watched, turns) = (domain.cloned(), MeasuredVm::of(vm), request.turns());
        let measured = Worker::start(clock, move || {
            let turn = turns.take()?;
            let watcher = plan.way.clone();
            let flows = Worker::start(clock, move || interfaces?.watch(&watcher, window, timeout));
            let dirtying = plan.measure(measured.as_ref(), &watched, (turn, &turns));
            let dirtying = TimedResult { value: Ok(dirtying), at: clock.now() };
            Ok((flows.join(), dirtying))
        });
        Self { guest, measured }
    }

    fn join(self) -> ParallelResults {
        let guest = self.guest.join();
        let measured = self.measured.join();
        let (flows, dirtying) = measured.value.unwrap_or_else(|why| {
            let at = measured.at;
            (TimedResult { value: Err(why.clone()), at }, TimedResult { value: Err(why), at })
        });
        ParallelResults { guest, flows, dirtying }
    }

    /// Results where none of it is done, because the VM was seen a moment ago.
    fn done_before(clock: Clock) -> ParallelResults {
        let why = Unknown::new(Cause::NotCollected, "this was learnt a moment ago");
        let at = clock.now();
        ParallelResults {
            guest: TimedResult { value: Err(why.clone()), at },
            flows: TimedResult { value: Err(why.clone()), at },
            dirtying: TimedResult { value: Err(why), at },
        }
    }
}
