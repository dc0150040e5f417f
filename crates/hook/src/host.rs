//! What is asked of vmgate on a host: `vmgate hook host` there reads a [`Request`] and prints what [`carry_out`] gives.

use std::{
    fs,
    io::{self, Read, Write},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Entry, Event, HookConfig, Install, Layout, Override, install, journal, keyring, overriding, remove, run,
    status, store,
};

/// Largest request, in bytes: a signed verdict, and the JSON around it.
const REQUEST_LIMIT: u64 = 64 << 20;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Install or update the hook; answers with [`super::Installed`].
    Install(Install),
    /// Remove it; answers with [`super::Removed`].
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
    /// Take in a signed verdict; answers with [`super::Received`].
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

/// Reads a [`Request`] in JSON, carries it out on this host, and writes the answer. The error is for people.
pub fn serve(question: impl Read, mut answer: impl Write) -> Result<(), String> {
    let mut text = String::new();
    question.take(REQUEST_LIMIT).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let request = serde_json::from_str(&text).map_err(|error| {
        format!(
            "this is another version of vmgate ({}), which does not know what is asked for: {error}; install it again \
             with: vmgate hook install",
            super::VERSION
        )
    })?;
    let document = carry_out(&Layout::default(), request, || fs::read("/proc/self/exe"))?;
    writeln!(answer, "{document}").map_err(|error| error.to_string())
}

/// Does it. `program` gives the program to install. The error is for people.
pub fn carry_out(
    layout: &Layout,
    request: Request,
    program: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Result<Value, String> {
    match request {
        Request::Install(wanted) => {
            let program = program().map_err(|error| format!("the program cannot be read: {error}"))?;
            value(install::install(layout, &wanted, &program)?)
        }
        Request::Remove { purge, by } => value(remove::remove(layout, purge, &by)?),
        Request::Status { lines } => value(status::status(layout, lines)),
        Request::Receive { envelope, by } => receive(layout, &envelope, by),
        Request::Override { minutes, reason, by, vm } => {
            let set = Override::starting(Timestamp::now(), minutes, &reason, &by, vm)?;
            let event = Event::OverrideSet {
                uuid: set.vm.clone(),
                reason: set.reason.clone(),
                by: set.by.clone(),
                until: set.until,
            };
            // Logged first: an override that leaves no trace is none.
            locked(layout, || {
                log(layout, event)?;
                overriding::save(layout, &set)
            })?;
            value(set)
        }
        Request::Withdraw { by } => value(locked(layout, || {
            let withdrawn = overriding::withdraw(layout)?;
            if withdrawn {
                log(layout, Event::OverrideWithdrawn { by })?;
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
    let event = Event::Received {
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

fn log(layout: &Layout, event: Event) -> io::Result<()> {
    let size = HookConfig::load(layout).unwrap_or_default().log_mebibytes;
    journal::append(layout, &Entry::now(event), size)
}

fn value(answer: impl Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}
