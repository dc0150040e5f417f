//! Derives document types from the JSON Schemas of Rust types.

use std::{collections::HashMap, sync::Arc};

use schemars::{JsonSchema, schema_for};
use serde_json::Value as Json;
use vmgate_facts::{Absence, CollectionMethod, Names as ListedNames, Unit};

use super::types::{Choice, Choices, Field, Kind, Names, Record, Type};

/// The type of a Rust type's JSON form.
pub fn type_of_schema<T: JsonSchema>() -> Type {
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
    /// Reads the schema of `field`, whose name gives the unit.
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
            bound.as_i64().or_else(|| format!("{:.0}", bound.as_f64()?).parse().ok())
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
            "string" if format == "date" => Kind::Day,
            "string" if format == "ip" => Kind::Address,
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
                learnt_by: schema
                    .get(CollectionMethod::KEYWORD)
                    .and_then(|means| serde_json::from_value(means.clone()).ok())
                    .unwrap_or_default(),
                names: names(schema),
                absent: schema.get(Absence::KEYWORD).and_then(|why| serde_json::from_value(why.clone()).ok()),
            })
            .collect();
        Kind::Record(Arc::new(Record { name: name.to_owned(), fields }))
    }
}

fn text(schema: &Json, key: &str) -> String {
    schema.get(key).and_then(Json::as_str).unwrap_or_default().to_owned()
}

/// Names that a schema gives for a text, or for the texts of a list.
fn names(schema: &Json) -> Names {
    match schema.get(ListedNames::KEYWORD) {
        Some(Json::Array(texts)) => {
            Names::Listed(texts.iter().filter_map(Json::as_str).map(Into::into).collect())
        }
        Some(Json::String(word))
            if [ListedNames::OWN, ListedNames::FREE, ListedNames::CATALOGUE].contains(&word.as_str()) =>
        {
            Names::Free
        }
        _ => Names::Any,
    }
}

/// Allowed texts of a schema, if it limits them.
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
