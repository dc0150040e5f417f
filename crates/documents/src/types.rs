//! Types of values, against which documents and expressions are checked.

use std::{fmt, sync::Arc};

use serde_json::Value as Json;

use vmgate_facts::CollectionMethod;
use vmgate_facts::Unit;

/// Kind of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Anything; also the type of an expression with a problem, so that one mistake is reported once.
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
    /// A text from a fixed list.
    Enum(Arc<Choices>),
    Version,
    Timestamp,
    /// A day, in documents only.
    Day,
    /// An IP address, in documents only.
    Address,
    Duration,
    List(Arc<Type>),
    /// A mapping from names to values of one type.
    Map(Arc<Type>),
    Record(Arc<Record>),
    /// One of several shapes, in documents only.
    OneOf(Arc<Vec<Type>>),
    /// Values of different kinds, which can only be printed.
    Mixed,
}

/// Type of a value: its kind, if it can be absent or unknown, and its unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Type {
    pub kind: Kind,
    /// Whether it can be absent (null).
    pub optional: bool,
    /// Whether it can be unknown.
    pub unknowable: bool,
    /// Unit of a number, or of the numbers of a list.
    pub unit: Unit,
}

/// A fixed list of texts.
#[derive(Debug, PartialEq)]
pub struct Choices {
    pub choices: Vec<Choice>,
}

/// One text of a fixed list.
#[derive(Debug, PartialEq)]
pub struct Choice {
    pub text: Arc<str>,
    pub description: String,
}

/// A value with named fields.
#[derive(Debug, PartialEq)]
pub struct Record {
    pub name: String,
    pub fields: Vec<Field>,
}

/// A named field of a record.
#[derive(Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub ty: Type,
    /// Whether a document must have it.
    pub required: bool,
    pub description: String,
    pub example: Option<Json>,
    /// By what means it is learnt, where the schema says so.
    pub learnt_by: Vec<CollectionMethod>,
}

impl Record {
    /// Position and field of that name.
    pub fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields.iter().enumerate().find(|(_, field)| field.name == name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }
}

impl Choices {
    pub fn find(&self, text: &str) -> Option<&Choice> {
        self.choices.iter().find(|choice| &*choice.text == text)
    }

    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.choices.iter().map(|choice| &*choice.text)
    }
}

impl Type {
    pub fn plain(kind: Kind) -> Self {
        Self { kind, optional: false, unknowable: false, unit: Unit::Count }
    }

    pub fn number(kind: Kind, unit: Unit) -> Self {
        Self { unit, ..Self::plain(kind) }
    }

    pub const INT: Kind = Kind::Int { min: None, max: None };

    pub fn any() -> Self {
        Self { unit: Unit::Any, ..Self::plain(Kind::Any) }
    }

    pub fn list(of: Type) -> Self {
        Self { unit: of.unit, ..Self::plain(Kind::List(Arc::new(of))) }
    }

    pub fn is_number(&self) -> bool {
        matches!(self.kind, Kind::Int { .. } | Kind::Double)
    }

    /// The type of the items of a list.
    pub fn item(&self) -> Option<&Type> {
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
            Self::Day => f.write_str("a day"),
            Self::Address => f.write_str("an IP address"),
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

/// The type of a field of a record that itself stands in a field of type `owner`: the quantiles of
/// `blackout_seconds` are seconds.
pub fn field_type(owner: &Type, field: &Field) -> Type {
    let inherits = field.ty.is_number() && field.ty.unit == Unit::Count && owner.item().is_none();
    if inherits { Type { unit: owner.unit, ..field.ty.clone() } } else { field.ty.clone() }
}
