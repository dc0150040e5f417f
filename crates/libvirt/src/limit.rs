//! Time limits for libvirt calls: libvirt blocks, so each call runs on a thread that is abandoned at the time limit.

use std::{
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use super::error::{LibvirtError, LibvirtErrorKind, kind_of};

/// Host and time limit of a call.
#[derive(Debug, Clone)]
pub(super) struct CallLimit {
    /// Name of the host, for messages.
    pub(super) host: String,
    /// Longest wait for one answer.
    pub(super) timeout: Duration,
}

impl CallLimit {
    /// An error of this host.
    pub(super) fn error(&self, action: &str, kind: LibvirtErrorKind) -> LibvirtError {
        LibvirtError { host: self.host.clone(), action: action.to_owned(), kind }
    }

    /// Adds host and action to an error of the `virt` crate.
    pub(super) fn explain(&self, action: &str, error: &virt::error::Error) -> LibvirtError {
        self.error(action, kind_of(error.code().to_raw(), error.message()))
    }

    /// Runs `work` and waits for it no longer than the limit. Afterwards the thread is abandoned: it holds only
    /// what it owns, and does not keep the process from ending.
    pub(super) fn call<T: Send + 'static>(
        &self,
        action: &str,
        work: impl FnOnce() -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        self.run(action, work)?.map_err(|error| self.explain(action, &error))
    }

    /// As [`CallLimit::call`], for work that has its own kind of result.
    pub(super) fn run<T: Send + 'static>(
        &self,
        action: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LibvirtError> {
        let began = Instant::now();
        let (sender, receiver) = sync_channel(1);
        let worker = thread::Builder::new().name("libvirt call".into()).spawn(move || {
            // After the limit the receiver is gone: the answer is then dropped here.
            let _ = sender.send(work());
        });
        if let Err(error) = worker {
            return Err(self.error(
                action,
                LibvirtErrorKind::Other(format!("vmgate could not start a thread for the call: {error}")),
            ));
        }
        let answer = receiver.recv_timeout(self.timeout);
        tracing::debug!("{}: {action}: {:.3} s", self.host, began.elapsed().as_secs_f64());
        answer.map_err(|why| {
            let kind = match why {
                RecvTimeoutError::Timeout => LibvirtErrorKind::TimedOut(self.timeout),
                RecvTimeoutError::Disconnected => {
                    LibvirtErrorKind::Other("the call ended without an answer".into())
                }
            };
            self.error(action, kind)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_call_that_hangs_is_left_behind() {
        let limit = CallLimit { host: "hv1".into(), timeout: Duration::from_millis(30) };
        let start = Instant::now();
        let error = limit.run("sleep", || thread::sleep(Duration::from_mins(10))).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(error.kind, LibvirtErrorKind::TimedOut(limit.timeout));
        assert_eq!(
            error.to_string(),
            "hv1: cannot sleep: no answer within 0.03 s. Check the load of the host, or raise --timeout"
        );
    }

    #[test]
    fn a_call_that_panics_is_an_error_not_a_crash() {
        let limit = CallLimit { host: "hv1".into(), timeout: Duration::from_secs(5) };
        let error = limit.run("fall", || panic!("on purpose")).unwrap_err();
        assert!(matches!(error.kind, LibvirtErrorKind::Other(_)));
    }
}
