//! The last trial of a move in the ledger: what it showed holds for a while, so that a GO that rests on it is still one when the
//! facts are collected again just before the start.

use vmgate_facts::{Cause, Fact, Facts, Provenance, Trial, Uuid};
use vmgate_verdict::VALID_FOR;

use super::{Entry, Record, entry::RunEnding};

/// The last trial between these hosts, of records of one VM, if no run of the VM began after it.
pub(super) fn last(records: &[Record], source: &Uuid, destination: &Uuid) -> Option<Trial> {
    let mut runs = Vec::new();
    let mut last = None;
    for record in records {
        match &record.entry {
            Entry::RunStarted(run) if run.trial => {
                if (run.source.uuid.as_ref(), run.destination.uuid.as_ref())
                    == (Some(source), Some(destination))
                {
                    runs.push(&run.run);
                }
            }
            Entry::RunEnded(ended) if runs.contains(&&ended.run) => last.clone_from(&ended.trial),
            // The VM may have moved: another QEMU runs it then.
            Entry::RunEnded(ended) if ended.ending != RunEnding::Aborted => last = None,
            _ => {}
        }
    }
    last
}

/// Adds the trial to facts that were collected within an hour of it, as long as a verdict is valid.
pub(super) fn add(trial: Trial, facts: &mut Facts) {
    let age = facts.collected_at.duration_since(trial.at);
    if age < VALID_FOR && !age.is_negative() {
        let (collector, method) = ("ledger".to_owned(), "a trial of the migration".to_owned());
        let from = Provenance { collector, method, at: trial.at, window_seconds: None };
        facts.provenance.insert("trial".to_owned(), from);
        facts.trial = match &trial.refusal {
            None => Fact::Known(Some(trial)),
            Some(refusal) => Fact::unknown(
                Cause::TooOld,
                format!(
                    "the trial at {} was refused ({refusal}); if that is mended, try again with --trial",
                    trial.at
                ),
            ),
        };
    }
}
