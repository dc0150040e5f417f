//! Permits at a destination with vmgate's hook: sent, and withdrawn.

#[cfg(feature = "libvirt")]
use jiff::Timestamp;
use vmgate_attest::PrivateKey;
#[cfg(feature = "libvirt")]
use vmgate_execute::PermitDesk;
use vmgate_facts::text::with_causes;
#[cfg(feature = "libvirt")]
use vmgate_facts::{Uri, text::ShownCommand};
use vmgate_hook::{PROGRAM, ReceivedVerdict, requests::HookRequest};
use vmgate_reach::{HostShell, Program};
use vmgate_verdict::Verdict;

use super::{
    hook_host::{self, HookHostError},
    operator,
};
#[cfg(feature = "libvirt")]
use crate::cli::session::KEY_VARIABLE;
use crate::cli::{Failure, session::Session};

/// Permits to withdraw at a host.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) enum WithdrawnPermits<'a> {
    /// The one with this digest.
    One(&'a str),
    /// All of the VM with this UUID or name.
    OfVm(&'a str),
}

/// Sends a signed verdict to a host that requires one.
pub(in crate::cli) fn push(
    shell: &HostShell,
    host: &str,
    envelope: String,
    session: &Session,
) -> Result<ReceivedVerdict, HookHostError> {
    let request = HookRequest::Receive { envelope, by: operator() };
    hook_host::ask(shell, host, Program::Installed(PROGRAM), &request, session.timeout())
}

/// Withdraws permits that wait at a host. Returns their digests.
pub(in crate::cli) fn withdraw(
    shell: &HostShell,
    host: &str,
    which: WithdrawnPermits,
    session: &Session,
) -> Result<Vec<String>, HookHostError> {
    let (verdict, vm) = match which {
        WithdrawnPermits::One(digest) => (Some(digest.to_owned()), None),
        WithdrawnPermits::OfVm(uuid) => (None, Some(uuid.to_owned())),
    };
    let request = HookRequest::WithdrawVerdicts { verdict, vm, by: operator() };
    hook_host::ask(shell, host, Program::Installed(PROGRAM), &request, session.timeout())
}

/// The verdict in an envelope, signed.
pub(in crate::cli) fn signed(verdict: &Verdict, key: &PrivateKey) -> Result<String, Failure> {
    let envelope = vmgate_attest::sign(verdict, key).map_err(|error| Failure::failed(with_causes(&error)))?;
    serde_json::to_string(&envelope).map_err(Failure::failed)
}

/// The hook of the destination of a move, reached over its shell.
#[cfg(feature = "libvirt")]
pub(in crate::cli) struct DestinationPermits<'a> {
    shell: HostShell,
    host: String,
    session: &'a Session<'a>,
}

#[cfg(feature = "libvirt")]
impl<'a> DestinationPermits<'a> {
    pub(in crate::cli) fn of(destination: &Uri, session: &'a Session<'a>) -> Result<Self, Failure> {
        let host = destination.host_for_people().to_owned();
        Ok(Self { shell: session.shell(destination)?, host, session })
    }

    /// True if the host has the hook.
    fn has_hook(&self) -> bool {
        let host = &self.host;
        match self.shell.read(&format!("[ -x {PROGRAM} ] && echo hook || echo none"), self.session.timeout())
        {
            Ok(answer) => answer.starts_with(b"hook"),
            Err(why) => {
                tracing::warn!(
                    "{host}: vmgate could not find out if this host requires a signed verdict: {why}"
                );
                false
            }
        }
    }

    fn sent(&self, verdict: &Verdict) -> Result<Option<String>, Failure> {
        let host = &self.host;
        let Some(key) = self.session.signing_key()? else {
            tracing::warn!(
                "{host} has vmgate's hook, but no key to sign the verdict is known: set signing_key in vmgate.yaml or \
                 {KEY_VARIABLE}; without one the hook lets the VM in only if its verdict was pushed before"
            );
            return Ok(None);
        };
        verdict.check_authority(Timestamp::now()).map_err(Failure::usage)?;
        let received = push(&self.shell, host, signed(verdict, &key)?, self.session);
        let received = received.map_err(|why| why.into_failure(host))?;
        tracing::info!("{host} has received the signed verdict {}", received.verdict);
        Ok(Some(received.verdict))
    }

    fn withdrawn(&self, which: WithdrawnPermits) {
        let host = &self.host;
        match withdraw(&self.shell, host, which, self.session) {
            Ok(digests) => digests.iter().for_each(|digest| {
                tracing::info!("{host}: the verdict {digest} is withdrawn and lets nobody in");
            }),
            Err(HookHostError::NoHook) => {}
            Err(why) => tracing::warn!(
                "{}; a signed verdict that waits there stays valid until it expires: `{}` shows how many wait",
                why.into_failure(host).text,
                ShownCommand::new("vmgate hook status").operand(host)
            ),
        }
    }
}

#[cfg(feature = "libvirt")]
impl PermitDesk for DestinationPermits<'_> {
    fn grant(&self, verdict: &Verdict) -> Option<String> {
        if !self.has_hook() {
            return None;
        }
        self.sent(verdict).unwrap_or_else(|failure| {
            tracing::warn!("{}; the hook there decides without this verdict", failure.text);
            None
        })
    }

    fn withdraw(&self, permit: &str) {
        self.withdrawn(WithdrawnPermits::One(permit));
    }

    fn withdraw_all(&self, vm: &str) {
        self.withdrawn(WithdrawnPermits::OfVm(vm));
    }
}
