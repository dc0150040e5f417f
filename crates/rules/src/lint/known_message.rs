//! Lint of messages of which nothing may be left: an unknown value takes its clause with it, so a message needs a clause whose
//! values are all known whenever the rule is violated.

use std::collections::BTreeSet;

use vmgate_documents::types::{Kind, Record};

use crate::{
    expr::{self, Base, Expr, Node, Quantifier},
    program::Program,
    root::ROOT,
    value::Value,
};

/// Keys of facts.
type Keys = BTreeSet<String>;

/// Limit on the ways in which a rule can be violated; one with more is not looked at.
const MOST_WAYS: usize = 256;

/// Facts that are known of every VM that is judged.
const ALWAYS_KNOWN: [&str; 2] = ["vm.name", "vm.uuid"];

/// An expression of the message whose value may be unknown where no clause is left; none if there is always one left.
pub(super) fn find(program: &Program) -> Option<&Expr> {
    let clauses: Vec<Vec<(&Expr, Keys)>> = program
        .message
        .clauses()
        .into_iter()
        .map(|clause| clause.into_iter().map(|expr| (expr, keys(expr, program))).collect())
        .collect();
    let mut before: Keys = ALWAYS_KNOWN.map(str::to_owned).into();
    before.extend(program.foreach.iter().flat_map(|each| keys(&each.list, program)));
    let mut ways = ways(&program.assert, false, program)?;
    if let Some(when) = &program.when {
        ways = product(&ways, &self::ways(when, true, program)?)?;
    }
    ways.iter().find_map(|way| {
        let known = |key: &String| is_known(key, way.iter().chain(&before));
        let unknown =
            |clause: &Vec<(&Expr, Keys)>| clause.iter().position(|(_, keys)| !keys.iter().all(known));
        let first = clauses.first().and_then(|clause| clause.get(unknown(clause)?))?.0;
        clauses.iter().all(|clause| unknown(clause).is_some()).then_some(first)
    })
}

/// Ways in which `expr` can be `truth`, each as the facts that are known then. None if there are too many.
fn ways(expr: &Expr, truth: bool, program: &Program) -> Option<Vec<Keys>> {
    let of = |expr: &Expr, truth| ways(expr, truth, program);
    match &expr.node {
        Node::Not(inner) => of(inner, !truth),
        Node::And(a, b) if truth => product(&of(a, true)?, &of(b, true)?),
        Node::Or(a, b) if !truth => product(&of(a, false)?, &of(b, false)?),
        Node::And(a, b) | Node::Or(a, b) => Some([of(a, truth)?, of(b, truth)?].concat()),
        Node::Conditional(test, then, other) => {
            let then = product(&of(test, true)?, &of(then, truth)?)?;
            let other = product(&of(test, false)?, &of(other, truth)?)?;
            Some([then, other].concat())
        }
        Node::Let(index) => of(&program.lets.get(*index)?.expr, truth),
        // An item decides; of an empty list nothing is asked, and no rule is written for that.
        Node::Quantify { quantifier: Quantifier::Exists | Quantifier::All, list, body, .. } => {
            product(&[keys(list, program)], &of(body, truth)?)
        }
        Node::Literal(Value::Bool(value)) if *value != truth => Some(Vec::new()),
        _ => Some(vec![keys(expr, program)]),
    }
}

/// Every way of one with every way of the other.
fn product(one: &[Keys], other: &[Keys]) -> Option<Vec<Keys>> {
    let pairs = one.iter().flat_map(|a| other.iter().map(|b| a.union(b).cloned().collect()));
    (one.len() * other.len() <= MOST_WAYS).then(|| pairs.collect())
}

/// Keys of the facts that an expression reads, directly or through `let`.
fn keys(expr: &Expr, program: &Program) -> Keys {
    let mut found = Keys::new();
    expr.walk(&mut |expr| match &expr.node {
        Node::Let(index) => {
            if let Some(binding) = program.lets.get(*index) {
                found.extend(keys(&binding.expr, program));
            }
        }
        Node::Access { base: Base::Root, .. } => found.extend(expr::key(expr)),
        _ => {}
    });
    found
}

/// True if a fact is known where these are. A part of a group is known with another part of it, unless it can be unknown by
/// itself. An item of a list is known with the list.
fn is_known<'k>(key: &str, mut known: impl Iterator<Item = &'k String>) -> bool {
    let Some(least) = least_unknowable(key, &ROOT, 0) else { return true };
    known.any(|one| one.strip_prefix(least).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// Longest beginning of a fact's path that can be unknown by itself.
fn least_unknowable<'k>(key: &'k str, record: &Record, from: usize) -> Option<&'k str> {
    let rest = key.get(from..)?;
    let name = rest.split(['.', '[']).next()?;
    let (_, field) = record.field(name)?;
    let end = from + name.len();
    let deeper = match &field.ty.kind {
        Kind::Record(inner) => least_unknowable(key, inner, end + 1),
        _ => None,
    };
    deeper.or_else(|| field.ty.unknowable.then(|| key.get(..end)).flatten())
}
