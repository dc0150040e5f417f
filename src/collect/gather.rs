//! Collecting the facts of one move: both hosts, the guest and the dirty rate at the same time.
//!
//! What is missing becomes an unknown fact with its reason, and the rest is still collected. Only without the source
//! or the VM itself there is nothing to judge: those are errors.

use std::{
    net::IpAddr,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use jiff::Timestamp;
use thiserror::Error;

use super::{
    Uri,
    dirtying::{Dirtying, Plan, Watched},
    flows, guest, host,
    libvirt::{CpuComparison, CpuRequest, Domain, Hypervisor, LibvirtError},
    path, peers,
    probe::host::Questions,
    provenance,
    transport::{Answer, GuestWay, Transport},
    vm::{self, FoundVm},
    worker::{Clock, Found, Worker},
};
use crate::fact::{Cause, Change, Fact, Facts, Guest, Host, UdpCapture, Unknown};

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
    /// How long the guest's pages are traced from the source host, in whole seconds; 0 for not at all.
    pub trace_seconds: u32,
    /// Shortest window of page sampling where there is no trace, and how long flows are watched; 1 to 60.
    pub dirty_window_seconds: u32,
    /// What the operator asked for; copied into the facts.
    pub change: Change,
    /// The way to the source's probe; none takes the one that the URI suggests.
    pub source_probe: Option<Transport>,
    /// The same for the destination.
    pub destination_probe: Option<Transport>,
    /// The way into the guest.
    pub guest_way: GuestWay,
    /// Whether the guest's kernel is to trace which process dirties memory; it slows the guest's writes.
    pub attribute: bool,
    /// Whether VMs on either host that are the other end of a TCP connection are asked, too; libvirt marks them as
    /// tainted.
    pub ask_peers: bool,
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
    let (destination, names) = Destination::start(request, clock);
    let source = Hypervisor::open(&request.from, request.timeout)?;
    let domain = source.domain(&request.vm)?;
    let vm = vm::look(&domain)?;
    let vm_at = clock.now();
    let beside = Beside::start(request, &domain, &vm, names, clock);
    let source_name = Fact::from(source.hostname());
    let source_answers = host::ask(&source, &request.from, source_name);
    let source_at = clock.now();

    let destination = destination.join(request);
    if let (Some(one), Some(other)) = (source_answers.uuid(), destination.answers.uuid())
        && one == other
    {
        return Err(same_host(
            request,
            format!(
                "both have the host UUID {one}; if they are two machines, give one its own host_uuid in libvirtd.conf"
            ),
        ));
    }
    let offers_guest_cpu = offers_guest_cpu(&destination.hypervisor, &vm);
    let beside = beside.join();

    let arch = vm.config.as_ref().and_then(|config| config.arch.as_deref());
    let emulator = source_answers.offer(arch).known().and_then(|offer| offer.emulator.clone());
    let (source_probe, address) = split(&beside.source_probe);
    let source_host = source_answers.with_probe(arch, &source_probe);
    let destination_host =
        Host { offers_guest_cpu, ..destination.answers.with_probe(arch, &destination.probe.value) };
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
            probe_at: beside.source_probe.at,
            way: &way(request.source_probe.as_ref(), &request.from),
            probe: source_probe.as_ref().ok().map(|answer| &answer.probe),
        },
        destination: provenance::Side {
            libvirt_at: destination.at,
            probe_at: destination.probe.at,
            way: &way(request.destination_probe.as_ref(), &request.to),
            probe: destination.probe.value.as_ref().ok().map(|answer| &answer.probe),
        },
        path_at: clock.now(),
    });
    facts.path = Fact::Known(path::path(
        address,
        path::End { nics: &source_host.nics, routes: &source_host.routes },
        path::End { nics: &destination_host.nics, routes: &destination_host.routes },
        &request.change,
    ));
    facts.vm =
        Fact::Known(dirtying.into_vm(vm::complete(&vm, &source_host, &source_probe, emulator.as_deref())));
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

fn same_host(request: &Request, why: String) -> CollectError {
    CollectError::SameHost { from: request.from.to_string(), to: request.to.to_string(), why }
}

/// The way to a host's probe.
fn way(given: Option<&Transport>, uri: &Uri) -> Transport {
    given.cloned().unwrap_or_else(|| Transport::for_uri(uri))
}

/// The destination: its libvirt and its probe.
struct Destination<L, P> {
    libvirt: L,
    probe: P,
}

type AskedDestination = (Hypervisor, host::LibvirtAnswers);

/// The destination, as far as it answered.
struct SeenDestination {
    hypervisor: Result<Hypervisor, Unknown>,
    answers: host::LibvirtAnswers,
    at: Timestamp,
    probe: Found<Answer>,
}

impl Destination<Worker<AskedDestination>, Worker<Answer>> {
    /// Starts both, and gives the end of the line that the destination's host name comes through: the source must
    /// resolve it, so it is asked first.
    fn start(request: &Request, clock: Clock) -> (Self, Receiver<String>) {
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
        let (way, timeout) = (way(request.destination_probe.as_ref(), &request.to), request.timeout);
        let probe = Worker::start(clock, move || way.probe_host(&Questions::default(), timeout));
        (Self { libvirt, probe }, names)
    }

    fn join(self, request: &Request) -> SeenDestination {
        let Found { value, at } = self.libvirt.join();
        let (hypervisor, answers) = match value {
            Ok((hypervisor, answers)) => (Ok(hypervisor), answers),
            Err(why) => (Err(why.clone()), host::unreachable(&request.to, &why)),
        };
        SeenDestination { hypervisor, answers, at, probe: self.probe.join() }
    }
}

/// Whether the destination can give the VM its CPU.
fn offers_guest_cpu(destination: &Result<Hypervisor, Unknown>, vm: &FoundVm) -> Fact<bool> {
    let hypervisor = match destination {
        Ok(hypervisor) => hypervisor,
        Err(why) => return Fact::Unknown(why.clone()),
    };
    let Some(config) = &vm.config else {
        return Fact::unknown(Cause::NotCollected, "the VM's configuration is not known");
    };
    let Some(cpu_xml) = config.cpu_xml.clone() else {
        return Fact::unknown(Cause::NotSupported, "the VM's configuration names no CPU to compare");
    };
    let request = CpuRequest {
        arch: config.arch.clone(),
        machine: config.machine_type.clone(),
        virt_type: config.virt_type.clone(),
        cpu_xml,
    };
    Fact::from(hypervisor.compare_cpu(&request)).map(|answer| answer == CpuComparison::Compatible)
}

/// What is learnt beside the questions to the source's libvirt.
struct Beside<P, G, F, D> {
    source_probe: P,
    guest: G,
    flows: F,
    dirtying: D,
}

/// The guest, and how it was looked into.
type SeenGuest = (Guest, String);

/// The source's probe, and the address that the migration will go to.
type SourceProbe = (Result<Answer, Unknown>, Fact<IpAddr>);

impl Beside<Worker<SourceProbe>, Worker<SeenGuest>, Worker<UdpCapture>, Worker<Dirtying>> {
    fn start(
        request: &Request,
        domain: &Domain,
        vm: &FoundVm,
        names: Receiver<String>,
        clock: Clock,
    ) -> Self {
        let wanted = request.migrate_address.as_deref().map(|text| path::host_of_address(text).to_owned());
        let (probe, timeout, uuid) =
            (way(request.source_probe.as_ref(), &request.from), request.timeout, vm.uuid.clone());
        let source_probe =
            Worker::start(clock, move || Ok(probe_source(&probe, wanted, &names, uuid, timeout)));
        let has_channel = vm.config.as_ref().is_none_or(|config| config.has_agent_channel);
        let window = Duration::from_secs(request.dirty_window_seconds.into());
        let attribute = request.attribute.then_some(window);
        let (guests, state, into) = (domain.clone(), vm.state, request.guest_way.clone());
        let guest =
            Worker::start(clock, move || guest::look(&into, guests, state, has_channel, attribute, timeout));
        let window_seconds = request.dirty_window_seconds;
        let interfaces = flows::Interfaces::of(vm);
        let watcher = way(request.source_probe.as_ref(), &request.from);
        let flows = Worker::start(clock, move || {
            interfaces?.watch(&watcher, Duration::from_secs(window_seconds.into()), timeout)
        });
        let plan = Plan {
            way: way(request.source_probe.as_ref(), &request.from),
            trace_seconds: request.trace_seconds,
            window_seconds,
            timeout,
        };
        let (measured, watched) = (domain.clone(), Watched::of(vm));
        let dirtying = Worker::start(clock, move || Ok(plan.measure(&measured, &watched)));
        Self { source_probe, guest, flows, dirtying }
    }

    fn join(self) -> Beside<Found<SourceProbe>, Found<SeenGuest>, Found<UdpCapture>, Found<Dirtying>> {
        Beside {
            source_probe: self.source_probe.join(),
            guest: self.guest.join(),
            flows: self.flows.join(),
            dirtying: self.dirtying.join(),
        }
    }
}

/// Asks the source's probe, and has it resolve the name that the migration will go to, as libvirt there would.
fn probe_source(
    way: &Transport,
    wanted: Option<String>,
    names: &Receiver<String>,
    vm: Option<String>,
    timeout: Duration,
) -> SourceProbe {
    let wanted = wanted.or_else(|| names.recv_timeout(timeout).ok());
    let literal: Option<IpAddr> = wanted.as_deref().and_then(|name| name.parse().ok());
    let resolve = wanted.clone().filter(|_| literal.is_none());
    let answer = way.probe_host(&Questions { resolve, vm }, timeout);
    let address = match (literal, wanted, &answer) {
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

/// The source's probe and the address, or for both why the work was lost.
fn split(found: &Found<SourceProbe>) -> SourceProbe {
    match &found.value {
        Ok(both) => both.clone(),
        Err(why) => (Err(why.clone()), Fact::Unknown(why.clone())),
    }
}
