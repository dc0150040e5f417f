//! Narrowing of optional values: those that a condition proves to be present, as in `x != null && x > 3`.

use std::collections::BTreeSet;

use super::{
    check::TypedName,
    tree::{Base, Comparison, Expr, Node, Quantifier},
};
use crate::value::Value;

/// Key of a value that can be guarded; the same value always has the same key.
pub(crate) fn key(expr: &Expr) -> Option<String> {
    match &expr.node {
        Node::Let(index) => Some(format!("@{index}")),
        Node::Access { base: Base::Root, suffix, .. } => Some(suffix.to_string()),
        Node::Access { base: Base::Variable(slot), suffix, .. } => Some(format!("${slot}{suffix}")),
        Node::Access { base: Base::Expr(base), suffix, .. } => Some(format!("{}{suffix}", key(base)?)),
        _ => None,
    }
}

/// Keys of the values that are present if `expr` is `truth`. `lets` are the rule's, for named conditions.
pub(crate) fn implied(expr: &Expr, truth: bool, lets: &[(TypedName, Expr)]) -> BTreeSet<String> {
    let both = |a: &Expr, b: &Expr| {
        let mut found = implied(a, truth, lets);
        found.extend(implied(b, truth, lets));
        found
    };
    let common = |a: &Expr, b: &Expr| {
        implied(a, truth, lets).intersection(&implied(b, truth, lets)).cloned().collect::<BTreeSet<_>>()
    };
    let one = |expr: &Expr| key(expr).into_iter().collect::<BTreeSet<_>>();
    match &expr.node {
        Node::Not(inner) => implied(inner, !truth, lets),
        Node::And(a, b) if truth => both(a, b),
        Node::And(a, b) => common(a, b),
        Node::Or(a, b) if truth => common(a, b),
        Node::Or(a, b) => both(a, b),
        Node::Present(value) if truth => one(value),
        Node::Compare(comparison, a, b) => match (comparison, is_null(a), is_null(b)) {
            (Comparison::NotEqual, false, true) if truth => one(a),
            (Comparison::NotEqual, true, false) if truth => one(b),
            (Comparison::Equal, false, true) if !truth => one(a),
            (Comparison::Equal, true, false) if !truth => one(b),
            (Comparison::Equal, false, false) if truth => match (&a.node, &b.node) {
                (_, Node::Literal(_)) => one(a),
                (Node::Literal(_), _) => one(b),
                _ => BTreeSet::new(),
            },
            _ => BTreeSet::new(),
        },
        Node::In(value, list) if truth => match &list.node {
            Node::List(items) if items.iter().all(|item| !is_null(item) && item.is_constant()) => one(value),
            _ => BTreeSet::new(),
        },
        Node::Let(index) => lets.get(*index).map(|(_, expr)| implied(expr, truth, lets)).unwrap_or_default(),
        _ => BTreeSet::new(),
    }
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr.node, Node::Literal(Value::Null))
}

/// Keys that are present in every item of a filtered list, for the variable in `slot`.
pub(crate) fn implied_for_items(list: &Expr, slot: usize, lets: &[(TypedName, Expr)]) -> BTreeSet<String> {
    match &list.node {
        Node::Let(index) => {
            lets.get(*index).map(|(_, expr)| implied_for_items(expr, slot, lets)).unwrap_or_default()
        }
        Node::Quantify { quantifier: Quantifier::Filter, list, slot: inner, body, .. } => {
            let of_inner = format!("${inner}");
            let mut found: BTreeSet<String> = implied(body, true, lets)
                .iter()
                .filter_map(|key| key.strip_prefix(&of_inner))
                .filter(|rest| rest.is_empty() || rest.starts_with('.'))
                .map(|rest| format!("${slot}{rest}"))
                .collect();
            found.extend(implied_for_items(list, slot, lets));
            found
        }
        _ => BTreeSet::new(),
    }
}
