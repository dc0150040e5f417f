//! Checks of several moves at once: the possible destinations of a VM, and every VM of a host.
//!
//! Each host is opened once, with one connection and one login. A VM is measured and its guest is asked once, whatever the
//! number of destinations, and VMs of one host are measured one after the other.

use std::{sync::Arc, time::Duration};

use vmgate_collect::{CollectError, OpenHost, Turns};
use vmgate_facts::{Change, Facts, Uri, text::with_causes};
use vmgate_judge::{EvidenceOrigin, Policy, VerdictRequest, change::ReservedMemory};
use vmgate_libvirt::{LibvirtError, ask_each};
use vmgate_probe::qemu::VmMonitor;
use vmgate_verdict::{Decision, Verdict};

use super::{
    Failure, collect,
    options::{EvaluationTime, MoveOptions},
    output,
    session::Session,
    site,
};

/// A check of several moves.
pub(super) struct ManyMoves<'a> {
    pub(super) the_move: &'a MoveOptions,
    /// Goals of every move.
    pub(super) change: Change,
    pub(super) session: &'a Session<'a>,
    pub(super) policy: &'a Policy,
    pub(super) time: &'a EvaluationTime,
    pub(super) strict: bool,
}

/// Open hosts of the moves, with the turns of measurement at the source.
struct Opened {
    source: OpenHost,
    destinations: Vec<OpenHost>,
    turns: Turns,
}

/// Facts of the moves of one VM, by the index of the destination.
struct SeenVm {
    name: String,
    first: Arc<Facts>,
}

impl ManyMoves<'_> {
    /// The best verdict on the moves of a VM to these destinations, with the others as its alternatives.
    pub(super) fn of_vm(&self, vm: &str, source: &Uri, destinations: &[Uri]) -> Result<Verdict, Failure> {
        let opened = self.open(source, destinations, Turns::default())?;
        let bar = output::progress(self.session.shared, destinations.len() as u64, "destinations");
        let first = Arc::new(self.facts(&opened, vm, 0, None)?);
        bar.inc(1);
        let others: Vec<usize> = (1..opened.destinations.len()).collect();
        let facts = ask_each(&others, |at| {
            let facts = self.facts(&opened, vm, *at, Some(Arc::clone(&first)));
            bar.inc(1);
            facts
        });
        bar.finish_and_clear();
        let mut verdicts = vec![self.judge(Facts::clone(&first))?.1];
        for facts in facts {
            verdicts.push(self.judge(facts?)?.1);
        }
        Verdict::best_of(verdicts).ok_or_else(|| Failure::usage("no destination was named"))
    }

    /// The best verdict for each VM that runs on the source. The VMs are placed one after the other: memory that one takes at its
    /// destination is not there for the next, and further destinations are tried only for a VM that may not go to the first.
    pub(super) fn of_host(
        &self,
        source: &Uri,
        destinations: &[Uri],
        budget: Duration,
    ) -> Result<Vec<Verdict>, Failure> {
        let opened = self.open(source, destinations, Turns::within(budget))?;
        let vms = running(&opened.source, self.session.timeout())?;
        let bar = output::progress(self.session.shared, vms.len() as u64, "VMs");
        let seen = ask_each(&vms, |vm| {
            let first = self.facts(&opened, vm, 0, None);
            bar.inc(1);
            first.map(|first| SeenVm { name: vm.clone(), first: Arc::new(first) })
        });
        bar.finish_and_clear();
        let mut reserved = ReservedMemory::default();
        let mut verdicts = Vec::new();
        for (vm, seen) in vms.iter().zip(seen) {
            match seen {
                Ok(seen) => verdicts.extend(self.place(&seen, &opened, &mut reserved)?),
                // It may have ended or moved meanwhile.
                Err(failure) => tracing::warn!("{vm}: not checked: {}", failure.text),
            }
        }
        Ok(verdicts)
    }

    /// The best verdict for a VM, whose memory is reserved at its destination.
    fn place(
        &self,
        vm: &SeenVm,
        opened: &Opened,
        reserved: &mut ReservedMemory,
    ) -> Result<Option<Verdict>, Failure> {
        let mut judged = Vec::new();
        for at in 0..opened.destinations.len() {
            let mut facts = match at {
                0 => Facts::clone(&vm.first),
                _ => self.facts(opened, &vm.name, at, Some(Arc::clone(&vm.first)))?,
            };
            reserved.subtract_from(&mut facts);
            let (facts, verdict) = self.judge(facts)?;
            let is_go = matches!(verdict.decision, Decision::Go(_));
            judged.push((facts, verdict));
            if is_go {
                break;
            }
        }
        if let Some((facts, verdict)) = judged.last() {
            reserved.add_move(facts, verdict);
        }
        Ok(Verdict::best_of(judged.into_iter().map(|(_, verdict)| verdict).collect()))
    }

    /// Opens all hosts at the same time. Without the source there is nothing to check.
    fn open(&self, source: &Uri, destinations: &[Uri], turns: Turns) -> Result<Opened, Failure> {
        let hosts: Vec<&Uri> = std::iter::once(source).chain(destinations).collect();
        let probes = hosts.iter().map(|uri| self.session.way(uri)).collect::<Result<Vec<_>, _>>()?;
        let wanted: Vec<_> = hosts.into_iter().zip(probes).collect();
        let timeout = self.session.timeout();
        let opened = ask_each(&wanted, |(uri, probe)| OpenHost::open(uri, probe.clone(), timeout));
        let mut opened = opened.into_iter();
        let source = opened.next().ok_or_else(|| Failure::usage("no source was named"))?;
        if let (true, Err(error)) = (source.uri.names_libvirt(), &source.libvirt) {
            return Err(Failure::failed(with_causes(error)));
        }
        Ok(Opened { source, destinations: opened.collect(), turns })
    }

    fn facts(
        &self,
        opened: &Opened,
        vm: &str,
        destination: usize,
        seen: Option<Arc<Facts>>,
    ) -> Result<Facts, Failure> {
        let Some(to) = opened.destinations.get(destination) else {
            return Err(Failure::usage("no destination was named"));
        };
        let hosts = (opened.source.uri.clone(), Some(to.uri.clone()));
        let request = self.the_move.request_between(hosts, vm, self.change.clone(), self.session)?;
        let request = request.over((&opened.source, to), &opened.turns, seen);
        vmgate_collect::collect(&request, self.time.now())
            .map_err(|error: CollectError| collect::failure(&error))
    }

    fn judge(&self, facts: Facts) -> Result<(Facts, Verdict), Failure> {
        let facts = self.session.with_history(facts)?;
        let asked = VerdictRequest {
            strict: self.strict,
            evidence: EvidenceOrigin::Live,
            simulated: self.time.is_simulated(),
            ..VerdictRequest::default()
        };
        let verdict = self.policy.judge(facts.clone(), self.time.now(), &asked);
        Ok((facts, verdict))
    }
}

/// Names of the VMs that run on a host, sorted: by libvirt, or by their monitors where the host is only logged in to.
fn running(host: &OpenHost, timeout: Duration) -> Result<Vec<String>, Failure> {
    let names: Vec<String> = if host.uri.names_libvirt() {
        let failed = |error: &LibvirtError| Failure::failed(with_causes(error));
        let hypervisor = host.libvirt.as_ref().map_err(failed)?;
        let guests = hypervisor.guests().map_err(|error| failed(&error))?;
        guests.into_iter().filter(|guest| guest.active).map(|guest| guest.name).collect()
    } else {
        let vms = site::running_at(&host.uri, &host.probe, timeout)?;
        vms.monitors.iter().map(VmMonitor::handle).collect()
    };
    if names.is_empty() {
        return Err(Failure {
            exit: vmgate_verdict::ExitCode::NothingEvaluated,
            text: format!("no VM runs on {}: there is nothing to check", host.uri.host_for_people()),
        });
    }
    Ok(names)
}
