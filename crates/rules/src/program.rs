//! The checked expressions of one rule.

use std::sync::Arc;

use super::{
    expr::{self, Expr, Node, Template},
    value::Value,
};

/// What a rule evaluates.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) lets: Vec<Let>,
    pub(crate) when: Option<Expr>,
    /// What the rule says where `when` is false.
    pub(crate) elsewhere: Arc<str>,
    pub(crate) each: Vec<Each>,
    pub(crate) assert: Expr,
    pub(crate) subject: Option<Template>,
    pub(crate) message: Template,
    pub(crate) remediation: Template,
    /// Whether any fact that it reads can be unknown.
    pub(crate) can_be_unknown: bool,
    /// Variables of all expressions together.
    pub(crate) slots: usize,
}

/// A named expression.
#[derive(Debug, Clone)]
pub(crate) struct Let {
    pub(crate) expr: Expr,
}

/// A variable of `foreach` and its list.
#[derive(Debug, Clone)]
pub(crate) struct Each {
    pub(crate) slot: usize,
    pub(crate) list: Expr,
    /// The list as the rule writes it, on one line.
    pub(crate) text: String,
    /// What the rule says where the list is empty.
    pub(crate) empty: Arc<str>,
}

/// Deepest nesting of walks over lists, `foreach` included.
const DEEPEST_WALKS: usize = 3;

impl Program {
    /// What stands where an expression has problems.
    pub(crate) fn never() -> Expr {
        Expr { node: Node::Literal(Value::Bool(false)), span: 0..0 }
    }

    /// Whether the rule can be evaluated in bounded time; otherwise the field that cannot, and why.
    pub(crate) fn affordable(&self) -> Result<(), (&'static str, String)> {
        let mut costs = Vec::with_capacity(self.lets.len());
        let mut depths = Vec::with_capacity(self.lets.len());
        for binding in &self.lets {
            costs.push(expr::cost(&binding.expr, &costs));
            depths.push(walks(&binding.expr, &depths));
        }
        let check = |what: &'static str, expr: &Expr, around: usize| {
            let depth = walks(expr, &depths) + around;
            if depth > DEEPEST_WALKS {
                let message = format!(
                    "{depth} walks over lists inside each other; at most {DEEPEST_WALKS} are accepted"
                );
                return Err((what, message));
            }
            let steps = expr::cost(expr, &costs);
            if steps > expr::MOST_COST {
                let message =
                    format!("this may take {steps} steps; at most {} are accepted", expr::MOST_COST);
                return Err((what, message));
            }
            Ok(())
        };
        self.when.iter().try_for_each(|when| check("when", when, 0))?;
        for (depth, each) in self.each.iter().enumerate() {
            check("foreach", &each.list, depth)?;
        }
        check("assert", &self.assert, self.each.len())
    }
}

/// How deep walks over lists are nested in an expression. Small lists that are written out do not count.
fn walks(expr: &Expr, lets: &[usize]) -> usize {
    match &expr.node {
        Node::Let(index) => lets.get(*index).copied().unwrap_or(0),
        Node::Quantify { list, filter, body, .. } => {
            let inside = filter.as_deref().map_or(0, |filter| walks(filter, lets)).max(walks(body, lets));
            let step = usize::from(!matches!(list.node, Node::List(_)));
            walks(list, lets).max(inside + step)
        }
        _ => expr.children().into_iter().map(|child| walks(child, lets)).max().unwrap_or(0),
    }
}
