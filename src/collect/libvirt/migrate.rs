//! Live migration of a VM through libvirt (virDomainMigrate3).

use std::{ffi::c_int, sync::Arc, time::Duration};

use virt::{error::Error, sys};

use super::{Domain, Hypervisor, error::LibvirtError, limit::CallLimit, params::ParamList, session::Session};

/// Parameters of a migration. There is no field for libvirt's `unsafe` flag: vmgate never overrides libvirt's own
/// checks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of virDomainMigrate3")]
pub struct MigrateParams {
    /// Target of the source QEMU's connection, such as `tcp:10.77.1.2`; none lets the destination choose.
    pub migrate_uri: Option<String>,
    /// Limit of the transfer in MiB a second; none for libvirt's own.
    pub bandwidth_mib_per_second: Option<u64>,
    /// Downtime limit of QEMU; none for QEMU's own (300 ms).
    pub max_downtime: Option<Duration>,
    /// True if QEMU may slow the guest's vCPUs so that the migration converges.
    pub auto_converge: bool,
    /// True if the running migration may be switched to post-copy, see [`Domain::start_post_copy`].
    pub post_copy: bool,
    /// True if QEMU sends only the changes of a page (XBZRLE).
    pub xbzrle: bool,
    /// Number of multifd connections; none for a single stream.
    pub multifd_channels: Option<u32>,
    /// True if the migration traffic is encrypted with TLS.
    pub tls: bool,
    /// True if the VM's configuration is stored at the destination, and removed at the source.
    pub persistent: bool,
}

impl Domain {
    /// Migrates the VM live. Blocks until the migration is over, however long that takes; another thread reads the progress
    /// and may abort, over another connection. libvirt's client manages the migration, so the two daemons need not reach
    /// each other.
    ///
    /// Runs on the calling thread and over connections of its own. There is no time limit, since an abandoned call would hide
    /// a running migration, but a daemon that is silent for some ten seconds ends the call.
    pub fn migrate(&self, destination: &Hypervisor, params: &MigrateParams) -> Result<(), LibvirtError> {
        let action = format!("migrate the VM to {}", destination.limit.host);
        if let Some(downtime) = params.max_downtime {
            self.set_max_downtime(downtime)?;
        }
        let explained = |error| self.limit().explain(&action, &error);
        let uuid = self.uuid()?;
        let with_keepalive = |limit: &CallLimit, session: &Arc<Session>| {
            let session = Arc::clone(session);
            limit.call(&action, move || session.with_keepalive())
        };
        let from = with_keepalive(self.limit(), self.session())?;
        let to = with_keepalive(&destination.limit, &destination.session)?;
        let vm = from.session().connect().lookup_domain_by_uuid_string(&uuid).map_err(explained)?;
        migrate(&vm, to.session(), params).map_err(explained)
    }
}

fn flags(params: &MigrateParams) -> u32 {
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

fn migrate(
    domain: &virt::domain::Domain,
    destination: &Session,
    params: &MigrateParams,
) -> Result<(), Error> {
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
    let (values, count) = list.as_parts();
    // SAFETY: domain and connection are valid while they are borrowed, and the list has `count` parameters.
    let migrated = unsafe {
        sys::virDomainMigrate3(domain.as_ptr(), destination.as_ptr(), values, count, flags(params))
    };
    if migrated.is_null() {
        return Err(Error::last_error());
    }
    // SAFETY: libvirt returned a new reference, which the wrapper owns from here.
    drop(unsafe { virt::domain::Domain::from_ptr(migrated) });
    Ok(())
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
