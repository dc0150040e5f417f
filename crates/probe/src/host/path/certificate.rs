//! The X.509 certificates under /etc/pki that libvirt and QEMU of this host present or trust.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    str::from_utf8,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use vmgate_facts::{
    Cause, CertificateUse, Fact, Unknown,
    text::{plain, plain_bytes},
};
use x509_cert::{
    Certificate,
    der::{DecodePem, oid::db::rfc4519::COMMON_NAME},
    ext::pkix::{AuthorityKeyIdentifier, SubjectAltName, SubjectKeyIdentifier, name::GeneralName},
};

use crate::{host::not_read, netlink::address};

/// Largest file that is read as a certificate.
const MOST_BYTES: u64 = 1 << 20;
/// Most names kept of one certificate.
const MOST_NAMES: usize = 64;

/// One certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateFile {
    /// Path of its file.
    pub file: String,
    /// Purpose: which program uses it, in which role.
    pub purpose: CertificateUse,
    /// Subject name.
    pub subject: String,
    /// First moment of its validity.
    pub valid_from: Timestamp,
    /// Last moment of its validity.
    pub valid_until: Timestamp,
    /// DNS names and addresses that it is valid for.
    pub names: Vec<String>,
    /// True if the CA certificate in the same place is its issuer.
    pub issued_by_ca: Fact<bool>,
}

/// Reads the certificates that exist. `migration` is the folder that qemu.conf sets for migrations.
pub(crate) fn look(migration: Option<&str>) -> Result<Vec<CertificateFile>, Unknown> {
    look_under(Path::new("/"), migration)
}

fn look_under(root: &Path, migration: Option<&str>) -> Result<Vec<CertificateFile>, Unknown> {
    let under = |path: &str| root.join(path.trim_start_matches('/'));
    let default =
        if under("/etc/pki/libvirt-migrate").exists() { "/etc/pki/libvirt-migrate" } else { "/etc/pki/qemu" };
    let qemu = migration.unwrap_or(default);
    let places = [
        ("/etc/pki/CA/cacert.pem".to_owned(), CertificateUse::LibvirtCa),
        ("/etc/pki/libvirt/servercert.pem".to_owned(), CertificateUse::LibvirtServer),
        ("/etc/pki/libvirt/clientcert.pem".to_owned(), CertificateUse::LibvirtClient),
        (format!("{qemu}/ca-cert.pem"), CertificateUse::QemuCa),
        (format!("{qemu}/server-cert.pem"), CertificateUse::QemuServer),
        (format!("{qemu}/client-cert.pem"), CertificateUse::QemuClient),
    ];
    let mut found = Vec::new();
    let mut authority = None;
    for (file, purpose) in places {
        let is_authority = matches!(purpose, CertificateUse::LibvirtCa | CertificateUse::QemuCa);
        let certificate = read(&under(&file), &file)?;
        if let Some(certificate) = &certificate {
            found.push(describe(&file, purpose, certificate, authority.as_ref().filter(|_| !is_authority))?);
        }
        if is_authority {
            authority = certificate;
        }
    }
    Ok(found)
}

/// The first certificate of a file; none if the file does not exist.
fn read(path: &PathBuf, shown: &str) -> Result<Option<Certificate>, Unknown> {
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(not_read(shown, &error)),
    };
    if size > MOST_BYTES {
        return Err(malformed(shown));
    }
    let bytes = fs::read(path).map_err(|error| not_read(shown, &error))?;
    parse(&bytes, shown).map(Some)
}

/// The first certificate of a file's text.
fn parse(bytes: &[u8], shown: &str) -> Result<Certificate, Unknown> {
    // certtool writes a text form before the PEM block.
    let text = from_utf8(bytes).map_err(|_| malformed(shown))?;
    let begin = text.find("-----BEGIN CERTIFICATE-----").ok_or_else(|| malformed(shown))?;
    let end = text.get(begin..).and_then(|rest| Some(begin + rest.find(END)? + END.len()));
    let pem = end.and_then(|end| text.get(begin..end)).ok_or_else(|| malformed(shown))?;
    Certificate::from_pem(pem.as_bytes()).map_err(|_| malformed(shown))
}

#[cfg(feature = "fuzzing")]
pub(in crate::host) fn fuzz(bytes: &[u8]) {
    if let Ok(certificate) = parse(bytes, "fuzz") {
        let _ = describe("fuzz", CertificateUse::QemuServer, &certificate, Some(&certificate));
    }
}

const END: &str = "-----END CERTIFICATE-----";

fn malformed(shown: &str) -> Unknown {
    Unknown::new(Cause::Malformed, format!("{shown} on the host is not a PEM certificate"))
}

fn describe(
    file: &str,
    purpose: CertificateUse,
    certificate: &Certificate,
    authority: Option<&Certificate>,
) -> Result<CertificateFile, Unknown> {
    let content = certificate.tbs_certificate();
    let time = |time: x509_cert::time::Time| {
        let since = SignedDuration::try_from(time.to_unix_duration()).ok()?;
        Timestamp::from_duration(since).ok()
    };
    let times = time(content.validity().not_before).zip(time(content.validity().not_after));
    let (valid_from, valid_until) = times.ok_or_else(|| malformed(file))?;
    let is_authority = matches!(purpose, CertificateUse::LibvirtCa | CertificateUse::QemuCa);
    let issued_by_ca = match authority {
        Some(authority) => Fact::Known(names_as_issuer(certificate, authority)),
        // A CA certificate is its own issuer.
        None if is_authority => Fact::Known(true),
        None => {
            Fact::unknown(Cause::NotSupported, "the host has no CA certificate to compare the issuer with")
        }
    };
    Ok(CertificateFile {
        file: plain(file),
        purpose,
        subject: plain(&content.subject().to_string()),
        valid_from,
        valid_until,
        names: names(certificate),
        issued_by_ca,
    })
}

/// The names in subjectAltName, or the common name if there is none (RFC 6125 section 6.4.4).
fn names(certificate: &Certificate) -> Vec<String> {
    let content = certificate.tbs_certificate();
    if let Ok(Some((_, SubjectAltName(names)))) = content.get_extension::<SubjectAltName>() {
        let named = names.iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(plain(name.as_str())),
            GeneralName::IpAddress(octets) => address(octets.as_bytes()).map(|address| address.to_string()),
            _ => None,
        });
        return named.take(MOST_NAMES).collect();
    }
    let attributes = content.subject().iter().filter(|attribute| attribute.oid == COMMON_NAME);
    attributes.map(|attribute| plain_bytes(attribute.value.value())).take(MOST_NAMES).collect()
}

/// True if a certificate names the CA as its issuer, by name and, if both have one, by key id.
fn names_as_issuer(certificate: &Certificate, authority: &Certificate) -> bool {
    let (content, above) = (certificate.tbs_certificate(), authority.tbs_certificate());
    let wanted = content.get_extension::<AuthorityKeyIdentifier>().ok().flatten();
    let wanted = wanted.and_then(|(_, id)| id.key_identifier);
    let given = above.get_extension::<SubjectKeyIdentifier>().ok().flatten().map(|(_, id)| id.0);
    let same_key = match (wanted, given) {
        (Some(wanted), Some(given)) => wanted == given,
        _ => true,
    };
    content.issuer() == above.subject() && same_key
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use crate::host::path::certificate::*;

    /// Makes certificates with openssl(1), as an administrator would.
    fn openssl(folder: &Path, arguments: &str) {
        let output =
            Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn authority(folder: &Path, name: &str) {
        let subject = format!("/CN={name}");
        openssl(
            folder,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem -subj {subject} -days 30"
            ),
        );
    }

    #[test]
    fn validity_names_and_issuer_are_read() {
        let root = tempfile::tempdir().unwrap();
        let (ca, libvirt) = (root.path().join("etc/pki/CA"), root.path().join("etc/pki/libvirt"));
        for folder in [&ca, &libvirt] {
            fs::create_dir_all(folder).unwrap();
        }
        assert!(look_under(root.path(), None).unwrap().is_empty(), "none is none");
        authority(root.path(), "ours");
        authority(root.path(), "theirs");
        fs::copy(root.path().join("ours.pem"), ca.join("cacert.pem")).unwrap();
        openssl(
            root.path(),
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout s.key -out s.pem -subj /CN=hv2 \
             -days 3 -CA ours.pem -CAkey ours.key -addext subjectAltName=DNS:hv2.example.org,IP:10.77.1.2",
        );
        fs::copy(root.path().join("s.pem"), libvirt.join("servercert.pem")).unwrap();
        openssl(
            root.path(),
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout c.key -out c.pem -subj /CN=hv2-client \
             -days 3 -CA theirs.pem -CAkey theirs.key",
        );
        let text = fs::read_to_string(root.path().join("c.pem")).unwrap();
        fs::write(libvirt.join("clientcert.pem"), format!("X.509 Certificate Information:\n{text}")).unwrap();

        let found = look_under(root.path(), None).unwrap();
        let [authority, server, client] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(authority.purpose, CertificateUse::LibvirtCa);
        assert_eq!(server.names, ["hv2.example.org", "10.77.1.2"]);
        assert_eq!(server.subject, "CN=hv2");
        assert_eq!(server.issued_by_ca, Fact::Known(true));
        let days = server.valid_until.duration_since(server.valid_from).as_hours() / 24;
        assert_eq!(days, 3);
        assert_eq!(
            (client.names.as_slice(), &client.issued_by_ca),
            (&["hv2-client".to_owned()][..], &Fact::Known(false))
        );
    }

    #[test]
    fn a_file_that_is_no_certificate_is_said_to_be_none() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/pki/qemu");
        fs::create_dir_all(&folder).unwrap();
        for text in [
            "",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----",
        ] {
            fs::write(folder.join("server-cert.pem"), text).unwrap();
            let why = look_under(root.path(), None).unwrap_err();
            assert_eq!(why.cause, Cause::Malformed);
            assert!(why.reason.contains("/etc/pki/qemu/server-cert.pem"), "{why:?}");
        }
    }
}
