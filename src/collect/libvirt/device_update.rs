//! Changes of a running VM's devices, such as an interface's link, and vmgate's note about them in the VM's metadata.

use virt::sys;

use super::{Domain, error::LibvirtError};

/// XML prefix of vmgate's note in a domain's metadata.
const NOTE_PREFIX: &str = "vmgate";

impl Domain {
    /// Updates a device of the running VM to `xml`, such as an interface's link. The stored configuration stays as it is,
    /// so the change lasts until the next start of the VM.
    pub fn update_device(&self, xml: &str) -> Result<(), LibvirtError> {
        let xml = xml.to_owned();
        self.call("change a device of the VM", move |domain| {
            domain.raw().update_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE)
        })
    }

    /// Writes an element into the running VM's metadata under `uri`, or removes it. The element lasts as long as the changes
    /// of [`Domain::update_device`], and migrates with the VM.
    pub fn set_metadata_element(&self, uri: &'static str, element: Option<&str>) -> Result<(), LibvirtError> {
        let element = element.map(str::to_owned);
        let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).unwrap_or_default();
        self.call("write vmgate's note into the VM's metadata", move |domain| {
            let prefix = element.is_some().then_some(NOTE_PREFIX);
            domain.raw().set_metadata(
                kind,
                element.as_deref(),
                prefix,
                Some(uri),
                sys::VIR_DOMAIN_AFFECT_LIVE,
            )
        })
    }
}
