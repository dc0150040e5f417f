//! Program of one rule: its checked expressions.

use std::sync::Arc;

use super::{
    expr::{self, Expr, Node, Template},
    value::Value,
};

/// All expressions of one rule, checked.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) lets: Vec<Let>,
    pub(crate) when: Option<Expr>,
    /// Message of the outcome if `when` is false.
    pub(crate) not_applicable_message: Arc<str>,
    pub(crate) foreach: Vec<ForeachList>,
    pub(crate) assert: Expr,
    pub(crate) subject: Option<Template>,
    pub(crate) message: Template,
    pub(crate) remediation: Template,
    /// True if any fact that the rule reads can be unknown.
    pub(crate) can_be_unknown: bool,
    /// Number of variables in all expressions together.
    pub(crate) slots: usize,
}

/// A named expression.
#[derive(Debug, Clone)]
pub(crate) struct Let {
    pub(crate) name: String,
    pub(crate) expr: Expr,
}

/// A variable of `foreach` with its list.
#[derive(Debug, Clone)]
pub(crate) struct ForeachList {
    pub(crate) slot: usize,
    pub(crate) list: Expr,
    /// The list as the rule writes it, on one line.
    pub(crate) text: String,
    /// Message of the outcome if the list is empty.
    pub(crate) empty_message: Arc<str>,
}

/// Limit on nested loops over lists, `foreach` included.
const MOST_NESTED_LOOPS: usize = 3;

impl Program {
    /// Placeholder for an expression with problems.
    pub(crate) fn placeholder() -> Expr {
        Expr { node: Node::Literal(Value::Bool(false)), span: 0..0 }
    }

    /// Checks that the rule can be evaluated in bounded time. The error is the field that cannot, and the message.
    pub(crate) fn check_cost(&self) -> Result<(), (&'static str, String)> {
        let mut costs = Vec::with_capacity(self.lets.len());
        let mut depths = Vec::with_capacity(self.lets.len());
        for binding in &self.lets {
            costs.push(expr::cost(&binding.expr, &costs));
            depths.push(loop_depth(&binding.expr, &depths));
        }
        let check = |what: &'static str, expr: &Expr, around: usize| {
            let depth = loop_depth(expr, &depths) + around;
            if depth > MOST_NESTED_LOOPS {
                let message =
                    format!("{depth} loops over lists are nested; at most {MOST_NESTED_LOOPS} are allowed");
                return Err((what, message));
            }
            let steps = expr::cost(expr, &costs);
            if steps > expr::MOST_STEPS {
                let message =
                    format!("this may take {steps} steps; at most {} are allowed", expr::MOST_STEPS);
                return Err((what, message));
            }
            Ok(())
        };
        self.when.iter().try_for_each(|when| check("when", when, 0))?;
        for (depth, each) in self.foreach.iter().enumerate() {
            check("foreach", &each.list, depth)?;
        }
        check("assert", &self.assert, self.foreach.len())
    }
}

/// Depth of nested loops over lists in an expression. List literals do not count.
fn loop_depth(expr: &Expr, lets: &[usize]) -> usize {
    match &expr.node {
        Node::Let(index) => lets.get(*index).copied().unwrap_or(0),
        Node::Quantify { list, filter, body, .. } => {
            let inside =
                filter.as_deref().map_or(0, |filter| loop_depth(filter, lets)).max(loop_depth(body, lets));
            let step = usize::from(!matches!(list.node, Node::List(_)));
            loop_depth(list, lets).max(inside + step)
        }
        _ => expr.children().into_iter().map(|child| loop_depth(child, lets)).max().unwrap_or(0),
    }
}
