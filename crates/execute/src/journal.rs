//! A run's own pen for the ledger: each step is written before it is taken.

use vmgate_ledger::{
    Entry, Ledger, LedgerError,
    entry::{Ending, Mark, RunEnded, RunStarted, State, Transition},
};
use vmgate_verdict::ExitCode;

/// The ledger, for one run.
pub(super) struct Journal<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) run: &'a RunStarted,
    /// Whether a recovery writes it.
    pub(super) recovers: bool,
}

impl Journal<'_> {
    /// Writes that a step is about to be taken; where that fails, it must not be.
    pub(super) fn enter(&self, state: State, why: Option<&str>) -> Result<(), LedgerError> {
        self.write(state, None, why)
    }

    /// The same for one action of the preparation.
    pub(super) fn act(&self, state: State, action: usize, mark: Mark) -> Result<(), LedgerError> {
        self.write(state, Some((action, mark)), None)
    }

    /// Writes what belongs to a way out, which is taken even where the ledger fails.
    pub(super) fn note(&self, state: State, action: Option<(usize, Mark)>, why: Option<&str>) {
        if let Err(error) = self.write(state, action, why) {
            tracing::error!("{} of run {} is not in the ledger: {error}", state.name(), self.run.run);
        }
    }

    /// Writes that the run is over, which lets go of its VM.
    pub(super) fn end(&self, ending: Ending, exit: ExitCode, runs_on: Option<&str>, why: Option<&str>) {
        let entry = Entry::RunEnded(RunEnded {
            run: self.run.run.clone(),
            vm: self.vm(),
            ending,
            exit,
            runs_on: runs_on.map(str::to_owned),
            why: why.map(str::to_owned),
            recovered: self.recovers,
        });
        if let Err(error) = self.ledger.append(&entry) {
            tracing::error!(
                "the end of run {} is not in the ledger, which still holds the VM: {error}; run `vmgate recover` when it \
                 can be written again",
                self.run.run
            );
        }
    }

    /// UUID of the VM.
    pub(super) fn vm(&self) -> String {
        self.run.vm.uuid.clone().unwrap_or_default()
    }

    fn write(
        &self,
        state: State,
        action: Option<(usize, Mark)>,
        why: Option<&str>,
    ) -> Result<(), LedgerError> {
        let entry = Entry::Transition(Transition {
            run: self.run.run.clone(),
            vm: self.vm(),
            state,
            action: action.map(|(action, _)| action),
            mark: action.map(|(_, mark)| mark),
            why: why.map(str::to_owned),
        });
        self.ledger.append(&entry).map(drop)
    }
}
