//! `Fact<T>`: a value that is known, or unknown for a stated reason.
//!
//! A value that is known not to exist is `Fact<Option<T>>` holding `None`, so that the type says which facts
//! can be absent. In a document a known fact is written plainly, an absent one as `null`, and an unknown one as
//! `{unknown: "why", cause: no-guest-agent}`. A field that is missing is unknown: nobody looked.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// One thing that can be known about a move, or the reason why it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<T> {
    /// It was seen, and this is what was seen.
    Known(T),
    /// It could not be learnt.
    Unknown(Unknown),
}

/// Why a fact is not known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Unknown {
    /// What went wrong, in the words of whoever tried.
    #[serde(rename = "unknown")]
    pub reason: String,
    /// The kind of obstacle; unknowns are grouped by it and share one way out.
    #[serde(default)]
    pub cause: Cause,
}

/// The obstacles that keep a fact from being known. Each has one way out, see [`Cause::way_out`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nobody tried: the collector does not gather it, or the facts file does not have it.
    #[default]
    NotCollected,
    /// The VM has no guest agent channel, or nothing in the guest answers on it.
    NoGuestAgent,
    /// The guest agent answers but forbids the command.
    AgentForbids,
    /// The guest is not running, so it cannot be asked.
    GuestNotRunning,
    /// The host cannot be reached.
    HostUnreachable,
    /// The host probe did not run.
    NoHostProbe,
    /// The guest probe did not run.
    NoGuestProbe,
    /// The answer did not come within the time limit.
    TimedOut,
    /// Permission was refused.
    PermissionDenied,
    /// The guest runs no Linux: only what its agent tells by itself is known.
    ForeignGuest,
    /// This hypervisor, kernel or agent does not have the means.
    NotSupported,
    /// A measurement that the user has not allowed.
    NotAllowed,
    /// The answer was too large or could not be understood.
    Malformed,
    /// It was measured longer ago than the rule accepts.
    TooOld,
}

impl Cause {
    /// What an operator can do so that the fact becomes known; one sentence.
    pub fn way_out(self) -> &'static str {
        match self {
            Self::NotCollected => "collect again with a current vmgate, or add the fact to the facts file",
            Self::NoGuestAgent => {
                "install and start qemu-guest-agent in the guest and give the VM its org.qemu.guest_agent.0 channel"
            }
            Self::AgentForbids => {
                "allow guest-file-open, guest-file-read, guest-file-close and guest-exec in the guest agent's configuration"
            }
            Self::GuestNotRunning => "start or resume the VM: only a running VM can be migrated live",
            Self::HostUnreachable => "check the URI, the network and that libvirtd runs on the host",
            Self::NoHostProbe => {
                "make ssh to the host work without a prompt, or name a probe command in vmgate.yaml"
            }
            Self::NoGuestProbe => {
                "make ssh to the guest work without a prompt, or name a probe command for the guest in vmgate.yaml"
            }
            Self::TimedOut => {
                "try again with a longer --timeout; if it persists, look at the load of that host or guest"
            }
            Self::PermissionDenied => "run vmgate as a user that may read this on the host",
            Self::ForeignGuest => {
                "look in the guest by hand (on Windows: Get-Cluster, Get-NetTCPConnection, Get-NetUDPEndpoint), put what you find into a facts file, or waive the rule"
            }
            Self::NotSupported => {
                "this cannot be learnt here: judge it by hand and waive the rule if it is safe"
            }
            Self::NotAllowed => "allow the measurement with the option that the reason names",
            Self::TooOld => "collect again, closer to the time of the move",
            Self::Malformed => "look at what the guest or host answers: vmgate could not trust it",
        }
    }
}

impl Unknown {
    /// An unknown with its obstacle and the words of whoever tried.
    pub fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), cause }
    }
}

impl<T> Fact<T> {
    /// Shorthand for an unknown fact.
    pub fn unknown(cause: Cause, reason: impl Into<String>) -> Self {
        Self::Unknown(Unknown::new(cause, reason))
    }

    /// The value where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Borrows the value, so that it can be looked into without a copy.
    pub fn as_ref(&self) -> Fact<&T> {
        match self {
            Self::Known(value) => Fact::Known(value),
            Self::Unknown(why) => Fact::Unknown(why.clone()),
        }
    }

    /// Changes a known value and carries an unknown on.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Known(value) => Fact::Known(change(value)),
            Self::Unknown(why) => Fact::Unknown(why),
        }
    }

    /// Goes from a known value to another fact and carries an unknown on.
    pub fn and_then<U>(self, next: impl FnOnce(T) -> Fact<U>) -> Fact<U> {
        match self {
            Self::Known(value) => next(value),
            Self::Unknown(why) => Fact::Unknown(why),
        }
    }
}

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::unknown(Cause::NotCollected, "not collected")
    }
}

impl<T, E: Into<Unknown>> From<Result<T, E>> for Fact<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(why) => Self::Unknown(why.into()),
        }
    }
}

impl<T: Serialize> Serialize for Fact<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(value) => value.serialize(serializer),
            Self::Unknown(why) => why.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fact<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = serde_json::Value::deserialize(deserializer)?;
        if document.get("unknown").is_some() {
            return Unknown::deserialize(document).map(Self::Unknown).map_err(D::Error::custom);
        }
        T::deserialize(document).map(Self::Known).map_err(D::Error::custom)
    }
}

impl<T: JsonSchema> JsonSchema for Fact<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Fact_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let known = generator.subschema_for::<T>();
        let unknown = generator.subschema_for::<Unknown>();
        json_schema!({ "anyOf": [known, unknown] })
    }
}
