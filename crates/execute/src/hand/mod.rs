//! Everything that changes a VM. Private to the executor: no other crate can call it, nor do the same by itself, since every
//! crate but libvirt's, the probe and this module forbids `unsafe`, which the raw calls need.

mod link;
mod migrate;
mod phases;
mod run_script;
mod trial;
mod twin;

use std::time::Duration;

pub(crate) use link::{set_note, update_device};
pub(crate) use migrate::{MigrateParams, migrate};
pub(crate) use run_script::{ScriptResult, run_script};
pub(crate) use trial::{Phase, begin_and_take_back};
pub(crate) use twin::{Twin, TwinNote};
use vmgate_libvirt::{
    Domain, LibvirtError,
    raw::{checked, sys},
};

/// Removes the stored configuration; a running VM goes on as a transient one.
pub(crate) fn undefine(domain: &Domain) -> Result<(), LibvirtError> {
    domain.raw_call("undefine the VM", |domain| {
        // NVRAM and checkpoints belong to the VM that now runs elsewhere: kept, so that nothing is lost.
        let flags = sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM;
        // SAFETY: the pointer is valid while the call runs.
        checked(unsafe { sys::virDomainUndefineFlags(domain, flags) })
    })
}

/// Stops the guest's CPUs.
pub(crate) fn suspend(domain: &Domain) -> Result<(), LibvirtError> {
    domain.raw_call("suspend the VM", |domain| {
        // SAFETY: the pointer is valid while the call runs.
        checked(unsafe { sys::virDomainSuspend(domain) })
    })
}

/// Lets the guest's CPUs run again.
pub(crate) fn resume(domain: &Domain) -> Result<(), LibvirtError> {
    domain.raw_call("resume the VM", |domain| {
        // SAFETY: the pointer is valid while the call runs.
        checked(unsafe { sys::virDomainResume(domain) })
    })
}

/// Ends the VM's QEMU at once. For a copy that was left paused by a migration that is over, and nothing else.
pub(crate) fn destroy(domain: &Domain) -> Result<(), LibvirtError> {
    domain.raw_call("end the paused copy of the VM", |domain| {
        // SAFETY: the pointer is valid while the call runs.
        checked(unsafe { sys::virDomainDestroyFlags(domain, 0) })
    })
}

/// Stops the VM's job. An aborted migration leaves the VM running where it was.
pub(crate) fn abort_job(domain: &Domain) -> Result<(), LibvirtError> {
    domain.raw_call("abort the VM's job", |domain| {
        // SAFETY: the pointer is valid while the call runs.
        checked(unsafe { sys::virDomainAbortJob(domain) })
    })
}

/// Lets the guest go on at the destination while memory is still on its way. Only for a migration that was begun
/// with it allowed; from then on a failure loses the VM.
pub(crate) fn start_post_copy(domain: &Domain) -> Result<(), LibvirtError> {
    domain.raw_call("switch the migration to post-copy", |domain| {
        // SAFETY: the pointer is valid while the call runs.
        checked(unsafe { sys::virDomainMigrateStartPostCopy(domain, 0) })
    })
}

/// Time for which QEMU may stop the guest at the end of a migration.
pub(crate) fn max_downtime(domain: &Domain) -> Result<Duration, LibvirtError> {
    domain.raw_call("read the longest downtime", |domain| {
        let mut milliseconds = 0;
        // SAFETY: both pointers are valid while the call runs.
        checked(unsafe { sys::virDomainMigrateGetMaxDowntime(domain, &raw mut milliseconds, 0) })?;
        Ok(Duration::from_millis(milliseconds))
    })
}

/// Sets how long QEMU may stop the guest at the end of a migration; also while one runs.
pub(crate) fn set_max_downtime(domain: &Domain, downtime: Duration) -> Result<(), LibvirtError> {
    let milliseconds = u64::try_from(downtime.as_millis()).unwrap_or(u64::MAX).max(1);
    domain.raw_call("set the longest downtime", move |domain| {
        // SAFETY: the pointer is valid while the call runs.
        checked(unsafe { sys::virDomainMigrateSetMaxDowntime(domain, milliseconds, 0) })
    })
}
