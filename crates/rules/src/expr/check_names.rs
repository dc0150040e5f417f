//! Type check of names and fields, and of the guards that optional values need.

use std::{ops::Range, sync::Arc};

use cel::common::ast::LiteralValue;
use vmgate_documents::{
    closest,
    types::{Kind, Type, field_type},
};
use vmgate_facts::Unit;

use super::{
    check::{Checked, Checker},
    narrow::{implied, key},
    tree::{Base, Expr, Node},
};
use crate::{root::ROOT, value::Value};

impl Checker<'_> {
    pub(super) fn literal(&mut self, literal: &LiteralValue, span: Range<usize>) -> Checked {
        let (value, kind) = match literal {
            LiteralValue::Boolean(value) => (Value::Bool(*value.inner()), Kind::Bool),
            LiteralValue::Double(value) => (Value::Double(*value.inner()), Kind::Double),
            LiteralValue::Int(value) => (Value::Int(*value.inner()), Type::INT),
            LiteralValue::Null => (Value::Null, Kind::Null),
            LiteralValue::String(value) => (Value::Text(value.inner().into()), Kind::Text),
            LiteralValue::UInt(_) | LiteralValue::Bytes(_) => {
                let help = Some("write the number without `u`; facts have no byte strings".to_owned());
                return self.refuse(
                    span,
                    "facts have no values of this type",
                    "no fact can be compared with this",
                    help,
                );
            }
        };
        let optional = kind == Kind::Null;
        let ty = Type { optional, ..Type::number(kind, Unit::Any) };
        (Expr { node: Node::Literal(value), span }, ty)
    }

    pub(super) fn identifier(&mut self, name: &str, span: Range<usize>) -> Checked {
        let variable = self
            .locals
            .iter()
            .rev()
            .chain(self.scope.variables.iter().rev())
            .find(|(named, _)| named.name == name);
        if let Some((named, slot)) = variable {
            let node = Node::Access { base: Base::Variable(*slot), steps: Vec::new(), suffix: "".into() };
            let ty = named.ty.clone();
            self.scope.used.borrow_mut().insert(name.to_owned());
            return self.narrowed(Expr { node, span }, ty);
        }
        if let Some(index) = self.scope.lets.iter().position(|(named, _)| named.name == name) {
            self.scope.used.borrow_mut().insert(name.to_owned());
            let ty = self.scope.lets.get(index).map_or_else(Type::any, |(named, _)| named.ty.clone());
            return self.narrowed(Expr { node: Node::Let(index), span }, ty);
        }
        if let Some((position, field)) = ROOT.field(name) {
            self.note_unknowable(&field.ty);
            let node = Node::Access { base: Base::Root, steps: vec![position], suffix: name.into() };
            return self.narrowed(Expr { node, span }, field.ty.clone());
        }
        if let Some((_, reason)) = self.scope.hidden.iter().find(|(hidden, _)| hidden == name) {
            self.scope.used.borrow_mut().insert(name.to_owned());
            return self.refuse(span, format!("`{name}` cannot be used here"), *reason, None);
        }
        if name == "params" {
            let help = Some("name one of the parameters: `params.name`".to_owned());
            return self.refuse(span, "`params` is not a value", "the group of the rule's parameters", help);
        }
        let below = ROOT
            .fields
            .iter()
            .find(|field| matches!(&field.ty.kind, Kind::Record(record) if record.field(name).is_some()));
        let names: Vec<&str> = self
            .locals
            .iter()
            .chain(&self.scope.variables)
            .map(|(named, _)| named.name.as_str())
            .chain(self.scope.lets.iter().map(|(named, _)| named.name.as_str()))
            .chain(ROOT.names())
            .collect();
        let help = match (closest(name, names.iter().copied()), below) {
            (_, Some(group)) => format!("did you mean `{}.{name}`?", group.name),
            (_, None) if self.scope.params.iter().any(|param| param.name == name) => {
                format!("did you mean `params.{name}`?")
            }
            (Some(like), None) => format!("did you mean `{like}`?"),
            (None, None) => {
                format!("the known names are {}; `vmgate rules facts` lists all facts", names.join(", "))
            }
        };
        self.refuse(span, format!("the name `{name}` is not known"), "unknown name", Some(help))
    }

    pub(super) fn parameter(&mut self, name: &str, name_span: Range<usize>, span: Range<usize>) -> Checked {
        if let Some(index) = self.scope.params.iter().position(|param| param.name == name) {
            self.scope.used.borrow_mut().insert(format!("params.{name}"));
            let ty = self.scope.params.get(index).map_or_else(Type::any, |param| param.ty.clone());
            return (Expr { node: Node::Param(index), span }, ty);
        }
        let names: Vec<&str> = self.scope.params.iter().map(|param| param.name.as_str()).collect();
        let help = match closest(name, names.iter().copied()) {
            Some(like) => format!("did you mean `params.{like}`?"),
            None if names.is_empty() => "declare it under `params:`".to_owned(),
            None => format!("the rule declares {}", names.join(", ")),
        };
        self.refuse(name_span, format!("the rule has no parameter `{name}`"), "not declared", Some(help))
    }

    /// Checks a field of a value. `chained` means `.?`: if the value is absent, so is the field.
    pub(super) fn select(
        &mut self,
        (operand, ty): Checked,
        name: &str,
        name_span: Range<usize>,
        span: Range<usize>,
        chained: bool,
    ) -> Checked {
        let record = match &ty.kind {
            Kind::Any => return (Expr { node: Node::Literal(Value::Null), span }, Type::any()),
            Kind::Record(record) => Arc::clone(record),
            kind => {
                let help = match kind {
                    Kind::List(_) => Some(format!(
                        "say which item is meant: `.exists(x, x.{name} …)`, `.all(x, x.{name} …)`, or `foreach`"
                    )),
                    _ => None,
                };
                return self.refuse(
                    name_span,
                    format!("{kind} has no field `{name}`"),
                    "no such field",
                    help,
                );
            }
        };
        let Some((position, field)) = record.field(name) else {
            let help = match closest(name, record.names()) {
                Some(like) => format!("did you mean `{like}`?"),
                None => format!("the fields are: {}", record.names().collect::<Vec<_>>().join(", ")),
            };
            let owner = self.text.get(operand.span.clone()).unwrap_or_default().to_owned();
            return self.refuse(
                name_span,
                format!("`{owner}` has no field `{name}`"),
                "no such field",
                Some(help),
            );
        };
        let in_chain = chained || is_chain(&operand);
        if ty.optional && !in_chain {
            self.report_missing_guard(&operand, "a field of it is read");
        }
        self.note_unknowable(&field.ty);
        let mut found = field_type(&ty, field);
        found.optional |= ty.optional && in_chain;
        let node = match operand.node {
            Node::Access { base, mut steps, suffix } => {
                steps.push(position);
                let suffix = format!("{suffix}.{name}").into();
                Node::Access { base, steps, suffix }
            }
            node => Node::Access {
                base: Base::Expr(Box::new(Expr { node, span: operand.span })),
                steps: vec![position],
                suffix: format!(".{name}").into(),
            },
        };
        let narrowed = self.narrowed(Expr { node, span }, found);
        if chained { (chain(narrowed.0), narrowed.1) } else { narrowed }
    }

    pub(super) fn note_unknowable(&self, ty: &Type) {
        self.scope.reads_unknowable.set(self.scope.reads_unknowable.get() || ty.unknowable);
    }

    /// Removes the optionality of a value that a guard proves to be present.
    pub(super) fn narrowed(&self, expr: Expr, ty: Type) -> Checked {
        if ty.optional && self.is_guarded(&expr) {
            return (expr, Type { optional: false, ..ty });
        }
        (expr, ty)
    }

    /// True if a guard proves that this value is present.
    pub(super) fn is_guarded(&self, expr: &Expr) -> bool {
        key(expr).is_some_and(|key| {
            self.scope.present.contains(&key) || self.present.iter().any(|present| present.contains(&key))
        })
    }

    /// Runs a check with the values that a condition proves to be present.
    pub(super) fn guarded<T>(
        &mut self,
        condition: &Expr,
        truth: bool,
        check: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.present.push(implied(condition, truth, &self.scope.lets));
        let checked = check(self);
        self.present.pop();
        checked
    }

    /// Reports an optional value that is used without a guard.
    pub(super) fn report_missing_guard(&mut self, expr: &Expr, how: &str) {
        let text = self.text.get(expr.span.clone()).unwrap_or("x").to_owned();
        let help =
            format!("guard it: `{text} != null && …`, or give another value: `{text} != null ? {text} : …`");
        let message = format!("`{text}` may be absent, but {how} without a guard");
        self.problem(expr.span.clone(), message, "may be null", Some(help));
    }

    /// Checks that a value cannot be absent.
    pub(super) fn require_present(&mut self, checked: Checked, how: &str) -> Checked {
        if checked.1.optional && !matches!(checked.1.kind, Kind::Any) {
            self.report_missing_guard(&checked.0, how);
        }
        (checked.0, Type { optional: false, ..checked.1 })
    }
}

/// Marks a node as the result of `.?`: if it is absent, the fields below it are absent too.
fn chain(expr: Expr) -> Expr {
    let span = expr.span.clone();
    Expr {
        node: Node::Access { base: Base::Expr(Box::new(expr)), steps: Vec::new(), suffix: "".into() },
        span,
    }
}

/// True if a node comes from `.?`: nothing else puts one access below another.
pub(super) fn is_chain(expr: &Expr) -> bool {
    matches!(&expr.node, Node::Access { base: Base::Expr(base), .. } if matches!(base.node, Node::Access { .. }))
}
