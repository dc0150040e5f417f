//! Socket options of another process, read by system calls.
//!
//! Options cost three system calls per socket and need root (pidfd_getfd(2): PTRACE_MODE_ATTACH). For that moment the
//! probe holds the socket too: if the process closes it meanwhile, the connection ends a few microseconds late.

use std::{
    io::{Error, ErrorKind},
    os::fd::{AsFd, RawFd},
};

use rustix::{
    net::sockopt,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
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
    let pid = Pid::from_raw(pid).ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    options_of(&pidfd_getfd(&process, fd, PidfdGetfdFlags::empty())?)
}

pub(super) fn options_of(socket: &impl AsFd) -> Result<SocketOptions, Error> {
    let user_timeout = sockopt::tcp_user_timeout(socket)?;
    let keepalive = if sockopt::socket_keepalive(socket)? {
        Some(KeepAlive {
            idle_seconds: sockopt::tcp_keepidle(socket)?.as_secs_f64(),
            interval_seconds: sockopt::tcp_keepintvl(socket)?.as_secs_f64(),
            probes: i64::from(sockopt::tcp_keepcnt(socket)?),
        })
    } else {
        None
    };
    let user_timeout_seconds = (user_timeout > 0).then(|| f64::from(user_timeout) / 1e3);
    Ok(SocketOptions { user_timeout_seconds, keepalive })
}
