//! Whether a host has had its maintenance: it answers, and has the versions that it was to get.

use std::time::Duration;

use super::host;
use vmgate_facts::Uri;
use vmgate_facts::{Cause, Fact, Unknown, Version};
use vmgate_judge::change::Versions;
use vmgate_libvirt::Hypervisor;

/// Whether the host is ready; else what is missing.
pub fn ready(uri: &Uri, wanted: &Versions, timeout: Duration) -> Result<(), String> {
    let hypervisor = Hypervisor::open(uri, timeout).map_err(|error| error.to_string())?;
    let no_probe = Err(Unknown::new(Cause::NotCollected, "versions are libvirt's to tell"));
    let seen = host::ask(&hypervisor, uri, Fact::from(hypervisor.hostname())).with_probe(None, &no_probe);
    let name = uri.host_for_people();
    let has = |what: &str, wanted: Option<Version>, seen: &Fact<Version>| match (wanted, seen) {
        (None, _) => Ok(()),
        (Some(wanted), Fact::Known(seen)) if *seen >= wanted => Ok(()),
        (Some(wanted), Fact::Known(seen)) => {
            Err(format!("{name} has {what} {seen}, and is to have {wanted}"))
        }
        (Some(wanted), Fact::Unknown(why)) => {
            Err(format!("{name} is to have {what} {wanted}, and does not say what it has: {}", why.reason))
        }
    };
    has("QEMU", wanted.qemu_version, &seen.qemu_version)?;
    has("libvirt", wanted.libvirt_version, &seen.libvirt_version)
}
