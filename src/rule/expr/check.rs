//! The type check: from the parser's tree to one that can be evaluated, with every problem that is found.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashSet},
    ops::Range,
    sync::Arc,
};

use cel::common::ast::{CallExpr, Expr as CelExpr, IdedExpr, LiteralValue, operators};

use super::{
    ExprProblem,
    narrow::{implied, key, of_items},
    parse::{self, Parsed},
    tree::{Base, Comparison, Expr, Node, Quantifier},
};
use crate::rule::{
    diagnostic::closest,
    types::{Kind, ROOT, Type, field_type},
    unit::Unit,
    value::Value,
};

/// Deepest nesting of an expression: evaluation recurses as deep.
const DEEPEST: usize = 48;

/// A name that an expression may use beside the facts.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) ty: Type,
}

/// What the expressions of a rule can see.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    /// Parameters, as `params.name`.
    pub(crate) params: Vec<Named>,
    /// The lets that were checked so far, by position; the expression is needed to see through named conditions.
    pub(crate) lets: Vec<(Named, Expr)>,
    /// Lets that exist and may not be used here, with the reason.
    pub(crate) hidden: Vec<(String, &'static str)>,
    /// Variables of `foreach`, with their slots.
    pub(crate) variables: Vec<(Named, usize)>,
    /// Values that are known to be present, by guards of the rule.
    pub(crate) present: BTreeSet<String>,
    /// The next free slot.
    pub(crate) next_slot: usize,
    /// Whether any fact that was read can be unknown.
    pub(crate) reads_unknowable: Cell<bool>,
    /// Names that were used: parameters as `params.name`.
    pub(crate) used: RefCell<HashSet<String>>,
}

/// Checks one expression.
pub(crate) struct Checker<'s> {
    pub(super) scope: &'s mut Scope,
    pub(super) parsed: Parsed,
    pub(super) text: String,
    /// Variables of comprehensions around the current node.
    locals: Vec<(Named, usize)>,
    present: Vec<BTreeSet<String>>,
    depth: usize,
    pub(super) problems: Vec<ExprProblem>,
}

/// A checked node with its type.
pub(super) type Checked = (Expr, Type);

impl<'s> Checker<'s> {
    /// Parses and checks; the type is [`Kind::Any`] where there were problems.
    pub(crate) fn check(text: &str, scope: &'s mut Scope) -> Result<(Expr, Type), Vec<ExprProblem>> {
        let parsed = parse::parse(text)?;
        let mut checker = Checker {
            scope,
            parsed,
            text: text.to_owned(),
            locals: Vec::new(),
            present: Vec::new(),
            depth: 0,
            problems: Vec::new(),
        };
        let expr = std::mem::take(&mut checker.parsed.expr);
        let checked = checker.expr(&expr);
        if checker.problems.is_empty() { Ok(checked) } else { Err(checker.problems) }
    }

    /// As [`Self::check`], for an expression that must be true or false.
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
            _ => format!("this must be true or false, and is {ty}"),
        };
        Err(vec![ExprProblem {
            span: 0..text.len(),
            message,
            label: "not a condition".to_owned(),
            help: Some("compare it with something, such as `x > 0` or `x != null`".to_owned()),
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

    /// Reports and gives a node that no further problem is reported for.
    pub(super) fn wrong(
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
            return self.wrong(
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
            CelExpr::Map(_) | CelExpr::Struct(_) => self.wrong(
                span,
                "mappings cannot be written in an expression",
                "a mapping",
                Some("use `?:` to choose between values".to_owned()),
            ),
            CelExpr::Comprehension(_) | CelExpr::Unspecified => {
                self.wrong(span, "this cannot be used in a rule", "here", None)
            }
        }
    }

    fn literal(&mut self, literal: &LiteralValue, span: Range<usize>) -> Checked {
        let (value, kind) = match literal {
            LiteralValue::Boolean(value) => (Value::Bool(*value.inner()), Kind::Bool),
            LiteralValue::Double(value) => (Value::Double(*value.inner()), Kind::Double),
            LiteralValue::Int(value) => (Value::Int(*value.inner()), Type::INT),
            LiteralValue::Null => (Value::Null, Kind::Null),
            LiteralValue::String(value) => (Value::Text(value.inner().into()), Kind::Text),
            LiteralValue::UInt(_) | LiteralValue::Bytes(_) => {
                let help = Some("write the number without `u`; facts have no byte strings".to_owned());
                return self.wrong(
                    span,
                    "facts have no values of this kind",
                    "no fact compares with it",
                    help,
                );
            }
        };
        let optional = kind == Kind::Null;
        let ty = Type { optional, ..Type::number(kind, Unit::Any) };
        (Expr { node: Node::Literal(value), span }, ty)
    }

    fn identifier(&mut self, name: &str, span: Range<usize>) -> Checked {
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
            return self.wrong(span, format!("`{name}` cannot be used here"), *reason, None);
        }
        if name == "params" {
            let help = Some("name one of them: `params.name`".to_owned());
            return self.wrong(span, "`params` is not a value", "the group of the rule's parameters", help);
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
                format!("there are {}; `vmgate rules facts` lists what they hold", names.join(", "))
            }
        };
        self.wrong(span, format!("nothing is called `{name}`"), "not known", Some(help))
    }

    fn parameter(&mut self, name: &str, name_span: Range<usize>, span: Range<usize>) -> Checked {
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
        self.wrong(name_span, format!("the rule has no parameter `{name}`"), "not declared", Some(help))
    }

    /// A field of a value; `chained` where the value may be absent and the field is then absent too (`.?`).
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
                        "say of which item: `.exists(x, x.{name} …)`, `.all(x, x.{name} …)`, or `foreach`"
                    )),
                    _ => None,
                };
                return self.wrong(name_span, format!("{kind} has no field `{name}`"), "no such field", help);
            }
        };
        let Some((position, field)) = record.field(name) else {
            let help = match closest(name, record.names()) {
                Some(like) => format!("did you mean `{like}`?"),
                None => format!("it has {}", record.names().collect::<Vec<_>>().join(", ")),
            };
            let owner = self.text.get(operand.span.clone()).unwrap_or_default().to_owned();
            return self.wrong(
                name_span,
                format!("`{owner}` has no field `{name}`"),
                "no such field",
                Some(help),
            );
        };
        let in_chain = chained || is_chain(&operand);
        if ty.optional && !in_chain {
            self.absent_use(&operand, "a field of it is read");
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

    fn note_unknowable(&self, ty: &Type) {
        self.scope.reads_unknowable.set(self.scope.reads_unknowable.get() || ty.unknowable);
    }

    /// Takes note of guards around.
    fn narrowed(&self, expr: Expr, ty: Type) -> Checked {
        if ty.optional && self.is_guarded(&expr) {
            return (expr, Type { optional: false, ..ty });
        }
        (expr, ty)
    }

    /// Whether a guard around says that this is present.
    pub(super) fn is_guarded(&self, expr: &Expr) -> bool {
        key(expr).is_some_and(|key| {
            self.scope.present.contains(&key) || self.present.iter().any(|present| present.contains(&key))
        })
    }

    /// Checks with what a condition proves to be present.
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

    /// Reports that an optional value is used where a value must be.
    pub(super) fn absent_use(&mut self, expr: &Expr, how: &str) {
        let text = self.text.get(expr.span.clone()).unwrap_or("x").to_owned();
        let help = format!(
            "guard it: `{text} != null && …`, or say what counts instead: `{text} != null ? {text} : …`"
        );
        let message = format!("`{text}` may be absent, and {how} without a guard");
        self.problem(expr.span.clone(), message, "may be null", Some(help));
    }

    /// A value that must not be absent.
    pub(super) fn present(&mut self, checked: Checked, how: &str) -> Checked {
        if checked.1.optional && !matches!(checked.1.kind, Kind::Any) {
            self.absent_use(&checked.0, how);
        }
        (checked.0, Type { optional: false, ..checked.1 })
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

    /// The type of a value that is one of two.
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

    /// An operand that must be true or false.
    pub(super) fn condition(&mut self, expr: &IdedExpr, how: &str) -> Expr {
        let checked = self.expr(expr);
        let (expr, ty) = self.present(checked, &format!("is {how}"));
        if !matches!(ty.kind, Kind::Bool | Kind::Any) {
            let message = format!("this must be true or false, and is {ty}");
            self.problem(
                expr.span.clone(),
                message,
                ty.to_string(),
                Some("compare it with something".to_owned()),
            );
        }
        expr
    }

    fn logical(&mut self, and: bool, left: &IdedExpr, right: &IdedExpr, span: Range<usize>) -> Checked {
        let left = self.condition(left, "used as a condition");
        let right = self.guarded(&left, and, |this| this.condition(right, "used as a condition"));
        if self.same(&left, &right) {
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

    fn has(&mut self, call: &CallExpr, span: Range<usize>) -> Checked {
        let arg = match call.args.as_slice() {
            [arg] if matches!(arg.expr, CelExpr::Select(_)) => arg,
            _ => {
                let help = Some("write `has(vm.job)`".to_owned());
                return self.wrong(span, "`has` takes one field of something", "not a field", help);
            }
        };
        let before = self.problems.len();
        let (value, ty) = self.expr(arg);
        if self.problems.len() == before && !ty.optional && ty.kind != Kind::Any && !self.is_guarded(&value) {
            let text = self.text.get(value.span.clone()).unwrap_or_default().to_owned();
            let help = Some(
                "a fact that is not known needs no guard: it makes the rule's outcome unknown".to_owned(),
            );
            self.problem(
                span.clone(),
                format!("`{text}` is never absent, so this is always true"),
                "always true",
                help,
            );
        }
        (Expr { node: Node::Present(Box::new(value)), span }, Type::plain(Kind::Bool))
    }

    fn quantify(&mut self, quantifier: Quantifier, call: &CallExpr, span: Range<usize>) -> Checked {
        let (Some(target), [name, rest @ ..]) = (&call.target, call.args.as_slice()) else {
            return self.wrong(span, format!("`{}` is called on a list", call.func_name), "no list", None);
        };
        let checked = self.expr(target);
        let (list, ty) = self.present(checked, "its items are looked at");
        let item = match &ty.kind {
            Kind::List(item) => (**item).clone(),
            Kind::Any => Type::any(),
            _ => {
                let message = format!("`{}` looks at the items of a list, and this is {ty}", call.func_name);
                return self.wrong(list.span, message, ty.to_string(), None);
            }
        };
        let name_span = self.parsed.span(name);
        let CelExpr::Ident(variable) = &name.expr else {
            let help = Some(format!("write `list.{}(x, …)`", call.func_name));
            return self.wrong(name_span, "a name for the item must come first", "not a name", help);
        };
        self.new_name(variable, name_span.clone());
        let slot = self.scope.next_slot;
        self.scope.next_slot += 1;
        let used_before = self.scope.used.borrow_mut().remove(variable);
        self.locals.push((Named { name: variable.clone(), ty: item.clone() }, slot));
        self.present.push(of_items(&list, slot, &self.scope.lets));
        let (filter, last) = match rest {
            [only] => (None, only),
            [filter, last] if quantifier == Quantifier::Map => {
                (Some(Box::new(self.condition(filter, "used as a condition"))), last)
            }
            _ => {
                self.locals.pop();
                self.present.pop();
                let help = Some(format!("write `list.{}(x, …)`", call.func_name));
                return self.wrong(
                    span,
                    format!("`{}` takes a name and an expression", call.func_name),
                    "here",
                    help,
                );
            }
        };
        let (body, body_type) = match quantifier {
            Quantifier::Map => match filter.clone() {
                Some(filter) => self.guarded(&filter, true, |this| this.expr(last)),
                None => self.expr(last),
            },
            _ => (self.condition(last, "used as a condition"), Type::plain(Kind::Bool)),
        };
        self.locals.pop();
        self.present.pop();
        let used = !self.scope.used.borrow_mut().remove(variable);
        if used_before {
            self.scope.used.borrow_mut().insert(variable.clone());
        }
        if used {
            let help = Some("use it in the expression after it".to_owned());
            self.problem(name_span, format!("`{variable}` is not used"), "never used", help);
        }
        let ty = match quantifier {
            Quantifier::Map => Type::list(body_type),
            Quantifier::Filter => Type::list(self.filtered(item, &body)),
            _ => Type::plain(Kind::Bool),
        };
        let node = Node::Quantify { quantifier, list: Box::new(list), slot, filter, body: Box::new(body) };
        (Expr { node, span }, ty)
    }

    /// The items that a filter lets through.
    fn filtered(&self, item: Type, condition: &Expr) -> Type {
        let proven = implied(condition, true, &self.scope.lets);
        // Guards on fields of items are lost: the type of a record does not change with them.
        if item.optional && proven.iter().any(|key| key.starts_with('$') && !key.contains('.')) {
            return Type { optional: false, ..item };
        }
        item
    }

    /// A name that must not hide another.
    pub(crate) fn new_name(&mut self, name: &str, span: Range<usize>) {
        let taken = ROOT.field(name).is_some() || name == "params";
        let hides = self.scope.lets.iter().any(|(named, _)| named.name == name)
            || self.locals.iter().chain(&self.scope.variables).any(|(named, _)| named.name == name);
        if taken || hides {
            let help = Some("choose another name".to_owned());
            self.problem(
                span,
                format!("`{name}` already means something else here"),
                "hides another name",
                help,
            );
        }
    }

    /// Whether two operands are the same text and not literals.
    pub(super) fn same(&self, a: &Expr, b: &Expr) -> bool {
        let text = |expr: &Expr| {
            self.text.get(expr.span.clone()).map(|text| text.split_whitespace().collect::<String>())
        };
        !a.is_constant() && text(a) == text(b)
    }
}

/// Marks a node as the result of `.?`, whose absence is carried on.
fn chain(expr: Expr) -> Expr {
    let span = expr.span.clone();
    Expr {
        node: Node::Access { base: Base::Expr(Box::new(expr)), steps: Vec::new(), suffix: "".into() },
        span,
    }
}

/// Whether a node came from `.?`: nothing else puts one access below another.
pub(super) fn is_chain(expr: &Expr) -> bool {
    matches!(&expr.node, Node::Access { base: Base::Expr(base), .. } if matches!(base.node, Node::Access { .. }))
}

fn quantifier(call: &CallExpr) -> Option<Quantifier> {
    call.target.as_ref()?;
    Some(match call.func_name.as_str() {
        operators::ALL => Quantifier::All,
        operators::EXISTS => Quantifier::Exists,
        operators::EXISTS_ONE | "existsOne" => Quantifier::ExistsOne,
        operators::FILTER => Quantifier::Filter,
        operators::MAP => Quantifier::Map,
        _ => return None,
    })
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
