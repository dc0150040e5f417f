//! The way back: what was prepared is undone, whichever way a run ends, and the guest is told.

use std::collections::BTreeSet;

use super::{
    journal::Journal,
    notify::{self, Answer, News},
    prepare::Preparation,
};
use vmgate_ledger::{
    Entry, Record,
    entry::{Mark, State},
};
use vmgate_libvirt::Domain;

/// How often undoing something is tried.
const TRIES: u32 = 3;

/// What a run has done that is to be undone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ToUndo {
    /// Numbers of the plan's actions.
    pub(super) actions: BTreeSet<usize>,
    /// Whether the guest was told that it is about to be moved.
    pub(super) told: bool,
}

impl ToUndo {
    /// What the ledger says of a run that was left behind.
    pub(super) fn of(history: &[Record]) -> Self {
        let mut found = Self::default();
        for record in history {
            let Entry::Transition(transition) = &record.entry else { continue };
            found.told |= transition.state == State::Notify;
            match (transition.action, transition.mark) {
                (Some(action), Some(Mark::Doing)) => {
                    found.actions.insert(action);
                }
                (Some(action), Some(Mark::Undone | Mark::Needless)) => {
                    found.actions.remove(&action);
                }
                _ => {}
            }
        }
        found
    }

    /// Undoes everything, the last first, and tells the guest. Gives what could not be undone; the rest is undone all the
    /// same.
    pub(super) fn undo(&mut self, journal: &Journal, domain: &Domain, news: News) -> Vec<String> {
        journal.note(State::Restore, None, None);
        let preparation = Preparation { run: journal.run, domain };
        let mut left = Vec::new();
        for number in std::mem::take(&mut self.actions).into_iter().rev() {
            let Some(action) = journal.run.plan.actions.get(number) else { continue };
            // It may be run twice, as the change's author was told; a guest that was just moved may be slow to answer.
            let undone = (1..TRIES).fold(preparation.undo(action), |undone, _| match undone {
                Ok(()) => Ok(()),
                Err(_) => preparation.undo(action),
            });
            match undone {
                Ok(()) => journal.note(State::Restore, Some((number, Mark::Undone)), None),
                Err(why) => {
                    journal.note(State::Restore, Some((number, Mark::NotUndone)), Some(&why));
                    left.push(format!("{action}: {why}"));
                    self.actions.insert(number);
                }
            }
        }
        if let (true, Some(notify)) = (self.told, &journal.run.plan.notify) {
            match notify::tell(domain, notify, news, &|| false) {
                Answer::Ready(None) => {}
                Answer::Ready(Some(note)) | Answer::Objects(note) => {
                    tracing::info!("{} after its move: {note}", journal.run.vm.label());
                }
            }
            self.told = false;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use vmgate_attest::Digest;
    use vmgate_ledger::entry::Transition;

    fn record(action: Option<usize>, mark: Option<Mark>, state: State) -> Record {
        let (run, vm) = ("r1".to_owned(), "uuid".to_owned());
        Record {
            sequence: 1,
            at: Timestamp::UNIX_EPOCH,
            entry: Entry::Transition(Transition { run, vm, state, action, mark, why: None }),
            digest: Digest::of(b""),
        }
    }

    #[test]
    fn what_was_begun_and_not_undone_is_to_be_undone() {
        let act = |action, mark, state| record(Some(action), Some(mark), state);
        let history = [
            record(None, None, State::Gate),
            act(0, Mark::Doing, State::Prepare),
            act(1, Mark::Needless, State::Prepare),
            act(2, Mark::Doing, State::Prepare),
            act(3, Mark::Doing, State::Prepare),
            act(3, Mark::Undone, State::Restore),
            act(2, Mark::NotUndone, State::Restore),
        ];
        assert_eq!(ToUndo::of(&history), ToUndo { actions: BTreeSet::from([0, 2]), told: false });
        assert!(ToUndo::of(&[record(None, None, State::Notify)]).told);
    }
}
