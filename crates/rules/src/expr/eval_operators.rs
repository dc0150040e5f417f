//! Evaluation of comparisons, `in`, functions and arithmetic.

use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};

use super::{
    eval::{Evaluator, Read, Val},
    tree::{Arithmetic, Comparison, Expr, Function},
};
use crate::value::Value;

impl<'a> Evaluator<'a> {
    pub(super) fn membership(&mut self, value: &'a Expr, list: &'a Expr) -> Val<'a> {
        let value = self.scalar(value);
        let list = self.eval(list);
        let items: Vec<Val<'a>> = match &list {
            Val::Node(node @ Value::List(items), path) => {
                if !self.note(node, *path) {
                    return Val::Unknown;
                }
                items.iter().filter_map(|item| item.scalar_or_list(*path)).collect()
            }
            Val::Node(node @ Value::Map(entries), path) => {
                self.reads.push(Read::Fact(node, *path));
                return match value {
                    Val::Text(key) => Val::Bool(entries.contains_key(&*key)),
                    other => self.wrong_type(other, "a text"),
                };
            }
            Val::List(items) => items.iter().map(|item| self.read_item(item.clone())).collect(),
            _ => return self.wrong_type(list, "a list"),
        };
        if !self.count_steps(items.len() as u64) {
            return self.too_many_steps();
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

    pub(super) fn compare(&mut self, comparison: Comparison, left: Val<'a>, right: Val<'a>) -> Val<'a> {
        let (left, right) = (self.read_list(left), self.read_list(right));
        if matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
            return match equal(&left, &right) {
                Some(same) => Val::Bool(same == (comparison == Comparison::Equal)),
                None => Val::Unknown,
            };
        }
        match (order(&left, &right), left, right) {
            (Order::Is(ordering), ..) => Val::Bool(comparison.holds(ordering)),
            (Order::None, ..) => Val::Bool(false),
            (Order::Incomparable, Val::Unknown, _) | (Order::Incomparable, _, Val::Unknown) => Val::Unknown,
            (Order::Incomparable, Val::Null, _) | (Order::Incomparable, _, Val::Null) => {
                self.fault("an absent value is compared")
            }
            (Order::Incomparable, ..) => self.fault("values of different types are compared"),
        }
    }

    /// Reads a list of the facts as a whole, for a comparison.
    pub(super) fn read_list(&mut self, value: Val<'a>) -> Val<'a> {
        match value {
            Val::Node(node @ Value::List(_), path) => self.read(node, path),
            other => other,
        }
    }

    pub(super) fn call(&mut self, function: Function, args: &'a [Expr]) -> Val<'a> {
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
                    _ => return self.wrong_type(first, "a list"),
                };
                if self.note(node, *path) {
                    Val::Int(i64::try_from(len).unwrap_or(i64::MAX))
                } else {
                    Val::Unknown
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
            (Function::Text, value, _) => match super::print::show(value, vmgate_facts::Unit::Count, true) {
                Some(text) => Val::Text(text.into()),
                None => Val::Unknown,
            },
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
                _ => self.fault("values of different types are compared"),
            },
            (Function::DurationIn(unit), Val::Duration(span), _) => {
                Val::Int(i64::try_from(span.as_millis() / i128::from(unit)).unwrap_or(i64::MAX))
            }
            _ => self.wrong_type(first, "an argument that the function accepts"),
        }
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "if one operand is a fraction, both are converted to fractions"
    )]
    #[allow(clippy::needless_pass_by_value, reason = "both are the results of operands")]
    pub(super) fn arithmetic(&mut self, operation: Arithmetic, left: Val<'a>, right: Val<'a>) -> Val<'a> {
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
            (Val::Text(a), Val::Text(b)) if add => {
                if !self.count_steps((a.len() + b.len()) as u64 / 16) {
                    return self.too_many_steps();
                }
                Val::Text(format!("{a}{b}").into())
            }
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
                    (Some(items), Some(more)) if !self.count_steps((items.len() + more.len()) as u64) => {
                        self.too_many_steps()
                    }
                    (Some(mut items), Some(more)) => {
                        items.extend(more);
                        Val::List(Rc::new(items))
                    }
                    _ => self.fault("a list and another value cannot be added"),
                }
            }
            _ => self.fault("arithmetic on values of the wrong types"),
        }
    }
}

/// Result of comparing two values.
enum Order {
    Is(std::cmp::Ordering),
    /// Numbers without an order: one is NaN.
    None,
    /// Values of different types.
    Incomparable,
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
        _ => return Order::Incomparable,
    };
    ordering.map_or(Order::None, Order::Is)
}

/// True if two values are equal; none if that is unknown. Values of different types are not equal.
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
            Order::None | Order::Incomparable => Some(false),
        },
    }
}
