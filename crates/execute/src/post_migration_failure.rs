//! Post-migration failure: the VM runs on the destination, but something that worked before does not. The VM is cut off the
//! network at once if the change asks for isolation, so that the damage stays local; otherwise it is left as it is.

use std::{fmt, path::PathBuf};

use serde_json::json;
use vmgate_facts::{
    Uri,
    text::{ShownCommand, with_causes},
};
use vmgate_ledger::{
    Entry, Ledger,
    entry::{MigrationOutcome, RunEnding, RunStep},
};
use vmgate_reach::HostShell;
use vmgate_verdict::ExitCode;

use super::{
    CompletedMove, Event, Hosts, MoveFailure,
    isolate::{self, EvidenceSources, IsolationContext, IsolationReport},
    notify::MoveNotice,
    run::Run,
};

/// Options for the evidence on a VM that is cut off the network.
#[derive(Debug)]
pub struct EvidenceOptions {
    /// Operator of the move.
    pub by: String,
    /// Shell on the destination, for its logs.
    pub shell: HostShell,
    /// Folder in which a new folder is made; no evidence is saved if `None`.
    pub folder: Option<PathBuf>,
}

/// Result of the isolation of a VM after a post-migration failure.
#[derive(Debug)]
pub enum IsolationResult {
    /// The change does not ask for it.
    NotAsked,
    /// The VM was cut off the network.
    Isolated {
        /// Interfaces that were cut, and those that could not be.
        isolated: Box<IsolationReport>,
        /// URI of its host.
        uri: Uri,
        /// The folder with the evidence, or why there is none.
        evidence: Result<PathBuf, String>,
    },
    /// The VM could not be cut off.
    Failed {
        /// VM name.
        vm: String,
        /// URI of its host.
        uri: Uri,
        /// Reason.
        why: String,
    },
}

impl IsolationResult {
    /// Ending of a run with this result.
    pub(super) fn ending(&self) -> RunEnding {
        match self {
            Self::Isolated { .. } => RunEnding::Isolated,
            Self::NotAsked | Self::Failed { .. } => RunEnding::Failed,
        }
    }
}

impl Run<'_> {
    /// Ends a run whose VM does not work on the destination as before.
    pub(super) fn fail_after_migration(&mut self, trouble: String) -> Result<CompletedMove, MoveFailure> {
        let host = self.hosts.destination.name().to_owned();
        let cut_off = if self.isolates() {
            self.cut_off(&trouble)
        } else {
            self.journal.note(RunStep::Fail, None, Some(&trouble));
            IsolationResult::NotAsked
        };
        let account = self.vm.completed_job();
        self.record_migration(account.as_ref(), MigrationOutcome::Suffers);
        let left = self.to_undo.undo(&self.journal, &self.vm, MoveNotice::After);
        if !left.is_empty() {
            return Err(MoveFailure::NotRestored { host, why: format!("{trouble}; {cut_off}"), left });
        }
        let why = format!("{trouble}; {cut_off}");
        self.journal.end(cut_off.ending(), ExitCode::OperatorNeeded, Some(&host), Some(&why));
        Err(MoveFailure::PostMigration { host, problem: trouble, cut_off: Box::new(cut_off) })
    }

    /// True if the change asks to isolate a VM after a post-migration failure.
    pub(super) fn isolates(&self) -> bool {
        self.assignment.plan.settings.isolate == Some(true)
    }

    fn cut_off(&mut self, trouble: &str) -> IsolationResult {
        // In the ledger first: after a crash from here on, `recover` finds the record and cuts the VM off again.
        self.journal.note(RunStep::Isolate, None, Some(trouble));
        (self.watch)(Event::Entering(RunStep::Isolate));
        let keeper = &self.assignment.evidence_options;
        let cut = cut_off(self.assignment.pass.vm().as_str(), self.hosts, &keeper.by, trouble);
        let IsolationResult::Isolated { isolated, uri, .. } = cut else { return cut };
        let evidence = self.keep(&isolated, trouble);
        let verdict = self.assignment.pass.verdict();
        let around = IsolationContext {
            host_uuid: verdict.moved.destination.uuid.clone(),
            by: keeper.by.clone(),
            reason: trouble.to_owned(),
            evidence: evidence.as_ref().ok().map(|folder| folder.display().to_string()),
            run: Some(self.journal.run.run.clone()),
        };
        write_down(self.journal.ledger, &isolated.entry(around));
        IsolationResult::Isolated { isolated, uri, evidence }
    }

    fn keep(&self, isolated: &IsolationReport, trouble: &str) -> Result<PathBuf, String> {
        let keeper = &self.assignment.evidence_options;
        let folder = keeper.folder.as_deref().ok_or("no folder for the evidence: give --evidence DIR")?;
        let domain = self.vm.domain().map_err(|why| why.reason)?;
        let hypervisor = self.hosts.destination.hypervisor().map_err(|error| error.to_string())?;
        let request = &self.assignment.judge.request;
        let uri = self.hosts.destination.uri();
        let ways = EvidenceSources {
            hypervisor: &hypervisor,
            uri,
            probe: &request.destination_probe,
            shell: &keeper.shell,
            guest: &request.guest_access,
            timeout: request.timeout,
            folder,
        };
        let said = json!({"reason": trouble, "by": keeper.by, "run": self.journal.run.run});
        let kept = isolate::save_evidence(&ways, domain, isolated, &said);
        kept.map(|kept| kept.folder).map_err(|error| format!("{}: {error}", folder.display()))
    }
}

/// Records an isolation in the ledger. The isolation stays even if the ledger fails.
pub(super) fn write_down(ledger: &Ledger, isolation: &Entry) {
    if let Err(error) = ledger.append(isolation) {
        tracing::error!("{isolation}: this is not in the ledger: {error}");
    }
}

/// Cuts the VM off at the destination. Repeats an isolation that was interrupted.
pub(super) fn cut_off(vm: &str, hosts: &Hosts, by: &str, trouble: &str) -> IsolationResult {
    let uri = hosts.destination.uri().clone();
    let failed = |why: String| IsolationResult::Failed { vm: vm.to_owned(), uri: uri.clone(), why };
    let domain = match hosts.destination.domain(vm) {
        Ok(domain) => domain,
        Err(error) => return failed(error.to_string()),
    };
    match isolate::isolate(&domain, hosts.destination.name(), by, trouble) {
        Ok(isolated) => IsolationResult::Isolated {
            isolated: Box::new(isolated),
            uri,
            evidence: Err("none was taken".to_owned()),
        },
        Err(error) => failed(with_causes(&error)),
    }
}

impl fmt::Display for IsolationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("nothing was isolated or stopped"),
            Self::Failed { vm, uri, why } => write!(
                f,
                "the VM could NOT be cut off the network: {why}. Try again: {}",
                ShownCommand::new("vmgate isolate --on").value(uri).operand(vm)
            ),
            Self::Isolated { isolated, uri, evidence } => {
                let IsolationReport { vm, cut, cut_before, not_cut, took_seconds, .. } = &**isolated;
                let links: Vec<&str> = cut.iter().chain(cut_before).map(|link| link.mac.as_str()).collect();
                match links.as_slice() {
                    [] => f.write_str("the VM had no network to be cut off")?,
                    links => write!(
                        f,
                        "the VM was isolated: its interfaces ({}) were cut in {took_seconds:.3} s",
                        links.join(", ")
                    )?,
                }
                for left in not_cut {
                    write!(f, "; NOT CUT: {}: {}", left.device, left.why)?;
                }
                match evidence {
                    Ok(folder) => write!(f, "; evidence: {}", folder.display())?,
                    Err(why) => write!(f, "; no evidence was kept: {why}")?,
                }
                let again = ShownCommand::new("vmgate isolate --release --on").value(uri).operand(vm);
                write!(f, ". To connect it again: {again}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolate::{Link, UncutDevice};

    #[test]
    fn what_was_done_is_said_with_the_way_back() {
        let uri = Uri::from_operator("qemu+ssh://root@hv2/system").unwrap();
        let isolated = IsolationReport {
            vm: "web1".to_owned(),
            uuid: "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11".parse().unwrap(),
            host: "hv2".to_owned(),
            at: jiff::Timestamp::UNIX_EPOCH,
            cut: vec![Link { mac: "52:54:00:00:00:01".to_owned(), tap: None }],
            cut_before: Vec::new(),
            down_before: Vec::new(),
            not_cut: vec![UncutDevice { device: "hostdev0".to_owned(), why: "it has no link".to_owned() }],
            took_seconds: 0.0314,
            xml_before: String::new(),
        };
        let cut = IsolationResult::Isolated {
            isolated: Box::new(isolated),
            uri: uri.clone(),
            evidence: Ok("/e/1".into()),
        };
        assert_eq!(
            cut.to_string(),
            "the VM was isolated: its interfaces (52:54:00:00:00:01) were cut in 0.031 s; NOT CUT: hostdev0: it has no link; \
             evidence: /e/1. To connect it again: vmgate isolate --release --on qemu+ssh://root@hv2/system web1"
        );
        assert_eq!(cut.ending(), RunEnding::Isolated);
        let failed = IsolationResult::Failed { vm: "web1".to_owned(), uri, why: "no answer".to_owned() };
        assert!(failed.to_string().contains("could NOT be cut off the network: no answer"));
        let endings = (failed.ending(), IsolationResult::NotAsked.ending());
        assert_eq!(endings, (RunEnding::Failed, RunEnding::Failed));
        let undone = MoveFailure::PostMigration {
            host: "hv2".to_owned(),
            problem: "it is deaf".to_owned(),
            cut_off: Box::new(cut),
        };
        assert_eq!(undone.exit(), ExitCode::OperatorNeeded);
        let text = undone.to_string();
        assert!(
            text.starts_with("the VM runs on hv2, but it is deaf; somebody must look: the VM was isolated"),
            "{text}"
        );
    }
}
