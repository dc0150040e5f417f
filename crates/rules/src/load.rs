//! Loader of rules: reads a rule's file, checks document, parameters and expressions, and reports every problem.

use std::{collections::BTreeMap, ops::Range, rc::Rc, sync::Arc};

use cel::common::ast::{Expr as CelExpr, IdedExpr};
use vmgate_documents::{
    Content, Node, Parsed, Problem, Shape, SourceFile, conform_node, parse,
    types::{Kind, Type},
};
use vmgate_facts::Unit;

use super::{
    document::{ParamDocument, RuleDocument},
    expr::{self, Checker, Expr, ExprProblem, Parser, Scope, Template, TypedName},
    files::RuleFile,
    param::Param,
    program::{ForeachList, Let, Program},
    root::ROOT,
    rule::{Rule, RuleExpressions},
};

static RULE: Shape<RuleDocument> = Shape::new();

/// True if the rule is shipped with the program; and the rule, or all of its problems.
type Loaded = (bool, Result<Rule, Vec<Problem>>);

/// Reads rules, on every processor.
pub(crate) fn rules(files: &[&RuleFile]) -> Result<Vec<Loaded>, Problem> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let parts = files.chunks(files.len().div_ceil(processors).max(1)).map(|files| {
        move || {
            let parser = Rc::default();
            files.iter().map(|file| (file.builtin, rule(&file.file, &parser))).collect::<Vec<_>>()
        }
    });
    expr::with_stacks(parts).map(|parts| parts.into_iter().flatten().collect()).map_err(|error| {
        Problem::of_file(
            "rules",
            format!("cannot be checked, because no thread could be started: {error}"),
            "free memory, or allow more threads",
        )
    })
}

/// Reads one rule.
fn rule(file: &Arc<SourceFile>, parser: &Rc<Parser>) -> Result<Rule, Vec<Problem>> {
    let Parsed { node, mut problems } = parse(file);
    let Some(node) = node else { return Err(problems) };
    problems.extend(conform_node(file, &node, RULE.ty()));
    let mut loader = Loader { file, node: &node, parser, problems: Vec::new() };
    let params = loader.params();
    let program = loader.program(&params);
    loader.check_id();
    loader.check_subject("subject");
    problems.extend(loader.problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let broken = |message: String| vec![Problem::of_file(&file.name, message, "correct the file")];
    let document: RuleDocument =
        serde_json::from_value(node.to_json()).map_err(|error| broken(error.to_string()))?;
    let text = |key: &str| node.get(key).and_then(Node::text).map(|text| text.trim().to_owned());
    let pairs = |key: &str| {
        let pairs = node.get(key).map(Node::entries).unwrap_or_default();
        pairs
            .iter()
            .filter_map(|(key, value)| Some((key.text()?.to_owned(), value.text()?.trim().to_owned())))
            .collect()
    };
    Ok(Rule {
        texts: RuleExpressions {
            when: text("when"),
            foreach: pairs("foreach"),
            lets: pairs("let"),
            assert: document.assert.trim().to_owned(),
            subject: document.subject,
            message: document.message.trim().to_owned(),
        },
        id: document.id.into(),
        title: document.title.trim().into(),
        step: document.step,
        severity: document.severity,
        effect: document.effect,
        on_unknown: document.on_unknown.unwrap_or(document.effect),
        rationale: document.rationale.trim().to_owned(),
        remediation: document.remediation.trim().to_owned(),
        references: document.references,
        params,
        settled_by: document.settled_by,
        max_age_seconds: document.max_age,
        tags: document.tags,
        deprecated: document.deprecated,
        waivable: document.waivable,
        replaces: document.replaces,
        file: file.name.clone(),
        program,
        source: Arc::clone(file),
        node,
    })
}

struct Loader<'a> {
    file: &'a Arc<SourceFile>,
    node: &'a Node,
    parser: &'a Rc<Parser>,
    problems: Vec<Problem>,
}

impl Loader<'_> {
    /// Reports a problem at a place in the file.
    fn at(&mut self, span: Range<usize>, message: impl Into<String>, label: &str, help: &str) {
        self.problems.push(Problem::at(self.file, span, message).label(label).help(help));
    }

    fn check_id(&mut self) {
        let Some(node) = self.node.get("id") else { return };
        let id = node.text().unwrap_or_default();
        let kebab = id.split('-').all(|word| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
        if !kebab || id.len() > 64 {
            let message = format!("`{id}` is not a valid rule id");
            self.at(
                node.span.clone(),
                message,
                "not kebab-case",
                "use lower-case letters, digits and hyphens, at most 64 characters: `destination-memory-fits`",
            );
        }
        if let Some(age) = self.node.get("max_age")
            && age.to_json().as_f64().is_some_and(|seconds| seconds <= 0.0)
        {
            self.at(
                age.span.clone(),
                "`max_age` must be more than 0 seconds",
                "this age",
                "leave `max_age` out to accept facts of any age",
            );
        }
    }

    /// Checks that `subject` and `foreach` come together: only with a subject can the outcomes of `foreach` be told apart.
    fn check_subject(&mut self, key: &str) {
        match (self.node.get("foreach"), self.node.get(key)) {
            (None, Some(subject)) => {
                let span = subject.span.clone();
                self.at(
                    span,
                    "the rule has a `subject` but no `foreach`",
                    "the rule has one outcome for the whole move",
                    "remove `subject`, or add `foreach`",
                );
            }
            (Some(foreach), None) => {
                let span = foreach.span.clone();
                self.at(
                    span,
                    "the rule has a `foreach` but no `subject`",
                    "the outcomes cannot be told apart",
                    "add a subject that names the item: `subject: \"{x.name}\"`",
                );
            }
            _ => {}
        }
    }

    fn params(&mut self) -> Vec<Param> {
        let mut params = Vec::new();
        for (key, value) in self.node.get("params").map(Node::entries).unwrap_or_default() {
            let Some(name) = key.text() else { continue };
            let Ok(document) = serde_json::from_value::<ParamDocument>(value.to_json()) else { continue };
            let declared = document.unit;
            let mut param = Param::new(name, document);
            let named = Unit::of_name(name);
            if declared.is_some() && named != Unit::Count && named != param.unit {
                let span = value.get("unit").map_or_else(|| key.span.clone(), |unit| unit.span.clone());
                let message =
                    format!("the name of `{name}` says {named}, but its `unit` says {}", param.unit);
                self.at(
                    span,
                    message,
                    "the unit and the name disagree",
                    "rename the parameter or correct the unit",
                );
            }
            if param.unit != Unit::Count && !param.ty().is_number() {
                self.at(
                    key.span.clone(),
                    format!("the type of `{name}` is {}, which has no unit", param.ty().kind),
                    "not a number",
                    "remove `unit`, or rename the parameter",
                );
            }
            if let Some(reason) = param.value_problem(&param.default) {
                let span = value.get("default").map_or_else(|| key.span.clone(), |node| node.span.clone());
                self.at(
                    span,
                    format!("the default of `{name}` {reason}"),
                    "the default",
                    "correct the default or the range",
                );
            }
            param.set(&param.default.clone(), super::param::ParamOrigin::Default);
            params.push(param);
        }
        params
    }

    /// Reports the problems of an expression at their places in the file.
    fn report(&mut self, node: &Node, problems: Vec<ExprProblem>) {
        for problem in problems {
            let start = node.locate(&self.file.text, problem.span.start);
            let last = problem.span.end.saturating_sub(1).max(problem.span.start);
            let end = node.locate(&self.file.text, last) + usize::from(problem.span.end > problem.span.start);
            let at = Problem::at(self.file, start..end.max(start), problem.message).label(problem.label);
            self.problems.push(match problem.help {
                Some(help) => at.help(help),
                None => at,
            });
        }
    }

    fn expression(&mut self, node: &Node, scope: &mut Scope) -> Option<(Expr, Type)> {
        match Checker::check(node.text()?, scope) {
            Ok(checked) => Some(checked),
            Err(problems) => {
                self.report(node, problems);
                None
            }
        }
    }

    fn condition(&mut self, key: &str, scope: &mut Scope) -> Option<Expr> {
        let node = self.node.get(key)?;
        match Checker::check_condition(node.text()?, scope) {
            Ok(checked) => Some(checked),
            Err(problems) => {
                self.report(node, problems);
                None
            }
        }
    }

    fn template(&mut self, key: &str, scope: &mut Scope) -> Option<Template> {
        let node = self.node.get(key)?;
        match expr::check_template(node.text()?, scope) {
            Ok(template) => Some(template),
            Err(problems) => {
                self.report(node, problems);
                None
            }
        }
    }

    fn program(&mut self, params: &[Param]) -> Program {
        let mut scope = Scope {
            parser: Rc::clone(self.parser),
            params: params
                .iter()
                .map(|param| TypedName { name: param.name.clone(), ty: param.ty() })
                .collect(),
            ..Scope::default()
        };
        let before = self.problems.len();
        let root = self.node;
        let foreach: Vec<&(Node, Node)> =
            root.get("foreach").map(Node::entries).unwrap_or_default().iter().collect();
        let variables: Vec<&str> = foreach.iter().filter_map(|(key, _)| key.text()).collect();
        let LetOrder { for_when, outer, inner } = self.let_order(&variables);
        let mut lets = Vec::new();
        for (name, value) in &for_when {
            self.binding(name, value, &mut scope, &mut lets);
        }
        let hide = |reason| move |name: &&str| ((*name).to_owned(), reason);
        scope.hidden.extend(
            variables
                .iter()
                .map(hide("`when` is about the whole move: filter the list of `foreach` instead")),
        );
        let inner_names: Vec<&str> = inner.iter().filter_map(|(key, _)| key.text()).collect();
        scope.hidden.extend(inner_names.iter().map(hide("this `let` depends on a variable of `foreach`")));
        let when = self.condition("when", &mut scope);
        if let Some(when) = &when {
            scope.present.extend(expr::implied(when, true, &scope.lets));
        }
        for (name, value) in &outer {
            self.binding(name, value, &mut scope, &mut lets);
        }
        let each = self.foreach(&foreach, &mut scope);
        scope.hidden.clear();
        for (name, value) in &inner {
            self.binding(name, value, &mut scope, &mut lets);
        }
        let assert = self.condition("assert", &mut scope);
        let subject = self.template("subject", &mut scope);
        let message = self.template("message", &mut scope).unwrap_or_default();
        let remediation = self.template("remediation", &mut scope).unwrap_or_default();
        if self.problems.len() == before {
            self.unused(&scope);
        }
        let program = Program {
            lets,
            when,
            not_applicable_message: format!(
                "does not apply to this move: the rule is only for moves where {}",
                root.get("when").map(one_line).unwrap_or_default()
            )
            .into(),
            foreach: each,
            assert: assert.unwrap_or_else(Program::placeholder),
            subject,
            message,
            remediation,
            can_be_unknown: scope.reads_unknowable.get(),
            slots: scope.next_slot,
        };
        if let Err((what, message)) = program.check_cost() {
            let span = root.get(what).map_or_else(|| root.span.clone(), |node| node.span.clone());
            self.at(span, message, "this expression", "filter the outer list first, or split the rule");
        }
        program
    }

    /// Returns the lets in the order of their check: those that `when` does not use are checked with what `when` proves.
    fn let_order(&self, variables: &[&str]) -> LetOrder {
        let mut inner_names: Vec<String> = variables.iter().map(|name| (*name).to_owned()).collect();
        let names_in = |node: &Node| self.names_in(node);
        let mut when_names = self.node.get("when").map(names_in).unwrap_or_default();
        let entries = self.node.get("let").map(Node::entries).unwrap_or_default();
        for (key, value) in entries.iter().rev() {
            if key.text().is_some_and(|name| when_names.iter().any(|used| used == name)) {
                when_names.extend(names_in(value));
            }
        }
        let mut order = LetOrder::default();
        for (key, value) in entries {
            let entry = (key.clone(), value.clone());
            if names_in(value).iter().any(|name| inner_names.contains(name)) {
                inner_names.extend(key.text().map(str::to_owned));
                order.inner.push(entry);
            } else if key.text().is_some_and(|name| when_names.iter().any(|used| used == name)) {
                order.for_when.push(entry);
            } else {
                order.outer.push(entry);
            }
        }
        order
    }

    /// Names that an expression contains; none if the expression cannot be parsed.
    fn names_in(&self, node: &Node) -> Vec<String> {
        let mut names = Vec::new();
        if let Some(Ok(parsed)) = node.text().map(|text| self.parser.parse(text)) {
            identifiers(&parsed.expr, &mut names);
        }
        names
    }

    fn binding(&mut self, key: &Node, value: &Node, scope: &mut Scope, lets: &mut Vec<Let>) {
        let Some(name) = key.text() else { return };
        self.check_name(key, name, scope);
        let Some((expr, ty)) = self.expression(value, scope) else {
            // The name is defined anyway, so that its uses are not reported too.
            scope.lets.push((TypedName { name: name.to_owned(), ty: Type::any() }, Program::placeholder()));
            return;
        };
        let unit = Unit::of_name(name);
        if ty.is_number() && unit != Unit::Count && !unit.agrees(ty.unit) {
            let message =
                format!("the name of `{name}` says {unit}, but the unit of its value is {}", ty.unit);
            self.at(
                key.span.clone(),
                message,
                "the name and the value disagree",
                "rename it or convert the value",
            );
        }
        // A literal takes its unit from the name.
        let ty = if ty.unit == Unit::Any && ty.is_number() { Type { unit, ..ty } } else { ty };
        lets.push(Let { name: name.to_owned(), expr: expr.clone() });
        scope.lets.push((TypedName { name: name.to_owned(), ty }, expr));
    }

    fn foreach(&mut self, entries: &[&(Node, Node)], scope: &mut Scope) -> Vec<ForeachList> {
        let mut each = Vec::new();
        for (key, value) in entries.iter().copied() {
            let Some(name) = key.text() else { continue };
            self.check_name(key, name, scope);
            let checked = self.expression(value, scope);
            let slot = scope.next_slot;
            scope.next_slot += 1;
            let mut item = Type::any();
            if let Some((list, ty)) = checked {
                match &ty.kind {
                    Kind::List(of) if !ty.optional => item = (**of).clone(),
                    Kind::Any => {}
                    _ => {
                        let span = value.span.clone();
                        self.at(
                            span,
                            format!("`foreach` needs a list, but this is {ty}"),
                            "not a list",
                            "name a list, such as `vm.nics`",
                        );
                    }
                }
                scope.present.extend(expr::implied_for_items(&list, slot, &scope.lets));
                let text = one_line(value);
                let empty_message = format!("nothing to check: `{text}` is empty").into();
                each.push(ForeachList { slot, list, text, empty_message });
            }
            scope.hidden.retain(|(hidden, _)| hidden != name);
            scope.variables.push((TypedName { name: name.to_owned(), ty: item }, slot));
        }
        each
    }

    fn check_name(&mut self, key: &Node, name: &str, scope: &Scope) {
        let word = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !word {
            let message = format!("`{name}` is not a valid name");
            self.at(
                key.span.clone(),
                message,
                "not a name",
                "use lower-case letters, digits and underscores: `needed_bytes`",
            );
        }
        let taken = ROOT.field(name).is_some()
            || name == "params"
            || scope.variables.iter().any(|(named, _)| named.name == name)
            || scope.lets.iter().any(|(named, _)| named.name == name);
        if taken {
            let message = format!("the name `{name}` is already in use");
            self.at(key.span.clone(), message, "hides another name", "choose another name");
        }
    }

    /// Reports parameters, lets and variables that are declared and never used.
    fn unused(&mut self, scope: &Scope) {
        let used = scope.used.borrow();
        for (section, what) in [("params", "parameter"), ("let", "let"), ("foreach", "variable")] {
            for (key, _) in self.node.get(section).map(Node::entries).unwrap_or_default() {
                let Some(name) = key.text() else { continue };
                let is_used = if section == "params" {
                    used.contains(&format!("params.{name}"))
                } else {
                    used.contains(name)
                };
                if !is_used {
                    let message = format!("the {what} `{name}` is not used");
                    self.problems.push(
                        Problem::at(self.file, key.span.clone(), message)
                            .label("never used")
                            .help("use it, or remove it"),
                    );
                }
            }
        }
    }
}

/// An expression on one line, for messages.
fn one_line(node: &Node) -> String {
    node.text().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Lets of a rule, each with its name, by the time of their check.
#[derive(Default)]
struct LetOrder {
    /// Lets that `when` uses.
    for_when: Vec<(Node, Node)>,
    /// Other lets about the whole move.
    outer: Vec<(Node, Node)>,
    /// Lets that depend on a variable of `foreach`.
    inner: Vec<(Node, Node)>,
}

/// Collects the names in a parsed expression.
fn identifiers(expr: &IdedExpr, names: &mut Vec<String>) {
    match &expr.expr {
        CelExpr::Ident(name) => names.push(name.clone()),
        CelExpr::Select(select) => identifiers(&select.operand, names),
        CelExpr::Call(call) => {
            call.target.as_deref().into_iter().chain(&call.args).for_each(|e| identifiers(e, names));
        }
        CelExpr::List(list) => list.elements.iter().for_each(|e| identifiers(e, names)),
        _ => {}
    }
}

/// Content of a rule file in canonical form, for digests: key order and layout do not count.
pub(crate) fn canonical(node: &Node) -> serde_json::Value {
    match &node.content {
        Content::Map(entries) => {
            let sorted: BTreeMap<String, serde_json::Value> = entries
                .iter()
                .filter_map(|(key, value)| Some((key.text()?.to_owned(), canonical(value))))
                .collect();
            sorted.into_iter().collect()
        }
        Content::List(items) => items.iter().map(canonical).collect(),
        Content::Scalar { .. } => node.to_json(),
    }
}
