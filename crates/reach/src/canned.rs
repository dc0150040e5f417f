//! An agent of canned answers, for the tests of whatever speaks to one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "for tests")]

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use super::agent::{AgentChannel, AgentFailure};

/// An agent made of canned answers, by command.
pub struct Canned {
    answers: BTreeMap<&'static str, RefCell<Vec<Result<String, AgentFailure>>>>,
}

impl Canned {
    /// Answers by command; the last of each is given again and again.
    pub fn new(answers: &[(&'static str, &[&str])]) -> Self {
        let answers = answers
            .iter()
            .map(|(command, texts)| {
                (*command, RefCell::new(texts.iter().rev().map(|text| Ok((*text).to_owned())).collect()))
            })
            .collect();
        Self { answers }
    }
}

impl AgentChannel for Canned {
    fn command(&self, json: &str, _: Duration) -> Result<String, AgentFailure> {
        let request: serde_json::Value = serde_json::from_str(json).unwrap();
        let name = request["execute"].as_str().unwrap();
        let answers =
            self.answers.get(name).ok_or_else(|| AgentFailure::Refused(format!("{name} is unknown")))?;
        let mut answers = answers.borrow_mut();
        // The last answer is given again and again.
        if answers.len() > 1 { answers.pop().unwrap() } else { answers.last().unwrap().clone() }
    }
}
