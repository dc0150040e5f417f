//! Answers about one cluster member, and the failure detector's time-out that is read from them.

use std::borrow::Cow;

use vmgate_facts::{Cause, DetectorBasis, Unknown};

use crate::guest::{
    ask::{Answers, Question},
    software::{RunningProcess, Software},
};

/// Result of reading one member's failure detector.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reading {
    /// The failure detector's time-out.
    Timeout { seconds: f64, basis: DetectorBasis, source: String },
    /// No answer sets the time-out: the vendor's default applies.
    NotConfigured,
    /// The software runs, but not as a member of a cluster.
    NotAMember,
    /// The time-out cannot be read, and the default must not be assumed.
    Unknown(Unknown),
}

impl Reading {
    /// A time-out read from a file, the command line or the environment.
    pub(super) fn configured(seconds: f64, source: impl Into<String>) -> Self {
        Self::Timeout {
            seconds: rounded(seconds),
            basis: DetectorBasis::Configuration,
            source: source.into(),
        }
    }

    /// The vendor's default, documented in `reference`.
    pub(super) fn vendor_default(seconds: f64, reference: &str) -> Self {
        let source = format!("vendor default: {reference}");
        Self::Timeout { seconds, basis: DetectorBasis::VendorDefault, source }
    }

    /// A time-out that the software's own tool reported.
    pub(super) fn reported(seconds: f64, source: impl Into<String>) -> Self {
        Self::Timeout { seconds: rounded(seconds), basis: DetectorBasis::Tool, source: source.into() }
    }
}

/// Rounds to the microsecond, which removes the errors of floating-point arithmetic.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

/// All answers about one cluster member.
pub(super) struct Evidence<'a> {
    pub(super) running: &'a RunningProcess,
    questions: Vec<Question>,
    answers: &'a Answers,
    variables: &'static [&'static str],
}

impl<'a> Evidence<'a> {
    pub(super) fn of(software: &Software, running: &'a RunningProcess, answers: &'a Answers) -> Self {
        Self { running, questions: software.questions(running), answers, variables: software.variables }
    }

    /// Path and text of each file that exists; files that the command line names come first.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, Cow<'a, str>)> {
        self.questions.iter().filter_map(|question| match question {
            Question::File(path) if !is_of_process(path.as_str()) => {
                let text = self.answer(question)?;
                Some((path.as_str(), text))
            }
            _ => None,
        })
    }

    /// The first file that exists.
    pub(super) fn file(&self) -> Option<(&str, Cow<'a, str>)> {
        self.files().next()
    }

    /// The text of a file by its path, including files of follow-up questions.
    pub(super) fn file_at(&self, path: &str) -> Option<Cow<'a, str>> {
        self.answer(&Question::file(path)?)
    }

    /// Output of each command, in the order of the questions.
    pub(super) fn outputs(&self) -> impl Iterator<Item = Cow<'a, str>> {
        self.questions
            .iter()
            .filter(|question| matches!(question, Question::Command(_)))
            .filter_map(|question| self.answer(question))
    }

    /// The value of one of the software's listed variables, from the process's environment.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        debug_assert!(self.variables.contains(&name), "{name} is not asked for");
        let environment = self.answer(&self.running.environment()?)?;
        let value = environment.split('\0').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.to_owned())
    }

    /// A note on the first file that could not be read, for the source of a default; empty if there is none.
    pub(super) fn obstacles(&self) -> String {
        let refused = |question: &&Question| matches!(self.answers.get(question), Some(Err(why)) if why.cause != Cause::NotSupported);
        match self.questions.iter().filter(|question| matches!(question, Question::File(_))).find(refused) {
            Some(question) => format!("; {} could not be read", question.name()),
            None => String::new(),
        }
    }

    fn answer(&self, question: &Question) -> Option<Cow<'a, str>> {
        self.answers.get(question)?.as_ref().ok().map(|text| String::from_utf8_lossy(text))
    }
}

/// True if a file is about the process itself. A file under its working folder (/proc/PID/cwd) is configuration.
fn is_of_process(path: &str) -> bool {
    path.starts_with("/proc/") && !path.contains("/cwd/")
}
