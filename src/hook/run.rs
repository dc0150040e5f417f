//! What libvirt's hook script calls: decides on one incoming migration, in time.
//!
//! Only `migrate begin` is decided on; everything else passes at once, since libvirt kills a VM whose hook fails at
//! `reconnect`. Nothing here asks libvirt, which waits for the answer with the VM's lock held.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    DecisionReason, JournalEntry, JournalEvent, HookConfig, Layout, EnforcementMode, OnError, config::InvalidHookConfig, decide::IncomingMigration,
    install, journal, keyring, emergency_override, store,
};
use crate::collect::text::plain;

/// Most of a domain XML that is read.
const XML_LIMIT: u64 = 16 << 20;
/// Longest time until the configuration says how long it may take.
const UNCONFIGURED: Duration = Duration::from_secs(5);

/// What libvirt is told, and the person behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookAnswer {
    /// Whether the migration goes on.
    pub let_in: bool,
    /// For standard error, which libvirt passes on to whoever started a migration that is refused.
    pub message: Option<String>,
}

impl HookAnswer {
    fn silent() -> Self {
        Self { let_in: true, message: None }
    }
}

/// Decides on what libvirt asks: `NAME OPERATION SUB-OPERATION EXTRA`, with the domain XML on `xml`.
pub fn run(layout: Layout, arguments: &[String], xml: impl Read + Send + 'static) -> HookAnswer {
    let [name, operation, sub_operation, ..] = arguments else { return HookAnswer::silent() };
    if (operation.as_str(), sub_operation.as_str()) != ("migrate", "begin") {
        return HookAnswer::silent();
    }
    let name = plain(name);
    let start = Instant::now();
    // The configuration is a file as well, and any file may be on a disk that hangs.
    let (sender, receiver) = mpsc::channel();
    let asked_name = name.clone();
    let worker = thread::Builder::new().name("hook".into()).spawn(move || {
        let config = HookConfig::load(&layout);
        let _ = sender.send(WorkerMessage::Configured(limit_and_fallback(&config)));
        let _ = sender.send(WorkerMessage::Answered(answer(&layout, &asked_name, config, xml, start)));
    });
    if let Err(error) = worker {
        return undecided(&name, false, &format!("no thread to decide on: {error}"));
    }
    let mut limit = UNCONFIGURED;
    let mut lets_in = false;
    loop {
        match receiver.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(WorkerMessage::Configured((its_limit, its_lets_in))) => (limit, lets_in) = (its_limit, its_lets_in),
            Ok(WorkerMessage::Answered(answer)) => return answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let why = format!("nothing was decided within {} s", limit.as_secs_f64());
                return undecided(&name, lets_in, &why);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return undecided(&name, lets_in, "vmgate's hook stopped half-way, which is a defect");
            }
        }
    }
}

enum WorkerMessage {
    Configured((Duration, bool)),
    Answered(HookAnswer),
}

/// The time limit, and whether a migration comes in where nothing is decided.
fn limit_and_fallback(config: &Result<HookConfig, InvalidHookConfig>) -> (Duration, bool) {
    match config {
        Ok(config) => {
            (config.time_limit(), config.mode == EnforcementMode::AuditOnly || config.on_error == OnError::Open)
        }
        Err(invalid) => (UNCONFIGURED, invalid.lets_in),
    }
}

/// What was decided, before the mode is laid over it.
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

/// Decides, and writes it down before it takes effect.
fn answer(
    layout: &Layout,
    name: &str,
    config: Result<HookConfig, InvalidHookConfig>,
    xml: impl Read,
    start: Instant,
) -> HookAnswer {
    let (_, lets_in) = limit_and_fallback(&config);
    let mut uuid = None;
    let lock = lock(layout);
    let decided = match &lock {
        Err(why) => Err(format!("{}: {why}", layout.lock().display())),
        Ok(_) => vm_uuid(xml).and_then(|vm| {
            uuid = Some(vm.clone());
            decide(layout, &vm, config.as_ref().err())
        }),
    };
    let decision = decided.unwrap_or_else(|why| HookDecision::error(uuid, lets_in, why));
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
        // An override that leaves no trace is none.
        if decision.because == DecisionReason::Override && mode != Some(EnforcementMode::AuditOnly) {
            let_in = false;
        }
    }
    match (let_in, decision.because) {
        (true, _) => HookAnswer { let_in, message: logged.err().map(|_| message(name, "is let in", &reason)) },
        (false, DecisionReason::Error) => undecided(name, false, &reason),
        (false, _) => HookAnswer { let_in, message: Some(refusal(name, &reason)) },
    }
}

/// A verdict lets it in, or else an override, which also stands where nothing else can be decided: that is what it is
/// for. The error says that nothing can be decided.
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
            let reason = format!("the override of {} stands until {}: {}", set.by, set.until, set.reason);
            Ok(HookDecision { because: DecisionReason::Override, ..HookDecision::error(Some(vm.to_owned()), true, reason) })
        }
        Ok(_) => by_verdict,
        Err(distrust) => by_verdict.map(|refused| HookDecision {
            reason: format!("{}; the override does not count: {distrust}", refused.reason),
            ..refused
        }),
    }
}

/// Looks for a verdict that fits, and serves it.
fn by_verdict(layout: &Layout, vm: &str, now: Timestamp) -> Result<HookDecision, String> {
    let record = install::record(layout)?;
    let keys = keyring::trusted(layout)?;
    let asked = IncomingMigration { vm: vm.to_owned(), destination: record.host_uuid };
    let found = store::search(layout, &asked, &keys, now)?;
    for matching in &found.matching {
        let served = store::mark_used(layout, matching)
            .map_err(|why| format!("{}: a verdict cannot be served: {why}", layout.spent().display()))?;
        if served {
            let verdict = matching.attested.statement.to_string();
            return Ok(HookDecision {
                let_in: true,
                because: DecisionReason::Verdict,
                reason: "a signed GO let it in, and has now served".to_owned(),
                verdict: Some(verdict),
                key: Some(matching.attested.key_id.clone()),
                uuid: Some(vm.to_owned()),
            });
        }
    }
    let reason = match found.mismatches.as_slice() {
        [] => "no signed verdict for it is here".to_owned(),
        reasons => reasons.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("; "),
    };
    let refused = HookDecision::error(Some(vm.to_owned()), false, reason);
    Ok(HookDecision { because: DecisionReason::NoVerdict, ..refused })
}

/// The VM's UUID in its XML.
fn vm_uuid(xml: impl Read) -> Result<String, String> {
    let mut text = String::new();
    xml.take(XML_LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| format!("the domain XML from libvirt cannot be read: {error}"))?;
    let document = roxmltree::Document::parse(&text)
        .map_err(|error| format!("the domain XML from libvirt is not well-formed: {error}"))?;
    let uuid = document.root_element().children().find(|node| node.has_tag_name("uuid"));
    uuid.and_then(|node| node.text())
        .map(plain)
        .ok_or_else(|| "the domain XML from libvirt names no UUID".to_owned())
}

/// One decision at a time, and nobody writes to the log or the folders meanwhile. Released when dropped.
pub(super) fn lock(layout: &Layout) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(layout.lock())?;
    file.lock()?;
    Ok(file)
}

fn undecided(name: &str, lets_in: bool, why: &str) -> HookAnswer {
    let way_out =
        "run `vmgate hook status` for this host, and see docs/hook.md for what to do in an emergency";
    let message = if lets_in {
        message(name, "is let in, although nothing could be decided", why)
    } else {
        format!("{}; {way_out}", message(name, "is not let in, because nothing could be decided", why))
    };
    HookAnswer { let_in: lets_in, message: Some(message) }
}

fn refusal(name: &str, reason: &str) -> String {
    format!(
        "{}. It stays where it runs. Check the move with vmgate and bring the signed verdict here (`vmgate migrate` does \
         both; `vmgate verdict push`), or in an emergency: vmgate hook override",
        message(name, "is not let in", reason)
    )
}

fn message(name: &str, what: &str, reason: &str) -> String {
    format!("vmgate: {name} {what}: {reason}")
}
