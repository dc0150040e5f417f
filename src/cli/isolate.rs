//! `vmgate isolate`: cuts a VM off the network at once and saves evidence, or connects it again.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use vmgate_execute::isolate::{
    self, EvidenceSources, IsolationContext, IsolationError, IsolationReport, Link, ReleaseReport,
    SavedEvidence, UncutDevice,
};
use vmgate_facts::{
    Uri,
    text::{ShownCommand, plain, with_causes},
};
use vmgate_ledger::{Entry, Ledger};
use vmgate_libvirt::{Domain, Hypervisor, LibvirtErrorKind};
use vmgate_verdict::ExitCode;

use super::{
    Failure, hook,
    options::GlobalOptions,
    output,
    session::{Session, state_folder},
};

#[derive(Debug, Args)]
pub(super) struct Isolate {
    /// Name or UUID of the VM
    vm: String,
    /// Host that the VM runs on: a name of vmgate.yaml or the inventory, hv1, root@hv1 or a libvirt URI
    #[arg(long, value_name = "HOST")]
    on: String,
    /// Reason, which is saved with the evidence
    #[arg(long, value_name = "TEXT", default_value = "no reason was given")]
    reason: String,
    /// Connect the VM again: the interfaces that were cut, and no others
    #[arg(long)]
    release: bool,
    /// Folder for the evidence [default: vmgate/isolated in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// Access to the guest for the evidence: agent, ssh://USER@HOST[:PORT], exec, ssh or none, as for `check`.
    /// The guest can no longer be reached over the network
    #[arg(long, value_name = "WAY")]
    guest: Option<String>,
}

impl Isolate {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let uri = session.host_named(&self.on)?;
        let hypervisor = Hypervisor::open(&uri, session.timeout()).map_err(Failure::failed)?;
        let domain = hypervisor.domain(&self.vm).map_err(|error| match error.kind {
            LibvirtErrorKind::NoSuchVm(_) => Failure::usage(error),
            _ => Failure::failed(error),
        })?;
        if self.release {
            let released = isolate::release(&domain, hypervisor.name()).map_err(failure)?;
            print_release(&released)?;
            if released.isolated.is_some() {
                write_down(&session, &released.entry(self.context(&hypervisor, None)))?;
            }
            return Ok(released.exit());
        }
        let by = hook::operator();
        let isolated = isolate::isolate(&domain, hypervisor.name(), &by, &self.reason).map_err(failure)?;
        // Printed before the evidence is collected, which takes time.
        print_isolation(&isolated, &self.on)?;
        let kept = self.save_evidence(&session, (&hypervisor, &uri), &domain, &isolated, &by);
        // Recorded even if no evidence could be saved.
        write_down(&session, &isolated.entry(self.context(&hypervisor, kept.as_ref().ok())))?;
        print_evidence(&kept?)?;
        Ok(isolated.exit())
    }

    fn context(&self, hypervisor: &Hypervisor, kept: Option<&SavedEvidence>) -> IsolationContext {
        IsolationContext {
            host_uuid: hypervisor.uuid().ok(),
            by: hook::operator(),
            reason: self.reason.clone(),
            evidence: kept.map(|kept| kept.folder.display().to_string()),
            run: None,
        }
    }

    fn save_evidence(
        &self,
        session: &Session,
        (hypervisor, uri): (&Hypervisor, &Uri),
        domain: &Domain,
        isolated: &IsolationReport,
        by: &str,
    ) -> Result<SavedEvidence, Failure> {
        let folder = match &self.evidence {
            Some(folder) => folder.clone(),
            None => evidence_folder().ok_or_else(|| {
                Failure::usage("no folder for the evidence is known: give one with --evidence DIR")
            })?,
        };
        let probe = session.probe(uri)?;
        let ways = EvidenceSources {
            hypervisor,
            uri,
            probe: &probe,
            shell: &session.shell(uri)?,
            guest: &session.guest_access(&self.vm, self.guest.as_deref())?,
            timeout: session.timeout(),
            folder: &folder,
        };
        let said = json!({"reason": self.reason, "by": by});
        isolate::save_evidence(&ways, domain, isolated, &said).map_err(|error| {
            Failure::failed(format!(
                "{} is cut off, but the evidence cannot be saved in {}: {error}",
                isolated.vm,
                folder.display()
            ))
        })
    }
}

fn write_down(session: &Session, entry: &Entry) -> Result<(), Failure> {
    let place = session.ledger_for_moves()?;
    let key = session.signing_key()?;
    let ledger = Ledger::open(place.clone()).map(|ledger| ledger.signed_with(key));
    ledger.and_then(|ledger| ledger.append(entry)).map(|_| ()).map_err(|error| {
        Failure::failed(format!(
            "the network of the VM was changed, but this could not be written to the ledger {place}: {}",
            with_causes(&error)
        ))
    })
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn failure(error: IsolationError) -> Failure {
    match error {
        IsolationError::Inactive { .. } => Failure::usage(error),
        IsolationError::Libvirt(_) | IsolationError::Malformed { .. } => Failure::failed(error),
    }
}

/// Default folder of the evidence; `None` without a home folder.
pub(super) fn evidence_folder() -> Option<PathBuf> {
    state_folder().map(|folder| folder.join("isolated"))
}

fn print_isolation(isolated: &IsolationReport, on: &str) -> Result<(), Failure> {
    output::to_stdout(|out| {
        let IsolationReport { vm, host, took_seconds, .. } = isolated;
        match isolated.cut.as_slice() {
            [] => writeln!(out, "{vm} on {host}: no interface was left to cut")?,
            cut => writeln!(out, "{vm} on {host}: cut off in {took_seconds:.3} s: {}", names(cut))?,
        }
        if !isolated.cut_before.is_empty() {
            writeln!(out, "cut off before: {}", names(&isolated.cut_before))?;
        }
        if !isolated.down_before.is_empty() {
            writeln!(
                out,
                "down before the isolation, and stays down after a release: {}",
                names(&isolated.down_before)
            )?;
        }
        print_devices(out, "NOT CUT", &isolated.not_cut)?;
        let command = ShownCommand::new("vmgate isolate --release --on").value(on).operand(vm);
        writeln!(out, "to connect it again: {command}")
    })
}

fn print_evidence(kept: &SavedEvidence) -> Result<(), Failure> {
    output::to_stdout(|out| {
        writeln!(out, "evidence: {}", kept.folder.display())?;
        kept.missing.iter().try_for_each(|missing| writeln!(out, "  without {}", plain(missing)))
    })
}

fn print_release(released: &ReleaseReport) -> Result<(), Failure> {
    output::to_stdout(|out| {
        let ReleaseReport { vm, host, .. } = released;
        match (&released.isolated, released.released.as_slice()) {
            (None, _) => {
                writeln!(out, "{vm} on {host}: vmgate has not isolated this VM, so nothing was changed")?;
            }
            (Some(_), []) => writeln!(out, "{vm} on {host}: no interface was left to connect")?,
            (Some(why), links) => {
                writeln!(
                    out,
                    "{vm} on {host}: connected again {}; it was isolated by {}",
                    names(links),
                    plain(why)
                )?;
            }
        }
        if !released.down_before.is_empty() {
            writeln!(out, "down, but not cut by vmgate: {}", names(&released.down_before))?;
        }
        print_devices(out, "NOT CONNECTED", &released.not_released)
    })
}

fn print_devices(out: &mut dyn std::io::Write, what: &str, devices: &[UncutDevice]) -> std::io::Result<()> {
    devices.iter().try_for_each(|left| writeln!(out, "{what}: {}: {}", plain(&left.device), plain(&left.why)))
}

fn names(links: &[Link]) -> String {
    let name = |link: &Link| match &link.tap {
        Some(tap) => format!("{} ({tap})", link.mac),
        None => link.mac.clone(),
    };
    links.iter().map(name).collect::<Vec<_>>().join(", ")
}
