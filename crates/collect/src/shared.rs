//! Work that several collections share: connections, logins, turns of measurement, and what was seen of a VM a moment ago.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use vmgate_facts::{Cause, Fact, Facts, Unknown, Uri};
use vmgate_libvirt::{Hypervisor, LibvirtError};
use vmgate_probe::host::HostQuestions;
use vmgate_reach::{Slot, Slots};

use super::{
    CollectRequest,
    host::LibvirtAnswers,
    host_probes::TryPath,
    monitored,
    transport::{Answer, Transport},
};

/// Shared work of a collection; by default it shares nothing.
#[derive(Debug, Clone, Default)]
pub struct SharedWork {
    /// Open connection to the source.
    source: Option<Hypervisor>,
    /// Connection to the destination, or the reason for which there is none.
    destination: Option<Result<Hypervisor, Unknown>>,
    /// Answers of the source and of the destination.
    answers: [HostAnswers; 2],
    /// Turns of measurement at the source.
    turns: Turns,
    /// Facts of the same VM from a moment ago, for another destination: its guest is not asked and nothing is measured again.
    seen: Option<Arc<Facts>>,
}

/// Answers of a host that are the same for every VM, for collections that share them: they ask once, and the others wait
/// meanwhile. A failure is shared too. By default each collection asks by itself.
#[derive(Debug, Clone, Default)]
pub(super) struct HostAnswers(Option<Arc<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    /// First answers of the probe.
    probe: Mutex<Vec<(HostQuestions, SharedAnswer)>>,
    libvirt: OnceLock<(LibvirtAnswers, Timestamp)>,
}

type SharedAnswer = Arc<OnceLock<Result<Answer, Unknown>>>;

impl HostAnswers {
    fn shared() -> Self {
        Self(Some(Arc::default()))
    }

    /// Answers of libvirt, and the time at which they were complete by this machine's clock.
    pub(super) fn of_libvirt(&self, ask: impl FnOnce() -> LibvirtAnswers) -> (LibvirtAnswers, Timestamp) {
        let ask = || (ask(), Timestamp::now());
        match &self.0 {
            Some(shared) => shared.libvirt.get_or_init(ask).clone(),
            None => ask(),
        }
    }

    /// Answer of the probe to these questions.
    pub(super) fn of_probe(
        &self,
        way: &Transport,
        questions: &HostQuestions,
        timeout: Duration,
    ) -> Result<Answer, Unknown> {
        let ask = || way.probe_host(questions, timeout);
        let Some(shared) = &self.0 else { return ask() };
        let answer = {
            let mut answers = shared.probe.lock().unwrap_or_else(PoisonError::into_inner);
            let known =
                answers.iter().find(|(asked, _)| asked == questions).map(|(_, answer)| answer.clone());
            known.unwrap_or_else(|| {
                let answer = SharedAnswer::default();
                answers.push((questions.clone(), answer.clone()));
                answer
            })
        };
        answer.get_or_init(ask).clone()
    }
}

/// A host with its ways open: one login for its probe and the connection to its libvirt, for any number of collections.
#[derive(Debug, Clone)]
pub struct OpenHost {
    /// URI of the host.
    pub uri: Uri,
    /// Connection to its libvirt.
    pub libvirt: Result<Hypervisor, LibvirtError>,
    /// Way to its probe.
    pub probe: Transport,
    /// Answers that it gave already.
    answers: HostAnswers,
}

impl OpenHost {
    /// Opens both ways, of which `probe` is one.
    pub fn open(uri: &Uri, probe: Transport, timeout: Duration) -> Self {
        let libvirt = probe.open_libvirt(uri, timeout);
        Self { uri: uri.clone(), libvirt, probe, answers: HostAnswers::shared() }
    }

    /// Name that other hosts resolve to migrate to it.
    pub(super) fn hostname(&self) -> Result<String, Unknown> {
        match &self.libvirt {
            _ if !self.uri.names_libvirt() => Ok(monitored::hostname(&self.uri)),
            Ok(libvirt) => Ok(libvirt.hostname()?),
            Err(error) => Err(error.clone().into()),
        }
    }
}

impl CollectRequest {
    /// The request over open hosts, with their turns of measurement, and with what was seen of its VM before.
    #[must_use]
    pub fn over(
        self,
        (source, destination): (&OpenHost, &OpenHost),
        turns: &Turns,
        seen: Option<Arc<Facts>>,
    ) -> Self {
        let shared = SharedWork {
            answers: [source.answers.clone(), destination.answers.clone()],
            source: source.libvirt.as_ref().ok().cloned(),
            destination: Some(destination.libvirt.clone().map_err(Unknown::from)),
            turns: turns.clone(),
            seen,
        };
        Self {
            from: source.uri.clone(),
            to: Some(destination.uri.clone()),
            source_probe: source.probe.clone(),
            destination_probe: destination.probe.clone(),
            shared,
            ..self
        }
    }

    pub(super) fn open_source(&self) -> Result<Hypervisor, LibvirtError> {
        let open = || self.source_probe.open_libvirt(&self.from, self.timeout);
        self.shared.source.clone().map_or_else(open, Ok)
    }

    /// Way to open the destination, for a thread of its own.
    pub(super) fn destination_opener(
        &self,
    ) -> impl FnOnce(&Uri) -> Result<Hypervisor, Unknown> + Send + 'static {
        let (opened, timeout) = (self.shared.destination.clone(), self.timeout);
        let way = self.destination_probe.clone();
        move |uri| opened.unwrap_or_else(|| Ok(way.open_libvirt(uri, timeout)?))
    }

    /// Answers of libvirt at the source and at the destination.
    pub(super) fn libvirt_answers(&self) -> [HostAnswers; 2] {
        self.shared.answers.clone()
    }

    /// First answers of the source's and of the destination's probe. The port that one collection tries is taken for another: then
    /// each asks by itself.
    pub(super) fn probe_answers(&self) -> [HostAnswers; 2] {
        match self.try_path {
            TryPath::No => self.shared.answers.clone(),
            TryPath::Connect | TryPath::Stream(_) => Default::default(),
        }
    }

    pub(super) fn turns(&self) -> Turns {
        self.shared.turns.clone()
    }

    pub(super) fn seen(&self) -> Option<&Facts> {
        self.shared.seen.as_deref()
    }
}

/// Turns of measurement on one host: one VM at a time, and none after the budget of time.
#[derive(Debug, Clone)]
pub struct Turns {
    turn: Arc<Slots>,
    /// End of the budget, and its length.
    until: Option<(Instant, Duration)>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { turn: Slots::new(1), until: None }
    }
}

impl Turns {
    /// Turns that begin within this time from now.
    pub fn within(budget: Duration) -> Self {
        Self { until: Instant::now().checked_add(budget).map(|end| (end, budget)), ..Self::default() }
    }

    /// Waits for the turn. The error is the reason for which nothing more is measured.
    pub(super) fn take(&self) -> Result<Slot, Unknown> {
        let turn = self.turn.take();
        match self.until {
            Some((end, budget)) if Instant::now() >= end => Err(Unknown::new(
                Cause::NotCollected,
                format!(
                    "the time for measurements ({} s) was over before the turn of this VM: give more with --budget SECONDS, or \
                     check this VM alone",
                    budget.as_secs()
                ),
            )),
            _ => Ok(turn),
        }
    }
}

/// Takes over what was measured of the VM and learnt from its guest a moment ago, with its provenance.
pub(super) fn take_over(seen: &Facts, facts: &mut Facts) {
    facts.guest = seen.guest.clone();
    if let (Fact::Known(vm), Fact::Known(before)) = (&mut facts.vm, &seen.vm) {
        vm.dirty_rate = before.dirty_rate.clone();
        vm.dirty_windows = before.dirty_windows.clone();
        vm.dirty_trace = before.dirty_trace.clone();
    }
    let is_taken =
        |path: &str| path == "guest" || path.starts_with("guest.") || path.starts_with("vm.dirty_");
    facts.provenance.retain(|path, _| !is_taken(path));
    let taken = seen.provenance.iter().filter(|(path, _)| is_taken(path));
    facts.provenance.extend(taken.map(|(path, note)| (path.clone(), note.clone())));
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn a_host_is_asked_once_for_what_is_the_same_for_every_vm() {
        let folder = tempfile::tempdir().unwrap();
        let asked = folder.path().join("asked");
        let script = ["sh", "-c", "echo asked >>\"$0\"", asked.to_str().unwrap()];
        let way = Transport::Exec(script.map(str::to_owned).to_vec());
        let ask = |answers: &HostAnswers, questions: &HostQuestions| {
            answers.of_probe(&way, questions, Duration::from_secs(20)).unwrap_err().cause
        };
        let times = || fs::read_to_string(&asked).unwrap().lines().count();
        let (shared, plain) = (HostAnswers::shared(), HostQuestions::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(ask(&shared, &plain), Cause::Malformed));
            }
        });
        assert_eq!(times(), 1);
        ask(&shared, &HostQuestions { resolve: Some("hv2".into()), ..HostQuestions::default() });
        assert_eq!(times(), 2, "another question has an answer of its own");
        ask(&HostAnswers::default(), &plain);
        assert_eq!(times(), 3, "a collection that shares nothing asks by itself");
    }

    #[test]
    fn one_vm_is_measured_at_a_time_and_none_after_the_budget() {
        let turns = Turns::within(Duration::from_mins(10));
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let turn = turns.take().unwrap();
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(turn);
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
        let over = Turns::within(Duration::ZERO);
        let why = over.take().map(drop).unwrap_err();
        assert!(why.reason.contains("--budget"), "{}", why.reason);
    }
}
