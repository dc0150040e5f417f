//! Mutants of a rule: one operator or number of `when` or `assert` is changed. Each must change the result of a case.

use std::ops::Range;

use crate::{
    expr::{Arithmetic, Comparison, Expr, Node, Quantifier},
    program::Program,
    value::Value,
};

/// A rule with one change.
pub(super) struct Mutant {
    pub(super) program: Program,
    /// Field that was changed.
    pub(super) field: &'static str,
    /// Changed part of the field's text.
    pub(super) span: Range<usize>,
    /// Description of the change, such as "`<` is changed to `<=`".
    pub(super) change: String,
}

/// Returns every mutant of a program.
pub(super) fn mutants(program: &Program) -> Vec<Mutant> {
    let mut all = Vec::new();
    if let Some(when) = &program.when {
        for (expr, span, change) in of_expr(when) {
            all.push(Mutant {
                program: Program { when: Some(expr), ..program.clone() },
                field: "when",
                span,
                change,
            });
        }
    }
    for (expr, span, change) in of_expr(&program.assert) {
        all.push(Mutant {
            program: Program { assert: expr, ..program.clone() },
            field: "assert",
            span,
            change,
        });
    }
    all
}

/// Returns copies of an expression, each with one node changed.
fn of_expr(expr: &Expr) -> Vec<(Expr, Range<usize>, String)> {
    let mut count = 0;
    expr.walk(&mut |_| count += 1);
    let mut all = Vec::new();
    for position in 0..count {
        let mut variant = 0;
        loop {
            let mut copy = expr.clone();
            let mut at = position;
            match nth(&mut copy, &mut at).and_then(|node| Some((change(node, variant)?, node.span.clone()))) {
                Some((change, span)) => all.push((copy, span, change)),
                None => break,
            }
            variant += 1;
        }
    }
    all
}

/// Finds the node at a position, in reading order from the root.
fn nth<'e>(expr: &'e mut Expr, position: &mut usize) -> Option<&'e mut Expr> {
    if *position == 0 {
        return Some(expr);
    }
    *position -= 1;
    expr.children_mut().into_iter().find_map(|child| nth(child, position))
}

/// Applies the change with that number to a node and returns its description; none if there is no such change.
fn change(expr: &mut Expr, variant: usize) -> Option<String> {
    let became = |from: &str, to: &str| Some(format!("`{from}` is changed to `{to}`"));
    match &mut expr.node {
        Node::Compare(comparison, ..) => {
            let from = *comparison;
            *comparison = *comparisons(from).get(variant)?;
            became(from.symbol(), comparison.symbol())
        }
        Node::And(a, b) if variant == 0 => {
            expr.node = Node::Or(a.clone(), b.clone());
            became("&&", "||")
        }
        Node::Or(a, b) if variant == 0 => {
            expr.node = Node::And(a.clone(), b.clone());
            became("||", "&&")
        }
        Node::Not(inner) if variant == 0 => {
            expr.node = inner.node.clone();
            Some("the `!` is left out".to_owned())
        }
        Node::Quantify { quantifier, .. } if variant == 0 => {
            let (from, to) = (*quantifier, swapped(*quantifier)?);
            *quantifier = to;
            became(name(from), name(to))
        }
        Node::Arithmetic(operation, ..) if variant == 0 => {
            let (from, to) = (*operation, opposite(*operation));
            *operation = to;
            became(symbol(from), symbol(to))
        }
        Node::In(..) if variant == 0 => {
            let inner = Expr { node: expr.node.clone(), span: expr.span.clone() };
            expr.node = Node::Not(Box::new(inner));
            Some("`in` is negated".to_owned())
        }
        Node::Literal(Value::Int(value)) => {
            let from = *value;
            *value = match variant {
                0 => from.checked_add(1)?,
                1 => from.checked_sub(1)?,
                _ => return None,
            };
            let to = *value;
            became(&from.to_string(), &to.to_string())
        }
        Node::Literal(Value::Double(value)) => {
            let from = *value;
            *value = match variant {
                0 if from == 0.0 => 1.0,
                0 => from * 2.0,
                1 if from == 0.0 => -1.0,
                1 => from / 2.0,
                _ => return None,
            };
            let to = *value;
            became(&from.to_string(), &to.to_string())
        }
        _ => None,
    }
}

/// Changes of a comparison: the limit is moved, or the direction is reversed.
fn comparisons(from: Comparison) -> &'static [Comparison] {
    match from {
        Comparison::Equal => &[Comparison::NotEqual],
        Comparison::NotEqual => &[Comparison::Equal],
        Comparison::Less => &[Comparison::LessOrEqual, Comparison::Greater],
        Comparison::LessOrEqual => &[Comparison::Less, Comparison::GreaterOrEqual],
        Comparison::Greater => &[Comparison::GreaterOrEqual, Comparison::Less],
        Comparison::GreaterOrEqual => &[Comparison::Greater, Comparison::LessOrEqual],
    }
}

fn swapped(from: Quantifier) -> Option<Quantifier> {
    match from {
        Quantifier::All | Quantifier::ExistsOne => Some(Quantifier::Exists),
        Quantifier::Exists => Some(Quantifier::All),
        Quantifier::Filter | Quantifier::Map => None,
    }
}

fn name(quantifier: Quantifier) -> &'static str {
    match quantifier {
        Quantifier::All => "all",
        Quantifier::Exists => "exists",
        Quantifier::ExistsOne => "exists_one",
        Quantifier::Filter => "filter",
        Quantifier::Map => "map",
    }
}

fn opposite(operation: Arithmetic) -> Arithmetic {
    match operation {
        Arithmetic::Add => Arithmetic::Subtract,
        Arithmetic::Subtract => Arithmetic::Add,
        Arithmetic::Multiply => Arithmetic::Divide,
        Arithmetic::Divide | Arithmetic::Modulo => Arithmetic::Multiply,
    }
}

fn symbol(operation: Arithmetic) -> &'static str {
    match operation {
        Arithmetic::Add => "+",
        Arithmetic::Subtract => "-",
        Arithmetic::Multiply => "*",
        Arithmetic::Divide => "/",
        Arithmetic::Modulo => "%",
    }
}
