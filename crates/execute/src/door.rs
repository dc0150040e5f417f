//! Door to a manager of VMs: the manager runs the migration, and vmgate orders it, watches it and compares the manager's record.
//!
//! Behind the door is a program of the site. It is run with a verb as its last argument, reads one JSON object on its standard input
//! and prints one. Whatever it answers, libvirt on both hosts says where the VM is.

use std::{io::Cursor, process::Command, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmgate_facts::text::plain;
use vmgate_process::ChildFailure;
use vmgate_verdict::NameAndUuid;

use super::Pass;

/// Most bytes of an answer.
const MOST_BYTES: usize = 64 << 10;

/// Door to a manager.
#[derive(Debug, Clone)]
pub struct Door {
    /// Id of the manager in the catalogue.
    pub manager: String,
    /// Program with its first arguments; the verb is added.
    pub program: Vec<String>,
    /// Longest time of one call.
    pub time_limit: Duration,
}

/// Move that a manager is asked for: what the program reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DoorQuestion<'a> {
    /// The VM, by name and UUID in libvirt.
    pub(super) vm: &'a NameAndUuid,
    /// The host that it runs on.
    pub(super) source: &'a NameAndUuid,
    /// The host that it is to move to.
    pub(super) destination: &'a NameAndUuid,
    /// Id that the manager gave to the migration; none before it was ordered.
    pub(super) migration: Option<String>,
}

/// State of a migration, by the manager.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(super) enum DoorState {
    /// It was ordered, or it goes on.
    Running,
    /// The manager has done all that it does.
    Finished,
    /// It failed or was aborted; the reason in the manager's words.
    Failed {
        /// The manager's words.
        #[serde(default)]
        why: String,
    },
}

/// Error of a call through the door.
#[derive(Debug, Error)]
pub(super) enum DoorError {
    /// The pass is for a migration that somebody else runs.
    #[error("the verdict is not for a migration that {manager} runs")]
    OtherMover {
        /// Id of the manager.
        manager: String,
    },
    /// The program failed or took too long.
    #[error("{manager}: `{command}` {source}")]
    Program {
        /// Id of the manager.
        manager: String,
        /// The program with its verb.
        command: String,
        /// Failure of the program.
        source: ChildFailure,
    },
    /// The answer is not the JSON object that the verb demands.
    #[error("{manager}: `{command}` answered `{answer}`, and {wanted} was expected ({why})")]
    Answer {
        /// Id of the manager.
        manager: String,
        /// The program with its verb.
        command: String,
        /// The answer.
        answer: String,
        /// Shape of a right answer.
        wanted: &'static str,
        /// Error of the parser.
        why: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Started {
    migration: String,
}

#[derive(Deserialize)]
struct Located {
    host: String,
}

#[derive(Deserialize)]
struct Done {}

impl Door {
    /// Orders the migration; returns its id. Only with a pass for this manager.
    pub(super) fn start(&self, pass: &Pass, question: &DoorQuestion) -> Result<String, DoorError> {
        if pass.verdict().change.run_by.as_deref() != Some(self.manager.as_str()) {
            return Err(DoorError::OtherMover { manager: self.manager.clone() });
        }
        let started: Started = self.ask("start", question, r#"{"migration": "ID"}"#)?;
        Ok(started.migration)
    }

    /// State of the migration.
    pub(super) fn progress(&self, question: &DoorQuestion) -> Result<DoorState, DoorError> {
        self.ask("progress", question, r#"{"state": "running|finished|failed", "why": "…"}"#)
    }

    /// Asks the manager to abort the migration. The state says what came of it.
    pub(super) fn abort(&self, question: &DoorQuestion) -> Result<(), DoorError> {
        self.ask::<Done>("abort", question, "{}").map(drop)
    }

    /// Host of the VM by the manager's record.
    pub(super) fn recorded_host(&self, question: &DoorQuestion) -> Result<String, DoorError> {
        let located: Located = self.ask("where", question, r#"{"host": "NAME"}"#)?;
        Ok(plain(&located.host))
    }

    fn ask<T: for<'d> Deserialize<'d>>(
        &self,
        verb: &'static str,
        question: &DoorQuestion,
        wanted: &'static str,
    ) -> Result<T, DoorError> {
        let (manager, shown) = (self.manager.clone(), format!("{} {verb}", self.program.join(" ")));
        let failed = |source| DoorError::Program { manager: manager.clone(), command: shown.clone(), source };
        let mut words = self.program.iter();
        let name =
            words.next().ok_or_else(|| failed(ChildFailure::NotStarted("no program is named".to_owned())))?;
        let mut command = Command::new(name);
        command.args(words).arg(verb);
        let text = serde_json::to_vec(question)
            .map_err(|error| failed(ChildFailure::NotStarted(error.to_string())))?;
        let output =
            vmgate_process::run(command, Cursor::new(text), self.time_limit, MOST_BYTES).map_err(failed)?;
        serde_json::from_slice(&output.stdout).map_err(|error| DoorError::Answer {
            manager: self.manager.clone(),
            command: shown.clone(),
            answer: plain(&String::from_utf8_lossy(&output.stdout).chars().take(200).collect::<String>()),
            wanted,
            why: error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(script: &str, seconds: f64) -> Door {
        Door {
            manager: "nova".to_owned(),
            program: ["sh", "-c", script, "door"].map(str::to_owned).to_vec(),
            time_limit: Duration::from_secs_f64(seconds),
        }
    }

    fn ask<T>(
        script: &str,
        seconds: f64,
        ask: fn(&Door, &DoorQuestion) -> Result<T, DoorError>,
    ) -> Result<T, String> {
        let named = |name: &str| NameAndUuid { name: Some(name.to_owned()), uuid: None };
        let (vm, source, destination) = (named("web"), named("hv1"), named("hv2"));
        let question = DoorQuestion {
            vm: &vm,
            source: &source,
            destination: &destination,
            migration: Some("7".to_owned()),
        };
        ask(&door(script, seconds), &question).map_err(|error| error.to_string())
    }

    #[test]
    fn a_program_reads_the_question_and_answers_its_verb() {
        let script = r#"test "$1" = where && grep -q '"destination":{"name":"hv2"' && echo '{"host": "hv2", "more": 1}'"#;
        assert_eq!(ask(script, 20.0, Door::recorded_host), Ok("hv2".to_owned()));
        let of = |answer: &str| ask(&format!("cat >/dev/null; echo '{answer}'"), 20.0, Door::progress);
        assert_eq!(of(r#"{"state": "running"}"#), Ok(DoorState::Running));
        assert_eq!(
            of(r#"{"state": "failed", "why": "no host"}"#),
            Ok(DoorState::Failed { why: "no host".into() })
        );
        assert_eq!(of(r#"{"state": "finished"}"#), Ok(DoorState::Finished));
    }

    #[test]
    fn a_pass_for_another_mover_orders_nothing() {
        let told = tempfile::tempdir().unwrap();
        let witness = told.path().join("asked");
        let script = format!("touch {}; echo '{{\"migration\": \"7\"}}'", witness.display());
        let started =
            |door: &Door, question: &DoorQuestion| door.start(&crate::gate::tests::pass(), question);
        let refused = ask(&script, 20.0, started).unwrap_err();
        assert_eq!(refused, "the verdict is not for a migration that nova runs");
        assert!(!witness.exists());
    }

    #[test]
    fn a_manager_that_is_down_slow_or_says_something_else_is_named() {
        let down = ask("echo 'Connection refused' >&2; exit 1", 20.0, Door::progress).unwrap_err();
        assert!(down.starts_with("nova: ") && down.contains("Connection refused"), "{down}");
        let slow = ask("sleep 30", 0.2, Door::abort).unwrap_err();
        assert!(slow.contains("did not finish within the time limit"), "{slow}");
        let other = ask("echo Complete", 20.0, Door::progress).unwrap_err();
        assert!(other.contains("answered `Complete") && other.contains("running|finished|failed"), "{other}");
        let huge = ask("yes", 20.0, Door::progress).unwrap_err();
        assert!(huge.contains("printed more than"), "{huge}");
    }
}
