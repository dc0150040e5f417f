//! What was seen of one member, and what was found in it.

use std::borrow::Cow;

use super::{Running, Software};
use crate::guest::ask::{Answers, Question};
use vmgate_facts::{Cause, DetectorBasis, Unknown};

/// The end of reading.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// The failure detector's time-out.
    Timeout { seconds: f64, basis: DetectorBasis, source: String },
    /// Nothing says what it is: the vendor's default holds.
    Nothing,
    /// It runs, and not as a member of a cluster.
    NotAMember,
    /// It cannot be read, and the default cannot be assumed.
    Unknown(Unknown),
}

impl Found {
    /// Read from a file, the command line or the environment.
    pub(super) fn configured(seconds: f64, source: impl Into<String>) -> Self {
        Self::Timeout {
            seconds: rounded(seconds),
            basis: DetectorBasis::Configuration,
            source: source.into(),
        }
    }

    /// Read nowhere: what the vendor says where `reference` tells.
    pub(super) fn assumed(seconds: f64, reference: &str) -> Self {
        let source = format!("vendor default: {reference}");
        Self::Timeout { seconds, basis: DetectorBasis::VendorDefault, source }
    }

    /// Told by the software.
    pub(super) fn told(seconds: f64, source: impl Into<String>) -> Self {
        Self::Timeout { seconds: rounded(seconds), basis: DetectorBasis::Tool, source: source.into() }
    }
}

/// To the microsecond: what adding and multiplying left behind that is no information.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

/// All that was answered about one member.
pub(super) struct Seen<'a> {
    pub(super) running: &'a Running,
    questions: Vec<Question>,
    answers: &'a Answers,
    variables: &'static [&'static str],
}

impl<'a> Seen<'a> {
    pub(super) fn of(software: &Software, running: &'a Running, answers: &'a Answers) -> Self {
        Self { running, questions: software.questions(running), answers, variables: software.variables }
    }

    /// The files that are there, with their texts: those that the command line names come first.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, Cow<'a, str>)> {
        self.questions.iter().filter_map(|question| match question {
            Question::File(path) if !is_of_process(path.as_str()) => {
                let text = self.answer(question)?;
                Some((path.as_str(), text))
            }
            _ => None,
        })
    }

    /// The first file that is there.
    pub(super) fn file(&self) -> Option<(&str, Cow<'a, str>)> {
        self.files().next()
    }

    /// A file by its path, also one that was only asked for after the others.
    pub(super) fn file_at(&self, path: &str) -> Option<Cow<'a, str>> {
        self.answer(&Question::file(path)?)
    }

    /// What the commands printed, in the order in which they were asked.
    pub(super) fn outputs(&self) -> impl Iterator<Item = Cow<'a, str>> {
        self.questions
            .iter()
            .filter(|question| matches!(question, Question::Command(_)))
            .filter_map(|question| self.answer(question))
    }

    /// One of the variables that the software lists, from its environment.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        debug_assert!(self.variables.contains(&name), "{name} is not asked for");
        let environment = self.answer(&self.running.environment()?)?;
        let value = environment.split('\0').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.to_owned())
    }

    /// What stood in the way of reading, for the words of a default; empty where nothing did.
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

/// Whether a file tells of the process itself. What its working folder leads to is a file like others.
fn is_of_process(path: &str) -> bool {
    path.starts_with("/proc/") && !path.contains("/cwd/")
}
