//! Migrates a VM, and only on a GO. The one part of vmgate that changes a host.
//!
//! Whatever happens, the end of a migration is told from what both hosts say afterwards, not from what libvirt
//! returned: either the VM runs on one host alone, and it is said which, or somebody must look.

mod gate;
pub mod isolate;
mod verify;
mod whereabouts;

use std::{
    net::IpAddr,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;

pub use gate::{Pass, Refused};
pub use verify::Verified;
pub use whereabouts::Whereabouts;

use crate::{
    collect::{
        capabilities,
        libvirt::{Domain, Hypervisor, JobStats, LibvirtError, MigrateParams, Trouble},
    },
    verdict::ExitCode,
};
use verify::Baseline;

/// Time between two looks at a running migration.
const LOOK: Duration = Duration::from_millis(200);

/// How a migration is to be run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address at the destination that takes the traffic; libvirt's own choice where there is none.
    pub migrate_address: Option<IpAddr>,
    /// Limit on the traffic, bytes per second; none where there is none.
    pub bandwidth_limit_bytes_per_second: Option<u64>,
    /// The downtime limit given to QEMU, seconds.
    pub longest_blackout_seconds: f64,
}

/// A migration that is done and verified.
#[derive(Debug)]
pub struct Done {
    /// How long it took from the start to the end of the verification.
    pub took: Duration,
    /// libvirt's own account of it; `None` where it gave none.
    pub account: Option<JobStats>,
}

/// A migration that did not end as it should.
#[derive(Debug, Error)]
pub enum Undone {
    /// Nothing was done, because something was not as the verdict says.
    #[error("the migration was not started: {0}")]
    NotStarted(String),
    /// It was stopped or failed, and the VM runs where it was.
    #[error("{why}; the VM runs on {host}, where it was")]
    Stayed {
        /// What stopped it.
        why: String,
        /// The source host's name.
        host: String,
    },
    /// It is not certain that the VM runs, or that it runs once.
    #[error("{why}; somebody must look: {whereabouts}. Nothing was isolated or stopped")]
    Unclear {
        /// What went wrong.
        why: String,
        /// What both hosts say.
        whereabouts: Whereabouts,
    },
    /// The VM runs on the destination alone, but something that worked before does not.
    #[error("the VM runs on {host}, but {trouble}; somebody must look. Nothing was isolated or stopped")]
    Suffers {
        /// The destination host's name.
        host: String,
        /// What does not work.
        trouble: String,
    },
}

impl Undone {
    /// How the process ends.
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::NotStarted(_) => ExitCode::Internal,
            Self::Stayed { .. } => ExitCode::NotFinished,
            Self::Unclear { .. } | Self::Suffers { .. } => ExitCode::SomebodyMustLook,
        }
    }
}

/// Both hosts of a move.
#[derive(Debug)]
pub struct Hosts {
    /// The host the VM runs on.
    pub source: Hypervisor,
    /// The host it is to go to.
    pub destination: Hypervisor,
}

impl Hosts {
    /// Migrates the VM that `pass` names. `stop` aborts it; `watch` is told how far it is.
    pub fn migrate(
        &self,
        pass: &Pass,
        settings: &Settings,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(&JobStats),
    ) -> Result<Done, Undone> {
        let start = Instant::now();
        let (domain, baseline) = self.prepare(pass).map_err(Undone::NotStarted)?;
        let result = self.run(&domain, settings, stop, watch);
        let seen = Whereabouts::settle(&pass.vm, &self.source, &self.destination);
        let stopped = stop.load(Ordering::Relaxed);
        match result {
            Ok(()) if seen.only_on_destination() => {}
            Ok(()) => {
                let why = "libvirt says that the migration is done".to_owned();
                return Err(Undone::Unclear { why, whereabouts: seen });
            }
            Err(error) => {
                let why = if stopped {
                    "the migration was aborted on request".to_owned()
                } else {
                    error.to_string()
                };
                return Err(if seen.only_on_source() {
                    self.stayed(why)
                } else {
                    Undone::Unclear { why, whereabouts: seen }
                });
            }
        }
        let account = self.verify(pass, &baseline)?;
        Ok(Done { took: start.elapsed(), account })
    }

    /// Makes sure that VM and hosts are those the verdict was about, and notes what works now.
    fn prepare(&self, pass: &Pass) -> Result<(Domain, Baseline), String> {
        let said = |error: LibvirtError| error.to_string();
        for (host, meant) in [(&self.source, &pass.source), (&self.destination, &pass.destination)] {
            let uuid = host_uuid(host)?;
            if uuid != *meant {
                return Err(format!(
                    "host {} has the UUID {uuid}, but the verdict is about host {meant}",
                    host.name()
                ));
            }
        }
        let domain = self.source.domain(&pass.vm).map_err(said)?;
        let baseline = Baseline::of(&domain)?;
        Ok((domain, baseline))
    }

    /// Runs the migration on a thread of its own, and looks after it from this one.
    fn run(
        &self,
        domain: &Domain,
        settings: &Settings,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(&JobStats),
    ) -> Result<(), LibvirtError> {
        let params = MigrateParams {
            migrate_uri: settings.migrate_address.map(migrate_uri),
            bandwidth_mib_per_second: settings
                .bandwidth_limit_bytes_per_second
                .map(|limit| (limit >> 20).max(1)),
            max_downtime: Some(Duration::from_secs_f64(settings.longest_blackout_seconds)),
            auto_converge: false,
            persistent: domain.is_persistent()?,
        };
        thread::scope(|scope| {
            let (sender, ended) = mpsc::sync_channel(1);
            scope.spawn(move || sender.send(domain.migrate(&self.destination, &params)));
            let mut aborted = false;
            loop {
                match ended.recv_timeout(LOOK) {
                    Ok(result) => return result.map(|_| ()),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Err(lost_sight(self.source.name())),
                }
                let Ok(Some(job)) = domain.job_info() else { continue };
                watch(&job);
                if stop.load(Ordering::Relaxed) && !aborted {
                    aborted = domain.abort_job().is_ok();
                }
            }
        })
    }

    fn verify(&self, pass: &Pass, baseline: &Baseline) -> Result<Option<JobStats>, Undone> {
        let suffers = |trouble: String| Undone::Suffers { host: self.destination.name().to_owned(), trouble };
        let domain = self.destination.domain(&pass.vm).map_err(|error| suffers(error.to_string()))?;
        let troubles: Vec<String> = baseline
            .verify(&domain)
            .into_iter()
            .filter_map(|seen| seen.trouble.map(|trouble| format!("{}: {trouble}", seen.what)))
            .collect();
        if troubles.is_empty() {
            Ok(domain.completed_job().ok().flatten())
        } else {
            Err(suffers(troubles.join("; ")))
        }
    }

    fn stayed(&self, why: String) -> Undone {
        Undone::Stayed { why, host: self.source.name().to_owned() }
    }
}

/// The UUID in the host's capabilities.
fn host_uuid(host: &Hypervisor) -> Result<String, String> {
    let xml = host.capabilities_xml().map_err(|error| error.to_string())?;
    let uuid = capabilities::parse(&xml).ok().and_then(|capabilities| capabilities.uuid);
    uuid.ok_or_else(|| format!("host {} does not tell its UUID", host.name()))
}

/// The call ended without an answer, which only a defect can cause.
fn lost_sight(host: &str) -> LibvirtError {
    LibvirtError {
        host: host.to_owned(),
        doing: "migrate the VM".to_owned(),
        trouble: Trouble::Other("the call ended without an answer".to_owned()),
    }
}

/// The URI that libvirt gives to the source's QEMU.
fn migrate_uri(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("tcp://{address}"),
        IpAddr::V6(address) => format!("tcp://[{address}]"),
    }
}
