//! A change that several runners carry out together, over one ledger.
//!
//! What a campaign is, its records add up to ([`State`]); what is to be done next follows from them ([`State::next`]), and
//! is chosen and written in one transaction, so that no two runners take one move. A runner is known to be at work by its
//! beats. Others count its silence on their own clocks from when they read the last one, so clocks that are apart do not
//! matter. One that was silent for the length of a lease is expelled: the ledger takes no record of it any more, and a step
//! that is not written is not taken. It has stopped by itself before that, at half of the lease. Its moves are taken over
//! by way of a recovery, which ends whatever migration it left behind before anything else is done with the VM.

mod lease;
mod next;
mod runner;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub use lease::{Lease, uptime_seconds};
pub use next::{Choice, Ending};
pub use runner::{Mover, Runner, RunnerError, Settings, Summary};
pub use state::{State, Task, TaskState};
pub use status::{Counts, closes, render};

use vmgate_judge::change::ChangeFile;
use vmgate_ledger::campaign::{CampaignMove, Event};

/// What the first runner of a change writes.
pub fn opened(change: &ChangeFile) -> Event {
    let moves = change.moves.iter().map(|planned| CampaignMove {
        vm: planned.vm.clone(),
        from: planned.from.to_string(),
        to: planned.to.to_string(),
        wave: planned.wave,
        exclusive: planned.exclusive.clone(),
        expected_seconds: planned.expected_seconds,
    });
    Event::Opened {
        id: change.id.clone(),
        waves: change.waves.iter().map(|wave| wave.name.clone()).collect(),
        window_end: change.window_end,
        error_budget: change.error_budget,
        moves: moves.collect(),
    }
}
