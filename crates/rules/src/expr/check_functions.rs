//! Type check of functions.

use std::ops::Range;

use cel::common::ast::{CallExpr, Expr as CelExpr, IdedExpr, LiteralValue};
use regex::RegexBuilder;
use vmgate_documents::{
    closest,
    types::{Kind, Type},
};
use vmgate_facts::{Unit, Version};

use super::{
    check::{Checked, Checker},
    check_names::is_chain,
    duration,
    tree::{Expr, Function, Node},
};
use crate::value::Value;

/// Limit on the compiled form of a regular expression, in bytes.
const LARGEST_PATTERN: usize = 256 * 1024;

/// Names of all functions, for help texts.
const NAMES: [&str; 25] = [
    "size",
    "startsWith",
    "endsWith",
    "contains",
    "matches",
    "string",
    "int",
    "double",
    "min",
    "max",
    "version",
    "timestamp",
    "duration",
    "getSeconds",
    "getMinutes",
    "getHours",
    "getMilliseconds",
    "orValue",
    "has",
    "all",
    "exists",
    "exists_one",
    "filter",
    "map",
    "in",
];

impl Checker<'_> {
    pub(super) fn function(&mut self, expr: &IdedExpr, call: &CallExpr, span: Range<usize>) -> Checked {
        let name_span = self.parsed.name_span(expr);
        let name = call.func_name.as_str();
        // From here on `x.f(a)` and `f(x, a)` are the same.
        let operands: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        match (name, call.target.is_some(), operands.as_slice()) {
            ("size", _, [value]) => self.size(value, span),
            ("startsWith", true, [text, other]) => self.on_texts(Function::StartsWith, text, other, span),
            ("endsWith", true, [text, other]) => self.on_texts(Function::EndsWith, text, other, span),
            ("contains", true, [text, other]) => self.on_texts(Function::Contains, text, other, span),
            ("matches", _, [text, pattern]) => self.matches(text, pattern, span),
            ("string", false, [value]) => self.text_of(value, span),
            ("int", false, [value]) => self.number_of(Function::Int, Type::INT, value, span),
            ("double", false, [value]) => self.number_of(Function::Double, Kind::Double, value, span),
            ("min", false, [a, b]) => self.extreme(Function::Min, a, b, span),
            ("max", false, [a, b]) => self.extreme(Function::Max, a, b, span),
            ("orValue", true, [value, other]) => self.or_value(value, other, span),
            ("version" | "timestamp" | "duration", false, [literal]) => self.constant(name, literal, span),
            ("getMilliseconds", true, [value]) => self.units_in(name, 1, Unit::Count, value, span),
            ("getSeconds", true, [value]) => self.units_in(name, 1_000, Unit::SECONDS, value, span),
            ("getMinutes", true, [value]) => self.units_in(name, 60_000, Unit::Count, value, span),
            ("getHours", true, [value]) => self.units_in(name, 3_600_000, Unit::Count, value, span),
            _ if NAMES.contains(&name) => {
                let form =
                    if call.target.is_some() { format!("x.{name}(…)") } else { format!("{name}(…)") };
                let help = Some(format!("see `{name}` in the list of functions in docs/writing-rules.md"));
                self.refuse(
                    name_span,
                    format!("`{form}` is not a valid call"),
                    "wrong number or place of arguments",
                    help,
                )
            }
            _ => {
                let help = match closest(name, NAMES) {
                    Some(like) => format!("did you mean `{like}`?"),
                    None => format!("the functions are: {}", NAMES.join(", ")),
                };
                self.refuse(name_span, format!("there is no function `{name}`"), "not known", Some(help))
            }
        }
    }

    fn operand(&mut self, expr: &IdedExpr, name: &str) -> Checked {
        let checked = self.expr(expr);
        self.require_present(checked, &format!("is given to `{name}`"))
    }

    fn size(&mut self, value: &IdedExpr, span: Range<usize>) -> Checked {
        let (expr, ty) = self.operand(value, "size");
        if !matches!(ty.kind, Kind::List(_) | Kind::Map(_) | Kind::Text | Kind::Enum(_) | Kind::Any) {
            return self.refuse(expr.span, format!("{ty} has no size"), ty.to_string(), None);
        }
        let kind = Kind::Int { min: Some(0), max: None };
        (Expr { node: Node::Call(Function::Size, vec![expr]), span }, Type::plain(kind))
    }

    fn text(&mut self, expr: &IdedExpr, name: &str) -> Expr {
        let (expr, ty) = self.operand(expr, name);
        if !matches!(ty.kind, Kind::Text | Kind::Enum(_) | Kind::Any) {
            let help = match ty.kind {
                Kind::List(_) => Some("to look for an item in a list, use `x in list`".to_owned()),
                _ => Some("`string(x)` converts a value to a text".to_owned()),
            };
            self.problem(
                expr.span.clone(),
                format!("`{name}` needs a text, but this is {ty}"),
                ty.to_string(),
                help,
            );
        }
        expr
    }

    fn on_texts(
        &mut self,
        function: Function,
        text: &IdedExpr,
        other: &IdedExpr,
        span: Range<usize>,
    ) -> Checked {
        let name = match function {
            Function::StartsWith => "startsWith",
            Function::EndsWith => "endsWith",
            _ => "contains",
        };
        let args = vec![self.text(text, name), self.text(other, name)];
        (Expr { node: Node::Call(function, args), span }, Type::plain(Kind::Bool))
    }

    fn matches(&mut self, text: &IdedExpr, pattern: &IdedExpr, span: Range<usize>) -> Checked {
        let text = self.text(text, "matches");
        let pattern_span = self.parsed.span(pattern);
        let CelExpr::Literal(LiteralValue::String(literal)) = &pattern.expr else {
            let help = Some("write the regular expression in quotes".to_owned());
            return self.refuse(
                pattern_span,
                "the regular expression must be a text in quotes",
                "not a text in quotes",
                help,
            );
        };
        match RegexBuilder::new(literal.inner())
            .size_limit(LARGEST_PATTERN)
            .dfa_size_limit(LARGEST_PATTERN)
            .build()
        {
            Ok(regex) => {
                (Expr { node: Node::Matches(Box::new(text), Box::new(regex)), span }, Type::plain(Kind::Bool))
            }
            Err(error) => {
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                self.refuse(
                    pattern_span,
                    format!("this is not a regular expression: {reason}"),
                    "this text",
                    None,
                )
            }
        }
    }

    fn text_of(&mut self, value: &IdedExpr, span: Range<usize>) -> Checked {
        let (expr, ty) = self.operand(value, "string");
        if matches!(ty.kind, Kind::Record(_) | Kind::Map(_)) {
            let help = Some("name one of its fields".to_owned());
            return self.refuse(
                expr.span,
                format!("{ty} cannot be converted to a text"),
                ty.to_string(),
                help,
            );
        }
        (Expr { node: Node::Call(Function::Text, vec![expr]), span }, Type::plain(Kind::Text))
    }

    fn number_of(&mut self, function: Function, kind: Kind, value: &IdedExpr, span: Range<usize>) -> Checked {
        let name = if function == Function::Int { "int" } else { "double" };
        let (expr, ty) = self.operand(value, name);
        let unit = match &ty.kind {
            Kind::Text | Kind::Any => Unit::Any,
            _ if ty.is_number() => ty.unit,
            _ => {
                let message = format!("`{name}` converts a number or a text, but this is {ty}");
                return self.refuse(expr.span, message, ty.to_string(), conversion_of(&ty));
            }
        };
        (Expr { node: Node::Call(function, vec![expr]), span }, Type::number(kind, unit))
    }

    fn extreme(&mut self, function: Function, a: &IdedExpr, b: &IdedExpr, span: Range<usize>) -> Checked {
        let name = if function == Function::Min { "min" } else { "max" };
        let (a, a_type) = self.operand(a, name);
        let (b, b_type) = self.operand(b, name);
        for (expr, ty) in [(&a, &a_type), (&b, &b_type)] {
            if !ty.is_number() && ty.kind != Kind::Any {
                self.problem(
                    expr.span.clone(),
                    format!("`{name}` needs numbers, but this is {ty}"),
                    ty.to_string(),
                    None,
                );
            }
        }
        let ty = self.unify(a_type, b_type, span.clone(), "the two numbers");
        (Expr { node: Node::Call(function, vec![a, b]), span }, ty)
    }

    fn or_value(&mut self, value: &IdedExpr, other: &IdedExpr, span: Range<usize>) -> Checked {
        let (value, ty) = self.expr(value);
        if !is_chain(&value) && ty.kind != Kind::Any {
            let help = Some("read the field with `.?`: `x.?field.orValue(…)`".to_owned());
            return self.refuse(
                value.span,
                "`orValue` must follow a field that is read with `.?`",
                "not read with `.?`",
                help,
            );
        }
        if !ty.optional && ty.kind != Kind::Any {
            let help = Some("read the field with `.`".to_owned());
            self.problem(value.span.clone(), "this is never absent", "the other value is never used", help);
        }
        let (other, other_type) = self.expr(other);
        let result =
            self.unify(Type { optional: false, ..ty }, other_type, other.span.clone(), "the two values");
        (Expr { node: Node::OrValue(Box::new(value), Box::new(other)), span }, result)
    }

    /// Checks `version("8.2")` and similar constants, which are parsed when the rule is loaded.
    fn constant(&mut self, name: &str, literal: &IdedExpr, span: Range<usize>) -> Checked {
        let literal_span = self.parsed.span(literal);
        let CelExpr::Literal(LiteralValue::String(text)) = &literal.expr else {
            let help =
                Some("facts already have the right type: compare them without a conversion".to_owned());
            return self.refuse(literal_span, format!("`{name}` needs a text in quotes"), "not a text", help);
        };
        let text = text.inner();
        let (value, kind, example) = match name {
            "version" => (text.parse::<Version>().ok().map(Value::Version), Kind::Version, "8.2"),
            "timestamp" => (text.parse().ok().map(Value::Time), Kind::Timestamp, "2026-11-23T01:00:00Z"),
            _ => (duration::parse(text).map(Value::Duration), Kind::Duration, "10m"),
        };
        if let Some(value) = value {
            return (Expr { node: Node::Literal(value), span }, Type::plain(kind));
        }
        let help = Some(format!("write it as `{name}(\"{example}\")`"));
        self.refuse(literal_span, format!("`{text}` is not {kind}"), "cannot be read", help)
    }

    fn units_in(
        &mut self,
        name: &str,
        milliseconds: i64,
        unit: Unit,
        value: &IdedExpr,
        span: Range<usize>,
    ) -> Checked {
        let (expr, ty) = self.operand(value, name);
        if !matches!(ty.kind, Kind::Duration | Kind::Any) {
            let help = Some("the difference of two times is a duration".to_owned());
            return self.refuse(
                expr.span,
                format!("this must be a duration, but is {ty}"),
                ty.to_string(),
                help,
            );
        }
        (
            Expr { node: Node::Call(Function::DurationIn(milliseconds), vec![expr]), span },
            Type::number(Type::INT, unit),
        )
    }
}

fn conversion_of(ty: &Type) -> Option<String> {
    match ty.kind {
        Kind::Duration => Some("`.getSeconds()` converts a duration to a number".to_owned()),
        Kind::List(_) => Some("`.size()` is the number of its items".to_owned()),
        _ => None,
    }
}
