//! Certificates that a host shows, or would show, to the other.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{End, Fact};

/// One X.509 certificate under /etc/pki of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Certificate {
    /// The host that has it.
    #[schemars(example = &"destination")]
    pub end: End,
    /// Its file there.
    #[schemars(example = &"/etc/pki/libvirt/servercert.pem")]
    pub file: String,
    /// What it is for.
    #[schemars(example = &"libvirt-server")]
    pub purpose: CertificateUse,
    /// Whether this move speaks TLS with it: libvirt's own where the host's URI says so, QEMU's where the migration is
    /// encrypted.
    #[schemars(example = true)]
    pub used: bool,
    /// Whom it names, as an RFC 4514 text.
    #[schemars(example = &"CN=hv2.example.org")]
    pub subject: String,
    /// First moment of its validity.
    #[schemars(example = &"2026-01-01T00:00:00Z")]
    pub valid_from: Timestamp,
    /// Last moment of its validity.
    #[schemars(example = &"2027-01-01T00:00:00Z")]
    pub valid_until: Timestamp,
    /// DNS names and addresses that it is for (subjectAltName; the common name where it has none).
    #[schemars(example = vec!["hv2.example.org", "10.77.1.2"])]
    pub names: Vec<String>,
    /// The name under which the other side looks for its holder, where it is one of a server that TLS is spoken to.
    #[schemars(example = &"hv2.example.org")]
    pub wanted_name: Option<String>,
    /// Whether that name is among its names; absent where no name is looked for.
    #[schemars(example = true)]
    pub name_matches: Option<bool>,
    /// Whether it names the certificate authority that lies beside it as its issuer, by name and key id; the signature
    /// itself is not checked.
    #[schemars(example = true)]
    pub issued_by_ca: Fact<bool>,
}

/// What a certificate is for. libvirt and QEMU look for each in a fixed place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateUse {
    /// The authority that libvirt trusts.
    LibvirtCa,
    /// libvirtd's own.
    LibvirtServer,
    /// What this host shows as a client of another libvirtd.
    LibvirtClient,
    /// The authority that QEMU trusts.
    QemuCa,
    /// QEMU's own where it receives a migration.
    QemuServer,
    /// QEMU's own where it sends one.
    QemuClient,
}
