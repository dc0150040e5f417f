//! The facts of the VM: libvirt's answers and the domain XML, as far as each could be had.

use super::{
    asker::Asker,
    domain_xml::{self, Backing, DomainConfig},
    libvirt::{Domain, LibvirtError, RunState},
    text::plain,
    transport::Answer,
};
use crate::fact::{Cause, Fact, Host, Unknown, Version, Vm, VmState};

/// The VM as it was found: its facts, and what the other collectors need of it.
pub(super) struct FoundVm {
    /// The facts, without QEMU version and what a measurement tells.
    pub(super) facts: Vm,
    /// Its configuration; none where the XML could not be read.
    pub(super) config: Option<DomainConfig>,
    /// What it does now.
    pub(super) state: VmState,
    /// Its UUID.
    pub(super) uuid: Option<String>,
}

/// Asks for everything that needs no measurement. Without a state nothing else makes sense: that is an error.
pub(super) fn look(domain: &Domain) -> Result<FoundVm, LibvirtError> {
    let RunState { state, .. } = domain.state()?;
    let mut asker = Asker::default();
    let uuid = asker.ask(|| domain.uuid());
    let config = asker.ask(|| domain.xml()).and_then(|xml| match domain_xml::parse(&xml) {
        Ok(config) => Fact::Known(config),
        Err(error) => Fact::unknown(Cause::Malformed, format!("the VM's configuration: {error}")),
    });
    let mut facts = Vm {
        name: asker.ask(|| domain.name()).map(|name| plain(&name)),
        uuid: uuid.clone(),
        state: Fact::Known(state),
        persistent: asker.ask(|| domain.is_persistent()),
        job: asker.ask(|| domain.job_info()).map(|job| job.map(|job| job.operation.name().to_owned())),
        ..Vm::default()
    };
    fill(&mut facts, &config);
    Ok(FoundVm { facts, config: config.known().cloned(), state, uuid: uuid.known().cloned() })
}

/// The VM's facts with those that need the source host's, too. `emulator` is the QEMU whose version the host told.
pub(super) fn complete(
    found: &FoundVm,
    source: &Host,
    probe: &Result<Answer, Unknown>,
    emulator: Option<&str>,
) -> Vm {
    let config = found.config.as_ref();
    let own = config.and_then(|config| config.emulator.as_deref());
    let huge_page_bytes = match (config.map(|config| config.backing), probe) {
        (Some(Backing::HugeOfDefaultSize), Ok(answer)) => answer.probe.default_huge_page_bytes.clone(),
        _ => found.facts.huge_page_bytes.clone(),
    };
    Vm { qemu_version: qemu_version(own == emulator, source, probe), huge_page_bytes, ..found.facts.clone() }
}

/// The version of the QEMU that runs the VM. It is that of the installed one for as long as the VM's process was
/// started from the binary that is installed. QEMU's monitor would tell it too, but asking there taints the domain.
fn qemu_version(is_host_default: bool, source: &Host, probe: &Result<Answer, Unknown>) -> Fact<Version> {
    let process = match probe {
        Ok(answer) => answer.probe.qemu.clone(),
        Err(why) => Fact::Unknown(why.clone()),
    };
    process.and_then(|process| match process {
        None => Fact::unknown(Cause::NotSupported, "no QEMU process of the VM was found on the source host"),
        Some(process) if process.replaced => Fact::unknown(
            Cause::NotSupported,
            format!("{} was replaced after the VM was started, and the VM runs the old one", process.binary),
        ),
        Some(process) if !is_host_default => Fact::unknown(
            Cause::NotSupported,
            format!("the VM runs {}, which is not the QEMU whose version libvirt tells", process.binary),
        ),
        Some(_) => source.qemu_version.clone(),
    })
}

/// Facts that the domain XML holds.
fn fill(facts: &mut Vm, config: &Fact<DomainConfig>) {
    /// A part of the configuration, or why there is none.
    fn part<T>(
        config: &Fact<DomainConfig>,
        name: &str,
        take: impl Fn(&DomainConfig) -> Option<T>,
    ) -> Fact<T> {
        config.as_ref().and_then(|config| match take(config) {
            Some(value) => Fact::Known(value),
            None => Fact::unknown(Cause::NotSupported, format!("the VM's configuration names no {name}")),
        })
    }
    facts.accelerator = part(config, "accelerator that QEMU has", |config| config.accelerator);
    facts.memory_bytes = part(config, "memory", |config| config.memory_bytes);
    facts.memory_max_bytes = part(config, "memory", |config| config.memory_max_bytes);
    facts.huge_page_bytes = config.as_ref().and_then(|config| match config.backing {
        Backing::Ordinary => Fact::Known(None),
        Backing::Huge(bytes) => Fact::Known(Some(bytes)),
        // The host probe tells the size.
        Backing::HugeOfDefaultSize => {
            Fact::unknown(Cause::NoHostProbe, "huge pages of the source host's default size")
        }
    });
    facts.vcpus = part(config, "vCPUs", |config| config.vcpus);
    facts.machine_type = part(config, "machine type", |config| config.machine_type.clone());
    facts.cpu_mode = part(config, "CPU", |config| Some(config.cpu_mode));
    facts.cpu_model = part(config, "CPU", |config| Some(config.cpu_model.clone()));
    facts.has_agent_channel = part(config, "channel", |config| Some(config.has_agent_channel));
    facts.nics = part(config, "interface", |config| Some(config.nics.clone()));
    facts.disks = part(config, "disk", |config| Some(config.disks.clone()));
    facts.host_devices = part(config, "device", |config| Some(config.host_devices.clone()));
}
