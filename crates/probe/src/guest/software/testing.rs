//! A simulated cluster member, for the tests of each reader.

use std::collections::BTreeMap;

use vmgate_facts::{Cause, Detector, Unknown};

use crate::guest::{
    RawProcess,
    ask::{Answers, Question, missing},
    software::{Evidence, Reading, RunningProcess, Software, detector},
};

/// A process, its files and the output of its tools.
#[derive(Default)]
pub(super) struct Case {
    running: RunningProcess,
    files: BTreeMap<String, Result<Vec<u8>, Unknown>>,
    outputs: Vec<String>,
}

impl Case {
    pub(super) fn process(name: &str, arguments: &[&str]) -> Self {
        let command: Vec<u8> = arguments.iter().flat_map(|argument| argument.bytes().chain([0])).collect();
        let stat = format!("7 ({name}) S 1").into_bytes();
        Self { running: RunningProcess::of(&RawProcess { stat, command, sockets: None }), ..Self::default() }
    }

    pub(super) fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), Ok(text.into()));
        self
    }

    pub(super) fn locked(mut self, path: &str) -> Self {
        self.files.insert(path.to_owned(), Err(Unknown::new(Cause::PermissionDenied, "no")));
        self
    }

    pub(super) fn environment(self, pairs: &[&str]) -> Self {
        self.file("/proc/7/environ", &pairs.join("\0"))
    }

    /// Adds the output of the next command, in the order of the questions.
    pub(super) fn output(mut self, text: &str) -> Self {
        self.outputs.push(text.to_owned());
        self
    }

    fn answers(&self, software: &Software) -> Answers {
        let mut outputs = self.outputs.iter();
        let mut answers = Answers::new();
        let mut answer = |question: Question, answers: &mut Answers| {
            let text = match &question {
                Question::File(path) => {
                    self.files.get(path.as_str()).cloned().unwrap_or_else(|| Err(missing(path.as_str())))
                }
                Question::Command(_) => {
                    outputs.next().map(|text| text.clone().into_bytes()).ok_or_else(|| missing("it"))
                }
            };
            answers.entry(question).or_insert(text);
        };
        for question in software.questions(&self.running) {
            answer(question, &mut answers);
        }
        for question in (software.follow_up_questions)(&Evidence::of(software, &self.running, &answers)) {
            answer(question, &mut answers);
        }
        answers
    }

    pub(super) fn detector(&self, software: &Software) -> Option<Detector> {
        assert!(software.runs_as(&self.running), "{} is not recognised", software.id);
        let answers = self.answers(software);
        detector(software, &Evidence::of(software, &self.running, &answers))
    }
}

/// Runs the software's reader on a case.
pub(super) fn read(software: &Software, case: &Case) -> Reading {
    assert!(software.runs_as(&case.running), "{} is not recognised", software.id);
    let answers = case.answers(software);
    (software.read)(&Evidence::of(software, &case.running, &answers))
}
