//! `vmgate collect`: writes the facts of a move to a file for `vmgate check --facts` on any machine.

use std::path::PathBuf;

use clap::Args;
use vmgate_collect::{CollectError, CollectRequest};
use vmgate_facts::{Change, Facts, text::with_causes};
use vmgate_judge::change::{ChangeFile, PlannedMove};
use vmgate_libvirt::LibvirtErrorKind;
use vmgate_verdict::ExitCode;

use super::{
    Failure,
    options::{GlobalOptions, Goals, MoveOptions},
    output,
    session::Session,
};
use crate::report;

#[derive(Debug, Args)]
pub(super) struct Collect {
    /// Name or UUID of the VM
    vm: String,
    #[command(flatten)]
    the_move: MoveOptions,
    #[command(flatten)]
    goals: Goals,
    /// File to write; stdout if not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Collect {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let file = self.output.as_deref().map(output::OpenFile::open).transpose()?;
        let facts = from_hosts(&self.vm, &self.the_move, &self.goals, &session)?;
        match file {
            Some(file) => file.write(|out| report::yaml_document(&facts, out))?,
            None => output::to_stdout(|out| report::yaml_document(&facts, out))?,
        }
        Ok(ExitCode::Go)
    }
}

/// Collects the facts of a move from its hosts.
pub(super) fn from_hosts(
    vm: &str,
    the_move: &MoveOptions,
    goals: &Goals,
    session: &Session,
) -> Result<Facts, Failure> {
    session
        .with_history(facts(&the_move.request(vm, goals.over(Change::default()), session)?, session.now())?)
}

/// Collection request for a move of a change. Only the options on how to collect are used.
pub(super) fn request_of(
    change: &ChangeFile,
    planned: &PlannedMove,
    looking: &MoveOptions,
    session: &Session,
) -> Result<CollectRequest, Failure> {
    let hosts = (planned.from.clone(), planned.to.clone());
    let (guest, asked) = (planned.guest.as_deref(), change.to_fact(planned));
    looking.request_between(hosts, &planned.vm, guest, planned.migrate_address, asked, session)
}

/// Collects what a request asks for.
pub(super) fn facts(request: &CollectRequest, now: jiff::Timestamp) -> Result<Facts, Failure> {
    vmgate_collect::collect(request, now).map_err(|error| failure(&error))
}

/// Failure for a collection error: a usage error if the user named wrong hosts or a wrong VM.
pub(super) fn failure(error: &CollectError) -> Failure {
    let text = with_causes(error);
    let mistaken = match error {
        CollectError::SameHost { .. } => true,
        CollectError::Source(error) => matches!(error.kind, LibvirtErrorKind::NoSuchVm(_)),
    };
    if mistaken { Failure::usage(text) } else { Failure::failed(text) }
}
