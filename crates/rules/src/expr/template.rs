//! Texts with values in them: `"{c.remote} gives up after {c.budget_seconds} s"`. `{{` and `}}` are braces. Values between
//! backticks are quoted for a shell.

use vmgate_documents::types::Kind;
use vmgate_facts::Unit;

use super::{
    ExprProblem,
    check::{Checker, Scope},
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

    /// Text with its values; an unknown value is shown as `(unknown)`. Two numbers that differ never look the same: if
    /// rounding hides the difference, the full numbers follow in brackets.
    pub(crate) fn render<'a>(&'a self, evaluator: &mut Evaluator<'a>) -> String {
        let mut text = String::with_capacity(96);
        // Numbers in the text: start, end, value and unit.
        let mut numbers: Vec<(usize, usize, f64, Unit, bool)> = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Value { expr, unit, bare, place } => {
                    let mark = evaluator.mark();
                    let value = evaluator.eval(expr);
                    evaluator.forget(mark);
                    let start = text.len();
                    text.push_str(&place.show(print::show(&value, *unit, *bare)));
                    if let Some(number) = print::as_number(&value) {
                        numbers.push((start, text.len(), number, *unit, *bare));
                    }
                }
            }
        }
        if numbers.len() < 2 {
            return text;
        }
        let shown = |(start, end, ..): &(usize, usize, f64, Unit, bool)| text.get(*start..*end);
        let hidden: Vec<_> = numbers
            .iter()
            .filter(|one| {
                numbers.iter().any(|other| {
                    one.3 == other.3 && one.2.total_cmp(&other.2).is_ne() && shown(one) == shown(other)
                })
            })
            .map(|(_, end, value, unit, bare)| (*end, format!(" ({})", print::exact(*value, *unit, *bare))))
            .collect();
        for (end, exact) in hidden.into_iter().rev() {
            text.insert_str(end, &exact);
        }
        text
    }
}
