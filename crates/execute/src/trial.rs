//! Trial: a migration that is begun with the settings of the move, at the least bandwidth, and taken back as soon as it sends. What
//! both hosts say to it becomes a fact.
//!
//! A [`TrialPass`] permits that and no migration: it is another type than [`crate::Pass`], and `hand` has nothing that finishes a
//! migration for it. A trial is in the ledger before it is begun, and reserves its VM as a move does, so that `vmgate recover`
//! finds what a crash leaves behind.

use std::{
    net::IpAddr,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use vmgate_facts::{Cause, Fact, Trial, TrialAnswer, TrialRefuser, Unknown, Uuid};
use vmgate_judge::change::{Limits, MovePlan};
use vmgate_ledger::{
    Ledger, LedgerError,
    entry::{RunStarted, RunStep},
};
use vmgate_libvirt::{Domain, StopWatch};
use vmgate_verdict::{Effect, Status, Verdict};

use super::{
    Hosts, PermitDesk, VmLocation,
    hand::{self, Phase},
    journal::Journal,
    migration, resolve, run,
    vm_location::Presence,
};

/// Time for both hosts to clean up after a trial.
const SETTLING: Duration = Duration::from_secs(3);
/// Time between two looks at them.
const LOOK: Duration = Duration::from_millis(20);
/// Time for an event of the guest's QEMU to arrive that is on its way.
const LATE_EVENT: Duration = Duration::from_millis(20);

/// Permission to begin the migration of one VM and to take it back. Only the verdict of a check that nothing fails gives one: what
/// is known to fail is not tried, and may harm the destination, as a QEMU without memory would.
#[derive(Debug)]
pub struct TrialPass {
    verdict: Verdict,
    vm: Uuid,
}

impl TrialPass {
    /// Gives a pass for a verdict of now in which no rule that blocks is violated. The error says why there is none.
    pub fn from_verdict(verdict: Verdict) -> Result<Self, String> {
        Self::at(verdict, Timestamp::now())
    }

    fn at(verdict: Verdict, now: Timestamp) -> Result<Self, String> {
        let failed = |status: Status| status == Status::Fail;
        if let Some(first) = verdict.with_effect(Effect::Block).find(|judged| failed(judged.outcome.status)) {
            let (rule, message) = (&first.outcome.rule, &first.outcome.message);
            return Err(format!("the check fails already: {rule}: {message}"));
        }
        if let Some(manager) = &verdict.change.run_by {
            return Err(format!(
                "{manager} would run the migration, and a trial by libvirt would be behind its back"
            ));
        }
        verdict.check_authority(now).map_err(|why| why.to_string())?;
        let moved = &verdict.moved;
        let all = [(&moved.vm, "VM"), (&moved.source, "source"), (&moved.destination, "destination")];
        if let Some((_, what)) = all.iter().find(|(named, _)| named.uuid.is_none()) {
            return Err(format!("the UUID of the {what} is not known"));
        }
        let vm = moved.vm.uuid.clone().ok_or("the UUID of the VM is not known")?;
        Ok(Self { verdict, vm })
    }

    /// UUID of the VM.
    pub(super) fn vm(&self) -> &Uuid {
        &self.vm
    }
}

/// One trial that is to be made.
pub struct TrialOrder<'a> {
    /// Permission for it.
    pub pass: TrialPass,
    /// Connections to both hosts.
    pub hosts: &'a Hosts,
    /// Settings of the move.
    pub plan: &'a MovePlan,
    /// Address at the destination that takes the traffic; libvirt's own choice where there is none.
    pub migrate_address: Option<IpAddr>,
    /// Limits on the number of concurrent moves.
    pub limits: Limits,
    /// Way to the destination's hook.
    pub permits: &'a dyn PermitDesk,
}

/// State of VM and hosts that a trial leaves as it was.
#[derive(Debug, PartialEq, Eq)]
struct Before {
    id: Option<u32>,
    destination: Presence,
}

impl TrialOrder<'_> {
    /// Makes the trial, and looks that nothing is left of it. Unknown if it could not be made.
    pub fn carry_out(&self, ledger: &Ledger, stop: &AtomicBool) -> Fact<Option<Trial>> {
        let made = self.make(ledger, stop);
        made.map(Some)
            .map_err(|why| Unknown::new(why.cause, format!("the trial was not made: {}", why.reason)))
            .into()
    }

    fn make(&self, ledger: &Ledger, stop: &AtomicBool) -> Result<Trial, Unknown> {
        let (domain, before) = self.look_before()?;
        let destination = self.hosts.destination.hypervisor()?;
        let params = migration::params(&domain, self.plan, self.migrate_address)?;
        let run = self.run_started();
        let in_ledger = |error: LedgerError| Unknown::new(Cause::NotCollected, error.to_string());
        ledger.begin(&run, &self.limits).map_err(in_ledger)?;
        let journal = Journal { ledger, run: &run, by_recovery: false };
        // The hook of the destination takes a GO for a trial as for a move, once; for less there is no permit.
        let go = self.pass.verdict.permits_migration(Timestamp::now());
        let permit = go.then(|| self.permits.grant(&self.pass.verdict)).flatten();
        let stops = domain.watch_stops().map_err(Unknown::from);
        let at = Timestamp::now();
        let step = journal.enter(RunStep::Migrate, Some("a trial: it is taken back")).map_err(in_ledger);
        let end = step.and_then(|()| {
            hand::begin_and_take_back(&self.pass, &domain, &destination, &params, stop).map_err(Unknown::from)
        });
        let left_behind = self.look_after(&before);
        if let Some(permit) = permit {
            self.permits.withdraw(&permit);
        }
        let trial = end.and_then(|end| {
            let (refused_by, refusal) =
                end.refusal.map(|(phase, words)| (refuser(phase, &words), words)).unzip();
            if let Some(refusal) = refusal.as_ref().filter(|refusal| is_for_want_of_a_verdict(refusal)) {
                let why = format!("the destination's hook lets a VM in only with a GO: {refusal}");
                return Err(Unknown::new(Cause::NotSupported, why));
            }
            Ok(Trial {
                at,
                answer: if refusal.is_none() { TrialAnswer::Accepted } else { TrialAnswer::Refused },
                refused_by,
                refusal,
                until_sent_seconds: end.until_sent.map(|time| time.as_secs_f64()),
                total_seconds: end.start.elapsed().as_secs_f64(),
                guest_stopped_seconds: stops.map(|stops| settled(&stops)).into(),
                left_behind: left_behind.clone(),
            })
        });
        self.end(&journal, left_behind.as_deref(), trial.as_ref());
        trial
    }

    /// Compares VM and hosts with the check, and looks that nothing is in the way of a trial.
    fn look_before(&self) -> Result<(Domain, Before), Unknown> {
        let moved = &self.pass.verdict.moved;
        let not_now = |why: String| Unknown::new(Cause::NotCollected, why);
        for (host, checked) in
            [(&self.hosts.source, &moved.source), (&self.hosts.destination, &moved.destination)]
        {
            if Some(&host.uuid()?) != checked.uuid.as_ref() {
                return Err(not_now(format!("{} is not the host that was checked", host.name())));
            }
        }
        let domain = self.hosts.source.domain(self.pass.vm.as_str())?;
        if let Some(job) = domain.job_info()? {
            return Err(not_now(format!("libvirt runs another job on the VM ({})", job.operation.name())));
        }
        let seen = VmLocation::look(self.pass.vm.as_str(), self.hosts);
        if !seen.only_on_source() {
            return Err(not_now(seen.to_string()));
        }
        let id = domain.id();
        Ok((domain, Before { id, destination: seen.destination }))
    }

    /// Looks that VM and hosts are as before, and mends what a trial can leave behind. What cannot be mended is returned in words.
    fn look_after(&self, before: &Before) -> Option<String> {
        let vm = self.pass.vm.as_str();
        let start = Instant::now();
        while start.elapsed() < SETTLING {
            self.differs(before, &VmLocation::look(vm, self.hosts))?;
            thread::sleep(LOOK);
        }
        self.differs(before, &resolve::settle_trial(vm, self.hosts))
    }

    fn differs(&self, before: &Before, seen: &VmLocation) -> Option<String> {
        if !seen.only_on_source() || seen.destination != before.destination {
            return Some(seen.to_string());
        }
        match self.hosts.source.domain(self.pass.vm.as_str()) {
            Ok(domain) if domain.id() != before.id => Some("the VM was started anew meanwhile".to_owned()),
            Ok(domain) => match domain.job_info() {
                Ok(None) => None,
                Ok(Some(job)) => Some(format!("a job runs on the VM ({})", job.operation.name())),
                Err(error) => Some(error.to_string()),
            },
            Err(error) => Some(error.to_string()),
        }
    }

    /// Records the end. A trial that left something behind stays open in the ledger, for `vmgate recover`.
    fn end(&self, journal: &Journal, left_behind: Option<&str>, trial: Result<&Trial, &Unknown>) {
        if let Some(left) = left_behind {
            return journal.note(RunStep::Fail, None, Some(&format!("the trial left this behind: {left}")));
        }
        let why = match trial {
            Ok(trial) => trial.refusal.as_ref().map_or_else(
                || "a trial, which was accepted".to_owned(),
                |refusal| format!("a trial, which was refused: {refusal}"),
            ),
            Err(why) => format!("a trial that was not made: {}", why.reason),
        };
        journal.end_trial(self.hosts.source.name(), &why, trial.ok());
    }

    fn run_started(&self) -> RunStarted {
        let moved = &self.pass.verdict;
        let plan = MovePlan { notify: None, actions: Vec::new(), ..self.plan.clone() };
        RunStarted { trial: true, ..run::started(self.hosts, moved, &plan) }
    }
}

/// Component that refused, by the phase and the words of libvirt.
fn refuser(phase: Phase, words: &str) -> TrialRefuser {
    let says = |signs: &[&str]| signs.iter().any(|sign| words.to_ascii_lowercase().contains(sign));
    match phase {
        Phase::Begin => TrialRefuser::SourceLibvirt,
        Phase::Prepare if says(&["hook script"]) => TrialRefuser::DestinationHook,
        Phase::Prepare if says(&["qemu unexpectedly closed", "process exited while", "qemu command"]) => {
            TrialRefuser::DestinationQemu
        }
        Phase::Prepare => TrialRefuser::DestinationLibvirt,
        Phase::Perform if says(&["connect", "tls", "certificate", "handshake", "nothing was sent"]) => {
            TrialRefuser::Connection
        }
        Phase::Perform => TrialRefuser::Qemu,
    }
}

/// True for the refusal of vmgate's own hook: a move brings its verdict along, a trial before the GO has none.
fn is_for_want_of_a_verdict(refusal: &str) -> bool {
    refusal.contains("vmgate: ") && refusal.contains(" was refused")
}

/// Time that the guest was stopped, when no event is on its way any more.
fn settled(stops: &StopWatch) -> f64 {
    thread::sleep(LATE_EVENT);
    stops.stopped().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::sample;

    use super::*;

    fn judged(mut verdict: Verdict) -> Verdict {
        verdict.moved.vm.uuid = Some("5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11".parse().unwrap());
        verdict.moved.source.uuid = Some("6f0d3c4e-1111-4222-8333-000000000001".parse().unwrap());
        verdict.moved.destination.uuid = Some("6f0d3c4e-1111-4222-8333-000000000002".parse().unwrap());
        verdict
    }

    #[test]
    fn what_fails_already_is_not_tried_and_what_lacks_evidence_is() {
        let now = sample::go().evaluated_at;
        assert!(TrialPass::at(judged(sample::go()), now).is_ok());
        let refused = TrialPass::at(judged(sample::no_go()), now).unwrap_err();
        assert!(refused.starts_with("the check fails already"), "{refused}");
        let mut unknown = judged(sample::no_go());
        for judged in &mut unknown.outcomes {
            judged.outcome.status = Status::Unknown;
        }
        assert!(TrialPass::at(unknown, now).is_ok());
        let simulated = Verdict { simulated: true, ..judged(sample::go()) };
        assert!(TrialPass::at(simulated, now).is_err());
        let mut nobody = judged(sample::go());
        nobody.moved.vm.uuid = None;
        assert_eq!(TrialPass::at(nobody, now).unwrap_err(), "the UUID of the VM is not known");
    }

    #[test]
    fn the_words_of_libvirt_tell_who_refused() {
        let cases = [
            (
                Phase::Begin,
                "Requested operation is not valid: domain has assigned host devices",
                TrialRefuser::SourceLibvirt,
            ),
            (
                Phase::Prepare,
                "Hook script execution failed: internal error: Child process (LC_ALL=C /etc/libvirt/hooks/qemu)",
                TrialRefuser::DestinationHook,
            ),
            (
                Phase::Prepare,
                "internal error: QEMU unexpectedly closed the monitor (vm='web'): unable to map backing store",
                TrialRefuser::DestinationQemu,
            ),
            (
                Phase::Prepare,
                "Secret not found: no secret with matching usage",
                TrialRefuser::DestinationLibvirt,
            ),
            (
                Phase::Perform,
                "unable to connect to server at '10.77.1.2:49152': Connection refused",
                TrialRefuser::Connection,
            ),
            (Phase::Perform, "operation failed: job 'migration out' failed", TrialRefuser::Qemu),
        ];
        for (phase, words, expected) in cases {
            assert_eq!(refuser(phase, words), expected, "{words}");
        }
    }

    #[test]
    fn the_hook_of_vmgate_is_told_from_others() {
        let own = "Hook script execution failed: vmgate: web was refused: no verdict for it waits here";
        assert!(is_for_want_of_a_verdict(own));
        assert!(!is_for_want_of_a_verdict("Hook script execution failed: web may not come here"));
    }
}
