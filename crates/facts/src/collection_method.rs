//! Methods by which facts are collected, so that the author of a rule sees what a site must allow for the rule to work.

use serde::{Deserialize, Serialize};

/// Method by which a fact is collected. Fields of the fact types name theirs in their schema, under
/// [`CollectionMethod::KEYWORD`]; a field that names none has the methods of the group that contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CollectionMethod {
    /// Guest agent that may read files.
    Agent,
    /// Guest agent that may also run programs (guest-exec).
    AgentExec,
    /// Guest probe over ssh.
    Ssh,
    /// Guest probe through the command that vmgate.yaml names for the guest.
    Exec,
    /// libvirt on the host.
    Libvirt,
    /// Host probe.
    HostProbe,
}

impl CollectionMethod {
    /// Keyword that holds the methods in the JSON Schema of a field.
    pub const KEYWORD: &'static str = "x-learnt-by";
    /// Methods for facts that need only files of the guest.
    pub const GUEST: [Self; 3] = [Self::Agent, Self::Ssh, Self::Exec];
    /// Methods for facts that need a program run in the guest.
    pub const GUEST_PROGRAMS: [Self; 3] = [Self::AgentExec, Self::Ssh, Self::Exec];

    /// Name of the method in words.
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
