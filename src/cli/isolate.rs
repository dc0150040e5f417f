//! `vmgate isolate`: cuts a VM off the network at once and keeps the evidence, or lets it back.

use std::{env, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{Failure, hook, options::Shared, output, session::Session};
use crate::{
    collect::{
        Uri,
        libvirt::{Domain, Hypervisor, LibvirtErrorKind},
        text::plain,
        transport::Transport,
    },
    error::with_causes,
    execute::isolate::{
        self, Circumstances, Evidence, Isolated, Kept, Link, NotIsolated, Released, Uncuttable,
    },
    ledger::{Entry, Ledger},
    verdict::ExitCode,
};

#[derive(Debug, Args)]
pub(super) struct Isolate {
    /// Name or UUID of the VM
    vm: String,
    /// Libvirt URI of the host it runs on
    #[arg(long, value_name = "URI")]
    on: String,
    /// Why; kept with the evidence
    #[arg(long, value_name = "TEXT", default_value = "no reason was given")]
    reason: String,
    /// Let it back on the network: what was cut, and nothing else
    #[arg(long)]
    release: bool,
    /// Folder to keep the evidence in [default: vmgate/isolated in $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// How to look into the guest for the evidence: agent, ssh://USER@HOST[:PORT], exec, ssh or none, as for `check`.
    /// Over the network it can no longer be reached
    #[arg(long, value_name = "WAY")]
    guest: Option<String>,
}

impl Isolate {
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let uri: Uri = self.on.parse().map_err(|error| Failure::usage(format!("--on: {error}")))?;
        let hypervisor = Hypervisor::open(&uri, session.timeout()).map_err(Failure::failed)?;
        let domain = hypervisor.domain(&self.vm).map_err(|error| match error.kind {
            LibvirtErrorKind::NoSuchVm(_) => Failure::usage(error),
            _ => Failure::failed(error),
        })?;
        if self.release {
            let released = isolate::release(&domain, hypervisor.name()).map_err(failure)?;
            say_released(&released)?;
            if released.isolated.is_some() {
                write_down(&session, &released.entry(self.around(&hypervisor, None)))?;
            }
            return Ok(released.exit());
        }
        let by = hook::operator();
        let isolated = isolate::isolate(&domain, hypervisor.name(), &by, &self.reason).map_err(failure)?;
        // Said before the evidence is taken, which needs its time.
        say_isolated(&isolated)?;
        let kept = self.keep(&session, (&hypervisor, &uri), &domain, &isolated, &by);
        // Written down even where no evidence could be kept.
        write_down(&session, &isolated.entry(self.around(&hypervisor, kept.as_ref().ok())))?;
        say_kept(&kept?)?;
        Ok(isolated.exit())
    }

    fn around(&self, hypervisor: &Hypervisor, kept: Option<&Kept>) -> Circumstances {
        Circumstances {
            host_uuid: hook::uuid_of(hypervisor).ok(),
            by: hook::operator(),
            reason: self.reason.clone(),
            evidence: kept.map(|kept| kept.folder.display().to_string()),
            run: None,
        }
    }

    fn keep(
        &self,
        session: &Session,
        (hypervisor, uri): (&Hypervisor, &Uri),
        domain: &Domain,
        isolated: &Isolated,
        by: &str,
    ) -> Result<Kept, Failure> {
        let folder = match &self.evidence {
            Some(folder) => folder.clone(),
            None => evidence_folder().ok_or_else(|| {
                Failure::usage("there is no folder for the evidence: name one with --evidence DIR")
            })?,
        };
        let probe = session.probe(uri)?.unwrap_or_else(|| Transport::for_uri(uri));
        let ways = Evidence {
            hypervisor,
            uri,
            probe: &probe,
            shell: &session.shell(uri)?,
            guest: &session.guest_access(&self.vm, self.guest.as_deref())?,
            timeout: session.timeout(),
            folder: &folder,
        };
        let said = json!({"reason": self.reason, "by": by});
        isolate::keep(&ways, domain, isolated, &said).map_err(|error| {
            Failure::failed(format!(
                "{} is cut off, but the evidence cannot be kept in {}: {error}",
                isolated.vm,
                folder.display()
            ))
        })
    }
}

fn write_down(session: &Session, entry: &Entry) -> Result<(), Failure> {
    let place = session.ledger_for_moves()?;
    let ledger = Ledger::open(place.clone());
    ledger.and_then(|ledger| ledger.append(entry)).map(|_| ()).map_err(|error| {
        Failure::failed(format!("it is done, but not written down in {place}: {}", with_causes(&error)))
    })
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn failure(error: NotIsolated) -> Failure {
    match error {
        NotIsolated::Inactive { .. } => Failure::usage(error),
        NotIsolated::Libvirt(_) | NotIsolated::Malformed { .. } => Failure::failed(error),
    }
}

/// Where evidence is kept if no folder is named; none where there is no home.
pub(super) fn evidence_folder() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).map(|folder| folder.join("vmgate/isolated"))
}

fn say_isolated(isolated: &Isolated) -> Result<(), Failure> {
    output::to_stdout(|out| {
        let Isolated { vm, host, took_seconds, .. } = isolated;
        match isolated.cut.as_slice() {
            [] => writeln!(out, "{vm} on {host}: there was nothing left to cut")?,
            cut => writeln!(out, "{vm} on {host}: cut off in {took_seconds:.3} s: {}", names(cut))?,
        }
        if !isolated.cut_before.is_empty() {
            writeln!(out, "cut off before: {}", names(&isolated.cut_before))?;
        }
        if !isolated.down_before.is_empty() {
            writeln!(out, "down before, and stays so after a release: {}", names(&isolated.down_before))?;
        }
        left_over(out, "NOT CUT", &isolated.not_cut)?;
        writeln!(out, "to let it back: vmgate isolate {vm} --on URI --release")
    })
}

fn say_kept(kept: &Kept) -> Result<(), Failure> {
    output::to_stdout(|out| {
        writeln!(out, "evidence: {}", kept.folder.display())?;
        kept.missing.iter().try_for_each(|missing| writeln!(out, "  without {}", plain(missing)))
    })
}

fn say_released(released: &Released) -> Result<(), Failure> {
    output::to_stdout(|out| {
        let Released { vm, host, .. } = released;
        match (&released.isolated, released.released.as_slice()) {
            (None, _) => writeln!(out, "{vm} on {host}: vmgate has not cut it off, so nothing was changed")?,
            (Some(_), []) => writeln!(out, "{vm} on {host}: nothing was left to let back")?,
            (Some(why), links) => {
                writeln!(out, "{vm} on {host}: let back {}; it was cut off by {}", names(links), plain(why))?;
            }
        }
        if !released.down_before.is_empty() {
            writeln!(out, "down, and not by vmgate: {}", names(&released.down_before))?;
        }
        left_over(out, "NOT LET BACK", &released.not_released)
    })
}

fn left_over(out: &mut dyn std::io::Write, what: &str, devices: &[Uncuttable]) -> std::io::Result<()> {
    devices.iter().try_for_each(|left| writeln!(out, "{what}: {}: {}", plain(&left.device), plain(&left.why)))
}

fn names(links: &[Link]) -> String {
    let name = |link: &Link| match &link.tap {
        Some(tap) => format!("{} ({tap})", link.mac),
        None => link.mac.clone(),
    };
    links.iter().map(name).collect::<Vec<_>>().join(", ")
}
