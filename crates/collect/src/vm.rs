//! Facts of the VM, from libvirt's answers and the domain XML.

use std::collections::BTreeSet;

use vmgate_facts::{
    Absence, Cause, Fact, Host, Unknown, Uuid, Version, Vm, VmComponent, VmState, machine_version,
    text::plain,
};
use vmgate_libvirt::{
    Domain, LibvirtError, RunState,
    accounts::Document,
    domain_xml::{self, Backing, DomainConfig},
    volume_xml,
};
use vmgate_probe::{host::QemuProcess, qemu::MonitoredVm};

use super::{asker::Asker, transport::Answer};

/// The VM as libvirt describes it: its facts, and what the other collectors need.
pub(super) struct FoundVm {
    /// The facts, without dirty rate and QEMU version.
    pub(super) facts: Vm,
    /// Configuration of the VM; none where the XML could not be read.
    pub(super) config: Option<DomainConfig>,
    /// XML of the configuration that a migration sends.
    pub(super) migratable_xml: Result<String, Unknown>,
    /// Present state of the VM.
    pub(super) state: VmState,
    /// UUID of the VM.
    pub(super) uuid: Option<Uuid>,
    /// Answers of its monitor, for a VM that libvirt does not have.
    pub(super) monitored: Option<MonitoredVm>,
}

/// Permission to ask QEMU's monitor, for which libvirt marks the domain as tainted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Monitor {
    Allowed,
    Forbidden,
}

/// Asks libvirt for everything that needs no measurement. The only error is a VM without a known state.
pub(super) fn look(domain: &Domain, monitor: Monitor) -> Result<FoundVm, LibvirtError> {
    let RunState { state, .. } = domain.state()?;
    let mut asker = Asker::default();
    let uuid = asker.ask(|| domain.uuid());
    let live = asker.ask(|| domain.xml()).and_then(|xml| configuration(&xml));
    // A connection that may only read is not given the migratable XML; live XML tells nearly the same.
    let migratable = asker.ask(|| domain.migratable_xml());
    let migratable_xml = match &migratable {
        Fact::Known(xml) => Ok(xml.clone()),
        Fact::Unknown(why) => Err(why.clone()),
    };
    let config = match migratable.and_then(|xml| configuration(&xml)) {
        Fact::Known(migratable) => live.map(|live| migratable.with_live(&live)),
        Fact::Unknown(_) => live,
    };
    let config = config
        .map(|config| with_volumes(config, domain))
        .map(|config| if state == VmState::Running { with_block_jobs(config, domain) } else { config });
    let mut facts = Vm {
        name: asker.ask(|| domain.name()).map(|name| plain(&name)),
        uuid: uuid.clone(),
        state: Fact::Known(state),
        persistent: asker.ask(|| domain.is_persistent()),
        resident_bytes: asker.ask(|| domain.resident_bytes()).and_then(|bytes| match bytes {
            Some(bytes) => Fact::Known(Some(bytes)),
            None => Fact::unknown(Cause::NotSupported, "libvirt reports no resident memory of the VM's QEMU"),
        }),
        job: asker.ask(|| domain.job_info()).map(|job| job.map(|job| job.operation.name().to_owned())),
        snapshots: asker.ask(|| domain.snapshots()),
        migration_blockers: with_monitor(monitor, state, || {
            let reasons = asker.ask(|| domain.migration_blockers());
            reasons.map(|reasons| reasons.iter().map(|reason| plain(reason)).collect())
        }),
        virtio_queues: with_monitor(monitor, state, || Fact::from(domain.virtio_queues())),
        ..Vm::default()
    };
    fill(&mut facts, &config);
    Ok(FoundVm {
        facts,
        config: config.known().cloned(),
        migratable_xml,
        state,
        uuid: uuid.known().cloned(),
        monitored: None,
    })
}

/// The answer of QEMU's monitor; absent where it must not be asked.
fn with_monitor<T>(monitor: Monitor, state: VmState, ask: impl FnOnce() -> Fact<T>) -> Fact<Option<T>> {
    match (monitor, state) {
        (Monitor::Forbidden, _) => Fact::Unknown(Absence::monitor_not_asked()),
        (Monitor::Allowed, VmState::Running | VmState::Paused) => ask().map(Some),
        (Monitor::Allowed, _) => {
            Fact::unknown(Cause::GuestNotRunning, "the VM does not run, so there is no QEMU process to ask")
        }
    }
}

/// Parses the configuration in a domain XML.
pub(super) fn configuration(xml: &str) -> Fact<DomainConfig> {
    domain_xml::parse(xml).map_or_else(
        |error| {
            let size = xml.len() / 1024;
            Fact::unknown(
                Cause::Malformed,
                format!("the VM's configuration ({size} KiB) cannot be read: {error}; see `virsh dumpxml`"),
            )
        },
        Fact::Known,
    )
}

/// Resolves volumes of storage pools to the files and devices that they are, as libvirt does before it migrates.
fn with_volumes(mut config: DomainConfig, domain: &Domain) -> DomainConfig {
    let mut unread = BTreeSet::new();
    for disk in config.disks.iter_mut().filter(|disk| disk.kind == "volume") {
        let Some((pool, name)) = disk.volume.as_deref().and_then(|volume| volume.split_once('/')) else {
            continue;
        };
        // A volume that is not found stays one, and the rule on storage pools says so.
        let Ok(xml) = domain.hypervisor().volume_xml(pool, name) else { continue };
        if let Ok(Some(volume)) = volume_xml::parse(&xml) {
            disk.kind = volume.kind;
            disk.source = volume.path;
        }
        unread.extend(Document::Volume.unread_by_name(&xml));
    }
    // As an element of the VM's own configuration that vmgate does not know.
    config.components.extend(unread.into_iter().map(|kind| VmComponent {
        kind,
        model: String::new(),
        migrates: Fact::default(),
        why: None,
    }));
    config
}

/// Adds the block jobs that the domain XML leaves out: the XML names copies and active commits only.
fn with_block_jobs(mut config: DomainConfig, domain: &Domain) -> DomainConfig {
    for disk in config.disks.iter_mut().filter(|disk| disk.job.is_none()) {
        disk.job = domain.block_job(&disk.target).ok().flatten().map(str::to_owned);
    }
    config
}

/// Completes the VM's facts with those that need the source host. `emulator` is the QEMU whose version libvirt reports.
pub(super) fn complete(
    found: &FoundVm,
    source: &Host,
    probe: &Result<Answer, Unknown>,
    emulator: Option<&str>,
) -> Vm {
    if let Some(seen) = &found.monitored {
        return seen.vm.clone();
    }
    let config = found.config.as_ref();
    let own = config.and_then(|config| config.emulator.as_deref());
    let huge_page_bytes = match (config.map(|config| config.backing), probe) {
        (Some(Backing::HugeOfDefaultSize), Ok(answer)) => answer.probe.default_huge_page_bytes.clone(),
        _ => found.facts.huge_page_bytes.clone(),
    };
    let process = process_of(found.uuid.as_ref(), probe);
    Vm {
        qemu_build: process.as_ref().and_then(|process| process.build.clone()),
        started_here: process.as_ref().and_then(|process| process.incoming.clone().map(|incoming| !incoming)),
        qemu_version: process.and_then(|process| qemu_version(process, own == emulator, source)),
        huge_page_bytes,
        ..found.facts.clone()
    }
}

/// The QEMU process of the VM, as the source's probe found it.
fn process_of(uuid: Option<&Uuid>, probe: &Result<Answer, Unknown>) -> Fact<QemuProcess> {
    let qemus = match probe {
        Ok(answer) => answer.probe.qemus.as_ref(),
        Err(why) => return Fact::Unknown(why.clone()),
    };
    qemus.and_then(|qemus| {
        qemus.iter().find(|qemu| Some(&qemu.uuid) == uuid).cloned().map_or_else(
            || {
                let why = "no QEMU process of the VM was found on the source host";
                Fact::unknown(Cause::NotSupported, why)
            },
            Fact::Known,
        )
    })
}

/// Version of the QEMU that runs the VM, as its own binary reports it, or else that of the installed QEMU for as long as
/// the VM's process was started from the installed binary. QEMU's monitor knows the version, too, but asking it taints the
/// domain.
fn qemu_version(process: QemuProcess, is_host_default: bool, source: &Host) -> Fact<Version> {
    match process {
        process if process.version.known().is_some() => process.version,
        process if process.replaced => Fact::unknown(
            Cause::NotSupported,
            format!(
                "{} was replaced after the VM was started: the VM still runs the old QEMU",
                process.binary
            ),
        ),
        process if !is_host_default => Fact::unknown(
            Cause::NotSupported,
            format!(
                "the VM runs {}, but libvirt reports only the version of the host's default QEMU",
                process.binary
            ),
        ),
        _ => source.qemu_version.clone(),
    }
}

/// Facts that the configuration holds alone.
#[cfg(feature = "fuzzing")]
pub(super) fn of_configuration(config: &Fact<DomainConfig>) -> Vm {
    let mut facts = Vm::default();
    fill(&mut facts, config);
    facts
}

/// Fills in the facts that the domain XML holds.
fn fill(facts: &mut Vm, config: &Fact<DomainConfig>) {
    /// A part of the configuration; unknown where the configuration lacks it.
    fn part<T>(
        config: &Fact<DomainConfig>,
        name: &str,
        take: impl Fn(&DomainConfig) -> Option<T>,
    ) -> Fact<T> {
        config.as_ref().and_then(|config| match take(config) {
            Some(value) => Fact::Known(value),
            None => Fact::unknown(Cause::NotSupported, format!("the VM's configuration has no {name}")),
        })
    }
    facts.marks = part(config, "marks", |config| Some(config.marks.clone()));
    facts.accelerator = part(config, "accelerator known to QEMU", |config| config.accelerator);
    facts.memory_bytes = part(config, "memory", |config| config.memory_bytes);
    facts.memory_max_bytes = part(config, "memory", |config| config.memory_max_bytes);
    facts.huge_page_bytes = config.as_ref().and_then(|config| match config.backing {
        Backing::Ordinary => Fact::Known(None),
        Backing::Huge(bytes) => Fact::Known(Some(bytes)),
        Backing::Mixed => Fact::unknown(
            Cause::NotSupported,
            "the VM's memory is backed by pages of several sizes; vmgate can judge one size only: compare `virsh freepages \
             --all` at the destination with the VM's <hugepages>, and waive this",
        ),
        // The host probe reads the size.
        Backing::HugeOfDefaultSize => Fact::unknown(
            Cause::NoHostProbe,
            "the VM uses huge pages of the source host's default size, which only the host probe can read",
        ),
    });
    if config.known().is_some_and(|config| config.populated || config.backing != Backing::Ordinary) {
        facts.resident_bytes = Fact::Known(None);
    }
    facts.vcpus = part(config, "vCPUs", |config| config.vcpus);
    facts.most_vcpus = part(config, "vCPUs", |config| config.most_vcpus);
    facts.machine_type = part(config, "machine type", |config| config.machine_type.clone());
    facts.cpu_mode = part(config, "CPU", |config| Some(config.cpu_mode));
    facts.cpu_model = part(config, "CPU", |config| Some(config.cpu_model.clone()));
    facts.machine_version = facts.machine_type.as_ref().and_then(|name| machine_version(name));
    facts.memory_hard_limit_bytes = part(config, "memory", |config| Some(config.memory_hard_limit_bytes));
    facts.placement = part(config, "placement", |config| Some(config.placement.clone()));
    facts.threads_per_socket = part(config, "CPU", |config| Some(config.threads_per_socket));
    facts.cpu_features = part(config, "CPU", |config| Some(config.cpu_features.clone()));
    facts.tsc_frequency_hertz = part(config, "clock", |config| Some(config.tsc_frequency_hertz));
    facts.firmware = part(config, "firmware", |config| Some(config.firmware.clone()));
    facts.tpm = part(config, "TPM", |config| Some(config.tpm.clone()));
    facts.launch_security = part(config, "launch security", |config| Some(config.launch_security.clone()));
    facts.boot_files = part(config, "file", |config| Some(config.boot_files.clone()));
    facts.opened_files = part(config, "file", |config| Some(config.opened_files()));
    facts.security_models = part(config, "label", |config| Some(config.security_models.clone()));
    facts.secrets = part(config, "secret", |config| Some(config.secrets.clone()));
    facts.listeners = part(config, "device", |config| Some(config.listeners.clone()));
    facts.fixed_ports = part(config, "device", |config| Some(config.fixed_ports.clone()));
    facts.servers = part(config, "device", |config| Some(config.servers.clone()));
    facts.automatic_displays = part(config, "device", |config| Some(config.automatic_displays));
    facts.vsock_cid = part(config, "device", |config| Some(config.vsock_cid));
    facts.components = part(config, "device", |config| Some(config.components.clone()));
    facts.has_agent_channel = part(config, "channel", |config| Some(config.has_agent_channel));
    facts.nics = part(config, "interface", |config| Some(config.nics.clone()));
    facts.disks = part(config, "disk", |config| Some(config.disks.clone()));
    facts.host_devices = part(config, "device", |config| Some(config.host_devices.clone()));
}
