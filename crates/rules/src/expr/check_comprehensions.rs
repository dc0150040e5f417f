//! Type check of `all`, `exists`, `filter`, `map` and `has`.

use std::ops::Range;

use cel::common::ast::{CallExpr, Expr as CelExpr, operators};
use vmgate_documents::types::{Kind, Type};

use super::{
    check::{Checked, Checker, TypedName},
    narrow::{implied, implied_for_items},
    tree::{Expr, Node, Quantifier},
};
use crate::root::ROOT;

impl Checker<'_> {
    pub(super) fn has(&mut self, call: &CallExpr, span: Range<usize>) -> Checked {
        let arg = match call.args.as_slice() {
            [arg] if matches!(arg.expr, CelExpr::Select(_)) => arg,
            _ => {
                let help = Some("write `has(vm.job)`".to_owned());
                return self.refuse(span, "`has` needs one field of a group", "not a field", help);
            }
        };
        let before = self.problems.len();
        let (value, ty) = self.expr(arg);
        if self.problems.len() == before && !ty.optional && ty.kind != Kind::Any && !self.is_guarded(&value) {
            let text = self.text.get(value.span.clone()).unwrap_or_default().to_owned();
            let help =
                Some("an unknown fact needs no guard: the outcome of the rule is then unknown".to_owned());
            self.problem(
                span.clone(),
                format!("`{text}` is never absent, so this is always true"),
                "always true",
                help,
            );
        }
        (Expr { node: Node::Present(Box::new(value)), span }, Type::plain(Kind::Bool))
    }

    pub(super) fn quantify(
        &mut self,
        quantifier: Quantifier,
        call: &CallExpr,
        span: Range<usize>,
    ) -> Checked {
        let (Some(target), [name, rest @ ..]) = (&call.target, call.args.as_slice()) else {
            return self.refuse(
                span,
                format!("`{}` must be called on a list", call.func_name),
                "no list here",
                None,
            );
        };
        let checked = self.expr(target);
        let (list, list_type) = self.require_present(checked, "its items are read");
        let item = match &list_type.kind {
            Kind::List(item) => (**item).clone(),
            Kind::Any => Type::any(),
            _ => {
                let message = format!("`{}` needs a list, but this is {list_type}", call.func_name);
                return self.refuse(list.span, message, list_type.to_string(), None);
            }
        };
        let name_span = self.parsed.span(name);
        let CelExpr::Ident(variable) = &name.expr else {
            let help = Some(format!("write `list.{}(x, …)`", call.func_name));
            return self.refuse(
                name_span,
                "the first argument must be a name for the item",
                "not a name",
                help,
            );
        };
        self.new_name(variable, name_span.clone());
        let slot = self.scope.next_slot;
        self.scope.next_slot += 1;
        let used_before = self.scope.used.borrow_mut().remove(variable);
        self.locals.push((TypedName { name: variable.clone(), ty: item.clone() }, slot));
        self.present.push(implied_for_items(&list, slot, &self.scope.lets));
        let (filter, result) = match rest {
            [only] => (None, only),
            [condition, result] if quantifier == Quantifier::Map => {
                (Some(Box::new(self.condition(condition, "used as a condition"))), result)
            }
            _ => {
                self.locals.pop();
                self.present.pop();
                let help = Some(format!("write `list.{}(x, …)`", call.func_name));
                return self.refuse(
                    span,
                    format!("`{}` needs a name and an expression", call.func_name),
                    "here",
                    help,
                );
            }
        };
        let (body, body_type) = match quantifier {
            Quantifier::Map => match filter.clone() {
                Some(filter) => self.guarded(&filter, true, |this| this.expr(result)),
                None => self.expr(result),
            },
            _ => (self.condition(result, "used as a condition"), Type::plain(Kind::Bool)),
        };
        self.locals.pop();
        self.present.pop();
        let used = !self.scope.used.borrow_mut().remove(variable);
        if used_before {
            self.scope.used.borrow_mut().insert(variable.clone());
        }
        if used {
            let help = Some("use the name in the expression after it".to_owned());
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

    /// Type of the items that pass a filter.
    pub(super) fn filtered(&self, item: Type, condition: &Expr) -> Type {
        let proven = implied(condition, true, &self.scope.lets);
        // Guards on fields of items are not kept: they do not change the type of a record.
        if item.optional && proven.iter().any(|key| key.starts_with('$') && !key.contains('.')) {
            return Type { optional: false, ..item };
        }
        item
    }

    /// Checks that a new name does not hide another.
    pub(crate) fn new_name(&mut self, name: &str, span: Range<usize>) {
        let taken = ROOT.field(name).is_some() || name == "params";
        let hides = self.scope.lets.iter().any(|(named, _)| named.name == name)
            || self.locals.iter().chain(&self.scope.variables).any(|(named, _)| named.name == name);
        if taken || hides {
            let help = Some("choose another name".to_owned());
            self.problem(span, format!("the name `{name}` is already in use"), "hides another name", help);
        }
    }
}

pub(super) fn quantifier(call: &CallExpr) -> Option<Quantifier> {
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
