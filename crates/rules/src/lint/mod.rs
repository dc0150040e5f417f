//! Style checks of rules: good habits that the loader cannot demand.

mod cannot_tell;
mod known_message;

use std::{collections::BTreeSet, ops::Range, path::Path};

use vmgate_documents::{Node as YamlNode, Problem};
use vmgate_verdict::{Effect, Step};

use crate::{
    Pack, Rule,
    expr::{self, Comparison, Expr, Node, Piece, Place, Template},
    value::Value,
};

/// First words of a title that gives an order and does not describe the healthy state.
const ORDERS: [&str; 8] = ["check", "ensure", "verify", "make", "test", "validate", "detect", "must"];
/// Words that describe a failure.
const UNHEALTHY: [&str; 8] =
    ["fails", "failed", "missing", "broken", "insufficient", "exceeded", "error", "wrong"];

/// Programs whose commands people copy out of remediations.
const PROGRAMS: [&str; 12] = [
    "chmod",
    "chown",
    "ethtool",
    "iptables",
    "nft",
    "qemu-img",
    "rm",
    "ssh",
    "sudo",
    "sysctl",
    "systemctl",
    "virsh",
];

/// Returns a warning for everything that is not good style, in the order of the rules.
pub fn lint(pack: &Pack) -> Vec<Problem> {
    pack.rules().iter().flat_map(|rule| Linter { rule, found: Vec::new() }.run()).collect()
}

struct Linter<'a> {
    rule: &'a Rule,
    found: Vec<Problem>,
}

impl Linter<'_> {
    fn run(mut self) -> Vec<Problem> {
        self.file_location();
        self.title();
        self.message();
        self.texts();
        self.references();
        self.consequences();
        self.cannot_tell();
        self.message_without_values();
        self.commands("message", &self.rule.program.message);
        self.commands("remediation", &self.rule.program.remediation);
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

    /// Checks that the file name is the rule's id and that the file is in the folder of the rule's step.
    fn file_location(&mut self) {
        let path = Path::new(&self.rule.file);
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if *stem != *self.rule.id {
            let message = format!("the file name is `{stem}`, but the rule id is `{}`", self.rule.id);
            let help = format!("rename the file to {}.yaml", self.rule.id);
            self.warn("id", message, "not the file name", &help);
        }
        let folder =
            path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        let expected = folder_of(self.rule.step);
        let is_step = Step::all().into_iter().any(|step| folder_of(step) == folder);
        if is_step && folder != expected {
            let help = format!("move the file to {expected}/, or correct the step");
            self.warn(
                "step",
                format!("the folder {folder}/ is for rules of another step"),
                "not the step of the folder",
                &help,
            );
        }
    }

    /// Checks that the title describes the healthy state.
    fn title(&mut self) {
        let title = &self.rule.title;
        let words: Vec<String> = title
            .split_whitespace()
            .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
            .collect();
        let help = "describe the healthy state: \"The destination has memory for the VM\"";
        if words.first().is_some_and(|first| ORDERS.contains(&first.as_str())) {
            self.warn("title", "the title gives an order", "not a state", help);
        }
        if let Some(word) = words.iter().find(|word| UNHEALTHY.contains(&word.as_str())) {
            self.warn(
                "title",
                format!("the title describes a failure: `{word}`"),
                "not the healthy state",
                help,
            );
        }
        if title.ends_with('.') || title.chars().count() > 90 || !title.starts_with(char::is_uppercase) {
            let help = "write one sentence of at most 90 characters that begins with a capital letter and has no full stop";
            self.warn("title", "the title does not have the form of a headline", "this title", help);
        }
    }

    /// Checks that the message contains the value and the limit.
    fn message(&mut self) {
        let shown_keys = self.shown_keys(&self.rule.program.message);
        if shown_keys.is_empty() && self.compares_values() {
            let help = "show the value and the limit, with `{expressions}`";
            self.warn("message", "the message contains no values", "only words", help);
            return;
        }
        if self.rule.texts.message.ends_with('.') {
            self.warn(
                "message",
                "the message ends with a full stop",
                "at its end",
                "remove the full stop: messages are shown in tables",
            );
        }
        let mut not_shown = Vec::new();
        self.rule.program.assert.walk(&mut |expr| {
            if let Node::Compare(comparison, left, right) = &expr.node
                && !matches!(comparison, Comparison::Equal | Comparison::NotEqual)
            {
                for side in [left, right] {
                    let keys = self.keys(side);
                    if !keys.is_empty() && keys.is_disjoint(&shown_keys) {
                        not_shown.push(side.span.clone());
                    }
                }
            }
        });
        if let (Some(span), Some(node)) = (not_shown.first(), self.rule.node.get("assert")) {
            let at = self.within(node, span);
            let help = "put both the value and the limit into the message";
            self.warn_at(at, "the message does not show this side of the comparison", "compared here", help);
        }
    }

    /// True if the rule compares values; false if it only tests booleans or the presence of values.
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

    /// Facts and parameters that a template shows.
    fn shown_keys(&self, template: &Template) -> BTreeSet<String> {
        template.values().flat_map(|expr| self.keys(expr)).collect()
    }

    /// Facts and parameters that an expression reads, directly or through `let`.
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
            // Variables of different loops have different names, so only the field of an item counts; a whole item
            // has no name that a message could show.
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
                "the rationale is shorter than 60 characters",
                "why does it matter?",
                "say what happens if the rule is violated",
            );
        }
        if self.rule.remediation.chars().count() < 20 {
            self.warn(
                "remediation",
                "the remediation is shorter than 20 characters",
                "what should the operator do?",
                "name the setting or the command",
            );
        }
        if self.rule.tags.is_empty() {
            self.warn("id", "the rule has no tags", "this rule", "add search words: `tags: [network]`");
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
                    format!("the help of `{}` is shorter than 10 characters", param.name),
                    "this parameter",
                    "explain the parameter in a sentence",
                );
            }
        }
        if let Some(instead) = &self.rule.deprecated {
            self.warn(
                "deprecated",
                format!("the rule is deprecated: {instead}"),
                "deprecated here",
                "remove the rule when nobody uses it any more",
            );
        }
    }

    /// Checks that the rule has references and that each has a title and a web address.
    fn references(&mut self) {
        let items = self.rule.node.get("references").map(YamlNode::items).unwrap_or_default().to_vec();
        if items.is_empty() {
            self.warn(
                "id",
                "the rule has no references",
                "this rule",
                "name the manual, RFC or issue that the rule is based on",
            );
        }
        for reference in &items {
            for (node, message, help) in reference_faults(reference) {
                self.warn_at(node.span.clone(), message, "this reference", help);
            }
        }
    }

    fn consequences(&mut self) {
        let gap = self.rule.effect == Effect::Block && self.rule.on_unknown == Effect::Note;
        if gap && !cannot_tell::asks_only_where_allowed(&self.rule.program) {
            let help = "write `on_unknown: warn` or `on_unknown: block`";
            self.warn(
                "on_unknown",
                "a violation blocks the move, but missing evidence does not even warn",
                "only a note",
                help,
            );
        }
    }
}

impl Linter<'_> {
    /// Checks that what nobody can tell neither switches the rule off nor passes it.
    fn cannot_tell(&mut self) {
        for finding in cannot_tell::find(&self.rule.program) {
            let effect = if finding.passes { "passes the rule" } else { "switches the rule off" };
            let message = format!("another {} {effect}, also one that nobody has thought of", finding.fact);
            let help = if finding.passes {
                "name what is known to be good, `x in [\"…\"]`, so that another name does not pass; or ask what a machine or a \
                 catalogue says"
            } else {
                "name the exceptions, `!(x in [\"…\"])`, so that the rule asks about every other name; or ask what a machine or \
                 a catalogue says"
            };
            let Some(at) = self.place(&finding.part, &finding.span) else { continue };
            self.warn_at(at, message, "only these names", help);
        }
    }

    /// Place of an expression in the file.
    fn place(&self, part: &cannot_tell::Part, span: &Range<usize>) -> Option<Range<usize>> {
        let node = &self.rule.node;
        let node = match part {
            cannot_tell::Part::When => node.get("when")?,
            cannot_tell::Part::Foreach(at) => &node.get("foreach")?.entries().get(*at)?.1,
            cannot_tell::Part::Let(name) => node.get("let")?.get(name)?,
            cannot_tell::Part::Assert => node.get("assert")?,
        };
        Some(self.within(node, span))
    }

    /// Place of a part of a node's text in the file.
    fn within(&self, node: &YamlNode, span: &Range<usize>) -> Range<usize> {
        let source = &self.rule.source.text;
        let last = span.end.saturating_sub(1).max(span.start);
        node.locate(source, span.start)..node.locate(source, last) + 1
    }

    /// Checks that a violation can be described whatever else is unknown.
    fn message_without_values(&mut self) {
        let Some(unknown) = known_message::find(&self.rule.program) else { return };
        let fact = expr::key(unknown).unwrap_or_else(|| "a value".to_owned());
        let fact = fact.trim_start_matches(['@', '$']).trim_start_matches(|c: char| c.is_ascii_digit());
        self.warn(
            "message",
            format!("nothing of the message is left where values are not known, such as `{fact}`"),
            "in each of its clauses",
            "an unknown value takes its clause with it, up to the semicolon: begin with a clause about the facts that decide",
        );
    }

    /// Checks that every value in a command is one that vmgate quotes: a guest may have any name.
    fn commands(&mut self, key: &str, template: &Template) {
        let mut sentence = String::new();
        for piece in &template.pieces {
            match piece {
                Piece::Text(text) => {
                    if let Some((_, rest)) = text.rsplit_once(['.', ':', ';', ',', '(', '`', '\n']) {
                        sentence.clear();
                        sentence.push_str(rest);
                    } else {
                        sentence.push_str(text);
                    }
                }
                Piece::Value { place: Place::Command { in_quotes: true, .. }, .. } => {
                    self.warn(
                        key,
                        "a value stands between quotes of a command",
                        "vmgate quotes it, and these quotes would end its own",
                        "remove the quotes around `{…}`: every value between backticks is quoted as one word of a shell",
                    );
                    return;
                }
                Piece::Value { place: Place::Text | Place::BesideCode, .. } => {
                    let mut words = sentence.split_whitespace();
                    let program = words.find(|word| PROGRAMS.contains(word));
                    if let Some(program) = program.filter(|_| words.next().is_some()) {
                        self.warn(
                            key,
                            format!("a value stands in a command of {program} that is not between backticks"),
                            "the value is not quoted",
                            "put the command between backticks: values in it are then quoted for a shell",
                        );
                        return;
                    }
                    sentence.push('x');
                }
                Piece::Value { .. } => {}
            }
        }
    }
}

/// Faults of a reference: the node, the message and the way out of each.
pub(super) fn reference_faults(reference: &YamlNode) -> Vec<(&YamlNode, String, &'static str)> {
    let mut faults = Vec::new();
    let text = |key: &str| reference.get(key).and_then(YamlNode::text).unwrap_or_default();
    let url = text("url");
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let formed = host.contains('.') && !host.starts_with('.') && !url.contains(char::is_whitespace);
    if !formed {
        let help = "write the full address: https://host/…";
        faults.push((
            reference.get("url").unwrap_or(reference),
            format!("`{url}` is not a web address"),
            help,
        ));
    }
    if text("title").trim().len() < 4 {
        let help = "write the title of the document";
        let node = reference.get("title").unwrap_or(reference);
        faults.push((node, "the reference has no title".to_owned(), help));
    }
    faults
}

/// Name of the folder for the rules of a step.
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
