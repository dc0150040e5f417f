//! After a crash: the ledger says which runs were left behind, both hosts say where their VMs are.

use std::{fmt, time::Duration};

use jiff::Timestamp;

use super::{
    Hosts, Whereabouts,
    driver::{self, Life},
    isolate::Circumstances,
    journal::Journal,
    notify::News,
    resolve,
    restore::ToUndo,
    suffering::{CutOff, cut_off, write_down},
};
use vmgate_ledger::{
    Entry, Ledger, LedgerError, OpenRun, Record,
    entry::{Ending, State},
};
use vmgate_verdict::ExitCode;

/// Who cuts off a VM that a run was about to cut off when it was left behind.
const BY: &str = "vmgate recover";

/// What became of a run that was open.
#[derive(Debug)]
pub struct Recovered {
    /// Id of the run.
    pub run: String,
    /// The VM.
    pub vm: String,
    /// How it stands now.
    pub fate: Fate,
}

/// How a run stands after a recovery.
#[derive(Debug)]
pub enum Fate {
    /// Its process still runs, so it was left alone.
    Driven(String),
    /// It ended: the VM runs on this host alone, and what was prepared is undone.
    Ended {
        /// The host.
        host: String,
        /// Whether that is the destination.
        moved: bool,
    },
    /// The VM runs on the destination, where it suffers: it was to be cut off the network, and is now, as far as it says.
    Isolated {
        /// The host.
        host: String,
        /// What was cut.
        cut_off: CutOff,
    },
    /// The VM runs on this host, and something could not be undone; the run stays open.
    NotRestored {
        /// The host.
        host: String,
        /// What could not be undone, and why.
        left: Vec<String>,
    },
    /// The VM runs on no host: it has stopped, as it may without vmgate. The run is ended.
    Stopped(Whereabouts),
    /// It is not certain where the VM runs, or how often; the run stays open.
    Unclear(Whereabouts),
    /// The URIs in the ledger cannot be used.
    Unusable(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driven(by) => write!(f, "it was left alone, since it is driven by {by}"),
            Self::Ended { host, moved } => {
                let where_it = if *moved { "where it was to go" } else { "where it was" };
                write!(f, "it runs on {host}, {where_it}; what was prepared is undone")
            }
            Self::Isolated { host, cut_off } => {
                write!(f, "it runs on {host}, where it was to go and does not work as before; {cut_off}")
            }
            Self::NotRestored { host, left } => write!(
                f,
                "it runs on {host}, but this could not be undone: {}. Do it by hand, or run `vmgate recover` again",
                left.join("; ")
            ),
            Self::Stopped(seen) => {
                write!(f, "it does not run: {seen}. Start it where it is defined, once")
            }
            Self::Unclear(seen) => write!(
                f,
                "somebody must look: {seen}. Nothing was started or stopped; run `vmgate recover` again when both hosts answer"
            ),
            Self::Unusable(why) => write!(f, "the ledger's URIs cannot be used: {why}"),
        }
    }
}

impl Fate {
    /// Whether the run has ended, so that nothing is left to recover.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Isolated { .. } | Self::Stopped(_))
    }

    /// How the process ends.
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::Driven(_) | Self::Ended { .. } => ExitCode::Go,
            Self::Unusable(_) => ExitCode::Internal,
            Self::NotRestored { .. } | Self::Isolated { .. } | Self::Stopped(_) | Self::Unclear(_) => {
                ExitCode::OperatorNeeded
            }
        }
    }
}

/// Finishes or rolls back every run that was left behind. `elsewhere` also takes runs that began on another machine,
/// whose process cannot be looked for.
pub fn recover(ledger: &Ledger, timeout: Duration, elsewhere: bool) -> Result<Vec<Recovered>, LedgerError> {
    let open = ledger.open_runs()?;
    Ok(open.iter().map(|open| one(ledger, open, timeout, elsewhere)).collect())
}

fn one(ledger: &Ledger, open: &OpenRun, timeout: Duration, elsewhere: bool) -> Recovered {
    let run = &open.run;
    let fate = match driver::life(&run.driver) {
        Life::Alive => Fate::Driven(run.driver.to_string()),
        Life::Elsewhere if !elsewhere => Fate::Driven(format!(
            "{}, which cannot be looked at from here (--elsewhere if it is gone)",
            run.driver
        )),
        Life::Gone | Life::Elsewhere => match (run.from.parse(), run.to.parse()) {
            (Ok(from), Ok(to)) => {
                let journal = Journal { ledger, run, recovers: true };
                bring_to_an_end(&journal, open, &Hosts::new(from, to, timeout))
            }
            (from, to) => Fate::Unusable(
                [from.err(), to.err()].into_iter().flatten().map(|error| error.to_string()).collect(),
            ),
        },
    };
    Recovered { run: run.run.clone(), vm: run.vm.label().to_owned(), fate }
}

/// How long ago the migration began; none where the run did not come so far.
fn migrating_for(history: &[Record]) -> Option<Duration> {
    let began = history.iter().find(
        |record| matches!(&record.entry, Entry::Transition(transition) if transition.state == State::Migrate),
    )?;
    Some(Timestamp::now().duration_since(began.at).try_into().unwrap_or_default())
}

/// Why the VM was about to be cut off when the run was left behind, if it was.
fn isolation_begun(history: &[Record]) -> Option<&str> {
    history.iter().find_map(|record| match &record.entry {
        Entry::Transition(transition) if transition.state == State::Isolate => {
            Some(transition.why.as_deref().unwrap_or_default())
        }
        _ => None,
    })
}

pub(super) fn bring_to_an_end(journal: &Journal, open: &OpenRun, hosts: &Hosts) -> Fate {
    let vm = journal.vm();
    // A run that never came to its migration has left nothing at the hosts: whatever goes on there is somebody else's.
    let seen = match migrating_for(&open.history) {
        Some(ago) if resolve::end_job(&vm, hosts, ago) => resolve::settle(&vm, hosts),
        _ => Whereabouts::settle(&vm, hosts),
    };
    let (line, moved) = if seen.only_on_source() {
        (&hosts.source, false)
    } else if seen.only_on_destination() {
        (&hosts.destination, true)
    } else if seen.source.is_absent() && seen.destination.is_absent() {
        let why = format!("the VM has stopped: {seen}");
        journal.end(Ending::Failed, ExitCode::OperatorNeeded, None, Some(&why));
        return Fate::Stopped(seen);
    } else {
        journal.note(State::Fail, None, Some(&format!("recovery: {seen}")));
        return Fate::Unclear(seen);
    };
    let host = line.name().to_owned();
    // Before what was prepared is undone: that takes its time, and harm may be done meanwhile.
    let cut_off = isolation_begun(&open.history).filter(|_| moved).map(|trouble| {
        let cut_off = cut_off(&vm, hosts, BY, trouble);
        if let CutOff::Cut { isolated, .. } = &cut_off {
            let around = Circumstances {
                host_uuid: open.run.destination.uuid.clone(),
                by: BY.to_owned(),
                reason: trouble.to_owned(),
                evidence: None,
                run: Some(open.run.run.clone()),
            };
            write_down(journal.ledger, &isolated.entry(around));
        }
        cut_off
    });
    let mut to_undo = ToUndo::of(&open.history);
    let news = if moved { News::After } else { News::Stayed };
    let left = match line.domain(&vm) {
        Ok(domain) => to_undo.undo(journal, &domain, news),
        Err(error) => vec![error.to_string()],
    };
    if !left.is_empty() {
        return Fate::NotRestored { host, left };
    }
    if let Some(cut_off) = cut_off {
        let why = format!("it was left behind, and recovered; {cut_off}");
        journal.end(cut_off.ending(), ExitCode::OperatorNeeded, Some(&host), Some(&why));
        return Fate::Isolated { host, cut_off };
    }
    let (ending, exit) =
        if moved { (Ending::Done, ExitCode::Go) } else { (Ending::Aborted, ExitCode::NotFinished) };
    journal.end(ending, exit, Some(&host), Some("it was left behind, and recovered"));
    Fate::Ended { host, moved }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmgate_attest::Digest;
    use vmgate_ledger::entry::Transition;

    #[test]
    fn a_vm_that_was_about_to_be_cut_off_is_told_by_its_reason() {
        let entered = |state, why: Option<&str>| Record {
            sequence: 1,
            at: Timestamp::UNIX_EPOCH,
            entry: Entry::Transition(Transition {
                run: "r1".to_owned(),
                vm: "uuid".to_owned(),
                state,
                action: None,
                mark: None,
                why: why.map(str::to_owned),
            }),
            digest: Digest::of(b""),
        };
        let verified = entered(State::Verify, None);
        assert_eq!(isolation_begun(std::slice::from_ref(&verified)), None);
        assert_eq!(
            isolation_begun(&[verified, entered(State::Isolate, Some("it is deaf"))]),
            Some("it is deaf")
        );
    }
}
