//! Campaign: a change that several runners execute together, over one ledger.
//!
//! The records of a campaign give its state ([`CampaignState`]); the next step follows from the state ([`CampaignState::next`]), and
//! is chosen and written in one transaction, so that no two runners take one move. A runner shows that it works by its
//! heartbeats. Others measure its silence on their own clocks since they read the last one, so clock differences do not
//! matter. A runner that was silent for the length of a lease is expelled: the ledger accepts no record of it any more, and a step
//! that is not written is not taken. The runner has stopped by itself before that, at half of the lease. Its moves are taken over
//! through a recovery, which first ends any migration that the runner left behind.

mod lease;
mod next;
mod runner;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub use lease::{Lease, uptime_seconds};
pub use next::{CampaignEnd, NextStep};
pub use runner::{Mover, RunSummary, Runner, RunnerError, RunnerSettings};
pub use state::{CampaignState, Task, TaskState};
pub use status::{Counts, render, window_text};
use vmgate_judge::change::ChangeFile;
use vmgate_ledger::campaign::{CampaignEvent, CampaignMove};

/// Opening event of a campaign, which the first runner of a change writes.
pub fn opened(change: &ChangeFile) -> CampaignEvent {
    let moves = change.moves.iter().map(|planned| CampaignMove {
        vm: planned.vm.clone(),
        from: planned.from.to_string(),
        to: planned.to.to_string(),
        wave: planned.wave,
        exclusive: planned.exclusive.clone(),
        expected_seconds: planned.expected_seconds,
    });
    CampaignEvent::Opened {
        id: change.id.clone(),
        waves: change.waves.iter().map(|wave| wave.name.clone()).collect(),
        window_end: change.window_end,
        error_budget: change.error_budget,
        moves: moves.collect(),
    }
}
