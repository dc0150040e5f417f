//! Entry point of libvirt's hook script: decides on one incoming migration within the time limit.
//!
//! Only `migrate begin` needs a decision; all other operations pass at once, since libvirt kills a VM whose hook fails at
//! `reconnect`. This code never calls libvirt, which waits for the answer and holds the VM's lock. It takes no lock either:
//! any number of migrations are decided at the same time.

use std::{
    io::Read,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use vmgate_facts::{Uuid, text::plain};

use super::{
    DecisionReason, EnforcementMode, HookConfig, JournalEntry, JournalEvent, Layout, OnError,
    claim::Claim,
    config::InvalidHookConfig,
    decision::{self, HookDecision},
    incoming,
    journal::{self, Written},
};

/// Time limit until the configuration is read.
const UNCONFIGURED: Duration = Duration::from_secs(5);
/// Longest wait for the log, and for a decision that was made when the time was over.
const PATIENCE: Duration = Duration::from_secs(1);

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
    let mut call =
        Call { layout, name: plain(name), uuid: None, start: Instant::now(), settings: Settings::unknown() };
    let claim = Claim::default();
    // The configuration is read in the thread too: any file may be on a disk that hangs.
    let (sender, receiver) = mpsc::channel();
    let (mut its_call, its_claim) = (call.clone(), claim.clone());
    let worker = thread::Builder::new().name("hook".into()).spawn(move || {
        let config = HookConfig::load(&its_call.layout);
        its_call.settings = Settings::of(&config);
        let _ = sender.send(WorkerMessage::Configured(its_call.settings));
        let vm = incoming::read(&its_call.name, xml);
        its_call.uuid = vm.as_ref().ok().map(|vm| vm.uuid.clone());
        let _ = sender.send(WorkerMessage::Read(its_call.uuid.clone()));
        let found = vm.map_err(|why| why.to_string()).map(|vm| decision::find(&its_call.layout, vm, &config));
        // Without the claim the time was over, and the other thread has answered.
        if its_claim.take() {
            let decision = decision::take_effect(&its_call.layout, found, its_call.settings.fallback_open);
            let _ = sender.send(WorkerMessage::Answered(its_call.answer(decision)));
        }
    });
    if let Err(error) = worker {
        return call.undecided(&format!("no thread could be started: {error}"));
    }
    let mut limit = call.settings.limit;
    loop {
        match receiver.recv_timeout(limit.saturating_sub(call.start.elapsed())) {
            Ok(WorkerMessage::Configured(settings)) => {
                call.settings = settings;
                limit = settings.limit;
            }
            Ok(WorkerMessage::Read(uuid)) => call.uuid = uuid,
            Ok(WorkerMessage::Answered(answer)) => return answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // The other thread has decided if the claim is gone, and only has to write that down.
                if limit > call.settings.limit || claim.take() {
                    return call
                        .undecided(&format!("no decision within {} s", call.settings.limit.as_secs_f64()));
                }
                limit += 3 * PATIENCE;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return call
                    .undecided("vmgate's hook stopped before the decision; this is a defect of vmgate");
            }
        }
    }
}

enum WorkerMessage {
    Configured(Settings),
    Read(Option<Uuid>),
    Answered(HookAnswer),
}

/// Part of the configuration that every answer needs, even where the file cannot be read.
#[derive(Debug, Clone, Copy)]
struct Settings {
    limit: Duration,
    /// True if a migration is let in when no decision is possible.
    fallback_open: bool,
    mode: Option<EnforcementMode>,
    log_mebibytes: u64,
}

impl Settings {
    fn unknown() -> Self {
        let log_mebibytes = HookConfig::default().log_mebibytes;
        Self { limit: UNCONFIGURED, fallback_open: false, mode: None, log_mebibytes }
    }

    fn of(config: &Result<HookConfig, InvalidHookConfig>) -> Self {
        match config {
            Ok(config) => Self {
                limit: config.time_limit(),
                fallback_open: config.mode == EnforcementMode::AuditOnly || config.on_error == OnError::Open,
                mode: Some(config.mode),
                log_mebibytes: config.log_mebibytes,
            },
            Err(invalid) => Self { fallback_open: invalid.fallback_open, ..Self::unknown() },
        }
    }
}

/// One call of libvirt, as far as it is known.
#[derive(Debug, Clone)]
struct Call {
    layout: Layout,
    name: String,
    uuid: Option<Uuid>,
    start: Instant,
    settings: Settings,
}

impl Call {
    /// The answer where no decision is possible.
    fn undecided(&self, why: &str) -> HookAnswer {
        self.answer(HookDecision::error(self.settings.fallback_open, why.to_owned()))
    }

    /// Writes the decision down before it takes effect, and answers.
    fn answer(&self, decision: HookDecision) -> HookAnswer {
        let audit_only = self.settings.mode == Some(EnforcementMode::AuditOnly);
        let mut let_in = decision.let_in || audit_only;
        let event = JournalEvent::Decision {
            vm: self.name.clone(),
            uuid: self.uuid.clone(),
            let_in,
            because: decision.because,
            reason: decision.reason.clone(),
            verdict: decision.verdict,
            key: decision.key,
            mode: self.settings.mode,
            took_milliseconds: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        let written = journal::write_down(
            &self.layout,
            &JournalEntry::now(event),
            self.settings.log_mebibytes,
            PATIENCE,
        );
        let log = self.layout.journal();
        let (reason, unwritten) = match written {
            Written::Log => (decision.reason, false),
            Written::SystemLog(why) => (
                format!(
                    "{}; {} cannot be written, so this is in the system log: {why}",
                    decision.reason,
                    log.display()
                ),
                true,
            ),
            Written::Nowhere(why) => {
                // An override must not take effect without a line.
                if decision.because == DecisionReason::Override && !audit_only {
                    let_in = false;
                }
                (format!("{}; {} cannot be written: {why}", decision.reason, log.display()), true)
            }
        };
        let message = match (let_in, decision.because) {
            (true, DecisionReason::Error) => {
                Some(message(&self.name, "was let in, although no decision was possible", &reason))
            }
            (true, _) => unwritten.then(|| message(&self.name, "was let in", &reason)),
            (false, DecisionReason::Error) => Some(format!(
                "{}; run `vmgate hook status` for this host; docs/hook.md says what to do in an emergency",
                message(&self.name, "was refused, because no decision was possible", &reason)
            )),
            (false, _) => Some(refusal(&self.name, &reason)),
        };
        HookAnswer { let_in, message }
    }
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
