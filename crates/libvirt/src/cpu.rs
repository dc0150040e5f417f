//! Comparison of a VM's CPU with that of a hypervisor, and the features that are missing.

use std::{
    ffi::{CString, c_char},
    ptr,
};

use roxmltree::Node;
use virt::{error::Error, sys};
use vmgate_facts::text::plain;

use super::{Hypervisor, error::LibvirtError, session::Session};

/// Text before the names of the features in libvirt's error (virCPUx86Compare).
const MISSING: &str = "required features:";

/// Text before the name of a feature that this libvirt does not know (x86ModelFromCPU); it refuses a VM whose CPU names it.
const UNKNOWN: &str = "Unknown CPU feature ";

/// Result of comparing a VM's CPU with a hypervisor's (virConnectCompareHypervisorCPU).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuComparison {
    /// The hypervisor lacks features of the VM's CPU: their names, where libvirt reports them.
    Incompatible(Vec<String>),
    /// The hypervisor offers the same features or more.
    Compatible,
}

/// Part of a VM's definition that decides the CPU that a hypervisor can offer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct CpuRequest {
    /// Architecture, such as `x86_64`.
    pub arch: Option<String>,
    /// Machine type.
    pub machine: Option<String>,
    /// `kvm` or `qemu`.
    pub virt_type: Option<String>,
    /// The live `<cpu>` element.
    pub cpu_xml: String,
}

impl CpuRequest {
    /// Features that the CPU forbids; none where libvirt is told not to check it.
    pub fn forbidden_features(&self) -> Vec<String> {
        let Ok(document) = vmgate_facts::xml::parse(&self.cpu_xml) else { return Vec::new() };
        let cpu = document.root_element();
        if cpu.attribute("check") == Some("none") {
            return Vec::new();
        }
        let forbidden =
            |node: &Node| node.has_tag_name("feature") && node.attribute("policy") == Some("forbid");
        cpu.children().filter(forbidden).filter_map(|feature| feature.attribute("name")).map(plain).collect()
    }
}

impl Hypervisor {
    /// Compares the CPU of a VM with the CPU that this hypervisor can offer.
    pub fn compare_cpu(&self, request: &CpuRequest) -> Result<CpuComparison, LibvirtError> {
        let request = request.clone();
        self.call("compare the VM's CPU with the host's", move |session| compare(session, &request))
    }
}

fn compare(session: &Session, request: &CpuRequest) -> Result<CpuComparison, Error> {
    let owned = |text: &Option<String>| text.as_deref().map(CString::new).transpose();
    let (arch, machine, virt_type) =
        (owned(&request.arch)?, owned(&request.machine)?, owned(&request.virt_type)?);
    let cpu = CString::new(as_started(&request.cpu_xml))?;
    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null::<c_char>(), |text| text.as_ptr());
    // SAFETY: the connection is valid while it is borrowed; every string ends with a NUL or is null, which libvirt
    // takes as "your default".
    let answer = unsafe {
        sys::virConnectCompareHypervisorCPU(
            session.as_ptr(),
            ptr::null(),
            pointer(&arch),
            pointer(&machine),
            pointer(&virt_type),
            cpu.as_ptr(),
            // Only the error that this asks for names the missing features.
            sys::VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE,
        )
    };
    if answer == sys::VIR_CPU_COMPARE_IDENTICAL || answer == sys::VIR_CPU_COMPARE_SUPERSET {
        return Ok(CpuComparison::Compatible);
    }
    if answer == sys::VIR_CPU_COMPARE_INCOMPATIBLE {
        return Ok(CpuComparison::Incompatible(Vec::new()));
    }
    let error = Error::last_error();
    if error.code().to_raw() == sys::VIR_ERR_CPU_INCOMPATIBLE {
        return Ok(CpuComparison::Incompatible(missing(error.message())));
    }
    match error.message().split_once(UNKNOWN) {
        Some((_, feature)) => Ok(CpuComparison::Incompatible(vec![plain(feature.trim())])),
        None => Err(error),
    }
}

/// The element as the start of an incoming VM compares it: without the features that its guest must not have, and without the demand
/// that the host has no others (`match='strict'`). libvirt's comparison asks for both. To start a VM that was started before, libvirt
/// (9.0 to 12.9) asks that the host lacks a feature only of those that its host model names beside its model, and
/// for no strict match: it reads the guest's CPU from QEMU (qemuProcessUpdateLiveGuestCPU).
fn as_started(cpu_xml: &str) -> String {
    let Ok(document) = vmgate_facts::xml::parse(cpu_xml) else { return cpu_xml.to_owned() };
    let cpu = document.root_element();
    let forbids = |node: &Node| node.has_tag_name("feature") && node.attribute("policy") == Some("forbid");
    let mut places: Vec<_> = cpu.children().filter(forbids).map(|feature| (feature.range(), "")).collect();
    let strict = cpu.attribute_node("match").filter(|attribute| attribute.value() == "strict");
    places.extend(strict.map(|attribute| (attribute.range_value(), "exact")));
    replaced(cpu_xml, places)
}

/// The text with other texts at these places.
pub(super) fn replaced(text: &str, mut places: Vec<(std::ops::Range<usize>, &str)>) -> String {
    let mut text = text.to_owned();
    places.sort_by_key(|(place, _)| place.start);
    // From the last on, so that the places of the others stay.
    for (place, other) in places.into_iter().rev() {
        text.replace_range(place, other);
    }
    text
}

/// Parses the names of the missing features from libvirt's error.
fn missing(message: &str) -> Vec<String> {
    let names = message.split_once(MISSING).map_or("", |(_, names)| names);
    names
        .split([',', ' '])
        .map(|name| name.trim_matches(['.', ';']))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_features_are_named_unless_nothing_is_checked() {
        let cpu = |check: &str| CpuRequest {
            cpu_xml: format!(
                "<cpu mode='custom' check='{check}'><model>Nehalem</model><feature policy='forbid' name='x2apic'/>\
                 <feature policy='disable' name='aes'/></cpu>"
            ),
            ..CpuRequest::default()
        };
        assert_eq!(cpu("full").forbidden_features(), ["x2apic"]);
        assert!(cpu("none").forbidden_features().is_empty());
    }

    #[test]
    fn what_the_start_of_an_incoming_vm_does_not_ask_is_not_compared() {
        let cpu = "<cpu mode='custom' match='strict'><model>Nehalem</model><feature policy='forbid' name='sha-ni'/>\
                   <feature policy='require' name='ht'/><feature name='aes' policy='forbid'/></cpu>";
        let compared = "<cpu mode='custom' match='exact'><model>Nehalem</model><feature policy='require' name='ht'/></cpu>";
        assert_eq!(as_started(cpu), compared);
        assert_eq!(as_started(compared), compared);
        assert_eq!(as_started("<cpu"), "<cpu");
    }

    #[test]
    fn a_refusal_names_what_is_missing() {
        let text = "the CPU is incompatible with host CPU: Host CPU does not provide required features: avx512f, pku";
        assert_eq!(missing(text), ["avx512f", "pku"]);
        assert!(missing("the CPU is incompatible with host CPU").is_empty());
    }
}
