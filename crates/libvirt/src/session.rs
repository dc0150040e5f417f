//! One connection to a libvirt daemon: opened without prompts, closed without hanging.
//!
//! Before libvirt 10.3 (CVE-2024-4418) a client crashes when a keepalive ends a connection on which two calls wait. So a
//! connection either has no keepalive, and may be used from several threads, each call with its time limit; or it has a
//! keepalive, and is used from a single thread.

use std::{
    any::Any,
    cell::Cell,
    marker::PhantomData,
    mem::ManuallyDrop,
    sync::{Arc, OnceLock, mpsc::sync_channel},
    thread,
    time::Duration,
};

use virt::{connect::Connect, sys};

use crate::error::{LibvirtErrorKind, kind_of_connect_error};

/// Seconds between keepalive messages, and how many may stay unanswered before the connection counts as lost.
const KEEPALIVE: (i32, u32) = (3, 3);

/// Longest wait for a daemon to close the connection.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// Whatever must last as long as a connection.
pub(super) type Kept = Arc<dyn Any + Send + Sync>;

/// An open connection, which may be used from several threads at once.
#[derive(Debug)]
pub(super) struct Session {
    connect: ManuallyDrop<Connect>,
    uri: String,
    /// True if the daemon lets this user only read.
    read_only: bool,
    /// Dropped after the connection was closed.
    kept: Option<Kept>,
}

/// A connection with a keepalive, for one long call: a daemon that is silent meanwhile ends it. Neither `Clone` nor `Sync`,
/// so that only one thread uses it.
#[derive(Debug)]
pub(super) struct KeepaliveSession(Session, PhantomData<Cell<()>>);

impl Session {
    /// Opens a connection: to read only, where the daemon refuses more. Blocks for as long as the transport does.
    pub(super) fn open(uri: &str, kept: Option<Kept>) -> Result<Self, virt::error::Error> {
        start_event_loop();
        let (connect, read_only) = match Connect::open(Some(uri)) {
            Ok(connect) => (connect, false),
            Err(refused) if daemon_refused(&refused) => {
                (Connect::open_read_only(Some(uri)).map_err(|_| refused)?, true)
            }
            Err(error) => return Err(error),
        };
        Ok(Self { connect: ManuallyDrop::new(connect), uri: uri.to_owned(), read_only, kept })
    }

    /// True if the daemon lets this user only read.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Opens another connection to the same daemon, with a keepalive. Blocks for as long as the transport does.
    pub(super) fn with_keepalive(&self) -> Result<KeepaliveSession, virt::error::Error> {
        let session = Self::open(&self.uri, self.kept.clone())?;
        session.connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1)?;
        Ok(KeepaliveSession(session, PhantomData))
    }

    /// The connection, for calls.
    pub(super) fn connect(&self) -> &Connect {
        &self.connect
    }

    /// The connection's raw pointer; it is valid for as long as `self` is.
    pub(super) fn as_ptr(&self) -> sys::virConnectPtr {
        // SAFETY: the pointer is only passed to libvirt calls made while `self` is borrowed, and `self` holds the
        // reference that keeps it valid.
        unsafe { self.connect.as_ptr() }
    }
}

impl KeepaliveSession {
    /// The connection.
    pub(super) fn session(&self) -> &Session {
        &self.0
    }
}

/// A reference to a connection on its way to the thread that closes the connection.
struct ClosingConnection(sys::virConnectPtr);

// SAFETY: libvirt's connections are reference-counted with atomics and may be released on any thread.
unsafe impl Send for ClosingConnection {}

impl ClosingConnection {
    fn close(self) {
        // SAFETY: the pointer came from virConnectOpen and its one reference is given up here and only here
        // (`Session` never drops its `Connect`). Failure means that it was not valid, and there is nothing to do.
        unsafe { sys::virConnectClose(self.0) };
    }
}

impl Drop for Session {
    /// Closing is a call to the daemon too, and a hung daemon must not hang vmgate.
    fn drop(&mut self) {
        let closing = ClosingConnection(self.as_ptr());
        let (sender, receiver) = sync_channel(1);
        let worker = thread::Builder::new().name("libvirt close".into()).spawn(move || {
            closing.close();
            let _ = sender.send(());
        });
        // Without a thread the connection is left to the end of the process.
        if worker.is_ok() {
            let _ = receiver.recv_timeout(CLOSE_LIMIT);
        }
    }
}

/// True if libvirt's daemon refused this user, and not ssh.
fn daemon_refused(error: &virt::error::Error) -> bool {
    let kind = kind_of_connect_error(error.code().to_raw(), error.message());
    let by_ssh = error.message().contains("publickey") || error.message().contains("password");
    matches!(kind, LibvirtErrorKind::PermissionDenied(_)) && !by_ssh
}

/// Starts libvirt's event loop once: it is what answers and sends keepalives. Also silences libvirt's own
/// printing to stderr, which is vmgate's to write on.
fn start_event_loop() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        virt::error::clear_error_callback();
        if virt::event::event_register_default_impl().is_err() {
            return;
        }
        let _ = thread::Builder::new()
            .name("libvirt events".into())
            .spawn(|| while virt::event::event_run_default_impl().is_ok() {});
    });
}
