//! Ways into a guest that a change file may choose.

use std::str::FromStr;

use thiserror::Error;
use vmgate_facts::{GuestAddress, InvalidUri};

/// Way into a guest, as a change file chooses it. Programs and keys for it are those of vmgate.yaml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestWay {
    /// The guest agent.
    Agent,
    /// The packets at the host's side of its interfaces alone.
    Wire,
    /// None: the guest is not asked.
    None,
    /// The command that vmgate.yaml names for this VM.
    Exec,
    /// The address for ssh that vmgate.yaml names for this VM.
    Ssh,
    /// This address, with ssh as it is configured.
    Address(GuestAddress),
}

/// Text that is no way into a guest.
#[derive(Debug, Error)]
pub enum UnknownGuestWay {
    /// An address that a document may not name.
    #[error(transparent)]
    Address(#[from] InvalidUri),
    /// No way of this name.
    #[error("`{0}` is not a way to reach a guest")]
    Name(String),
}

impl FromStr for GuestWay {
    type Err = UnknownGuestWay;

    fn from_str(text: &str) -> Result<Self, UnknownGuestWay> {
        Ok(match text {
            "agent" => Self::Agent,
            "wire" => Self::Wire,
            "none" => Self::None,
            "exec" => Self::Exec,
            "ssh" => Self::Ssh,
            address if address.starts_with("ssh://") => Self::Address(address.parse()?),
            other => return Err(UnknownGuestWay::Name(other.to_owned())),
        })
    }
}
