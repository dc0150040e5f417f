//! Change files, `vmgate/change/v1`: moves that belong together, with their window, goals, settings, preparation,
//! limits and waivers. What a rule sees of a change is [`crate::fact::Change`].

mod document;
mod draft;
mod evidence;
mod load;
mod plan;
mod prepared;
mod taken;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use jiff::Timestamp;
use schemars::{Schema, schema_for};

pub use document::{AfterNoGo, Limits, Notify, Settings, Versions};
pub use draft::{Draft, DraftMove, DraftWave, Stays};
pub(crate) use evidence::is_host;
pub use evidence::{Evidence, EvidenceError};
pub use plan::{Action, Deed, Plan, RunsOn};
pub use taken::Taken;

use crate::{
    collect::Uri,
    document::Problems,
    fact,
    preflight::VerdictRequest,
    verdict::{Digest, FileLine, Waivers},
};

/// A change that was read and found right.
#[derive(Debug, Clone)]
pub struct ChangeFile {
    /// Its id in the operator's own books.
    pub id: String,
    /// What it is for, in a line.
    pub title: Option<String>,
    /// Start of the time in which its moves may run.
    pub window_start: Option<Timestamp>,
    /// End of that time.
    pub window_end: Option<Timestamp>,
    /// How many moves may run at once.
    pub limits: Limits,
    /// How many moves may run at once altogether; none for as many as the hosts allow.
    pub at_once: Option<u32>,
    /// How many moves may fail before `vmgate run` begins no other.
    pub error_budget: Option<u32>,
    /// Its parts, in their order; at least one.
    pub waves: Vec<Wave>,
    /// What happens to the moves after one that is NO-GO.
    pub after_no_go: AfterNoGo,
    /// Exceptions that come with the change.
    pub waivers: Waivers,
    /// The moves, in the order in which they are made.
    pub moves: Vec<PlannedMove>,
    /// Digest of what it says; layout and comments do not count.
    pub digest: Digest,
}

/// A part of a change: its moves begin when those of the parts before are over.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wave {
    /// Its name; empty where the change has but one.
    pub name: String,
    /// What must be before its first move.
    pub wait_for: Option<WaitFor>,
}

/// Hosts that must have had their maintenance.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitFor {
    /// The hosts.
    pub hosts: Vec<Uri>,
    /// What they must have.
    pub versions: Versions,
}

/// One move of a change.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedMove {
    /// Name or UUID of the VM.
    pub vm: String,
    /// The host it runs on.
    pub from: Uri,
    /// The host it is to go to.
    pub to: Uri,
    /// Address at the destination that takes the traffic.
    pub migrate_address: Option<IpAddr>,
    /// The way into the guest, as `--guest` takes it.
    pub guest: Option<String>,
    /// Goals, settings and preparation.
    pub plan: Plan,
    /// Its place in [`ChangeFile::waves`].
    pub wave: usize,
    /// Groups of which no other member moves at the same time.
    pub exclusive: Vec<String>,
    /// How long it takes by the plan's forecast, where there was a plan.
    pub expected_seconds: Option<f64>,
    /// Where the file asks for it.
    pub place: FileLine,
}

impl ChangeFile {
    /// Reads a change file, or says everything that is wrong with it. `name` is the file for messages.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problems> {
        load::parse(name, bytes)
    }

    /// How the verdict on one of its moves is asked for.
    pub fn asked_of(&self, planned: &PlannedMove, strict: bool) -> VerdictRequest {
        VerdictRequest { strict, place: Some(planned.place.clone()), change: Some(self.digest) }
    }

    /// What rules see of this change at one of its moves.
    pub fn asked(&self, planned: &PlannedMove) -> fact::Change {
        fact::Change {
            id: Some(self.id.clone()),
            window_start: self.window_start,
            window_end: self.window_end,
            ..planned.plan.asked()
        }
    }
}

/// The JSON Schema of a change file.
pub fn schema() -> Schema {
    let mut schema = schema_for!(document::ChangeDocument);
    schema.insert("title".to_owned(), "vmgate change".into());
    schema
}
