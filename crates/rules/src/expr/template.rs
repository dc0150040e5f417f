//! Texts with values in them: `"{c.remote} gives up after {c.budget_seconds} s"`. `{{` and `}}` are braces. Values between
//! backticks are quoted for a shell.

use vmgate_documents::types::Kind;
use vmgate_facts::Unit;

use super::{
    ExprProblem,
    check::{Checker, Scope},
    clause::{self, Number, Part},
    code_span::{Place, Reader},
    eval::Evaluator,
    print,
    tree::Expr,
    unquoted,
};

/// A text with expressions in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Template {
    pub(crate) pieces: Vec<Piece>,
}

/// A part of a template.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Text(String),
    Value { expr: Expr, unit: Unit, bare: bool, place: Place },
}

/// Finds the expressions in a text and checks them.
pub(crate) fn check(text: &str, scope: &mut Scope) -> Result<Template, Vec<ExprProblem>> {
    let mut pieces = Vec::new();
    let mut problems = Vec::new();
    let mut plain = String::new();
    let mut reader = Reader::new(text);
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let offset = text.len() - rest.len() + at;
        let (head, tail) = rest.split_at(at);
        plain.push_str(head);
        reader.text(head);
        if tail.starts_with("{{") || tail.starts_with("}}") {
            plain.push_str(tail.get(..1).unwrap_or_default());
            reader.text(tail.get(..1).unwrap_or_default());
            rest = tail.get(2..).unwrap_or_default();
            continue;
        }
        let Some(len) = tail.starts_with('{').then(|| expression_len(tail)).flatten() else {
            problems.push(ExprProblem {
                span: offset..offset + 1,
                message: "this brace has no matching brace".to_owned(),
                label: "this brace".to_owned(),
                help: Some(
                    "write an expression as `{…}`; write a brace that is text twice: `{{` or `}}`".to_owned(),
                ),
            });
            rest = tail.get(1..).unwrap_or_default();
            continue;
        };
        let inner = tail.get(1..len - 1).unwrap_or_default();
        rest = tail.get(len..).unwrap_or_default();
        match Checker::check(inner, scope) {
            Ok((expr, ty)) if matches!(ty.kind, Kind::Record(_) | Kind::Map(_)) => {
                problems.push(ExprProblem {
                    span: shift(&expr.span, offset + 1),
                    message: format!("{ty} cannot be printed"),
                    label: "a group of fields".to_owned(),
                    help: Some("name one of its fields".to_owned()),
                });
            }
            Ok((expr, ty)) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                let place = reader.value(&expr, rest);
                pieces.push(Piece::Value { expr, unit: ty.unit, bare: print::names_unit(rest), place });
            }
            Err(found) => problems.extend(
                found
                    .into_iter()
                    .map(|problem| ExprProblem { span: shift(&problem.span, offset + 1), ..problem }),
            ),
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    if problems.is_empty() { Ok(Template { pieces }) } else { Err(problems) }
}

fn shift(span: &std::ops::Range<usize>, by: usize) -> std::ops::Range<usize> {
    span.start + by..span.end + by
}

/// Length of `{…}` with its braces, in bytes; braces in quoted texts do not count.
fn expression_len(text: &str) -> Option<usize> {
    unquoted::bytes_outside_quotes(text).find(|(_, byte)| *byte == b'}').map(|(at, _)| at + 1)
}

impl Template {
    /// Expressions in the template.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Expr> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Value { expr, .. } => Some(expr),
        })
    }

    /// Text with its values. In the place of an unknown value stands a word for the reader to fill in, such as NAME.
    pub(crate) fn render<'a>(&'a self, evaluator: &mut Evaluator<'a>) -> String {
        clause::written(self.parts(evaluator))
    }

    /// Text with its values, without the clauses that have an unknown one; none if nothing is left.
    pub(crate) fn render_known<'a>(&'a self, evaluator: &mut Evaluator<'a>) -> Option<String> {
        let clauses = clause::clauses(self.parts(evaluator));
        let known =
            clauses.into_iter().filter(|parts| !parts.iter().any(|part| matches!(part, Part::Unknown(_))));
        let parts = known.reduce(|mut all, clause| {
            all.push(Part::Text("; ".to_owned()));
            all.extend(clause);
            all
        });
        let text = clause::written(parts?).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// Expressions that must be known for a clause to be shown, for each clause.
    pub(crate) fn clauses(&self) -> Vec<Vec<&Expr>> {
        let parts = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(Part::Text(text.clone())),
            Piece::Value { expr, .. } => (!clause::is_addition(expr)).then_some(Part::Unknown(expr)),
        });
        let mut found = Vec::new();
        for clause in clause::clauses(parts.collect()) {
            let value = |part| if let Part::Unknown(expr) = part { Some(expr) } else { None };
            found.push(clause.into_iter().filter_map(value).collect());
        }
        found
    }

    fn parts<'a>(&'a self, evaluator: &mut Evaluator<'a>) -> Vec<Part<'a>> {
        let mut parts = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let (expr, unit, bare, place) = match piece {
                Piece::Text(text) => {
                    parts.push(Part::Text(text.clone()));
                    continue;
                }
                Piece::Value { expr, unit, bare, place } => (expr, *unit, *bare, *place),
            };
            let mark = evaluator.mark();
            let value = evaluator.eval(expr);
            evaluator.forget(mark);
            match print::show(&value, unit, bare) {
                Some(text) => {
                    let number = print::as_number(&value).map(|value| Number { value, unit, bare });
                    parts.push(Part::Value { text, place, number });
                }
                None if clause::is_addition(expr) => {}
                None => parts.push(Part::Unknown(expr)),
            }
        }
        parts
    }
}
