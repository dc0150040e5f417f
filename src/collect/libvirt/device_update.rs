//! The link of a VM's interfaces, and a note on the running VM about who changed it.

use virt::sys;

use super::{Domain, error::LibvirtError};

/// What libvirt calls vmgate's note in a domain's metadata.
const NOTE_PREFIX: &str = "vmgate";

impl Domain {
    /// Changes a device of the running VM to what `xml` says, such as an interface's link. The stored configuration
    /// stays as it is, so the change lasts until the VM is started anew.
    pub fn update_device(&self, xml: &str) -> Result<(), LibvirtError> {
        let xml = xml.to_owned();
        self.call("change a device of the VM", move |domain| {
            domain.raw().update_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE)
        })
    }

    /// Puts an element into the running VM's metadata under `uri`, or takes it out. It lasts as long as what
    /// [`Domain::update_device`] changes, and goes with the VM when it migrates.
    pub fn set_metadata_element(&self, uri: &'static str, element: Option<&str>) -> Result<(), LibvirtError> {
        let element = element.map(str::to_owned);
        let kind = i32::try_from(sys::VIR_DOMAIN_METADATA_ELEMENT).unwrap_or_default();
        self.call("put a note on the VM", move |domain| {
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
