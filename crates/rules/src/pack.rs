//! A pack of rules: loaded, checked, with the current parameters, ready to judge moves.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::Arc,
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use vmgate_documents::{Node, Problem, Problems, Shape, SourceFile, closest};
use vmgate_facts::{Facts, Forecast};
use vmgate_verdict::Outcome;

use super::{
    document::ProfileDocument,
    evaluate::{self, MoveFacts},
    files::{self, FileRole, RuleFile, RuleSource},
    load,
    param::{ParamError, ParamErrors, ParamOrigin, ParamOverrides},
    rule::Rule,
    value::Value,
};

static PROFILE: Shape<ProfileDocument> = Shape::new();

/// Rules that were loaded together.
#[derive(Debug, Clone)]
pub struct Pack {
    /// Rules by step, severity (high first) and id: the order of outcomes.
    rules: Vec<Rule>,
    profiles: BTreeMap<String, Profile>,
    /// Values of the parameters, for each rule.
    params: Vec<Vec<Value>>,
}

/// A profile: values for parameters, for one kind of guests.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Name of the profile.
    pub name: String,
    /// The guests that the profile is for.
    pub title: String,
    /// Values by rule id and parameter name.
    pub params: ParamOverrides,
}

impl Pack {
    /// Loads and checks every rule of the sources. Returns all problems of all files together.
    pub fn load(sources: &[RuleSource]) -> Result<Self, Problems> {
        let (files, problems) = files::collect(sources, &[FileRole::Rule, FileRole::Profile]);
        Self::of_files(&files, problems)
    }

    /// Makes a pack of one rule that is already in memory; `name` is the file name in errors.
    pub fn of_rule(name: &str, bytes: &[u8]) -> Result<Self, Problems> {
        let file = SourceFile::new(name, bytes)?;
        Self::of_files(
            &[RuleFile { role: FileRole::Rule, stem: name.to_owned(), builtin: false, file }],
            Vec::new(),
        )
    }

    fn of_files(files: &[RuleFile], mut problems: Vec<Problem>) -> Result<Self, Problems> {
        let mut rules: Vec<(bool, Rule)> = Vec::new();
        let written: Vec<&RuleFile> = files.iter().filter(|file| file.role == FileRole::Rule).collect();
        match load::rules(&written) {
            Ok(loaded) => {
                for (builtin, rule) in loaded {
                    match rule {
                        Ok(rule) => rules.push((builtin, rule)),
                        Err(found) => problems.extend(found),
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
        let rules = resolve(rules, &mut problems);
        let profiles = profiles(files, &rules, problems.is_empty(), &mut problems);
        if problems.is_empty() { Ok(Self::new(rules, profiles)) } else { Err(Problems::new(problems)) }
    }

    fn new(mut rules: Vec<Rule>, profiles: BTreeMap<String, Profile>) -> Self {
        rules.sort_by(|a, b| (a.step, b.severity, &a.id).cmp(&(b.step, a.severity, &b.id)));
        let mut pack = Self { rules, profiles, params: Vec::new() };
        pack.refresh_params();
        pack
    }

    fn refresh_params(&mut self) {
        self.params =
            self.rules.iter().map(|rule| rule.params.iter().map(super::Param::to_value).collect()).collect();
    }

    /// The rules in the order of their outcomes.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns the rule with the given id.
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| &*rule.id == id)
    }

    /// All profiles of the pack, by name.
    pub fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.profiles.values()
    }

    /// Returns the pack with the values of a profile, and then those of the user's configuration, which win.
    pub fn with_parameters(
        mut self,
        profile: Option<&str>,
        overrides: &ParamOverrides,
    ) -> Result<Self, ParamErrors> {
        let mut errors = Vec::new();
        if let Some(name) = profile {
            if let Some(profile) = self.profiles.get(name).cloned() {
                self.set(&profile.params, &ParamOrigin::Profile(profile.name), &mut errors);
            } else {
                let known = match self.profiles.keys().cloned().collect::<Vec<_>>().as_slice() {
                    [] => "these rules have no profiles".to_owned(),
                    known => format!("the profiles are: {}", known.join(", ")),
                };
                errors.push(ParamError::NoProfile { name: name.to_owned(), known });
            }
        }
        self.set(overrides, &ParamOrigin::ConfigFile, &mut errors);
        self.refresh_params();
        if errors.is_empty() { Ok(self) } else { Err(ParamErrors(errors)) }
    }

    fn set(&mut self, values: &ParamOverrides, origin: &ParamOrigin, errors: &mut Vec<ParamError>) {
        for (id, values) in values {
            let hint = || {
                closest(id, self.rules.iter().map(|rule| &*rule.id))
                    .map_or_else(String::new, |like| format!("; did you mean `{like}`?"))
            };
            let Some(position) = self.rules.iter().position(|rule| *rule.id == **id) else {
                errors.push(ParamError::NoRule { rule: id.clone(), origin: origin.clone(), hint: hint() });
                continue;
            };
            if let Some(rule) = self.rules.get_mut(position) {
                set_params(rule, values, origin, errors);
            }
        }
    }

    /// Outcomes of every rule on one move, by step, severity, id and subject.
    pub fn evaluate(&self, facts: &Facts, forecast: &Forecast, now: Timestamp) -> Vec<Outcome> {
        self.evaluate_selected(|_| true, facts, forecast, now)
    }

    /// Outcomes of the rules that `is_wanted` selects; otherwise as [`Self::evaluate`].
    pub fn evaluate_selected(
        &self,
        is_wanted: impl Fn(&Rule) -> bool,
        facts: &Facts,
        forecast: &Forecast,
        now: Timestamp,
    ) -> Vec<Outcome> {
        let root = Value::root(facts, forecast, now);
        let subject = MoveFacts::new(facts, &root, now);
        let rules: Vec<_> = self
            .rules
            .iter()
            .zip(self.params.iter().map(Vec::as_slice))
            .filter(|(rule, _)| is_wanted(rule))
            .collect();
        evaluate::evaluate(rules.into_iter(), &subject)
    }

    /// SHA-256 of the rules' content and their current parameters, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for rule in &self.rules {
            let params: BTreeMap<&str, &serde_json::Value> =
                rule.params.iter().map(|param| (param.name.as_str(), &param.value)).collect();
            let content = serde_json::json!({ "rule": load::canonical(&rule.node), "params": params });
            hash.update(content.to_string().as_bytes());
            hash.update([0]);
        }
        hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Sets parameters of one rule.
pub(crate) fn set_params(
    rule: &mut Rule,
    values: &BTreeMap<String, serde_json::Value>,
    origin: &ParamOrigin,
    errors: &mut Vec<ParamError>,
) {
    for (name, value) in values {
        let names: Vec<&str> = rule.params.iter().map(|param| param.name.as_str()).collect();
        let hint = match closest(name, names.iter().copied()) {
            Some(like) => format!("; did you mean `{like}`?"),
            None if names.is_empty() => String::new(),
            None => format!("; its parameters are {}", names.join(", ")),
        };
        match rule.params.iter_mut().find(|param| param.name == *name) {
            None => errors.push(ParamError::NoParam {
                rule: rule.id.to_string(),
                param: name.clone(),
                origin: origin.clone(),
                hint,
            }),
            Some(param) => match param.value_problem(value) {
                None => param.set(value, origin.clone()),
                Some(reason) => errors.push(ParamError::BadValue {
                    rule: rule.id.to_string(),
                    param: name.clone(),
                    value: value.to_string(),
                    origin: origin.clone(),
                    reason,
                }),
            },
        }
    }
}

/// Keeps one rule for each id. A user's rule replaces a shipped rule only with `replaces`.
fn resolve(rules: Vec<(bool, Rule)>, problems: &mut Vec<Problem>) -> Vec<Rule> {
    let replaced: HashMap<String, String> =
        rules.iter().filter_map(|(_, rule)| Some((rule.replaces.clone()?, rule.file.clone()))).collect();
    let ids: Vec<Arc<str>> = rules.iter().map(|(_, rule)| Arc::clone(&rule.id)).collect();
    let mut kept: Vec<(bool, Rule)> = Vec::new();
    for (builtin, rule) in rules {
        if let Some(target) = &rule.replaces
            && !ids.iter().any(|id| **id == **target)
        {
            let span = rule.node.get("replaces").map_or(0..1, |node| node.span.clone());
            let help = match closest(target, ids.iter().map(|id| &**id)) {
                Some(like) => format!("did you mean `{like}`?"),
                None => "`vmgate rules list` shows the ids".to_owned(),
            };
            problems.push(
                Problem::at(&rule.source, span, format!("there is no rule `{target}` to replace"))
                    .label("no such rule")
                    .help(help),
            );
        }
        let gone = replaced.get(&*rule.id).is_some_and(|by| *by != rule.file);
        if gone {
            continue;
        }
        match kept.iter().find(|(_, other)| other.id == rule.id) {
            None => kept.push((builtin, rule)),
            Some((first_builtin, first)) => {
                let span = rule.node.get("id").map_or(0..1, |node| node.span.clone());
                let (message, help) = if *first_builtin && !builtin {
                    (
                        format!("the id `{}` belongs to a shipped rule, in {}", rule.id, first.file),
                        format!(
                            "choose another id, or add `replaces: {}` to replace the shipped rule",
                            rule.id
                        ),
                    )
                } else {
                    (
                        format!(
                            "two rules have the id `{}`: this one and the one in {}",
                            rule.id, first.file
                        ),
                        "rename or remove one of them".to_owned(),
                    )
                };
                problems.push(Problem::at(&rule.source, span, message).label("the same id").help(help));
            }
        }
    }
    kept.into_iter().map(|(_, rule)| rule).collect()
}

/// Reads the profiles, by name; a later source adds to the profile of an earlier one and wins.
fn profiles(
    files: &[RuleFile],
    rules: &[Rule],
    rules_are_complete: bool,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Profile> {
    let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
    for file in files.iter().filter(|file| file.role == FileRole::Profile) {
        let check = |node: &Node| {
            let mut found = Vec::new();
            if rules_are_complete {
                for (key, values) in node.get("params").map(Node::entries).unwrap_or_default() {
                    check_profile(file, key, values, rules, &mut found);
                }
            }
            found
        };
        let document = match PROFILE.read(&file.file, check) {
            Ok((document, _)) => document,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        let profile = profiles.entry(file.stem.clone()).or_insert_with(|| Profile {
            name: file.stem.clone(),
            title: document.title.clone(),
            params: ParamOverrides::new(),
        });
        for (rule, values) in document.params {
            profile.params.entry(rule).or_default().extend(values);
        }
    }
    profiles
}

/// Checks the values that a profile sets for one rule.
fn check_profile(file: &RuleFile, key: &Node, values: &Node, rules: &[Rule], problems: &mut Vec<Problem>) {
    let id = key.text().unwrap_or_default();
    let Some(rule) = rules.iter().find(|rule| &*rule.id == id) else {
        let problem = Problem::at(&file.file, key.span.clone(), format!("there is no rule `{id}`"))
            .label("no such rule");
        problems.push(match closest(id, rules.iter().map(|rule| &*rule.id)) {
            Some(like) => problem.help(format!("did you mean `{like}`?")),
            None => problem,
        });
        return;
    };
    for (name, value) in values.entries() {
        let text = name.text().unwrap_or_default();
        match rule.params.iter().find(|param| param.name == text) {
            None => {
                let known: Vec<&str> = rule.params.iter().map(|param| param.name.as_str()).collect();
                let help = match known.as_slice() {
                    [] => format!("{id} has no parameters: remove this line"),
                    known => format!("the parameters of {id} are: {}", known.join(", ")),
                };
                let problem =
                    Problem::at(&file.file, name.span.clone(), format!("{id} has no parameter `{text}`"));
                problems.push(problem.label("no such parameter").help(help));
            }
            Some(param) => {
                if let Some(reason) = param.value_problem(&value.to_json()) {
                    let message = format!("`{text}` of {id} {reason}");
                    problems.push(Problem::at(&file.file, value.span.clone(), message).label("this value"));
                }
            }
        }
    }
}
