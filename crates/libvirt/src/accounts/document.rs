//! Documents of libvirt beside a domain, each with its account.

use std::sync::LazyLock;

use super::{Accounts, place};

/// Kind of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// Capabilities of a host.
    Capabilities,
    /// Offer of a host's QEMU to one kind of VM.
    DomainCapabilities,
    /// Network of libvirt's.
    Network,
    /// Volume of a storage pool.
    Volume,
    /// Secret, without its value.
    Secret,
}

static ACCOUNTS: LazyLock<[Accounts; 5]> = LazyLock::new(|| {
    [
        include_str!("capabilities.txt"),
        include_str!("domain_capabilities.txt"),
        include_str!("network.txt"),
        include_str!("volume.txt"),
        include_str!("secret.txt"),
    ]
    .map(Accounts::new)
});

impl Document {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Capabilities, Self::DomainCapabilities, Self::Network, Self::Volume, Self::Secret];

    /// Account of the elements and attributes of such a document.
    pub fn accounts(self) -> &'static Accounts {
        let [capabilities, domain_capabilities, network, volume, secret] = &*ACCOUNTS;
        match self {
            Self::Capabilities => capabilities,
            Self::DomainCapabilities => domain_capabilities,
            Self::Network => network,
            Self::Volume => volume,
            Self::Secret => secret,
        }
    }

    /// Elements, attributes and values that are not accounted for, by their paths in such a document; none of a text that is no XML.
    pub fn unread(self, xml: &str) -> Vec<String> {
        let Ok(document) = vmgate_facts::xml::parse(xml) else { return Vec::new() };
        self.accounts().unread(document.root_element(), place).into_keys().collect()
    }

    /// [`Self::unread`], with the document's name before each path.
    pub fn unread_by_name(self, xml: &str) -> Vec<String> {
        let name = match self {
            Self::Capabilities => "capabilities",
            Self::DomainCapabilities => "domain capabilities",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Secret => "secret",
        };
        self.unread(xml).into_iter().map(|path| format!("{name}: {path}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_account_does_not_list_is_told_by_its_path() {
        let told = |kind: Document, xml: &str| kind.unread(xml).join(" ");
        let network = "<network connections='1' warp='9'><name>n</name><forward mode='teleport'/><metadata><x/></metadata>
            <portgroup name='a'><flux/></portgroup></network>";
        assert_eq!(told(Document::Network, network), "/@warp forward/@mode=teleport portgroup/flux");
        assert_eq!(told(Document::Volume, "<volume type='cloud'><name>v</name></volume>"), "/@type=cloud");
        assert_eq!(
            told(Document::Secret, "<secret><usage type='ceph'><name>a</name><x/></usage></secret>"),
            "usage/x"
        );
        let offer = "<domainCapabilities><devices><disk supported='yes'><enum name='bus'><value>virtio</value></enum></disk>
            <warp supported='no'/></devices></domainCapabilities>";
        assert_eq!(told(Document::DomainCapabilities, offer), "devices/warp");
        assert_eq!(
            told(Document::Capabilities, "<capabilities><host><quantum/></host></capabilities>"),
            "host/quantum"
        );
    }
}
