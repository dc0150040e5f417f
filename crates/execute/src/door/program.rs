//! A manager behind a program of the site.

use std::{io::Cursor, process::Command, time::Duration};

use serde::Deserialize;
use vmgate_facts::text::plain;
use vmgate_process::ChildFailure;

use super::{DoorError, DoorQuestion, DoorState, Manager};

/// Most bytes of an answer.
const MOST_BYTES: usize = 64 << 10;

/// Program that orders migrations from a manager.
#[derive(Debug)]
pub(super) struct ManagerProgram {
    /// Program with its first arguments; the verb is added.
    pub(super) program: Vec<String>,
    /// Longest time of one call.
    pub(super) time_limit: Duration,
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

impl Manager for ManagerProgram {
    fn start(&self, question: &DoorQuestion) -> Result<String, DoorError> {
        let started: Result<Started, _> = self.ask("start", question, r#"{"migration": "ID"}"#);
        started.map(|started| started.migration).map_err(|error| match error {
            // It was ended somewhere on its way, or cannot be understood: the order may have gone out.
            DoorError::Program { source: ChildFailure::TimedOut | ChildFailure::TooMuch(_), .. }
            | DoorError::Answer { .. } => DoorError::Unclear(error.to_string()),
            other => other,
        })
    }

    fn progress(&self, question: &DoorQuestion) -> Result<DoorState, DoorError> {
        self.ask("progress", question, r#"{"state": "running|finished|failed", "why": "…"}"#)
    }

    fn abort(&self, question: &DoorQuestion) -> Result<(), DoorError> {
        self.ask::<Done>("abort", question, "{}").map(drop)
    }

    fn recorded_host(&self, question: &DoorQuestion) -> Result<String, DoorError> {
        let located: Located = self.ask("where", question, r#"{"host": "NAME"}"#)?;
        Ok(plain(&located.host))
    }
}

impl ManagerProgram {
    fn ask<T: for<'d> Deserialize<'d>>(
        &self,
        verb: &'static str,
        question: &DoorQuestion,
        wanted: &'static str,
    ) -> Result<T, DoorError> {
        let shown = format!("{} {verb}", self.program.join(" "));
        let failed = |source| DoorError::Program { command: shown.clone(), source };
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
            command: shown.clone(),
            answer: plain(&String::from_utf8_lossy(&output.stdout).chars().take(200).collect::<String>()),
            wanted,
            why: error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Door, DoorQuestion},
        *,
    };
    use vmgate_verdict::NameAndUuid;

    fn door(script: &str, seconds: f64) -> Door {
        let program = ["sh", "-c", script, "door"].map(str::to_owned).to_vec();
        Door::by_program("nova", program, Duration::from_secs_f64(seconds))
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
        assert!(down.contains("Connection refused"), "{down}");
        let slow = ask("sleep 30", 0.2, Door::abort).unwrap_err();
        assert!(slow.contains("did not finish within the time limit"), "{slow}");
        let other = ask("echo Complete", 20.0, Door::progress).unwrap_err();
        assert!(other.contains("answered `Complete") && other.contains("running|finished|failed"), "{other}");
        let slow = |door: &Door, question: &DoorQuestion| door.way.start(question);
        let unclear = ask("sleep 30", 0.2, slow).unwrap_err();
        assert!(unclear.contains("may have taken the order"), "{unclear}");
        let huge = ask("yes", 20.0, Door::progress).unwrap_err();
        assert!(huge.contains("printed more than"), "{huge}");
    }
}
