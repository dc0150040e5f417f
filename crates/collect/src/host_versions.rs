//! Check of a host after maintenance: libvirt answers, and QEMU and libvirt have the wanted versions.

use std::time::Duration;

use vmgate_facts::{Cause, Fact, Unknown, Uri, Version};
use vmgate_judge::change::Versions;
use vmgate_libvirt::Hypervisor;

use super::host;

/// Checks that the host answers and has at least the wanted versions; the error says what is missing.
pub fn check(uri: &Uri, wanted: &Versions, timeout: Duration) -> Result<(), String> {
    let hypervisor = Hypervisor::open(uri, timeout).map_err(|error| error.to_string())?;
    let no_probe = Err(Unknown::new(Cause::NotCollected, "only libvirt is asked for versions"));
    let seen = host::ask(&hypervisor, uri, Fact::from(hypervisor.hostname())).with_probe(None, &no_probe);
    let name = uri.host_for_people();
    let has = |what: &str, wanted: Option<Version>, seen: &Fact<Version>| match (wanted, seen) {
        (None, _) => Ok(()),
        (Some(wanted), Fact::Known(seen)) if *seen >= wanted => Ok(()),
        (Some(wanted), Fact::Known(seen)) => {
            Err(format!("{name} has {what} {seen}; the change waits for {what} {wanted} or newer"))
        }
        (Some(wanted), Fact::Unknown(why)) => Err(format!(
            "the change waits for {what} {wanted} or newer on {name}, whose {what} version is not known: {}",
            why.reason
        )),
    };
    has("QEMU", wanted.qemu_version, &seen.qemu_version)?;
    has("libvirt", wanted.libvirt_version, &seen.libvirt_version)
}
