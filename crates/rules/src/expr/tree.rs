//! Tree of a checked expression.

use std::{ops::Range, sync::Arc};

use regex::Regex;

use crate::value::Value;

/// A node with its place in the expression's text.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) node: Node,
    pub(crate) span: Range<usize>,
}

/// Operation of a node.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Literal(Value),
    /// The rule's parameter at that position.
    Param(usize),
    /// The rule's `let` at that position.
    Let(usize),
    /// A value below a base, by positions of fields. `suffix` is the same as text, for the path.
    Access {
        base: Base,
        steps: Vec<usize>,
        suffix: Arc<str>,
    },
    Index(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Conditional(Box<Expr>, Box<Expr>, Box<Expr>),
    Compare(Comparison, Box<Expr>, Box<Expr>),
    Arithmetic(Arithmetic, Box<Expr>, Box<Expr>),
    In(Box<Expr>, Box<Expr>),
    /// True if the value is not absent.
    Present(Box<Expr>),
    /// The first value, or the second if the first is absent.
    OrValue(Box<Expr>, Box<Expr>),
    Call(Function, Vec<Expr>),
    Matches(Box<Expr>, Box<Regex>),
    List(Vec<Expr>),
    Quantify {
        quantifier: Quantifier,
        list: Box<Expr>,
        slot: usize,
        filter: Option<Box<Expr>>,
        body: Box<Expr>,
    },
}

/// Start of an access.
#[derive(Debug, Clone)]
pub(crate) enum Base {
    /// The facts.
    Root,
    /// The variable in that slot.
    Variable(usize),
    /// Another expression.
    Expr(Box<Expr>),
}

/// Comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Operations on numbers, times and texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// Comprehensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantifier {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

/// Functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Size,
    StartsWith,
    EndsWith,
    Contains,
    Text,
    Int,
    Double,
    Min,
    Max,
    /// Whole units in a duration, by the unit's length in milliseconds.
    DurationIn(i64),
}

/// Nodes directly below one, shared or for changes.
macro_rules! children {
    ($node:expr, $iter:ident) => {
        match $node {
            Node::Access { base: Base::Expr(base), .. } => vec![base],
            Node::Access { .. } | Node::Literal(_) | Node::Param(_) | Node::Let(_) => Vec::new(),
            Node::Not(a) | Node::Negate(a) | Node::Present(a) | Node::Matches(a, _) => vec![a],
            Node::Index(a, b)
            | Node::And(a, b)
            | Node::Or(a, b)
            | Node::Compare(_, a, b)
            | Node::Arithmetic(_, a, b)
            | Node::In(a, b)
            | Node::OrValue(a, b) => vec![a, b],
            Node::Conditional(a, b, c) => vec![a, b, c],
            Node::Call(_, args) | Node::List(args) => args.$iter().collect(),
            Node::Quantify { list, filter: Some(filter), body, .. } => vec![list, filter, body],
            Node::Quantify { list, filter: None, body, .. } => vec![list, body],
        }
    };
}

impl Expr {
    /// Nodes directly below this one.
    pub(crate) fn children(&self) -> Vec<&Expr> {
        children!(&self.node, iter)
    }

    /// Nodes directly below this one, for changes.
    pub(crate) fn children_mut(&mut self) -> Vec<&mut Expr> {
        children!(&mut self.node, iter_mut)
    }

    /// True if the value depends on no fact, parameter or variable.
    pub(crate) fn is_constant(&self) -> bool {
        match &self.node {
            Node::Param(_) | Node::Let(_) | Node::Access { base: Base::Root | Base::Variable(_), .. } => {
                false
            }
            _ => self.children().into_iter().all(Self::is_constant),
        }
    }

    /// Calls `visit` for this node and every node below it.
    pub(crate) fn walk(&self, visit: &mut dyn FnMut(&Expr)) {
        visit(self);
        for child in self.children() {
            child.walk(visit);
        }
    }
}
