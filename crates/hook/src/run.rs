//! Entry point of libvirt's hook script: decides on one incoming migration within the time limit.
//!
//! Only `migrate begin` needs a decision; all other operations pass at once, since libvirt kills a VM whose hook fails at
//! `reconnect`. This code never calls libvirt, which waits for the answer and holds the VM's lock.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use vmgate_facts::{text::plain, xml};

use super::{
    DecisionReason, EnforcementMode, HookConfig, JournalEntry, JournalEvent, Layout, OnError,
    config::InvalidHookConfig, decide::IncomingMigration, emergency_override, install, journal, keyring,
    store,
};

/// Largest domain XML that is read, bytes.
const XML_LIMIT: u64 = 16 << 20;
/// Time limit until the configuration is read.
const UNCONFIGURED: Duration = Duration::from_secs(5);

/// Answer to libvirt and to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookAnswer {
    /// True if the migration is let in.
    pub let_in: bool,
    /// Text for standard error. libvirt shows it to the operator of a refused migration.
    pub message: Option<String>,
}

impl HookAnswer {
    fn silent() -> Self {
        Self { let_in: true, message: None }
    }
}

/// Decides on a call of libvirt: `NAME OPERATION SUB-OPERATION EXTRA`, with the domain XML on `xml`.
pub fn run(layout: Layout, arguments: &[String], xml: impl Read + Send + 'static) -> HookAnswer {
    let [name, operation, sub_operation, ..] = arguments else { return HookAnswer::silent() };
    if (operation.as_str(), sub_operation.as_str()) != ("migrate", "begin") {
        return HookAnswer::silent();
    }
    let name = plain(name);
    let start = Instant::now();
    // The configuration is read in the thread too: any file may be on a disk that hangs.
    let (sender, receiver) = mpsc::channel();
    let asked_name = name.clone();
    let worker = thread::Builder::new().name("hook".into()).spawn(move || {
        let config = HookConfig::load(&layout);
        let _ = sender.send(WorkerMessage::Configured(limit_and_fallback(&config)));
        let _ = sender.send(WorkerMessage::Answered(answer(&layout, &asked_name, config, xml, start)));
    });
    if let Err(error) = worker {
        return undecided(&name, false, &format!("no thread could be started: {error}"));
    }
    let mut limit = UNCONFIGURED;
    let mut fallback_open = false;
    loop {
        match receiver.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(WorkerMessage::Configured((its_limit, its_fallback))) => {
                (limit, fallback_open) = (its_limit, its_fallback);
            }
            Ok(WorkerMessage::Answered(answer)) => return answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let why = format!("no decision within {} s", limit.as_secs_f64());
                return undecided(&name, fallback_open, &why);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return undecided(
                    &name,
                    fallback_open,
                    "vmgate's hook stopped before the decision; this is a defect of vmgate",
                );
            }
        }
    }
}

enum WorkerMessage {
    Configured((Duration, bool)),
    Answered(HookAnswer),
}

/// The time limit, and true if a migration is let in when no decision is possible.
fn limit_and_fallback(config: &Result<HookConfig, InvalidHookConfig>) -> (Duration, bool) {
    match config {
        Ok(config) => (
            config.time_limit(),
            config.mode == EnforcementMode::AuditOnly || config.on_error == OnError::Open,
        ),
        Err(invalid) => (UNCONFIGURED, invalid.fallback_open),
    }
}

/// A decision before the enforcement mode is applied.
struct HookDecision {
    let_in: bool,
    because: DecisionReason,
    reason: String,
    verdict: Option<String>,
    key: Option<String>,
    uuid: Option<String>,
}

impl HookDecision {
    fn error(uuid: Option<String>, let_in: bool, reason: String) -> Self {
        Self { let_in, because: DecisionReason::Error, reason, verdict: None, key: None, uuid }
    }
}

/// Decides, and logs the decision before it takes effect.
fn answer(
    layout: &Layout,
    name: &str,
    config: Result<HookConfig, InvalidHookConfig>,
    xml: impl Read,
    start: Instant,
) -> HookAnswer {
    let (_, fallback_open) = limit_and_fallback(&config);
    let mut uuid = None;
    let lock = lock(layout);
    let decided = match &lock {
        Err(why) => Err(format!("{}: {why}", layout.lock().display())),
        Ok(_) => vm_uuid(xml).and_then(|vm| {
            uuid = Some(vm.clone());
            decide(layout, &vm, config.as_ref().err())
        }),
    };
    let decision = decided.unwrap_or_else(|why| HookDecision::error(uuid, fallback_open, why));
    let config = config.ok();
    let mode = config.as_ref().map(|config| config.mode);
    let mut let_in = decision.let_in || mode == Some(EnforcementMode::AuditOnly);
    let event = JournalEvent::Decision {
        vm: name.to_owned(),
        uuid: decision.uuid.clone(),
        let_in,
        because: decision.because,
        reason: decision.reason.clone(),
        verdict: decision.verdict.clone(),
        key: decision.key.clone(),
        mode,
        took_milliseconds: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let size = config.unwrap_or_default().log_mebibytes;
    let logged = journal::append(layout, &JournalEntry::now(event), size);
    let mut reason = decision.reason;
    if let Err(error) = &logged {
        reason = format!("{reason}; {} cannot be written: {error}", layout.journal().display());
        // An override must not take effect without a log entry.
        if decision.because == DecisionReason::Override && mode != Some(EnforcementMode::AuditOnly) {
            let_in = false;
        }
    }
    match (let_in, decision.because) {
        (true, _) => {
            HookAnswer { let_in, message: logged.err().map(|_| message(name, "was let in", &reason)) }
        }
        (false, DecisionReason::Error) => undecided(name, false, &reason),
        (false, _) => HookAnswer { let_in, message: Some(refusal(name, &reason)) },
    }
}

/// Decides by a verdict, else by an override, which applies even when no other decision is possible. An error means that
/// no decision is possible.
fn decide(layout: &Layout, vm: &str, invalid: Option<&InvalidHookConfig>) -> Result<HookDecision, String> {
    let now = Timestamp::now();
    let by_verdict = match invalid {
        Some(invalid) => Err(invalid.to_string()),
        None => by_verdict(layout, vm, now),
    };
    if let Ok(HookDecision { let_in: true, .. }) = by_verdict {
        return by_verdict;
    }
    match emergency_override::load(layout) {
        Ok(Some(set)) if set.covers(vm, now) => {
            let reason = format!("the override by {} is active until {}: {}", set.by, set.until, set.reason);
            Ok(HookDecision {
                because: DecisionReason::Override,
                ..HookDecision::error(Some(vm.to_owned()), true, reason)
            })
        }
        Ok(_) => by_verdict,
        Err(distrust) => by_verdict.map(|refused| HookDecision {
            reason: format!("{}; the override is ignored: {distrust}", refused.reason),
            ..refused
        }),
    }
}

/// Looks for a matching verdict and marks it as used.
fn by_verdict(layout: &Layout, vm: &str, now: Timestamp) -> Result<HookDecision, String> {
    let record = install::record(layout)?;
    let keys = keyring::trusted(layout)?;
    let asked = IncomingMigration { vm: vm.to_owned(), destination: record.host_uuid };
    let found = store::search(layout, &asked, &keys, now)?;
    for matching in &found.matching {
        let served = store::mark_used(layout, matching).map_err(|why| {
            format!("{}: the verdict cannot be marked as used: {why}", layout.spent().display())
        })?;
        if served {
            let verdict = matching.attested.statement.to_string();
            return Ok(HookDecision {
                let_in: true,
                because: DecisionReason::Verdict,
                reason: "let in by a signed GO, which is now used up".to_owned(),
                verdict: Some(verdict),
                key: Some(matching.attested.key_id.clone()),
                uuid: Some(vm.to_owned()),
            });
        }
    }
    let reason = match found.mismatches.as_slice() {
        [] => "this host has no signed verdict for this VM".to_owned(),
        reasons => reasons.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("; "),
    };
    let refused = HookDecision::error(Some(vm.to_owned()), false, reason);
    Ok(HookDecision { because: DecisionReason::NoVerdict, ..refused })
}

/// The VM's UUID in its XML.
pub(super) fn vm_uuid(domain: impl Read) -> Result<String, String> {
    let mut text = String::new();
    domain
        .take(XML_LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| format!("the domain XML from libvirt cannot be read: {error}"))?;
    let document = xml::parse(&text)
        .map_err(|error| format!("the domain XML from libvirt is not well-formed: {error}"))?;
    let uuid = document.root_element().children().find(|node| node.has_tag_name("uuid"));
    uuid.and_then(|node| node.text())
        .map(plain)
        .ok_or_else(|| "the domain XML from libvirt names no UUID".to_owned())
}

/// Takes the lock: one decision at a time, and no other process writes to the log or the folders. Released when dropped.
pub(super) fn lock(layout: &Layout) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(layout.lock())?;
    file.lock()?;
    Ok(file)
}

fn undecided(name: &str, fallback_open: bool, why: &str) -> HookAnswer {
    let way_out = "run `vmgate hook status` for this host; docs/hook.md says what to do in an emergency";
    let message = if fallback_open {
        message(name, "was let in, although no decision was possible", why)
    } else {
        format!("{}; {way_out}", message(name, "was refused, because no decision was possible", why))
    };
    HookAnswer { let_in: fallback_open, message: Some(message) }
}

fn refusal(name: &str, reason: &str) -> String {
    format!(
        "{}. The VM stays on its source. Check the move with vmgate and send the signed verdict to this host (`vmgate migrate` \
         does both; else `vmgate verdict push`), or in an emergency use `vmgate hook override`",
        message(name, "was refused", reason)
    )
}

fn message(name: &str, what: &str, reason: &str) -> String {
    format!("vmgate: {name} {what}: {reason}")
}
