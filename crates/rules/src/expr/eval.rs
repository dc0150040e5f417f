//! Evaluation in three-valued logic, with a record of the facts that decided the result.
//!
//! A result is true only if it is true for all values of the unknown facts. Every fact that is read is recorded; if an
//! operand did not decide (`false && x`), its reads are removed again, so that only the evidence remains.

use std::{borrow::Cow, fmt::Write, rc::Rc};

use jiff::{SignedDuration, Timestamp};
use vmgate_facts::{Facts, Version};

use super::{
    cost,
    lookup::Indices,
    tree::{Base, Expr, Node},
};
use crate::value::Value;

/// A value of an expression.
#[derive(Debug, Clone)]
pub(crate) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    Version(Version),
    Time(Timestamp),
    Duration(SignedDuration),
    /// A record or list of the facts, or an item of such a list, with its path.
    Node(&'a Value, PathId),
    /// A computed list.
    List(Rc<Vec<Val<'a>>>),
    /// Unknown; the recorded reads give the reasons.
    Unknown,
}

/// Index of a path in the evaluator's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathId(u32);

const NO_PATH: PathId = PathId(u32::MAX);

#[derive(Debug, Clone, Copy)]
pub(super) enum Segment<'a> {
    Text(&'a str),
    Index(usize),
}

/// A fact that was read, or the reason why a result is unknown.
#[derive(Debug, Clone)]
pub(crate) enum Read<'a> {
    Fact(&'a Value, PathId),
    /// Older than the rule accepts, with the reason.
    Stale(String, PathId),
    /// The expression cannot be evaluated on these facts, with the reason.
    Fault(String),
}

impl Value {
    /// Converts a fact to a value of an expression; none for a record.
    pub(crate) fn scalar_or_list(&self, path: PathId) -> Option<Val<'_>> {
        Some(match self {
            Self::Null => Val::Null,
            Self::Bool(value) => Val::Bool(*value),
            Self::Int(value) => Val::Int(*value),
            Self::Double(value) => Val::Double(*value),
            Self::Text(text) => Val::Text(Cow::Borrowed(text)),
            Self::Version(version) => Val::Version(*version),
            Self::Time(time) => Val::Time(*time),
            Self::Duration(span) => Val::Duration(*span),
            Self::Unknown(_) => Val::Unknown,
            Self::List(items) => Val::List(Rc::new(items.iter().map(|item| Val::Node(item, path)).collect())),
            Self::Record(_) | Self::Map(_) => return None,
        })
    }

    fn is_compound(&self) -> bool {
        matches!(self, Self::List(_) | Self::Record(_) | Self::Map(_))
    }
}

/// Age limit on the facts, for one rule.
pub(crate) struct Freshness<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) now: Timestamp,
    pub(crate) max_age_seconds: f64,
}

/// Evaluator of expressions on the facts of one move. One evaluator serves all rules, one after the other, so that its
/// tables are allocated only once.
pub(crate) struct Evaluator<'a> {
    root: &'a Value,
    params: &'a [Value],
    lets: Vec<&'a Expr>,
    frame: Vec<Val<'a>>,
    paths: Vec<(PathId, Segment<'a>)>,
    pub(super) reads: Vec<Read<'a>>,
    steps: u64,
    freshness: Option<Freshness<'a>>,
    pub(super) indices: Indices<'a>,
}

impl Freshness<'_> {
    /// Returns why the fact at a path is too old; none if it is not.
    fn why_too_old(&self, path: &str) -> Option<String> {
        let at = self.facts.provenance_of(path)?.at;
        let age = self.now.duration_since(at).as_secs_f64();
        (age > self.max_age_seconds).then(|| {
            format!("measured {} ago; the rule accepts at most {}", span(age), span(self.max_age_seconds))
        })
    }
}

/// A span of time in the largest unit of which it has two or more.
fn span(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 172_800.0 => (s / 86_400.0, "days"),
        s if s >= 7_200.0 => (s / 3_600.0, "h"),
        s if s >= 120.0 => (s / 60.0, "min"),
        s => (s, "s"),
    };
    format!("{value:.0} {unit}")
}

impl<'a> Evaluator<'a> {
    pub(crate) fn new(root: &'a Value) -> Self {
        Self {
            root,
            params: &[],
            lets: Vec::new(),
            frame: Vec::new(),
            paths: Vec::new(),
            reads: Vec::new(),
            steps: 0,
            freshness: None,
            indices: Indices::new(),
        }
    }

    /// Prepares for the expressions of a rule: their parameters, lets and number of variables.
    pub(crate) fn start_rule(
        &mut self,
        params: &'a [Value],
        lets: impl IntoIterator<Item = &'a Expr>,
        slots: usize,
        freshness: Option<Freshness<'a>>,
    ) {
        self.params = params;
        self.lets.clear();
        self.lets.extend(lets);
        self.frame.clear();
        self.frame.resize(slots, Val::Unknown);
        self.paths.clear();
        self.reads.clear();
        self.steps = 0;
        self.freshness = freshness;
    }

    /// Current position in the record of reads.
    pub(crate) fn mark(&self) -> usize {
        self.reads.len()
    }

    /// Removes the reads since `mark`.
    pub(crate) fn forget(&mut self, mark: usize) {
        self.reads.truncate(mark);
    }

    /// The reads since `mark`.
    pub(crate) fn reads(&self, mark: usize) -> &[Read<'a>] {
        self.reads.get(mark..).unwrap_or_default()
    }

    /// Path in the notation of rules.
    pub(crate) fn path(&self, id: PathId) -> String {
        let mut text = String::with_capacity(48);
        self.write_path(id, &mut text);
        text
    }

    fn write_path(&self, id: PathId, text: &mut String) {
        let Some((parent, segment)) = self.paths.get(id.0 as usize) else { return };
        self.write_path(*parent, text);
        match segment {
            Segment::Text(name) => text.push_str(name),
            Segment::Index(index) => {
                let _ = write!(text, "[{index}]");
            }
        }
    }

    /// Sets a variable.
    pub(crate) fn bind(&mut self, slot: usize, value: Val<'a>) {
        if let Some(place) = self.frame.get_mut(slot) {
            *place = value;
        }
    }

    /// Items of a list; none if the list is unknown.
    pub(crate) fn items(&mut self, list: &Val<'a>) -> Option<Vec<Val<'a>>> {
        match list {
            Val::Node(Value::List(items), path) => {
                let path = *path;
                Some(
                    items
                        .iter()
                        .enumerate()
                        .map(|(index, item)| Val::Node(item, self.child_path(path, Segment::Index(index))))
                        .collect(),
                )
            }
            Val::List(items) => Some(items.as_ref().clone()),
            _ => None,
        }
    }

    /// Records that a list was read as a whole.
    pub(crate) fn note_list(&mut self, list: &Val<'a>) {
        if let Val::Node(node, path) = list {
            self.note(node, *path);
        }
    }

    pub(super) fn child_path(&mut self, parent: PathId, segment: Segment<'a>) -> PathId {
        let id = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
        self.paths.push((parent, segment));
        PathId(id)
    }

    pub(super) fn fault(&mut self, reason: impl Into<String>) -> Val<'a> {
        self.reads.push(Read::Fault(reason.into()));
        Val::Unknown
    }

    pub(super) fn too_many_steps(&mut self) -> Val<'a> {
        self.fault("the rule takes too many steps on these facts")
    }

    /// Records that a fact was read, and returns its value for an expression.
    pub(super) fn read(&mut self, value: &'a Value, path: PathId) -> Val<'a> {
        if self.note(value, path) {
            value.scalar_or_list(path).unwrap_or(Val::Node(value, path))
        } else {
            Val::Unknown
        }
    }

    /// Records that a fact was read; false if the fact is too old.
    pub(super) fn note(&mut self, value: &'a Value, path: PathId) -> bool {
        if let Some(freshness) = &self.freshness
            && !matches!(value, Value::Unknown(_))
            && let Some(reason) = freshness.why_too_old(&self.path(path))
        {
            self.reads.push(Read::Stale(reason, path));
            return false;
        }
        // Values in the rule or in its parameters are not facts.
        if path != NO_PATH {
            self.reads.push(Read::Fact(value, path));
        }
        true
    }

    /// Reads an item of a list, if this has not been done yet.
    pub(super) fn read_item(&mut self, value: Val<'a>) -> Val<'a> {
        match value {
            Val::Node(node, path) if !node.is_compound() => self.read(node, path),
            other => other,
        }
    }

    pub(super) fn scalar(&mut self, expr: &'a Expr) -> Val<'a> {
        let value = self.eval(expr);
        self.read_item(value)
    }

    pub(super) fn count_steps(&mut self, steps: u64) -> bool {
        self.steps += steps;
        self.steps <= cost::MOST_STEPS_TAKEN
    }

    /// Evaluates an expression; the facts that decided the result are added to the reads.
    pub(crate) fn eval(&mut self, expr: &'a Expr) -> Val<'a> {
        if !self.count_steps(1) {
            return self.too_many_steps();
        }
        match &expr.node {
            Node::Literal(value) => value.scalar_or_list(NO_PATH).unwrap_or(Val::Unknown),
            Node::Param(index) => match self.params.get(*index) {
                Some(value) => value.scalar_or_list(NO_PATH).unwrap_or(Val::Unknown),
                None => self.fault("a parameter of the rule has no value"),
            },
            Node::Let(index) => match self.lets.get(*index).copied() {
                Some(expr) => self.eval(expr),
                None => self.fault("a `let` of the rule has no value"),
            },
            Node::Access { base, steps, suffix } => self.access(base, steps, suffix),
            Node::Index(container, index) => self.index(container, index),
            Node::Not(inner) => match self.scalar(inner) {
                Val::Bool(value) => Val::Bool(!value),
                other => self.wrong_type(other, "true or false"),
            },
            Node::Negate(inner) => match self.scalar(inner) {
                Val::Int(value) => match value.checked_neg() {
                    Some(value) => Val::Int(value),
                    None => self.fault("a number is too large"),
                },
                Val::Double(value) => Val::Double(-value),
                Val::Duration(span) => Val::Duration(-span),
                other => self.wrong_type(other, "a number"),
            },
            Node::And(left, right) => self.logical(left, right, false),
            Node::Or(left, right) => self.logical(left, right, true),
            Node::Conditional(condition, then, other) => match self.scalar(condition) {
                Val::Bool(true) => self.eval(then),
                Val::Bool(false) => self.eval(other),
                value => self.wrong_type(value, "true or false"),
            },
            Node::Compare(comparison, left, right) => {
                let left = self.scalar(left);
                let right = self.scalar(right);
                self.compare(*comparison, left, right)
            }
            Node::Arithmetic(operation, left, right) => {
                let left = self.scalar(left);
                let right = self.scalar(right);
                self.arithmetic(*operation, left, right)
            }
            Node::In(value, list) => self.membership(value, list),
            Node::Present(value) => match self.scalar(value) {
                Val::Unknown => Val::Unknown,
                value => Val::Bool(!matches!(value, Val::Null)),
            },
            Node::OrValue(value, other) => match self.scalar(value) {
                Val::Null => self.eval(other),
                value => value,
            },
            Node::Matches(text, regex) => match self.scalar(text) {
                Val::Text(text) => Val::Bool(regex.is_match(&text)),
                other => self.wrong_type(other, "a text"),
            },
            Node::Call(function, args) => self.call(*function, args),
            Node::List(items) => {
                let items = items.iter().map(|item| self.eval(item)).collect();
                Val::List(Rc::new(items))
            }
            Node::Quantify { quantifier, list, slot, filter, body } => {
                self.quantify(*quantifier, list, *slot, filter.as_deref(), body)
            }
        }
    }

    /// Result for a value of the wrong type: unknown stays unknown, and other types should not pass the type check.
    #[allow(clippy::needless_pass_by_value, reason = "it is what remains of a match")]
    pub(super) fn wrong_type(&mut self, value: Val<'a>, expected: &str) -> Val<'a> {
        match value {
            Val::Unknown => Val::Unknown,
            Val::Null => self.fault(format!("a value is absent, but {expected} is needed")),
            _ => self.fault(format!("a value is not {expected}")),
        }
    }

    fn access(&mut self, base: &'a Base, steps: &'a [usize], suffix: &'a str) -> Val<'a> {
        let (mut value, parent) = match base {
            Base::Root => (self.root, NO_PATH),
            Base::Variable(slot) => match self.frame.get(*slot).cloned() {
                Some(Val::Node(value, path)) => (value, path),
                Some(value) => return self.access_computed(value, steps),
                None => return self.fault("a variable has no value"),
            },
            Base::Expr(expr) => match self.eval(expr) {
                Val::Node(value, path) => (value, path),
                value => return self.access_computed(value, steps),
            },
        };
        for step in steps {
            match value {
                Value::Record(fields) => match fields.get(*step) {
                    Some(field) => value = field,
                    None => return self.fault(format!("there is no field `{suffix}`")),
                },
                Value::Null | Value::Unknown(_) => break,
                _ => return self.fault(format!("`{suffix}` is not a field")),
            }
        }
        let path = if suffix.is_empty() { parent } else { self.child_path(parent, Segment::Text(suffix)) };
        if value.is_compound() { Val::Node(value, path) } else { self.read(value, path) }
    }

    /// Reads a field of a value that is not a record: absent stays absent, unknown stays unknown.
    fn access_computed(&mut self, value: Val<'a>, steps: &[usize]) -> Val<'a> {
        match value {
            value if steps.is_empty() => value,
            Val::Null => Val::Null,
            other => self.wrong_type(other, "a group of fields"),
        }
    }

    fn index(&mut self, container: &'a Expr, index: &'a Expr) -> Val<'a> {
        let container = self.eval(container);
        let index = self.scalar(index);
        match (&container, &index) {
            (Val::Unknown, _) | (_, Val::Unknown) => Val::Unknown,
            (Val::Node(Value::Map(entries), path), Val::Text(key)) => match entries.get_key_value(&**key) {
                Some((key, value)) => {
                    let path = self.child_path(*path, Segment::Text(key));
                    self.read_item(Val::Node(value, path))
                }
                None => self.fault(format!("there is no `{key}`")),
            },
            (Val::Node(Value::List(items), path), Val::Int(at)) => {
                match usize::try_from(*at).ok().and_then(|at| Some((at, items.get(at)?))) {
                    Some((at, item)) => {
                        let path = self.child_path(*path, Segment::Index(at));
                        self.read_item(Val::Node(item, path))
                    }
                    None => self.fault(format!("there is no item {at} in a list of {}", items.len())),
                }
            }
            (Val::List(items), Val::Int(at)) => {
                match usize::try_from(*at).ok().and_then(|at| items.get(at)) {
                    Some(item) => self.read_item(item.clone()),
                    None => self.fault(format!("there is no item {at} in a list of {}", items.len())),
                }
            }
            _ => self.wrong_type(container, "a list"),
        }
    }

    /// Evaluates `&&` (decided by false) and `||` (decided by true), with the evidence of the operand that decided.
    fn logical(&mut self, left: &'a Expr, right: &'a Expr, decider: bool) -> Val<'a> {
        let start = self.mark();
        let first = self.scalar(left);
        let first = self.as_bool(first);
        if first == Some(decider) {
            return Val::Bool(decider);
        }
        let middle = self.mark();
        let second = self.scalar(right);
        let second = self.as_bool(second);
        match (first, second) {
            (_, Some(value)) if value == decider => {
                self.reads.drain(start..middle);
                Val::Bool(decider)
            }
            (Some(_), Some(_)) => Val::Bool(!decider),
            (Some(_), None) => {
                self.reads.drain(start..middle);
                Val::Unknown
            }
            (None, Some(_)) => {
                self.forget(middle);
                Val::Unknown
            }
            (None, None) => Val::Unknown,
        }
    }

    pub(super) fn as_bool(&mut self, value: Val<'a>) -> Option<bool> {
        match value {
            Val::Bool(value) => Some(value),
            other => {
                self.wrong_type(other, "true or false");
                None
            }
        }
    }
}
