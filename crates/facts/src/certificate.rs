//! TLS certificates of the hosts, as libvirt and QEMU use them between source and destination.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, HostRole};

/// One X.509 certificate under /etc/pki of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Certificate {
    /// Host on which the certificate lies.
    #[schemars(example = &"destination")]
    pub end: HostRole,
    /// Path of the certificate's file on that host.
    #[schemars(example = &"/etc/pki/libvirt/servercert.pem")]
    pub file: String,
    /// Role of the certificate in libvirt or QEMU.
    #[schemars(example = &"libvirt-server")]
    pub purpose: CertificateUse,
    /// True if this move uses the certificate: libvirt's where the host's URI asks for TLS, QEMU's where the migration
    /// is encrypted.
    #[schemars(example = true)]
    pub used: bool,
    /// Subject of the certificate, as an RFC 4514 text.
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
    /// Name that the other side verifies; absent where the certificate is not of a server that the move connects to by
    /// TLS.
    #[schemars(example = &"hv2.example.org")]
    pub wanted_name: Option<String>,
    /// True if the certificate contains that name; absent where no name is verified.
    #[schemars(example = true)]
    pub name_matches: Option<bool>,
    /// True if the certificate names the certificate authority in the same place as its issuer, by name and key id. The
    /// signature is not verified.
    #[schemars(example = true)]
    pub issued_by_ca: Fact<bool>,
}

/// Role of a certificate. libvirt and QEMU look for each role in a fixed place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateUse {
    /// Certificate authority that libvirt trusts.
    LibvirtCa,
    /// Server certificate of libvirtd.
    LibvirtServer,
    /// Certificate of this host as a client of another libvirtd.
    LibvirtClient,
    /// Certificate authority that QEMU trusts.
    QemuCa,
    /// Certificate of QEMU as the receiver of a migration.
    QemuServer,
    /// Certificate of QEMU as the sender of a migration.
    QemuClient,
}
