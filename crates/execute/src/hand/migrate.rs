//! Live migration of a VM through libvirt (virDomainMigrate3).

use std::{ffi::c_int, time::Duration};

use vmgate_libvirt::{
    Domain, Hypervisor, LibvirtError, LibvirtErrorKind, WatchedMove,
    raw::{ParamList, RawError, checked, sys},
};

use crate::Pass;

/// Parameters of a migration. There is no field for libvirt's `unsafe` flag: vmgate never overrides libvirt's own
/// checks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of virDomainMigrate3")]
pub(crate) struct MigrateParams {
    /// URI that the source's QEMU connects to, such as `tcp:10.77.1.2`; none lets the destination choose.
    pub(crate) migrate_uri: Option<String>,
    /// Limit of the transfer in MiB a second; none for libvirt's own.
    pub(crate) bandwidth_mib_per_second: Option<u64>,
    /// Longest stop of the guest that QEMU aims at; none for QEMU's own (300 ms).
    pub(crate) max_downtime: Option<Duration>,
    /// True if QEMU may slow the guest's vCPUs so that the migration converges.
    pub(crate) auto_converge: bool,
    /// True if it may be switched to post-copy while it runs, see [`super::start_post_copy`].
    pub(crate) post_copy: bool,
    /// True if pages are sent as differences (XBZRLE).
    pub(crate) xbzrle: bool,
    /// Connections to send over; a single stream for none.
    pub(crate) multifd_channels: Option<u32>,
    /// True if the traffic goes over TLS.
    pub(crate) tls: bool,
    /// True if the VM's configuration is stored at the destination, and removed at the source.
    pub(crate) persistent: bool,
}

/// Migrates the VM live. Blocks until the migration is over, however long that takes; progress and abort come from
/// another thread, over another connection. libvirt's client manages the migration, so the two daemons need not reach
/// each other.
///
/// Only with a pass for this VM. Run on the calling thread and over connections of its own: source is no time limit, since leaving a migration behind
/// would hide it, but a daemon that is silent for some ten seconds ends it.
pub(crate) fn migrate(
    pass: &Pass,
    domain: &Domain,
    destination: &Hypervisor,
    params: &MigrateParams,
) -> Result<(), LibvirtError> {
    let action = format!("migrate the VM to {}", destination.name());
    if let Some(manager) = &pass.verdict().change.run_by {
        let why = format!("the verdict is for a migration that {manager} runs");
        return Err(domain.error(&action, LibvirtErrorKind::Other(why)));
    }
    if domain.uuid()? != *pass.vm() {
        return Err(
            domain.error(&action, LibvirtErrorKind::Other("the verdict is about another VM".to_owned()))
        );
    }
    let watched = domain.watched(destination, &action)?;
    // QEMU keeps a limit that is set before the migration, also when that fails.
    let limit_before = super::max_downtime(domain).ok();
    if let Some(downtime) = params.max_downtime {
        super::set_max_downtime(domain, downtime)?;
    }
    let result = run(&watched, params).map_err(|error| domain.explain(&action, &error));
    if result.is_err()
        && let Some(before) = limit_before
    {
        let _ = super::set_max_downtime(domain, before);
    }
    result
}

/// Flags of virDomainMigrate3.
pub(super) fn flags(params: &MigrateParams) -> u32 {
    let mut flags = sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_ABORT_ON_ERROR;
    if params.auto_converge {
        flags |= sys::VIR_MIGRATE_AUTO_CONVERGE;
    }
    if params.post_copy {
        flags |= sys::VIR_MIGRATE_POSTCOPY;
    }
    if params.xbzrle {
        flags |= sys::VIR_MIGRATE_COMPRESSED;
    }
    if params.multifd_channels.is_some() {
        flags |= sys::VIR_MIGRATE_PARALLEL;
    }
    if params.tls {
        flags |= sys::VIR_MIGRATE_TLS;
    }
    if params.persistent {
        flags |= sys::VIR_MIGRATE_PERSIST_DEST | sys::VIR_MIGRATE_UNDEFINE_SOURCE;
    }
    flags
}

/// Typed parameters of virDomainMigrate3.
pub(super) fn param_list(params: &MigrateParams) -> Result<ParamList, RawError> {
    let mut list = ParamList::new();
    if let Some(uri) = &params.migrate_uri {
        list.text(sys::VIR_MIGRATE_PARAM_URI, uri)?;
    }
    if let Some(limit) = params.bandwidth_mib_per_second {
        list.number(sys::VIR_MIGRATE_PARAM_BANDWIDTH, limit)?;
    }
    if params.xbzrle {
        list.text(sys::VIR_MIGRATE_PARAM_COMPRESSION, "xbzrle")?;
    }
    if let Some(channels) = params.multifd_channels {
        list.int(
            sys::VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS,
            c_int::try_from(channels).unwrap_or(c_int::MAX),
        )?;
    }
    Ok(list)
}

fn run(watched: &WatchedMove, params: &MigrateParams) -> Result<(), RawError> {
    let mut list = param_list(params)?;
    let (values, count) = list.as_parts();
    // SAFETY: domain and connection are valid while they are borrowed, and the list has `count` parameters.
    let migrated = unsafe {
        sys::virDomainMigrate3(watched.domain(), watched.destination(), values, count, flags(params))
    };
    if migrated.is_null() {
        return Err(RawError::last_error());
    }
    // SAFETY: libvirt returned a new reference, which nothing else has.
    checked(unsafe { sys::virDomainFree(migrated) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persistent_vm_is_persistent_at_the_destination_only() {
        let persistent = flags(&MigrateParams { persistent: true, ..MigrateParams::default() });
        assert_ne!(persistent & sys::VIR_MIGRATE_PERSIST_DEST, 0);
        assert_ne!(persistent & sys::VIR_MIGRATE_UNDEFINE_SOURCE, 0);
        assert_eq!(
            flags(&MigrateParams::default())
                & (sys::VIR_MIGRATE_PERSIST_DEST | sys::VIR_MIGRATE_UNDEFINE_SOURCE),
            0
        );
    }

    #[test]
    fn libvirts_own_checks_are_never_overridden() {
        let all = MigrateParams {
            auto_converge: true,
            post_copy: true,
            xbzrle: true,
            multifd_channels: Some(4),
            tls: true,
            persistent: true,
            ..MigrateParams::default()
        };
        assert_eq!(flags(&all) & sys::VIR_MIGRATE_UNSAFE, 0);
        assert_eq!(flags(&all) & (sys::VIR_MIGRATE_PEER2PEER | sys::VIR_MIGRATE_TUNNELLED), 0);
    }
}
