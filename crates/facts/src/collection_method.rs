//! By what means facts are learnt, so that a rule's author sees what a site must open for it.

use serde::{Deserialize, Serialize};

/// A way to learn a fact. Fields of the fact types name theirs in their schema, under [`Means::KEYWORD`]; what names
/// none is learnt as the group around it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// The guest agent, where it may read files.
    Agent,
    /// The guest agent, where it may also run programs (guest-exec).
    AgentExec,
    /// The probe in the guest, over ssh.
    Ssh,
    /// The command that vmgate.yaml names for the guest.
    Exec,
    /// libvirt on the host.
    Libvirt,
    /// The probe on the host.
    HostProbe,
}

impl Means {
    /// The keyword in the JSON Schema of a field.
    pub const KEYWORD: &'static str = "x-learnt-by";
    /// What every way into a guest gives.
    pub const GUEST: [Self; 3] = [Self::Agent, Self::Ssh, Self::Exec];
    /// What takes programs that run in the guest.
    pub const GUEST_PROGRAMS: [Self; 3] = [Self::AgentExec, Self::Ssh, Self::Exec];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Agent => "guest agent",
            Self::AgentExec => "guest agent with guest-exec",
            Self::Ssh => "ssh",
            Self::Exec => "exec",
            Self::Libvirt => "libvirt",
            Self::HostProbe => "host probe",
        }
    }
}
