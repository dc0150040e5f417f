//! Look-up of a long list's items by the value of a field, so that a rule that looks for each of a VM's thousand disks among the files of
//! a host takes steps that grow with their number and not with its square.
//!
//! `list.exists(x, x.field == value && …)` can be true, and `list.all(x, x.field != value || …)` false, of the items alone whose field has
//! that value or is no text or number (it may be unknown). Only these are evaluated, and the list as a whole is evidence.

use std::{collections::HashMap, rc::Rc};

use super::{
    eval::{Evaluator, Segment, Val},
    tree::{Base, Comparison, Expr, Node, Quantifier},
};
use crate::value::Value;

/// Length from which on a list is looked up; of a shorter one each item that was read is evidence.
const LONG: usize = 128;

/// Places of a list's items by the value of one field.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    texts: HashMap<&'a str, Vec<usize>>,
    numbers: HashMap<i64, Vec<usize>>,
    /// Items of which the value alone does not tell if it is equal to a text or whole number.
    others: Vec<usize>,
}

/// Indices by list (its address in the facts) and field.
pub(super) type Indices<'a> = HashMap<(*const Value, &'a [usize]), Rc<Index<'a>>>;

impl<'a> Evaluator<'a> {
    /// Items that can decide a comprehension; none where the list is short, or nothing is compared with a field of its items.
    pub(super) fn candidates(
        &mut self,
        quantifier: Quantifier,
        list: &Val<'a>,
        slot: usize,
        condition: &'a Expr,
    ) -> Option<Vec<Val<'a>>> {
        let Val::Node(node @ Value::List(items), path) = list else { return None };
        if items.len() < LONG {
            return None;
        }
        let (field, value) = compared(condition, slot, quantifier == Quantifier::All)?;
        let mark = self.mark();
        let value = self.scalar(value);
        let index = self.index_of(items, field);
        let equal = match (&value, &index) {
            (Val::Text(text), Some(index)) => index.texts.get(&**text),
            (Val::Int(number), Some(index)) => index.numbers.get(number),
            _ => {
                self.forget(mark);
                return None;
            }
        };
        let mut places: Vec<usize> =
            equal.into_iter().chain(index.as_ref().map(|i| &i.others)).flatten().copied().collect();
        places.sort_unstable();
        if !self.note(node, *path) {
            self.forget(mark);
            return None;
        }
        let found = places.into_iter().filter_map(|place| {
            Some(Val::Node(items.get(place)?, self.child_path(*path, Segment::Index(place))))
        });
        Some(found.collect())
    }

    fn index_of(&mut self, items: &'a [Value], field: &'a [usize]) -> Option<Rc<Index<'a>>> {
        let key = (items.as_ptr(), field);
        if let Some(index) = self.indices.get(&key) {
            return Some(Rc::clone(index));
        }
        if !self.count_steps(items.len() as u64) {
            return None;
        }
        let mut index = Index::default();
        for (place, item) in items.iter().enumerate() {
            let value = field.iter().try_fold(item, |value, step| match value {
                Value::Record(fields) => fields.get(*step),
                _ => None,
            });
            match value {
                Some(Value::Text(text)) => index.texts.entry(text).or_default().push(place),
                Some(Value::Int(number)) => index.numbers.entry(*number).or_default().push(place),
                _ => index.others.push(place),
            }
        }
        let index = Rc::new(index);
        self.indices.insert(key, Rc::clone(&index));
        Some(index)
    }
}

/// The field of the variable in `slot`, and the value, of which a condition holds only if both are equal (or, `unless` they are, holds
/// in any case).
fn compared(condition: &Expr, slot: usize, unless: bool) -> Option<(&[usize], &Expr)> {
    let below = |a, b| compared(a, slot, unless).or_else(|| compared(b, slot, unless));
    match &condition.node {
        Node::And(a, b) if !unless => below(a, b),
        Node::Or(a, b) if unless => below(a, b),
        Node::Compare(Comparison::Equal, a, b) if !unless => sides(a, b, slot),
        Node::Compare(Comparison::NotEqual, a, b) if unless => sides(a, b, slot),
        _ => None,
    }
}

fn sides<'e>(a: &'e Expr, b: &'e Expr, slot: usize) -> Option<(&'e [usize], &'e Expr)> {
    let field = |expr: &'e Expr| match &expr.node {
        Node::Access { base: Base::Variable(of), steps, .. } if *of == slot => Some(steps.as_slice()),
        _ => None,
    };
    let (field, value) = field(a).map(|field| (field, b)).or_else(|| Some((field(b)?, a)))?;
    let mut is_free = true;
    value.walk(&mut |expr| {
        is_free &= !matches!(&expr.node, Node::Access { base: Base::Variable(of), .. } if *of == slot);
    });
    is_free.then_some((field, value))
}
