//! Clauses of a message. A clause whose value is not known is left out, so that what is left is a sentence: a bracket alone
//! if the value stands in one, else what stands between two semicolons.

use vmgate_facts::Unit;

use super::{
    code_span::Place,
    narrow, print,
    tree::{Expr, Node},
};
use crate::value::Value;

/// A part of a rendered template.
#[derive(Debug, Clone)]
pub(super) enum Part<'a> {
    Text(String),
    Value {
        text: String,
        place: Place,
        /// The value, if it is a number.
        number: Option<Number>,
    },
    /// A value that is not known.
    Unknown(&'a Expr),
}

/// A number in a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number {
    pub(super) value: f64,
    pub(super) unit: Unit,
    pub(super) bare: bool,
}

/// Clauses of a text, one after the other, without their semicolons and without brackets that have an unknown value.
pub(super) fn clauses(parts: Vec<Part<'_>>) -> Vec<Vec<Part<'_>>> {
    let mut reader = Reader { done: Vec::new(), clause: Vec::new(), open: Vec::new() };
    for part in parts {
        match part {
            Part::Text(text) => reader.text(&text),
            value => reader.clause.push(value),
        }
    }
    reader.done.push(reader.clause);
    reader.done
}

/// Text of the parts. Two numbers that differ never look the same.
pub(super) fn written(mut parts: Vec<Part<'_>>) -> String {
    tell_apart(&mut parts);
    let shown = parts.into_iter().map(|part| match part {
        Part::Text(text) => text,
        Part::Value { text, place, .. } => place.show(text),
        Part::Unknown(expr) => placeholder(expr),
    });
    shown.collect()
}

/// True for a text that is added or not, as `{x ? "; and more" : ""}`: without it the sentence is whole.
pub(super) fn is_addition(expr: &Expr) -> bool {
    let empty = |expr: &Expr| matches!(&expr.node, Node::Literal(Value::Text(text)) if text.is_empty());
    match &expr.node {
        Node::Conditional(_, then, other) => empty(then) || empty(other) || is_addition(other),
        _ => false,
    }
}

/// Word in the place of an unknown value, which the reader fills in: NAME for `vm.name`.
fn placeholder(expr: &Expr) -> String {
    let key = narrow::key(expr).unwrap_or_default();
    let field = key.rsplit(['.', '@', '$']).next().unwrap_or_default();
    let field = field.trim_start_matches(|c: char| c.is_ascii_digit());
    if field.is_empty() { "VALUE".to_owned() } else { field.to_uppercase() }
}

/// Reader of clauses from their beginning.
struct Reader<'a> {
    done: Vec<Vec<Part<'a>>>,
    clause: Vec<Part<'a>>,
    /// Beginnings of the open brackets, as positions in the clause.
    open: Vec<usize>,
}

impl Reader<'_> {
    fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find(['(', ')', ';']) {
            let (head, tail) = rest.split_at(at);
            let mark = tail.get(..1).unwrap_or_default();
            rest = tail.get(1..).unwrap_or_default();
            match mark {
                "(" => {
                    self.push(head);
                    self.open.push(self.clause.len());
                    self.push("(");
                }
                ")" => {
                    self.push(head);
                    self.close();
                }
                _ if self.open.is_empty() && rest.starts_with(char::is_whitespace) => {
                    self.push(head);
                    self.done.push(std::mem::take(&mut self.clause));
                    rest = rest.trim_start();
                }
                _ => {
                    self.push(head);
                    self.push(";");
                }
            }
        }
        self.push(rest);
    }

    fn push(&mut self, text: &str) {
        if !text.is_empty() {
            self.clause.push(Part::Text(text.to_owned()));
        }
    }

    fn close(&mut self) {
        let known = |part: &Part<'_>| !matches!(part, Part::Unknown(_));
        match self.open.pop() {
            Some(start) if !self.clause.iter().skip(start).all(known) => {
                self.clause.truncate(start);
                if let Some(Part::Text(before)) = self.clause.last_mut() {
                    before.truncate(before.trim_end().len());
                }
            }
            _ => self.push(")"),
        }
    }
}

fn tell_apart(parts: &mut [Part<'_>]) {
    let numbers: Vec<(usize, Number, String)> = parts
        .iter()
        .enumerate()
        .filter_map(|(at, part)| match part {
            Part::Value { text, number: Some(number), .. } => Some((at, *number, text.clone())),
            _ => None,
        })
        .collect();
    for (at, number, text) in &numbers {
        let alike: Vec<f64> = numbers
            .iter()
            .filter(|(_, other, same)| other.unit == number.unit && same == text)
            .map(|(_, other, _)| other.value)
            .collect();
        if alike.iter().all(|other| other.total_cmp(&number.value).is_eq()) {
            continue;
        }
        let full = print::apart(&alike, number.unit, number.bare);
        let own = alike.iter().position(|other| other.total_cmp(&number.value).is_eq());
        if let (Some(full), Some(Part::Value { text, .. })) =
            (own.and_then(|own| full.get(own)), parts.get_mut(*at))
        {
            text.clone_from(full);
        }
    }
}
