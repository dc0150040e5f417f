//! `Fact<T>`: a value that is known, or unknown for a stated reason.
//!
//! A value that is known not to exist is `Fact<Option<T>>` holding `None`, so that the type says which facts
//! can be absent. In a document a known fact is written plainly, an absent one as `null`, and an unknown one as
//! `{unknown: "why", cause: no-guest-agent}`. A field that is missing is unknown: nobody looked.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Value of one fact about a move, or the reason why the fact is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<T> {
    /// The collected value.
    Known(T),
    /// The fact could not be collected, for this reason.
    Unknown(Unknown),
}

/// Reason why a fact is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Unknown {
    /// Error message of the collector that tried.
    #[serde(rename = "unknown")]
    pub reason: String,
    /// Kind of obstacle. Unknown facts are grouped by cause, and all facts of one cause share one way out.
    #[serde(default)]
    pub cause: Cause,
}

/// Obstacle that keeps a fact from being known. Each has one way out, see [`Cause::way_out`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Not collected: the collector does not gather this fact, or the facts file does not contain it.
    #[default]
    NotCollected,
    /// The VM has no guest agent channel, or nothing in the guest answers on it.
    NoGuestAgent,
    /// The guest agent answers but forbids the command.
    AgentForbids,
    /// The guest is not running, so nothing in the guest can answer.
    GuestNotRunning,
    /// The host cannot be reached.
    HostUnreachable,
    /// ssh did not let vmgate in, at a host or at a guest.
    NoLogin,
    /// The host probe did not run.
    NoHostProbe,
    /// The guest probe did not run.
    NoGuestProbe,
    /// No answer came within the time limit.
    TimedOut,
    /// Permission was refused.
    PermissionDenied,
    /// The guest does not run Linux: only facts that its guest agent reports are known.
    ForeignGuest,
    /// This hypervisor, kernel or agent does not support the query.
    NotSupported,
    /// The user has not allowed this measurement.
    NotAllowed,
    /// The value is a name that none of vmgate's lists has: a device, a format, a kind of interface.
    NotListed,
    /// The answer was too large or could not be understood.
    Malformed,
    /// The measurement is older than the rule accepts.
    TooOld,
    /// Only a move shows it, and none was made or rehearsed.
    NotRehearsed,
    /// Nobody looked into the guest, and its packets do not show it.
    NotOnTheWire,
    /// The host has no libvirt, or its libvirt does not have the VM.
    NoLibvirt,
    /// No destination was named: the VM was judged where it runs.
    NoDestination,
    /// Nobody measured how soon the network follows a VM to its new place, and it cannot be derived.
    NetworkNotMeasured,
    /// The destination's bridge or its switch port does not lead to the guest's network.
    NetworkNotConnected,
}

impl Cause {
    /// Action by which the operator makes the fact known; one sentence.
    pub fn way_out(self) -> &'static str {
        match self {
            Self::NotCollected => "collect again with a current vmgate, or add the fact to the facts file",
            Self::NoGuestAgent => {
                "install and start qemu-guest-agent in the guest and give the VM its org.qemu.guest_agent.0 channel, or judge the guest by its packets with `--guest wire`"
            }
            Self::AgentForbids => {
                "allow guest-file-open, guest-file-read, guest-file-close and guest-exec in the guest agent's configuration"
            }
            Self::GuestNotRunning => "start or resume the VM: only a running VM can be migrated live",
            Self::HostUnreachable => {
                "check the host's name and the network, and that libvirtd (or virtqemud) runs there: `vmgate doctor HOST` tries each access"
            }
            Self::NoLogin => {
                "make `ssh HOST true` work without a prompt, as the user and from the machine that runs vmgate"
            }
            Self::NoHostProbe => {
                "remove the obstacle that the reason names, or name a probe command for the host in vmgate.yaml"
            }
            Self::NoGuestProbe => {
                "remove the obstacle that the reason names, or name a probe command for the guest in vmgate.yaml"
            }
            Self::TimedOut => {
                "try again with a longer --timeout; if the time-out persists, check the load of that host or guest"
            }
            Self::PermissionDenied => {
                "give vmgate a login at the host that may read this: `vmgate doctor HOST` prints the lines for it"
            }
            Self::ForeignGuest => {
                "judge the guest by its packets with `--guest wire`; what they do not show, inspect by hand (on Windows: Get-Cluster, Get-NetTCPConnection, Get-NetUDPEndpoint), write the results into a facts file, or waive the rule"
            }
            Self::NotSupported => {
                "this fact cannot be collected here: check by hand, and waive the rule if the move is safe"
            }
            Self::NotAllowed => "allow the measurement with the option that the reason names",
            Self::NotListed => {
                "rehearse the move with a VM that has the same and may be lost; if that went well, add the name to a catalogue of your own (components), or waive the rule"
            }
            Self::NotOnTheWire => {
                "let vmgate look into the guest, with `--guest agent` or `--guest ssh://root@GUEST`; of a guest that lets nobody in, find it out by hand and write it into a facts file, or waive the rule"
            }
            Self::NoLibvirt => {
                "find it out with the tools of the VM's manager, and write it into a facts file or waive the rule; of a VM that libvirt has, give the host's libvirt URI"
            }
            Self::NoDestination => {
                "name the destination with `--to HOST`; or name the site's hosts once with `vmgate init HOST…`, and each of them is judged"
            }
            Self::NetworkNotMeasured => {
                "measure it: with `--probe-network` where a throw-away interface can stand in for the VM's; elsewhere move a VM that nobody needs, and give the seconds as --network-dark (network_dark_seconds in the goals of a change)"
            }
            Self::NetworkNotConnected => "connect the destination as the reason says, and check again",
            Self::TooOld => "collect again, closer to the time of the move",
            Self::NotRehearsed => {
                "rehearse the move with an empty copy of the VM, which touches nothing of the VM: `vmgate rehearse VM --to HOST`"
            }
            Self::Malformed => {
                "check the answer of the guest or host by hand: vmgate could not understand the answer"
            }
        }
    }
}

impl Unknown {
    /// Creates an unknown from its obstacle and the collector's error message.
    pub fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), cause }
    }
}

impl<T> Fact<T> {
    /// An unknown fact with its cause and reason.
    pub fn unknown(cause: Cause, reason: impl Into<String>) -> Self {
        Self::Unknown(Unknown::new(cause, reason))
    }

    /// The value, or why it is unknown.
    pub fn into_result(self) -> Result<T, Unknown> {
        match self {
            Self::Known(value) => Ok(value),
            Self::Unknown(why) => Err(why),
        }
    }

    /// Returns the value if the fact is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Borrows the value, to read parts of it without a copy.
    pub fn as_ref(&self) -> Fact<&T> {
        match self {
            Self::Known(value) => Fact::Known(value),
            Self::Unknown(why) => Fact::Unknown(why.clone()),
        }
    }

    /// Applies `change` to a known value and keeps an unknown as it is.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Self::Known(value) => Fact::Known(change(value)),
            Self::Unknown(why) => Fact::Unknown(why),
        }
    }

    /// Continues from a known value to another fact and keeps an unknown as it is.
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
