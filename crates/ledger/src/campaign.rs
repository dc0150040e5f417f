//! What is written of a campaign: a change that several runners carry out together. Its state is what its records add up
//! to, so that the queue is as tamper-evident as the rest, and a claim's number in the chain is its fencing token.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::Driver;
use vmgate_verdict::ExitCode;

/// Something that happened to a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    /// Digest of the change, which tells one campaign from another.
    pub campaign: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened to a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first runner began it.
    Opened {
        /// Id of the change in the operator's own books.
        id: String,
        /// Names of its waves.
        waves: Vec<String>,
        /// When its window closes.
        window_end: Option<Timestamp>,
        /// Moves that may fail before no other begins.
        error_budget: Option<u32>,
        /// Its moves, in the order of the file.
        moves: Vec<CampaignMove>,
    },
    /// A runner takes part, or says that it still does. Others count from when they read it, by their own clocks.
    Beat {
        /// The runner.
        runner: String,
        /// Its process.
        driver: Driver,
    },
    /// A runner has ended.
    Left {
        /// The runner.
        runner: String,
    },
    /// A runner takes a move: this record's number is its fencing token.
    Claimed {
        /// The runner.
        runner: String,
        /// Which move, from 0.
        at: usize,
    },
    /// A move is given back, done or not.
    Released {
        /// Which move.
        at: usize,
        /// The claim that is over.
        token: u64,
        /// How it ended.
        how: Released,
    },
    /// The hosts that a wave waits for have had their maintenance.
    WaveOpened {
        /// Which wave, from 0.
        wave: usize,
        /// Who says so.
        by: String,
    },
    /// Somebody steers it.
    Steered {
        /// Where to.
        what: Steering,
        /// Who.
        by: String,
    },
}

/// One move of a campaign.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CampaignMove {
    /// Name or UUID of the VM.
    pub vm: String,
    /// URI of its host.
    pub from: String,
    /// URI of the destination.
    pub to: String,
    /// Its wave, from 0.
    #[serde(default)]
    pub wave: usize,
    /// Groups of which no other member moves meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclusive: Vec<String>,
    /// How long it takes by the plan's forecast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<f64>,
}

/// How a claim ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ended", rename_all = "kebab-case")]
pub enum Released {
    /// The VM runs on the destination, verified.
    Done,
    /// It stays where it was, and is tried again.
    Again {
        /// Why it was not made.
        why: String,
        /// How the attempt ended.
        exit: ExitCode,
        /// Not before so long has passed.
        after_seconds: f64,
    },
    /// Another move was in the way: no attempt at all.
    Busy {
        /// Which.
        why: String,
    },
    /// It is not made.
    Failed {
        /// Why.
        why: String,
        /// How it ended.
        exit: ExitCode,
    },
}

/// What somebody wants of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Steering {
    /// No move begins until it is resumed.
    Pause,
    /// Moves begin again, whatever the error budget says.
    Resume,
    /// No move begins any more, and runners end when theirs are over.
    Stop,
}

/// A runner that was silent for too long can write no more: not a step of a move, and so it takes none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expulsion {
    /// The campaign.
    pub campaign: String,
    /// The runner that is out.
    pub runner: String,
    /// The runner that says so.
    pub by: String,
    /// How long it was not heard of, seconds.
    pub silent_seconds: u64,
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.event {
            Event::Opened { id, moves, .. } => write!(f, "campaign {id} of {} moves begins", moves.len()),
            Event::Beat { runner, .. } => write!(f, "runner {runner} is at work"),
            Event::Left { runner } => write!(f, "runner {runner} has ended"),
            Event::Claimed { runner, at } => write!(f, "runner {runner} takes move {}", at + 1),
            Event::Released { at, how, .. } => write!(f, "move {} {how}", at + 1),
            Event::WaveOpened { wave, by } => write!(f, "wave {} may begin, says {by}", wave + 1),
            Event::Steered { what, by } => write!(f, "{} by {by}", what.word()),
        }
    }
}

impl fmt::Display for Released {
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
            "runner {} was not heard of for {} s and can act no more, says {}",
            self.runner, self.silent_seconds, self.by
        )
    }
}

impl Steering {
    /// What was done.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Stop => "stopped",
        }
    }
}
