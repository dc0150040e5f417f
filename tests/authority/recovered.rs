//! Records that a writer of the ledger invents, and what a recovery makes of them.

use std::fs;

use vmgate_attest::Digest;
use vmgate_judge::change::{Action, ActionKind, ChangeFile, MovePlan, RunsOn};
use vmgate_ledger::{
    Entry, Ledger,
    entry::{ActionState, Driver, RunStarted, RunStep, Transition},
};
use vmgate_verdict::NameAndUuid;

use super::{GOOD, Trap, change};
use crate::said::Said;

#[path = "../cluster/mod.rs"]
mod cluster;

const NAMED: &str = "qemu+ssh://root@hv1/system";
const OTHER: &str = "qemu+ssh://root@hv2/system";

/// Ledgers of both kinds, with the options that name them.
fn ledgers(trap: &Trap) -> Vec<String> {
    let database = cluster::database();
    trap.run(&["ledger", "init", "--ledger", &database]).exits(0);
    vec![trap.path().join("ledger.db").display().to_string(), database]
}

/// A process that is gone.
fn gone() -> Driver {
    Driver { started_ticks: 1, ..vmgate_execute::current_driver() }
}

/// A record of a move that was left behind while it prepared the VM.
fn left_behind(place: &str, from: &str, to: &str, undo: &[&str], change_digest: Option<Digest>) {
    let ledger = Ledger::open(place.to_owned()).unwrap();
    let named = |name: &str| NameAndUuid { name: Some(name.to_owned()), uuid: None };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let action = Action {
        deed: ActionKind::Run { on: RunsOn::Operator, run: words(&["true"]), undo: words(undo) },
        time_limit_seconds: 10.0,
    };
    let actions = if undo.is_empty() { Vec::new() } else { vec![action] };
    let begun = actions.len();
    ledger
        .append(&Entry::RunStarted(RunStarted {
            run: "r1".to_owned(),
            vm: NameAndUuid { name: Some("web1".to_owned()), uuid: None },
            source: named("hv1"),
            destination: named("hv2"),
            from: from.to_owned(),
            to: to.to_owned(),
            change: Some("CHG-1".to_owned()),
            change_digest,
            plan: MovePlan { actions, ..MovePlan::default() },
            driver: gone(),
            monitor: None,
            trial: false,
        }))
        .unwrap();
    for number in 0..begun {
        ledger
            .append(&Entry::Transition(Transition {
                run: "r1".to_owned(),
                vm: "web1".to_owned(),
                state: RunStep::Prepare,
                action: Some(number),
                mark: Some(ActionState::Doing),
                why: None,
            }))
            .unwrap();
    }
}

/// Two hosts of libvirt's test driver, the first with web1, named hv1 and hv2 by the site.
fn two_hosts(trap: &Trap, more: &str) -> [String; 2] {
    let vm = "<domain type='test'><name>web1</name><memory>1024</memory><os><type>hvm</type></os></domain>";
    let uris = [("hv1", vm), ("hv2", "")].map(|(name, vms)| {
        let file = trap.path().join(format!("{name}.xml"));
        fs::write(&file, format!("<node>{vms}</node>")).unwrap();
        format!("test://{}", file.display())
    });
    let [from, to] = &uris;
    trap.write("vmgate.yaml", &format!("hosts: {{hv1: {{uri: '{from}'}}, hv2: {{uri: '{to}'}}}}\n{more}"));
    uris
}

fn recover(trap: &Trap, ledger: &str, more: &[&str]) -> Said {
    trap.run(&[&["recover", "--timeout", "5", "--ledger", ledger][..], more].concat())
}

/// Promise 3: records with URIs that name programs are put into an SQLite and a PostgreSQL ledger, and recovered.
#[test]
fn the_addresses_of_a_record_run_nothing() {
    let trap = Trap::new();
    for (number, (uri, part)) in trap.uris().into_iter().enumerate() {
        let ledger = trap.path().join(format!("{number}.db")).display().to_string();
        left_behind(&ledger, &uri, GOOD, &[], None);
        let said = recover(&trap, &ledger, &[]).exits(31);
        assert!(said.stdout.contains(part) && said.stdout.contains("stays open"), "{uri}: {}", said.stdout);
        assert!(said.stdout.contains("vmgate recover VM --from URI --to URI"), "{}", said.stdout);
        trap.did_not_snap(&uri);
    }
    for ledger in ledgers(&trap) {
        let uri = format!("qemu+ext://x/system?command={}", trap.program().display());
        left_behind(&ledger, &uri, &uri, &[], None);
        recover(&trap, &ledger, &[]).exits(31);
        trap.did_not_snap(&ledger);
    }
}

/// Promise 3: a record with an undo command and no change file is put into both kinds of ledger, for a VM that is there.
#[test]
fn the_undo_command_of_a_record_is_not_run() {
    let trap = Trap::new();
    let program = trap.program().display().to_string();
    two_hosts(&trap, "");
    for ledger in ledgers(&trap) {
        left_behind(&ledger, NAMED, OTHER, &[&program], None);
        let said = recover(&trap, &ledger, &[]).exits(31);
        assert!(said.stdout.contains("its commands are not run"), "{}", said.stdout);
        trap.did_not_snap(&ledger);
    }
}

/// Promise 3: a record names an approved change and another undo command: the change file is asked for, and its own is run.
#[test]
fn a_recovery_runs_the_commands_of_the_change_file_and_asks_for_it() {
    let trap = Trap::new();
    let (evil, undone) = (trap.program().display().to_string(), trap.path().join("undone"));
    two_hosts(&trap, "");
    let prepare = format!(", prepare: [{{run: ['true'], undo: [touch, '{}']}}]", undone.display());
    let text = change(NAMED, OTHER, &prepare);
    trap.write("change.yaml", &text);
    let digest = ChangeFile::parse("change.yaml", text.as_bytes()).unwrap().digest;
    for ledger in ledgers(&trap) {
        // The record lies about everything but the change and the VM.
        left_behind(&ledger, GOOD, GOOD, &[&evil], Some(digest));
        let said = recover(&trap, &ledger, &[]).exits(31);
        assert!(
            said.stdout.contains("--change FILE") && said.stdout.contains("nothing was done"),
            "{}",
            said.stdout
        );
        let other = trap.path().join("other");
        trap.write("changed.yaml", &text.replace("/undone", "/other"));
        recover(&trap, &ledger, &["--change", "changed.yaml"]).exits(31);
        assert!(!undone.exists() && !other.exists(), "a file of another digest is no order");
        let said = recover(&trap, &ledger, &["--change", "change.yaml"]).exits(0);
        assert!(said.stdout.contains("has ended"), "{}", said.stdout);
        assert!(undone.exists());
        fs::remove_file(&undone).unwrap();
        trap.did_not_snap(&ledger);
    }
    let ledger = trap.path().join("second.db").display().to_string();
    left_behind(&ledger, NAMED, OTHER, &[&evil], Some(digest));
    fs::create_dir(trap.path().join("approved")).unwrap();
    fs::rename(trap.path().join("change.yaml"), trap.path().join("approved/change.yaml")).unwrap();
    two_hosts(&trap, "changes: [approved]\n");
    recover(&trap, &ledger, &[]).exits(0);
    assert!(undone.exists(), "the folder in vmgate.yaml has the file");
    trap.did_not_snap(&ledger);
}

/// A move that was left behind may have sent its verdict to the hook of the destination: unless the VM came there, a recovery
/// withdraws it. Commands of the hook know a host by its name in vmgate.yaml too.
#[test]
fn a_recovery_withdraws_what_waits_for_the_vm_at_the_destination() {
    let trap = Trap::new();
    let [from, to] = two_hosts(&trap, "");
    let asked = trap.path().join("asked");
    let shell = format!("cat >'{}'; echo '[\"sha256:aa\"]'", asked.display());
    let hosts = format!("hv1: {{uri: '{from}'}}, hv2: {{uri: '{to}', shell: [sh, -c, {shell:?}]}}");
    trap.write("vmgate.yaml", &format!("hosts: {{{hosts}}}\n"));
    let ledger = trap.path().join("ledger.db").display().to_string();
    left_behind(&ledger, NAMED, OTHER, &[], None);
    let said = recover(&trap, &ledger, &["-v"]).exits(0);
    let text = fs::read_to_string(&asked).unwrap_or_default();
    assert!(text.contains("withdraw-verdicts") && text.contains("\"vm\":\"web1\""), "{text} {}", said.stderr);
    fs::remove_file(&asked).unwrap();
    let said = trap.run(&["verdict", "withdraw", "hv2", "--vm", "web1"]).exits(0);
    assert!(said.stdout.contains("hv2: the verdict sha256:aa is withdrawn"), "{}", said.stdout);
    assert!(asked.exists());
}

/// Promise 3: the hosts of a move without a change file are given again where the record's URIs are more than a name.
#[test]
fn the_operator_says_again_what_a_record_may_not_say() {
    let trap = Trap::new();
    let [from, to] = two_hosts(&trap, "");
    trap.write("vmgate.yaml", "");
    let ledger = trap.path().join("ledger.db").display().to_string();
    left_behind(&ledger, &from, &to, &[], None);
    recover(&trap, &ledger, &[]).exits(31);
    recover(&trap, &ledger, &["db1", "--from", &from, "--to", &to]).exits(31);
    let said = recover(&trap, &ledger, &["web1", "--from", &from, "--to", &to]).exits(0);
    assert!(said.stdout.contains("the VM runs on the source"), "{}", said.stdout);
    recover(&trap, &ledger, &[]).exits(0);
    // What the site says of its hosts is the operator's word as well.
    let ledger = trap.path().join("second.db").display().to_string();
    two_hosts(&trap, "");
    left_behind(&ledger, &from, &to, &[], None);
    recover(&trap, &ledger, &[]).exits(0);
}
