//! Offer of a host's hypervisor to one VM: CPU features, limits of the machine type, TPM backends.

use vmgate_facts::{Cause, DeviceModels, Fact, Host, Unknown};
use vmgate_libvirt::{
    CpuComparison, CpuRequest, Hypervisor, accounts::Document, domain_capabilities, domain_xml::DomainConfig,
};

use super::asker::Asker;

/// Facts of a destination that depend on the VM.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Offer {
    offers_guest_cpu: Fact<bool>,
    missing_cpu_features: Fact<Vec<String>>,
    forbidden_cpu_features: Fact<Vec<String>>,
    cpu_models: Fact<Vec<String>>,
    most_vcpus: Fact<u32>,
    tpm_backends: Fact<Vec<String>>,
    device_models: Fact<Vec<DeviceModels>>,
    unread_elements: Fact<Vec<String>>,
}

/// Part of a VM's configuration that decides the offer; VMs that agree in it get the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct OfferRequest {
    cpu: CpuRequest,
    emulator: Option<String>,
}

impl OfferRequest {
    /// The request of a VM with this configuration.
    pub(super) fn of(config: &DomainConfig) -> Self {
        Self {
            cpu: CpuRequest {
                arch: config.arch.clone(),
                machine: config.machine_type.clone(),
                virt_type: config.virt_type.clone(),
                cpu_xml: config.cpu_xml.clone().unwrap_or_default(),
            },
            emulator: config.emulator.clone(),
        }
    }
}

/// Asks a hypervisor for its offer.
pub(super) fn ask(hypervisor: &Hypervisor, wanted: &OfferRequest) -> Offer {
    let mut asker = Asker::default();
    let comparison = if wanted.cpu.cpu_xml.is_empty() {
        Fact::unknown(Cause::NotSupported, "the VM's configuration has no <cpu> element to compare")
    } else {
        asker.ask(|| hypervisor.compare_cpu(&wanted.cpu))
    };
    let xml = asker.ask(|| hypervisor.domain_capabilities_xml(wanted.emulator.as_deref(), &wanted.cpu));
    let capabilities = xml.as_ref().and_then(|xml| {
        domain_capabilities::parse(xml).map_or_else(
            |error| Fact::unknown(Cause::Malformed, format!("the domain capabilities: {error}")),
            Fact::Known,
        )
    });
    let untold =
        |what: &str| Unknown::new(Cause::NotSupported, format!("the domain capabilities name no {what}"));
    Offer {
        offers_guest_cpu: comparison.as_ref().map(|answer| *answer == CpuComparison::Compatible),
        missing_cpu_features: comparison.and_then(|answer| match answer {
            CpuComparison::Compatible => Fact::Known(Vec::new()),
            CpuComparison::Incompatible(names) if names.is_empty() => Fact::unknown(
                Cause::NotSupported,
                "libvirt does not name the CPU features that the host lacks",
            ),
            CpuComparison::Incompatible(names) => Fact::Known(names),
        }),
        forbidden_cpu_features: capabilities.as_ref().map(|known| {
            let has = |feature: &String| known.host_model_features.contains(feature);
            wanted.cpu.forbidden_features().into_iter().filter(has).collect()
        }),
        cpu_models: capabilities.as_ref().map(|known| known.cpu_models.clone()),
        device_models: capabilities.as_ref().map(|known| known.device_models.clone()),
        most_vcpus: capabilities
            .as_ref()
            .and_then(|known| known.most_vcpus.ok_or_else(|| untold("maximum number of vCPUs")).into()),
        unread_elements: xml.map(|xml| Document::DomainCapabilities.unread_by_name(&xml)),
        tpm_backends: capabilities
            .and_then(|known| known.tpm_backends.ok_or_else(|| untold("TPM backends")).into()),
    }
}

impl Offer {
    /// The offer of a host that cannot be asked.
    pub(super) fn unknown(why: &Unknown) -> Self {
        Self {
            offers_guest_cpu: Fact::Unknown(why.clone()),
            missing_cpu_features: Fact::Unknown(why.clone()),
            forbidden_cpu_features: Fact::Unknown(why.clone()),
            cpu_models: Fact::Unknown(why.clone()),
            most_vcpus: Fact::Unknown(why.clone()),
            tpm_backends: Fact::Unknown(why.clone()),
            device_models: Fact::Unknown(why.clone()),
            unread_elements: Fact::Unknown(why.clone()),
        }
    }

    /// The host with this offer among its facts.
    pub(super) fn apply_to(self, host: Host) -> Host {
        Host {
            offers_guest_cpu: self.offers_guest_cpu,
            missing_cpu_features: self.missing_cpu_features,
            forbidden_cpu_features: self.forbidden_cpu_features,
            cpu_models: self.cpu_models,
            most_vcpus: self.most_vcpus,
            tpm_backends: self.tpm_backends,
            device_models: self.device_models,
            unread_elements: host
                .unread_elements
                .clone()
                .and_then(|host| self.unread_elements.map(|offer| host.into_iter().chain(offer).collect())),
            ..host
        }
    }
}
