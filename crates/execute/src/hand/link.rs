//! The link of a VM's interfaces, and a note on the running VM about who changed it.

use std::{
    ffi::{CString, c_int},
    ptr,
};

use vmgate_libvirt::{
    Domain, LibvirtError, LibvirtErrorKind,
    raw::{checked, sys},
};

/// Prefix of vmgate's note in a domain's metadata.
const NOTE_PREFIX: &str = "vmgate";

/// Changes a device of the running VM to what `xml` says, such as an interface's link. The stored configuration
/// stays as it is, so the change lasts until the VM is started anew.
pub(crate) fn update_device(domain: &Domain, xml: &str) -> Result<(), LibvirtError> {
    let doing = "change a device of the VM";
    let xml = text(domain, doing, xml)?;
    domain.raw_call(doing, move |domain| {
        // SAFETY: the domain is valid while the call runs, and the text ends with a NUL.
        checked(unsafe { sys::virDomainUpdateDeviceFlags(domain, xml.as_ptr(), sys::VIR_DOMAIN_AFFECT_LIVE) })
    })
}

/// Puts an element into the running VM's metadata under `uri`, or takes it out. It lasts as long as what
/// [`update_device`] changes, and goes with the VM when it migrates.
pub(crate) fn set_note(domain: &Domain, uri: &str, element: Option<&str>) -> Result<(), LibvirtError> {
    let doing = "put a note on the VM";
    let uri = text(domain, doing, uri)?;
    let prefix = text(domain, doing, NOTE_PREFIX)?;
    let element = element.map(|element| text(domain, doing, element)).transpose()?;
    let kind = c_int::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).unwrap_or_default();
    domain.raw_call(doing, move |domain| {
        let (element, prefix) = match &element {
            Some(element) => (element.as_ptr(), prefix.as_ptr()),
            None => (ptr::null(), ptr::null()),
        };
        // SAFETY: the domain is valid while the call runs, and each text ends with a NUL or is null, which takes it out.
        checked(unsafe {
            sys::virDomainSetMetadata(
                domain,
                kind,
                element,
                prefix,
                uri.as_ptr(),
                sys::VIR_DOMAIN_AFFECT_LIVE,
            )
        })
    })
}

fn text(domain: &Domain, doing: &str, text: &str) -> Result<CString, LibvirtError> {
    CString::new(text)
        .map_err(|_| domain.error(doing, LibvirtErrorKind::Other("the text holds a NUL".to_owned())))
}
