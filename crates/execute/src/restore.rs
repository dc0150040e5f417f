//! Restore: undoes the preparation, whichever way a run ends, and notifies the guest.

use std::collections::BTreeSet;

use vmgate_collect::HostedVm;
use vmgate_ledger::{
    Entry, Record,
    entry::{ActionState, RunStep},
};

use super::{
    journal::Journal,
    notify::{self, GuestAnswer, MoveNotice},
    prepare::Preparation,
};

/// Number of attempts to undo an action.
const TRIES: u32 = 3;

/// Actions of a run that are to be undone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PendingUndo {
    /// Indexes of the plan's actions.
    pub(super) actions: BTreeSet<usize>,
    /// True if the guest was notified that it is about to be moved.
    pub(super) guest_notified: bool,
}

impl PendingUndo {
    /// Reads the records of a run that was left behind.
    pub(super) fn of(history: &[Record]) -> Self {
        let mut found = Self::default();
        for record in history {
            let Entry::Transition(transition) = &record.entry else { continue };
            found.guest_notified |= transition.state == RunStep::Notify;
            match (transition.action, transition.mark) {
                (Some(action), Some(ActionState::Doing)) => {
                    found.actions.insert(action);
                }
                (Some(action), Some(ActionState::Undone | ActionState::Needless)) => {
                    found.actions.remove(&action);
                }
                _ => {}
            }
        }
        found
    }

    /// Undoes everything, the last action first, and notifies the guest. Returns the actions that could not be undone, each
    /// with its reason; the others are undone all the same.
    pub(super) fn undo(&mut self, journal: &Journal, vm: &HostedVm, news: MoveNotice) -> Vec<String> {
        journal.note(RunStep::Restore, None, None);
        let preparation = Preparation { run: journal.run, vm };
        let mut left = Vec::new();
        for number in std::mem::take(&mut self.actions).into_iter().rev() {
            let Some(action) = journal.run.plan.actions.get(number) else { continue };
            // It may be run twice, as the change's author was told; a guest that was just moved may be slow to answer.
            let undone = (1..TRIES).fold(preparation.undo(action), |undone, _| match undone {
                Ok(()) => Ok(()),
                Err(_) => preparation.undo(action),
            });
            match undone {
                Ok(()) => journal.note(RunStep::Restore, Some((number, ActionState::Undone)), None),
                Err(why) => {
                    journal.note(RunStep::Restore, Some((number, ActionState::NotUndone)), Some(&why));
                    left.push(format!("{action}: {why}"));
                    self.actions.insert(number);
                }
            }
        }
        if let (true, Some(notify)) = (self.guest_notified, &journal.run.plan.notify) {
            match notify::notify_guest(vm, notify, news, &|| false) {
                GuestAnswer::Ready(None) => {}
                GuestAnswer::Ready(Some(note)) | GuestAnswer::Objects(note) => {
                    tracing::info!("{} after its move: {note}", journal.run.vm.label());
                }
            }
            self.guest_notified = false;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use vmgate_ledger::entry::Transition;

    use super::*;

    fn record(action: Option<usize>, mark: Option<ActionState>, state: RunStep) -> Record {
        let (run, vm) = ("r1".to_owned(), "uuid".to_owned());
        let entry = Entry::Transition(Transition { run, vm, state, action, mark, why: None });
        Record::sample(Timestamp::UNIX_EPOCH, entry)
    }

    #[test]
    fn what_was_begun_and_not_undone_is_to_be_undone() {
        let act = |action, mark, state| record(Some(action), Some(mark), state);
        let history = [
            record(None, None, RunStep::Gate),
            act(0, ActionState::Doing, RunStep::Prepare),
            act(1, ActionState::Needless, RunStep::Prepare),
            act(2, ActionState::Doing, RunStep::Prepare),
            act(3, ActionState::Doing, RunStep::Prepare),
            act(3, ActionState::Undone, RunStep::Restore),
            act(2, ActionState::NotUndone, RunStep::Restore),
        ];
        assert_eq!(
            PendingUndo::of(&history),
            PendingUndo { actions: BTreeSet::from([0, 2]), guest_notified: false }
        );
        assert!(PendingUndo::of(&[record(None, None, RunStep::Notify)]).guest_notified);
    }
}
