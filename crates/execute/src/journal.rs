//! Journal of a run: each step is written to the ledger before it is taken.

use vmgate_facts::Trial;
use vmgate_ledger::{
    Entry, Ledger, LedgerError,
    entry::{ActionState, RunEnded, RunEnding, RunStarted, RunStep, Transition},
};
use vmgate_verdict::ExitCode;

/// Writes the records of one run to the ledger.
pub(super) struct Journal<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) run: &'a RunStarted,
    /// True if a recovery writes the records.
    pub(super) by_recovery: bool,
}

impl Journal<'_> {
    /// Records that a step is about to be taken. On an error the step must not be taken.
    pub(super) fn enter(&self, state: RunStep, why: Option<&str>) -> Result<(), LedgerError> {
        self.write(state, None, why)
    }

    /// Records the state of one action of the preparation. On an error the action must not be taken.
    pub(super) fn act(&self, state: RunStep, action: usize, mark: ActionState) -> Result<(), LedgerError> {
        self.write(state, Some((action, mark)), None)
    }

    /// Records a step of a rollback, which is taken even if the ledger fails.
    pub(super) fn note(&self, state: RunStep, action: Option<(usize, ActionState)>, why: Option<&str>) {
        if let Err(error) = self.write(state, action, why) {
            tracing::error!(
                "step {} of run {} could not be written to the ledger: {error}",
                state.name(),
                self.run.run
            );
        }
    }

    /// Records the end of the run, which releases its VM for other moves.
    pub(super) fn end(&self, ending: RunEnding, exit: ExitCode, runs_on: Option<&str>, why: Option<&str>) {
        let entry = Entry::RunEnded(RunEnded {
            run: self.run.run.clone(),
            vm: self.vm(),
            ending,
            exit,
            runs_on: runs_on.map(str::to_owned),
            why: why.map(str::to_owned),
            recovered: self.by_recovery,
            trial: None,
        });
        self.append_end(&entry);
    }

    /// Records the end of a trial: the VM runs on this host, where it was.
    pub(super) fn end_trial(&self, runs_on: &str, why: &str, trial: Option<&Trial>) {
        self.append_end(&Entry::RunEnded(RunEnded {
            run: self.run.run.clone(),
            vm: self.vm(),
            ending: RunEnding::Aborted,
            exit: ExitCode::Go,
            runs_on: Some(runs_on.to_owned()),
            why: Some(why.to_owned()),
            recovered: self.by_recovery,
            trial: trial.cloned(),
        }));
    }

    fn append_end(&self, entry: &Entry) {
        if let Err(error) = self.ledger.append(entry) {
            tracing::error!(
                "the end of run {} could not be written to the ledger, so no other move of the VM can begin: {error}. Run \
                 `vmgate recover` when the ledger can be written again",
                self.run.run
            );
        }
    }

    /// UUID of the VM.
    pub(super) fn vm(&self) -> String {
        self.run.vm.uuid.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    fn write(
        &self,
        state: RunStep,
        action: Option<(usize, ActionState)>,
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
