//! The facts of the VM: libvirt's answers and the domain XML, as far as each could be had.

use super::{
    domain_xml::{self, Backing, DomainConfig},
    libvirt::{Domain, LibvirtError, RunState},
    text::plain,
};
use crate::fact::{Cause, Fact, Unknown, Vm, VmState};

/// The VM as it was found: its facts, and what the other collectors need of it.
pub(super) struct FoundVm {
    /// The facts, without dirty rate and QEMU version.
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
    let uuid = domain.uuid();
    let config: Result<DomainConfig, Unknown> = domain.xml().map_err(Unknown::from).and_then(|xml| {
        domain_xml::parse(&xml)
            .map_err(|error| Unknown::new(Cause::Malformed, format!("the VM's configuration: {error}")))
    });
    let mut facts = Vm {
        name: Fact::from(domain.name()).map(|name| plain(&name)),
        uuid: uuid.clone().into(),
        state: Fact::Known(state),
        persistent: domain.is_persistent().into(),
        job: job(domain, state),
        ..Vm::default()
    };
    fill(&mut facts, &config);
    Ok(FoundVm { facts, config: config.ok(), state, uuid: uuid.ok() })
}

fn job(domain: &Domain, state: VmState) -> Fact<Option<String>> {
    if state == VmState::ShutOff {
        return Fact::Known(None);
    }
    Fact::from(domain.job_info()).map(|job| job.map(|job| job.operation.name().to_owned()))
}

/// Facts that the domain XML holds.
fn fill(facts: &mut Vm, config: &Result<DomainConfig, Unknown>) {
    /// A part of the configuration, or why there is none.
    fn part<T>(
        config: &Result<DomainConfig, Unknown>,
        name: &str,
        take: impl Fn(&DomainConfig) -> Option<T>,
    ) -> Fact<T> {
        match config.as_ref().map(take) {
            Ok(Some(value)) => Fact::Known(value),
            Ok(None) => Fact::unknown(Cause::NotSupported, format!("the VM's configuration names no {name}")),
            Err(why) => Fact::Unknown(why.clone()),
        }
    }
    facts.accelerator = part(config, "accelerator that QEMU has", |config| config.accelerator);
    facts.memory_bytes = part(config, "memory", |config| config.memory_bytes);
    facts.memory_max_bytes = part(config, "memory", |config| config.memory_max_bytes);
    facts.huge_page_bytes = match config.as_ref().map(|config| config.backing) {
        Ok(Backing::Ordinary) => Fact::Known(None),
        Ok(Backing::Huge(bytes)) => Fact::Known(Some(bytes)),
        // The host probe tells the size.
        Ok(Backing::HugeOfDefaultSize) => {
            Fact::unknown(Cause::NoHostProbe, "huge pages of the source host's default size")
        }
        Err(why) => Fact::Unknown(why.clone()),
    };
    facts.vcpus = part(config, "vCPUs", |config| config.vcpus);
    facts.machine_type = part(config, "machine type", |config| config.machine_type.clone());
    facts.cpu_mode = part(config, "CPU", |config| Some(config.cpu_mode));
    facts.cpu_model = part(config, "CPU", |config| Some(config.cpu_model.clone()));
    facts.has_agent_channel = part(config, "channel", |config| Some(config.has_agent_channel));
    facts.nics = part(config, "interface", |config| Some(config.nics.clone()));
    facts.disks = part(config, "disk", |config| Some(config.disks.clone()));
    facts.host_devices = part(config, "device", |config| Some(config.host_devices.clone()));
}
