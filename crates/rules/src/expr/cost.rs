//! What an expression can cost, known before it is evaluated: nesting is what makes a rule slow.

use super::tree::{Expr, Node};

/// Length assumed of a list.
const LIST: u64 = 100;
/// Most steps of one evaluation: three nested walks over lists of a hundred items.
pub(crate) const MOST: u64 = 2_000_000;

/// Steps that evaluating `expr` takes at most, lists being as long as assumed. `lets` are the costs of the rule's.
pub(crate) fn cost(expr: &Expr, lets: &[u64]) -> u64 {
    let below = |expr: &Expr| cost(expr, lets);
    match &expr.node {
        Node::Let(index) => lets.get(*index).copied().unwrap_or(1),
        Node::Quantify { list, filter, body, .. } => {
            let each = filter.as_deref().map_or(0, below).saturating_add(below(body)).saturating_add(1);
            below(list).saturating_add(each.saturating_mul(LIST))
        }
        Node::In(value, list) => below(value).saturating_add(below(list)).saturating_add(LIST / 10),
        _ => expr.children().into_iter().map(below).fold(1, u64::saturating_add),
    }
}
