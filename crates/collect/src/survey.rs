//! Survey of many hosts with all their VMs in one pass, for audits: one login and one probe run per host, however
//! many VMs and destinations there are. Nothing is measured and no guest is asked.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use jiff::Timestamp;
use vmgate_facts::{Cause, Change, Fact, Facts, Host, Unknown, Uri, VmState};
use vmgate_libvirt::{Hypervisor, ask_each};
use vmgate_probe::{
    host::{HostQuestions, ManagerQuestions},
    path::{self, PathEnd},
};
use vmgate_reach::SharedSsh;

use super::{
    dirty_measurement::DirtyMeasurement,
    host::{self, LibvirtAnswers},
    needed_files,
    offer::{self, Offer, OfferRequest},
    provenance,
    transport::{Answer, Transport},
    vm::{self, FoundVm, Monitor},
};

/// Most paths in one question: the host's file systems have a time limit for each.
const PATHS_AT_ONCE: usize = 1000;

/// A host to survey.
#[derive(Debug, Clone)]
pub struct HostRequest {
    /// Name of the host in the configuration and in reports.
    pub name: String,
    /// URI under which libvirt reaches the host.
    pub uri: Uri,
    /// Transport of the host probe.
    pub probe: Transport,
    /// Reason why the host must not receive VMs, from the site's configuration.
    pub maintenance: Option<String>,
    /// Address for migrations to the host; none where the configuration names none.
    pub migrate_address: Option<IpAddr>,
}

/// Result of a survey: hosts, and the VMs that run on each.
pub struct Survey {
    hosts: Vec<SurveyedHost>,
    at: Timestamp,
}

/// One host, as far as libvirt and the probe answered.
struct SurveyedHost {
    request: HostRequest,
    answers: LibvirtAnswers,
    probe: Result<Answer, Unknown>,
    vms: Vec<FoundVm>,
    idle: usize,
    /// Offers to VMs of other hosts.
    offers: HashMap<OfferRequest, Offer>,
    unreachable: Option<Unknown>,
}

/// A possible move: a VM of the survey, and another host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PossibleMove {
    source: usize,
    vm: usize,
    destination: usize,
}

/// Summary of a surveyed host, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSummary {
    /// Name of the host.
    pub name: String,
    /// URI of the host, without secrets.
    pub uri: String,
    /// Number of VMs that run on the host.
    pub running: usize,
    /// Number of VMs that are defined on the host and do not run.
    pub idle: usize,
    /// Reason why the host did not answer; none where it did.
    pub unreachable: Option<Unknown>,
}

/// Steps of [`survey`] for each host: the number of calls of `done`, for progress bars.
pub const STEPS_PER_HOST: u64 = 2;

/// Surveys all hosts, several at a time. `timeout` is the longest wait for one answer; `done` is called after each step of
/// a host, [`STEPS_PER_HOST`] times for each.
pub fn survey(
    requests: Vec<HostRequest>,
    managers: ManagerQuestions,
    timeout: Duration,
    now: Timestamp,
    done: impl Fn() + Sync,
) -> Survey {
    let ssh = SharedSsh::make();
    let reached = ask_each(&requests, |request| {
        let reached = ConnectedHost::ask(request, ssh.as_ref(), timeout);
        done();
        reached
    });
    let configs = || reached.iter().flat_map(ConnectedHost::configs);
    let needed = HostQuestions {
        files: needed_files::of(configs()),
        opened: needed_files::opened(configs()),
        ports: configs().flat_map(needed_files::ports).collect(),
        programs: needed_files::programs(configs()),
        devices: needed_files::devices(configs()),
        managers,
        ..HostQuestions::default()
    };
    // A host is not asked for its offer to its own VMs: they run there already.
    let wanted = offer_requests(&reached);
    let tasks: Vec<(usize, &HostRequest, &ConnectedHost)> = requests
        .iter()
        .zip(&reached)
        .enumerate()
        .map(|(at, (request, reached))| (at, request, reached))
        .collect();
    let answers = ask_each(&tasks, |(at, request, reached)| {
        let others = wanted.iter().filter(|(owner, _)| *owner != at).flat_map(|(_, wanted)| wanted);
        let answer = (probe(request, reached, &needed, ssh.as_ref(), timeout), reached.offers(others));
        done();
        answer
    });
    let hosts = requests.into_iter().zip(reached).zip(answers);
    let hosts = hosts.map(|((request, reached), (probe, offers))| SurveyedHost {
        request,
        answers: reached.answers,
        probe,
        vms: reached.vms,
        idle: reached.idle,
        offers,
        unreachable: reached.hypervisor.err(),
    });
    Survey { hosts: hosts.collect(), at: now }
}

/// Offer requests of the VMs of each host, without duplicates.
fn offer_requests(reached: &[ConnectedHost]) -> BTreeMap<usize, Vec<OfferRequest>> {
    let of = |host: &ConnectedHost| {
        let mut seen = Vec::new();
        for wanted in host.configs().map(OfferRequest::of) {
            if !seen.contains(&wanted) {
                seen.push(wanted);
            }
        }
        seen
    };
    reached.iter().enumerate().map(|(at, host)| (at, of(host))).collect()
}

/// A host after the first round: the answers of its libvirt.
struct ConnectedHost {
    hypervisor: Result<Hypervisor, Unknown>,
    answers: LibvirtAnswers,
    vms: Vec<FoundVm>,
    idle: usize,
}

impl ConnectedHost {
    fn ask(request: &HostRequest, ssh: Option<&SharedSsh>, timeout: Duration) -> Self {
        let uri = &request.uri;
        let by_ssh = uri.transport.as_deref() == Some("ssh") && uri.parameter("command").is_none();
        let ssh = ssh.filter(|_| by_ssh).map(|ssh| (ssh.program().to_owned(), ()));
        let hypervisor = match Hypervisor::open_over(uri, || Ok(ssh), timeout) {
            Ok(hypervisor) => hypervisor,
            Err(error) => {
                let why = Unknown::from(error);
                let answers = host::unreachable(Some(&request.uri), &why);
                return Self { hypervisor: Err(why), answers, vms: Vec::new(), idle: 0 };
            }
        };
        let hostname = Fact::from(hypervisor.hostname());
        let answers = host::ask(&hypervisor, &request.uri, hostname);
        let guests = answers.guests.known().map(Vec::as_slice).unwrap_or_default();
        let active: Vec<_> = guests.iter().filter(|guest| guest.active).collect();
        // A VM that ended meanwhile is not a VM of the host any more.
        let vms = ask_each(&active, |guest| vm::look(&guest.domain, Monitor::Forbidden).ok());
        let vms: Vec<FoundVm> = vms.into_iter().flatten().filter(|vm| vm.state != VmState::ShutOff).collect();
        let idle = guests.len().saturating_sub(vms.len());
        Self { hypervisor: Ok(hypervisor), vms, idle, answers }
    }

    fn configs(&self) -> impl Iterator<Item = &vmgate_libvirt::domain_xml::DomainConfig> {
        self.vms.iter().filter_map(|vm| vm.config.as_ref())
    }

    fn offers<'a>(&self, wanted: impl Iterator<Item = &'a OfferRequest>) -> HashMap<OfferRequest, Offer> {
        let mut different: Vec<&OfferRequest> = Vec::new();
        for wanted in wanted {
            if !different.contains(&wanted) {
                different.push(wanted);
            }
        }
        match &self.hypervisor {
            Ok(hypervisor) => {
                let offers = ask_each(&different, |wanted| offer::ask(hypervisor, wanted));
                different.into_iter().cloned().zip(offers).collect()
            }
            Err(why) => different.into_iter().map(|wanted| (wanted.clone(), Offer::unknown(why))).collect(),
        }
    }
}

/// Runs a host's probe for the facts of the host, the processes of its VMs and the files that any VM needs.
fn probe(
    request: &HostRequest,
    reached: &ConnectedHost,
    needed: &HostQuestions,
    ssh: Option<&SharedSsh>,
    timeout: Duration,
) -> Result<Answer, Unknown> {
    // The probe mostly takes the same way as libvirt: an unreachable host is not waited for twice.
    if let Err(why) = &reached.hypervisor {
        return Err(why.clone());
    }
    let way = request.probe.clone();
    let way = match ssh {
        Some(ssh) => way.over(ssh),
        None => way,
    };
    let mut batches = needed.files.chunks(PATHS_AT_ONCE).map(<[String]>::to_vec);
    let vms = reached.vms.iter().filter_map(|vm| vm.uuid.clone()).collect();
    let files = batches.next().unwrap_or_default();
    let qemu_user = reached.answers.qemu_user();
    let first = HostQuestions { vms, files, qemu_user: qemu_user.clone(), ..needed.clone() };
    let mut answer = way.probe_host(&first, timeout)?;
    for files in batches {
        let (opened, qemu_user) = (needed.opened.clone(), qemu_user.clone());
        let more = HostQuestions { files, opened, qemu_user, ..HostQuestions::default() };
        let more = way.probe_host(&more, timeout)?;
        answer.probe.files = match (answer.probe.files, more.probe.files) {
            (Fact::Known(mut all), Fact::Known(more)) => {
                all.extend(more);
                Fact::Known(all)
            }
            (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => Fact::Unknown(why),
        };
    }
    Ok(answer)
}

impl Survey {
    /// Summaries of the hosts, in the order of the requests.
    pub fn hosts(&self) -> Vec<HostSummary> {
        let name = |host: &SurveyedHost| HostSummary {
            name: host.request.name.clone(),
            uri: host.request.uri.to_string(),
            running: host.vms.len(),
            idle: host.idle,
            unreachable: host.unreachable.clone(),
        };
        self.hosts.iter().map(name).collect()
    }

    /// Facts of the hosts without a move, in the order of the requests; unknown for a host that did not answer.
    pub fn host_facts(&self) -> Vec<Fact<Host>> {
        let of = |host: &SurveyedHost| match &host.unreachable {
            Some(why) => Fact::Unknown(why.clone()),
            None => Fact::Known(host.host(None, &BTreeSet::new())),
        };
        self.hosts.iter().map(of).collect()
    }

    /// Every running VM: the index of its host, and the index of the VM on that host.
    pub fn vms(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let hosts = self.hosts.iter().enumerate();
        hosts.flat_map(|(at, host)| (0..host.vms.len()).map(move |vm| (at, vm)))
    }

    /// The move of a VM, by the index of its host and its own index there, to another host.
    pub fn possible(source: usize, vm: usize, destination: usize) -> PossibleMove {
        PossibleMove { source, vm, destination }
    }

    /// Every possible move of a running VM to another host: host by host, VM by VM.
    pub fn moves(&self) -> Vec<PossibleMove> {
        let hosts = self.hosts.iter().enumerate();
        hosts
            .flat_map(|(source, host)| {
                (0..host.vms.len()).flat_map(move |vm| {
                    let others = (0..self.hosts.len()).filter(move |destination| *destination != source);
                    others.map(move |destination| PossibleMove { source, vm, destination })
                })
            })
            .collect()
    }

    /// Names of the source and the destination of a move.
    pub fn host_names(&self, wanted: PossibleMove) -> Option<(&str, &str)> {
        let name = |at: usize| self.hosts.get(at).map(|host| host.request.name.as_str());
        Some((name(wanted.source)?, name(wanted.destination)?))
    }

    /// Facts of one move, as `collect` would write them. None for a move of another survey.
    pub fn facts(&self, wanted: PossibleMove) -> Option<Facts> {
        let (source, destination) = (self.hosts.get(wanted.source)?, self.hosts.get(wanted.destination)?);
        let found = source.vms.get(wanted.vm)?;
        let config = found.config.as_ref();
        let arch = config.and_then(|config| config.arch.as_deref());
        let files: BTreeSet<String> = needed_files::of(config).into_iter().collect();
        let from = source.host(arch, &files);
        let offer = config.and_then(|config| destination.offers.get(&OfferRequest::of(config)).cloned());
        let mut to =
            offer.unwrap_or_else(|| Offer::unknown(&not_asked())).apply_to(destination.host(arch, &files));
        if let (Some(_), Fact::Known(files)) =
            (config.and_then(|config| config.user_label.user.as_ref()), &mut to.files)
        {
            for file in files {
                file.opening = Fact::unknown(
                    Cause::NotCollected,
                    "the VM runs as a user of its own, which an audit does not try: use `vmgate check` for this move",
                );
            }
        }
        let emulator = source.answers.offer(arch).known().and_then(|offer| offer.emulator.clone());
        let address = destination.request.migrate_address.map_or_else(
            || {
                Fact::unknown(
                    Cause::NotCollected,
                    "an audit does not resolve host names: set hosts.NAME.migrate_address in vmgate.yaml",
                )
            },
            Fact::Known,
        );
        let not_measured = Unknown::new(
            Cause::NotCollected,
            "an audit takes no measurements: use `vmgate check` for this move",
        );
        let change = Change::default();
        let mut facts = Facts::empty(self.at);
        let nothing_tried = || {
            Unknown::new(
                Cause::NotCollected,
                "an audit does not test the migration path: use `vmgate check` for this move",
            )
        };
        facts.path = Fact::Known(path::path(
            address,
            &source.end(&from),
            &destination.end(&to),
            &change,
            Fact::Unknown(nothing_tried()),
            Err(nothing_tried()),
        ));
        let vm = vm::complete(found, &from, &source.probe, emulator.as_deref());
        facts.vm = Fact::Known(DirtyMeasurement::unknown(&not_measured).into_vm(vm));
        facts.guest = Fact::unknown(
            Cause::NotCollected,
            "an audit does not look into guests: use `vmgate check` for this move",
        );
        facts.source = Fact::Known(from);
        facts.destination = Fact::Known(to);
        facts.provenance = provenance::of_survey(self.at);
        Some(facts)
    }
}

fn not_asked() -> Unknown {
    Unknown::new(Cause::NotCollected, "the VM's configuration could not be read")
}

impl SurveyedHost {
    /// The host as an end of a path, without the facts for which its probe would have to test the other end.
    fn end<'a>(&'a self, host: &'a Host) -> PathEnd<'a> {
        let not_asked = Unknown::new(
            Cause::NotCollected,
            "an audit does not ask a host about another host: use `vmgate check` for this move",
        );
        let probe = self.probe.as_ref().map(|answer| &answer.probe);
        PathEnd::of(probe, &host.nics, &host.routes, Fact::Unknown(not_asked)).reached_by(&self.request.uri)
    }

    /// Facts of the host for one move: of the files only those that the VM needs.
    fn host(&self, arch: Option<&str>, files: &BTreeSet<String>) -> Host {
        let mut host = self.answers.with_probe(arch, &self.probe);
        if let Fact::Known(all) = &mut host.files {
            all.retain(|file| files.contains(&file.path));
        }
        if let Some(reason) = &self.request.maintenance {
            host.maintenance = Fact::Known(Some(reason.clone()));
        }
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, uri: &str) -> HostRequest {
        HostRequest {
            name: name.to_owned(),
            uri: Uri::from_operator(uri).unwrap(),
            probe: Transport::for_uri(&Uri::from_operator(uri).unwrap()),
            maintenance: (name == "b").then(|| "new disks".to_owned()),
            migrate_address: None,
        }
    }

    /// 10,000 hosts, two a survey, by libvirt's mock driver: every call that a survey makes of libvirt's client library, without a
    /// daemon. About a minute.
    #[test]
    #[ignore = "a minute of calls; make unit runs it"]
    fn ten_thousand_collections_leave_nothing_behind() {
        let once = || {
            let requests = vec![request("a", "test:///default"), request("b", "test:///default")];
            let survey = survey(
                requests,
                ManagerQuestions::default(),
                Duration::from_mins(1),
                Timestamp::UNIX_EPOCH,
                || (),
            );
            assert_eq!(survey.moves().into_iter().filter_map(|wanted| survey.facts(wanted)).count(), 2);
        };
        let resident = || {
            let status = procfs::process::Process::myself().unwrap().status().unwrap();
            (status.vmrss.unwrap(), status.threads)
        };
        (0..500).for_each(|_| once());
        let (before, threads) = resident();
        (0..5_000).for_each(|_| once());
        let (after, threads_after) = resident();
        let grown = after.saturating_sub(before);
        println!("{before} KiB before, {after} KiB after, {threads} and {threads_after} threads");
        assert!(grown < 4 << 10, "{grown} KiB more than before");
        assert!(threads_after <= threads + 4, "{threads_after} threads were {threads}");
    }

    #[test]
    fn a_lost_host_takes_nothing_and_hides_nothing() {
        let gone = "qemu+unix:///system?socket=/nonexistent/libvirt-sock";
        let requests =
            vec![request("a", "test:///default"), request("b", "test:///default"), request("c", gone)];
        let survey = survey(
            requests,
            ManagerQuestions::default(),
            Duration::from_secs(10),
            Timestamp::UNIX_EPOCH,
            || {},
        );
        let hosts = survey.hosts();
        assert_eq!(hosts.iter().map(|host| host.running).collect::<Vec<_>>(), [1, 1, 0]);
        assert!(hosts[2].unreachable.is_some());
        let moves = survey.moves();
        assert_eq!(moves.len(), 4, "each of two VMs to each of two other hosts");
        let ends: Vec<_> = moves.iter().map(|wanted| survey.host_names(*wanted).unwrap()).collect();
        assert_eq!(ends, [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c")]);
        let facts = survey.facts(moves[0]).unwrap();
        assert_eq!(facts.vm.known().unwrap().name, Fact::Known("test".into()));
        let destination = facts.destination.known().unwrap();
        assert_eq!(destination.maintenance, Fact::Known(Some("new disks".into())));
        let lost = survey.facts(moves[1]).unwrap();
        let vms = &lost.destination.known().unwrap().vms;
        assert!(matches!(vms, Fact::Unknown(why) if why.cause == Cause::HostUnreachable), "{vms:?}");
    }
}
