//! Style of rules: what the loader cannot demand and a reader will miss.

use std::{collections::BTreeSet, ops::Range, path::Path};

use super::{
    Pack, Rule,
    expr::{self, Comparison, Expr, Node, Template},
    value::Value,
};
use vmgate_documents::{Node as YamlNode, Problem};
use vmgate_verdict::{Effect, Step};

/// Words that a title about the healthy state does not begin with.
const ORDERS: [&str; 8] = ["check", "ensure", "verify", "make", "test", "validate", "detect", "must"];
/// Words that tell of an unhealthy state.
const UNHEALTHY: [&str; 8] =
    ["fails", "failed", "missing", "broken", "insufficient", "exceeded", "error", "wrong"];

/// Everything that is not good style, as warnings, in the order of the rules.
pub fn lint(pack: &Pack) -> Vec<Problem> {
    pack.rules().iter().flat_map(|rule| Linter { rule, found: Vec::new() }.run()).collect()
}

struct Linter<'a> {
    rule: &'a Rule,
    found: Vec<Problem>,
}

impl Linter<'_> {
    fn run(mut self) -> Vec<Problem> {
        self.place();
        self.title();
        self.message();
        self.texts();
        self.references();
        self.consequences();
        self.found
    }

    fn warn(&mut self, key: &str, message: impl Into<String>, label: &str, help: &str) {
        let span = self.rule.node.get(key).map_or(0..1, |node| node.span.clone());
        self.warn_at(span, message, label, help);
    }

    fn warn_at(&mut self, span: Range<usize>, message: impl Into<String>, label: &str, help: &str) {
        let problem = Problem::at(&self.rule.source, span, message).label(label).help(help);
        self.found.push(problem.warning());
    }

    /// The file is called like the rule, and lies in the folder of its step.
    fn place(&mut self) {
        let path = Path::new(&self.rule.file);
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if *stem != *self.rule.id {
            let message = format!("the file is called `{stem}` and the rule `{}`", self.rule.id);
            let help = format!("rename the file to {}.yaml", self.rule.id);
            self.warn("id", message, "another name than the file's", &help);
        }
        let folder =
            path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        let expected = folder_of(self.rule.step);
        let is_step = Step::all().into_iter().any(|step| folder_of(step) == folder);
        if is_step && folder != expected {
            let help = format!("move the file to {expected}/, or correct the step");
            self.warn("step", format!("the rule lies in {folder}/"), "another step than the folder's", &help);
        }
    }

    /// The title says the healthy state.
    fn title(&mut self) {
        let title = &self.rule.title;
        let words: Vec<String> = title
            .split_whitespace()
            .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
            .collect();
        let help = "say the healthy state: \"The destination has memory for the VM\"";
        if words.first().is_some_and(|first| ORDERS.contains(&first.as_str())) {
            self.warn("title", "the title is an order", "not a state", help);
        }
        if let Some(word) = words.iter().find(|word| UNHEALTHY.contains(&word.as_str())) {
            self.warn(
                "title",
                format!("the title tells of trouble: `{word}`"),
                "not the healthy state",
                help,
            );
        }
        if title.ends_with('.') || title.chars().count() > 90 || !title.starts_with(char::is_uppercase) {
            let help = "one sentence, a capital first, no full stop, at most 90 characters";
            self.warn("title", "the title is not a headline", "this title", help);
        }
    }

    /// The message has the value and the limit.
    fn message(&mut self) {
        let told = self.told(&self.rule.program.message);
        if told.is_empty() && self.compares_values() {
            let help = "name what was found and what was wanted, with `{expressions}`";
            self.warn("message", "the message has no value in it", "only words", help);
            return;
        }
        if self.rule.texts.message.ends_with('.') {
            self.warn(
                "message",
                "the message ends with a full stop",
                "at its end",
                "leave it out: messages are put in tables",
            );
        }
        let mut untold = Vec::new();
        self.rule.program.assert.walk(&mut |expr| {
            if let Node::Compare(comparison, left, right) = &expr.node
                && !matches!(comparison, Comparison::Equal | Comparison::NotEqual)
            {
                for side in [left, right] {
                    let keys = self.keys(side);
                    if !keys.is_empty() && keys.is_disjoint(&told) {
                        untold.push(side.span.clone());
                    }
                }
            }
        });
        if let (Some(span), Some(node)) = (untold.first(), self.rule.node.get("assert")) {
            let source = &self.rule.source.text;
            let last = span.end.saturating_sub(1).max(span.start);
            let at = node.locate(source, span.start)..node.locate(source, last) + 1;
            let help = "a reader wants the value and the limit: put both into the message";
            self.warn_at(at, "the message does not tell this side of the comparison", "compared here", help);
        }
    }

    /// Whether the rule compares values, and not only asks whether something is so or is there.
    fn compares_values(&self) -> bool {
        let null = |expr: &Expr| matches!(expr.node, Node::Literal(Value::Null));
        let mut found = false;
        self.rule.program.assert.walk(&mut |expr| match &expr.node {
            Node::Compare(_, left, right) => found |= !null(left) && !null(right),
            Node::In(..) | Node::Matches(..) => found = true,
            _ => {}
        });
        found
    }

    /// Facts and parameters that a template tells.
    fn told(&self, template: &Template) -> BTreeSet<String> {
        template.values().flat_map(|expr| self.keys(expr)).collect()
    }

    /// Facts and parameters that an expression reads, lets included.
    fn keys(&self, expr: &Expr) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        expr.walk(&mut |expr| match &expr.node {
            Node::Param(index) => {
                found.insert(format!("params.{index}"));
            }
            Node::Let(index) => {
                if let Some(binding) = self.rule.program.lets.get(*index) {
                    found.extend(self.keys(&binding.expr));
                }
                found.extend(expr::key(expr));
            }
            // Which item of a list is meant does not matter here: variables are called differently, and a whole item
            // has no name that a message could tell.
            _ => found.extend(expr::key(expr).and_then(|key| match key.strip_prefix('$') {
                Some(item) => {
                    let field = item.trim_start_matches(|c: char| c.is_ascii_digit());
                    (!field.is_empty()).then(|| field.to_owned())
                }
                None => Some(key),
            })),
        });
        found
    }

    fn texts(&mut self) {
        if self.rule.rationale.chars().count() < 60 {
            self.warn(
                "rationale",
                "the rationale is short",
                "why does it matter?",
                "say what happens where the rule is violated",
            );
        }
        if self.rule.remediation.chars().count() < 20 {
            self.warn(
                "remediation",
                "the remediation is short",
                "what is to be done?",
                "name the setting or the command",
            );
        }
        if self.rule.tags.is_empty() {
            self.warn(
                "id",
                "the rule has no tags",
                "this rule",
                "add `tags: [network]`, so that it can be found",
            );
        }
        for param in &self.rule.params {
            if param.help.chars().count() < 10 {
                let span = self
                    .rule
                    .node
                    .get("params")
                    .and_then(|params| params.key(&param.name))
                    .map_or(0..1, |node| node.span.clone());
                self.warn_at(
                    span,
                    format!("`{}` is hardly explained", param.name),
                    "this parameter",
                    "say in a sentence what it means",
                );
            }
        }
        if let Some(instead) = &self.rule.deprecated {
            self.warn(
                "deprecated",
                format!("the rule is deprecated: {instead}"),
                "since then",
                "remove it once nobody uses it",
            );
        }
    }

    /// References are there, and have the form of something that can be looked up.
    fn references(&mut self) {
        let items = self.rule.node.get("references").map(YamlNode::items).unwrap_or_default().to_vec();
        if items.is_empty() {
            self.warn(
                "id",
                "the rule has no references",
                "this rule",
                "name the manual, RFC or issue that it rests on",
            );
        }
        for reference in &items {
            for (node, message, help) in reference_faults(reference) {
                self.warn_at(node.span.clone(), message, "of this reference", help);
            }
        }
    }

    fn consequences(&mut self) {
        if self.rule.effect == Effect::Block && self.rule.on_unknown == Effect::Note {
            let help = "let missing evidence warn at least: `on_unknown: warn`";
            self.warn(
                "on_unknown",
                "what blocks when it is seen is passed over when nobody looked",
                "only a note",
                help,
            );
        }
    }
}

/// What keeps a reference from being looked up: the part of it, what is wrong, and the way out.
pub(super) fn reference_faults(reference: &YamlNode) -> Vec<(&YamlNode, String, &'static str)> {
    let mut faults = Vec::new();
    let text = |key: &str| reference.get(key).and_then(YamlNode::text).unwrap_or_default();
    let url = text("url");
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let formed = host.contains('.') && !host.starts_with('.') && !url.contains(char::is_whitespace);
    if !formed {
        let help = "give the full address: https://host/…";
        faults.push((reference.get("url").unwrap_or(reference), format!("`{url}` is no address"), help));
    }
    if text("title").trim().len() < 4 {
        let help = "name what the reader finds there";
        let node = reference.get("title").unwrap_or(reference);
        faults.push((node, "a reference without a title".to_owned(), help));
    }
    faults
}

/// The folder of a step.
fn folder_of(step: Step) -> &'static str {
    match step {
        Step::Prepare => "1-prepare",
        Step::Precopy => "2-precopy",
        Step::Stop => "3-stop",
        Step::Switch => "4-switch",
        Step::Resume => "5-resume",
        Step::Policy => "policy",
    }
}
