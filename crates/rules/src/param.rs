//! Parameters of rules: what they may be, what they are, and who said so.

use std::{collections::BTreeMap, fmt};

use serde_json::Value as Json;
use thiserror::Error;

use super::{
    document::{ParamDocument, ParamKind},
    value::Value,
};
use vmgate_documents::types::{Kind, Type};
use vmgate_facts::Unit;

/// Values for parameters, by rule and parameter, as vmgate.yaml gives them.
pub type ParamOverrides = BTreeMap<String, BTreeMap<String, Json>>;

/// A parameter of a rule with the value that holds.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// What kind of value it is.
    pub kind: ParamKind,
    /// Its unit.
    pub unit: Unit,
    /// Least value.
    pub min: Option<f64>,
    /// Greatest value.
    pub max: Option<f64>,
    /// The value where nobody sets another.
    pub default: Json,
    /// What it means.
    pub help: String,
    /// The value that holds.
    pub value: Json,
    /// Who set it.
    pub origin: ParamOrigin,
}

/// Who set a parameter.
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

/// Why a parameter cannot be set like this.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ParamError {
    /// No such profile.
    #[error("there is no profile `{name}`; there are {known}")]
    NoProfile {
        /// The name that was given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// No such rule.
    #[error("{origin} sets parameters of `{rule}`, which is no rule{hint}")]
    NoRule {
        /// The name that was given.
        rule: String,
        /// Who set it.
        origin: ParamOrigin,
        /// A rule that is called much like it.
        hint: String,
    },
    /// No such parameter.
    #[error("{origin} sets `{param}` of {rule}, which has no such parameter{hint}")]
    NoParam {
        /// The rule.
        rule: String,
        /// The name that was given.
        param: String,
        /// Who set it.
        origin: ParamOrigin,
        /// A parameter that is called much like it, or those there are.
        hint: String,
    },
    /// A value that the parameter cannot have.
    #[error("{origin} sets `{param}` of {rule} to {value}: {reason}")]
    BadValue {
        /// The rule.
        rule: String,
        /// The parameter.
        param: String,
        /// The value that was given.
        value: String,
        /// Who set it.
        origin: ParamOrigin,
        /// What it may be.
        reason: String,
    },
}

/// All that is wrong with parameters that were set.
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

    /// The type that expressions see.
    pub(crate) fn ty(&self) -> Type {
        match self.kind {
            ParamKind::Bool => Type::plain(Kind::Bool),
            ParamKind::Int => Type::number(Type::INT, self.unit),
            ParamKind::Double => Type::number(Kind::Double, self.unit),
            ParamKind::String => Type::plain(Kind::Text),
            ParamKind::Strings => Type::list(Type::plain(Kind::Text)),
        }
    }

    /// The value that expressions see.
    pub(crate) fn to_value(&self) -> Value {
        Value::of_json(&self.value, &self.ty())
    }

    /// Why a value does not fit.
    pub(crate) fn refuses(&self, value: &Json) -> Option<String> {
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
            return Some(format!("it must be {}", self.ty()));
        }
        let number = value.as_f64()?;
        match (self.min, self.max) {
            (Some(min), _) if number < min => Some(format!("it must be at least {min}")),
            (_, Some(max)) if number > max => Some(format!("it must be at most {max}")),
            _ => None,
        }
    }

    pub(crate) fn set(&mut self, value: &Json, origin: ParamOrigin) {
        // A whole number may stand for a fraction.
        self.value = match (self.kind, value.as_f64()) {
            (ParamKind::Double, Some(number)) => number.into(),
            _ => value.clone(),
        };
        self.origin = origin;
    }
}
