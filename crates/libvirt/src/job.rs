//! The job that runs on a VM, such as a migration: its statistics, its settings, and its abort.

use std::{ffi::c_int, ptr, time::Duration};

use virt::sys;

use super::{
    Domain,
    error::{LibvirtError, LibvirtErrorKind},
    params::{Values, checked},
};

/// Statistics of a job. A figure that libvirt did not give is absent.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStats {
    /// Operation of the job.
    pub operation: JobOperation,
    /// End of the job; none while it runs.
    pub end: Option<JobEnd>,
    /// Time since the start of the job.
    pub elapsed: Option<Duration>,
    /// Bytes of memory and disk to transfer, at the least.
    pub data_total_bytes: Option<u64>,
    /// Bytes transferred.
    pub data_processed_bytes: Option<u64>,
    /// Bytes still to transfer.
    pub data_remaining_bytes: Option<u64>,
    /// Bytes of memory still to transfer.
    pub memory_remaining_bytes: Option<u64>,
    /// Speed of the transfer.
    pub memory_bytes_per_second: Option<u64>,
    /// Dirty rate of the guest, as QEMU measured it in the last pre-copy round.
    pub dirty_bytes_per_second: Option<u64>,
    /// Pre-copy rounds so far.
    pub iteration: Option<u64>,
    /// Downtime of the guest; while the job runs, the expected one.
    pub downtime: Option<Duration>,
    /// Part of the guest's CPU time that auto-converge takes away, in percent.
    pub throttle_percent: Option<u64>,
    /// libvirt's message, where the job failed.
    pub error: Option<String>,
}

/// End of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    /// The job completed.
    Completed,
    /// The job failed.
    Failed,
    /// The job was aborted.
    Cancelled,
}

/// Operation of a job (virDomainJobOperation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobOperation {
    /// Sends the VM to another host.
    MigrationOut,
    /// Receives the VM.
    MigrationIn,
    /// Backs disks up.
    Backup,
    /// Takes, deletes or reverts to a snapshot.
    Snapshot,
    /// Saves or dumps memory.
    Save,
    /// Anything else.
    Other,
}

impl JobOperation {
    fn from_number(number: u64) -> Self {
        match u32::try_from(number).unwrap_or(0) {
            sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT => Self::MigrationOut,
            sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN => Self::MigrationIn,
            sys::VIR_DOMAIN_JOB_OPERATION_BACKUP => Self::Backup,
            sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT
            | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT
            | sys::VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_DELETE => Self::Snapshot,
            sys::VIR_DOMAIN_JOB_OPERATION_SAVE | sys::VIR_DOMAIN_JOB_OPERATION_DUMP => Self::Save,
            _ => Self::Other,
        }
    }

    /// Name of the operation in facts.
    pub fn name(self) -> &'static str {
        match self {
            Self::MigrationOut => "migration-out",
            Self::MigrationIn => "migration-in",
            Self::Backup => "backup",
            Self::Snapshot => "snapshot",
            Self::Save => "save",
            Self::Other => "other",
        }
    }
}

impl Domain {
    /// Reads the job that runs on the VM now; none where no job runs, or where the VM does not run.
    pub fn job_info(&self) -> Result<Option<JobStats>, LibvirtError> {
        match self.job_stats(0) {
            Err(LibvirtError { kind: LibvirtErrorKind::WrongState(_), .. }) => Ok(None),
            other => other,
        }
    }

    /// Reads the statistics of the last job that ended. libvirt keeps them until the next job starts or the VM stops; after
    /// a migration the destination has them.
    pub fn completed_job(&self) -> Result<Option<JobStats>, LibvirtError> {
        self.job_stats(sys::VIR_DOMAIN_JOB_STATS_COMPLETED | sys::VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED)
    }

    fn job_stats(&self, flags: u32) -> Result<Option<JobStats>, LibvirtError> {
        self.call("read the VM's job", move |domain| {
            let (mut kind, mut count): (c_int, c_int) = (0, 0);
            let mut params = ptr::null_mut();
            // SAFETY: all three pointers are to live variables that libvirt fills; it allocates the array.
            checked(unsafe {
                sys::virDomainGetJobStats(
                    domain.as_ptr(),
                    &raw mut kind,
                    &raw mut params,
                    &raw mut count,
                    flags,
                )
            })?;
            // SAFETY: libvirt filled `count` parameters, or none and a null pointer where no job runs.
            let values = unsafe { Values::copied(params, count) };
            // SAFETY: the array is libvirt's, is not used after this, and null is allowed.
            unsafe { sys::virTypedParamsFree(params, count) };
            Ok(stats(u32::try_from(kind).unwrap_or(sys::VIR_DOMAIN_JOB_NONE), &values))
        })
    }

    /// The limit that libvirt keeps for this VM's migrations, in MiB a second (virDomainMigrateGetMaxSpeed); libvirt's
    /// way to say none is the largest that QEMU can be told.
    pub fn max_migration_speed(&self) -> Result<u64, LibvirtError> {
        self.call("read the speed limit of migrations", |domain| {
            let mut mebibytes = 0;
            // SAFETY: the pointer is to a live number that libvirt fills.
            checked(unsafe { sys::virDomainMigrateGetMaxSpeed(domain.as_ptr(), &raw mut mebibytes, 0) })?;
            Ok(mebibytes)
        })
    }
}

/// Statistics of a job of that kind; none for libvirt's "no job".
fn stats(kind: u32, values: &Values) -> Option<JobStats> {
    let end = match kind {
        sys::VIR_DOMAIN_JOB_NONE => return None,
        sys::VIR_DOMAIN_JOB_COMPLETED => Some(JobEnd::Completed),
        sys::VIR_DOMAIN_JOB_FAILED => Some(JobEnd::Failed),
        sys::VIR_DOMAIN_JOB_CANCELLED => Some(JobEnd::Cancelled),
        _ => None,
    };
    let milliseconds = |name| values.number(name).map(Duration::from_millis);
    // libvirt's dirty rate is in pages a second; the page size is another parameter.
    let page = values.number(sys::VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE).unwrap_or(4096);
    Some(JobStats {
        operation: JobOperation::from_number(values.number(sys::VIR_DOMAIN_JOB_OPERATION).unwrap_or(0)),
        end,
        elapsed: milliseconds(sys::VIR_DOMAIN_JOB_TIME_ELAPSED),
        data_total_bytes: values.number(sys::VIR_DOMAIN_JOB_DATA_TOTAL),
        data_processed_bytes: values.number(sys::VIR_DOMAIN_JOB_DATA_PROCESSED),
        data_remaining_bytes: values.number(sys::VIR_DOMAIN_JOB_DATA_REMAINING),
        memory_remaining_bytes: values.number(sys::VIR_DOMAIN_JOB_MEMORY_REMAINING),
        memory_bytes_per_second: values.number(sys::VIR_DOMAIN_JOB_MEMORY_BPS),
        dirty_bytes_per_second: values
            .number(sys::VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE)
            .map(|pages| pages.saturating_mul(page)),
        iteration: values.number(sys::VIR_DOMAIN_JOB_MEMORY_ITERATION),
        downtime: milliseconds(sys::VIR_DOMAIN_JOB_DOWNTIME),
        throttle_percent: values.number(sys::VIR_DOMAIN_JOB_AUTO_CONVERGE_THROTTLE),
        error: values.text(sys::VIR_DOMAIN_JOB_ERRMSG).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_job_is_no_crash() {
        assert_eq!(stats(sys::VIR_DOMAIN_JOB_NONE, &Values::default()), None);
        let uri = vmgate_facts::Uri::from_operator("test:///default").unwrap();
        let host = super::super::Hypervisor::open(&uri, Duration::from_secs(10)).unwrap();
        // The mock driver may not know jobs; it must say so and not bring vmgate down.
        match host.domain("test").unwrap().job_info() {
            Ok(job) => assert_eq!(job, None),
            Err(error) => assert!(matches!(error.kind, LibvirtErrorKind::NotSupported(_)), "{error}"),
        }
    }
}
