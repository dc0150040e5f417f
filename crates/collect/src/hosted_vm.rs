//! A VM on one host, by whom knows it there: libvirt, or the on-host program for a VM that libvirt does not have.

use std::time::Duration;

use vmgate_facts::{Cause, Unknown, Uuid, VmNic};
use vmgate_libvirt::{Domain, JobOperation, JobStats};
use vmgate_probe::qemu::{MONITOR, QemuMigration, VmProcess};
use vmgate_reach::agent::{AgentChannel, AgentFailure};

use super::{
    monitored,
    transport::Transport,
    vm::{self, FoundVm},
};

/// A VM, found on a host.
#[derive(Debug, Clone)]
pub enum HostedVm {
    /// As libvirt there has it.
    Libvirt(Domain),
    /// By its QEMU process, which the on-host program sees.
    Process(Box<ProcessVm>),
}

/// A VM that libvirt does not have, by its one QEMU process on a host.
#[derive(Debug, Clone)]
pub struct ProcessVm {
    /// The process, as it was found.
    pub process: VmProcess,
    /// Way to the host's on-host program.
    way: Transport,
    limit: Duration,
}

impl ProcessVm {
    /// The VM with this UUID, name or monitor on the host at the end of `way`; none where it has no process there.
    pub fn find(vm: &str, way: &Transport, limit: Duration) -> Result<Option<Self>, Unknown> {
        let mut found = way.processes_of(vm, limit)?;
        if found.len() > 1 {
            let pids: Vec<String> = found.iter().map(|process| process.pid.to_string()).collect();
            let why = format!("it has several QEMU processes there: {}", pids.join(", "));
            return Err(Unknown::new(Cause::NotSupported, why));
        }
        Ok(found.pop().map(|process| Self { process, way: way.clone(), limit }))
    }

    fn monitor(&self) -> Result<&str, Unknown> {
        self.process.monitor.as_deref().ok_or_else(|| {
            Unknown::new(Cause::NotSupported, "its QEMU has no QMP socket on its command line")
        })
    }

    /// Its migration now; none where none goes on.
    fn job(&self) -> Result<Option<JobStats>, Unknown> {
        let now = Self::find(&format!("{MONITOR}{}", self.monitor()?), &self.way, self.limit)?;
        let state = now.map(|vm| vm.process.state.into_result()).transpose()?;
        Ok(state.filter(|state| state.migration.is_active()).map(|state| job_stats(&state.migration)))
    }
}

/// Statistics of a migration in libvirt's words.
fn job_stats(migration: &QemuMigration) -> JobStats {
    let ram = migration.ram.as_ref();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    let speed = ram.map(|ram| (ram.mbps * 1e6 / 8.0) as u64);
    JobStats {
        operation: if ram.is_some() { JobOperation::MigrationOut } else { JobOperation::MigrationIn },
        end: None,
        elapsed: migration.total_time.map(Duration::from_millis),
        data_total_bytes: ram.map(|ram| ram.total),
        data_processed_bytes: ram.map(|ram| ram.transferred),
        data_remaining_bytes: ram.map(|ram| ram.remaining),
        memory_remaining_bytes: ram.map(|ram| ram.remaining),
        memory_bytes_per_second: speed,
        dirty_bytes_per_second: ram.map(|ram| ram.dirty_pages_rate.saturating_mul(ram.page_size)),
        iteration: ram.map(|ram| ram.dirty_sync_count),
        downtime: migration.expected_downtime.map(Duration::from_millis),
        throttle_percent: migration.cpu_throttle_percentage,
        error: None,
    }
}

impl HostedVm {
    /// The VM in libvirt, which alone can do some things.
    pub fn domain(&self) -> Result<&Domain, Unknown> {
        match self {
            Self::Libvirt(domain) => Ok(domain),
            Self::Process(_) => Err(Unknown::new(Cause::NoLibvirt, "libvirt does not have this VM")),
        }
    }

    /// Name and UUID by its host.
    pub fn name_and_uuid(&self) -> (Option<String>, Option<Uuid>) {
        match self {
            Self::Libvirt(domain) => (domain.name().ok(), domain.uuid().ok()),
            Self::Process(vm) => (vm.process.name.clone(), vm.process.uuid.clone()),
        }
    }

    /// The job that runs on it; of a VM that libvirt does not have, its migration.
    pub fn job(&self) -> Result<Option<JobStats>, Unknown> {
        match self {
            Self::Libvirt(domain) => Ok(domain.job_info()?),
            Self::Process(vm) => vm.job(),
        }
    }

    /// Statistics of the last job that ended, which libvirt keeps.
    pub fn completed_job(&self) -> Option<JobStats> {
        self.domain().ok()?.completed_job().ok().flatten()
    }

    /// Interfaces that are up and have a device on the host.
    pub fn nics(&self) -> Result<Vec<VmNic>, Unknown> {
        let mut nics = match self {
            Self::Libvirt(domain) => vm::configuration(&domain.xml()?).into_result()?.nics,
            Self::Process(_) => self.found()?.facts.nics.into_result()?,
        };
        nics.retain(|nic| {
            nic.link_up && (nic.tap.is_some() || !matches!(nic.kind.as_str(), "bridge" | "network"))
        });
        Ok(nics)
    }

    /// Frames that the guest has sent through a device of the host since it is there, which libvirt counts.
    pub fn frames_sent(&self, device: &str) -> Option<u64> {
        self.domain().ok()?.frames_sent(device).ok()
    }

    /// The guest's clock by its agent, in seconds since the epoch.
    pub fn guest_time(&self) -> Result<i64, Unknown> {
        Ok(self.domain()?.guest_time()?)
    }

    /// The VM with its facts, as a look without its monitor gives them in libvirt.
    pub(super) fn found(&self) -> Result<FoundVm, Unknown> {
        match self {
            Self::Libvirt(domain) => Ok(vm::look(domain, vm::Monitor::Forbidden)?),
            Self::Process(vm) => monitored::found(vm.way.monitored_vm(vm.monitor()?, vm.limit)?),
        }
    }
}

impl AgentChannel for HostedVm {
    fn command(&self, json: &str, patience: Duration) -> Result<String, AgentFailure> {
        self.domain().map_err(AgentFailure::Unavailable)?.command(json, patience)
    }
}
