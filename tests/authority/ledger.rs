//! Promise 12: what a runner may do to the ledger it shares.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use vmgate_ledger::{
    Entry, Ledger, Selection,
    entry::Override,
    test_ledger::cluster::{self, psql},
};
use vmgate_verdict::NameAndUuid;

use crate::said::{Said, vmgate_in};

/// What a command said, held against what it must say.
trait Says {
    fn prints(self, text: &str) -> Self;
    fn warns(self, text: &str) -> Self;
}

impl Says for Said {
    #[track_caller]
    fn prints(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "`{text}` is not on stdout:\n{}", self.stdout);
        self
    }

    #[track_caller]
    fn warns(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "`{text}` is not on stderr:\n{}", self.stderr);
        self
    }
}

const HEALTHY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");

/// A ledger in a database: its URL as its owner, and as a runner.
struct Shared {
    folder: TempDir,
    owner: String,
    runner: String,
}

impl Shared {
    /// Roles are common to all databases of the server, so each test has one of its own.
    fn with_runner(role: &str) -> Self {
        let shared = Self::without_ledger(role);
        shared.vmgate(&shared.owner, &["ledger", "init", "--runner", role]).exits(0);
        shared
    }

    fn without_ledger(role: &str) -> Self {
        let owner = cluster::database();
        psql(&owner, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).unwrap();
        let runner = owner.replace("//owner@", &format!("//{role}:secret@"));
        Self { folder: tempfile::tempdir().unwrap(), owner, runner }
    }

    fn vmgate(&self, store: &str, arguments: &[&str]) -> Said {
        vmgate_in(self.folder.path(), &[arguments, &["--store", store]].concat())
    }

    /// Writes a record as honest vmgate does.
    fn append(&self, by: &str) {
        Ledger::open(&self.runner).unwrap().append(&an_override(by)).unwrap();
    }

    fn verify(&self, options: &[&str]) -> Said {
        self.vmgate(&self.runner, &[&["ledger", "verify"], options].concat())
    }

    /// Records a check, whatever its verdict.
    fn check(&self, store: &str) {
        let said = self.vmgate(store, &["check", "--facts", HEALTHY]);
        assert!([0, 20, 21].contains(&said.code), "{}", said.stderr);
    }

    /// Rewrites the ledger, as only its owner can.
    fn tamper(&self, sql: &str) {
        psql(&self.owner, &format!("SET session_replication_role = replica; {sql}")).unwrap();
    }
}

fn an_override(by: &str) -> Entry {
    let named = |name: &str| NameAndUuid {
        name: Some(name.to_owned()),
        uuid: "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11".parse().ok(),
    };
    Entry::Override(Override {
        vm: named("web1"),
        source: None,
        destination: named("hv2"),
        refused_by: "the gate".to_owned(),
        by: by.to_owned(),
        reason: "it's urgent".to_owned(),
        at: None,
        until: None,
    })
}

/// The statement by which vmgate appends, with an entry that somebody wrote by hand.
fn call(entry: &str, token: u8) -> String {
    let quoted = entry.replace('\'', "''");
    let literal = if entry.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    };
    format!("SELECT * FROM vmgate.append({literal}, '{}', NULL)", format!("{token:02x}").repeat(16))
}

#[track_caller]
fn refused(answer: Result<String, String>, says: &str) {
    let error = answer.unwrap_err();
    assert!(error.contains(says), "{error}");
}

/// A session of the database that does something and then stays open, until it is dropped.
struct Session(Child);

impl Session {
    /// Each of these statements is sent by itself.
    fn of(url: &str, statements: &[&str]) -> Self {
        let statements = statements.iter().flat_map(|statement| ["-c", statement]);
        let child = Command::new("psql")
            .args(["-qAtX", url])
            .args(statements)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(500));
        Self(child)
    }

    fn that(url: &str, sql: &str) -> Self {
        let mut child = Command::new("psql")
            .args(["-qAtX", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{sql}").unwrap();
        thread::sleep(Duration::from_millis(500));
        Self(child)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Promise 12: A runner inserts a well-chained override by somebody else, far in the past or at the last number of all, changes records, moves the head or gives itself rights: the database refuses each.
#[test]
fn a_runner_has_no_way_to_write_but_the_function() {
    let shared = Shared::with_runner("raw_writer");
    shared.append("ann");
    let insert = |sequence: &str, at: &str| {
        format!(
            "INSERT INTO vmgate.record (sequence, at, kind, run, vm, body, previous, digest)
             SELECT {sequence}, '{at}', kind, run, vm, replace(body, 'ann', 'boss'), digest, md5(body) FROM vmgate.record"
        )
    };
    for sql in [
        insert("2", "2026-11-29T06:00:00Z"),
        insert("2", "2020-01-01T00:00:00Z"),
        insert("9223372036854775807", "2026-11-29T06:00:00Z"),
        "UPDATE vmgate.record SET body = '{}'".to_owned(),
        "DELETE FROM vmgate.record".to_owned(),
        "TRUNCATE vmgate.record".to_owned(),
        "UPDATE vmgate.format SET version = 99".to_owned(),
        "INSERT INTO vmgate.turn DEFAULT VALUES".to_owned(),
        "CREATE TRIGGER t BEFORE INSERT ON vmgate.record FOR EACH ROW EXECUTE FUNCTION vmgate.refuse()"
            .to_owned(),
        "COPY vmgate.record FROM STDIN".to_owned(),
    ] {
        refused(psql(&shared.runner, &sql), "permission denied");
    }
    for sql in [
        "ALTER TABLE vmgate.record OWNER TO raw_writer",
        "ALTER FUNCTION vmgate.append RESET ALL",
        "CREATE OR REPLACE FUNCTION vmgate.append(entry text, token text, head bigint) RETURNS text LANGUAGE sql AS 'SELECT 1'",
        "SET SESSION AUTHORIZATION owner",
        "SET ROLE owner",
    ] {
        let error = psql(&shared.runner, sql).unwrap_err();
        assert!(error.contains("must be owner") || error.contains("permission denied"), "{sql}: {error}");
    }
    let init = ["ledger", "init", "--runner", "owner"];
    shared.vmgate(&shared.owner, &init).exits(1).warns("give the runner a role of its own");
    let _ = psql(&shared.runner, "GRANT INSERT ON vmgate.record TO raw_writer");
    refused(psql(&shared.runner, &insert("2", "2026-11-29T06:00:00Z")), "permission denied");
    shared.append("ann");
    shared.verify(&[]).exits(0).prints("2 records");
}

/// Promise 12: A runner calls the function with an override by somebody else, a role of its choice and times of its choice: role and time are the database's, and `list`, `show` and `verify` tell the role beside the name.
#[test]
fn an_override_in_another_name_is_shown_with_the_role_that_wrote_it() {
    let shared = Shared::with_runner("forger");
    let forged = serde_json::to_string(&an_override("boss")).unwrap();
    let stamped = forged.replacen('{', r#"{"role":"boss","#, 1);
    let escaped = forged.replacen('{', r#"{"\u0072ole":"boss","#, 1);
    for entry in [&stamped, &escaped, r#"{"kind":""}"#, r"{}", r#"["kind"]"#] {
        refused(psql(&shared.runner, &call(entry, 1)), "no entry of the ledger");
    }
    refused(psql(&shared.runner, &call("nothing", 1)), "invalid input syntax for type json");
    let back_dated = forged
        .replacen('{', r#"{"sequence":9223372036854775807,"#, 1)
        .replace(r#""at":null"#, r#""at":"2020-01-01T00:00:00Z""#);
    assert!(back_dated.contains("2020"));
    psql(&shared.runner, &call(&back_dated, 1)).unwrap();
    let record = Ledger::open(&shared.owner).unwrap().record(1).unwrap().unwrap();
    let age = jiff::Timestamp::now().duration_since(record.at).as_secs();
    assert!((0..60).contains(&age), "{}", record.at);
    shared
        .verify(&[])
        .exits(0)
        .prints("by boss, written by role forger")
        .prints("written by role forger: 1 record");
    shared
        .vmgate(&shared.runner, &["ledger", "list"])
        .exits(0)
        .prints("by boss")
        .prints("written by role forger");
    shared.vmgate(&shared.runner, &["ledger", "show", "1"]).exits(0).prints(r#""role": "forger""#);
}

/// Promise 12: A runner takes every lock that it can get, and keeps a transaction open after a call of the function in every way that SQL has: the others go on at once.
#[test]
fn what_a_runner_locks_stops_nobody() {
    let shared = Shared::with_runner("locker");
    shared.append("ann");
    let modes =
        "ROW SHARE|ROW EXCLUSIVE|SHARE UPDATE EXCLUSIVE|SHARE|SHARE ROW EXCLUSIVE|EXCLUSIVE|ACCESS EXCLUSIVE";
    for table in ["record", "turn", "format"] {
        for mode in modes.split('|').chain((table == "turn").then_some("ACCESS SHARE")) {
            let sql = format!("BEGIN; LOCK TABLE vmgate.{table} IN {mode} MODE");
            refused(psql(&shared.runner, &sql), "permission denied");
        }
    }
    for lock in ["FOR UPDATE", "FOR SHARE", "FOR KEY SHARE"] {
        let sql = format!("SELECT * FROM vmgate.record {lock}");
        refused(psql(&shared.runner, &sql), "permission denied");
    }
    let entry = serde_json::to_string(&an_override("ann")).unwrap();
    let (append, again) = (call(&entry, 1), call(&entry, 2));
    for sql in [
        format!("BEGIN; {append}"),
        format!("{append}; SELECT pg_sleep(60)"),
        format!("SELECT pg_sleep(0); {append}"),
        format!("SELECT a.*, pg_sleep(60) FROM ({append}) a"),
        format!("DO $do$ BEGIN PERFORM 1 FROM ({append}) a; PERFORM pg_sleep(60); END $do$"),
        format!("PREPARE p AS {append}; EXECUTE p"),
        format!("DECLARE c CURSOR WITH HOLD FOR {append}"),
        format!("COPY ({append}) TO STDOUT"),
        format!("EXPLAIN ANALYZE {append}"),
        format!("CREATE TEMP TABLE t AS {append}"),
    ] {
        refused(psql(&shared.runner, &sql), "must be called by a statement of its own");
    }
    // What follows keeps its transaction and its locks for as long as the test runs.
    let holding = [
        Session::that(
            &shared.runner,
            "SELECT pg_advisory_lock(n) FROM generate_series(1, 500) n; SELECT pg_advisory_lock(oid::bigint) FROM pg_class;",
        ),
        Session::that(
            &shared.runner,
            "BEGIN; LOCK TABLE vmgate.record, vmgate.format IN ACCESS SHARE MODE; SELECT * FROM vmgate.record;",
        ),
        Session::that(&shared.runner, "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT * FROM vmgate.record;"),
        Session::of(&shared.runner, &["BEGIN", &append, "SELECT pg_sleep(60)"]),
        Session::of(&shared.runner, &["START TRANSACTION; SAVEPOINT s", &append, "SELECT pg_sleep(60)"]),
        Session::of(&shared.runner, &["BEGIN; SELECT 1", &again, "SELECT pg_sleep(60)"]),
    ];
    let start = Instant::now();
    shared.append("ann");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    drop(holding);
    shared.verify(&[]).exits(0).prints("2 records");
}

/// Promise 12: Somebody with more rights than a runner locks the ledger for minutes: a write gives up in seconds and names the process and the role.
#[test]
fn whoever_holds_the_lock_is_named_within_seconds() {
    let shared = Shared::with_runner("patient");
    let lock = "BEGIN; LOCK TABLE vmgate.turn IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60);";
    let holding = Session::that(&shared.owner, lock);
    let pid =
        psql(&shared.owner, "SELECT pid FROM pg_locks WHERE relation = 'vmgate.turn'::regclass AND granted")
            .unwrap();
    let start = Instant::now();
    let said = shared.vmgate(&shared.runner, &["check", "--facts", HEALTHY]).exits(1);
    assert!(start.elapsed() < Duration::from_secs(14), "{:?}", start.elapsed());
    let said = said.warns(&format!("process {pid} of role owner keeps the ledger locked"));
    said.warns(&format!("SELECT pg_terminate_backend({pid})"));
    let start = Instant::now();
    shared.vmgate(&shared.owner, &["ledger", "list"]).exits(0);
    assert!(start.elapsed() < Duration::from_secs(5), "readers do not wait");
    psql(&shared.owner, &format!("SELECT pg_terminate_backend({pid})")).unwrap();
    drop(holding);
    shared.append("ann");
}

/// Promise 12: A runner writes records that no vmgate can read, such as the start of a run without its VM: they are kept, told, and stop nobody.
#[test]
fn records_that_cannot_be_read_break_nothing() {
    let shared = Shared::with_runner("mumbler");
    for (number, entry) in [
        r#"{"kind":"run-started"}"#,
        r#"{"kind":"run-started","run":"r1","vm":{"uuid":"u-9"}}"#,
        r#"{"kind":"run-ended","kind":"run-started","run":["r1"],"vm":{"uuid":7}}"#,
        r#"{"kind":"campaign","campaign":"c","event":"conquered"}"#,
        r#"{"kind":"override","by":7,"signature":"x"}"#,
        r#"{"kind":"\u001b[31mred\nred","run":"a\\b'c"}"#,
    ]
    .iter()
    .enumerate()
    {
        psql(&shared.runner, &call(entry, u8::try_from(number).unwrap())).unwrap();
    }
    let deep = format!("{{\"kind\":\"deep\",\"x\":{}{}}}", "[".repeat(500), "]".repeat(500));
    psql(&shared.runner, &call(&deep, 9)).unwrap();
    let said = shared
        .verify(&[])
        .exits(0)
        .prints("7 records, all unchanged")
        .prints("not understood by this vmgate: 7 records (1-7)");
    assert!(!said.stdout.contains('\u{1b}'));
    let said = shared.vmgate(&shared.runner, &["ledger", "list"]).exits(0);
    assert!(!said.stdout.contains('\u{1b}'));
    shared.check(&shared.runner);
    shared.vmgate(&shared.runner, &["ledger", "list", "--open"]).exits(0);
    let ledger = Ledger::open(&shared.runner).unwrap();
    assert_eq!(ledger.open_runs().unwrap(), []);
    assert_eq!(ledger.records(&Selection::default()).unwrap().len(), 8);
}

/// A ledger of format 1, in which a runner could insert; with one record by the runner.
fn of_old(role: &str) -> Shared {
    let shared = Shared::without_ledger(role);
    let schema = include_str!("../../crates/ledger/src/postgres/schema.sql");
    psql(&shared.owner, &format!("BEGIN; {schema}; COMMIT")).unwrap();
    psql(
        &shared.owner,
        &format!(
            "GRANT USAGE ON SCHEMA vmgate TO {role};
             GRANT SELECT ON vmgate.format TO {role};
             GRANT SELECT, INSERT ON vmgate.record TO {role};
             GRANT UPDATE ON vmgate.turn TO {role};"
        ),
    )
    .unwrap();
    let (at, body) = ("2026-01-02T03:04:05.678Z", serde_json::to_string(&an_override("ann")).unwrap());
    let body = body.replace('\'', "''");
    psql(
        &shared.runner,
        &format!(
            "INSERT INTO vmgate.record SELECT 1, '{at}', 'override', NULL, 'u-1', b, repeat('0', 64),
             encode(sha256(convert_to(repeat('0', 64) || E'\\n1\\n{at}\\n' || b, 'UTF8')), 'hex') FROM (VALUES ('{body}')) v(b)"
        ),
    )
    .unwrap();
    shared
}

/// Promise 12: A ledger of before, in which runners had the right to insert: it still verifies, nothing is written before `ledger init`, and afterwards the right is gone, on the table and on its columns, and the runner works on.
#[test]
fn a_ledger_of_before_is_brought_up_to_date_by_init() {
    let shared = of_old("veteran");
    psql(&shared.owner, "CREATE ROLE veteran_columns; GRANT INSERT (body), UPDATE (body) ON vmgate.record TO veteran_columns; GRANT veteran_columns TO veteran").unwrap();
    shared.verify(&[]).exits(0).prints("1 record, all unchanged");
    shared
        .vmgate(&shared.runner, &["check", "--facts", HEALTHY])
        .exits(1)
        .warns("format 1")
        .warns("run `vmgate ledger init` with this version once, as the owner");
    shared.vmgate(&shared.runner, &["ledger", "init"]).exits(1).warns("does not own the ledger");
    // Somebody who reads is named, if he keeps the upgrade waiting.
    let reader = Session::that(&shared.runner, "BEGIN; SELECT * FROM vmgate.record;");
    shared
        .vmgate(&shared.owner, &["ledger", "init"])
        .exits(1)
        .warns("of role veteran keeps the ledger locked");
    drop(reader);
    for _ in 0..2 {
        shared.vmgate(&shared.owner, &["ledger", "init"]).exits(0);
    }
    shared.append("ann");
    refused(
        psql(&shared.runner, "INSERT INTO vmgate.record SELECT * FROM vmgate.record"),
        "permission denied",
    );
    refused(psql(&shared.runner, "INSERT INTO vmgate.record (body) VALUES ('x')"), "permission denied");
    refused(psql(&shared.runner, "BEGIN; LOCK TABLE vmgate.turn IN EXCLUSIVE MODE"), "permission denied");
    assert_eq!(psql(&shared.owner, "SELECT version FROM vmgate.format").unwrap(), "2");
    shared
        .verify(&[])
        .exits(0)
        .prints("2 records")
        .prints("written by role veteran: 1 record (2)")
        .prints("without a role, by an older vmgate or by the ledger's owner: 1 record (1)");
}

fn key(folder: &Path, name: &str) {
    let openssl = |arguments: &[&str]| {
        assert!(Command::new("openssl").args(arguments).current_dir(folder).status().unwrap().success());
    };
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", &format!("{name}.key")]);
    openssl(&["pkey", "-in", &format!("{name}.key"), "-pubout", "-out", &format!("{name}.pem")]);
    fs::set_permissions(folder.join(format!("{name}.key")), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Promise 12: Records are signed by the runner's key, in a database and in a file; one without a signature is told, and one with a signature that was copied from another record, or made for another content, fails `verify --key`.
#[test]
fn verify_says_which_records_were_signed_and_by_whom_and_fails_on_a_bad_signature() {
    let shared = Shared::with_runner("signer");
    let folder = shared.folder.path();
    key(folder, "site");
    key(folder, "other");
    for store in [shared.runner.as_str(), "ledger.db"] {
        shared.check(store);
        fs::write(folder.join("vmgate.yaml"), "signing_key: site.key\n").unwrap();
        shared.check(store);
        shared.check(store);
        fs::remove_file(folder.join("vmgate.yaml")).unwrap();
        let verify = |keys: &[&str]| shared.vmgate(store, &[&["ledger", "verify"], keys].concat());
        verify(&["--key", "site.pem", "--key", "other.pem"])
            .exits(0)
            .prints("signed by site.pem: 2 records (2-3)")
            .prints("signed by other.pem: none")
            .prints("not signed: 1 record (1)");
        verify(&["--key", "other.pem"]).exits(0).prints("its key").prints("was not given: 2 records (2-3)");
    }
    let signed = psql(&shared.owner, "SELECT body FROM vmgate.record WHERE sequence = 2").unwrap();
    let copied = format!("{{{}", signed.split_once(r#""role":"signer","#).unwrap().1);
    psql(&shared.runner, &call(&copied, 1)).unwrap();
    shared
        .verify(&["--key", "site.pem"])
        .exits(2)
        .warns("record 4, written by role signer")
        .warns("did not sign this content as record 4");
    shared.verify(&["--key", "other.pem"]).exits(0);
    psql(&shared.runner, &call(&copied.replace("idle", "busy"), 2)).unwrap();
    shared.verify(&["--key", "site.pem"]).exits(2).warns("did not sign this content as record 5");
}

/// Promise 12: The owner of the database cuts records off, or rewrites them with a chain that holds: `verify --anchor` finds both, and no new anchor is set on top.
#[test]
fn an_anchor_shows_that_a_ledger_was_cut_off_or_rewritten() {
    let shared = Shared::with_runner("anchored");
    let folder = shared.folder.path();
    fs::write(folder.join("vmgate.yaml"), "anchor: {file: anchors, command: [sh, -c, 'cat >> posted']}\n")
        .unwrap();
    let anchor = || shared.vmgate(&shared.runner, &["ledger", "anchor"]);
    anchor().exits(2).warns("no record yet");
    shared.append("ann");
    shared.append("bob");
    anchor().exits(0).prints("anchored 2:");
    shared.append("cid");
    anchor().exits(0).prints("anchored 3:");
    let lines = fs::read_to_string(folder.join("anchors")).unwrap();
    assert_eq!(lines.lines().count(), 2);
    assert_eq!(fs::read_to_string(folder.join("posted")).unwrap(), lines);
    shared.verify(&[]).exits(0).prints("2 anchors of anchors agree");

    let backup = "CREATE TABLE backup AS SELECT * FROM vmgate.record";
    shared.tamper(&format!("{backup}; DELETE FROM vmgate.record WHERE sequence = 3"));
    for options in [&[][..], &["--anchor", "anchors"]] {
        shared
            .verify(options)
            .exits(2)
            .warns("ends at record 2, but it once had record 3")
            .warns("anchored in");
    }
    anchor().exits(2).warns("once had record 3");
    shared.append("eve");
    shared.verify(&[]).exits(2).warns("record 3 has another digest than before");

    shared.tamper("DELETE FROM vmgate.record; INSERT INTO vmgate.record SELECT * FROM backup");
    shared.verify(&[]).exits(0);
    let rewritten = "WITH RECURSIVE chain AS (
        SELECT sequence, at, kind, run, vm, replace(body, 'ann', 'eve') AS body, repeat('0', 64) AS previous,
          encode(sha256(convert_to(concat_ws(E'\\n', repeat('0', 64), sequence, at, replace(body, 'ann', 'eve')), 'UTF8')), 'hex') AS digest
        FROM backup WHERE sequence = 1
        UNION ALL
        SELECT b.sequence, b.at, b.kind, b.run, b.vm, b.body, c.digest,
          encode(sha256(convert_to(concat_ws(E'\\n', c.digest, b.sequence, b.at, b.body), 'UTF8')), 'hex')
        FROM backup b JOIN chain c ON b.sequence = c.sequence + 1)
      INSERT INTO vmgate.record SELECT * FROM chain";
    shared.tamper(&format!("DELETE FROM vmgate.record; {rewritten}"));
    fs::rename(folder.join("anchors"), folder.join("elsewhere")).unwrap();
    fs::remove_file(folder.join("vmgate.yaml")).unwrap();
    shared.verify(&[]).exits(0).prints("all unchanged");
    shared.verify(&["--anchor", "elsewhere"]).exits(2).warns("record 2 has another digest than before");
    fs::write(folder.join("empty"), "").unwrap();
    shared.verify(&["--anchor", "empty"]).exits(2).warns("no anchor");
    shared.verify(&["--anchor", "missing"]).exits(2).warns("cannot be read");
}

/// Promise 12: A campaign ends, and the ledger is cut off behind it: its head was anchored at the end, and `verify` finds what is missing.
#[test]
#[cfg(feature = "libvirt")]
fn the_end_of_a_campaign_is_anchored() {
    let shared = Shared::with_runner("campaigner");
    let folder = shared.folder.path();
    let site =
        "anchor: {file: anchors}\nhosts: {none: {uri: 'test:///none'}, other: {uri: 'test:///other'}}\n";
    fs::write(folder.join("vmgate.yaml"), site).unwrap();
    let change = "schema: vmgate/change/v1\nid: CHG-1\nmoves:\n  - {vm: web1, from: 'qemu+ssh://none/system', to: 'qemu+ssh://other/system'}\n";
    fs::write(folder.join("change.yaml"), change).unwrap();
    // The hosts do not exist: the move is tried once and fails.
    shared.vmgate(&shared.runner, &["run", "--change", "change.yaml", "--attempts", "1"]);
    let anchors = fs::read_to_string(folder.join("anchors")).unwrap();
    let last = psql(&shared.owner, "SELECT max(sequence) FROM vmgate.record").unwrap();
    assert!(anchors.starts_with(&format!("{last}:")) && anchors.lines().count() == 1, "{anchors}");
    shared.verify(&[]).exits(0).prints("1 anchor of anchors agree");
    shared.tamper(&format!("DELETE FROM vmgate.record WHERE sequence = {last}"));
    shared.verify(&[]).exits(2).warns("once had record");
}

/// Promise 12: Another user of the machine finds the ledger's file: its mode is 0600 and that of its new folders 0700, whatever the umask, and a wider one is told and narrowed.
#[test]
fn a_ledger_in_a_file_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    let check = ["check", "--facts", HEALTHY, "--ledger", "new/folder/ledger.db"];
    let vmgate = env!("CARGO_BIN_EXE_vmgate");
    let line = format!("umask 0; exec {vmgate} \"$@\"");
    let made =
        Command::new("sh").args(["-c", &line, "sh"]).args(check).current_dir(folder.path()).output().unwrap();
    assert!([0, 20, 21].contains(&made.status.code().unwrap()));
    assert_eq!(["new", "new/folder", "new/folder/ledger.db"].map(mode), [0o700, 0o700, 0o600]);
    fs::set_permissions(folder.path().join("new/folder/ledger.db"), fs::Permissions::from_mode(0o664))
        .unwrap();
    vmgate_in(folder.path(), &check).warns("mode 0664").warns("now only its owner can");
    assert_eq!(mode("new/folder/ledger.db"), 0o600);
}
