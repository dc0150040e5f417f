//! What is asked of vmgate on a host: `vmgate hook host` there reads a [`HookRequest`] and prints what [`carry_out`] gives.

use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    JournalEntry, JournalEvent, HookConfig, InstallRequest, Layout, Override, install, journal, keyring, emergency_override, remove, run,
    status, store,
};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookRequest {
    /// Install or update the hook; answers with [`super::InstallReport`].
    Install(InstallRequest),
    /// Remove it; answers with [`super::RemovalReport`].
    Remove {
        /// Whether settings, keys and verdicts go too.
        purge: bool,
        /// Who does so.
        by: String,
    },
    /// Tell what is enforced; answers with [`super::Status`].
    Status {
        /// How many lines of the log are wanted.
        lines: usize,
    },
    /// Take in a signed verdict; answers with [`super::ReceivedVerdict`].
    Receive {
        /// The envelope.
        envelope: String,
        /// Who brings it.
        by: String,
    },
    /// Set the emergency override; answers with [`Override`].
    Override {
        /// For how long.
        minutes: u32,
        /// Why.
        reason: String,
        /// Who answers for it.
        by: String,
        /// Only for this VM, by UUID.
        vm: Option<String>,
    },
    /// Take the override back; answers with whether there was one.
    Withdraw {
        /// Who does so.
        by: String,
    },
}

/// Does it. `program` gives the program to install. The error is for people.
pub fn carry_out(
    layout: &Layout,
    request: HookRequest,
    program: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Result<Value, String> {
    match request {
        HookRequest::Install(wanted) => {
            let program = program().map_err(|error| format!("the program cannot be read: {error}"))?;
            value(install::install(layout, &wanted, &program)?)
        }
        HookRequest::Remove { purge, by } => value(remove::remove(layout, purge, &by)?),
        HookRequest::Status { lines } => value(status::status(layout, lines)),
        HookRequest::Receive { envelope, by } => receive(layout, &envelope, by),
        HookRequest::Override { minutes, reason, by, vm } => {
            let set = Override::starting(Timestamp::now(), minutes, &reason, &by, vm)?;
            let event = JournalEvent::OverrideSet {
                uuid: set.vm.clone(),
                reason: set.reason.clone(),
                by: set.by.clone(),
                until: set.until,
            };
            // Logged first: an override that leaves no trace is none.
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
    let keys = keyring::trusted(layout)?;
    let lock = run::lock(layout).map_err(|error| error.to_string())?;
    let now = Timestamp::now();
    store::tidy(layout, now);
    let received = store::receive(layout, envelope.as_bytes(), &record.host_uuid, &keys, now)?;
    let event = JournalEvent::Received {
        vm: received.vm.clone(),
        verdict: received.verdict.clone(),
        expires_at: received.expires_at,
        by,
    };
    log(layout, event).map_err(|error| format!("{}: {error}", layout.journal().display()))?;
    drop(lock);
    value(received)
}

fn locked<T>(layout: &Layout, work: impl FnOnce() -> io::Result<T>) -> Result<T, String> {
    let done = run::lock(layout).and_then(|lock| work().inspect(|_| drop(lock)));
    done.map_err(|error| format!("{}: {error}; is the hook installed here?", layout.state().display()))
}

fn log(layout: &Layout, event: JournalEvent) -> io::Result<()> {
    let size = HookConfig::load(layout).unwrap_or_default().log_mebibytes;
    journal::append(layout, &JournalEntry::now(event), size)
}

fn value(answer: impl Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}
