//! The types that rules are checked against, built from the JSON Schema of the Rust types.
//!
//! There is no second list of fields: name, type, unit, optionality, documentation and example of every fact come
//! from `src/fact`. The documents of rules and tests are read through the same types.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
};

use schemars::{JsonSchema, schema_for};
use serde_json::Value as Json;

use super::unit::Unit;
use crate::fact::{Facts, Forecast};

/// What kind of value something is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// Anything; also the type of an expression with a problem, so that one mistake is told once.
    Any,
    /// Only `null`.
    Null,
    Bool,
    /// A whole number within bounds.
    Int {
        min: Option<i64>,
        max: Option<i64>,
    },
    Double,
    Text,
    /// A text out of a fixed list.
    Enum(Arc<Choices>),
    Version,
    Timestamp,
    Duration,
    List(Arc<Type>),
    /// Names to values of one type.
    Map(Arc<Type>),
    Record(Arc<Record>),
    /// One of several shapes, in documents only.
    OneOf(Arc<Vec<Type>>),
    /// Values of different kinds, which can be printed and nothing else.
    Mixed,
}

/// A kind with what else is known of the value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Type {
    pub(crate) kind: Kind,
    /// Whether it can be absent (null).
    pub(crate) optional: bool,
    /// Whether it can be unknown.
    pub(crate) unknowable: bool,
    /// Unit of a number, or of the numbers of a list.
    pub(crate) unit: Unit,
}

/// A fixed list of texts.
#[derive(Debug, PartialEq)]
pub(crate) struct Choices {
    pub(crate) choices: Vec<Choice>,
}

/// One of a fixed list of texts.
#[derive(Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) text: Arc<str>,
    pub(crate) description: String,
}

/// A value with named fields.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
}

/// A named field of a record.
#[derive(Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) ty: Type,
    /// Whether a document must have it.
    pub(crate) required: bool,
    pub(crate) description: String,
    pub(crate) example: Option<Json>,
}

impl Record {
    /// Position and field of that name.
    pub(crate) fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields.iter().enumerate().find(|(_, field)| field.name == name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }
}

impl Choices {
    pub(crate) fn find(&self, text: &str) -> Option<&Choice> {
        self.choices.iter().find(|choice| &*choice.text == text)
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.choices.iter().map(|choice| &*choice.text)
    }
}

impl Type {
    pub(crate) fn plain(kind: Kind) -> Self {
        Self { kind, optional: false, unknowable: false, unit: Unit::Count }
    }

    pub(crate) fn number(kind: Kind, unit: Unit) -> Self {
        Self { unit, ..Self::plain(kind) }
    }

    pub(crate) const INT: Kind = Kind::Int { min: None, max: None };

    pub(crate) fn any() -> Self {
        Self { unit: Unit::Any, ..Self::plain(Kind::Any) }
    }

    pub(crate) fn list(of: Type) -> Self {
        Self { unit: of.unit, ..Self::plain(Kind::List(Arc::new(of))) }
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self.kind, Kind::Int { .. } | Kind::Double)
    }

    /// The type of the items of a list.
    pub(crate) fn item(&self) -> Option<&Type> {
        match &self.kind {
            Kind::List(item) => Some(item),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anything"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("true or false"),
            Self::Int { .. } => f.write_str("a whole number"),
            Self::Double => f.write_str("a number"),
            Self::Text => f.write_str("a text"),
            Self::Enum(choices) => {
                f.write_str("one of ")?;
                for (index, text) in choices.texts().enumerate() {
                    write!(f, "{}`{text}`", if index == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Version => f.write_str("a version"),
            Self::Timestamp => f.write_str("a time"),
            Self::Duration => f.write_str("a duration"),
            Self::List(item) => write!(f, "a list of {}", item.kind.plural()),
            Self::Map(item) => write!(f, "names with {}", item.kind.plural()),
            Self::Record(record) => write!(f, "a group of fields ({})", record.name),
            Self::OneOf(types) => {
                for (index, ty) in types.iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { "" } else { ", or " }, ty.kind)?;
                }
                Ok(())
            }
            Self::Mixed => f.write_str("values of different kinds"),
        }
    }
}

impl Kind {
    fn plural(&self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Int { .. } => "whole numbers".to_owned(),
            Self::Double => "numbers".to_owned(),
            Self::Text | Self::Enum(_) => "texts".to_owned(),
            Self::Version => "versions".to_owned(),
            Self::Timestamp => "times".to_owned(),
            Self::Record(record) => record.name.clone(),
            Self::List(item) => format!("lists of {}", item.kind.plural()),
            _ => "values".to_owned(),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if self.is_number() && !matches!(self.unit, Unit::Any | Unit::Count) {
            write!(f, " ({})", self.unit)?;
        }
        if self.optional {
            f.write_str(" or absent")?;
        }
        Ok(())
    }
}

/// The fields of the facts document that are about the document and not about the move.
const ABOUT_THE_DOCUMENT: [&str; 3] = ["schema", "collected_at", "provenance"];

/// What stands at the root of an expression: the groups of facts, `forecast` and `now`.
pub(crate) static ROOT: LazyLock<Arc<Record>> = LazyLock::new(|| {
    let mut fields: Vec<Field> = match &of_schema::<Facts>().kind {
        Kind::Record(facts) => facts
            .fields
            .iter()
            .filter(|field| !ABOUT_THE_DOCUMENT.contains(&field.name.as_str()))
            .map(|field| Field {
                name: field.name.clone(),
                ty: field.ty.clone(),
                required: false,
                description: field.description.clone(),
                example: None,
            })
            .collect(),
        _ => Vec::new(),
    };
    fields.push(Field {
        name: "forecast".to_owned(),
        ty: of_schema::<Forecast>(),
        required: false,
        description: "The predicted migration.".to_owned(),
        example: None,
    });
    fields.push(Field {
        name: "now".to_owned(),
        ty: Type::plain(Kind::Timestamp),
        required: false,
        description: "The time of the check.".to_owned(),
        example: Some(Json::String("2026-11-23T01:00:00Z".to_owned())),
    });
    Arc::new(Record { name: "facts".to_owned(), fields })
});

/// The type of a Rust type's JSON form.
pub(crate) fn of_schema<T: JsonSchema>() -> Type {
    let schema = schema_for!(T).to_value();
    let empty = serde_json::Map::new();
    let definitions = schema.get("$defs").and_then(Json::as_object).unwrap_or(&empty);
    let mut reader = SchemaReader { definitions, done: HashMap::new(), depth: 0 };
    let name = schema.get("title").and_then(Json::as_str).unwrap_or("document").to_owned();
    reader.read(&schema, "", &name)
}

struct SchemaReader<'a> {
    definitions: &'a serde_json::Map<String, Json>,
    done: HashMap<String, Type>,
    depth: usize,
}

impl SchemaReader<'_> {
    /// `field` is the name of the field that has this schema, for its unit.
    fn read(&mut self, schema: &Json, field: &str, name: &str) -> Type {
        if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
            return self.referenced(reference, field);
        }
        if let Some(shapes) = schema.get("anyOf").and_then(Json::as_array) {
            return self.any_of(shapes, field);
        }
        if let Some(choices) = choices(schema) {
            return Type::plain(Kind::Enum(Arc::new(choices)));
        }
        if let Some(shapes) = schema.get("oneOf").and_then(Json::as_array) {
            return self.any_of(shapes, field);
        }
        let (types, optional) = match schema.get("type") {
            Some(Json::String(one)) => (one.as_str(), false),
            Some(Json::Array(several)) => {
                let known = several.iter().filter_map(Json::as_str).find(|ty| *ty != "null");
                (known.unwrap_or("null"), several.iter().any(|ty| ty == "null"))
            }
            _ => ("", false),
        };
        let bound = |key: &str| {
            let bound = schema.get(key)?;
            bound.as_i64().or_else(|| bound.as_f64().map(|bound| bound as i64))
        };
        let format = schema.get("format").and_then(Json::as_str).unwrap_or_default();
        let kind = match types {
            "boolean" => Kind::Bool,
            "integer" => Kind::Int {
                min: bound("minimum"),
                max: bound("maximum").or((format == "uint32").then_some(i64::from(u32::MAX))),
            },
            "number" => Kind::Double,
            "string" if format == "version" => Kind::Version,
            "string" if format == "date-time" => Kind::Timestamp,
            "string" => Kind::Text,
            "null" => Kind::Null,
            "array" => {
                let item = schema.get("items").map_or_else(Type::any, |items| self.read(items, field, name));
                Kind::List(Arc::new(item))
            }
            "object" => self.object(schema, name),
            _ => Kind::Any,
        };
        let unit = if kind == Kind::Any { Unit::Any } else { Unit::of_name(field) };
        Type { kind, optional, unknowable: false, unit }
    }

    fn referenced(&mut self, reference: &str, field: &str) -> Type {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        if let Some(done) = self.done.get(name) {
            return Type { unit: Unit::of_name(field), ..done.clone() };
        }
        // Recursive types would not end; no fact is one, and a document's are read as anything.
        if self.depth > 24 {
            return Type::any();
        }
        self.depth += 1;
        let ty = match self.definitions.get(name) {
            Some(definition) => self.read(&definition.clone(), field, name),
            None => Type::any(),
        };
        self.depth -= 1;
        if matches!(ty.kind, Kind::Record(_) | Kind::Enum(_)) {
            self.done.insert(name.to_owned(), ty.clone());
        }
        ty
    }

    fn any_of(&mut self, shapes: &[Json], field: &str) -> Type {
        let (mut optional, mut unknowable) = (false, false);
        let mut types = Vec::new();
        for shape in shapes {
            if shape.get("$ref").and_then(Json::as_str) == Some("#/$defs/Unknown") {
                unknowable = true;
                continue;
            }
            let ty = self.read(shape, field, "");
            optional |= ty.optional;
            unknowable |= ty.unknowable;
            if ty.kind == Kind::Null {
                optional = true;
            } else {
                types.push(ty);
            }
        }
        if types.len() == 1
            && let Some(only) = types.pop()
        {
            return Type { optional, unknowable, ..only };
        }
        Type { optional, unknowable, ..Type::plain(Kind::OneOf(Arc::new(types))) }
    }

    fn object(&mut self, schema: &Json, name: &str) -> Kind {
        let Some(properties) = schema.get("properties").and_then(Json::as_object) else {
            return match schema.get("additionalProperties") {
                Some(values @ Json::Object(_)) => Kind::Map(Arc::new(self.read(values, "", name))),
                _ => Kind::Map(Arc::new(Type::any())),
            };
        };
        let required = schema.get("required").and_then(Json::as_array);
        let fields = properties
            .iter()
            .map(|(field, schema)| Field {
                name: field.clone(),
                ty: self.read(schema, field, field),
                required: required.is_some_and(|names| names.iter().any(|name| name == field)),
                description: text(schema, "description"),
                example: schema
                    .get("examples")
                    .and_then(|examples| examples.get(0))
                    .or_else(|| schema.get("example"))
                    .cloned(),
            })
            .collect();
        Kind::Record(Arc::new(Record { name: name.to_owned(), fields }))
    }
}

/// The type of a field of a record that itself stands in a field of type `owner`: the quantiles of
/// `blackout_seconds` are seconds.
pub(crate) fn field_type(owner: &Type, field: &Field) -> Type {
    let inherits = field.ty.is_number() && field.ty.unit == Unit::Count && owner.item().is_none();
    if inherits { Type { unit: owner.unit, ..field.ty.clone() } } else { field.ty.clone() }
}

fn text(schema: &Json, key: &str) -> String {
    schema.get(key).and_then(Json::as_str).unwrap_or_default().to_owned()
}

/// The texts of a schema that allows only some.
fn choices(schema: &Json) -> Option<Choices> {
    if let Some(texts) = schema.get("enum").and_then(Json::as_array) {
        let choices = texts
            .iter()
            .filter_map(Json::as_str)
            .map(|text| Choice { text: text.into(), description: String::new() })
            .collect();
        return Some(Choices { choices });
    }
    if let Some(only) = schema.get("const").and_then(Json::as_str) {
        return Some(Choices {
            choices: vec![Choice { text: only.into(), description: text(schema, "description") }],
        });
    }
    let shapes = schema.get("oneOf")?.as_array()?;
    let mut all = Vec::new();
    for shape in shapes {
        all.extend(choices(shape)?.choices);
    }
    Some(Choices { choices: all })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(path: &str, from: &'a Record) -> &'a Field {
        match path.split_once('.') {
            None => from.field(path).unwrap().1,
            Some((head, rest)) => {
                let ty = &from.field(head).unwrap().1.ty;
                match &ty.item().unwrap_or(ty).kind {
                    Kind::Record(record) => field(rest, record),
                    other => panic!("{head} is {other}"),
                }
            }
        }
    }

    #[test]
    fn types_units_and_optionality_come_from_the_rust_types() {
        let memory = field("vm.memory_bytes", &ROOT);
        assert_eq!(memory.ty.kind, Kind::Int { min: Some(0), max: None });
        assert_eq!(memory.ty.unit, Unit::BYTES);
        assert!(memory.ty.unknowable && !memory.ty.optional);
        assert!(!memory.description.is_empty() && memory.example.is_some());
        assert!(field("vm.job", &ROOT).ty.optional);
        assert!(field("guest.udp.sockets.service", &ROOT).ty.optional);
        assert_eq!(field("guest.udp.sockets.service.id", &ROOT).ty.kind, Kind::Text);
        assert_eq!(field("vm.qemu_version", &ROOT).ty.kind, Kind::Version);
        assert_eq!(field("change.window_end", &ROOT).ty.kind, Kind::Timestamp);
        assert_eq!(field("source.nics.addresses", &ROOT).ty.item().unwrap().kind, Kind::Text);
        let port = field("guest.tcp.listeners.port", &ROOT);
        assert_eq!(port.ty.kind, Kind::Int { min: Some(0), max: Some(65535) });
        let Kind::Enum(choices) = &field("vm.state", &ROOT).ty.kind else { panic!("no enum") };
        assert!(choices.find("shut-off").is_some_and(|choice| choice.description == "Not running."));
        assert_eq!(field("forecast.blackout_seconds.p95", &ROOT).ty.kind, Kind::Double);
    }

    #[test]
    fn every_fact_has_documentation() {
        fn walk(record: &Record, path: &str) {
            for field in &record.fields {
                assert!(!field.description.is_empty(), "{path}.{} has no documentation", field.name);
                let inner = field.ty.item().unwrap_or(&field.ty);
                match &inner.kind {
                    Kind::Record(record) => walk(record, &format!("{path}.{}", field.name)),
                    _ => assert!(field.example.is_some(), "{path}.{} has no example", field.name),
                }
            }
        }
        walk(&ROOT, "");
    }
}
