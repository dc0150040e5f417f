//! The last trial of a move in the ledger: what it showed holds for a while, so that a GO that rests on it is still one when the
//! facts are collected again just before the start.

use vmgate_facts::{Cause, Fact, Facts, Provenance, Trial, Uuid};
use vmgate_verdict::VALID_FOR;

use super::{
    Entry, Record,
    entry::{RunEnding, RunStarted},
};

/// The last trial between these hosts, of records of one VM, if no run of the VM began after it.
pub(super) fn last(records: &[Record], source: &Uuid, destination: &Uuid) -> Option<Trial> {
    let is_between = |run: &RunStarted| {
        (run.source.uuid.as_ref(), run.destination.uuid.as_ref()) == (Some(source), Some(destination))
    };
    let mut runs = Vec::new();
    let mut last = None;
    for record in records {
        match &record.entry {
            Entry::RunStarted(run) if run.trial && is_between(run) => runs.push(&run.run),
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

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use vmgate_facts::{TrialAnswer, TrialRefuser};

    use super::*;
    use crate::{
        entry::RunEnded,
        tests::{ended, run},
    };

    fn trial(refusal: Option<&str>) -> Trial {
        Trial {
            at: "2026-11-23T01:00:00Z".parse().unwrap(),
            answer: if refusal.is_none() { TrialAnswer::Accepted } else { TrialAnswer::Refused },
            refused_by: refusal.map(|_| TrialRefuser::Connection),
            refusal: refusal.map(str::to_owned),
            until_sent_seconds: None,
            total_seconds: 0.6,
            guest_stopped_seconds: Fact::Known(0.0),
            left_behind: None,
        }
    }

    fn began(name: &str, trial: bool) -> Entry {
        Entry::RunStarted(RunStarted { trial, ..run(name, "web1", "hv1", "hv2") })
    }

    fn over(name: &str, ending: RunEnding, trial: Option<Trial>) -> Entry {
        match ended(name) {
            Entry::RunEnded(ended) => Entry::RunEnded(RunEnded { ending, trial, ..ended }),
            other => other,
        }
    }

    fn found(entries: Vec<Entry>) -> Option<Trial> {
        let at = Timestamp::UNIX_EPOCH;
        let records: Vec<Record> = entries.into_iter().map(|entry| Record::sample(at, entry)).collect();
        let run = run("r", "web1", "hv1", "hv2");
        last(&records, run.source.uuid.as_ref().unwrap(), run.destination.uuid.as_ref().unwrap())
    }

    #[test]
    fn the_last_trial_counts_until_the_vm_has_moved() {
        let accepted = || vec![began("t1", true), over("t1", RunEnding::Aborted, Some(trial(None)))];
        assert_eq!(found(accepted()), Some(trial(None)));
        let refused =
            [accepted(), vec![began("t2", true), over("t2", RunEnding::Aborted, Some(trial(Some("no"))))]]
                .concat();
        assert_eq!(found(refused), Some(trial(Some("no"))));
        let stayed = [accepted(), vec![began("m", false), over("m", RunEnding::Aborted, None)]].concat();
        assert_eq!(found(stayed), Some(trial(None)));
        let moved = [accepted(), vec![began("m", false), over("m", RunEnding::Done, None)]].concat();
        assert_eq!(found(moved), None);
        let elsewhere = Entry::RunStarted(RunStarted { trial: true, ..run("t1", "web1", "hv1", "hv3") });
        assert_eq!(found(vec![elsewhere, over("t1", RunEnding::Aborted, Some(trial(None)))]), None);
    }

    #[test]
    fn an_accepted_trial_holds_for_an_hour_and_a_refused_one_is_asked_again() {
        let after = |minutes| {
            let collected = trial(None).at + SignedDuration::from_mins(minutes);
            let mut facts = Facts::empty(collected);
            add(trial(None), &mut facts);
            facts
        };
        assert_eq!(after(59).trial, Fact::Known(Some(trial(None))));
        assert!(after(59).provenance.contains_key("trial"));
        assert_eq!(after(60).trial, Fact::Known(None));
        assert_eq!(after(-1).trial, Fact::Known(None), "the clock was set");
        let mut facts = Facts::empty(trial(None).at);
        add(trial(Some("Connection refused")), &mut facts);
        let Fact::Unknown(why) = facts.trial else { panic!("{:?}", facts.trial) };
        assert!(
            why.reason.contains("Connection refused") && why.reason.contains("--trial"),
            "{}",
            why.reason
        );
    }
}
