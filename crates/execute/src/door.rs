//! Door to a manager of VMs: the manager runs the migration, and vmgate orders it, watches it and compares the manager's record.
//!
//! Behind the door is the manager's API or a program of the site. Whatever it answers, libvirt on both hosts says where the VM is.

mod program;

use std::{fmt::Debug, time::Duration};

use program::ManagerProgram;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmgate_process::ChildFailure;
use vmgate_verdict::{Move, NameAndUuid};

use super::{
    Pass,
    nova::{Nova, NovaError},
};

/// A manager of VMs that can be asked for a live migration.
pub(super) trait Manager: Debug + Send + Sync {
    /// Orders the migration; returns its id.
    fn start(&self, question: &DoorQuestion) -> Result<String, DoorError>;

    /// State of the migration.
    fn progress(&self, question: &DoorQuestion) -> Result<DoorState, DoorError>;

    /// Asks the manager to abort the migration. The state says what came of it.
    fn abort(&self, question: &DoorQuestion) -> Result<(), DoorError>;

    /// Host of the VM by the manager's record.
    fn recorded_host(&self, question: &DoorQuestion) -> Result<String, DoorError>;
}

/// Door to a manager. Its orders are private to this crate, and want a pass.
#[derive(Debug)]
pub struct Door {
    /// Id of the manager in the catalogue.
    pub(super) manager: String,
    way: Box<dyn Manager>,
}

/// Move that a manager is asked for: what a program reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DoorQuestion<'a> {
    /// The VM, by name and UUID in libvirt.
    pub(super) vm: &'a NameAndUuid,
    /// The host that it runs on.
    pub(super) source: &'a NameAndUuid,
    /// The host that it is to move to.
    pub(super) destination: &'a NameAndUuid,
    /// Id that the manager gave to the migration; none before it was ordered.
    pub(super) migration: Option<String>,
}

impl<'a> DoorQuestion<'a> {
    /// Question about a move whose migration was not ordered yet, or whose id is not known.
    pub(super) fn about(moved: &'a Move) -> Self {
        let Move { vm, source, destination, .. } = moved;
        Self { vm, source, destination, migration: None }
    }
}

/// State of a migration, by the manager.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(super) enum DoorState {
    /// It was ordered, or it goes on.
    Running,
    /// The manager has done all that it does.
    Finished,
    /// It failed or was aborted; the reason in the manager's words.
    Failed {
        /// The manager's words.
        #[serde(default)]
        why: String,
    },
}

/// Error of a call through the door.
#[derive(Debug, Error)]
pub(super) enum DoorError {
    /// The pass is for a migration that somebody else runs.
    #[error("the verdict is not for a migration that {manager} runs")]
    OtherMover {
        /// Id of the manager.
        manager: String,
    },
    /// The program failed or took too long.
    #[error("`{command}` {source}")]
    Program {
        /// The program with its verb.
        command: String,
        /// Failure of the program.
        source: ChildFailure,
    },
    /// The answer is not the JSON object that the verb demands.
    #[error("`{command}` answered `{answer}`, and {wanted} was expected ({why})")]
    Answer {
        /// The program with its verb.
        command: String,
        /// The answer.
        answer: String,
        /// Shape of a right answer.
        wanted: &'static str,
        /// Error of the parser.
        why: serde_json::Error,
    },
    /// Nova's API failed.
    #[error(transparent)]
    Nova(#[from] NovaError),
    /// The manager cannot do that, for a reason that its records give.
    #[error("{0}")]
    Refused(String),
    /// The order was sent, and nobody knows if the manager has taken it.
    #[error("the manager may have taken the order, and does not say so ({0})")]
    Unclear(String),
}

impl Door {
    /// Door to Nova's API.
    pub fn to_nova(manager: &str, nova: Nova) -> Self {
        Self { manager: manager.to_owned(), way: Box::new(nova) }
    }

    /// Door that a program opens. It is run with a verb as its last argument, reads one JSON object on its standard input
    /// and prints one.
    pub fn by_program(manager: &str, program: Vec<String>, time_limit: Duration) -> Self {
        Self { manager: manager.to_owned(), way: Box::new(ManagerProgram { program, time_limit }) }
    }

    /// Orders the migration; returns its id. Only with a pass for this manager.
    pub(super) fn start(&self, pass: &Pass, question: &DoorQuestion) -> Result<String, DoorError> {
        if pass.verdict().change.run_by.as_deref() != Some(self.manager.as_str()) {
            return Err(DoorError::OtherMover { manager: self.manager.clone() });
        }
        self.way.start(question)
    }

    /// State of the migration.
    pub(super) fn progress(&self, question: &DoorQuestion) -> Result<DoorState, DoorError> {
        self.way.progress(question)
    }

    /// Asks the manager to abort the migration. The state says what came of it.
    pub(super) fn abort(&self, question: &DoorQuestion) -> Result<(), DoorError> {
        self.way.abort(question)
    }

    /// Host of the VM by the manager's record.
    pub(super) fn recorded_host(&self, question: &DoorQuestion) -> Result<String, DoorError> {
        self.way.recorded_host(question)
    }
}
