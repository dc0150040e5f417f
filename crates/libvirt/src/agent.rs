//! The guest agent's channel, through libvirt.

use std::time::Duration;

use vmgate_facts::{Cause, Unknown};
use vmgate_reach::agent::{AgentChannel, AgentFailure};

use super::{Domain, LibvirtError, LibvirtErrorKind};

impl AgentChannel for Domain {
    fn command(&self, json: &str, patience: Duration) -> Result<String, AgentFailure> {
        self.agent_command(json, patience).map_err(|error| {
            let LibvirtError { kind, .. } = &error;
            match kind {
                LibvirtErrorKind::AgentSilent(words) => AgentFailure::Silent(words.clone()),
                LibvirtErrorKind::AgentRefused(words) => AgentFailure::Refused(words.clone()),
                LibvirtErrorKind::TimedOut(limit) => AgentFailure::Unavailable(Unknown::new(
                    Cause::TimedOut,
                    format!("the guest agent did not answer within {} s", limit.as_secs_f64()),
                )),
                _ => AgentFailure::Unavailable(error.into()),
            }
        })
    }
}
