//! Requests to vmgate on a host: `vmgate hook host` there reads a [`HookRequest`] and prints the result of [`carry_out`].

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vmgate_attest::Digest;
use vmgate_facts::{
    Uuid,
    text::{plain, with_causes},
};

use super::{
    HookConfig, InstallRequest, JournalEntry, JournalEvent, Layout, Override, decide, emergency_override,
    install, journal,
    keyring::Keyring,
    remove, status,
    store::{self, OnHost},
    tidy,
};

/// Largest request, in bytes: a signed verdict, and the JSON around it.
const REQUEST_LIMIT: u64 = 64 << 20;

/// Request to the hook on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookRequest {
    /// Install or update the hook; the answer is [`super::InstallReport`].
    Install(InstallRequest),
    /// Remove the hook; the answer is [`super::RemovalReport`].
    Remove {
        /// True to remove settings, keys and verdicts too.
        purge: bool,
        /// Operator.
        by: String,
    },
    /// Report the status of enforcement; the answer is [`super::Status`].
    Status {
        /// Number of log lines in the answer.
        lines: usize,
    },
    /// Store a signed GO, or cancel with a signed NO-GO what waits for its VM; the answer is [`super::ReceivedVerdict`].
    Receive {
        /// The DSSE envelope.
        envelope: String,
        /// Operator.
        by: String,
    },
    /// Withdraw waiting verdicts; the answer is the list of digests that were withdrawn, as strings. Unknown to older versions.
    WithdrawVerdicts {
        /// Digest of the only verdict; `None` for all of the VM.
        verdict: Option<String>,
        /// UUID or name of the VM; `None` for the VM of the verdict.
        vm: Option<String>,
        /// Operator.
        by: String,
    },
    /// Set the emergency override; the answer is [`Override`].
    Override {
        /// Duration of the override.
        minutes: u32,
        /// Reason of the override.
        reason: String,
        /// Person responsible for the override.
        by: String,
        /// UUID of the only VM; `None` for all VMs.
        vm: Option<Uuid>,
    },
    /// Withdraw the override; the answer is true if there was one.
    Withdraw {
        /// Operator.
        by: String,
    },
}

/// Answer to a request that this version does not know, as the on-host program's wire has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotSupported {
    /// Version of the program that answers.
    pub program: String,
    /// Reason.
    pub not_supported: String,
}

/// Reads a [`HookRequest`] in JSON, carries it out on this host, and writes the answer; [`NotSupported`] if it is the request
/// of a newer version. The error is for people.
pub fn serve(question: impl Read, mut answer: impl Write) -> Result<(), String> {
    let mut text = String::new();
    question.take(REQUEST_LIMIT).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let asked: Value = serde_json::from_str(&text)
        .map_err(|error| format!("standard input holds no request to the hook in JSON: {error}"))?;
    let document = match serde_json::from_value(asked) {
        Ok(request) => carry_out(&Layout::default(), request, || fs::read("/proc/self/exe"))?,
        Err(error) => value(NotSupported {
            program: super::VERSION.to_owned(),
            not_supported: plain(&error.to_string()),
        })?,
    };
    writeln!(answer, "{document}").map_err(|error| error.to_string())
}

/// Does it. `program` gives the program to install. The error is for people.
pub fn carry_out(
    layout: &Layout,
    request: HookRequest,
    program: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Result<Value, String> {
    match request {
        HookRequest::Install(wanted) => {
            let program = program()
                .map_err(|error| format!("the vmgate-hook program to install cannot be read: {error}"))?;
            value(install::install(layout, &wanted, &program)?)
        }
        HookRequest::Remove { purge, by } => value(remove::remove(layout, purge, &by)?),
        HookRequest::Status { lines } => value(status::status(layout, lines)),
        HookRequest::Receive { envelope, by } => receive(layout, &envelope, by),
        HookRequest::WithdrawVerdicts { verdict, vm, by } => {
            withdraw(layout, verdict.as_deref(), vm.as_deref(), by)
        }
        HookRequest::Override { minutes, reason, by, vm } => {
            let set = Override::starting(Timestamp::now(), minutes, &reason, &by, vm)?;
            let event = JournalEvent::OverrideSet {
                uuid: set.vm.clone(),
                reason: set.reason.clone(),
                by: set.by.clone(),
                until: set.until,
            };
            // Logged first: an override must not take effect without a log entry.
            locked(layout, || {
                log(layout, event)?;
                emergency_override::save(layout, &set)
            })?;
            value(set)
        }
        HookRequest::Withdraw { by } => value(locked(layout, || {
            let withdrawn = emergency_override::withdraw(layout)?;
            if withdrawn {
                log(layout, JournalEvent::OverrideWithdrawn { by })?;
            }
            Ok(withdrawn)
        })?),
    }
}

fn receive(layout: &Layout, envelope: &str, by: String) -> Result<Value, String> {
    let record = install::record(layout)?;
    let config = HookConfig::load(layout).map_err(|why| why.to_string())?;
    let now = Timestamp::now();
    let keyring = Keyring::load(layout, &config, now)?;
    let (keys, envelope) = (keyring.public(), envelope.as_bytes());
    let verdict: OnHost = vmgate_attest::verify(envelope, &keys)
        .map_err(|why| keyring.signed_by_refused(envelope).unwrap_or_else(|| with_causes(&why)))?;
    let permit = &verdict.verdict;
    let vm = permit.moved.vm.uuid.clone().ok_or_else(|| {
        "the verdict has no UUID of the VM, so it cannot be matched with an incoming VM".to_owned()
    })?;
    let limits = config.time_limits();
    let (host, no_go) = (&record.host_uuid, store::is_no_go(&verdict));
    let checked = if no_go {
        decide::cancels(permit, host, limits, now)
    } else {
        decide::destined(permit, host, limits, now)
    };
    checked.map_err(|why| why.to_string())?;
    if let Some(why) = keyring.forbids(&verdict.key_id, permit, None) {
        return Err(why);
    }
    if !no_go {
        config.demanded(&verdict).map_err(|why| why.to_string())?;
    }
    // A NO-GO outlives every GO that was evaluated before it.
    let last_older = permit.evaluated_at.saturating_add(limits.lifetime).unwrap_or(permit.expires_at);
    let until = if no_go { permit.expires_at.max(last_older) } else { permit.expires_at };
    let lock = lock(layout).map_err(|error| error.to_string())?;
    tidy::tidy(layout, now);
    let received = store::receive(layout, &vm, &verdict, envelope, &keys, until)?;
    let event = JournalEvent::Received {
        vm: received.vm.clone(),
        verdict: received.verdict.clone(),
        expires_at: received.expires_at,
        cancelled: received.cancelled.clone(),
        by,
    };
    log(layout, event).map_err(|error| format!("{}: {error}", layout.journal().display()))?;
    drop(lock);
    value(received)
}

fn withdraw(layout: &Layout, verdict: Option<&str>, vm: Option<&str>, by: String) -> Result<Value, String> {
    if verdict.is_none() && vm.is_none() {
        return Err("nothing to withdraw: name a verdict by its digest, or a VM".to_owned());
    }
    let digest = verdict.map(str::parse::<Digest>).transpose().map_err(|why| why.to_string())?;
    let config = HookConfig::load(layout).map_err(|why| why.to_string())?;
    let keys = Keyring::load(layout, &config, Timestamp::now())?.public();
    let lock = lock(layout).map_err(|error| error.to_string())?;
    let withdrawn = store::withdraw(layout, digest, vm, &keys)?;
    if !withdrawn.is_empty() {
        log(layout, JournalEvent::VerdictsWithdrawn { verdicts: withdrawn.clone(), by })
            .map_err(|error| format!("{}: {error}", layout.journal().display()))?;
    }
    drop(lock);
    value(withdrawn)
}

/// Takes the lock: one change of verdicts, override or installation at a time. Released when dropped.
pub(super) fn lock(layout: &Layout) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(layout.lock())?;
    file.lock()?;
    Ok(file)
}

fn locked<T>(layout: &Layout, work: impl FnOnce() -> io::Result<T>) -> Result<T, String> {
    let done = lock(layout).and_then(|lock| work().inspect(|_| drop(lock)));
    done.map_err(|error| format!("{}: {error}; is the hook installed here?", layout.state().display()))
}

fn log(layout: &Layout, event: JournalEvent) -> io::Result<()> {
    let size = HookConfig::load(layout).unwrap_or_default().log_mebibytes;
    journal::append(layout, &JournalEntry::now(event), size)
}

fn value(answer: impl Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(request: &str) -> Result<Value, String> {
        let mut answer = Vec::new();
        serve(request.as_bytes(), &mut answer).map(|()| serde_json::from_slice(&answer).unwrap())
    }

    #[test]
    fn a_request_of_a_newer_version_is_answered_not_supported() {
        for request in [r#"{"rotate-keys": {"by": "ops"}}"#, r#""rotate-keys""#, r#"{"status": {}}"#, "[]"] {
            let answer = answer_to(request).unwrap();
            let answer: NotSupported = serde_json::from_value(answer).unwrap();
            assert_eq!(answer.program, crate::VERSION, "{request}");
        }
        assert!(answer_to("").unwrap_err().contains("no request"));
    }

    #[test]
    fn unknown_fields_of_a_request_are_ignored() {
        let status = answer_to(r#"{"status": {"lines": 0, "colour": "blue"}}"#).unwrap();
        assert!(status.get("clock").is_some(), "{status}");
    }
}
