//! Lint of conditions under which "cannot tell" becomes "does not apply" or "is met".
//!
//! A name that no pattern of a rule matches is one that the rule's author did not think of. In `when` and in a filter of
//! `foreach` it must not switch the rule off, and in `assert` it must not pass the rule. Where the facts list the names, another
//! is unknown by itself ([`vmgate_facts::Names`]).

use std::{collections::HashMap, ops::Range};

use vmgate_documents::types::{Field, Kind, Names, Record, Type};

use crate::{
    expr::{Base, Comparison, Expr, Function, Node, Quantifier},
    program::Program,
    root::ROOT,
    value::Value,
};

/// A condition that a value which nobody knows would decide.
#[derive(Debug)]
pub(super) struct Finding {
    /// Part of the rule that holds the condition.
    pub(super) part: Part,
    /// Place in that part's text.
    pub(super) span: Range<usize>,
    /// Name of the fact, a text that the rule's words do not match.
    pub(super) fact: String,
    /// True if the rule would pass, false if it would not apply.
    pub(super) passes: bool,
}

/// A part of a rule with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    When,
    /// The list of that position.
    Foreach(usize),
    Let(String),
    Assert,
}

/// Findings in a rule's `when`, `foreach` and `assert`.
pub(super) fn find(program: &Program) -> Vec<Finding> {
    let mut search =
        Search { program, items: HashMap::new(), part: Part::When, wrong: false, found: Vec::new() };
    if let Some(when) = &program.when {
        search.condition(when, Signs::PLAIN);
    }
    for (at, each) in program.foreach.iter().enumerate() {
        search.part = Part::Foreach(at);
        search.items_of(&each.list, Signs::PLAIN);
        if let Some(item) = search.type_of(&each.list).and_then(|(ty, _)| ty.item()) {
            search.items.insert(each.slot, item);
        }
    }
    search.part = Part::Assert;
    search.wrong = true;
    search.condition(&program.assert, Signs::PLAIN);
    search.found
}

/// True for a rule about what is asked only where the operator allows it: that nobody asked is no more than a note.
pub(super) fn asks_only_where_allowed(program: &Program) -> bool {
    let (mut allowed, mut other) = (false, false);
    program.assert.walk(&mut |expr| {
        if let Node::Access { base: Base::Root, steps, .. } = &expr.node {
            let field = below(&ROOT, steps).and_then(|(_, field)| field);
            let needs_leave = field.is_some_and(|field| field.absent.is_some());
            allowed |= needs_leave;
            other |= !needs_leave;
        }
    });
    allowed && !other
}

/// Directions in which a condition moves the whole: the same, the opposite, or both where that is not decided.
#[derive(Debug, Clone, Copy)]
struct Signs {
    same: bool,
    opposite: bool,
}

impl Signs {
    const PLAIN: Self = Self { same: true, opposite: false };
    const BOTH: Self = Self { same: true, opposite: true };

    fn turned(self) -> Self {
        Self { same: self.opposite, opposite: self.same }
    }
}

struct Search<'a> {
    program: &'a Program,
    /// Types of the variables in scope.
    items: HashMap<usize, &'a Type>,
    part: Part,
    /// The result to which no value may lead that nobody knows: false in `when`, true in `assert`.
    wrong: bool,
    found: Vec<Finding>,
}

impl<'a> Search<'a> {
    fn condition(&mut self, expr: &'a Expr, signs: Signs) {
        if let Some((fact, result)) = self.of_unknown_name(expr) {
            if (signs.same && result == self.wrong) || (signs.opposite && result != self.wrong) {
                self.add(expr, fact);
            }
            return;
        }
        match &expr.node {
            Node::Not(inner) => self.condition(inner, signs.turned()),
            Node::And(a, b) | Node::Or(a, b) => {
                self.condition(a, signs);
                self.condition(b, signs);
            }
            Node::Conditional(test, then, other) => self.conditional(test, then, other, signs),
            Node::Let(index) => {
                if let Some(binding) = self.program.lets.get(*index) {
                    let outer = std::mem::replace(&mut self.part, Part::Let(binding.name.clone()));
                    self.condition(&binding.expr, signs);
                    self.part = outer;
                }
            }
            Node::Quantify { quantifier, list, slot, filter, body } => {
                let (of_list, of_body) = match quantifier {
                    Quantifier::Exists => (signs, signs),
                    Quantifier::All => (signs.turned(), signs),
                    _ => (Signs::BOTH, Signs::BOTH),
                };
                self.items_of(list, of_list);
                self.bind(list, *slot);
                if let Some(filter) = filter {
                    self.condition(filter, of_list);
                }
                self.condition(body, of_body);
            }
            Node::Compare(comparison, a, b) if let Node::Call(Function::Size, list) = &a.node => {
                let more = match comparison {
                    Comparison::Greater | Comparison::GreaterOrEqual => signs,
                    Comparison::Less | Comparison::LessOrEqual => signs.turned(),
                    Comparison::NotEqual if is_zero(b) => signs,
                    Comparison::Equal if is_zero(b) => signs.turned(),
                    Comparison::Equal | Comparison::NotEqual => Signs::BOTH,
                };
                for list in list {
                    self.items_of(list, more);
                }
                self.condition(b, Signs::BOTH);
            }
            _ => expr.children().into_iter().for_each(|child| self.condition(child, Signs::BOTH)),
        }
    }

    /// `test ? then : other`: a test on a value that nobody knows takes one branch.
    fn conditional(&mut self, test: &'a Expr, then: &'a Expr, other: &'a Expr, signs: Signs) {
        match self.of_unknown_name(test) {
            Some((fact, result)) => {
                let taken = if result { then } else { other };
                if let Node::Literal(Value::Bool(value)) = taken.node
                    && ((signs.same && value == self.wrong) || (signs.opposite && value != self.wrong))
                {
                    self.add(test, fact);
                }
            }
            None => self.condition(test, Signs::BOTH),
        }
        self.condition(then, signs);
        self.condition(other, signs);
    }

    /// A list whose items count: each that a filter keeps moves the whole by `signs`.
    fn items_of(&mut self, expr: &'a Expr, signs: Signs) {
        match &expr.node {
            Node::Quantify { quantifier, list, slot, filter, body } => {
                self.items_of(list, signs);
                self.bind(list, *slot);
                if let Some(filter) = filter {
                    self.condition(filter, signs);
                }
                let of_body = if *quantifier == Quantifier::Filter { signs } else { Signs::BOTH };
                self.condition(body, of_body);
            }
            Node::Let(index) => {
                if let Some(binding) = self.program.lets.get(*index) {
                    let outer = std::mem::replace(&mut self.part, Part::Let(binding.name.clone()));
                    self.items_of(&binding.expr, signs);
                    self.part = outer;
                }
            }
            _ => expr.children().into_iter().for_each(|child| self.items_of(child, signs)),
        }
    }

    fn add(&mut self, expr: &Expr, fact: String) {
        self.found.push(Finding {
            part: self.part.clone(),
            span: expr.span.clone(),
            fact,
            passes: self.wrong,
        });
    }

    /// Result of a test for a value that nobody knows; none for an expression that is no such test.
    fn of_unknown_name(&self, expr: &'a Expr) -> Option<(String, bool)> {
        let name = |expr| self.open_name(expr);
        match &expr.node {
            Node::Compare(comparison @ (Comparison::Equal | Comparison::NotEqual), a, b) => {
                let equal = *comparison == Comparison::Equal;
                let (value, literal) = if is_literal(a) { (b, a) } else { (a, b) };
                match &literal.node {
                    // An empty text is no name.
                    Node::Literal(Value::Text(text)) if !text.is_empty() => Some((name(value)?, !equal)),
                    _ => None,
                }
            }
            Node::In(value, list) if is_literal(list) => Some((name(value)?, false)),
            Node::Matches(value, _) => Some((name(value)?, false)),
            Node::Call(Function::StartsWith | Function::EndsWith | Function::Contains, arguments) => {
                match arguments.as_slice() {
                    [value, part] if is_literal(part) => Some((name(value)?, false)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Name of the fact, if it is a text that may be any.
    fn open_name(&self, expr: &'a Expr) -> Option<String> {
        let (ty, field) = self.type_of(expr)?;
        let field = field?;
        (ty.kind == Kind::Text && field.names == Names::Any).then(|| field.name.clone())
    }

    fn bind(&mut self, list: &'a Expr, slot: usize) {
        if let Some(item) = self.type_of(list).and_then(|(ty, _)| ty.item()) {
            self.items.insert(slot, item);
        }
    }

    /// Type of a fact, and the field that holds it; none for what is computed.
    fn type_of(&self, expr: &'a Expr) -> Option<(&'a Type, Option<&'a Field>)> {
        match &expr.node {
            Node::Access { base: Base::Root, steps, .. } => below(&ROOT, steps),
            Node::Access { base: Base::Variable(slot), steps, .. } => {
                below_type(self.items.get(slot).copied()?, None, steps)
            }
            Node::Access { base: Base::Expr(base), steps, .. } => {
                let (ty, field) = self.type_of(base)?;
                below_type(ty, field, steps)
            }
            Node::Index(list, _) => {
                let (ty, field) = self.type_of(list)?;
                Some((ty.item()?, field))
            }
            Node::Let(index) => self.type_of(&self.program.lets.get(*index)?.expr),
            Node::Quantify { quantifier: Quantifier::Filter, list, .. } => self.type_of(list),
            Node::OrValue(value, _) | Node::Arithmetic(_, value, _) => self.type_of(value),
            _ => None,
        }
    }
}

fn is_zero(expr: &Expr) -> bool {
    matches!(expr.node, Node::Literal(Value::Int(0)))
}

fn below<'a>(record: &'a Record, steps: &[usize]) -> Option<(&'a Type, Option<&'a Field>)> {
    let (first, rest) = steps.split_first()?;
    let field = record.fields.get(*first)?;
    below_type(&field.ty, Some(field), rest)
}

fn below_type<'a>(
    ty: &'a Type,
    field: Option<&'a Field>,
    steps: &[usize],
) -> Option<(&'a Type, Option<&'a Field>)> {
    match (&ty.kind, steps) {
        (_, []) => Some((ty, field)),
        (Kind::Record(record), _) => below(record, steps),
        _ => None,
    }
}

/// True for a text that stands in the rule, or a list of such texts.
fn is_literal(expr: &Expr) -> bool {
    match &expr.node {
        Node::Literal(_) => true,
        Node::List(items) => items.iter().all(is_literal),
        _ => false,
    }
}
