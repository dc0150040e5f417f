//! Root of expressions: the names that every expression can begin with.
//!
//! There is no second list of fields: name, type, unit, optionality, documentation and example of every fact come
//! from `vmgate-facts`.

use std::sync::{Arc, LazyLock};

use serde_json::Value as Json;
use vmgate_documents::{
    schema::type_of_schema,
    types::{Field, Kind, Names, Record, Type},
};
use vmgate_facts::{Facts, Forecast};

/// Fields of the facts document that describe the document and not the move.
const ABOUT_THE_DOCUMENT: [&str; 3] = ["schema", "collected_at", "provenance"];

/// Type of the root of expressions: the groups of facts, `forecast` and `now`.
pub(crate) static ROOT: LazyLock<Arc<Record>> = LazyLock::new(|| {
    let mut fields: Vec<Field> = match &type_of_schema::<Facts>().kind {
        Kind::Record(facts) => facts
            .fields
            .iter()
            .filter(|field| !ABOUT_THE_DOCUMENT.contains(&field.name.as_str()))
            .map(|field| Field {
                name: field.name.clone(),
                ty: in_rules(&field.ty),
                required: false,
                description: field.description.clone(),
                example: None,
                learnt_by: field.learnt_by.clone(),
                names: Names::Any,
                absent: None,
            })
            .collect(),
        _ => Vec::new(),
    };
    fields.push(Field {
        name: "forecast".to_owned(),
        ty: type_of_schema::<Forecast>(),
        required: false,
        description: "The predicted migration.".to_owned(),
        example: None,
        learnt_by: Vec::new(),
        names: Names::Any,
        absent: None,
    });
    fields.push(Field {
        name: "now".to_owned(),
        ty: Type::plain(Kind::Timestamp),
        required: false,
        description: "The time of the check.".to_owned(),
        example: Some(Json::String("2026-11-23T01:00:00Z".to_owned())),
        learnt_by: Vec::new(),
        names: Names::Any,
        absent: None,
    });
    Arc::new(Record { name: "facts".to_owned(), fields })
});

/// The type as rules have it: a value whose absence means that nobody asked is not absent but unknown.
fn in_rules(ty: &Type) -> Type {
    let kind = match &ty.kind {
        Kind::Record(record) => {
            let field = |field: &Field| {
                let ty = in_rules(&field.ty);
                let ty = if field.absent.is_some() {
                    Type { optional: false, unknowable: true, ..ty }
                } else {
                    ty
                };
                Field { ty, ..field.clone() }
            };
            let fields = record.fields.iter().map(field).collect();
            Kind::Record(Arc::new(Record { name: record.name.clone(), fields }))
        }
        Kind::List(item) => Kind::List(Arc::new(in_rules(item))),
        Kind::Map(item) => Kind::Map(Arc::new(in_rules(item))),
        other => other.clone(),
    };
    Type { kind, ..ty.clone() }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::Unit;

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
                // A recording, packed; rules name what is made of it.
                if field.name == "dirty_trace" {
                    continue;
                }
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
