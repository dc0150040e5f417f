use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;
use crate::{
    Entry, Ledger,
    entry::{RunStep, Transition},
    test_ledger::cluster::{self, Cluster, psql},
};

fn entry(why: &str) -> Entry {
    Entry::Transition(Transition {
        run: "r1".to_owned(),
        vm: "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11".to_owned(),
        state: RunStep::Gate,
        action: None,
        mark: None,
        why: Some(why.to_owned()),
    })
}

fn made(url: String) -> String {
    PostgresStore::init(&url, &[]).unwrap();
    url
}

fn open(url: &str) -> Ledger {
    Ledger::open(url).unwrap()
}

fn refusal(url: &str) -> String {
    let error = Ledger::open(url).unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
    error
}

/// The URL of the same database for another role, which has a password.
fn as_role(url: &str, role: &str) -> String {
    psql(url, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).unwrap();
    url.replace("//owner@", &format!("//{role}:secret@"))
}

/// Contents of all records in order; checks the chain first.
fn contents(ledger: &Ledger) -> Vec<String> {
    ledger.verify().unwrap();
    let records = ledger.records(&Selection::default()).unwrap();
    let why = |entry: &Entry| match entry {
        Entry::Transition(Transition { why, .. }) => why.clone().unwrap(),
        other => panic!("{other}"),
    };
    records.iter().map(|record| why(&record.entry)).collect()
}

/// Four writers append while `strike` does something to the server, and each of their records is there once.
fn nothing_is_lost_or_doubled(url: &str, each: usize, strike: impl FnOnce(&AtomicBool)) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let ledger = open(url);
                scope.spawn(move || {
                    for number in 0..each {
                        ledger.append(&entry(&format!("{writer}-{number}"))).unwrap();
                        thread::sleep(Duration::from_millis(5));
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            for writer in writers {
                writer.join().unwrap();
            }
            over.store(true, Ordering::SeqCst);
        });
        strike(&over);
    });
    let mut told = contents(&open(url));
    told.sort();
    let mut expected: Vec<_> = (0..4).flat_map(|w| (0..each).map(move |n| format!("{w}-{n}"))).collect();
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn a_runner_may_read_and_append_and_can_change_nothing() {
    let url = cluster::database();
    let runner = as_role(&url, "runner");
    PostgresStore::init(&url, &["runner".to_owned()]).unwrap();
    PostgresStore::init(&url, &["runner".to_owned()]).unwrap();
    let ledger = open(&runner);
    ledger.append(&entry("first")).unwrap();
    assert_eq!(contents(&ledger), ["first"]);
    for sql in [
        "UPDATE vmgate.record SET body = '{}'",
        "DELETE FROM vmgate.record",
        "TRUNCATE vmgate.record",
        "DROP TABLE vmgate.record",
        "ALTER TABLE vmgate.record DISABLE TRIGGER ALL",
        "UPDATE vmgate.format SET version = 3",
        "CREATE TABLE vmgate.other ()",
    ] {
        let error = psql(&runner, sql).unwrap_err();
        assert!(error.contains("permission denied") || error.contains("must be owner"), "{sql}: {error}");
    }
    let error = PostgresStore::init(&runner, &["runner".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("does not own the ledger"), "{error}");
}

/// Texts and names that PostgreSQL, JSON or the statement could take for something else.
#[test]
fn what_is_written_is_read_back_whatever_it_holds() {
    let url = cluster::database();
    let odd = r#"we"ird\ é'); DROP"#;
    psql(&url, &format!("CREATE ROLE \"{}\" LOGIN PASSWORD 'secret'", odd.replace('"', "\"\""))).unwrap();
    PostgresStore::init(&url, &[odd.to_owned()]).unwrap();
    let encoded = odd.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
    let ledger = open(&url.replace("//owner@", &format!("//{encoded}:secret@")));
    let texts =
        ["it's", r"a \ b \' c", "E'x'", "$1 %L %s", "line\nbreak\ttab", "\u{202e}ü😀", r#"{"role":"x"}"#];
    for text in texts {
        let written = ledger.append(&entry(text)).unwrap();
        assert_eq!(written.role.as_deref(), Some(odd));
        assert_eq!(ledger.record(written.sequence).unwrap(), Some(written));
    }
    ledger.append(&entry("nul \0 byte")).unwrap();
    let mut expected = texts.to_vec();
    expected.push("nul \u{fffd} byte");
    assert_eq!(contents(&ledger), expected);
}

#[test]
fn a_role_that_may_not_write_is_told_so_and_how_it_may() {
    let url = made(cluster::database());
    let stranger = as_role(&url, "stranger");
    let error = refusal(&stranger);
    assert!(
        error.contains("permission denied for schema vmgate") && error.contains("init --runner"),
        "{error}"
    );
    psql(
        &url,
        "GRANT USAGE ON SCHEMA vmgate TO stranger; GRANT SELECT ON ALL TABLES IN SCHEMA vmgate TO stranger",
    )
    .unwrap();
    let reader = open(&stranger);
    assert_eq!(reader.verify().unwrap().sequence, 0);
    let error = reader.append(&entry("never")).unwrap_err();
    assert!(matches!(error, LedgerError::Denied { .. }), "{error}");
}

#[test]
fn what_cannot_be_opened_says_why_and_never_its_password() {
    let url = cluster::database();
    assert!(refusal(&url).contains("`vmgate ledger init`"));
    let nobody = as_role(&url, "nobody").replace(":secret@", ":secret2@");
    assert!(refusal(&nobody).contains("password authentication failed for user \"nobody\""));
    assert!(refusal(&url.replace("/test", "/missing")).contains("does not exist"));
    let address = "postgres://ann:secret@127.0.0.1:1/x?sslmode=disable";
    assert!(refusal(address).contains("postgres://ann@127.0.0.1:1/x: the ledger cannot be reached"));
    assert!(refusal("postgres://ann:secret@no-such-host.invalid/x").contains("cannot be reached"));
    assert!(refusal("postgres://ann:secret@db/x?sslmode=prefer").contains("verify-full"));
    made(url.clone());
    psql(&url, "UPDATE vmgate.format SET version = 9").unwrap();
    let error = refusal(&url);
    assert!(error.contains("format 9") && error.contains("newer vmgate"), "{error}");
}

#[test]
fn a_database_that_cannot_hold_every_name_is_refused() {
    let url = cluster::database();
    psql(&url, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0").unwrap();
    let at = url.find("/test").unwrap();
    let url = format!("{}/latin{}", &url[..at], &url[url.find('?').unwrap()..]);
    let error = PostgresStore::init(&url, &[]).unwrap_err().to_string();
    assert!(error.contains("UTF-8"), "{error}");
}

#[test]
fn connections_that_are_cut_lose_and_double_nothing() {
    let url = made(cluster::database());
    nothing_is_lost_or_doubled(&url, 40, |over| {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = 'vmgate' AND datname = current_database()";
        let mut cuts = 0;
        while !over.load(Ordering::SeqCst) {
            cuts += psql(&url, cut).unwrap().matches('t').count();
            thread::sleep(Duration::from_millis(20));
        }
        assert!(cuts > 0, "no connection was cut");
    });
}

#[test]
fn a_server_that_is_restarted_or_crashes_loses_and_doubles_nothing() {
    let mut server = Cluster::own();
    let url = made(server.database());
    nothing_is_lost_or_doubled(&url, 60, |_| {
        for end in ["stop", "crash"] {
            thread::sleep(Duration::from_millis(300));
            server.order(end);
            server.order("start");
        }
    });
}

#[test]
fn a_server_that_does_not_answer_is_waited_for_no_longer_than_the_patience() {
    let mut server = Cluster::own();
    let ledger = open(&made(server.database()));
    ledger.append(&entry("before")).unwrap();
    server.order("freeze");
    let start = Instant::now();
    let error = ledger.append(&entry("meanwhile")).unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert!(start.elapsed() < PATIENCE + Duration::from_secs(5), "{:?}", start.elapsed());
    server.order("thaw");
    ledger.append(&entry("after")).unwrap();
    let told = contents(&ledger);
    assert_eq!((told.first().unwrap().as_str(), told.last().unwrap().as_str()), ("before", "after"));
}

#[test]
fn one_that_stands_still_in_a_transaction_does_not_hold_up_the_others() {
    let url = made(cluster::database());
    let mut slow = PostgresStore::open(&url).unwrap();
    let mut calls = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            let start = Instant::now();
            open(&url).append(&entry("quick")).unwrap();
            assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        });
        slow.write(&mut |writer| {
            calls += 1;
            if calls == 1 {
                thread::sleep(Duration::from_secs(5));
            }
            crate::chain::append(writer, &entry("slow"), jiff::Timestamp::now(), None).map(drop)
        })
        .unwrap();
    });
    assert_eq!(contents(&open(&url)), ["quick", "slow"], "it saw what was written meanwhile");
}

/// Time of the cut of a connection around a commit.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    BeforeTheServerHasIt,
    BeforeTheAnswer,
}

/// Passes a server's socket on, and cuts the first connection that commits.
fn cutting(server: &Path, socket: &Path, cut: Cut) -> Arc<AtomicBool> {
    let listener = UnixListener::bind(socket).unwrap();
    let (server, has_cut) = (server.to_owned(), Arc::new(AtomicBool::new(false)));
    let done = Arc::clone(&has_cut);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = UnixStream::connect(&server).unwrap();
            let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut answers, &mut back));
            let done = Arc::clone(&done);
            thread::spawn(move || pass_on(client, server, cut, &done));
        }
    });
    has_cut
}

fn pass_on(mut client: UnixStream, mut server: UnixStream, cut: Cut, has_cut: &AtomicBool) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = client.read(&mut bytes) {
        let asked = &bytes[..length];
        let commits = asked.windows(13).any(|window| window == b"vmgate.append");
        if commits && !has_cut.swap(true, Ordering::SeqCst) {
            client.shutdown(Shutdown::Both).unwrap();
            if cut == Cut::BeforeTheAnswer {
                server.write_all(asked).unwrap();
                thread::sleep(Duration::from_millis(200));
            }
            return;
        }
        server.write_all(asked).unwrap();
    }
}

#[test]
fn a_commit_that_nobody_answered_is_looked_for_before_it_is_made_again() {
    for cut in [Cut::BeforeTheServerHasIt, Cut::BeforeTheAnswer] {
        let server = Cluster::own();
        let url = made(server.database());
        let folder = tempfile::tempdir().unwrap();
        let name = ".s.PGSQL.5432";
        let around = url.replace(server.folder().to_str().unwrap(), folder.path().to_str().unwrap());
        let has_cut = cutting(&server.folder().join(name), &folder.path().join(name), cut);
        let written = open(&around).append(&entry("once")).unwrap();
        assert!(has_cut.load(Ordering::SeqCst));
        let ledger = open(&url);
        assert_eq!(contents(&ledger), ["once"]);
        assert_eq!(ledger.record(1).unwrap(), Some(written), "what was told is what is kept");
    }
}

#[test]
fn tls_is_verified_and_what_cannot_be_is_refused() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Cluster::with_tls(port);
    let local = made(server.database());
    as_role(&local, "far");
    PostgresStore::init(&local, &["far".to_owned()]).unwrap();
    let name = &local[local.find("/test").unwrap() + 1..local.find('?').unwrap()];
    let at = |host: &str, how: &str| format!("postgres://far:secret@{host}:{port}/{name}?{how}");
    // The server's own folder belongs to another user, so nothing in it is believed.
    let ours = tempfile::tempdir().unwrap();
    let root = |name: &str| {
        let copy = ours.path().join(name);
        std::fs::copy(server.file(name), &copy).unwrap();
        format!("sslrootcert={}", copy.display())
    };
    for how in [root("ca.pem"), format!("{}&sslmode=verify-full", root("ca.pem"))] {
        open(&at("127.0.0.1", &how)).append(&entry("over TLS")).unwrap();
    }
    for (host, how, says) in [
        ("127.0.0.1", root("other.pem"), "certificate"),
        ("127.0.0.1", String::new(), "certificate"),
        ("localhost", root("ca.pem"), "not valid for name"),
        ("127.0.0.1", "sslmode=disable".to_owned(), "no encryption"),
    ] {
        let error = refusal(&at(host, &how));
        assert!(error.contains(says), "{host} {how}: {error}");
    }
    let with_plain_only = Cluster::own();
    let plain = made(with_plain_only.database());
    assert!(refusal(&format!("{plain}&sslmode=verify-full")).contains("cannot be reached"));
}
