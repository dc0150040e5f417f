//! Facts of a host, merged from the answers of libvirt and the host probe.

use std::collections::BTreeSet;

use vmgate_facts::{Cause, Fact, Host, QemuUser, Unknown, Uri, Uuid, VirtualNetwork, text::plain};
use vmgate_libvirt::{
    GuestSummary, Hypervisor, LibvirtError, LibvirtErrorKind,
    accounts::Document,
    capabilities::{self, Capabilities, GuestArch},
    network_xml, secret_xml,
};
use vmgate_probe::host::HostProbe;

use super::{
    asker::Asker,
    claims::{self, VmsAndClaims},
    transport::Answer,
};

/// Answers of libvirt about a host.
#[derive(Debug, Clone)]
pub(super) struct LibvirtAnswers {
    /// Facts that need no probe.
    facts: Host,
    /// Capabilities of the host, for facts that depend on the VM.
    capabilities: Fact<Capabilities>,
    /// VMs of the host, running or not.
    pub(super) guests: Fact<Vec<GuestSummary>>,
}

/// Asks libvirt for all facts of a host. The caller gives `hostname`, which it needs first.
pub(super) fn ask(hypervisor: &Hypervisor, uri: &Uri, hostname: Fact<String>) -> LibvirtAnswers {
    ask_and_tell(hypervisor, uri, hostname, |_| {})
}

/// Asks like [`ask`], and tells the user that runs QEMU as soon as that is known.
pub(super) fn ask_and_tell(
    hypervisor: &Hypervisor,
    uri: &Uri,
    hostname: Fact<String>,
    tell_user: impl FnOnce(&Fact<QemuUser>),
) -> LibvirtAnswers {
    let mut asker = Asker::default();
    let capabilities_xml = asker.ask(|| hypervisor.capabilities_xml());
    let capabilities = capabilities_xml.as_ref().and_then(|xml| {
        capabilities::parse(xml).map_or_else(
            |error| Fact::unknown(Cause::Malformed, format!("the host's capabilities: {error}")),
            Fact::Known,
        )
    });
    let qemu_user =
        named_in(&capabilities, "user of QEMU (no label of the model dac)", |known| known.qemu_user);
    tell_user(&qemu_user);
    let plain_names = |names: Vec<String>| names.iter().map(|name| plain(name)).collect();
    let network_xmls = asker.ask(|| none_without_driver(hypervisor.active_network_xmls()));
    let virtual_networks = network_xmls.as_ref().map(|xmls| virtual_networks(xmls));
    let secret_xmls = asker.ask(|| none_without_driver(hypervisor.secret_xmls()));
    let guests = asker.ask(|| hypervisor.guests());
    let VmsAndClaims { vms, active, jobs, claims } = claims::of(guests.as_ref().map(Vec::as_slice));
    let facts = Host {
        uri: Fact::Known(uri.to_string()),
        hostname: hostname.map(|name| plain(&name)),
        uuid: named_in(&capabilities, "UUID", |known| known.uuid.clone()),
        cpu_model: named_in(&capabilities, "CPU model", |known| known.cpu_model.clone()),
        libvirt_version: asker.ask(|| hypervisor.libvirt_version()),
        qemu_version: asker.ask(|| hypervisor.hypervisor_version()),
        cpus: asker.ask(|| hypervisor.node_info()).map(|info| info.cpus),
        memory: asker.ask(|| hypervisor.memory()),
        networks: virtual_networks
            .as_ref()
            .map(|networks| networks.iter().map(|network| network.name.clone()).collect()),
        virtual_networks,
        network_filters: asker.ask(|| none_without_driver(hypervisor.network_filters())).map(plain_names),
        secrets: secret_xmls.as_ref().map(|xmls| secret_names(xmls)),
        storage_pools: asker.ask(|| none_without_driver(hypervisor.active_storage_pools())).map(plain_names),
        qemu_user,
        security_models: capabilities.as_ref().map(|known| known.security_models.clone()),
        unread_elements: capabilities_xml.map(|xml| {
            let networks = network_xmls.known().into_iter().flatten();
            let secrets = secret_xmls.known().into_iter().flatten();
            std::iter::once((Document::Capabilities, &xml))
                .chain(networks.map(|xml| (Document::Network, xml)))
                .chain(secrets.map(|xml| (Document::Secret, xml)))
                .flat_map(|(document, xml)| document.unread_by_name(xml))
                .collect::<BTreeSet<String>>()
                .into_iter()
                .collect()
        }),
        tsc: capabilities.as_ref().map(|known| known.tsc.clone()),
        active_vms: active,
        vms,
        jobs,
        claims,
        ..Host::default()
    };
    LibvirtAnswers { facts, capabilities, guests }
}

/// A part of the capabilities, unknown where they leave it out or give what cannot be understood.
fn named_in<T>(
    capabilities: &Fact<Capabilities>,
    what: &str,
    part: impl FnOnce(&Capabilities) -> Option<T>,
) -> Fact<T> {
    capabilities.as_ref().and_then(|known| {
        part(known).map_or_else(
            || Fact::unknown(Cause::NotSupported, format!("the host's capabilities name no {what}")),
            Fact::Known,
        )
    })
}

/// Names of secrets; one whose XML cannot be read is not found by any VM.
fn secret_names(xmls: &[String]) -> Vec<String> {
    let mut names: Vec<String> =
        xmls.iter().filter_map(|xml| secret_xml::names(xml).ok()).flatten().collect();
    names.sort();
    names
}

/// Active libvirt networks, by name.
fn virtual_networks(xmls: &[String]) -> Vec<VirtualNetwork> {
    // No VM can be attached to a network whose XML cannot be read or has no name.
    let mut networks: Vec<VirtualNetwork> =
        xmls.iter().filter_map(|xml| network_xml::parse(xml).ok().flatten()).collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    networks
}

/// Returns an empty list where libvirt was installed without the driver of this kind of object.
fn none_without_driver<T>(answer: Result<Vec<T>, LibvirtError>) -> Result<Vec<T>, LibvirtError> {
    match answer {
        Err(LibvirtError { kind: LibvirtErrorKind::NotSupported(_), .. }) => Ok(Vec::new()),
        other => other,
    }
}

/// Answers for a host that libvirt cannot reach, or for none: all unknown.
pub(super) fn unreachable(uri: Option<&Uri>, why: &Unknown) -> LibvirtAnswers {
    let facts = Host {
        uri: Fact::from(uri.map(Uri::to_string).ok_or_else(|| why.clone())),
        hostname: Fact::Unknown(why.clone()),
        uuid: Fact::Unknown(why.clone()),
        cpu_model: Fact::Unknown(why.clone()),
        libvirt_version: Fact::Unknown(why.clone()),
        qemu_version: Fact::Unknown(why.clone()),
        cpus: Fact::Unknown(why.clone()),
        memory: Fact::Unknown(why.clone()),
        networks: Fact::Unknown(why.clone()),
        virtual_networks: Fact::Unknown(why.clone()),
        network_filters: Fact::Unknown(why.clone()),
        secrets: Fact::Unknown(why.clone()),
        storage_pools: Fact::Unknown(why.clone()),
        qemu_user: Fact::Unknown(why.clone()),
        security_models: Fact::Unknown(why.clone()),
        unread_elements: Fact::Unknown(why.clone()),
        tsc: Fact::Unknown(why.clone()),
        active_vms: Fact::Unknown(why.clone()),
        vms: Fact::Unknown(why.clone()),
        jobs: Fact::Unknown(why.clone()),
        claims: Fact::Unknown(why.clone()),
        ..Host::default()
    };
    LibvirtAnswers { facts, capabilities: Fact::Unknown(why.clone()), guests: Fact::Unknown(why.clone()) }
}

impl LibvirtAnswers {
    /// User that runs QEMU on the host.
    pub(super) fn qemu_user(&self) -> Fact<QemuUser> {
        self.facts.qemu_user.clone()
    }

    /// The host's UUID, where it is known.
    pub(super) fn uuid(&self) -> Option<&Uuid> {
        self.facts.uuid.known()
    }

    /// Offer of the host to guests of an architecture.
    pub(super) fn offer(&self, arch: Option<&str>) -> Fact<GuestArch> {
        let Some(arch) = arch else {
            return Fact::unknown(Cause::NotCollected, "the VM's architecture is not known");
        };
        self.capabilities.as_ref().and_then(|known| {
            known.guests.get(arch).cloned().map_or_else(
                || {
                    let why = format!("the host has no QEMU for {} guests", plain(arch));
                    Fact::unknown(Cause::NotSupported, why)
                },
                Fact::Known,
            )
        })
    }

    /// Merges in the facts of the host probe. Where both sources have a figure, that of the probe is taken.
    pub(super) fn with_probe(&self, arch: Option<&str>, answer: &Result<Answer, Unknown>) -> Host {
        let machine_types = self.offer(arch).map(|offer| offer.machine_types);
        let mut host = Host { machine_types, ..self.facts.clone() };
        match answer {
            Ok(answer) => take_over(&mut host, answer),
            Err(why) => no_probe(&mut host, why),
        }
        host
    }
}

/// Declares the facts that only the host probe gives, by their name in both [`HostProbe`] and [`Host`]. A field of the
/// answer that is neither here nor taken apart below does not compile.
macro_rules! probed {
    ($($fact:ident),* $(,)?) => {
        /// Names of the facts that the host probe gives.
        pub(super) const PROBED: &[&str] =
            &[$(stringify!($fact),)* "load_ratio", "clock_offset_seconds"];

        fn take_over(host: &mut Host, answer: &Answer) {
            let HostProbe {
                $($fact,)*
                cpus,
                memory,
                load,
                clock,
                schema: _,
                machine_id: _, // see monitored.rs
                default_huge_page_bytes: _, // of the VM: see vm.rs
                qemus: _,
                qemu_offer: _, // see monitored.rs
                running: _,
                resolved: _, // of the path: see path.rs
                network: _,
                peer: _,
            } = &answer.probe;
            $(host.$fact = $fact.clone();)*
            // libvirt stands in where the probe has no figure.
            host.memory = first_known(memory, &host.memory);
            host.cpus = first_known(cpus, &host.cpus);
            host.load_ratio =
                load.clone().and_then(|load| host.cpus.clone().map(|cpus| load / f64::from(cpus.max(1))));
            host.clock_offset_seconds = Fact::Known(clock.duration_since(answer.received).as_secs_f64());
        }

        fn no_probe(host: &mut Host, why: &Unknown) {
            $(host.$fact = Fact::Unknown(why.clone());)*
            host.load_ratio = Fact::Unknown(why.clone());
            host.clock_offset_seconds = Fact::Unknown(why.clone());
        }
    };
}

probed!(
    kernel_release,
    huge_pages,
    nics,
    routes,
    numa_nodes,
    bridges,
    bridge_filters,
    files,
    bound_ports,
    display_ports,
    vsock_cids,
    hooks,
    migration_tls_forced,
    passthrough_devices,
    program_builds,
    physical_address_bits,
    maintenance,
    lock_manager,
    unprivileged_userfaultfd,
    managers,
);

/// The first fact where it is known, else the second.
fn first_known<T: Clone>(first: &Fact<T>, second: &Fact<T>) -> Fact<T> {
    if first.known().is_some() { first.clone() } else { second.clone() }
}
