//! Parameters of rules: their types and limits, their values, and the origin of each value.

use std::{collections::BTreeMap, fmt};

use serde_json::Value as Json;
use thiserror::Error;
use vmgate_documents::types::{Kind, Type};
use vmgate_facts::Unit;

use super::{
    document::{ParamDocument, ParamKind},
    value::Value,
};

/// Values for parameters, by rule id and parameter name, as in vmgate.yaml.
pub type ParamOverrides = BTreeMap<String, BTreeMap<String, Json>>;

/// A parameter of a rule with its current value.
#[derive(Debug, Clone)]
pub struct Param {
    /// Name of the parameter.
    pub name: String,
    /// Type of the value.
    pub kind: ParamKind,
    /// Unit of the value.
    pub unit: Unit,
    /// Smallest value that is allowed.
    pub min: Option<f64>,
    /// Largest value that is allowed.
    pub max: Option<f64>,
    /// Value that the rule declares.
    pub default: Json,
    /// Meaning of the parameter.
    pub help: String,
    /// Current value.
    pub value: Json,
    /// Origin of the value.
    pub origin: ParamOrigin,
}

/// Origin of a parameter's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParamOrigin {
    /// The rule.
    Default,
    /// A profile.
    Profile(String),
    /// The user's vmgate.yaml.
    ConfigFile,
    /// A case of a rule's test.
    Test,
}

impl fmt::Display for ParamOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the rule's default"),
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::ConfigFile => f.write_str("vmgate.yaml"),
            Self::Test => f.write_str("the test"),
        }
    }
}

/// A parameter that cannot be set, with the reason.
#[derive(Debug, Clone, PartialEq, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ParamError {
    /// The profile does not exist.
    #[error("there is no profile `{name}`; {known}")]
    NoProfile { name: String, known: String },
    /// The rule does not exist.
    #[error("{origin} sets parameters of the rule `{rule}`, but there is no such rule{hint}")]
    NoRule { rule: String, origin: ParamOrigin, hint: String },
    /// The rule has no such parameter.
    #[error("{origin} sets `{param}` of {rule}, but this rule has no such parameter{hint}")]
    NoParam { rule: String, param: String, origin: ParamOrigin, hint: String },
    /// The value is not allowed for the parameter.
    #[error("{origin} sets `{param}` of {rule} to {value}, but the value {reason}")]
    BadValue { rule: String, param: String, value: String, origin: ParamOrigin, reason: String },
}

/// All errors of the parameters that were set.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ParamErrors(pub Vec<ParamError>);

impl Param {
    pub(crate) fn new(name: &str, document: ParamDocument) -> Self {
        let unit = document.unit.map_or_else(|| Unit::of_name(name), super::document::ParamUnit::unit);
        Self {
            name: name.to_owned(),
            kind: document.kind,
            unit,
            min: document.min,
            max: document.max,
            value: document.default.clone(),
            default: document.default,
            help: document.help,
            origin: ParamOrigin::Default,
        }
    }

    /// Type of the parameter in expressions.
    pub(crate) fn ty(&self) -> Type {
        match self.kind {
            ParamKind::Bool => Type::plain(Kind::Bool),
            ParamKind::Int => Type::number(Type::INT, self.unit),
            ParamKind::Double => Type::number(Kind::Double, self.unit),
            ParamKind::String => Type::plain(Kind::Text),
            ParamKind::Strings => Type::list(Type::plain(Kind::Text)),
        }
    }

    /// Value of the parameter in expressions.
    pub(crate) fn to_value(&self) -> Value {
        Value::of_json(&self.value, &self.ty())
    }

    /// Returns why a value is not allowed, as the rest of a sentence ("must be at least 0"); none if it is allowed.
    pub(crate) fn value_problem(&self, value: &Json) -> Option<String> {
        let fits = match self.kind {
            ParamKind::Bool => value.is_boolean(),
            ParamKind::Int => value.is_i64(),
            ParamKind::Double => value.as_f64().is_some_and(f64::is_finite),
            ParamKind::String => value.is_string(),
            ParamKind::Strings => {
                value.as_array().is_some_and(|items| items.iter().all(serde_json::Value::is_string))
            }
        };
        if !fits {
            return Some(format!("must be {}", self.ty()));
        }
        let number = value.as_f64()?;
        match (self.min, self.max) {
            (Some(min), _) if number < min => Some(format!("must be at least {min}")),
            (_, Some(max)) if number > max => Some(format!("must be at most {max}")),
            _ => None,
        }
    }

    pub(crate) fn set(&mut self, value: &Json, origin: ParamOrigin) {
        // A whole number is accepted where a fraction is expected.
        self.value = match (self.kind, value.as_f64()) {
            (ParamKind::Double, Some(number)) => number.into(),
            _ => value.clone(),
        };
        self.origin = origin;
    }
}
