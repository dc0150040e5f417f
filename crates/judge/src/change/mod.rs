//! Change files, `vmgate/change/v1`: moves that belong together, with their window, goals, settings, preparation,
//! limits and waivers. Rules see a change as [`crate::fact::Change`].

mod document;
mod draft;
mod facts_files;
mod guest_way;
mod load;
mod plan;
mod prepared;
mod reserved_memory;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use document::{AfterNoGo, Limits, MoveSettings, Notify, Versions};
pub use draft::{ChangeDraft, DraftMove, DraftWave, UnplacedVm};
pub use facts_files::{FactsFiles, FactsFilesError, is_host};
pub use guest_way::{GuestWay, UnknownGuestWay};
use jiff::Timestamp;
pub use load::LARGEST_BYTES;
pub use plan::{Action, ActionKind, MovePlan, RunsOn};
pub use reserved_memory::ReservedMemory;
use schemars::{Schema, schema_for};
use vmgate_attest::Digest;
use vmgate_documents::Problems;
use vmgate_facts::HostUri;
use vmgate_verdict::{FileLine, Waivers};

use crate::VerdictRequest;

/// A change that was loaded without problems.
#[derive(Debug, Clone)]
pub struct ChangeFile {
    /// Id in the operator's ticket system.
    pub id: String,
    /// Purpose of the change, in one line.
    pub title: Option<String>,
    /// Start of the time window in which the moves may run.
    pub window_start: Option<Timestamp>,
    /// End of the time window.
    pub window_end: Option<Timestamp>,
    /// Limits on the number of moves that run at the same time.
    pub limits: Limits,
    /// Limit on all moves that run at the same time; only `limits` apply if none.
    pub at_once: Option<u32>,
    /// Number of moves that may fail before `vmgate run` starts no further move.
    pub error_budget: Option<u32>,
    /// Waves, in their order; at least one.
    pub waves: Vec<Wave>,
    /// Treatment of the moves after a move that is NO-GO.
    pub after_no_go: AfterNoGo,
    /// Waivers of the change.
    pub waivers: Waivers,
    /// The moves, in the order of their execution.
    pub moves: Vec<PlannedMove>,
    /// Digest of the content; layout and comments do not count.
    pub digest: Digest,
}

/// A wave: a part of a change whose moves start when those of the waves before have ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wave {
    /// Name of the wave; empty if the change has only one.
    pub name: String,
    /// Condition for the first move of the wave.
    pub wait_for: Option<WaitFor>,
}

/// Hosts whose maintenance must be complete.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitFor {
    /// Hosts that must answer and accept VMs.
    pub hosts: Vec<HostUri>,
    /// Versions that these hosts must have.
    pub versions: Versions,
}

/// One move of a change.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedMove {
    /// Name or UUID of the VM.
    pub vm: String,
    /// The source.
    pub from: HostUri,
    /// The destination.
    pub to: HostUri,
    /// Address of the destination for the migration traffic.
    pub migrate_address: Option<IpAddr>,
    /// Access to the guest; none for the site's choice.
    pub guest: Option<GuestWay>,
    /// Goals, settings and preparation.
    pub plan: MovePlan,
    /// Index of the move's wave in [`ChangeFile::waves`].
    pub wave: usize,
    /// Groups of which no other member moves at the same time.
    pub exclusive: Vec<String>,
    /// Duration by the plan's forecast, in seconds, if there was a plan.
    pub expected_seconds: Option<f64>,
    /// Line of the file that asks for it.
    pub place: FileLine,
}

impl ChangeFile {
    /// Reads a change file, or returns all of its problems. `name` is the file name in messages.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, Problems> {
        load::parse(name, bytes)
    }

    /// True if a move runs commands, on the machine of vmgate or in the guest, so that the file is a program.
    pub fn has_commands(&self) -> bool {
        let mut actions = self.moves.iter().flat_map(|planned| &planned.plan.actions);
        actions.any(|action| matches!(action.deed, ActionKind::Run { .. }))
    }

    /// Request for the verdict on one of its moves.
    pub fn verdict_request(&self, planned: &PlannedMove, strict: bool) -> VerdictRequest {
        VerdictRequest {
            strict,
            place: Some(planned.place.clone()),
            change: Some(self.digest),
            ..VerdictRequest::default()
        }
    }

    /// Moves of its wave that the limits let share a link with this one, itself included: out of its source, or into its
    /// destination.
    fn moves_at_once(&self, planned: &PlannedMove) -> u32 {
        type End = fn(&PlannedMove) -> &HostUri;
        let (from, to): (End, End) = (|planned| &planned.from, |planned| &planned.to);
        let at_most = |moves: usize, most: u32| u32::try_from(moves).unwrap_or(u32::MAX).min(most);
        let sharing = |end: End, other_end: End, most: u32| {
            let of_wave = self.moves.iter().filter(|other| other.wave == planned.wave);
            let of_host = of_wave.filter(|other| end(other) == end(planned));
            let (same, others): (Vec<_>, Vec<_>) =
                of_host.partition(|other| other_end(other) == other_end(planned));
            let same = at_most(same.len(), self.limits.per_link);
            same.saturating_add(at_most(others.len(), most)).min(most)
        };
        let out = sharing(from, to, self.limits.per_source);
        out.max(sharing(to, from, self.limits.per_destination)).min(self.at_once.unwrap_or(u32::MAX))
    }

    /// The change as rules see it at one of its moves.
    pub fn to_fact(&self, planned: &PlannedMove) -> vmgate_facts::Change {
        vmgate_facts::Change {
            id: Some(self.id.clone()),
            window_start: self.window_start,
            window_end: self.window_end,
            moves_at_once: self.moves_at_once(planned),
            ..planned.plan.to_fact()
        }
    }
}

/// JSON Schema of a change file.
pub fn schema() -> Schema {
    let mut schema = schema_for!(document::ChangeDocument);
    schema.insert("title".to_owned(), "vmgate change".into());
    schema
}
