//! Types of values, against which documents and expressions are checked.

use std::{fmt, sync::Arc};

use serde_json::Value as Json;
use vmgate_facts::{CollectionMethod, Unit, Unknown};

/// Kind of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Anything; also the type of an expression with a problem, so that one mistake is reported once.
    Any,
    /// Only `null`.
    Null,
    /// True or false.
    Bool,
    /// A whole number within bounds.
    Int {
        /// Least value; none for any.
        min: Option<i64>,
        /// Greatest value; none for any.
        max: Option<i64>,
    },
    /// A floating-point number.
    Double,
    /// Any text.
    Text,
    /// A text from a fixed list.
    Enum(Arc<Choices>),
    /// A version, such as 7.2.22.
    Version,
    /// A point in time.
    Timestamp,
    /// A day, in documents only.
    Day,
    /// An IP address, in documents only.
    Address,
    /// A length of time.
    Duration,
    /// Values of one type.
    List(Arc<Type>),
    /// A mapping from names to values of one type.
    Map(Arc<Type>),
    /// A mapping with known fields.
    Record(Arc<Record>),
    /// One of several shapes, in documents only.
    OneOf(Arc<Vec<Type>>),
    /// Values of different kinds, which can only be printed.
    Mixed,
}

/// Type of a value: its kind, if it can be absent or unknown, and its unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Type {
    /// Kind of the value.
    pub kind: Kind,
    /// True if it can be absent (null).
    pub optional: bool,
    /// True if it can be unknown.
    pub unknowable: bool,
    /// Unit of a number, or of the numbers of a list.
    pub unit: Unit,
}

/// A fixed list of texts.
#[derive(Debug, PartialEq)]
pub struct Choices {
    /// The texts, in their order.
    pub choices: Vec<Choice>,
}

/// One text of a fixed list.
#[derive(Debug, PartialEq)]
pub struct Choice {
    /// The text itself.
    pub text: Arc<str>,
    /// Its documentation.
    pub description: String,
}

/// A value with named fields.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// Name of the record, for messages.
    pub name: String,
    /// Its fields, in their order.
    pub fields: Vec<Field>,
}

/// A named field of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Name of the field.
    pub name: String,
    /// Type of its value.
    pub ty: Type,
    /// True if a document must have it.
    pub required: bool,
    /// Its documentation.
    pub description: String,
    /// Example of a value.
    pub example: Option<Json>,
    /// Methods that collect it, if the schema names any.
    pub learnt_by: Vec<CollectionMethod>,
    /// Names that a text may be.
    pub names: Names,
    /// Meaning of an absent value, if it is an unknown one.
    pub absent: Option<Unknown>,
}

/// Names that a text may be.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Names {
    /// Any name.
    #[default]
    Any,
    /// The words are the program's own, name no kind of thing, or are judged by a catalogue.
    Free,
    /// These names; another is not known.
    Listed(Vec<Arc<str>>),
}

impl Record {
    /// Position and field of that name.
    pub fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields.iter().enumerate().find(|(_, field)| field.name == name)
    }

    /// Names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }
}

impl Choices {
    /// The choice of that text.
    pub fn find(&self, text: &str) -> Option<&Choice> {
        self.choices.iter().find(|choice| &*choice.text == text)
    }

    /// All texts.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.choices.iter().map(|choice| &*choice.text)
    }
}

impl Type {
    /// A type that is never absent or unknown, without a unit.
    pub fn plain(kind: Kind) -> Self {
        Self { kind, optional: false, unknowable: false, unit: Unit::Count }
    }

    /// A number with a unit.
    pub fn number(kind: Kind, unit: Unit) -> Self {
        Self { unit, ..Self::plain(kind) }
    }

    /// Any whole number.
    pub const INT: Kind = Kind::Int { min: None, max: None };

    /// Anything.
    pub fn any() -> Self {
        Self { unit: Unit::Any, ..Self::plain(Kind::Any) }
    }

    /// A list of values of one type.
    pub fn list(of: Type) -> Self {
        Self { unit: of.unit, ..Self::plain(Kind::List(Arc::new(of))) }
    }

    /// True for whole and floating-point numbers.
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
