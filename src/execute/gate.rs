//! The gate: a migration starts with a [`Pass`], and only a GO gives one.

use thiserror::Error;

use crate::verdict::{Decision, ExitCode, Verdict};

/// The right to migrate one VM between two hosts, given by a verdict. There is no other way to make one.
#[derive(Debug)]
pub struct Pass {
    pub(super) vm: String,
    pub(super) source: String,
    pub(super) destination: String,
}

/// Why a verdict opens no gate.
#[derive(Debug, Error)]
pub enum Refused {
    /// The verdict is not GO, or not clear enough under `--strict`.
    #[error("not migrated: {vm} stays on {source_host}, because the verdict is {because}")]
    NotGo {
        /// The VM's name.
        vm: String,
        /// The host it stays on.
        source_host: String,
        /// The verdict, in words.
        because: String,
        /// How the process ends.
        exit: ExitCode,
    },
    /// The verdict does not say for certain what it is about.
    #[error("not migrated: the verdict does not name {0}, so it cannot be held against the hosts")]
    Unnamed(&'static str),
}

impl Refused {
    /// How the process ends.
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::NotGo { exit, .. } => *exit,
            Self::Unnamed(_) => ExitCode::EvidenceMissing,
        }
    }
}

impl Pass {
    /// Opens the gate if `verdict` is GO; under `--strict` a GO with warnings does not open it.
    pub fn from_verdict(verdict: &Verdict) -> Result<Self, Refused> {
        let exit = ExitCode::of(verdict);
        let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "the VM".to_owned());
        if !matches!(verdict.decision, Decision::Go(_)) || exit != ExitCode::Go {
            return Err(Refused::NotGo {
                vm: named(&verdict.moved.vm.name),
                source_host: named(&verdict.moved.source.name),
                because: exit.meaning().to_owned(),
                exit,
            });
        }
        let uuid = |uuid: &Option<String>, whose| uuid.clone().ok_or(Refused::Unnamed(whose));
        Ok(Self {
            vm: uuid(&verdict.moved.vm.uuid, "the VM's UUID")?,
            source: uuid(&verdict.moved.source.uuid, "the source host's UUID")?,
            destination: uuid(&verdict.moved.destination.uuid, "the destination host's UUID")?,
        })
    }
}
