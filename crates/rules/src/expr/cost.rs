//! Upper limit of the cost of an expression, computed before evaluation: nested loops make a rule slow.

use super::tree::{Expr, Node};

/// Assumed length of a list.
const ASSUMED_LIST_LENGTH: u64 = 100;
/// Limit on the steps that a rule may be expected to take: three nested loops over lists of a hundred items.
pub(crate) const MOST_STEPS: u64 = 2_000_000;
/// Limit on the steps that a rule takes on the facts of one move, about half a second: lists of 300 items stay below it where each is
/// compared with each, and lists of thousands where they are looked up (lookup.rs).
pub(crate) const MOST_STEPS_TAKEN: u64 = 10_000_000;

/// Upper limit of the steps to evaluate `expr`, for lists of the assumed length. `lets` has the cost of each `let` of the rule.
pub(crate) fn cost(expr: &Expr, lets: &[u64]) -> u64 {
    let below = |expr: &Expr| cost(expr, lets);
    match &expr.node {
        Node::Let(index) => lets.get(*index).copied().unwrap_or(1),
        Node::Quantify { list, filter, body, .. } => {
            let each = filter.as_deref().map_or(0, below).saturating_add(below(body)).saturating_add(1);
            below(list).saturating_add(each.saturating_mul(ASSUMED_LIST_LENGTH))
        }
        Node::In(value, list) => {
            below(value).saturating_add(below(list)).saturating_add(ASSUMED_LIST_LENGTH / 10)
        }
        _ => expr.children().into_iter().map(below).fold(1, u64::saturating_add),
    }
}
