//! Expressions: CEL's grammar, checked against the fact types, evaluated in three-valued logic with evidence.
//!
//! The `cel` crate parses the text. The checker converts its syntax tree to the tree in `tree`: fields become
//! positions, names become slots, every node has its place in the text. Only checked trees are evaluated.

mod check;
mod check_comprehensions;
mod check_functions;
mod check_names;
mod check_operators;
mod clause;
mod code_span;
mod cost;
mod duration;
mod eval;
mod eval_comprehensions;
mod eval_operators;
mod lookup;
mod narrow;
mod parse;
mod print;
mod template;
mod tree;
mod unquoted;

use std::ops::Range;

pub(crate) use check::{Checker, Scope, TypedName};
pub(crate) use code_span::Place;
pub(crate) use cost::{MOST_STEPS, cost};
pub(crate) use eval::{Evaluator, Freshness, Read, Val};
pub(crate) use narrow::{implied, implied_for_items, key};
#[cfg(test)]
pub(crate) use parse::with_stack;
pub(crate) use parse::{Parser, with_stacks};
pub(crate) use template::{Piece, Template, check as check_template};
pub(crate) use tree::{Arithmetic, Base, Comparison, Expr, Function, Node, Quantifier};

/// A problem at a place in the text of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExprProblem {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    pub(crate) label: String,
    pub(crate) help: Option<String>,
}

#[cfg(test)]
mod tests;
