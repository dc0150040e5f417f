//! Errors of libvirt, with the host, the attempted action and the way out.

use std::{fmt, time::Duration};

use vmgate_facts::{Cause, Unknown};

/// Error of a call to libvirt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct LibvirtError {
    /// Name of the host, for messages.
    pub host: String,
    /// Attempted action, a verb phrase that continues "cannot …".
    pub action: String,
    /// Kind of the error.
    pub kind: LibvirtErrorKind,
}

/// Kinds of libvirt errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibvirtErrorKind {
    /// No answer within the time limit; the call was abandoned.
    TimedOut(Duration),
    /// The URI names a login at the host, and no libvirt there.
    NoLibvirt,
    /// No connection could be made.
    Unreachable(String),
    /// An established connection was lost.
    ConnectionLost(String),
    /// The host's ssh key is not the one that is known, or none is known.
    HostKey(String),
    /// Permission was refused.
    PermissionDenied(String),
    /// The host has no such VM; similar names of VMs that exist.
    NoSuchVm(Vec<String>),
    /// This libvirt, driver or hypervisor does not support the action.
    NotSupported(String),
    /// The action is not possible in the VM's present state.
    WrongState(String),
    /// Another job holds the VM.
    Busy(String),
    /// The guest agent does not answer, or the VM has no channel to it.
    AgentSilent(String),
    /// The guest agent answered with an error.
    AgentRefused(String),
    /// Anything else, in libvirt's words.
    Other(String),
}

impl LibvirtError {
    /// Cause of the facts that are unknown after this error.
    pub fn cause(&self) -> Cause {
        match self.kind {
            LibvirtErrorKind::TimedOut(_) => Cause::TimedOut,
            LibvirtErrorKind::NoLibvirt => Cause::NoLibvirt,
            LibvirtErrorKind::Unreachable(_)
            | LibvirtErrorKind::ConnectionLost(_)
            | LibvirtErrorKind::HostKey(_) => Cause::HostUnreachable,
            LibvirtErrorKind::PermissionDenied(_) => Cause::PermissionDenied,
            LibvirtErrorKind::NotSupported(_) => Cause::NotSupported,
            LibvirtErrorKind::WrongState(_) => Cause::GuestNotRunning,
            LibvirtErrorKind::AgentSilent(_) => Cause::NoGuestAgent,
            LibvirtErrorKind::AgentRefused(_) => Cause::AgentForbids,
            LibvirtErrorKind::NoSuchVm(_) | LibvirtErrorKind::Busy(_) | LibvirtErrorKind::Other(_) => {
                Cause::NotCollected
            }
        }
    }

    /// Advice to the operator; none where vmgate knows no more than libvirt's own words.
    fn way_out(&self) -> Option<String> {
        let words = match &self.kind {
            LibvirtErrorKind::TimedOut(_) => "Check the load of the host, or raise --timeout",
            LibvirtErrorKind::NoLibvirt => {
                "If the host has libvirt, give its URI (qemu+ssh://root@HOST/system); without it `vmgate check` judges its VMs, and \
                 their manager moves them (docs/managers.md)"
            }
            LibvirtErrorKind::Unreachable(_) => {
                "Check the host's name, the network, and that libvirtd (or virtqemud) runs on the host: `vmgate doctor HOST` \
                 tries each access"
            }
            LibvirtErrorKind::ConnectionLost(_) => {
                "Check that the host is up and that libvirtd (or virtqemud) runs on it"
            }
            LibvirtErrorKind::HostKey(_) => {
                "Compare the host's key with the one that `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows on \
                 its console. If they are the same, log in once by hand with ssh to accept it"
            }
            LibvirtErrorKind::PermissionDenied(_) => {
                "Log in as root or as a member of the group libvirt. Over ssh, use a key that needs no password"
            }
            LibvirtErrorKind::NoSuchVm(near) if near.is_empty() => {
                "List the VMs of the host with `virsh list --all`"
            }
            LibvirtErrorKind::NoSuchVm(near) => return Some(format!("Did you mean {}?", near.join(" or "))),
            LibvirtErrorKind::Busy(_) => {
                "Wait until that job has ended, or abort it with `virsh domjobabort VM`"
            }
            LibvirtErrorKind::AgentSilent(_) => {
                "Install and start qemu-guest-agent in the guest and give the VM its org.qemu.guest_agent.0 channel"
            }
            LibvirtErrorKind::NotSupported(_)
            | LibvirtErrorKind::WrongState(_)
            | LibvirtErrorKind::AgentRefused(_)
            | LibvirtErrorKind::Other(_) => return None,
        };
        Some(words.to_owned())
    }

    /// The error without the advice.
    fn reason(&self) -> String {
        let Self { host, action, kind } = self;
        let why = match kind {
            LibvirtErrorKind::TimedOut(limit) => format!("no answer within {} s", limit.as_secs_f64()),
            LibvirtErrorKind::NoLibvirt => "this address names a login, and no libvirt".to_owned(),
            LibvirtErrorKind::ConnectionLost(why) => format!("the connection broke: {why}"),
            LibvirtErrorKind::NoSuchVm(_) => "the host has no such VM".to_owned(),
            LibvirtErrorKind::NotSupported(why) => format!("not supported by this host: {why}"),
            LibvirtErrorKind::Busy(why) => format!("another job holds the VM: {why}"),
            LibvirtErrorKind::Unreachable(why)
            | LibvirtErrorKind::HostKey(why)
            | LibvirtErrorKind::PermissionDenied(why)
            | LibvirtErrorKind::WrongState(why)
            | LibvirtErrorKind::AgentSilent(why)
            | LibvirtErrorKind::AgentRefused(why)
            | LibvirtErrorKind::Other(why) => why.clone(),
        };
        format!("{host}: cannot {action}: {why}")
    }
}

impl From<LibvirtError> for Unknown {
    /// Takes the reason alone: the cause has the advice, which is printed once for all facts that share the cause.
    fn from(error: LibvirtError) -> Self {
        Self::new(error.cause(), error.reason())
    }
}

impl fmt::Display for LibvirtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason())?;
        match self.way_out() {
            Some(way_out) => write!(f, ". {way_out}"),
            None => Ok(()),
        }
    }
}

/// libvirt's error numbers that vmgate distinguishes (virErrorNumber).
pub(super) mod number {
    pub(crate) const NO_SUPPORT: u32 = 3;
    pub(crate) const OPERATION_DENIED: u32 = 29;
    pub(crate) const SYSTEM_ERROR: u32 = 38;
    pub(crate) const RPC: u32 = 39;
    pub(crate) const NO_DOMAIN: u32 = 42;
    pub(crate) const AUTH_FAILED: u32 = 45;
    pub(crate) const OPERATION_INVALID: u32 = 55;
    pub(crate) const CONFIG_UNSUPPORTED: u32 = 67;
    pub(crate) const OPERATION_TIMEOUT: u32 = 68;
    pub(crate) const ARGUMENT_UNSUPPORTED: u32 = 74;
    pub(crate) const AUTH_CANCELLED: u32 = 79;
    pub(crate) const OPERATION_UNSUPPORTED: u32 = 84;
    pub(crate) const AGENT_UNRESPONSIVE: u32 = 86;
    pub(crate) const ACCESS_DENIED: u32 = 88;
    pub(crate) const AUTH_UNAVAILABLE: u32 = 94;
    pub(crate) const AGENT_UNSYNCED: u32 = 97;
    pub(crate) const AGENT_COMMAND_TIMEOUT: u32 = 112;
    pub(crate) const AGENT_COMMAND_FAILED: u32 = 113;
}

/// Kind of the error with libvirt's number and message.
pub(super) fn kind_of(number: u32, message: &str) -> LibvirtErrorKind {
    let text = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let says = |needle: &str| text.to_ascii_lowercase().contains(needle);
    match number {
        number::NO_DOMAIN => LibvirtErrorKind::NoSuchVm(Vec::new()),
        number::OPERATION_DENIED
        | number::AUTH_FAILED
        | number::AUTH_CANCELLED
        | number::AUTH_UNAVAILABLE
        | number::ACCESS_DENIED => LibvirtErrorKind::PermissionDenied(text),
        number::AGENT_UNRESPONSIVE | number::AGENT_UNSYNCED | number::AGENT_COMMAND_TIMEOUT => {
            LibvirtErrorKind::AgentSilent(text)
        }
        number::ARGUMENT_UNSUPPORTED if says("guest agent is not configured") => {
            LibvirtErrorKind::AgentSilent(text)
        }
        number::AGENT_COMMAND_FAILED => LibvirtErrorKind::AgentRefused(text),
        _ if says("unable to execute qemu agent command") => LibvirtErrorKind::AgentRefused(text),
        number::NO_SUPPORT
        | number::CONFIG_UNSUPPORTED
        | number::ARGUMENT_UNSUPPORTED
        | number::OPERATION_UNSUPPORTED => LibvirtErrorKind::NotSupported(text),
        number::OPERATION_TIMEOUT => LibvirtErrorKind::Busy(text),
        number::OPERATION_INVALID => LibvirtErrorKind::WrongState(text),
        number::SYSTEM_ERROR | number::RPC if says("permission denied") => {
            LibvirtErrorKind::PermissionDenied(text)
        }
        number::SYSTEM_ERROR | number::RPC
            if ["end of file", "connection reset", "broken pipe", "client socket is closed", "keepalive"]
                .iter()
                .any(|sign| says(sign)) =>
        {
            LibvirtErrorKind::ConnectionLost(text)
        }
        _ if says("connection closed due to keepalive") || says("client socket is closed") => {
            LibvirtErrorKind::ConnectionLost(text)
        }
        _ => LibvirtErrorKind::Other(text),
    }
}

/// Kind of an error while connecting, where nearly every error means that the host cannot be reached.
pub(super) fn kind_of_connect_error(number: u32, message: &str) -> LibvirtErrorKind {
    let host_key = ["host key verification failed", "identification has changed"];
    let denied = ["permission denied", "authentication"];
    // libvirt puts the message of ssh between words about its pipe to ssh.
    let message = message
        .strip_prefix("Cannot recv data: ")
        .and_then(|rest| rest.strip_suffix(": Connection reset by peer"))
        .unwrap_or(message)
        .trim_end_matches('.');
    let lower = message.to_ascii_lowercase();
    if host_key.iter().any(|sign| lower.contains(sign)) {
        return LibvirtErrorKind::HostKey(message.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    match kind_of(number, message) {
        LibvirtErrorKind::Other(text)
        | LibvirtErrorKind::ConnectionLost(text)
        | LibvirtErrorKind::NotSupported(text) => {
            if denied.iter().any(|sign| lower.contains(sign)) {
                LibvirtErrorKind::PermissionDenied(text)
            } else {
                LibvirtErrorKind::Unreachable(text)
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libvirts_words_become_a_cause_with_a_way_out() {
        let cases = [
            (42, "Domain not found: no domain with matching name 'x'", Cause::NotCollected),
            (86, "Guest agent is not responding: QEMU guest agent is not connected", Cause::NoGuestAgent),
            (74, "argument unsupported: QEMU guest agent is not configured", Cause::NoGuestAgent),
            (
                1,
                "internal error: unable to execute QEMU agent command 'guest-exec': The command guest-exec \
                 has been disabled for this instance",
                Cause::AgentForbids,
            ),
            (55, "Requested operation is not valid: domain is not running", Cause::GuestNotRunning),
            (3, "this function is not supported by the connection driver", Cause::NotSupported),
            (68, "Timed out during operation: cannot acquire state change lock", Cause::NotCollected),
            (38, "Cannot recv data: Connection reset by peer", Cause::HostUnreachable),
        ];
        for (number, message, cause) in cases {
            let error =
                LibvirtError { host: "hv1".into(), action: "look".into(), kind: kind_of(number, message) };
            assert_eq!(error.cause(), cause, "{message}");
        }
    }

    #[test]
    fn a_refused_connection_is_told_from_a_refused_user() {
        let refused = "Cannot recv data: ssh: connect to host hv1 port 22: Connection refused: Connection reset by peer";
        assert_eq!(
            kind_of_connect_error(38, refused),
            LibvirtErrorKind::Unreachable("ssh: connect to host hv1 port 22: Connection refused".into())
        );
        let key = "Cannot recv data: Host key verification failed.: Connection reset by peer";
        let kind = kind_of_connect_error(38, key);
        assert_eq!(kind, LibvirtErrorKind::HostKey("Host key verification failed".into()));
        let error = LibvirtError { host: "hv1".into(), action: "connect".into(), kind };
        assert!(
            error.to_string().contains("ssh-keygen -lf") && !error.to_string().contains("root"),
            "{error}"
        );
        let socket = "Failed to connect socket to '/run/libvirt/libvirt-sock': Permission denied";
        assert!(matches!(kind_of_connect_error(38, socket), LibvirtErrorKind::PermissionDenied(_)));
    }
}
