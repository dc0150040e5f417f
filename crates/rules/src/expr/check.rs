//! Type check: converts the parser's tree to a tree that can be evaluated, and reports every problem.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashSet},
    ops::Range,
    rc::Rc,
    sync::Arc,
};

use cel::common::ast::{CallExpr, Expr as CelExpr, IdedExpr, LiteralValue, operators};
use vmgate_documents::types::{Kind, Type};

use super::{
    ExprProblem,
    check_comprehensions::quantifier,
    parse::{Parsed, Parser},
    tree::{Comparison, Expr, Node},
};
use crate::value::Value;

/// Limit on the nesting of an expression: evaluation recurses to the same depth.
const DEEPEST: usize = 48;

/// A name that an expression may use in addition to the facts, with its type.
#[derive(Debug, Clone)]
pub(crate) struct TypedName {
    pub(crate) name: String,
    pub(crate) ty: Type,
}

/// Names that the expressions of a rule can use.
#[derive(Default)]
pub(crate) struct Scope {
    pub(crate) parser: Rc<Parser>,
    /// Parameters, as `params.name`.
    pub(crate) params: Vec<TypedName>,
    /// Lets that were checked before, by position; the expression shows what a named condition proves.
    pub(crate) lets: Vec<(TypedName, Expr)>,
    /// Lets that cannot be used here, with the reason.
    pub(crate) hidden: Vec<(String, &'static str)>,
    /// Variables of `foreach`, with their slots.
    pub(crate) variables: Vec<(TypedName, usize)>,
    /// Values that guards of the rule prove to be present.
    pub(crate) present: BTreeSet<String>,
    /// The next free slot.
    pub(crate) next_slot: usize,
    /// True if any fact that was read can be unknown.
    pub(crate) reads_unknowable: Cell<bool>,
    /// Names that were used; parameters as `params.name`.
    pub(crate) used: RefCell<HashSet<String>>,
}

/// Type checker of one expression.
pub(crate) struct Checker<'s> {
    pub(super) scope: &'s mut Scope,
    pub(super) parsed: Rc<Parsed>,
    pub(super) text: String,
    /// Variables of the comprehensions that contain the current node.
    pub(super) locals: Vec<(TypedName, usize)>,
    pub(super) present: Vec<BTreeSet<String>>,
    depth: usize,
    pub(super) problems: Vec<ExprProblem>,
}

/// A checked node with its type.
pub(super) type Checked = (Expr, Type);

impl<'s> Checker<'s> {
    /// Parses and checks an expression; the type is [`Kind::Any`] after problems.
    pub(crate) fn check(text: &str, scope: &'s mut Scope) -> Result<(Expr, Type), Vec<ExprProblem>> {
        let parsed = scope.parser.parse(text)?;
        let mut this = Checker {
            scope,
            parsed: Rc::clone(&parsed),
            text: text.to_owned(),
            locals: Vec::new(),
            present: Vec::new(),
            depth: 0,
            problems: Vec::new(),
        };
        let checked = this.expr(&parsed.expr);
        if this.problems.is_empty() { Ok(checked) } else { Err(this.problems) }
    }

    /// Parses and checks an expression that must be true or false.
    pub(crate) fn check_condition(text: &str, scope: &'s mut Scope) -> Result<Expr, Vec<ExprProblem>> {
        let (expr, ty) = Self::check(text, scope)?;
        let message = match &ty.kind {
            Kind::Bool | Kind::Any if !ty.optional => {
                if expr.is_constant() {
                    "this condition does not depend on any fact".to_owned()
                } else {
                    return Ok(expr);
                }
            }
            _ => format!("this must be true or false, but is {ty}"),
        };
        Err(vec![ExprProblem {
            span: 0..text.len(),
            message,
            label: "not a condition".to_owned(),
            help: Some("compare it with a value, such as `x > 0` or `x != null`".to_owned()),
        }])
    }

    pub(super) fn problem(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) {
        self.problems.push(ExprProblem { span, message: message.into(), label: label.into(), help });
    }

    /// Reports a problem and returns a node that causes no further problems.
    pub(super) fn refuse(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
        help: Option<String>,
    ) -> Checked {
        self.problem(span.clone(), message, label, help);
        (Expr { node: Node::Literal(Value::Null), span }, Type::any())
    }

    pub(super) fn expr(&mut self, expr: &IdedExpr) -> Checked {
        let span = self.parsed.span(expr);
        if self.depth >= DEEPEST {
            let help = Some("split it with `let`".to_owned());
            return self.refuse(
                span,
                format!("nested too deeply: at most {DEEPEST} levels"),
                "one level too many",
                help,
            );
        }
        self.depth += 1;
        let checked = self.any_expr(expr, span);
        self.depth -= 1;
        checked
    }

    fn any_expr(&mut self, expr: &IdedExpr, span: Range<usize>) -> Checked {
        match &expr.expr {
            CelExpr::Literal(literal) => self.literal(literal, span),
            CelExpr::Ident(name) => self.identifier(name, span),
            CelExpr::Select(select) => {
                if let CelExpr::Ident(root) = &select.operand.expr
                    && root == "params"
                {
                    return self.parameter(&select.field, self.parsed.name_span(expr), span);
                }
                let operand = self.expr(&select.operand);
                let name = self.parsed.name_span(expr);
                self.select(operand, &select.field, name, span, false)
            }
            CelExpr::List(list) => self.list(&list.elements, span),
            CelExpr::Call(call) => self.call(expr, call, span),
            CelExpr::Map(_) | CelExpr::Struct(_) => self.refuse(
                span,
                "an expression cannot contain a mapping",
                "a mapping",
                Some("use `?:` to choose between values".to_owned()),
            ),
            CelExpr::Comprehension(_) | CelExpr::Unspecified => {
                self.refuse(span, "a rule cannot use this kind of expression", "here", None)
            }
        }
    }

    fn list(&mut self, elements: &[IdedExpr], span: Range<usize>) -> Checked {
        let mut item: Option<Type> = None;
        let mut items = Vec::with_capacity(elements.len());
        for element in elements {
            let (expr, ty) = self.expr(element);
            item = Some(match item {
                None => ty,
                Some(before) => self.unify(before, ty, expr.span.clone(), "the items of a list"),
            });
            items.push(expr);
        }
        (Expr { node: Node::List(items), span }, Type::list(item.unwrap_or_else(Type::any)))
    }

    /// Type of a value that comes from one of two expressions.
    pub(super) fn unify(&mut self, a: Type, b: Type, span: Range<usize>, what: &str) -> Type {
        let optional = a.optional || b.optional;
        if a.is_number() && b.is_number() && !a.unit.agrees(b.unit) {
            self.problem(
                span.clone(),
                format!("{what} have different units: {} and {}", a.unit, b.unit),
                b.unit.to_string(),
                Some("convert one of them".to_owned()),
            );
        }
        let unit = a.unit.either(b.unit);
        let kind = match (a.kind, b.kind) {
            (Kind::Null, kind) | (kind, Kind::Null) => kind,
            (Kind::Any, _) | (_, Kind::Any) => Kind::Any,
            (Kind::Int { .. }, Kind::Int { .. }) => Type::INT,
            (Kind::Int { .. } | Kind::Double, Kind::Int { .. } | Kind::Double) => Kind::Double,
            (Kind::Enum(a), Kind::Enum(b)) if a == b => Kind::Enum(a),
            (Kind::Text | Kind::Enum(_), Kind::Text | Kind::Enum(_)) => Kind::Text,
            (a, b) if a == b => a,
            (Kind::List(a), Kind::List(b)) => {
                let item = self.unify((*a).clone(), (*b).clone(), span, what);
                Kind::List(Arc::new(item))
            }
            _ => Kind::Mixed,
        };
        Type { optional, unit, ..Type::plain(kind) }
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr, span: Range<usize>) -> Checked {
        if let Some(quantifier) = quantifier(call) {
            return self.quantify(quantifier, call, span);
        }
        let operator = |this: &mut Self| -> Option<Checked> {
            let (first, second) = (call.args.first()?, call.args.get(1));
            Some(match (call.func_name.as_str(), second) {
                (operators::LOGICAL_AND, Some(second)) => this.logical(true, first, second, span.clone()),
                (operators::LOGICAL_OR, Some(second)) => this.logical(false, first, second, span.clone()),
                (operators::LOGICAL_NOT, None) => {
                    let inner = this.condition(first, "negated");
                    (Expr { node: Node::Not(Box::new(inner)), span: span.clone() }, Type::plain(Kind::Bool))
                }
                (operators::CONDITIONAL, Some(second)) => {
                    this.conditional(first, second, call.args.get(2)?, span.clone())
                }
                (operators::IN, Some(second)) => this.membership(first, second, span.clone()),
                (operators::OPT_SELECT, Some(second)) => {
                    let operand = this.expr(first);
                    let name = match &second.expr {
                        CelExpr::Literal(LiteralValue::String(name)) => name.inner().to_owned(),
                        _ => String::new(),
                    };
                    let name_span = this.parsed.name_span(expr);
                    this.select(operand, &name, name_span, span.clone(), true)
                }
                (name, Some(second)) => match comparison(name) {
                    Some(comparison) => this.compare(comparison, first, second, span.clone()),
                    None => return this.arithmetic(name, first, second, span.clone()),
                },
                (operators::NEGATE, None) => this.negate(first, span.clone()),
                _ => return None,
            })
        };
        if let Some(checked) = operator(self) {
            return checked;
        }
        if call.target.is_none() && call.func_name == operators::HAS {
            return self.has(call, span);
        }
        self.function(expr, call, span)
    }

    /// Checks an operand that must be true or false.
    pub(super) fn condition(&mut self, expr: &IdedExpr, how: &str) -> Expr {
        let checked = self.expr(expr);
        let (expr, ty) = self.require_present(checked, &format!("is {how}"));
        if !matches!(ty.kind, Kind::Bool | Kind::Any) {
            let message = format!("this must be true or false, but is {ty}");
            self.problem(
                expr.span.clone(),
                message,
                ty.to_string(),
                Some("compare it with a value".to_owned()),
            );
        }
        expr
    }

    fn logical(&mut self, and: bool, left: &IdedExpr, right: &IdedExpr, span: Range<usize>) -> Checked {
        let left = self.condition(left, "used as a condition");
        let right = self.guarded(&left, and, |this| this.condition(right, "used as a condition"));
        if self.is_same_text(&left, &right) {
            self.problem(
                right.span.clone(),
                "both sides are the same",
                "the same again",
                Some("remove one of them".to_owned()),
            );
        }
        let (left, right) = (Box::new(left), Box::new(right));
        let node = if and { Node::And(left, right) } else { Node::Or(left, right) };
        (Expr { node, span }, Type::plain(Kind::Bool))
    }

    fn conditional(
        &mut self,
        condition: &IdedExpr,
        then: &IdedExpr,
        other: &IdedExpr,
        span: Range<usize>,
    ) -> Checked {
        let condition = self.condition(condition, "used as a condition");
        let (then, then_type) = self.guarded(&condition, true, |this| this.expr(then));
        let (other, other_type) = self.guarded(&condition, false, |this| this.expr(other));
        let ty = self.unify(then_type, other_type, other.span.clone(), "the two results");
        (Expr { node: Node::Conditional(Box::new(condition), Box::new(then), Box::new(other)), span }, ty)
    }

    /// True if two operands have the same text and are not literals.
    pub(super) fn is_same_text(&self, a: &Expr, b: &Expr) -> bool {
        let text = |expr: &Expr| {
            self.text.get(expr.span.clone()).map(|text| text.split_whitespace().collect::<String>())
        };
        !a.is_constant() && text(a) == text(b)
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        operators::EQUALS => Comparison::Equal,
        operators::NOT_EQUALS => Comparison::NotEqual,
        operators::LESS => Comparison::Less,
        operators::LESS_EQUALS => Comparison::LessOrEqual,
        operators::GREATER => Comparison::Greater,
        operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
        _ => return None,
    })
}
