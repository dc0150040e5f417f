//! `vmgate collect`: writes the facts of a move to a file for `vmgate check --facts` on any machine.

use std::{io::Write, path::PathBuf, time::Duration};

use clap::Args;
use jiff::Timestamp;
use vmgate_attest::PrivateKey;
use vmgate_collect::{CollectError, CollectRequest};
use vmgate_facts::{Cause, Change, Facts, Uri, text::with_causes};
use vmgate_judge::change::{ChangeFile, PlannedMove};
use vmgate_libvirt::LibvirtErrorKind;
use vmgate_verdict::ExitCode;

use super::{
    Failure,
    options::{GlobalOptions, Goals, Measurements, MoveOptions},
    output,
    session::{KEY_VARIABLE, Session},
};
use crate::report;

#[derive(Debug, Args)]
pub(super) struct Collect {
    /// Name or UUID of the VM, or qmp:SOCKET for one that libvirt does not have
    vm: String,
    #[command(flatten)]
    the_move: MoveOptions,
    #[command(flatten)]
    goals: Goals,
    /// File to write; stdout if not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Sign the facts, so that `check --facts` can tell who collected them, with the key in VMGATE_SIGNING_KEY or `signing_key`
    /// of vmgate.yaml
    #[arg(long)]
    sign: bool,
}

impl Collect {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let key = if self.sign { Some(signing_key(&session)?) } else { None };
        let file = self.output.as_deref().map(output::OpenFile::open).transpose()?;
        let facts = from_hosts(&self.vm, &self.the_move, &self.goals, &session, Timestamp::now())?;
        let envelope = key.as_ref().map(|key| vmgate_judge::sign_facts(facts.clone(), key)).transpose();
        let envelope = envelope.map_err(|error| Failure::failed(with_causes(&error)))?;
        let write = |out: &mut dyn Write| match &envelope {
            Some(envelope) => report::document_line(envelope, out),
            None => report::yaml_document(&facts, out),
        };
        match file {
            Some(file) => file.write(write)?,
            None => output::to_stdout(write)?,
        }
        if let Some(key) = key {
            tracing::info!("the facts are signed by key {}", key.public().id());
        }
        Ok(ExitCode::Go)
    }
}

fn signing_key(session: &Session) -> Result<PrivateKey, Failure> {
    session.signing_key()?.ok_or_else(|| {
        Failure::usage(format!("--sign: no key: set {KEY_VARIABLE}, or `signing_key: FILE` in vmgate.yaml"))
    })
}

/// Collects the facts of a move from its hosts, and dates them from `now`.
pub(super) fn from_hosts(
    vm: &str,
    the_move: &MoveOptions,
    goals: &Goals,
    session: &Session,
    now: Timestamp,
) -> Result<Facts, Failure> {
    let request = the_move.request(vm, goals.over(Change::default()), session)?;
    let facts = {
        let _waiting = waiting(&request, session);
        facts(&request, now)?
    };
    session.with_history(facts)
}

/// Collection request for a move of a change. Only the options on how to collect are used.
pub(super) fn request_of(
    change: &ChangeFile,
    planned: &PlannedMove,
    looking: &Measurements,
    session: &Session,
) -> Result<CollectRequest, Failure> {
    let hosts = (session.connection(&planned.from)?, Some(session.connection(&planned.to)?));
    let guest = session.planned_guest_access(&planned.vm, planned.guest.as_ref())?;
    let asked = change.to_fact(planned);
    looking.request(hosts, &planned.vm, guest, planned.migrate_address, asked, session)
}

/// Destination of a request, for what needs one.
pub(super) fn destination(request: &CollectRequest) -> Result<&Uri, Failure> {
    let missing = "--to is missing: give the destination host, such as hv2";
    request.destination().map_err(|_| Failure::usage(missing))
}

/// Says on a terminal what a collection waits for.
pub(super) fn waiting(request: &CollectRequest, session: &Session) -> output::Waiting {
    let hosts = if request.to.is_some() { "both hosts" } else { "its host" };
    let what = format!("{}: asking {hosts}, and watching its memory", request.vm);
    let window = request.trace_seconds.max(request.dirty_window_seconds);
    output::Waiting::begin(session.shared, &what, Duration::from_secs(u64::from(window) + 1))
}

/// Collects what a request asks for.
pub(super) fn facts(request: &CollectRequest, now: Timestamp) -> Result<Facts, Failure> {
    vmgate_collect::collect(request, now).map_err(|error| failure(&error))
}

/// Failure for a collection error: a usage error if the user named wrong hosts or a wrong VM.
pub(super) fn failure(error: &CollectError) -> Failure {
    let text = with_causes(error);
    let mistaken = match error {
        CollectError::SameHost { .. } | CollectError::NoLibvirt { .. } => true,
        CollectError::Monitor { why, .. } => why.cause == Cause::NotSupported,
        CollectError::Source(error) => matches!(error.kind, LibvirtErrorKind::NoSuchVm(_)),
    };
    if mistaken { Failure::usage(text) } else { Failure::failed(text) }
}
