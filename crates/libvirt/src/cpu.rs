//! Whether a hypervisor can give a VM the CPU that it has, and what it lacks.

use std::{
    ffi::{CString, c_char},
    ptr,
};

use virt::{error::Error, sys};

use super::{Hypervisor, error::LibvirtError, session::Session};

/// What stands before the names in libvirt's refusal (virCPUx86Compare).
const MISSING: &str = "required features:";

/// Whether a host can give a VM its CPU (virConnectCompareHypervisorCPU).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuComparison {
    /// It lacks features that the VM has: their names, where libvirt tells them.
    Incompatible(Vec<String>),
    /// It gives the same or more.
    Compatible,
}

/// What of a VM's definition decides the CPU that a hypervisor can give it.
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

impl Hypervisor {
    /// Whether this hypervisor can give a VM the CPU that it has.
    pub fn compare_cpu(&self, request: &CpuRequest) -> Result<CpuComparison, LibvirtError> {
        let request = request.clone();
        self.call("compare the VM's CPU with the host's", move |session| compare(session, &request))
    }
}

fn compare(session: &Session, request: &CpuRequest) -> Result<CpuComparison, Error> {
    let owned = |text: &Option<String>| text.as_deref().map(CString::new).transpose();
    let (arch, machine, virt_type) =
        (owned(&request.arch)?, owned(&request.machine)?, owned(&request.virt_type)?);
    let cpu = CString::new(request.cpu_xml.as_str())?;
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
    Err(error)
}

/// The features that a refusal names.
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
    fn a_refusal_names_what_is_missing() {
        let text = "the CPU is incompatible with host CPU: Host CPU does not provide required features: avx512f, pku";
        assert_eq!(missing(text), ["avx512f", "pku"]);
        assert!(missing("the CPU is incompatible with host CPU").is_empty());
    }
}
