//! The VM of an incoming migration, as libvirt tells it: its name, and its UUID in the domain XML.

use std::io::{self, Read};

use thiserror::Error;

use vmgate_facts::Uuid;

/// Largest domain XML that is read, bytes.
const XML_LIMIT: u64 = 16 << 20;

/// A VM that libvirt is about to accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IncomingVm {
    /// Name, made harmless.
    pub(super) name: String,
    pub(super) uuid: Uuid,
}

/// A domain XML from which the VM's UUID cannot be read.
#[derive(Debug, Error)]
pub(super) enum InvalidDomain {
    #[error("the domain XML from libvirt cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("the domain XML from libvirt is not well-formed: {0}")]
    NotXml(#[from] roxmltree::Error),
    #[error("the domain XML from libvirt names no UUID")]
    NoUuid,
}

/// Reads the domain XML to its end, or to the size limit.
pub(super) fn read(name: &str, xml: impl Read) -> Result<IncomingVm, InvalidDomain> {
    let mut text = String::new();
    xml.take(XML_LIMIT).read_to_string(&mut text)?;
    let document = vmgate_facts::xml::parse(&text)?;
    let uuid = document.root_element().children().find(|node| node.has_tag_name("uuid"));
    let uuid = uuid.and_then(|node| node.text()).and_then(Uuid::parse).ok_or(InvalidDomain::NoUuid)?;
    Ok(IncomingVm { name: name.to_owned(), uuid })
}
