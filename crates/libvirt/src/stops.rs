//! Stops of a VM's guest, by the events of its QEMU (STOP and RESUME), which libvirt passes on as they happen: no stop is too
//! short to be seen, as it would be for one who asks now and then.

use std::{
    ffi::{c_int, c_void},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use virt::{error::Error, sys};

use super::{Domain, LibvirtError, session::Session};

/// Stops of a guest since the watch began.
#[derive(Debug, Default)]
struct Stops {
    since: Option<Instant>,
    total: Duration,
}

impl Stops {
    fn event(&mut self, event: u32, now: Instant) {
        match event {
            sys::VIR_DOMAIN_EVENT_SUSPENDED => {
                self.since.get_or_insert(now);
            }
            sys::VIR_DOMAIN_EVENT_RESUMED => {
                self.total += self.since.take().map_or(Duration::ZERO, |since| now - since);
            }
            _ => {}
        }
    }

    fn total(&self, now: Instant) -> Duration {
        self.total + self.since.map_or(Duration::ZERO, |since| now - since)
    }
}

/// A watch over the stops of one guest; it ends when dropped.
#[derive(Debug)]
pub struct StopWatch {
    stops: Arc<Mutex<Stops>>,
    id: c_int,
    session: Arc<Session>,
}

impl StopWatch {
    /// Time that the guest's CPUs were stopped since the watch began.
    pub fn stopped(&self) -> Duration {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner).total(Instant::now())
    }
}

impl Domain {
    /// Watches the stops of the guest from now on.
    pub fn watch_stops(&self) -> Result<StopWatch, LibvirtError> {
        let stops = Arc::new(Mutex::new(Stops::default()));
        let shared = Arc::clone(&stops);
        let id = self.call("watch the VM's events", move |domain| {
            let opaque = Arc::into_raw(shared).cast_mut().cast::<c_void>();
            // SAFETY: the callback has the signature of a life cycle event, which libvirt's generic type stands for.
            let callback = unsafe {
                std::mem::transmute::<LifecycleCallback, sys::virConnectDomainEventGenericCallback>(lifecycle)
            };
            // SAFETY: connection and domain are valid while the call runs. libvirt keeps the reference in `opaque` and gives it to
            // `let_go` when the watch ends.
            let id = unsafe {
                sys::virConnectDomainEventRegisterAny(
                    domain.session().as_ptr(),
                    domain.as_ptr(),
                    sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE.cast_signed(),
                    callback,
                    opaque,
                    Some(let_go),
                )
            };
            if id < 0 {
                // SAFETY: libvirt did not take the reference.
                unsafe { let_go(opaque) };
                return Err(Error::last_error());
            }
            Ok(id)
        })?;
        Ok(StopWatch { stops, id, session: Arc::clone(self.session()) })
    }
}

impl Drop for StopWatch {
    fn drop(&mut self) {
        let (session, id) = (Arc::clone(&self.session), self.id);
        // A daemon that hangs must not hang vmgate; the watch then ends with the connection.
        let _ = std::thread::Builder::new().name("libvirt events end".into()).spawn(move || {
            // SAFETY: the connection is valid while `session` is; an unknown id is an error and no harm.
            unsafe { sys::virConnectDomainEventDeregisterAny(session.as_ptr(), id) };
        });
    }
}

type LifecycleCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;

unsafe extern "C" fn lifecycle(
    _: sys::virConnectPtr,
    _: sys::virDomainPtr,
    event: c_int,
    _: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: `opaque` is the reference that `watch_stops` gave to libvirt, valid until `let_go`.
    let stops = unsafe { &*opaque.cast::<Mutex<Stops>>() };
    stops
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .event(u32::try_from(event).unwrap_or(u32::MAX), Instant::now());
    0
}

unsafe extern "C" fn let_go(opaque: *mut c_void) {
    // SAFETY: the reference that `watch_stops` made, given back once.
    drop(unsafe { Arc::from_raw(opaque.cast::<Mutex<Stops>>()) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_added_up_and_one_that_has_not_ended_counts() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut stops = Stops::default();
        assert_eq!(stops.total(at(5)), Duration::ZERO);
        stops.event(sys::VIR_DOMAIN_EVENT_RESUMED, at(10));
        stops.event(sys::VIR_DOMAIN_EVENT_SUSPENDED, at(20));
        stops.event(sys::VIR_DOMAIN_EVENT_SUSPENDED, at(22));
        stops.event(sys::VIR_DOMAIN_EVENT_RESUMED, at(50));
        assert_eq!(stops.total(at(90)), Duration::from_millis(30));
        stops.event(sys::VIR_DOMAIN_EVENT_SUSPENDED, at(100));
        assert_eq!(stops.total(at(105)), Duration::from_millis(35));
    }

    #[test]
    fn a_stop_of_a_vm_is_told_by_its_events() {
        let uri = vmgate_facts::Uri::from_operator("test:///default").unwrap();
        let vm = crate::Hypervisor::open(&uri, Duration::from_secs(10)).unwrap().domain("test").unwrap();
        let watch = vm.watch_stops().unwrap();
        assert_eq!(watch.stopped(), Duration::ZERO);
        // SAFETY: the pointer is valid while `vm` is.
        assert_eq!(unsafe { sys::virDomainSuspend(vm.as_ptr()) }, 0);
        let start = Instant::now();
        while watch.stopped() == Duration::ZERO && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // SAFETY: as above.
        assert_eq!(unsafe { sys::virDomainResume(vm.as_ptr()) }, 0);
        assert!(watch.stopped() > Duration::ZERO);
    }
}
