//! Ledger entries of a campaign: a change that several runners execute together. The state of a campaign is computed from
//! its records, so that the queue is as tamper-evident as the rest, and a claim's number in the chain is its fencing token.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use vmgate_verdict::ExitCode;

use super::entry::Driver;

/// An event of a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    /// Digest of the change, which identifies the campaign.
    pub campaign: String,
    /// The event.
    #[serde(flatten)]
    pub event: CampaignEvent,
}

/// Event of a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum CampaignEvent {
    /// The first runner opened the campaign.
    Opened {
        /// Id of the change in the operator's own books.
        id: String,
        /// Names of the waves.
        waves: Vec<String>,
        /// End of the change window.
        window_end: Option<Timestamp>,
        /// Error budget: number of failed moves at which no other begins.
        error_budget: Option<u32>,
        /// Moves, in the order of the change file.
        moves: Vec<CampaignMove>,
    },
    /// Heartbeat of a runner; the first one announces it. Others measure its age by their own clocks since they read it.
    Beat {
        /// Name of the runner.
        runner: String,
        /// Process of the runner.
        driver: Driver,
    },
    /// A runner has ended.
    Left {
        /// Name of the runner.
        runner: String,
    },
    /// A runner claims a move: the number of this record is the fencing token.
    Claimed {
        /// Name of the runner.
        runner: String,
        /// Index of the move, from 0.
        at: usize,
    },
    /// A runner ends its claim of a move.
    Released {
        /// Index of the move.
        at: usize,
        /// Fencing token of the claim.
        token: u64,
        /// Result of the claim.
        how: ClaimResult,
    },
    /// A wave may begin: the hosts that it waits for have had their maintenance.
    WaveOpened {
        /// Index of the wave, from 0.
        wave: usize,
        /// Runner or operator.
        by: String,
    },
    /// An operator pauses, resumes or stops the campaign.
    Steered {
        /// The command.
        what: Steering,
        /// The operator.
        by: String,
    },
}

/// One move of a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CampaignMove {
    /// Name or UUID of the VM.
    pub vm: String,
    /// libvirt URI of the source.
    pub from: String,
    /// libvirt URI of the destination.
    pub to: String,
    /// Index of its wave, from 0.
    #[serde(default)]
    pub wave: usize,
    /// Exclusive groups: no other member of them moves at the same time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclusive: Vec<String>,
    /// Duration by the plan's forecast, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<f64>,
}

/// Result of a claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ended", rename_all = "kebab-case")]
pub enum ClaimResult {
    /// The VM runs on the destination, verified.
    Done,
    /// The VM stays on the source, and the move is tried again.
    Again {
        /// Reason of the failure.
        why: String,
        /// Exit code of the attempt.
        exit: ExitCode,
        /// Time before the next attempt, in seconds.
        after_seconds: f64,
    },
    /// Another move blocked this one: this does not count as an attempt.
    Busy {
        /// The other move, in words.
        why: String,
    },
    /// The move has failed for good.
    Failed {
        /// Reason.
        why: String,
        /// Exit code of the last attempt.
        exit: ExitCode,
    },
}

/// Command of an operator to a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Steering {
    /// No move begins until the campaign is resumed.
    Pause,
    /// Moves begin again, whatever the error budget says.
    Resume,
    /// No move begins any more, and runners end when their moves have ended.
    Stop,
}

/// Expulsion of a runner that was silent for too long: it can write no step of a move any more, and so takes none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expulsion {
    /// The campaign.
    pub campaign: String,
    /// The runner that is expelled.
    pub runner: String,
    /// The runner that expels it.
    pub by: String,
    /// Time since the last heartbeat, seconds.
    pub silent_seconds: u64,
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.event {
            CampaignEvent::Opened { id, moves, .. } => {
                write!(f, "campaign {id} of {} moves begins", moves.len())
            }
            CampaignEvent::Beat { runner, .. } => write!(f, "runner {runner} is at work"),
            CampaignEvent::Left { runner } => write!(f, "runner {runner} has ended"),
            CampaignEvent::Claimed { runner, at } => write!(f, "runner {runner} takes move {}", at + 1),
            CampaignEvent::Released { at, how, .. } => write!(f, "move {} {how}", at + 1),
            CampaignEvent::WaveOpened { wave, by } => write!(f, "wave {} may begin, says {by}", wave + 1),
            CampaignEvent::Steered { what, by } => write!(f, "{} by {by}", what.word()),
        }
    }
}

impl fmt::Display for ClaimResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("is done"),
            Self::Again { why, after_seconds, .. } => {
                write!(f, "is tried again in {after_seconds:.0} s: {why}")
            }
            Self::Busy { why } => write!(f, "waits: {why}"),
            Self::Failed { why, .. } => write!(f, "failed: {why}"),
        }
    }
}

impl fmt::Display for Expulsion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "runner {} sent no heartbeat for {} s and was expelled by {}",
            self.runner, self.silent_seconds, self.by
        )
    }
}

impl Steering {
    /// The command as a past participle.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Stop => "stopped",
        }
    }
}
