//! Evaluation in three-valued logic, with a record of the facts that decided the result.
//!
//! A result is true only if it is true whatever the unknown facts are. Every fact that is read is noted; where an
//! operand did not decide (`false && x`), its notes are dropped again, so that what remains is the evidence.

use std::{borrow::Cow, rc::Rc};

use jiff::{SignedDuration, Timestamp};

use super::{
    cost,
    tree::{Arithmetic, Base, Comparison, Expr, Function, Node, Quantifier},
};
use crate::{fact::Version, rule::value::Value};

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
    /// A list that was reckoned.
    List(Rc<Vec<Val<'a>>>),
    /// Not known; the reads say why.
    Unknown,
}

/// A path in the evaluator's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathId(u32);

const NO_PATH: PathId = PathId(u32::MAX);

#[derive(Debug, Clone, Copy)]
enum Segment<'a> {
    Text(&'a str),
    Index(usize),
}

/// A fact that was read, or the reason why a result is not known.
#[derive(Debug, Clone)]
pub(crate) enum Read<'a> {
    Fact(&'a Value, PathId),
    /// Too old to count, with the reason.
    Stale(String, PathId),
    /// The expression cannot be reckoned with these facts.
    Fault(String),
}

impl Value {
    /// The value for an expression; none for a record.
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

/// Says of the fact at a path why it is too old, if it is.
pub(crate) type Staleness<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Evaluates the expressions of one rule over the facts of one move.
pub(crate) struct Evaluator<'a> {
    root: &'a Value,
    params: &'a [Value],
    lets: Vec<&'a Expr>,
    frame: Vec<Val<'a>>,
    paths: Vec<(PathId, Segment<'a>)>,
    reads: Vec<Read<'a>>,
    steps: u64,
    stale: Option<Staleness<'a>>,
}

/// Facts that are named as deciding one comprehension.
const MOST_DECIDERS: usize = 8;

impl<'a> Evaluator<'a> {
    pub(crate) fn new(
        root: &'a Value,
        params: &'a [Value],
        lets: impl IntoIterator<Item = &'a Expr>,
        slots: usize,
        stale: Option<Staleness<'a>>,
    ) -> Self {
        Self {
            root,
            params,
            lets: lets.into_iter().collect(),
            frame: vec![Val::Unknown; slots],
            paths: Vec::new(),
            reads: Vec::new(),
            steps: 0,
            stale,
        }
    }

    /// Where the record of reads stands.
    pub(crate) fn mark(&self) -> usize {
        self.reads.len()
    }

    /// Drops the reads since `mark`.
    pub(crate) fn forget(&mut self, mark: usize) {
        self.reads.truncate(mark);
    }

    /// The reads since `mark`.
    pub(crate) fn reads(&self, mark: usize) -> &[Read<'a>] {
        self.reads.get(mark..).unwrap_or_default()
    }

    /// The path as a rule writes it.
    pub(crate) fn path(&self, id: PathId) -> String {
        let mut segments = Vec::new();
        let mut id = id;
        while let Some((parent, segment)) = self.paths.get(id.0 as usize) {
            segments.push(*segment);
            id = *parent;
        }
        let mut text = String::with_capacity(48);
        for segment in segments.into_iter().rev() {
            match segment {
                Segment::Text(name) => text.push_str(name),
                Segment::Index(index) => {
                    text.push('[');
                    text.push_str(&index.to_string());
                    text.push(']');
                }
            }
        }
        text
    }

    /// Sets a variable.
    pub(crate) fn bind(&mut self, slot: usize, value: Val<'a>) {
        if let Some(place) = self.frame.get_mut(slot) {
            *place = value;
        }
    }

    /// The items of a list; none where it is not known.
    pub(crate) fn items(&mut self, list: &Val<'a>) -> Option<Vec<Val<'a>>> {
        match list {
            Val::Node(Value::List(items), path) => {
                let path = *path;
                Some(
                    items
                        .iter()
                        .enumerate()
                        .map(|(index, item)| Val::Node(item, self.below(path, Segment::Index(index))))
                        .collect(),
                )
            }
            Val::List(items) => Some(items.as_ref().clone()),
            _ => None,
        }
    }

    /// Notes that a list was read as a whole.
    pub(crate) fn consume(&mut self, list: &Val<'a>) {
        if let Val::Node(node, path) = list {
            self.read(node, *path);
        }
    }

    fn below(&mut self, parent: PathId, segment: Segment<'a>) -> PathId {
        let id = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
        self.paths.push((parent, segment));
        PathId(id)
    }

    fn fault(&mut self, reason: impl Into<String>) -> Val<'a> {
        self.reads.push(Read::Fault(reason.into()));
        Val::Unknown
    }

    /// Notes a fact that was read, and gives what an expression sees of it.
    fn read(&mut self, value: &'a Value, path: PathId) -> Val<'a> {
        if let Some(stale) = self.stale
            && !matches!(value, Value::Unknown(_))
            && let Some(reason) = stale(&self.path(path))
        {
            self.reads.push(Read::Stale(reason, path));
            return Val::Unknown;
        }
        self.reads.push(Read::Fact(value, path));
        value.scalar_or_list(path).unwrap_or(Val::Node(value, path))
    }

    /// Reads an item that has not been read yet.
    fn force(&mut self, value: Val<'a>) -> Val<'a> {
        match value {
            Val::Node(node, path) if !node.is_compound() => self.read(node, path),
            other => other,
        }
    }

    fn scalar(&mut self, expr: &'a Expr) -> Val<'a> {
        let value = self.eval(expr);
        self.force(value)
    }

    fn spend(&mut self, steps: u64) -> bool {
        self.steps += steps;
        self.steps <= cost::MOST
    }

    /// The value of an expression; the facts that decided it are added to the reads.
    pub(crate) fn eval(&mut self, expr: &'a Expr) -> Val<'a> {
        if !self.spend(1) {
            return self.fault("the rule takes too many steps on these facts");
        }
        match &expr.node {
            Node::Literal(value) => value.scalar_or_list(NO_PATH).unwrap_or(Val::Unknown),
            Node::Param(index) => match self.params.get(*index) {
                Some(value) => value.scalar_or_list(NO_PATH).unwrap_or(Val::Unknown),
                None => self.fault("a parameter has no value"),
            },
            Node::Let(index) => match self.lets.get(*index).copied() {
                Some(expr) => self.eval(expr),
                None => self.fault("a let has no value"),
            },
            Node::Access { base, steps, suffix } => self.access(base, steps, suffix),
            Node::Index(container, index) => self.index(container, index),
            Node::Not(inner) => match self.scalar(inner) {
                Val::Bool(value) => Val::Bool(!value),
                other => self.not_a(other, "true or false"),
            },
            Node::Negate(inner) => match self.scalar(inner) {
                Val::Int(value) => match value.checked_neg() {
                    Some(value) => Val::Int(value),
                    None => self.fault("a number is too large"),
                },
                Val::Double(value) => Val::Double(-value),
                Val::Duration(span) => Val::Duration(-span),
                other => self.not_a(other, "a number"),
            },
            Node::And(left, right) => self.connect(left, right, false),
            Node::Or(left, right) => self.connect(left, right, true),
            Node::Conditional(condition, then, other) => match self.scalar(condition) {
                Val::Bool(true) => self.eval(then),
                Val::Bool(false) => self.eval(other),
                value => self.not_a(value, "true or false"),
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
                other => self.not_a(other, "a text"),
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

    /// Unknown stays unknown; anything else should not have passed the type check.
    fn not_a(&mut self, value: Val<'a>, expected: &str) -> Val<'a> {
        match value {
            Val::Unknown => Val::Unknown,
            Val::Null => self.fault(format!("a value is absent where {expected} is needed")),
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
                    None => return self.fault(format!("`{suffix}` is not there")),
                },
                Value::Null | Value::Unknown(_) => break,
                _ => return self.fault(format!("`{suffix}` is not a field")),
            }
        }
        let path = if suffix.is_empty() { parent } else { self.below(parent, Segment::Text(suffix)) };
        if value.is_compound() { Val::Node(value, path) } else { self.read(value, path) }
    }

    /// A field of a value that is not a record: absent stays absent, unknown stays unknown.
    fn access_computed(&mut self, value: Val<'a>, steps: &[usize]) -> Val<'a> {
        match value {
            value if steps.is_empty() => value,
            Val::Null => Val::Null,
            other => self.not_a(other, "a group of fields"),
        }
    }

    fn index(&mut self, container: &'a Expr, index: &'a Expr) -> Val<'a> {
        let container = self.eval(container);
        let index = self.scalar(index);
        match (&container, &index) {
            (Val::Unknown, _) | (_, Val::Unknown) => Val::Unknown,
            (Val::Node(Value::Map(entries), path), Val::Text(key)) => match entries.get_key_value(&**key) {
                Some((key, value)) => {
                    let path = self.below(*path, Segment::Text(key));
                    self.force(Val::Node(value, path))
                }
                None => self.fault(format!("there is no `{key}`")),
            },
            (Val::Node(Value::List(items), path), Val::Int(at)) => {
                match usize::try_from(*at).ok().and_then(|at| Some((at, items.get(at)?))) {
                    Some((at, item)) => {
                        let path = self.below(*path, Segment::Index(at));
                        self.force(Val::Node(item, path))
                    }
                    None => self.fault(format!("there is no item {at} in a list of {}", items.len())),
                }
            }
            (Val::List(items), Val::Int(at)) => {
                match usize::try_from(*at).ok().and_then(|at| items.get(at)) {
                    Some(item) => self.force(item.clone()),
                    None => self.fault(format!("there is no item {at} in a list of {}", items.len())),
                }
            }
            _ => self.not_a(container, "a list"),
        }
    }

    /// `&&` (decided by false) and `||` (decided by true), with the evidence of the operand that decided.
    fn connect(&mut self, left: &'a Expr, right: &'a Expr, decider: bool) -> Val<'a> {
        let start = self.mark();
        let first = self.scalar(left);
        let first = self.truth(first);
        if first == Some(decider) {
            return Val::Bool(decider);
        }
        let middle = self.mark();
        let second = self.scalar(right);
        let second = self.truth(second);
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

    fn truth(&mut self, value: Val<'a>) -> Option<bool> {
        match value {
            Val::Bool(value) => Some(value),
            other => {
                self.not_a(other, "true or false");
                None
            }
        }
    }

    fn membership(&mut self, value: &'a Expr, list: &'a Expr) -> Val<'a> {
        let value = self.scalar(value);
        let list = self.eval(list);
        let items: Vec<Val<'a>> = match &list {
            Val::Node(node @ Value::List(items), path) => {
                if let Val::Unknown = self.read(node, *path) {
                    return Val::Unknown;
                }
                items.iter().filter_map(|item| item.scalar_or_list(*path)).collect()
            }
            Val::Node(node @ Value::Map(entries), path) => {
                self.reads.push(Read::Fact(node, *path));
                return match value {
                    Val::Text(key) => Val::Bool(entries.contains_key(&*key)),
                    other => self.not_a(other, "a text"),
                };
            }
            Val::List(items) => items.as_ref().clone().into_iter().map(|item| self.force(item)).collect(),
            _ => return self.not_a(list, "a list"),
        };
        if !self.spend(items.len() as u64) {
            return self.fault("the rule takes too many steps on these facts");
        }
        let mut unknown = false;
        for item in &items {
            match equal(&value, item) {
                Some(true) => return Val::Bool(true),
                Some(false) => {}
                None => unknown = true,
            }
        }
        if unknown { Val::Unknown } else { Val::Bool(false) }
    }

    fn compare(&mut self, comparison: Comparison, left: Val<'a>, right: Val<'a>) -> Val<'a> {
        let (left, right) = (self.whole(left), self.whole(right));
        if matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
            return match equal(&left, &right) {
                Some(same) => Val::Bool(same == (comparison == Comparison::Equal)),
                None => Val::Unknown,
            };
        }
        match (order(&left, &right), left, right) {
            (Order::Is(ordering), ..) => Val::Bool(comparison.holds(ordering)),
            (Order::None, ..) => Val::Bool(false),
            (Order::Unlike, Val::Unknown, _) | (Order::Unlike, _, Val::Unknown) => Val::Unknown,
            (Order::Unlike, Val::Null, _) | (Order::Unlike, _, Val::Null) => {
                self.fault("a value is absent where it is compared")
            }
            (Order::Unlike, ..) => self.fault("two values cannot be compared"),
        }
    }

    /// A list of the facts is read as a whole where it is compared.
    fn whole(&mut self, value: Val<'a>) -> Val<'a> {
        match value {
            Val::Node(node @ Value::List(_), path) => self.read(node, path),
            other => other,
        }
    }

    fn call(&mut self, function: Function, args: &'a [Expr]) -> Val<'a> {
        let mut values = args.iter().map(|arg| self.scalar(arg)).collect::<Vec<_>>().into_iter();
        let (first, second) = (values.next().unwrap_or(Val::Unknown), values.next());
        if matches!(first, Val::Unknown) || matches!(second, Some(Val::Unknown)) {
            return Val::Unknown;
        }
        match (function, &first, &second) {
            (Function::Size, Val::Text(text), _) => {
                Val::Int(i64::try_from(text.chars().count()).unwrap_or(i64::MAX))
            }
            (Function::Size, Val::List(items), _) => Val::Int(i64::try_from(items.len()).unwrap_or(i64::MAX)),
            (Function::Size, Val::Node(node, path), _) => {
                let len = match node {
                    Value::List(items) => items.len(),
                    Value::Map(entries) => entries.len(),
                    _ => return self.not_a(first, "a list"),
                };
                match self.read(node, *path) {
                    Val::Unknown => Val::Unknown,
                    _ => Val::Int(i64::try_from(len).unwrap_or(i64::MAX)),
                }
            }
            (Function::StartsWith, Val::Text(text), Some(Val::Text(part))) => {
                Val::Bool(text.starts_with(&**part))
            }
            (Function::EndsWith, Val::Text(text), Some(Val::Text(part))) => {
                Val::Bool(text.ends_with(&**part))
            }
            (Function::Contains, Val::Text(text), Some(Val::Text(part))) => Val::Bool(text.contains(&**part)),
            (Function::Text, Val::Text(text), _) => Val::Text(text.clone()),
            (Function::Text, Val::Bool(value), _) => Val::Text(value.to_string().into()),
            (Function::Text, Val::Double(value), _) => Val::Text(value.to_string().into()),
            (Function::Text, value, _) => {
                Val::Text(super::print::show(value, crate::rule::unit::Unit::Count, true).into())
            }
            (Function::Int, Val::Int(value), _) => Val::Int(*value),
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                reason = "the range is checked"
            )]
            (Function::Int, Val::Double(value), _) if value.abs() < i64::MAX as f64 => {
                Val::Int(*value as i64)
            }
            (Function::Int, Val::Text(text), _) => match text.parse() {
                Ok(value) => Val::Int(value),
                Err(_) => self.fault(format!("`{text}` is not a whole number")),
            },
            #[allow(clippy::cast_precision_loss, reason = "as CEL's double() does")]
            (Function::Double, Val::Int(value), _) => Val::Double(*value as f64),
            (Function::Double, Val::Double(value), _) => Val::Double(*value),
            (Function::Double, Val::Text(text), _) => match text.parse() {
                Ok(value) => Val::Double(value),
                Err(_) => self.fault(format!("`{text}` is not a number")),
            },
            (Function::Min | Function::Max, a, Some(b)) => match order(a, b) {
                Order::Is(ordering) if ordering.is_le() == (function == Function::Min) => first,
                Order::Is(_) => b.clone(),
                _ => self.fault("two values cannot be compared"),
            },
            (Function::In(unit), Val::Duration(span), _) => {
                Val::Int(i64::try_from(span.as_millis() / i128::from(unit)).unwrap_or(i64::MAX))
            }
            _ => self.not_a(first, "what the function takes"),
        }
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "a whole number meets a fraction: both are reckoned as fractions"
    )]
    fn arithmetic(&mut self, operation: Arithmetic, left: Val<'a>, right: Val<'a>) -> Val<'a> {
        let fraction = |a: f64, b: f64| match operation {
            Arithmetic::Add => a + b,
            Arithmetic::Subtract => a - b,
            Arithmetic::Multiply => a * b,
            Arithmetic::Divide => a / b,
            Arithmetic::Modulo => a % b,
        };
        let shifted = |time: &Timestamp, span: SignedDuration| match operation {
            Arithmetic::Add => time.checked_add(span).ok(),
            _ => time.checked_sub(span).ok(),
        };
        let add = operation == Arithmetic::Add;
        match (&left, &right) {
            (Val::Unknown, _) | (_, Val::Unknown) => Val::Unknown,
            (Val::Int(_), Val::Int(0)) if matches!(operation, Arithmetic::Divide | Arithmetic::Modulo) => {
                self.fault("a division by zero")
            }
            (Val::Int(a), Val::Int(b)) => {
                let result = match operation {
                    Arithmetic::Add => a.checked_add(*b),
                    Arithmetic::Subtract => a.checked_sub(*b),
                    Arithmetic::Multiply => a.checked_mul(*b),
                    Arithmetic::Divide => a.checked_div(*b),
                    Arithmetic::Modulo => a.checked_rem(*b),
                };
                match result {
                    Some(value) => Val::Int(value),
                    None => self.fault("a number is too large"),
                }
            }
            (Val::Double(a), Val::Double(b)) => Val::Double(fraction(*a, *b)),
            (Val::Int(a), Val::Double(b)) => Val::Double(fraction(*a as f64, *b)),
            (Val::Double(a), Val::Int(b)) => Val::Double(fraction(*a, *b as f64)),
            (Val::Text(a), Val::Text(b)) if add => Val::Text(format!("{a}{b}").into()),
            (Val::Time(a), Val::Time(b)) if operation == Arithmetic::Subtract => {
                Val::Duration(a.duration_since(*b))
            }
            (Val::Time(time), Val::Duration(span)) | (Val::Duration(span), Val::Time(time)) => {
                match shifted(time, *span) {
                    Some(time) => Val::Time(time),
                    None => self.fault("a time is out of range"),
                }
            }
            (Val::Duration(a), Val::Duration(b)) => {
                match if add { a.checked_add(*b) } else { a.checked_sub(*b) } {
                    Some(span) => Val::Duration(span),
                    None => self.fault("a duration is too long"),
                }
            }
            (Val::Node(..) | Val::List(_), Val::Node(..) | Val::List(_)) if add => {
                match (self.items(&left), self.items(&right)) {
                    (Some(mut items), Some(more)) => {
                        items.extend(more);
                        Val::List(Rc::new(items))
                    }
                    _ => self.fault("two values cannot be added"),
                }
            }
            _ => self.fault("two values cannot be reckoned with each other"),
        }
    }

    fn quantify(
        &mut self,
        quantifier: Quantifier,
        list: &'a Expr,
        slot: usize,
        filter: Option<&'a Expr>,
        body: &'a Expr,
    ) -> Val<'a> {
        let start = self.mark();
        let list = self.eval(list);
        let Some(items) = self.items(&list) else { return self.not_a(list, "a list") };
        if items.is_empty()
            && let Val::Node(node, path) = list
            && let Val::Unknown = self.read(node, path)
        {
            return Val::Unknown;
        }
        match quantifier {
            Quantifier::All => self.decide(start, items, slot, body, false),
            Quantifier::Exists => self.decide(start, items, slot, body, true),
            Quantifier::ExistsOne => self.exists_one(items, slot, body),
            Quantifier::Filter => self.collect(items, slot, Some(body), None),
            Quantifier::Map => self.collect(items, slot, filter, Some(body)),
        }
    }

    /// `all` and `exists`: one item can decide. The evidence is the items that did, or all of them if none did.
    fn decide(
        &mut self,
        start: usize,
        items: Vec<Val<'a>>,
        slot: usize,
        body: &'a Expr,
        decider: bool,
    ) -> Val<'a> {
        let (mut deciders, mut unknown) = (0, false);
        for item in items {
            let mark = self.mark();
            self.bind(slot, item);
            let value = self.scalar(body);
            match self.truth(value) {
                Some(value) if value == decider => {
                    if deciders == 0 {
                        self.reads.drain(start..mark);
                    }
                    deciders += 1;
                    if deciders == MOST_DECIDERS {
                        break;
                    }
                }
                Some(_) if unknown || deciders > 0 => self.forget(mark),
                Some(_) => {}
                None if deciders > 0 => self.forget(mark),
                None => {
                    if !unknown {
                        self.reads.drain(start..mark);
                    }
                    unknown = true;
                }
            }
        }
        match (deciders > 0, unknown) {
            (true, _) => Val::Bool(decider),
            (false, true) => Val::Unknown,
            (false, false) => Val::Bool(!decider),
        }
    }

    fn exists_one(&mut self, items: Vec<Val<'a>>, slot: usize, body: &'a Expr) -> Val<'a> {
        let (mut found, mut unknown) = (0, false);
        for item in items {
            self.bind(slot, item);
            let value = self.scalar(body);
            match self.truth(value) {
                Some(true) => found += 1,
                Some(false) => {}
                None => unknown = true,
            }
        }
        match (found, unknown) {
            (2.., _) => Val::Bool(false),
            (_, true) => Val::Unknown,
            (found, false) => Val::Bool(found == 1),
        }
    }

    /// `filter` and `map`. Where a condition is not known, neither is the list.
    fn collect(
        &mut self,
        items: Vec<Val<'a>>,
        slot: usize,
        filter: Option<&'a Expr>,
        body: Option<&'a Expr>,
    ) -> Val<'a> {
        let mut collected = Vec::with_capacity(items.len());
        let mut unknown = false;
        for item in items {
            self.bind(slot, item.clone());
            if let Some(filter) = filter {
                let value = self.scalar(filter);
                match self.truth(value) {
                    Some(true) => {}
                    Some(false) => continue,
                    None => {
                        unknown = true;
                        continue;
                    }
                }
            }
            collected.push(match body {
                Some(body) => self.eval(body),
                None => item,
            });
        }
        if unknown { Val::Unknown } else { Val::List(Rc::new(collected)) }
    }
}

/// How two values compare.
enum Order {
    Is(std::cmp::Ordering),
    /// Numbers without an order: one is not a number.
    None,
    /// Not of one kind.
    Unlike,
}

#[allow(clippy::cast_precision_loss, reason = "CEL compares numbers by value; facts are below 2^53")]
fn order(a: &Val<'_>, b: &Val<'_>) -> Order {
    let ordering = match (a, b) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Int(a), Val::Double(b)) => (*a as f64).partial_cmp(b),
        (Val::Double(a), Val::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Val::Text(a), Val::Text(b)) => Some(a.cmp(b)),
        (Val::Version(a), Val::Version(b)) => Some(a.cmp(b)),
        (Val::Time(a), Val::Time(b)) => Some(a.cmp(b)),
        (Val::Duration(a), Val::Duration(b)) => Some(a.cmp(b)),
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
        _ => return Order::Unlike,
    };
    ordering.map_or(Order::None, Order::Is)
}

/// Whether two values are equal; none where that is not known. Values of different kinds are not equal.
fn equal(a: &Val<'_>, b: &Val<'_>) -> Option<bool> {
    match (a, b) {
        (Val::Unknown, _) | (_, Val::Unknown) => None,
        (Val::Null, Val::Null) => Some(true),
        (Val::Node(a, path), _) if a.scalar_or_list(*path).is_some() => equal(&a.scalar_or_list(*path)?, b),
        (_, Val::Node(b, path)) if b.scalar_or_list(*path).is_some() => equal(a, &b.scalar_or_list(*path)?),
        (Val::List(a), Val::List(b)) => {
            if a.len() != b.len() {
                return Some(false);
            }
            let mut all = Some(true);
            for (a, b) in a.iter().zip(b.iter()) {
                match equal(a, b) {
                    Some(true) => {}
                    Some(false) => return Some(false),
                    None => all = None,
                }
            }
            all
        }
        _ => match order(a, b) {
            Order::Is(ordering) => Some(ordering.is_eq()),
            Order::None | Order::Unlike => Some(false),
        },
    }
}
