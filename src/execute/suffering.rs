//! The VM runs on the destination, and something that worked before does not: cut off the network at once where the
//! change says so, so that the damage stays local, and left as it is where it does not.

use std::{fmt, path::PathBuf};

use serde_json::json;

use super::{
    Done, Event, Hosts, Undone,
    isolate::{self, Circumstances, Evidence, Isolated},
    notify::News,
    run::Run,
};
use crate::{
    collect::{
        Uri,
        transport::{HostShell, Transport},
    },
    error::with_causes,
    ledger::{
        Entry, Ledger,
        entry::{Ending, Outcome, State},
    },
    verdict::ExitCode,
};

/// Who keeps the evidence of a VM that is cut off, and where.
#[derive(Debug)]
pub struct Keeper {
    /// Who drives the move.
    pub by: String,
    /// The way to the destination's logs.
    pub shell: HostShell,
    /// The folder in which a new one is made; none where there is nowhere to keep it.
    pub folder: Option<PathBuf>,
}

/// What was done about a VM that suffers.
#[derive(Debug)]
pub enum CutOff {
    /// The change does not ask for it.
    NotAsked,
    /// It was cut off.
    Cut {
        /// What was cut, and what could not be.
        isolated: Box<Isolated>,
        /// Where it runs.
        uri: Uri,
        /// The folder with the evidence, or why there is none.
        evidence: Result<PathBuf, String>,
    },
    /// It could not be cut off.
    Failed {
        /// Its name.
        vm: String,
        /// Where it runs.
        uri: Uri,
        /// Why.
        why: String,
    },
}

impl CutOff {
    /// How a run ends with it.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Cut { .. } => Ending::Isolated,
            Self::NotAsked | Self::Failed { .. } => Ending::Failed,
        }
    }
}

impl Run<'_> {
    /// Ends a run whose VM suffers on the destination.
    pub(super) fn suffers(&mut self, trouble: String) -> Result<Done, Undone> {
        let host = self.hosts.destination.name().to_owned();
        let cut_off = if self.isolates() {
            self.cut_off(&trouble)
        } else {
            self.journal.note(State::Fail, None, Some(&trouble));
            CutOff::NotAsked
        };
        let account = self.domain.completed_job().ok().flatten();
        self.account_for(account.as_ref(), Outcome::Suffers);
        let left = self.to_undo.undo(&self.journal, &self.domain, News::After);
        if !left.is_empty() {
            return Err(Undone::NotRestored { host, why: format!("{trouble}; {cut_off}"), left });
        }
        let why = format!("{trouble}; {cut_off}");
        self.journal.end(cut_off.ending(), ExitCode::OperatorNeeded, Some(&host), Some(&why));
        Err(Undone::Suffers { host, trouble, cut_off: Box::new(cut_off) })
    }

    /// Whether the change asks for a VM that suffers to be cut off.
    pub(super) fn isolates(&self) -> bool {
        self.assignment.plan.settings.isolate == Some(true)
    }

    fn cut_off(&mut self, trouble: &str) -> CutOff {
        // Written down first: a crash from here on is found by `recover`, which cuts it off again.
        self.journal.note(State::Isolate, None, Some(trouble));
        (self.watch)(Event::Entering(State::Isolate));
        let keeper = &self.assignment.keeper;
        let cut = cut_off(self.assignment.pass.vm(), self.hosts, &keeper.by, trouble);
        let CutOff::Cut { isolated, uri, .. } = cut else { return cut };
        let evidence = self.keep(&isolated, trouble);
        let verdict = self.assignment.pass.verdict();
        let around = Circumstances {
            host_uuid: verdict.moved.destination.uuid.clone(),
            by: keeper.by.clone(),
            reason: trouble.to_owned(),
            evidence: evidence.as_ref().ok().map(|folder| folder.display().to_string()),
            run: Some(self.journal.run.run.clone()),
        };
        write_down(self.journal.ledger, &isolated.entry(around));
        CutOff::Cut { isolated, uri, evidence }
    }

    fn keep(&self, isolated: &Isolated, trouble: &str) -> Result<PathBuf, String> {
        let keeper = &self.assignment.keeper;
        let folder = keeper.folder.as_deref().ok_or("there is no folder to keep it in (--evidence DIR)")?;
        let hypervisor = self.hosts.destination.hypervisor().map_err(|error| error.to_string())?;
        let request = &self.assignment.judge.request;
        let uri = self.hosts.destination.uri();
        let probe = request.destination_probe.clone().unwrap_or_else(|| Transport::for_uri(uri));
        let ways = Evidence {
            hypervisor: &hypervisor,
            uri,
            probe: &probe,
            shell: &keeper.shell,
            guest: &request.guest_access,
            timeout: request.timeout,
            folder,
        };
        let said = json!({"reason": trouble, "by": keeper.by, "run": self.journal.run.run});
        let kept = isolate::keep(&ways, &self.domain, isolated, &said);
        kept.map(|kept| kept.folder).map_err(|error| format!("{}: {error}", folder.display()))
    }
}

/// Writes down that a VM is cut off, which holds even where the ledger fails.
pub(super) fn write_down(ledger: &Ledger, isolation: &Entry) {
    if let Err(error) = ledger.append(isolation) {
        tracing::error!("{isolation}: this is not in the ledger: {error}");
    }
}

/// Cuts the VM off at the destination. An isolation that stopped half-way is done again by it.
pub(super) fn cut_off(vm: &str, hosts: &Hosts, by: &str, trouble: &str) -> CutOff {
    let uri = hosts.destination.uri().clone();
    let failed = |why: String| CutOff::Failed { vm: vm.to_owned(), uri: uri.clone(), why };
    let domain = match hosts.destination.domain(vm) {
        Ok(domain) => domain,
        Err(error) => return failed(error.to_string()),
    };
    match isolate::isolate(&domain, hosts.destination.name(), by, trouble) {
        Ok(isolated) => {
            CutOff::Cut { isolated: Box::new(isolated), uri, evidence: Err("none was taken".to_owned()) }
        }
        Err(error) => failed(with_causes(&error)),
    }
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("nothing was isolated or stopped"),
            Self::Failed { vm, uri, why } => write!(
                f,
                "it could NOT be cut off the network: {why}. Try again: vmgate isolate {vm} --on {uri}"
            ),
            Self::Cut { isolated, uri, evidence } => {
                let Isolated { vm, cut, cut_before, not_cut, took_seconds, .. } = &**isolated;
                let links: Vec<&str> = cut.iter().chain(cut_before).map(|link| link.mac.as_str()).collect();
                match links.as_slice() {
                    [] => f.write_str("it had no network to be cut off")?,
                    links => write!(
                        f,
                        "it was isolated: its interfaces ({}) were cut in {took_seconds:.3} s",
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
                write!(f, ". To let it back: vmgate isolate {vm} --on {uri} --release")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::isolate::{Link, Uncuttable};

    #[test]
    fn what_was_done_is_said_with_the_way_back() {
        let uri: Uri = "qemu+ssh://root@hv2/system".parse().unwrap();
        let isolated = Isolated {
            vm: "web1".to_owned(),
            uuid: "u".to_owned(),
            host: "hv2".to_owned(),
            at: jiff::Timestamp::UNIX_EPOCH,
            cut: vec![Link { mac: "52:54:00:00:00:01".to_owned(), tap: None }],
            cut_before: Vec::new(),
            down_before: Vec::new(),
            not_cut: vec![Uncuttable { device: "hostdev0".to_owned(), why: "it has no link".to_owned() }],
            took_seconds: 0.0314,
            xml_before: String::new(),
        };
        let cut = CutOff::Cut { isolated: Box::new(isolated), uri: uri.clone(), evidence: Ok("/e/1".into()) };
        assert_eq!(
            cut.to_string(),
            "it was isolated: its interfaces (52:54:00:00:00:01) were cut in 0.031 s; NOT CUT: hostdev0: it has no link; \
             evidence: /e/1. To let it back: vmgate isolate web1 --on qemu+ssh://root@hv2/system --release"
        );
        assert_eq!(cut.ending(), Ending::Isolated);
        let failed = CutOff::Failed { vm: "web1".to_owned(), uri, why: "no answer".to_owned() };
        assert!(failed.to_string().contains("could NOT be cut off the network: no answer"));
        assert_eq!((failed.ending(), CutOff::NotAsked.ending()), (Ending::Failed, Ending::Failed));
        let undone = Undone::Suffers {
            host: "hv2".to_owned(),
            trouble: "it is deaf".to_owned(),
            cut_off: Box::new(cut),
        };
        assert_eq!(undone.exit(), ExitCode::OperatorNeeded);
        let text = undone.to_string();
        assert!(
            text.starts_with("the VM runs on hv2, but it is deaf; somebody must look: it was isolated"),
            "{text}"
        );
    }
}
