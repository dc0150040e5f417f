//! Dirty rate of a guest, measured by QEMU's page sampling and by no other means.
//!
//! QEMU's other modes (dirty-bitmap, dirty-ring) kill a guest under emulation on QEMU 7.2 and report zero where
//! they cannot see the pages, so this module has no call for them.

use std::{
    ffi::c_int,
    ptr, thread,
    time::{Duration, Instant},
};

use virt::{error::Error, sys};

use super::{
    Domain,
    error::{LibvirtError, LibvirtErrorKind},
    params::{Values, checked},
};

/// libvirt's shortest and longest window, in seconds (virDomainStartDirtyRateCalc).
const WINDOW_SECONDS: (u32, u32) = (1, 60);

/// Pause between two queries of a calculation that should be over.
const POLL: Duration = Duration::from_millis(10);

/// A dirty rate and the window that it was measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirtyRateSample {
    /// Memory dirtied, per second. QEMU counts whole MiB.
    pub bytes_per_second: u64,
    /// Length of the measurement.
    pub window_seconds: u32,
}

/// Progress of a calculation.
enum Progress {
    Measuring,
    Measured { mib_per_second: u64, seconds: u64 },
    Unknown,
}

impl Domain {
    /// Measures for `seconds` (1 to 60; others are moved to the nearest). The VM must run and have no job, which
    /// is checked first: a measurement during a migration or a backup would disturb the job.
    pub fn dirty_rate(&self, seconds: u32) -> Result<DirtyRateSample, LibvirtError> {
        const ACTION: &str = "measure the dirty rate";
        if let Some(job) = self.job_info()? {
            let why = format!("a {} job runs on the VM", job.operation.name());
            return Err(self.limit().error(ACTION, LibvirtErrorKind::Busy(why)));
        }
        let seconds = seconds.clamp(WINDOW_SECONDS.0, WINDOW_SECONDS.1);
        let length = c_int::try_from(seconds).unwrap_or(1);
        self.call(ACTION, move |domain| {
            let page_sampling = sys::VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING;
            // SAFETY: the domain is valid while it is borrowed.
            checked(unsafe { sys::virDomainStartDirtyRateCalc(domain.as_ptr(), length, page_sampling) })
        })?;
        thread::sleep(Duration::from_secs(seconds.into()));
        // After the window QEMU needs some time for its own work, which gets the time limit of one call.
        let patience = Instant::now() + self.limit().timeout;
        loop {
            match self.call(ACTION, progress)? {
                Progress::Measured { mib_per_second, seconds } => {
                    return Ok(DirtyRateSample {
                        bytes_per_second: mib_per_second.saturating_mul(1 << 20),
                        window_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
                    });
                }
                Progress::Measuring if Instant::now() < patience => thread::sleep(POLL),
                Progress::Measuring => {
                    return Err(self.limit().error(ACTION, LibvirtErrorKind::TimedOut(self.limit().timeout)));
                }
                Progress::Unknown => {
                    let why = "libvirt gives no result of page sampling".into();
                    return Err(self.limit().error(ACTION, LibvirtErrorKind::NotSupported(why)));
                }
            }
        }
    }
}

/// Reads the progress from the only group of statistics that contains it.
fn progress(domain: &Domain) -> Result<Progress, Error> {
    let mut domains = [domain.as_ptr(), ptr::null_mut()];
    let mut records = ptr::null_mut();
    // SAFETY: the list of domains ends with null, and libvirt allocates the list of records it stores.
    let count = unsafe {
        sys::virDomainListGetStats(domains.as_mut_ptr(), sys::VIR_DOMAIN_STATS_DIRTYRATE, &raw mut records, 0)
    };
    checked(count)?;
    let values = if count > 0 {
        // SAFETY: at least one record was stored, so the first pointer is valid until the list is freed.
        let record = unsafe { &**records };
        // SAFETY: the record says how many parameters libvirt filled.
        unsafe { Values::copied(record.params, record.nparams) }
    } else {
        Values::default()
    };
    // SAFETY: the list came from virDomainListGetStats and is not used after this.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(read(&values))
}

fn read(values: &Values) -> Progress {
    let mode = values.text(sys::VIR_DOMAIN_STATS_DIRTYRATE_CALC_MODE);
    if mode.is_some_and(|mode| mode != "page-sampling") {
        return Progress::Unknown;
    }
    let status = values.number(sys::VIR_DOMAIN_STATS_DIRTYRATE_CALC_STATUS);
    match status.and_then(|status| u32::try_from(status).ok()) {
        Some(sys::VIR_DOMAIN_DIRTYRATE_MEASURING) => Progress::Measuring,
        Some(sys::VIR_DOMAIN_DIRTYRATE_MEASURED) => {
            match (
                values.number(sys::VIR_DOMAIN_STATS_DIRTYRATE_MEGABYTES_PER_SECOND),
                values.number(sys::VIR_DOMAIN_STATS_DIRTYRATE_CALC_PERIOD),
            ) {
                (Some(mib_per_second), Some(seconds)) => Progress::Measured { mib_per_second, seconds },
                _ => Progress::Unknown,
            }
        }
        _ => Progress::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hypervisor_that_cannot_measure_says_so() {
        let uri = vmgate_facts::Uri::from_operator("test:///default").unwrap();
        let host = super::super::Hypervisor::open(&uri, Duration::from_secs(10)).unwrap();
        let error = host.domain("test").unwrap().dirty_rate(1).unwrap_err();
        assert!(matches!(error.kind, LibvirtErrorKind::NotSupported(_)), "{error}");
    }

    #[test]
    fn no_result_is_not_a_zero() {
        assert!(matches!(read(&Values::default()), Progress::Unknown));
    }
}
