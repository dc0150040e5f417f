//! Type check of comparisons, `in` and arithmetic: types, units, absent values, and results that never change.

use std::ops::Range;

use cel::common::ast::{IdedExpr, operators};
use vmgate_documents::{
    closest,
    types::{Kind, Type},
};
use vmgate_facts::Unit;

use super::{
    check::{Checked, Checker},
    tree::{Arithmetic, Comparison, Expr, Node},
};
use crate::value::Value;

impl Comparison {
    /// Symbol of the operator.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// True if the comparison is true for two values of this ordering.
    pub(crate) fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }

    fn orders(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }
}

impl Checker<'_> {
    pub(super) fn compare(
        &mut self,
        comparison: Comparison,
        left: &IdedExpr,
        right: &IdedExpr,
        span: Range<usize>,
    ) -> Checked {
        let left = self.expr(left);
        let right = self.expr(right);
        let before = self.problems.len();
        self.check_null(comparison, &left, &right, &span);
        if self.problems.len() == before {
            self.check_kinds(comparison, &left, &right, &span);
        }
        if self.problems.len() == before {
            self.check_always(comparison, &left, &right, &span);
        }
        let node = Node::Compare(comparison, Box::new(left.0), Box::new(right.0));
        (Expr { node, span }, Type::plain(Kind::Bool))
    }

    /// Checks absent values: `==` and `!= null` accept them, every other comparison needs a guard.
    fn check_null(&mut self, comparison: Comparison, left: &Checked, right: &Checked, span: &Range<usize>) {
        for (value, other) in [(left, right), (right, left)] {
            if value.1.kind != Kind::Null {
                continue;
            }
            if comparison.orders() {
                let help = Some("use `==` or `!=`".to_owned());
                return self.problem(
                    span.clone(),
                    "null is neither less nor greater than a value",
                    "compared with null",
                    help,
                );
            }
            if !other.1.optional && other.1.kind != Kind::Any && !self.is_guarded(&other.0) {
                let text = self.text.get(other.0.span.clone()).unwrap_or_default().to_owned();
                let always = comparison == Comparison::NotEqual;
                let message = format!("`{text}` is never absent, so this is always {always}");
                let help =
                    "an unknown fact needs no guard: the outcome of the rule is then unknown".to_owned();
                self.problem(span.clone(), message, format!("always {always}"), Some(help));
            }
            return;
        }
        let how = match comparison {
            Comparison::Equal => return,
            Comparison::NotEqual => "is compared with `!=`, which is true for an absent value,".to_owned(),
            _ => format!("is compared with `{}`", comparison.symbol()),
        };
        if comparison == Comparison::NotEqual && left.1.optional && right.1.optional {
            return;
        }
        for (expr, ty) in [left, right] {
            if ty.optional && ty.kind != Kind::Any {
                self.report_missing_guard(expr, &how);
            }
        }
    }

    /// Checks that the types can be compared and have one unit.
    fn check_kinds(&mut self, comparison: Comparison, left: &Checked, right: &Checked, span: &Range<usize>) {
        let (a, b) = (&left.1, &right.1);
        match (&a.kind, &b.kind) {
            (Kind::Any | Kind::Null, _) | (_, Kind::Any | Kind::Null) => {}
            _ if a.is_number() && b.is_number() => self.check_units(a.unit, b.unit, &left.0, &right.0, span),
            (Kind::Enum(_), Kind::Text) => self.check_choice(a, &right.0),
            (Kind::Text, Kind::Enum(_)) => self.check_choice(b, &left.0),
            (Kind::Enum(one), Kind::Enum(other)) if one.texts().any(|text| other.find(text).is_some()) => {}
            (Kind::Text, Kind::Text)
            | (Kind::Version, Kind::Version)
            | (Kind::Timestamp, Kind::Timestamp)
            | (Kind::Duration, Kind::Duration) => {}
            (Kind::Bool, Kind::Bool) if !comparison.orders() => {}
            (Kind::List(one), Kind::List(other)) if !comparison.orders() && comparable(one, other) => {}
            _ => {
                let help = conversion(a, b).or_else(|| conversion(b, a));
                let message = format!("{a} cannot be compared with {b}");
                self.problem(span.clone(), message, format!("compared with `{}`", comparison.symbol()), help);
            }
        }
    }

    pub(super) fn check_units(&mut self, a: Unit, b: Unit, left: &Expr, right: &Expr, span: &Range<usize>) {
        if a.agrees(b) {
            return;
        }
        let is_param = |expr: &Expr| matches!(expr.node, Node::Param(_));
        let help = match (a, b) {
            _ if is_param(left) => format!("declare the parameter with `unit: {}`", unit_word(b)),
            _ if is_param(right) => format!("declare the parameter with `unit: {}`", unit_word(a)),
            _ => "convert one of them, or compare with a field of the same unit".to_owned(),
        };
        self.problem(
            span.clone(),
            format!("different units: {a} and {b}"),
            format!("{a} on the left, {b} on the right"),
            Some(help),
        );
    }

    /// Checks that a text that is compared with an enumeration is one of its values.
    fn check_choice(&mut self, ty: &Type, other: &Expr) {
        let (Kind::Enum(choices), Node::Literal(Value::Text(text))) = (&ty.kind, &other.node) else { return };
        if choices.find(text).is_some() {
            return;
        }
        let all: Vec<_> = choices.texts().collect();
        let help = match closest(text, choices.texts()) {
            Some(like) => format!("did you mean \"{like}\"?"),
            None => format!("the possible values are: {}", all.join(", ")),
        };
        self.problem(
            other.span.clone(),
            format!("this value is never \"{text}\""),
            "no such value",
            Some(help),
        );
    }

    /// Reports comparisons whose result no fact can change.
    fn check_always(&mut self, comparison: Comparison, left: &Checked, right: &Checked, span: &Range<usize>) {
        if left.1.kind == Kind::Any || right.1.kind == Kind::Any {
            return;
        }
        if self.is_same_text(&left.0, &right.0) {
            let always = comparison.holds(std::cmp::Ordering::Equal);
            let message = format!("both sides are the same, so this is always {always}");
            return self.problem(span.clone(), message, format!("always {always}"), None);
        }
        if left.0.is_constant() && right.0.is_constant() {
            let message = "this comparison does not depend on any fact";
            return self.problem(span.clone(), message, "always the same", None);
        }
        for (value, other, flipped) in [(left, right, false), (right, left, true)] {
            let (Kind::Int { min, max }, Node::Literal(Value::Int(limit))) = (&value.1.kind, &other.0.node)
            else {
                continue;
            };
            let outcome = |bound: &Option<i64>| {
                bound.map(|bound| {
                    let ordering = bound.cmp(limit);
                    (ordering, comparison.holds(if flipped { ordering.reverse() } else { ordering }))
                })
            };
            let always = match (outcome(min), outcome(max)) {
                (Some((std::cmp::Ordering::Greater, holds)), _)
                | (_, Some((std::cmp::Ordering::Less, holds))) => Some(holds),
                (Some((std::cmp::Ordering::Equal, _)), _) => {
                    at_bound(comparison, flipped, std::cmp::Ordering::Greater)
                }
                (_, Some((std::cmp::Ordering::Equal, _))) => {
                    at_bound(comparison, flipped, std::cmp::Ordering::Less)
                }
                _ => None,
            };
            if let Some(always) = always {
                let text = self.text.get(value.0.span.clone()).unwrap_or_default().to_owned();
                let show =
                    |bound: &Option<i64>| bound.map_or_else(|| "…".to_owned(), |bound| bound.to_string());
                let message = format!(
                    "`{text}` is always from {} to {}, so this is always {always}",
                    show(min),
                    show(max)
                );
                return self.problem(span.clone(), message, format!("always {always}"), None);
            }
        }
    }

    pub(super) fn membership(&mut self, value: &IdedExpr, list: &IdedExpr, span: Range<usize>) -> Checked {
        let value = self.expr(value);
        let list = self.expr(list);
        let list = self.require_present(list, "is searched");
        match &list.1.kind {
            Kind::List(item) => {
                let before = self.problems.len();
                if let Node::List(items) = &list.0.node {
                    for literal in items {
                        self.check_choice(&value.1, literal);
                    }
                    if items.is_empty() {
                        self.problem(span.clone(), "an empty list contains no value", "always false", None);
                    }
                }
                if self.problems.len() == before && !comparable(&value.1, item) {
                    let help = conversion(&value.1, item).or_else(|| conversion(item, &value.1));
                    let message = format!("{} is never in {}", value.1, list.1);
                    self.problem(span.clone(), message, "always false", help);
                } else if value.1.is_number() && item.is_number() {
                    self.check_units(value.1.unit, item.unit, &value.0, &list.0, &span);
                }
            }
            Kind::Map(_) if matches!(value.1.kind, Kind::Text | Kind::Enum(_) | Kind::Any) => {}
            Kind::Any => {}
            _ => {
                let help = Some("to look for a part of a text, use `.contains(…)`".to_owned());
                self.problem(
                    list.0.span.clone(),
                    format!("`in` needs a list, but this is {}", list.1),
                    list.1.to_string(),
                    help,
                );
            }
        }
        let node = Node::In(Box::new(value.0), Box::new(list.0));
        (Expr { node, span }, Type::plain(Kind::Bool))
    }

    pub(super) fn negate(&mut self, operand: &IdedExpr, span: Range<usize>) -> Checked {
        let checked = self.expr(operand);
        let (expr, ty) = self.require_present(checked, "is negated");
        if !ty.is_number() && !matches!(ty.kind, Kind::Any | Kind::Duration) {
            let message = format!("only a number can be negated, but this is {ty}");
            return self.refuse(expr.span, message, ty.to_string(), None);
        }
        let kind = if matches!(ty.kind, Kind::Int { .. }) { Type::INT } else { ty.kind };
        (Expr { node: Node::Negate(Box::new(expr)), span }, Type::number(kind, ty.unit))
    }

    pub(super) fn arithmetic(
        &mut self,
        name: &str,
        left: &IdedExpr,
        right: &IdedExpr,
        span: Range<usize>,
    ) -> Option<Checked> {
        let (operation, symbol) = match name {
            operators::ADD => (Arithmetic::Add, "+"),
            operators::SUBSTRACT => (Arithmetic::Subtract, "-"),
            operators::MULTIPLY => (Arithmetic::Multiply, "*"),
            operators::DIVIDE => (Arithmetic::Divide, "/"),
            operators::MODULO => (Arithmetic::Modulo, "%"),
            operators::INDEX => return Some(self.index(left, right, span)),
            _ => return None,
        };
        let left = self.expr(left);
        let left = self.require_present(left, "is used in a calculation");
        let right = self.expr(right);
        let right = self.require_present(right, "is used in a calculation");
        let ty = self.arithmetic_type(operation, symbol, &left, &right, &span);
        let node = Node::Arithmetic(operation, Box::new(left.0), Box::new(right.0));
        Some((Expr { node, span }, ty))
    }

    fn arithmetic_type(
        &mut self,
        operation: Arithmetic,
        symbol: &str,
        left: &Checked,
        right: &Checked,
        span: &Range<usize>,
    ) -> Type {
        let (a, b) = (&left.1, &right.1);
        let sum = matches!(operation, Arithmetic::Add | Arithmetic::Subtract);
        let add = operation == Arithmetic::Add;
        match (&a.kind, &b.kind) {
            (Kind::Any, _) | (_, Kind::Any) => Type::any(),
            _ if a.is_number() && b.is_number() => {
                let whole = matches!((&a.kind, &b.kind), (Kind::Int { .. }, Kind::Int { .. }));
                if operation == Arithmetic::Modulo && !whole {
                    let help = Some("use `int(x)`".to_owned());
                    self.problem(
                        span.clone(),
                        "a remainder needs two whole numbers",
                        "not two whole numbers",
                        help,
                    );
                }
                if sum {
                    self.check_units(a.unit, b.unit, &left.0, &right.0, span);
                }
                let unit = match operation {
                    Arithmetic::Multiply => a.unit.times(b.unit),
                    Arithmetic::Divide => a.unit.per(b.unit),
                    _ => a.unit.either(b.unit),
                };
                Type::number(if whole { Type::INT } else { Kind::Double }, unit)
            }
            (Kind::Text | Kind::Enum(_), Kind::Text | Kind::Enum(_)) if add => Type::plain(Kind::Text),
            (Kind::List(one), Kind::List(other)) if add => {
                let item = self.unify((**one).clone(), (**other).clone(), span.clone(), "the lists");
                Type::list(item)
            }
            (Kind::Timestamp, Kind::Timestamp) if operation == Arithmetic::Subtract => {
                Type::plain(Kind::Duration)
            }
            (Kind::Timestamp, Kind::Duration) if sum => Type::plain(Kind::Timestamp),
            (Kind::Duration, Kind::Timestamp) if add => Type::plain(Kind::Timestamp),
            (Kind::Duration, Kind::Duration) if sum => Type::plain(Kind::Duration),
            _ => {
                let help = conversion(a, b).or_else(|| conversion(b, a));
                let message = format!("`{symbol}` does not work with {a} and {b}");
                self.problem(span.clone(), message, "here", help);
                Type::any()
            }
        }
    }

    fn index(&mut self, container: &IdedExpr, index: &IdedExpr, span: Range<usize>) -> Checked {
        let container = self.expr(container);
        let (container, ty) = self.require_present(container, "an item of it is read");
        let index = self.expr(index);
        let (index, index_type) = self.require_present(index, "is used as a position");
        let item = match (&ty.kind, &index_type.kind) {
            (Kind::Any, _) | (_, Kind::Any) => Type::any(),
            (Kind::List(item), Kind::Int { .. }) | (Kind::Map(item), Kind::Text) => (**item).clone(),
            (Kind::List(_) | Kind::Map(_), _) => {
                let message = format!("{index_type} is not a position in {ty}");
                return self.refuse(index.span, message, "not a position", None);
            }
            _ => {
                let help = Some("read a field by its name: `x.field`".to_owned());
                return self.refuse(
                    container.span,
                    format!("{ty} has no numbered items"),
                    "not a list",
                    help,
                );
            }
        };
        (Expr { node: Node::Index(Box::new(container), Box::new(index)), span }, item)
    }
}

/// Result of a comparison with a bound of the value's range, if it is always the same; `inside` is the ordering of the
/// other values of the range.
fn at_bound(comparison: Comparison, flipped: bool, inside: std::cmp::Ordering) -> Option<bool> {
    let holds =
        |ordering: std::cmp::Ordering| comparison.holds(if flipped { ordering.reverse() } else { ordering });
    (holds(std::cmp::Ordering::Equal) == holds(inside)).then(|| holds(inside))
}

/// True if two values can be equal.
fn comparable(a: &Type, b: &Type) -> bool {
    match (&a.kind, &b.kind) {
        (Kind::Any | Kind::Null, _)
        | (_, Kind::Any | Kind::Null)
        | (Kind::Text | Kind::Enum(_), Kind::Text | Kind::Enum(_)) => true,
        (Kind::List(a), Kind::List(b)) => comparable(a, b),
        (Kind::Record(_) | Kind::Mixed | Kind::Map(_), _) => false,
        _ if a.is_number() && b.is_number() => true,
        (a, b) => a == b,
    }
}

/// Hint for values of different types: the conversion that makes them comparable.
fn conversion(a: &Type, b: &Type) -> Option<String> {
    match (&a.kind, &b.kind) {
        (Kind::Version, Kind::Text) => Some("write the version as `version(\"8.2\")`".to_owned()),
        (Kind::Timestamp, Kind::Text) => {
            Some("write the time as `timestamp(\"2026-11-23T01:00:00Z\")`".to_owned())
        }
        (Kind::Duration, Kind::Text) => Some("write the duration as `duration(\"10m\")`".to_owned()),
        (Kind::Duration, _) if b.is_number() => {
            Some("`.getSeconds()` converts a duration to a number".to_owned())
        }
        (Kind::Timestamp, _) if b.is_number() => {
            Some("add a duration, such as `duration(\"10m\")`".to_owned())
        }
        (Kind::Record(record), _) => {
            Some(format!("compare its fields: {}", record.names().take(6).collect::<Vec<_>>().join(", ")))
        }
        (Kind::Text, _) if b.is_number() => {
            Some("write a number without quotes; `string(x)` converts a value to a text".to_owned())
        }
        (Kind::Mixed, _) => Some("its two results have different types".to_owned()),
        _ => None,
    }
}

/// Name of a unit in the declaration of a parameter.
fn unit_word(unit: Unit) -> &'static str {
    match unit {
        Unit::BYTES => "bytes",
        Unit::SECONDS => "seconds",
        Unit::BYTES_PER_SECOND => "bytes_per_second",
        Unit::Ratio => "ratio",
        _ => "none",
    }
}
