//! Parser of YAML and JSON that a guest's software reads, in bounds: aliases cannot multiply the text, nor nesting exhaust the
//! stack.
//!
//! Anchors, aliases and merge keys are followed. Scalars stay text, as settings are compared and parsed as text.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Most levels of lists and mappings.
const DEEPEST: usize = 32;
/// Most that a document may cost, aliases written out: bytes of text, and [`NODE`] for each value.
const MOST_COST: usize = 2 << 20;
/// Cost of a value without its text.
const NODE: usize = 64;

/// Parses one document; none if any of it is not understood.
pub(crate) fn parse(text: &str) -> Option<Value> {
    let mut builder = Builder::default();
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        match event.ok()?.0 {
            Event::DocumentStart(_) => documents += 1,
            Event::Alias(anchor) => {
                let (value, cost) = builder.anchors.get(&anchor).cloned()?;
                builder.pay(cost)?;
                builder.add(value)?;
            }
            Event::Scalar(text, style, anchor, _) => {
                let start = builder.cost;
                builder.pay(NODE + text.len())?;
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::String(text.into_owned()) };
                builder.complete(value, anchor, start)?;
            }
            Event::SequenceStart(anchor, _) => builder.open(anchor, Content::List(Vec::new()))?,
            Event::MappingStart(anchor, _) => builder.open(anchor, Content::Map(Map::new(), None))?,
            Event::SequenceEnd | Event::MappingEnd => {
                let Open { anchor, start, content } = builder.stack.pop()?;
                let value = match content {
                    Content::List(items) => Value::Array(items),
                    Content::Map(fields, _) => Value::Object(merged(fields)),
                };
                builder.complete(value, anchor, start)?;
            }
            _ => {}
        }
    }
    builder.done.filter(|_| documents == 1)
}

/// A list or mapping that is not complete yet.
struct Open {
    anchor: usize,
    /// Cost of the document before it.
    start: usize,
    content: Content,
}

enum Content {
    List(Vec<Value>),
    /// Fields, and the key whose value comes next.
    Map(Map<String, Value>, Option<String>),
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    /// Complete values by the number of their anchor, with their costs.
    anchors: HashMap<usize, (Value, usize)>,
    cost: usize,
    done: Option<Value>,
}

impl Builder {
    fn pay(&mut self, cost: usize) -> Option<()> {
        self.cost = self.cost.saturating_add(cost);
        (self.cost <= MOST_COST).then_some(())
    }

    fn open(&mut self, anchor: usize, content: Content) -> Option<()> {
        let start = self.cost;
        self.pay(NODE)?;
        self.stack.push(Open { anchor, start, content });
        (self.stack.len() <= DEEPEST).then_some(())
    }

    fn complete(&mut self, value: Value, anchor: usize, start: usize) -> Option<()> {
        if anchor != 0 {
            let cost = self.cost - start;
            self.pay(cost)?;
            self.anchors.insert(anchor, (value.clone(), cost));
        }
        self.add(value)
    }

    fn add(&mut self, value: Value) -> Option<()> {
        match self.stack.last_mut().map(|open| &mut open.content) {
            None => self.done = Some(value),
            Some(Content::List(items)) => items.push(value),
            Some(Content::Map(fields, key)) => match key.take() {
                // Which of two values counts depends on who reads them.
                Some(name) => return fields.insert(name, value).is_none().then_some(()),
                None => *key = Some(value.as_str()?.to_owned()),
            },
        }
        Some(())
    }
}

/// Fields of a mapping with those of its merge key `<<`, which never replace its own.
fn merged(mut fields: Map<String, Value>) -> Map<String, Value> {
    let from = match fields.remove("<<") {
        Some(Value::Array(several)) => several,
        one => one.into_iter().collect(),
    };
    for (name, value) in from.into_iter().filter_map(|one| one.as_object().cloned()).flatten() {
        fields.entry(name).or_insert(value);
    }
    fields
}
