//! Socket options of another process, read by system calls.
//!
//! Options cost three system calls per socket and need root (pidfd_getfd(2): PTRACE_MODE_ATTACH). For that moment the
//! probe holds the socket too: if the process closes it meanwhile, the connection ends a few microseconds late.

use std::{
    io::Error,
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use vmgate_facts::KeepAlive;

/// Socket options from which a connection's budget is derived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SocketOptions {
    pub(super) user_timeout_seconds: Option<f64>,
    pub(super) keepalive: Option<KeepAlive>,
}

/// Reads the options of another process's socket.
pub(super) fn options(pid: i32, fd: RawFd) -> Result<SocketOptions, Error> {
    // SAFETY: no pointers; the results are checked before they are owned.
    let process = owned_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: as above; the process descriptor lives through the call.
    let socket = owned_long(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })?;
    options_of(&socket)
}

pub(super) fn options_of(socket: &impl AsRawFd) -> Result<SocketOptions, Error> {
    let tcp = |name| option(socket, libc::IPPROTO_TCP, name);
    let user_timeout = tcp(libc::TCP_USER_TIMEOUT)?;
    let keepalive = if option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE)? == 0 {
        None
    } else {
        Some(KeepAlive {
            idle_seconds: f64::from(tcp(libc::TCP_KEEPIDLE)?),
            interval_seconds: f64::from(tcp(libc::TCP_KEEPINTVL)?),
            probes: i64::from(tcp(libc::TCP_KEEPCNT)?),
        })
    };
    let user_timeout_seconds = (user_timeout > 0).then(|| f64::from(user_timeout) / 1e3);
    Ok(SocketOptions { user_timeout_seconds, keepalive })
}

fn option(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int) -> Result<libc::c_int, Error> {
    let mut value: libc::c_int = 0;
    let mut length = length_of::<libc::c_int>();
    // SAFETY: the value is written within the length given, and lives through the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    };
    checked(result)?;
    Ok(value)
}

fn owned(fd: RawFd) -> Result<OwnedFd, Error> {
    checked(fd)?;
    // SAFETY: a descriptor that the kernel has just made, and that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn owned_long(fd: libc::c_long) -> Result<OwnedFd, Error> {
    let last = Error::last_os_error();
    owned(RawFd::try_from(fd).unwrap_or(-1)).map_err(|_| last)
}

fn checked(result: libc::c_int) -> Result<(), Error> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

#[allow(clippy::cast_possible_truncation)] // sizes of a few bytes
fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}
