//! TLS certificates of both ends, and their use in this move.

use std::net::IpAddr;

use vmgate_facts::{Certificate, CertificateUse, Fact};

use crate::{host::CertificateFile, path::PathEnd};

pub(super) fn of(source: &PathEnd, destination: &PathEnd) -> Fact<Vec<Certificate>> {
    let of = |end: &PathEnd, which| {
        end.network
            .certificates
            .as_ref()
            .map(|files| files.iter().map(|file| certificate(file, which, end.tls_name)).collect::<Vec<_>>())
    };
    of(source, vmgate_facts::HostRole::Source).and_then(|mut all| {
        of(destination, vmgate_facts::HostRole::Destination).map(|other| {
            all.extend(other);
            all
        })
    })
}

fn certificate(file: &CertificateFile, end: vmgate_facts::HostRole, tls_name: Option<&str>) -> Certificate {
    // The migration itself is not encrypted by vmgate, so that QEMU's certificates are not used.
    let used = match file.purpose {
        CertificateUse::LibvirtCa | CertificateUse::LibvirtServer => tls_name.is_some(),
        _ => false,
    };
    let wanted_name = tls_name.filter(|_| file.purpose == CertificateUse::LibvirtServer).map(str::to_owned);
    Certificate {
        end,
        file: file.file.clone(),
        purpose: file.purpose,
        used,
        subject: file.subject.clone(),
        valid_from: file.valid_from,
        valid_until: file.valid_until,
        name_matches: wanted_name.as_deref().map(|name| file.names.iter().any(|given| matches(given, name))),
        names: file.names.clone(),
        wanted_name,
        issued_by_ca: file.issued_by_ca.clone(),
    }
}

/// True if a certificate's name matches the wanted name (RFC 6125 section 6.4): case does not matter, and `*` stands for
/// one whole label, the first.
fn matches(given: &str, wanted: &str) -> bool {
    if let (Ok(given), Ok(wanted)) = (given.parse::<IpAddr>(), wanted.parse::<IpAddr>()) {
        return given == wanted;
    }
    let (given, wanted) = (given.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    match given.strip_prefix("*.") {
        Some(domain) => {
            wanted.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain)
        }
        None => given == wanted,
    }
}

#[cfg(test)]
mod tests {
    use crate::path::certificates::matches;

    #[test]
    fn names_match_as_tls_has_it() {
        assert!(matches("HV2.example.org", "hv2.Example.org"));
        assert!(matches("*.example.org", "hv2.example.org"));
        assert!(!matches("*.example.org", "a.hv2.example.org"));
        assert!(!matches("*.example.org", "example.org"));
        assert!(matches("fd00::2", "fd00:0::2"));
        assert!(!matches("10.0.0.2", "10.0.0.20"));
        assert!(!matches("hv2", "hv2.example.org"));
    }
}
