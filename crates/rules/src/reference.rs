//! Reference of the facts that rules can use: `vmgate rules facts [PATH]` and the JSON Schemas for editors.

use std::{fmt::Write, sync::Arc};

use schemars::schema_for;
use serde_json::Value as Json;
use thiserror::Error;
use vmgate_documents::{
    closest,
    types::{Field, Kind, Names, Type, field_type},
};
use vmgate_facts::{CollectionMethod, Facts, Unit};

use super::{
    catalogue::{
        ComponentCatalogue, ControlCatalogue, KnownFailureCatalogue, ManagerCatalogue, MemorySyncCatalogue,
        UdpCatalogue,
    },
    document::{ProfileDocument, RuleDocument},
    root::ROOT,
    test::{CatalogueTestDocument, TestDocument},
};

/// A fact that rules can use.
#[derive(Debug, Clone, PartialEq)]
pub struct FactField {
    /// Path of the fact; `[]` means any item of a list.
    pub path: String,
    /// Type of the value, in words.
    pub kind: String,
    /// Unit of a number.
    pub unit: Option<Unit>,
    /// True if the value can be absent: rules must guard it.
    pub optional: bool,
    /// Meaning of the fact.
    pub description: String,
    /// A possible value.
    pub example: Option<Json>,
    /// Values of an enumeration, each with its meaning.
    pub choices: Vec<(String, String)>,
    /// By what means it is learnt, its own or those of the group around it.
    pub learnt_by: Vec<CollectionMethod>,
    /// True if it has fields of its own.
    pub group: bool,
}

/// A path at which there is no fact.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no fact `{path}`{hint}")]
pub struct NoSuchFact {
    /// The path that was given.
    pub path: String,
    /// A suggestion.
    pub hint: String,
}

/// Returns the facts below a path, or all facts, in the order of their types.
pub fn fact_fields(path: Option<&str>) -> Result<Vec<FactField>, NoSuchFact> {
    let mut all = Vec::new();
    let root = Type::plain(Kind::Record(Arc::clone(&ROOT)));
    walk(&root, "", &[], &mut all);
    let Some(path) = path else { return Ok(all) };
    let wanted: String = plain_path(path);
    let found: Vec<FactField> = all
        .iter()
        .filter(|field| {
            let plain = plain_path(&field.path);
            plain == wanted || plain.strip_prefix(&wanted).is_some_and(|rest| rest.starts_with('.'))
        })
        .cloned()
        .collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let last = wanted.rsplit('.').next().unwrap_or(&wanted).to_owned();
    let hint = closest(&wanted, all.iter().map(|field| field.path.as_str()))
        .or_else(|| {
            all.iter().map(|field| field.path.as_str()).find(|path| path.rsplit('.').next() == Some(&last))
        })
        .map_or_else(
            || "; leave the path out to see all facts".to_owned(),
            |like| format!("; did you mean `{like}`?"),
        );
    Err(NoSuchFact { path: path.to_owned(), hint })
}

/// Removes positions from a path, so that `vm.nics[0].tap`, `vm.nics[].tap` and `vm.nics.tap` are the same.
fn plain_path(path: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => plain.push(c),
            _ => {}
        }
    }
    plain
}

fn walk(ty: &Type, path: &str, learnt_by: &[CollectionMethod], all: &mut Vec<FactField>) {
    let Kind::Record(record) = &ty.kind else { return };
    for field in &record.fields {
        let field_type = field_type(ty, field);
        let mut path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        let inner = field_type.item().cloned().unwrap_or_else(|| field_type.clone());
        let learnt_by = if field.learnt_by.is_empty() { learnt_by } else { &field.learnt_by };
        let number = inner.is_number() && !matches!(inner.unit, Unit::Any | Unit::Count);
        all.push(FactField {
            path: path.clone(),
            kind: kind_words(&field_type),
            unit: number.then_some(inner.unit),
            optional: field_type.optional,
            description: described(field),
            example: field.example.clone(),
            choices: match &inner.kind {
                Kind::Enum(choices) => choices
                    .choices
                    .iter()
                    .map(|choice| (choice.text.to_string(), choice.description.clone()))
                    .collect(),
                _ => Vec::new(),
            },
            learnt_by: learnt_by.to_vec(),
            group: matches!(inner.kind, Kind::Record(_)),
        });
        if field_type.item().is_some() {
            path.push_str("[]");
        }
        walk(&inner, &path, learnt_by, all);
    }
}

/// Documentation of a field, with the names that it may have.
fn described(field: &Field) -> String {
    match &field.names {
        Names::Listed(names) => {
            format!("{} Names: {}; another is unknown by its name.", field.description, names.join(", "))
        }
        Names::Any | Names::Free => field.description.clone(),
    }
}

fn kind_words(ty: &Type) -> String {
    match &ty.kind {
        Kind::Enum(_) => "one of a list".to_owned(),
        Kind::Record(_) => "group".to_owned(),
        Kind::List(item) if matches!(item.kind, Kind::Record(_)) => "list of groups".to_owned(),
        kind => kind.to_string(),
    }
}

/// Describes the facts below a path: one line for each fact, or all details if there is only one.
pub fn facts_reference(path: Option<&str>) -> Result<String, NoSuchFact> {
    let fields = fact_fields(path)?;
    if let [only] = fields.as_slice() {
        return Ok(fact_details(only));
    }
    let width = fields.iter().map(|field| field.path.len()).max().unwrap_or(0);
    let kinds = fields.iter().map(|field| short_kind(field).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut around: Vec<CollectionMethod> = Vec::new();
    for field in &fields {
        let kind = short_kind(field);
        let pad = " ".repeat(kinds.saturating_sub(kind.chars().count()));
        let _ = write!(text, "{:width$}  {kind}{pad}  {}", field.path, field.description);
        // Only if the way differs from that of the line before, which for most facts is their group.
        if field.learnt_by != around {
            around.clone_from(&field.learnt_by);
            if !around.is_empty() {
                let _ = write!(text, " By {}.", means(&around));
            }
        }
        text.push('\n');
    }
    Ok(text)
}

fn short_kind(field: &FactField) -> String {
    let mut kind = match field.unit {
        Some(unit) => unit.to_string(),
        None => field.kind.clone(),
    };
    if field.optional {
        kind.push_str(" or absent");
    }
    kind
}

fn fact_details(field: &FactField) -> String {
    let mut text = format!("{}\n\n{}\n\n", field.path, field.description);
    let _ = writeln!(text, "kind:     {}", field.kind);
    if let Some(unit) = field.unit {
        let _ = writeln!(text, "unit:     {unit}");
    }
    if field.optional {
        let _ = writeln!(text, "absent:   may be; guard it with `{} != null`", field.path);
    }
    if let Some(example) = &field.example {
        let _ = writeln!(text, "example:  {example}");
    }
    if !field.learnt_by.is_empty() {
        let _ = writeln!(text, "by:       {}", means(&field.learnt_by));
    }
    for (index, (choice, meaning)) in field.choices.iter().enumerate() {
        let _ = writeln!(text, "{}{choice}: {meaning}", if index == 0 { "values:   " } else { "          " });
    }
    text
}

fn means(learnt_by: &[CollectionMethod]) -> String {
    learnt_by.iter().map(|means| means.words()).collect::<Vec<_>>().join(", ")
}

/// Page of the documentation with all facts, in Markdown.
pub fn facts_markdown() -> String {
    let mut text = String::from(
        "# Facts\n\nGenerated from the types. These are the facts that rules can use; `vmgate rules facts PATH` prints the same. A fact can be \
         known, absent (where the table says so) or unknown for a reason.\n",
    );
    for group in &ROOT.fields {
        let _ = write!(text, "\n## {}\n\n{}\n\n", group.name, group.description);
        let Ok(fields) = fact_fields(Some(&group.name)) else { continue };
        text.push_str("| path | kind | what it is | example |\n|---|---|---|---|\n");
        let mut around: Vec<CollectionMethod> = Vec::new();
        for field in fields {
            let cell = |text: &str| text.replace('|', "\\|");
            let mut description = cell(&field.description);
            for (choice, meaning) in &field.choices {
                let _ = write!(description, "<br>`{choice}`: {}", cell(meaning));
            }
            // Only if the way differs from that of the row before, which for most facts is their group.
            if field.learnt_by != around {
                around.clone_from(&field.learnt_by);
                if !around.is_empty() {
                    let _ = write!(description, "<br>By {}.", means(&around));
                }
            }
            let example =
                field.example.map_or_else(String::new, |example| format!("`{}`", cell(&example.to_string())));
            let _ = writeln!(text, "| `{}` | {} | {description} | {example} |", field.path, {
                let mut kind = cell(&field.kind);
                if let Some(unit) = field.unit {
                    let _ = write!(kind, ", {unit}");
                }
                if field.optional {
                    kind.push_str(", may be absent");
                }
                kind
            });
        }
    }
    text
}

/// JSON Schemas by file name without ending, for editors and for programs that write these documents.
pub fn schemas() -> Vec<(&'static str, Json)> {
    vec![
        ("facts.v1", schema_for!(Facts).to_value()),
        ("rule.v1", schema_for!(RuleDocument).to_value()),
        ("rule-test.v1", schema_for!(TestDocument).to_value()),
        ("profile.v1", schema_for!(ProfileDocument).to_value()),
        ("memory-sync.v1", schema_for!(MemorySyncCatalogue).to_value()),
        ("udp-services.v1", schema_for!(UdpCatalogue).to_value()),
        ("components.v1", schema_for!(ComponentCatalogue).to_value()),
        ("known-failures.v1", schema_for!(KnownFailureCatalogue).to_value()),
        ("managers.v1", schema_for!(ManagerCatalogue).to_value()),
        ("control-protocols.v1", schema_for!(ControlCatalogue).to_value()),
        ("catalogue-test.v1", schema_for!(CatalogueTestDocument).to_value()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_found_by_any_way_of_writing_its_path() {
        for path in ["vm.nics.tap", "vm.nics[].tap", "vm.nics[0].tap"] {
            let fields = fact_fields(Some(path)).unwrap();
            assert_eq!(fields.len(), 1, "{path}");
            assert_eq!(fields[0].path, "vm.nics[].tap");
            assert!(fields[0].optional);
        }
        assert!(facts_reference(Some("vm.state")).unwrap().contains("running: The vCPUs run."));
        assert!(facts_reference(Some("forecast.total_seconds.p95")).unwrap().contains("unit:     seconds"));
        assert!(
            facts_reference(Some("guest.processes.pid"))
                .unwrap()
                .contains("by:       guest agent with guest-exec, ssh, exec\n")
        );
        assert!(facts_reference(None).unwrap().lines().count() > 100);
        let error = fact_fields(Some("vm.memory")).unwrap_err();
        assert!(error.to_string().contains("did you mean `vm.memory_bytes`?"), "{error}");
    }

    #[test]
    fn every_fact_of_the_guest_says_which_ways_in_give_it() {
        let of_guest = fact_fields(Some("guest")).unwrap();
        // What is derived needs no way in.
        let direct = of_guest.iter().filter(|field| field.path.matches('.').count() == 1);
        for field in direct {
            let told = facts_reference(Some(&field.path)).unwrap();
            let says = ["by:  ", "guest agent", "ssh", "host probe"].iter().any(|way| told.contains(way));
            assert!(says, "{}: {told}", field.path);
        }
    }

    #[test]
    fn schemas_describe_every_document() {
        let schemas = schemas();
        assert_eq!(
            schemas.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            [
                "facts.v1",
                "rule.v1",
                "rule-test.v1",
                "profile.v1",
                "memory-sync.v1",
                "udp-services.v1",
                "components.v1",
                "known-failures.v1",
                "managers.v1",
                "control-protocols.v1",
                "catalogue-test.v1"
            ]
        );
        let rule = &schemas[1].1;
        assert_eq!(rule["properties"]["assert"]["type"], "string");
        assert_eq!(rule["additionalProperties"], false);
    }

    #[test]
    fn every_way_to_learn_a_fact_is_one_we_know() {
        fn count(schema: &Json) -> usize {
            match schema {
                Json::Array(items) => items.iter().map(count).sum(),
                Json::Object(fields) => fields
                    .iter()
                    .map(|(key, value)| {
                        if key == CollectionMethod::KEYWORD {
                            serde_json::from_value::<Vec<CollectionMethod>>(value.clone()).unwrap().len()
                        } else {
                            count(value)
                        }
                    })
                    .sum(),
                _ => 0,
            }
        }
        assert!(count(&schema_for!(Facts).to_value()) > 20);
    }
}
