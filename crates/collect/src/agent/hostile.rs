//! Agents that are not what they seem: garbage, a gigabyte, late answers, and answers to other questions. Whatever
//! they do, looking into the guest ends in time, and what they did not tell is unknown.

use std::{
    cell::RefCell,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use vmgate_facts::{Cause, Fact, Guest, Unknown};
use vmgate_probe::guest::look;
use vmgate_reach::agent::{AgentChannel, AgentFailure};

use super::AgentGuest;

/// An agent that allows everything and then answers as it likes.
struct Hostile<F>(RefCell<F>);

/// Commands that the agent claims to allow.
const COMMANDS: [&str; 5] =
    ["guest-exec", "guest-exec-status", "guest-file-open", "guest-file-read", "guest-file-close"];

impl<F: FnMut(&str, &Value) -> Result<String, AgentFailure>> AgentChannel for Hostile<F> {
    fn command(&self, json: &str, _: Duration) -> Result<String, AgentFailure> {
        let request: Value = serde_json::from_str(json).unwrap();
        let commands: Vec<_> = COMMANDS.iter().map(|name| json!({"name": name, "enabled": true})).collect();
        match request["execute"].as_str().unwrap() {
            "guest-ping" => Ok(r#"{"return":{}}"#.to_owned()),
            "guest-info" => {
                Ok(json!({"return": {"version": "9.0", "supported_commands": commands}}).to_string())
            }
            command => (self.0.borrow_mut())(command, &request["arguments"]),
        }
    }
}

fn look_at(patience: Duration, answers: impl FnMut(&str, &Value) -> Result<String, AgentFailure>) -> Guest {
    look(&AgentGuest::open(Hostile(RefCell::new(answers)), patience).unwrap())
}

/// An answer with this output of a shell.
fn printed(output: &[u8]) -> String {
    json!({"return": {"exited": true, "exitcode": 0, "out-data": STANDARD.encode(output)}}).to_string()
}

fn why<T: std::fmt::Debug>(fact: &Fact<T>) -> &Unknown {
    match fact {
        Fact::Unknown(why) => why,
        Fact::Known(value) => panic!("known: {value:?}"),
    }
}

fn assert_knows_nothing(guest: &Guest, case: &str) {
    let nothing = guest.hostname.known().is_none()
        && guest.processes.known().is_none()
        && guest.detectors.known().is_none()
        && guest.tcp.known().unwrap().connections.known().is_none()
        && guest.udp.known().unwrap().sockets.known().is_none()
        && guest.sysctl.known().unwrap().tcp_retries2.known().is_none();
    assert!(nothing, "{case}: {guest:?}");
    let reasons = [&why(&guest.hostname).reason, &why(&guest.processes).reason];
    assert!(reasons.iter().all(|reason| !reason.chars().any(char::is_control)), "{case}: {reasons:?}");
}

#[test]
fn garbage_tells_nothing() {
    for garbage in [
        "",
        "\0\0\0\u{ff}",
        "{\"return\":",
        "[[[[[[[[",
        "{\"return\":null}",
        "{\"return\":{\"pid\":\"seven\"}}",
        "{\"return\":1e400}",
        "{\"error\":{\"class\":\"GenericError\",\"desc\":\"\u{1b}[2J\"}}",
    ] {
        let guest = look_at(Duration::from_secs(5), |_, _| Ok(garbage.to_owned()));
        assert_knows_nothing(&guest, garbage);
    }
    let nested = "[".repeat(1 << 20);
    assert_knows_nothing(&look_at(Duration::from_secs(5), |_, _| Ok(nested.clone())), "a deep nest");
    let refusal = || Err(AgentFailure::Refused("\u{1b}]0;owned\u{7}\u{202e}".repeat(1000)));
    let guest = look_at(Duration::from_secs(5), |_, _| refusal());
    assert_knows_nothing(&guest, "a refusal with escapes");
    assert!(why(&guest.hostname).reason.len() < 2000, "a refusal is cut");
}

#[test]
fn a_shell_that_prints_garbage_or_is_cut_off_tells_nothing() {
    for output in [
        &b""[..],
        b"\0\xff\xfe",
        b"==> /proc/sys/kernel/hostname <==\nevil\n",
        b"vmgate-0000000000000000-stat\nvmgate-0000000000000000-end\n",
    ] {
        let guest = look_at(Duration::from_secs(5), |command, _| match command {
            "guest-exec" => Ok(r#"{"return":{"pid":7}}"#.to_owned()),
            "guest-exec-status" => Ok(printed(output)),
            _ => Err(AgentFailure::Refused("no".into())),
        });
        assert_knows_nothing(&guest, &String::from_utf8_lossy(output));
    }
    let cut = r#"{"return":{"exited":true,"out-data":"","out-truncated":true}}"#;
    let guest = look_at(Duration::from_secs(5), |command, _| match command {
        "guest-exec" => Ok(r#"{"return":{"pid":-1}}"#.to_owned()),
        "guest-exec-status" => Ok(cut.to_owned()),
        _ => Err(AgentFailure::Refused("no".into())),
    });
    assert_eq!(why(&guest.processes).cause, Cause::Malformed);
}

#[test]
fn a_gigabyte_that_is_claimed_or_sent_is_not_taken() {
    let claim = r#"{"return":{"count":1073741824,"buf-b64":"","eof":false,"pid":1073741824,"exited":true}}"#;
    assert_knows_nothing(&look_at(Duration::from_secs(5), |_, _| Ok(claim.to_owned())), "a claim");

    // More than one answer may hold: it is not even parsed.
    let flood = format!(r#"{{"return":{{"exited":true,"out-data":"{}"}}}}"#, "A".repeat(25 << 20));
    let guest = look_at(Duration::from_secs(20), |command, _| match command {
        "guest-exec" => Ok(r#"{"return":{"pid":7}}"#.to_owned()),
        "guest-exec-status" => Ok(flood.clone()),
        _ => Err(AgentFailure::Refused("no".into())),
    });
    let why = why(&guest.processes);
    assert_eq!((why.cause, why.reason.contains("is longer than")), (Cause::Malformed, true), "{why:?}");

    // Every answer as large as it may be: all together are bounded.
    let chunk = format!(r#"{{"return":{{"count":1,"buf-b64":"{}","eof":false}}}}"#, "AAAA".repeat(1 << 16));
    let mut sent = 0;
    let guest = look_at(Duration::from_secs(20), |command, _| match command {
        "guest-file-open" => Ok(r#"{"return":1000}"#.to_owned()),
        "guest-file-read" => {
            sent += chunk.len();
            Ok(chunk.clone())
        }
        "guest-file-close" => Ok(r#"{"return":{}}"#.to_owned()),
        _ => Err(AgentFailure::Refused("no".into())),
    });
    assert!(guest.tcp.known().unwrap().connections.known().is_none());
    assert!(sent < 64 << 20, "{sent} bytes were taken");
}

#[test]
fn late_answers_cost_the_time_limit_once() {
    let patience = Duration::from_millis(300);
    let start = Instant::now();
    let guest = look_at(patience, |_, _| {
        thread::sleep(Duration::from_millis(200));
        Ok(r#"{"return":{"pid":7,"exited":false}}"#.to_owned())
    });
    assert!(start.elapsed() < 10 * patience, "{:?}", start.elapsed());
    assert_eq!(why(&guest.hostname).cause, Cause::TimedOut);

    let start = Instant::now();
    let silent = look_at(patience, |_, _| {
        thread::sleep(Duration::from_millis(100));
        Err(AgentFailure::Silent("Guest agent is not responding: timeout".into()))
    });
    assert!(start.elapsed() < 10 * patience, "{:?}", start.elapsed());
    assert!(silent.hostname.known().is_none());
}

#[test]
fn an_answer_to_another_question_is_none() {
    // The right shape of every answer, to the question before.
    let mut before = r#"{"return":{}}"#.to_owned();
    let guest = look_at(Duration::from_secs(1), |command, _| {
        let right = match command {
            "guest-exec" => r#"{"return":{"pid":7}}"#.to_owned(),
            "guest-exec-status" => printed(b"hello"),
            "guest-file-open" => r#"{"return":1000}"#.to_owned(),
            "guest-file-read" => r#"{"return":{"count":2,"buf-b64":"MQo=","eof":true}}"#.to_owned(),
            _ => r#"{"return":{}}"#.to_owned(),
        };
        Ok(std::mem::replace(&mut before, right))
    });
    assert_knows_nothing(&guest, "answers that are one too late");

    // What another run of the script printed carries another mark.
    let mut scripts = Vec::new();
    let guest = look_at(Duration::from_secs(1), |command, arguments| {
        match command {
        "guest-exec" => {
            scripts.push(arguments["arg"][1].as_str().unwrap().to_owned());
            Ok(r#"{"return":{"pid":7}}"#.to_owned())
        }
        "guest-exec-status" => Ok(printed(
            b"==> /proc/sys/kernel/hostname <==\nevil\n\nvmgate-1-stat\nvmgate-1-command\nvmgate-1-socket\nvmgate-1-end\n",
        )),
        _ => Err(AgentFailure::Refused("no".into())),
    }
    });
    assert_knows_nothing(&guest, "the output of another script");
    assert!(scripts.iter().all(|script| !script.contains("vmgate-1-")), "a mark cannot be guessed");
}
