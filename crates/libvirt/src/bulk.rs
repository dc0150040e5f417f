//! Statistics of all VMs of a host in few round trips: one bulk call, then the questions without a bulk call, several at
//! a time over the one connection.
//!
//! The `virt` crate's own bulk statistics free the list and not the records in it; here libvirt frees both.

use std::{
    ptr, slice,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use virt::{domain::Domain as RawDomain, error::Error, sys};

use super::{Domain, Hypervisor, error::LibvirtError, limit::CallLimit, params::Values, session::Session};
use vmgate_facts::Uuid;

/// Most questions that wait for an answer of one host at the same time.
const AT_ONCE: usize = 8;

/// A VM of a host, with the statistics of the bulk call.
#[derive(Debug, Clone)]
pub struct GuestSummary {
    /// The VM, for further questions.
    pub domain: Domain,
    /// Name of the VM.
    pub name: String,
    /// UUID of the VM; none where it is one that identifies nothing.
    pub uuid: Option<Uuid>,
    /// True if the VM has a process on the host.
    pub active: bool,
    /// Maximum memory of the VM; none where this driver does not report it.
    pub memory_max_bytes: Option<u64>,
    /// Resident memory of the VM's process; none where this driver does not report it, or the VM does not run.
    pub resident_bytes: Option<u64>,
}

impl Hypervisor {
    /// All VMs of the host, running or not, by name. One round trip, whatever their number.
    pub fn guests(&self) -> Result<Vec<GuestSummary>, LibvirtError> {
        let limit = self.limit.clone();
        let session = Arc::clone(&self.session);
        let mut guests = self.call("read the statistics of all VMs", move |_| summaries(&session, &limit))?;
        guests.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(guests)
    }
}

fn summaries(session: &Arc<Session>, limit: &CallLimit) -> Result<Vec<GuestSummary>, Error> {
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    let wanted = sys::VIR_DOMAIN_STATS_STATE | sys::VIR_DOMAIN_STATS_BALLOON;
    // A VM that another job holds gives what is known without waiting for it.
    let flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    // SAFETY: the connection is valid while it is borrowed; libvirt allocates the list and its records.
    let mut count =
        unsafe { sys::virConnectGetAllDomainStats(session.as_ptr(), wanted, &raw mut records, flags) };
    if count < 0 {
        // Drivers that do not know the flag refuse it.
        // SAFETY: as above; after a failure libvirt left nothing behind.
        count = unsafe { sys::virConnectGetAllDomainStats(session.as_ptr(), 0, &raw mut records, 0) };
    }
    if count < 0 {
        return Err(Error::last_error());
    }
    let guests = if records.is_null() {
        Ok(Vec::new())
    } else {
        // SAFETY: libvirt wrote that many pointers to records.
        let list = unsafe { slice::from_raw_parts(records, usize::try_from(count).unwrap_or(0)) };
        // SAFETY: each of them is valid until the list is freed below.
        list.iter().map(|record| unsafe { summary(&**record, session, limit) }).collect()
    };
    // SAFETY: list and records are libvirt's and not used any more; null is allowed.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    guests
}

/// Copies one record.
///
/// # Safety
/// The record must be libvirt's and valid.
unsafe fn summary(
    record: &sys::virDomainStatsRecord,
    session: &Arc<Session>,
    limit: &CallLimit,
) -> Result<GuestSummary, Error> {
    // SAFETY: the record's parameters are initialised, as the caller guarantees.
    let values = unsafe { Values::copied(record.params, record.nparams) };
    // SAFETY: the record holds a reference to its domain; this takes another one, which the wrapper below gives back.
    if unsafe { sys::virDomainRef(record.dom) } < 0 {
        return Err(Error::last_error());
    }
    // SAFETY: the reference just taken is the wrapper's.
    let raw = unsafe { RawDomain::from_ptr(record.dom) };
    let kib = |name| values.number(name).map(|kib: u64| kib.saturating_mul(1024));
    // SAFETY: the domain is valid; the answer is the object's own, without a call to the host.
    let id = unsafe { sys::virDomainGetID(record.dom) };
    Ok(GuestSummary {
        name: raw.name()?,
        uuid: raw.uuid_string()?.parse().ok(),
        active: id != u32::MAX,
        memory_max_bytes: kib(c"balloon.maximum"),
        resident_bytes: kib(c"balloon.rss").filter(|&bytes| bytes > 0),
        domain: Domain::new(raw, session, limit),
    })
}

/// Asks a question about each of many things, a limited number at the same time. Returns the answers in their order.
pub fn ask_each<T: Sync, A: Send>(things: &[T], question: impl Fn(&T) -> A + Sync) -> Vec<A> {
    let next = Mutex::new(things.iter().enumerate());
    let answers = Mutex::new(Vec::with_capacity(things.len()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(things.len()) {
            scope.spawn(|| {
                loop {
                    let Some((at, thing)) = lock(&next).next() else { return };
                    let answer = question(thing);
                    lock(&answers).push((at, answer));
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_vms_of_the_mock_hypervisor_are_told_at_once() {
        let host = Hypervisor::open(
            &vmgate_facts::Uri::from_operator("test:///default").unwrap(),
            Duration::from_secs(10),
        )
        .unwrap();
        let guests = host.guests().unwrap();
        assert_eq!(guests.len(), 1);
        assert_eq!((guests[0].name.as_str(), guests[0].active), ("test", true));
        assert!(guests[0].domain.xml().unwrap().contains("<name>test</name>"));
    }

    #[test]
    fn answers_come_in_the_order_of_the_questions() {
        let things: Vec<u64> = (0..50).collect();
        let answers = ask_each(&things, |n| {
            thread::sleep(Duration::from_micros((50 - n) * 20));
            n * 2
        });
        assert_eq!(answers, things.iter().map(|n| n * 2).collect::<Vec<_>>());
        assert!(ask_each(&[] as &[u8], |_| 0).is_empty());
    }
}
