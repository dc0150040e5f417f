//! Expressions: CEL's grammar, checked against the fact types, evaluated in three-valued logic with evidence.
//!
//! The text is parsed by the `cel` crate, whose syntax tree the checker turns into the tree in `tree`: fields are
//! positions, names are slots, every node knows its place in the text. Only checked trees are evaluated.

mod eval_operators;
mod check;
mod eval_comprehensions;
mod check_comprehensions;
mod cost;
mod duration;
mod eval;
mod check_functions;
mod check_names;
mod narrow;
mod check_operators;
mod unquoted;
mod parse;
mod print;
mod template;
mod tree;

pub(crate) use check::{Checker, Named, Scope};
pub(crate) use cost::{MOST as MOST_COST, cost};
pub(crate) use eval::{Evaluator, Freshness, Read, Val};
pub(crate) use narrow::{implied, key, of_items};
pub(crate) use parse::{Parser, with_stack};
pub(crate) use template::{Template, check as check_template};
pub(crate) use tree::{Arithmetic, Comparison, Expr, Node, Quantifier};

use std::ops::Range;

/// A problem at a place of an expression's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExprProblem {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    pub(crate) label: String,
    pub(crate) help: Option<String>,
}

#[cfg(test)]
mod tests;
