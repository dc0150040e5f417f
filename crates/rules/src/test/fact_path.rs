//! Paths of facts, in the notation of tests and outcomes: parsed, typed, read and set.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use vmgate_documents::{
    closest,
    types::{Kind, Type},
};

use crate::{root::ROOT, value::Value};

/// Step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathStep {
    Field(String),
    Index(usize),
    /// A new item after the last.
    Append,
}

/// Parses a path: `vm.nics[0].tap`, `vm.nics.0.tap`, `vm.nics[+]` or `vm.nics.+`.
pub(super) fn parse(path: &str) -> Result<Vec<PathStep>, String> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (name, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        match name.parse() {
            Ok(index) => steps.push(PathStep::Index(index)),
            Err(_) if name == "+" => steps.push(PathStep::Append),
            Err(_) if name.is_empty() => return Err(format!("`{path}` is not a path: a name is missing")),
            Err(_) => steps.push(PathStep::Field(name.to_owned())),
        }
        while let Some(inner) = rest.strip_prefix('[') {
            let Some((index, after)) = inner.split_once(']') else {
                return Err(format!("`{path}` is not a path: a bracket is not closed"));
            };
            steps.push(match index {
                "+" => PathStep::Append,
                index => {
                    PathStep::Index(index.parse().map_err(|_| format!("`[{index}]` is not a position"))?)
                }
            });
            rest = after;
        }
        if !rest.is_empty() {
            return Err(format!("`{path}` is not a path"));
        }
    }
    Ok(steps)
}

/// Type of the fact at a path.
pub(super) fn type_at(steps: &[PathStep]) -> Result<Type, (String, Option<String>)> {
    let mut ty = Type::plain(Kind::Record(Arc::clone(&ROOT)));
    for step in steps {
        ty = match (&ty.kind, step) {
            (Kind::Record(record), PathStep::Field(name)) => {
                let Some((_, field)) = record.field(name) else {
                    let help = match closest(name, record.names()) {
                        Some(like) => format!("did you mean `{like}`?"),
                        None => {
                            format!("the facts here are: {}", record.names().collect::<Vec<_>>().join(", "))
                        }
                    };
                    return Err((format!("there is no fact `{name}`"), Some(help)));
                };
                field.ty.clone()
            }
            (Kind::List(item), PathStep::Index(_) | PathStep::Append) => (**item).clone(),
            (Kind::List(_), PathStep::Field(name)) => {
                return Err((
                    format!("the item of the list is missing before `{name}`"),
                    Some(format!("write `[0].{name}`")),
                ));
            }
            (kind, PathStep::Field(name)) => return Err((format!("{kind} has no field `{name}`"), None)),
            (kind, _) => return Err((format!("{kind} has no numbered items"), None)),
        };
    }
    Ok(ty)
}

/// Sets the value at a path of a document. Unknown or absent groups on the way become known and empty.
pub(super) fn set(document: &mut Json, steps: &[PathStep], value: Json) -> Result<(), String> {
    let Some((first, rest)) = steps.split_first() else {
        *document = value;
        return Ok(());
    };
    match first {
        PathStep::Field(name) => {
            if !document.is_object() || document.get("unknown").is_some() {
                *document = Json::Object(Map::new());
            }
            match document.as_object_mut() {
                Some(fields) => set(fields.entry(name.clone()).or_insert(Json::Null), rest, value),
                None => Ok(()),
            }
        }
        PathStep::Index(_) | PathStep::Append => {
            if !document.is_array() {
                *document = Json::Array(Vec::new());
            }
            let Some(items) = document.as_array_mut() else { return Ok(()) };
            let len = items.len();
            let index = if let PathStep::Index(index) = first { *index } else { len };
            if index == len {
                items.push(Json::Null);
            }
            match items.get_mut(index) {
                Some(item) => set(item, rest, value),
                None => Err(format!("the list has {len} items: write `[+]` to add one")),
            }
        }
    }
}

/// Finds the value at a path of the facts.
pub(super) fn find<'v>(root: &'v mut Value, steps: &[PathStep]) -> Option<&'v mut Value> {
    let mut ty = Type::plain(Kind::Record(Arc::clone(&ROOT)));
    let mut value = root;
    for step in steps {
        (value, ty) = match (value, step, &ty.kind) {
            (Value::Record(fields), PathStep::Field(name), Kind::Record(record)) => {
                let (index, field) = record.field(name)?;
                (fields.get_mut(index)?, field.ty.clone())
            }
            (Value::List(items), PathStep::Index(index), Kind::List(item)) => {
                (items.get_mut(*index)?, (**item).clone())
            }
            _ => return None,
        };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_facts() {
        let steps = parse("vm.nics[0].tap").unwrap();
        assert_eq!(steps, parse("vm.nics.0.tap").unwrap());
        assert_eq!(parse("vm.nics.+"), parse("vm.nics[+]"));
        assert!(type_at(&steps).unwrap().optional);
        assert_eq!(type_at(&parse("vm.nisc").unwrap()).unwrap_err().1.unwrap(), "did you mean `nics`?");
        for wrong in ["", "vm..x", "vm.nics[", "vm.nics[x]", "vm.nics[0]x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let mut document = serde_json::json!({"vm": {"unknown": "no answer"}});
        set(&mut document, &parse("vm.nics[+].tap").unwrap(), "vnet0".into()).unwrap();
        assert_eq!(document, serde_json::json!({"vm": {"nics": [{"tap": "vnet0"}]}}));
        assert!(set(&mut document, &parse("vm.nics[7]").unwrap(), Json::Null).is_err());
    }
}
