//! Collecting the facts of one move: both hosts, the guest and the dirty rate at the same time.
//!
//! What is missing becomes an unknown fact with its reason, and the rest is still collected. Only without the source
//! or the VM itself there is nothing to judge: those are errors.

use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use jiff::Timestamp;
use thiserror::Error;

use super::{
    claims::{self, PlannedMove},
    dirtying::{Dirtying, Plan, Watched},
    flows, guest, host, needed_files,
    offer::{self, Offer, Wanted},
    peers,
    probes::{self, About, Probes, Told, TryPath, Ways},
    provenance,
    transport::{Answer, Transport},
    vm::{self, FoundVm, Monitor},
    worker::{Clock, Found, Worker},
};
use crate::guest_probe::GuestWay;
use vmgate_facts::Uri;
use vmgate_facts::{Cause, Change, Fact, Facts, Guest, Host, UdpCapture, Unknown};
use vmgate_libvirt::{Domain, Hypervisor, LibvirtError};
use vmgate_probe::{
    host::PeerProbe,
    path::{self, End},
};

/// What is to be learnt.
#[derive(Debug, Clone)]
pub struct Request {
    /// Name or UUID of the VM.
    pub vm: String,
    /// The host it runs on.
    pub from: Uri,
    /// The host it is to go to.
    pub to: Uri,
    /// Where the source's QEMU is to connect to: an address, a name, or a migration URI. None lets the destination's
    /// host name decide, as libvirt does.
    pub migrate_address: Option<String>,
    /// Longest wait for one answer of a host or guest.
    pub timeout: Duration,
    /// Length of the dirty-rate measurement, 1 to 60.
    pub dirty_window_seconds: u32,
    /// How long the guest's pages are traced from the source host, in whole seconds; 0 for not at all.
    pub trace_seconds: u32,
    /// What the operator asked for; copied into the facts.
    pub change: Change,
    /// The way to the source's probe; none takes the one that the URI suggests.
    pub source_probe: Option<Transport>,
    /// The same for the destination.
    pub destination_probe: Option<Transport>,
    /// How far the path is tried.
    pub try_path: TryPath,
    /// The way into the guest.
    pub guest_way: GuestWay,
    /// Whether the guest's kernel is to trace which process dirties memory; it slows the guest's writes.
    pub attribute: bool,
    /// Whether VMs on either host that are the other end of a TCP connection are asked, too; libvirt marks them as
    /// tainted.
    pub ask_peers: bool,
    /// Whether QEMU's monitor may be asked what blocks a migration; libvirt marks the domain as tainted for it.
    pub allow_monitor: bool,
    /// VMs that are planned to come to the destination before this one.
    pub planned: Vec<PlannedMove>,
    /// Why the destination is not to be given VMs, as the site's configuration says; none where it says nothing.
    pub maintenance: Option<String>,
}

/// Why no facts could be collected at all.
#[derive(Debug, Error)]
pub enum CollectError {
    /// Source and destination are one host.
    #[error("{from} and {to} are the same host ({why}): name another destination")]
    SameHost {
        /// The source's URI.
        from: String,
        /// The destination's URI.
        to: String,
        /// How that was seen.
        why: String,
    },
    /// The source or the VM cannot be reached.
    #[error(transparent)]
    Source(#[from] LibvirtError),
}

/// Collects the facts of a move. `now` is the operator's time; everything is dated from it.
pub fn collect(request: &Request, now: Timestamp) -> Result<Facts, CollectError> {
    if request.from == request.to {
        return Err(same_host(request, "the URIs are equal".to_owned()));
    }
    let clock = Clock::starting_at(now);
    let ways = Ways::to_hosts_of(request);
    let (destination, names) = start_destination(request, clock);
    let (tell, about) = channel();
    let (measuring, quiet) = channel();
    let probes = probes::start(request, &ways, Told { destination_name: names, about, quiet }, clock);
    let (source, domain, vm) = match vm_at_source(request) {
        Ok(found) => found,
        Err(error) => {
            drop(tell);
            // What was begun at the hosts is ended there before this returns.
            probes.join();
            return Err(error.into());
        }
    };
    let vm_at = clock.now();
    let hostname = Fact::from(source.hostname());
    // Where the probes are lost, their own answer says so.
    let _ = tell.send(About {
        source_name: hostname.known().cloned(),
        vms: vm.uuid.clone().into_iter().collect(),
        files: needed_files::of(&vm.config),
    });
    let beside = Beside::start(request, &ways.source, &domain, &vm, clock);
    let libvirt_limit = probes::libvirt_limit(&domain);
    let source_answers = host::ask(&source, &request.from, hostname);
    let source_at = clock.now();

    let destination = SeenDestination::from(destination.join(), request);
    let offer = offer_of(&destination.hypervisor, &vm);
    let beside = beside.join();
    // Nothing else is measured any more.
    drop(measuring);
    let probes = probes.join().value.unwrap_or_else(|why| Probes::lost(&why, clock.now()));
    refuse_one_host(request, source_answers.uuid(), destination.answers.uuid())?;

    let arch = vm.config.as_ref().and_then(|config| config.arch.as_deref());
    let emulator = source_answers.offer(arch).known().and_then(|offer| offer.emulator.clone());
    let source_probe = &probes.source.value;
    let source_host = source_answers.with_probe(arch, source_probe);
    let mut destination_host = offer.laid_on(destination.answers.with_probe(arch, &probes.destination.value));
    destination_host.claims =
        destination_host.claims.map(|claims| claims::with_planned(claims, &request.planned));
    if let Some(reason) = &request.maintenance {
        destination_host.maintenance = Fact::Known(Some(reason.clone()));
    }
    let mut facts = Facts { change: request.change.clone(), ..Facts::empty(now) };
    let dirtying = Dirtying::of(&beside.dirtying.value);
    facts.provenance = provenance::of(&provenance::Sources {
        vm_at,
        dirtying: &dirtying,
        dirtying_at: beside.dirtying.at,
        guest_collector: request.guest_way.collector(),
        guest: beside.guest.value.as_ref().map_or("none", |(_, method)| method),
        guest_at: beside.guest.at,
        flows_at: beside.flows.at,
        flows_window_seconds: beside.flows.value.as_ref().ok().map(|capture| capture.window_seconds),
        source: provenance::Side {
            libvirt_at: source_at,
            probe_at: probes.source.at,
            way: &ways.source,
            probe: source_probe.as_ref().ok().map(|answer| &answer.probe),
        },
        destination: provenance::Side {
            libvirt_at: destination.at,
            probe_at: probes.destination.at,
            way: &ways.destination,
            probe: probes.destination.value.as_ref().ok().map(|answer| &answer.probe),
        },
        path_at: clock.now(),
        peers_at: probes.peers_at,
        path_window_seconds: request.dirty_window_seconds.into(),
        path_tried: request.try_path != TryPath::No,
    });
    facts.path = Fact::Known(path::path(
        probes.address.clone(),
        &end_of(source_probe, &source_host, probes.there).reached_by(&request.from),
        &end_of(&probes.destination.value, &destination_host, probes.back).reached_by(&request.to),
        &request.change,
        libvirt_limit,
        probes.cap_bytes_per_second,
    ));
    facts.vm =
        Fact::Known(dirtying.into_vm(vm::complete(&vm, &source_host, source_probe, emulator.as_deref())));
    facts.guest = flows::into_guest(beside.guest.value.map(|(guest, _)| guest), beside.flows.value);
    if request.ask_peers
        && let Fact::Known(guest) = &mut facts.guest
    {
        let hosts: Vec<&Hypervisor> =
            [Some(&source), destination.hypervisor.as_ref().ok()].into_iter().flatten().collect();
        let peers = peers::ask(guest, vm.uuid.as_deref(), &hosts, request.timeout);
        if let Fact::Known(tcp) = &mut guest.tcp {
            tcp.peers = peers.into();
        }
    }
    facts.source = Fact::Known(source_host);
    facts.destination = Fact::Known(destination_host);
    Ok(facts)
}

fn vm_at_source(request: &Request) -> Result<(Hypervisor, Domain, FoundVm), LibvirtError> {
    let source = Hypervisor::open(&request.from, request.timeout)?;
    let domain = source.domain(&request.vm)?;
    let monitor = if request.allow_monitor { Monitor::Allowed } else { Monitor::Forbidden };
    let vm = vm::look(&domain, monitor)?;
    Ok((source, domain, vm))
}

fn end_of<'a>(answer: &Result<Answer, Unknown>, host: &'a Host, peer: Fact<PeerProbe>) -> End<'a> {
    End::of(answer.as_ref().map(|answer| &answer.probe), &host.nics, &host.routes, peer)
}

fn refuse_one_host(
    request: &Request,
    source: Option<&str>,
    destination: Option<&str>,
) -> Result<(), CollectError> {
    match (source, destination) {
        (Some(one), Some(other)) if one == other => Err(same_host(
            request,
            format!(
                "both have the host UUID {one}; if they are two machines, give one its own host_uuid in libvirtd.conf"
            ),
        )),
        _ => Ok(()),
    }
}

fn same_host(request: &Request, why: String) -> CollectError {
    CollectError::SameHost { from: request.from.to_string(), to: request.to.to_string(), why }
}

type AskedDestination = (Hypervisor, host::LibvirtAnswers);

/// Starts asking the destination's libvirt, and gives the end of the line that its host name comes through: the source
/// must resolve it, so it is asked first.
fn start_destination(request: &Request, clock: Clock) -> (Worker<AskedDestination>, Receiver<String>) {
    let (sender, names) = channel();
    let (uri, timeout) = (request.to.clone(), request.timeout);
    let libvirt = Worker::start(clock, move || {
        let hypervisor = Hypervisor::open(&uri, timeout)?;
        let hostname = Fact::from(hypervisor.hostname());
        if let Fact::Known(name) = &hostname {
            // After an error at the source nobody waits for it any more.
            let _ = sender.send(name.clone());
        }
        let answers = host::ask(&hypervisor, &uri, hostname);
        Ok((hypervisor, answers))
    });
    (libvirt, names)
}

/// The destination, as far as its libvirt answered.
struct SeenDestination {
    hypervisor: Result<Hypervisor, Unknown>,
    answers: host::LibvirtAnswers,
    at: Timestamp,
}

impl SeenDestination {
    fn from(asked: Found<AskedDestination>, request: &Request) -> Self {
        let (hypervisor, answers) = match asked.value {
            Ok((hypervisor, answers)) => (Ok(hypervisor), answers),
            Err(why) => (Err(why.clone()), host::unreachable(&request.to, &why)),
        };
        Self { hypervisor, answers, at: asked.at }
    }
}

/// What the destination's hypervisor offers to the VM.
fn offer_of(destination: &Result<Hypervisor, Unknown>, vm: &FoundVm) -> Offer {
    match (destination, &vm.config) {
        (Ok(hypervisor), Some(config)) => offer::ask(hypervisor, &Wanted::of(config)),
        (Err(why), _) => Offer::unknown(why),
        (Ok(_), None) => {
            Offer::unknown(&Unknown::new(Cause::NotCollected, "the VM's configuration is not known"))
        }
    }
}

/// What is learnt beside the questions to the source's libvirt.
struct Beside<G, F, D> {
    guest: G,
    flows: F,
    dirtying: D,
}

/// The guest, and how it was looked into.
type SeenGuest = (Guest, String);

impl Beside<Worker<SeenGuest>, Worker<UdpCapture>, Worker<Dirtying>> {
    fn start(request: &Request, way: &Transport, domain: &Domain, vm: &FoundVm, clock: Clock) -> Self {
        let timeout = request.timeout;
        let has_channel = vm.config.as_ref().is_none_or(|config| config.has_agent_channel);
        let window = Duration::from_secs(request.dirty_window_seconds.into());
        let attribute = request.attribute.then_some(window);
        let (guests, state, into) = (domain.clone(), vm.state, request.guest_way.clone());
        let guest =
            Worker::start(clock, move || guest::look(&into, guests, state, has_channel, attribute, timeout));
        let window_seconds = request.dirty_window_seconds;
        let interfaces = flows::Interfaces::of(vm);
        let watcher = way.clone();
        let flows = Worker::start(clock, move || {
            interfaces?.watch(&watcher, Duration::from_secs(window_seconds.into()), timeout)
        });
        let plan = Plan { way: way.clone(), trace_seconds: request.trace_seconds, window_seconds, timeout };
        let (measured, watched) = (domain.clone(), Watched::of(vm));
        let dirtying = Worker::start(clock, move || Ok(plan.measure(&measured, &watched)));
        Self { guest, flows, dirtying }
    }

    fn join(self) -> Beside<Found<SeenGuest>, Found<UdpCapture>, Found<Dirtying>> {
        Beside { guest: self.guest.join(), flows: self.flows.join(), dirtying: self.dirtying.join() }
    }
}
