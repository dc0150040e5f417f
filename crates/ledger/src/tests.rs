use std::{sync::Barrier, thread};

use proptest::prelude::*;
use vmgate_judge::change::{Limits, MovePlan};
use vmgate_verdict::{ExitCode, NameAndUuid};

use super::{
    entry::{
        Driver, HypervisorPair, Migration, MigrationOutcome, Rehearsal, RunEnded, RunEnding, RunStep,
        Transition,
    },
    test_ledger::{TestLedger, in_every_store},
    *,
};
use vmgate_facts::Uuid;

/// A UUID for a name, always the same.
fn uuid(name: &str) -> Uuid {
    let number = name.bytes().fold(0_u64, |sum, byte| sum * 31 + u64::from(byte));
    format!("00000000-0000-4000-8000-{:012x}", number & 0xffff_ffff_ffff).parse().unwrap()
}

fn named(name: &str) -> NameAndUuid {
    NameAndUuid { name: Some(name.to_owned()), uuid: Some(uuid(name)) }
}

pub(crate) fn run(run: &str, vm: &str, source: &str, destination: &str) -> RunStarted {
    RunStarted {
        run: run.to_owned(),
        vm: named(vm),
        source: named(source),
        destination: named(destination),
        from: String::new(),
        to: String::new(),
        change: None,
        change_digest: None,
        plan: MovePlan::default(),
        driver: Driver { machine: "op".to_owned(), boot: "b".to_owned(), pid: 7, started_ticks: 9 },
        monitor: None,
        trial: false,
    }
}

fn transition(run: &str, why: &str) -> Entry {
    Entry::Transition(Transition {
        run: run.to_owned(),
        vm: uuid("web1").to_string(),
        state: RunStep::Gate,
        action: None,
        mark: None,
        why: Some(why.to_owned()),
    })
}

pub(crate) fn ended(run: &str) -> Entry {
    Entry::RunEnded(RunEnded {
        run: run.to_owned(),
        vm: uuid("web1").to_string(),
        ending: RunEnding::Done,
        exit: ExitCode::Go,
        runs_on: None,
        why: None,
        recovered: false,
        trial: None,
    })
}

/// SQLite refuses some of them without waiting, hence the many.
#[test]
fn those_who_open_a_new_file_at_once_all_find_a_ledger() {
    for _ in 0..30 {
        let (fresh, together) = (TestLedger::in_file(), Barrier::new(8));
        thread::scope(|scope| {
            for name in 0..8 {
                let (fresh, together) = (&fresh, &together);
                scope.spawn(move || {
                    together.wait();
                    fresh.ledger().append(&ended(&name.to_string())).unwrap();
                });
            }
        });
        assert_eq!(fresh.ledger().verify().unwrap().sequence, 8);
    }
}

in_every_store! {
    what_was_written_is_read_back_by_another_process_and_verifies
    records_cannot_be_changed_or_removed_and_whoever_drops_the_triggers_is_found_out
    a_vm_is_held_until_its_run_has_ended_whatever_process_asks
    hosts_and_links_take_as_many_moves_as_they_are_allowed
    of_many_that_come_at_once_one_moves_the_vm_and_the_chain_holds
    what_a_newer_vmgate_wrote_is_kept_counted_and_shown
}

fn what_was_written_is_read_back_by_another_process_and_verifies(fresh: &TestLedger) {
    let ledger = fresh.ledger();
    assert_eq!(ledger.verify().unwrap().sequence, 0);
    let written = ledger.append(&transition("r1", "because")).unwrap();
    ledger.append(&ended("r1")).unwrap();
    let other = Ledger::open_existing(fresh.place.clone()).unwrap();
    assert_eq!(other.record(1).unwrap(), Some(written));
    assert_eq!(other.history("r1").unwrap().len(), 2);
    assert_eq!(other.verify().unwrap().sequence, 2);
}

fn records_cannot_be_changed_or_removed_and_whoever_drops_the_triggers_is_found_out(fresh: &TestLedger) {
    let ledger = fresh.ledger();
    for number in 0..5 {
        ledger.append(&transition("r1", &format!("step {number}"))).unwrap();
    }
    for sql in ["UPDATE record SET body = '{}' WHERE sequence = 2", "DELETE FROM record WHERE sequence = 2"] {
        let error = fresh.tamper(sql).unwrap_err();
        assert!(error.contains("append-only"), "{error}");
    }
    fresh.unlock();
    for (sql, sequence) in [
        ("UPDATE record SET vm = 'x' WHERE sequence = 4", 4),
        ("UPDATE record SET body = replace(body, 'step 2', 'step 9')", 3),
        ("UPDATE record SET at = '2020-01-01T00:00:00Z' WHERE sequence = 2", 2),
        ("DELETE FROM record WHERE sequence = 1", 1),
    ] {
        fresh.tamper(sql).unwrap();
        match ledger.verify() {
            Err(LedgerError::Broken(broken)) => assert_eq!(broken.sequence, sequence, "{broken}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

/// Records of a newer version: a kind that is not known here, a known kind with one field more, a known kind that has changed.
fn what_a_newer_vmgate_wrote_is_kept_counted_and_shown(fresh: &TestLedger) {
    let newer =
        serde_json::json!({"kind": "sealed", "run": "r1", "vm": {"uuid": uuid("web1")}, "depth": 1e300});
    let mut longer = serde_json::to_value(transition("r1", "because")).unwrap();
    longer["colour"] = "blue".into();
    let mut other = serde_json::to_value(Entry::RunStarted(run("r2", "web1", "a", "b"))).unwrap();
    other["driver"] = "a robot".into();
    for value in [&newer, &longer, &other] {
        fresh.append_raw(value);
    }
    let ledger = fresh.ledger();
    ledger.append(&ended("r1")).unwrap();
    assert_eq!(ledger.verify().unwrap().sequence, 4);
    let records =
        ledger.records(&Selection { vm: Some(uuid("web1").to_string()), ..Selection::default() }).unwrap();
    let words: Vec<_> = records.iter().map(|record| record.entry.to_string()).collect();
    assert_eq!(words[0], "unknown kind `sealed`, written by a newer vmgate");
    assert_eq!(words[1], "gate: because");
    assert!(
        words[2].starts_with("a record of kind `run-started` that this vmgate cannot read: "),
        "{words:?}"
    );
    for (record, value) in records.iter().zip([newer, longer, other]) {
        let mut kept: serde_json::Value = serde_json::from_str(&record.body).unwrap();
        kept.as_object_mut().unwrap().remove("role");
        assert_eq!(kept, value);
    }
    // It may be a move of that VM, so no other begins; other VMs are free.
    assert_eq!(ledger.open_runs().unwrap(), []);
    let refused = ledger.begin(&run("r3", "web1", "a", "b"), &Limits::default()).unwrap_err().to_string();
    assert!(refused.contains("record 3") && refused.contains("web1"), "{refused}");
    ledger.begin(&run("r3", "web2", "a", "b"), &Limits::default()).unwrap();
}

fn a_vm_is_held_until_its_run_has_ended_whatever_process_asks(fresh: &TestLedger) {
    let one = fresh.ledger();
    let other = fresh.ledger();
    let wide = Limits { per_source: 9, per_destination: 9, per_link: 9 };
    one.begin(&run("r1", "web1", "a", "b"), &wide).unwrap();
    let refused = other.begin(&run("r2", "web1", "c", "d"), &wide).unwrap_err().to_string();
    assert!(refused.contains("run r1 by process 7 on op") && refused.contains("vmgate recover"), "{refused}");
    assert_eq!(other.open_runs().unwrap().len(), 1);
    drop(one);
    other.append(&ended("r1")).unwrap();
    other.begin(&run("r3", "web1", "a", "b"), &wide).unwrap();
}

fn hosts_and_links_take_as_many_moves_as_they_are_allowed(fresh: &TestLedger) {
    let ledger = fresh.ledger();
    let limits = |per_source, per_destination, per_link| Limits { per_source, per_destination, per_link };
    ledger.begin(&run("r1", "v1", "a", "b"), &Limits::default()).unwrap();
    for (source, destination, limits, says) in [
        ("a", "c", limits(1, 9, 9), "at most 1 move from a may run"),
        ("c", "b", limits(9, 1, 9), "at most 1 move to b may run"),
        ("b", "a", limits(9, 9, 1), "at most 1 move between b and a may run"),
    ] {
        let refused = ledger.begin(&run("r2", "v2", source, destination), &limits).unwrap_err().to_string();
        assert!(refused.contains(says) && refused.contains("run r1"), "{refused}");
    }
    ledger.begin(&run("r2", "v2", "a", "b"), &limits(2, 2, 2)).unwrap();
    assert!(ledger.begin(&run("r3", "v3", "a", "b"), &limits(2, 2, 2)).is_err());
    ledger.begin(&run("r3", "v3", "c", "d"), &Limits::default()).unwrap();
}

fn of_many_that_come_at_once_one_moves_the_vm_and_the_chain_holds(fresh: &TestLedger) {
    let begun: Vec<bool> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || {
                    let ledger = fresh.ledger();
                    ledger.begin(&run(&format!("r{number}"), "web1", "a", "b"), &Limits::default()).is_ok()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(begun.iter().filter(|begun| **begun).count(), 1);
    assert_eq!(fresh.ledger().verify().unwrap().sequence, 1);
}

#[test]
fn a_pair_of_versions_is_known_by_what_went_well_and_rehearsals_are_told_apart() {
    let fresh = TestLedger::in_file();
    let ledger = fresh.ledger();
    let pair = HypervisorPair {
        source_version: "7.2.22".parse().unwrap(),
        destination_version: "10.0.13".parse().unwrap(),
        machine_type: "pc-q35-7.2".to_owned(),
    };
    let rehearsal = |passed| {
        Entry::Rehearsal(Rehearsal {
            vm: named("test1"),
            pair: pair.clone(),
            there_and_back: true,
            passed,
            by: "ops".to_owned(),
            note: None,
            twin: None,
        })
    };
    let migration = |outcome, rehearsal| {
        Entry::Migration(Migration {
            run: "r1".to_owned(),
            vm: named("web1"),
            source: named("a"),
            destination: named("b"),
            pair: Some(pair.clone()),
            outcome,
            rehearsal,
            forecast_total_seconds: None,
            replayed_total_seconds: None,
            forecast_blackout_seconds: None,
            replayed_blackout_seconds: None,
            replayed_sent_bytes: None,
            total_seconds: Some(2.5),
            downtime_seconds: Some(0.1),
            sent_bytes: None,
            rounds: None,
            downtime_limit_seconds: None,
            throttle_percent: None,
            silences: Vec::new(),
        })
    };
    let at = |entry: &Entry, time: &str| ledger.append_at(entry, time.parse().unwrap()).unwrap();
    let known = || {
        let pairs = ledger.version_pairs().unwrap();
        assert!(pairs.len() <= 1, "{pairs:?}");
        let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
        pairs.first().map(|pair| (text(pair.rehearsed_at), text(pair.moved_at)))
    };
    at(&rehearsal(false), "2026-10-01T00:00:00Z");
    at(&migration(MigrationOutcome::Failed, false), "2026-10-02T00:00:00Z");
    at(&migration(MigrationOutcome::Suffers, false), "2026-10-03T00:00:00Z");
    assert_eq!(known(), None);
    at(&rehearsal(true), "2026-11-20T00:00:00Z");
    at(&rehearsal(true), "2026-11-19T00:00:00Z");
    assert_eq!(
        known(),
        Some((Some("2026-11-20T00:00:00Z".to_owned()), None)),
        "clocks jump: the later counts"
    );
    at(&migration(MigrationOutcome::Completed, true), "2026-11-22T00:00:00Z");
    assert_eq!(known(), Some((Some("2026-11-22T00:00:00Z".to_owned()), None)), "still new to production");
    at(&migration(MigrationOutcome::Completed, false), "2026-11-23T00:00:00Z");
    let both = (Some("2026-11-22T00:00:00Z".to_owned()), Some("2026-11-23T00:00:00Z".to_owned()));
    assert_eq!(known(), Some(both));
    assert_eq!(ledger.past_forecasts(&uuid("a"), &uuid("b")).unwrap().len(), 4);
    assert_eq!(ledger.past_forecasts(&uuid("b"), &uuid("a")).unwrap(), []);
}

#[test]
fn what_is_no_ledger_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("text"), "hello, this is not a database at all").unwrap();
    let other = |name, sql| rusqlite::Connection::open(at(name)).unwrap().execute_batch(sql).unwrap();
    other("other.db", "CREATE TABLE t (a)");
    other("newer.db", "CREATE TABLE t (a); PRAGMA user_version = 9");
    for (name, says) in [
        ("text", "cannot be opened"),
        ("other.db", "of another program"),
        ("newer.db", "format 9"),
        (".", "cannot be opened"),
    ] {
        let error = Ledger::open(at(name)).unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
        assert!(Ledger::open_existing(at(name)).is_err());
    }
    assert!(matches!(Ledger::open_existing(at("none")), Err(LedgerError::Missing { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_one_changed_byte_of_a_body_breaks_the_chain(at in 0_usize..100, texts in prop::collection::vec(".{0,40}", 1..6)) {
        let fresh = TestLedger::in_file();
        let ledger = fresh.ledger();
        for text in &texts {
            ledger.append(&transition("r1", text)).unwrap();
        }
        prop_assert_eq!(ledger.verify().unwrap().sequence, texts.len() as u64);
        let sequence = at % texts.len() + 1;
        let place = at % 20 + 1;
        fresh.unlock();
        fresh.tamper(&format!(
            "UPDATE record SET body = substr(body, 1, {place} - 1) || '~' || substr(body, {place} + 1) WHERE sequence = {sequence}"
        )).unwrap();
        let found = match ledger.verify() {
            Err(LedgerError::Broken(broken)) => broken.sequence,
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(found, sequence as u64);
    }
}
