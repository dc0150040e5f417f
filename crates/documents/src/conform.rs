//! Checks a document against a type, and reports every mismatch with its path, not just the first.

use std::{
    fmt,
    ops::Range,
    sync::{Arc, LazyLock},
};

use serde_json::Value as Json;
use vmgate_facts::{Day, Unknown, Version};

use super::{
    MOST_PROBLEMS, Node, Problem, SourceFile, closest,
    schema::type_of_schema,
    types::{Kind, Record, Type},
};

/// `{unknown: why, cause: …}`.
static UNKNOWN: LazyLock<Type> = LazyLock::new(type_of_schema::<Unknown>);

/// One step of the path to a value in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    Key(String),
    Index(usize),
}

/// One mismatch between a document and its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    pub path: Vec<Segment>,
    /// True if the key is wrong and not its value.
    pub at_key: bool,
    pub message: String,
    pub help: Option<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", dotted(&self.path))?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

/// The path as a rule writes it.
pub(crate) fn dotted(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) if text.is_empty() => text.push_str(key),
            Segment::Key(key) => text.extend([".", key]),
            Segment::Index(index) => text.extend(["[", &index.to_string(), "]"]),
        }
    }
    text
}

/// Everything in which `document` differs from `ty`.
pub fn conform(document: &Json, ty: &Type) -> Vec<Mismatch> {
    let mut walk = Walk { path: Vec::new(), found: Vec::new() };
    walk.value(document, ty);
    walk.found
}

/// As [`conform`], for a document with positions.
pub fn conform_node(file: &Arc<SourceFile>, node: &Node, ty: &Type) -> Vec<Problem> {
    conform(&node.to_json(), ty)
        .into_iter()
        .map(|mismatch| {
            let span = span_of(node, &mismatch.path, mismatch.at_key);
            let message = if mismatch.path.is_empty() {
                mismatch.message
            } else {
                format!("`{}`: {}", dotted(&mismatch.path), mismatch.message)
            };
            let problem = Problem::at(file, span, message).label("here");
            match mismatch.help {
                Some(help) => problem.help(help),
                None => problem,
            }
        })
        .collect()
}

/// Byte range of the value at `path`, or of its key.
fn span_of(root: &Node, path: &[Segment], at_key: bool) -> Range<usize> {
    let mut node = root;
    for (depth, segment) in path.iter().enumerate() {
        let last = depth + 1 == path.len();
        let next = match segment {
            Segment::Key(key) if last && at_key => node.key(key),
            Segment::Key(key) => node.get(key),
            Segment::Index(index) => node.items().get(*index),
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node.span.clone()
}

struct Walk {
    path: Vec<Segment>,
    found: Vec<Mismatch>,
}

impl Walk {
    fn report(&mut self, message: impl Into<String>, help: Option<String>) {
        self.add(false, message.into(), help);
    }

    fn add(&mut self, at_key: bool, message: String, help: Option<String>) {
        if self.found.len() < MOST_PROBLEMS {
            self.found.push(Mismatch { path: self.path.clone(), at_key, message, help });
        }
    }

    fn inside(&mut self, segment: Segment, walk: impl FnOnce(&mut Self)) {
        self.path.push(segment);
        walk(self);
        self.path.pop();
    }

    fn value(&mut self, value: &Json, ty: &Type) {
        if value.is_null() && (ty.optional || matches!(ty.kind, Kind::Any | Kind::Null)) {
            return;
        }
        if value.get("unknown").is_some()
            && !matches!(&ty.kind, Kind::Record(record) if record.field("unknown").is_some())
        {
            return self.unknown(value, ty);
        }
        match (&ty.kind, value) {
            (Kind::Any | Kind::Mixed, _)
            | (Kind::Bool, Json::Bool(_))
            | (Kind::Text, Json::String(_))
            | (Kind::Double, Json::Number(_)) => {}
            (Kind::Int { min, max }, Json::Number(number)) => match number.as_i64() {
                None if number.as_u64().is_some() && max.is_none() => {}
                None => self.wrong(value, ty),
                Some(number)
                    if min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max) =>
                {
                    let bound = |bound: &Option<i64>| bound.map_or_else(|| "…".to_owned(), |b| b.to_string());
                    self.report(
                        format!("{number} is out of range"),
                        Some(format!("allowed: {} to {}", bound(min), bound(max))),
                    );
                }
                Some(_) => {}
            },
            (Kind::Enum(choices), Json::String(text)) => {
                if choices.find(text).is_none() {
                    let all: Vec<_> = choices.texts().collect();
                    let help = match closest(text, choices.texts()) {
                        Some(like) => format!("did you mean `{like}`?"),
                        None => format!("allowed values: {}", all.join(", ")),
                    };
                    self.report(format!("`{text}` is not an allowed value"), Some(help));
                }
            }
            (Kind::Version, Json::String(text)) => {
                if let Err(error) = text.parse::<Version>() {
                    self.report(error.to_string(), None);
                }
            }
            (Kind::Timestamp, Json::String(text)) => {
                if text.parse::<jiff::Timestamp>().is_err() {
                    let help = "write it as 2026-11-23T01:00:00Z".to_owned();
                    self.report(format!("`{text}` is not a time"), Some(help));
                }
            }
            (Kind::Day, Json::String(text)) => {
                if let Err(error) = text.parse::<Day>() {
                    self.report(error.to_string(), None);
                }
            }
            (Kind::Address, Json::String(text)) => {
                if text.parse::<std::net::IpAddr>().is_err() {
                    let help = "write it as 10.0.0.7 or fd00::7".to_owned();
                    self.report(format!("`{text}` is not an IP address"), Some(help));
                }
            }
            (Kind::List(item), Json::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    self.inside(Segment::Index(index), |walk| walk.value(value, item));
                }
            }
            (Kind::Map(item), Json::Object(values)) => {
                for (key, value) in values {
                    self.inside(Segment::Key(key.clone()), |walk| walk.value(value, item));
                }
            }
            (Kind::Record(record), Json::Object(values)) => self.record(record, values),
            (Kind::OneOf(types), _) => self.one_of(value, types, ty),
            _ => self.wrong(value, ty),
        }
    }

    fn wrong(&mut self, value: &Json, ty: &Type) {
        let given = match value {
            Json::Null => "null".to_owned(),
            Json::Bool(value) => format!("`{value}`"),
            Json::Number(value) => format!("the number {value}"),
            Json::String(value) => format!("the text `{}`", value.chars().take(60).collect::<String>()),
            Json::Array(_) => "a list".to_owned(),
            Json::Object(_) => "a mapping".to_owned(),
        };
        let help = match (value, &ty.kind) {
            (Json::Null, _) => Some(
                "null is not allowed here; leave the field out, or give the reason why the value is unknown"
                    .to_owned(),
            ),
            (Json::String(text), Kind::Int { .. } | Kind::Double) => {
                let number = text.parse::<f64>().is_ok();
                let way_out = if number {
                    "write it without quotes"
                } else {
                    "write digits; the unit is in the name or the documentation"
                };
                Some(way_out.to_owned())
            }
            (Json::String(_), Kind::Bool) => Some("write `true` or `false` without quotes".to_owned()),
            (Json::Number(_), Kind::Text | Kind::Version) => Some("put it in quotes".to_owned()),
            _ => None,
        };
        self.report(format!("expected {}, found {given}", expected(&ty.kind)), help);
    }

    /// Checks `{unknown: why, cause: …}` in place of a value.
    fn unknown(&mut self, value: &Json, ty: &Type) {
        if !ty.unknowable && ty.kind != Kind::Any {
            let help =
                "the field belongs to a fact that is known or unknown as a whole: set the whole fact to unknown".to_owned();
            return self.report("this field cannot be unknown by itself", Some(help));
        }
        if let (Kind::Record(record), Json::Object(values)) = (&UNKNOWN.kind, value) {
            self.record(record, values);
        }
    }

    fn record(&mut self, record: &Record, values: &serde_json::Map<String, Json>) {
        for (key, value) in values {
            self.path.push(Segment::Key(key.clone()));
            if let Some((_, field)) = record.field(key) {
                self.value(value, &field.ty);
            } else {
                let help = match closest(key, record.names()) {
                    Some(like) => format!("did you mean `{like}`?"),
                    None => format!("known fields: {}", record.names().collect::<Vec<_>>().join(", ")),
                };
                self.add(true, "there is no such field".to_owned(), Some(help));
            }
            self.path.pop();
        }
        for field in record.fields.iter().filter(|field| field.required && !values.contains_key(&field.name))
        {
            let help = (!field.description.is_empty()).then(|| field.description.clone());
            self.report(format!("`{}` is missing", field.name), help);
        }
    }

    /// Checks against several shapes. If none matches, reports the problems of the shape whose outer form fits.
    fn one_of(&mut self, value: &Json, types: &[Type], whole: &Type) {
        let mut best: Option<Vec<Mismatch>> = None;
        for ty in types {
            let mut walk = Walk { path: self.path.clone(), found: Vec::new() };
            walk.value(value, ty);
            if walk.found.is_empty() {
                return;
            }
            let form = matches!(
                (&ty.kind, value),
                (Kind::List(_), Json::Array(_))
                    | (Kind::Record(_) | Kind::Map(_), Json::Object(_))
                    | (Kind::Enum(_), Json::String(_))
            );
            if form && best.as_ref().is_none_or(|best| walk.found.len() < best.len()) {
                best = Some(walk.found);
            }
        }
        match best {
            Some(found) => self.found.extend(found),
            None => self.wrong(value, whole),
        }
    }
}

/// Name of a kind for messages about documents.
fn expected(kind: &Kind) -> String {
    let Kind::Record(record) = kind else { return kind.to_string() };
    let quoted: Vec<String> = record.names().take(3).map(|name| format!("`{name}`")).collect();
    let more = if record.fields.len() > quoted.len() { " and so on" } else { "" };
    format!("a mapping with {}{more}", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use vmgate_facts::Facts;

    use super::*;

    #[test]
    fn of_countless_mistakes_some_are_told() {
        let document: Json = (0..50_000).map(|at| (format!("k{at}"), Json::Null)).collect();
        assert_eq!(conform(&document, &type_of_schema::<Facts>()).len(), MOST_PROBLEMS);
    }

    #[test]
    fn all_mismatches_come_back_with_their_paths() {
        let document = serde_json::json!({
            "schema": "vmgate/facts/v1", "collected_at": "yesterday",
            "vm": {"nam": "web1", "vcpus": -1, "state": "runing", "job": null, "uuid": null, "qemu_version": "7.x",
                   "nics": [{"mac": 3, "kind": "bridge", "source": null, "tap": null, "model": null}]},
            "guest": {"unknown": "no agent", "cause": "no-agent"},
            "sorce": {}
        });
        let errors: Vec<String> =
            conform(&document, &type_of_schema::<Facts>()).iter().map(Mismatch::to_string).collect();
        let expected = [
            "collected_at: `yesterday` is not a time (write it as 2026-11-23T01:00:00Z)",
            "vm.nam: there is no such field (did you mean `name`?)",
            "vm.vcpus: -1 is out of range (allowed: 0 to 4294967295)",
            "vm.state: `runing` is not an allowed value (did you mean `running`?)",
            "vm.uuid: expected a text, found null (null is not allowed here; leave the field out, or give the reason why the value is unknown)",
            "vm.qemu_version: `7.x` is not a version: expected one to three numbers with dots between, such as 7.2.22",
            "vm.nics[0].mac: expected a text, found the number 3 (put it in quotes)",
            "vm.nics[0]: `link_up` is missing (True if libvirt's configuration sets the link up.)",
            "guest.cause: `no-agent` is not an allowed value (did you mean `no-guest-agent`?)",
            "sorce: there is no such field (did you mean `source`?)",
        ];
        assert_eq!(errors, expected);
    }
}
