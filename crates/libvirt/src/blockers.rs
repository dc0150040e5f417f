//! Obstacles to a migration that are not in the domain XML: snapshots, block jobs, QEMU's own migration blockers.

use std::{ffi::CString, mem::MaybeUninit};

use serde_json::Value;
use virt::{error::Error, sys};

use super::{
    Domain,
    error::{LibvirtError, LibvirtErrorKind},
    params::checked,
};

impl Domain {
    /// Number of snapshots that libvirt keeps of the VM.
    pub fn snapshots(&self) -> Result<u32, LibvirtError> {
        self.call("count the VM's snapshots", |domain| {
            // SAFETY: the domain is valid while it is borrowed.
            let count = unsafe { sys::virDomainSnapshotNum(domain.as_ptr(), 0) };
            checked(count)?;
            Ok(u32::try_from(count).unwrap_or(0))
        })
    }

    /// Kind of the block job that runs on a disk; none where no job runs.
    pub fn block_job(&self, disk: &str) -> Result<Option<&'static str>, LibvirtError> {
        let name = disk.to_owned();
        self.call("read the block job of a disk", move |domain| {
            let name = CString::new(name)?;
            let mut info = MaybeUninit::<sys::virDomainBlockJobInfo>::zeroed();
            // SAFETY: the domain is valid while it is borrowed, the name ends with a NUL, and libvirt fills the struct.
            let found = unsafe {
                sys::virDomainGetBlockJobInfo(domain.as_ptr(), name.as_ptr(), info.as_mut_ptr(), 0)
            };
            checked(found)?;
            // SAFETY: all-zero bytes are a valid value of this struct of integers, and libvirt wrote over them.
            let info = unsafe { info.assume_init() };
            Ok((found > 0).then(|| kind(info.type_)))
        })
    }

    /// Reasons for which QEMU would refuse to migrate now, in its own words. Asks QEMU's monitor, for which libvirt marks the
    /// domain as tainted (custom-monitor). A QEMU before 6.0 reports no reasons.
    pub fn migration_blockers(&self) -> Result<Vec<String>, LibvirtError> {
        let action = "read QEMU's migration blockers";
        let answer = self.call(action, |domain| domain.monitor(r#"{"execute":"query-migrate"}"#))?;
        let told: Value = serde_json::from_str(&answer).map_err(|error| {
            self.limit()
                .error(action, LibvirtErrorKind::Other(format!("QEMU's answer is not valid JSON: {error}")))
        })?;
        let reasons = told.pointer("/return/blocked-reasons").and_then(Value::as_array);
        Ok(reasons.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Sends a command to QEMU's monitor.
    pub(super) fn monitor(&self, json: &str) -> Result<String, Error> {
        self.raw().qemu_monitor_command(json, 0)
    }
}

/// Kind of block job (virDomainBlockJobType).
fn kind(number: i32) -> &'static str {
    match u32::try_from(number).unwrap_or(sys::VIR_DOMAIN_BLOCK_JOB_TYPE_UNKNOWN) {
        sys::VIR_DOMAIN_BLOCK_JOB_TYPE_PULL => "pull",
        sys::VIR_DOMAIN_BLOCK_JOB_TYPE_COPY => "copy",
        sys::VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT => "commit",
        sys::VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT => "active-commit",
        sys::VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP => "backup",
        _ => "unknown",
    }
}
