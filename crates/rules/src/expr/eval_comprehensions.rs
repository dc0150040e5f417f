//! Evaluation of `all`, `exists`, `exists_one`, `filter` and `map`.

use std::rc::Rc;

use super::{
    eval::{Evaluator, Val},
    tree::{Expr, Quantifier},
};
use crate::value::Value;

/// Limit on the items that are named as deciding one comprehension.
const MOST_DECIDERS: usize = 8;

impl<'a> Evaluator<'a> {
    pub(super) fn quantify(
        &mut self,
        quantifier: Quantifier,
        list: &'a Expr,
        slot: usize,
        filter: Option<&'a Expr>,
        body: &'a Expr,
    ) -> Val<'a> {
        let start = self.mark();
        let list = self.eval(list);
        let condition = if quantifier == Quantifier::Map { filter } else { Some(body) };
        let found = condition.and_then(|condition| self.candidates(quantifier, &list, slot, condition));
        let Some(items) = found.or_else(|| self.items(&list)) else {
            return self.wrong_type(list, "a list");
        };
        if items.is_empty()
            && let Val::Node(node @ Value::List(all), path) = list
            && all.is_empty()
            && let Val::Unknown = self.read(node, path)
        {
            return Val::Unknown;
        }
        if !self.count_steps(items.len() as u64) {
            return self.too_many_steps();
        }
        match quantifier {
            Quantifier::All => self.decide(start, items, slot, body, false),
            Quantifier::Exists => self.decide(start, items, slot, body, true),
            Quantifier::ExistsOne => self.exists_one(items, slot, body),
            Quantifier::Filter => self.collect(items, slot, Some(body), None),
            Quantifier::Map => self.collect(items, slot, filter, Some(body)),
        }
    }

    /// Evaluates `all` and `exists`, which one item can decide. The evidence is the deciding items, or all items if none decided.
    pub(super) fn decide(
        &mut self,
        start: usize,
        items: Vec<Val<'a>>,
        slot: usize,
        body: &'a Expr,
        decider: bool,
    ) -> Val<'a> {
        let (mut deciders, mut unknown) = (0, false);
        for item in items {
            let mark = self.mark();
            self.bind(slot, item);
            let value = self.scalar(body);
            match self.as_bool(value) {
                Some(value) if value == decider => {
                    if deciders == 0 {
                        self.reads.drain(start..mark);
                    }
                    deciders += 1;
                    if deciders == MOST_DECIDERS {
                        break;
                    }
                }
                Some(_) if unknown || deciders > 0 => self.forget(mark),
                Some(_) => {}
                None if deciders > 0 => self.forget(mark),
                None => {
                    if !unknown {
                        self.reads.drain(start..mark);
                    }
                    unknown = true;
                }
            }
        }
        match (deciders > 0, unknown) {
            (true, _) => Val::Bool(decider),
            (false, true) => Val::Unknown,
            (false, false) => Val::Bool(!decider),
        }
    }

    pub(super) fn exists_one(&mut self, items: Vec<Val<'a>>, slot: usize, body: &'a Expr) -> Val<'a> {
        let (mut found, mut unknown) = (0, false);
        for item in items {
            self.bind(slot, item);
            let value = self.scalar(body);
            match self.as_bool(value) {
                Some(true) => found += 1,
                Some(false) => {}
                None => unknown = true,
            }
        }
        match (found, unknown) {
            (2.., _) => Val::Bool(false),
            (_, true) => Val::Unknown,
            (found, false) => Val::Bool(found == 1),
        }
    }

    /// Evaluates `filter` and `map`. If a condition is unknown, so is the list.
    pub(super) fn collect(
        &mut self,
        items: Vec<Val<'a>>,
        slot: usize,
        filter: Option<&'a Expr>,
        body: Option<&'a Expr>,
    ) -> Val<'a> {
        let mut collected = Vec::with_capacity(items.len());
        let mut unknown = false;
        for item in items {
            self.bind(slot, item.clone());
            if let Some(filter) = filter {
                let value = self.scalar(filter);
                match self.as_bool(value) {
                    Some(true) => {}
                    Some(false) => continue,
                    None => {
                        unknown = true;
                        continue;
                    }
                }
            }
            collected.push(match body {
                Some(body) => self.eval(body),
                None => item,
            });
        }
        if unknown { Val::Unknown } else { Val::List(Rc::new(collected)) }
    }
}
