//! Version of QEMU that a machine type is named after, also where a distribution names it after its own release.

use super::{Cause, Fact, Version};

/// Releases of distributions, with the version of QEMU whose machine type they are: RHEL's by number, Ubuntu's by name
/// (hw/i386/pc_q35.c and pc_piix.c of their QEMU packages).
const RELEASES: &[(&str, &str)] = &[
    ("rhel7.0.0", "1.5"),
    ("rhel7.1.0", "2.1"),
    ("rhel7.2.0", "2.3"),
    ("rhel7.3.0", "2.6"),
    ("rhel7.4.0", "2.9"),
    ("rhel7.5.0", "2.10"),
    ("rhel7.6.0", "2.12"),
    ("rhel8.0.0", "3.1"),
    ("rhel8.1.0", "4.1"),
    ("rhel8.2.0", "4.2"),
    ("rhel8.3.0", "5.1"),
    ("rhel8.4.0", "5.2"),
    ("rhel8.5.0", "6.0"),
    ("rhel8.6.0", "6.2"),
    ("rhel9.0.0", "6.2"),
    ("rhel9.2.0", "7.2"),
    ("rhel9.4.0", "8.2"),
    ("rhel9.6.0", "9.1"),
    ("rhel10.0.0", "9.1"),
    ("trusty", "2.0"),
    ("xenial", "2.5"),
    ("yakkety", "2.6"),
    ("zesty", "2.8"),
    ("artful", "2.10"),
    ("bionic", "2.11"),
    ("cosmic", "2.12"),
    ("disco", "3.1"),
    ("eoan", "4.0"),
    ("focal", "4.2"),
    ("groovy", "5.0"),
    ("hirsute", "5.2"),
    ("impish", "6.0"),
    ("jammy", "6.2"),
    ("kinetic", "7.0"),
    ("lunar", "7.2"),
    ("mantic", "8.0"),
    ("noble", "8.2"),
    ("oracular", "9.0"),
    ("plucky", "9.2"),
];

/// Variants of Ubuntu's machine types, which differ in the CPU's address bits only.
const VARIANTS: &[&str] = &["-v2", "-hpb", "-maxphysaddr", "-maxpysaddr"];

/// Version of QEMU that a machine type is named after; absent for a type without a version, such as `microvm`. Unknown for
/// a release of a distribution that is not known here.
pub fn machine_version(name: &str) -> Fact<Option<Version>> {
    // Proxmox numbers its revisions of a type: pc-q35-9.0+pve1.
    let mut base = name.split_once('+').map_or(name, |(base, _)| base);
    while let Some(shorter) = VARIANTS.iter().find_map(|variant| base.strip_suffix(variant)) {
        base = shorter;
    }
    let Some((_, release)) = base.rsplit_once('-') else { return Fact::Known(None) };
    let named = RELEASES.iter().find(|(known, _)| *known == release).map_or(release, |(_, version)| version);
    if let Ok(version) = named.parse() {
        return Fact::Known(Some(version));
    }
    let family = |family: &str| base == family || base.ends_with(&format!("-{family}"));
    if ["q35", "i440fx", "virt", "virtio"].iter().any(|name| family(name)) {
        return Fact::Known(None);
    }
    Fact::unknown(
        Cause::NotListed,
        format!("vmgate does not know which version of QEMU machine type {name} is made from"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distributions_machine_type_has_the_version_that_it_is_made_from() {
        let version = |name| {
            let version = machine_version(name);
            version.known().map(|known| known.map_or_else(|| "none".to_owned(), |known| known.to_string()))
        };
        for (name, expected) in [
            ("pc-q35-7.2", "7.2.0"),
            ("s390-ccw-virtio-9.1", "9.1.0"),
            ("pc-q35-9.0+pve1", "9.0.0"),
            ("pc-q35-rhel9.4.0", "8.2.0"),
            ("pc-i440fx-rhel7.6.0", "2.12.0"),
            ("pc-q35-noble", "8.2.0"),
            ("pc-q35-noble-v2", "8.2.0"),
            ("pc-i440fx-jammy-hpb-maxpysaddr", "6.2.0"),
            ("q35", "none"),
            ("microvm", "none"),
            ("s390-ccw-virtio", "none"),
        ] {
            assert_eq!(version(name).as_deref(), Some(expected), "{name}");
        }
        for name in ["pc-q35-rhel12.0.0", "pc-q35-zebra", "pc-i440fx-oe2403"] {
            assert_eq!(version(name), None, "{name}");
        }
    }
}
