//! Cases of rule tests, prepared to run: facts, parameters and expected outcomes.

use std::{collections::HashMap, sync::Arc};

use jiff::Timestamp;
use regex::Regex;
use serde_json::Value as Json;
use vmgate_documents::{Node, Problem, Shape, SourceFile, closest, conform, conform_node, types::Type};
use vmgate_facts::{Facts, Forecast};
use vmgate_verdict::{Outcome, Status};

use super::{
    document::{CaseDocument, Expect, ExpectedOutcome, TestDocument},
    fact_path,
};
use crate::{Rule, pack, param::ParamOrigin, value::Value};

static TEST: Shape<TestDocument> = Shape::new();
static FACTS: Shape<Facts> = Shape::new();
static FORECAST: Shape<Forecast> = Shape::new();

/// Facts files by name.
pub(super) type Fixtures = HashMap<String, Json>;

/// A case, prepared to run.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) node: Node,
    pub(super) facts: Facts,
    pub(super) root: Value,
    pub(super) now: Timestamp,
    pub(super) params: Vec<Value>,
    pub(super) expect: Expect,
    pub(super) remediates: Option<String>,
}

/// The tests of one rule.
pub(super) struct RuleTests {
    pub(super) file: Arc<SourceFile>,
    pub(super) node: Node,
    pub(super) rule: String,
    cases: Vec<CaseDocument>,
}

/// Reads a fixture: a facts file that cases start from.
pub(super) fn fixture(file: &Arc<SourceFile>) -> Result<Json, Vec<Problem>> {
    FACTS.read(file, |_| Vec::new()).map(|(_, node)| node.to_json())
}

/// Reads the tests of a rule.
pub(super) fn tests(file: &Arc<SourceFile>) -> Result<RuleTests, Vec<Problem>> {
    let (document, node) = TEST.read(file, |_| Vec::new())?;
    Ok(RuleTests { file: Arc::clone(file), node, rule: document.rule, cases: document.cases })
}

impl RuleTests {
    /// Prepares every case; a case that cannot be prepared is a problem.
    pub(super) fn cases(&self, rule: &Rule, fixtures: &Fixtures) -> (Vec<Case>, Vec<Problem>) {
        let (mut ready, mut problems) = (Vec::new(), Vec::new());
        let nodes = self.node.get("cases").map(Node::items).unwrap_or_default();
        for (document, node) in self.cases.iter().zip(nodes) {
            let mut builder = CaseBuilder { file: &self.file, node, problems: Vec::new() };
            let case = builder.make(document, rule, fixtures);
            if ready.iter().any(|other: &Case| other.name == document.name) {
                builder.at(
                    node.get("name"),
                    format!("two cases have the name `{}`", document.name),
                    "the same name",
                    None,
                );
            }
            match case {
                Some(case) if builder.problems.is_empty() => ready.push(case),
                _ => problems.extend(builder.problems),
            }
        }
        (ready, problems)
    }
}

struct CaseBuilder<'a> {
    file: &'a Arc<SourceFile>,
    node: &'a Node,
    problems: Vec<Problem>,
}

impl CaseBuilder<'_> {
    fn at(&mut self, node: Option<&Node>, message: impl Into<String>, label: &str, help: Option<String>) {
        let span = node.unwrap_or(self.node).span.clone();
        let problem = Problem::at(self.file, span, message).label(label);
        self.problems.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }

    fn make(&mut self, document: &CaseDocument, rule: &Rule, fixtures: &Fixtures) -> Option<Case> {
        let Some(fixture) = fixtures.get(&document.given) else {
            let help = match closest(&document.given, fixtures.keys().map(String::as_str)) {
                Some(like) => format!("did you mean `{like}`?"),
                None => "a fixture is a facts file in the folder `fixtures`".to_owned(),
            };
            let message = format!("there is no fixture `{}`", document.given);
            self.at(self.node.get("given"), message, "no such file", Some(help));
            return None;
        };
        let mut json = fixture.clone();
        let mut forecast = serde_json::json!({});
        if let Some(node) = self.node.get("forecast") {
            self.problems.extend(conform_node(self.file, node, FORECAST.ty()));
            forecast = node.to_json();
        }
        for (key, value) in self.node.get("set").map(Node::entries).unwrap_or_default() {
            self.set(key, value, &mut json, &mut forecast);
        }
        let params = self.params(document, rule);
        if let Some(patterns) = self.patterns(document) {
            self.problems.extend(patterns);
        }
        if !self.problems.is_empty() {
            return None;
        }
        for mismatch in conform(&json, FACTS.ty()) {
            self.at(
                self.node.get("set"),
                format!("the facts of this case are not valid: {mismatch}"),
                "after these changes",
                None,
            );
        }
        let (facts, forecast) = self.read(json, forecast)?;
        let now = document.now.unwrap_or(facts.collected_at);
        let root = Value::root(&facts, &forecast, now);
        Some(Case {
            name: document.name.clone(),
            node: self.node.clone(),
            facts,
            root,
            now,
            params,
            expect: document.expect.clone(),
            remediates: document.remediates.clone(),
        })
    }

    fn read(&mut self, json: Json, forecast: Json) -> Option<(Facts, Forecast)> {
        let read =
            serde_json::from_value(json).and_then(|facts| Ok((facts, serde_json::from_value(forecast)?)));
        match read {
            Ok(read) => Some(read),
            Err(error) => {
                self.at(None, format!("the facts of this case cannot be read: {error}"), "this case", None);
                None
            }
        }
    }

    fn set(&mut self, key: &Node, value: &Node, json: &mut Json, forecast: &mut Json) {
        let path = key.text().unwrap_or_default();
        let steps = match fact_path::parse(path) {
            Ok(steps) => steps,
            Err(message) => return self.at(Some(key), message, "not a path", None),
        };
        let ty = match fact_path::type_at(&steps) {
            Ok(ty) => ty,
            Err((message, help)) => return self.at(Some(key), message, "not a fact", help),
        };
        let (target, steps) = match steps.split_first() {
            Some((fact_path::PathStep::Field(root), _)) if root == "now" => {
                return self.at(
                    Some(key),
                    "`now` cannot be set here",
                    "not a fact",
                    Some("write `now:` beside `set:`".to_owned()),
                );
            }
            Some((fact_path::PathStep::Field(root), rest)) if root == "forecast" => (forecast, rest),
            _ => (json, steps.as_slice()),
        };
        let known = matches!(steps.last(), Some(fact_path::PathStep::Field(_)) | None);
        let ty = if known { ty } else { Type { unknowable: false, ..ty } };
        self.problems.extend(conform_node(self.file, value, &ty));
        if let Err(message) = fact_path::set(target, steps, value.to_json()) {
            self.at(Some(key), message, "no such item", None);
        }
    }

    fn params(&mut self, document: &CaseDocument, rule: &Rule) -> Vec<Value> {
        let mut changed = rule.clone();
        let mut errors = Vec::new();
        for param in &mut changed.params {
            param.set(&param.default.clone(), ParamOrigin::Default);
        }
        pack::set_params(
            &mut changed,
            document.params.as_ref().unwrap_or(&std::collections::BTreeMap::new()),
            &ParamOrigin::Test,
            &mut errors,
        );
        for error in errors {
            self.at(self.node.get("params"), error.to_string(), "here", None);
        }
        changed.params.iter().map(crate::Param::to_value).collect()
    }

    /// Problems of expected messages whose pattern is not a regular expression.
    fn patterns(&self, document: &CaseDocument) -> Option<Vec<Problem>> {
        let Expect::Outcomes(expected) = &document.expect else { return None };
        let problems = expected.iter().filter_map(|expected| {
            let pattern = expected.message.as_deref().and_then(pattern)?;
            let error = Regex::new(pattern).err()?;
            let span = self.node.get("expect").unwrap_or(self.node).span.clone();
            Some(
                Problem::at(self.file, span, format!("`{pattern}` is not a regular expression: {error}"))
                    .label("here"),
            )
        });
        Some(problems.collect())
    }
}

/// Regular expression in `/…/`; none for a plain text.
fn pattern(text: &str) -> Option<&str> {
    text.strip_prefix('/')?.strip_suffix('/')
}

impl Expect {
    /// True if the outcomes are the expected ones.
    pub(super) fn matches(&self, outcomes: &[Outcome]) -> bool {
        match self {
            Self::Overall(status) => overall(outcomes) == *status,
            Self::Outcomes(expected) => {
                let mut left: Vec<&Outcome> = outcomes.iter().collect();
                let all_found = expected.iter().all(|expected| {
                    let found = left.iter().position(|outcome| expected.matches(outcome));
                    found.map(|at| left.remove(at)).is_some()
                });
                all_found && left.iter().all(|outcome| outcome.status == Status::Pass)
            }
        }
    }

    /// Expected outcomes, one line for each.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::Overall(status) => vec![status.word().to_owned()],
            Self::Outcomes(expected) => expected
                .iter()
                .map(|expected| {
                    line(expected.status, expected.subject.as_deref(), expected.message.as_deref())
                })
                .collect(),
        }
    }
}

impl ExpectedOutcome {
    fn matches(&self, outcome: &Outcome) -> bool {
        let message = match &self.message {
            None => true,
            Some(text) => match pattern(text) {
                Some(pattern) => Regex::new(pattern).is_ok_and(|regex| regex.is_match(&outcome.message)),
                None => outcome.message.contains(text.as_str()),
            },
        };
        self.status == outcome.status
            && (self.subject.is_none() || self.subject == outcome.subject)
            && message
    }
}

/// Worst status of all outcomes.
pub(super) fn overall(outcomes: &[Outcome]) -> Status {
    [Status::Fail, Status::Unknown, Status::Pass]
        .into_iter()
        .find(|status| outcomes.iter().any(|outcome| outcome.status == *status))
        .unwrap_or(Status::NotApplicable)
}

/// An outcome as one line.
pub(super) fn line(status: Status, subject: Option<&str>, message: Option<&str>) -> String {
    let mut text = status.word().to_owned();
    if let Some(subject) = subject {
        text.extend([" [", subject, "]"]);
    }
    if let Some(message) = message {
        text.extend([" ", message]);
    }
    text
}
