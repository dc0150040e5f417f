//! `vmgate hook status`: what each host enforces now, one host after the other.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::json;
use vmgate_facts::{
    Uri,
    text::{ShownCommand, plain},
};
use vmgate_hook::{
    DecisionReason, EnforcementMode, HookConfig, HookStatus, JournalEntry, JournalEvent, KeyFileStatus,
    OnError, PROGRAM, WaitingVerdict, policy::WaiversDemand, requests::HookRequest,
};
use vmgate_libvirt::Hypervisor;
use vmgate_reach::Program;
use vmgate_verdict::ExitCode;

use super::{
    super::{Failure, output, session::Session},
    activation_text,
    hook_host::{self, HookHostError},
    overrides,
};
use crate::report;

#[derive(Debug, Args)]
pub(super) struct HookStatusCommand {
    /// Hosts: libvirt URIs, their names under `hosts` in vmgate.yaml, or [USER@]HOST[:PORT] for ssh
    #[arg(value_name = "HOST", required_unless_present = "local")]
    hosts: Vec<String>,
    /// This machine
    #[arg(long)]
    local: bool,
    /// Number of recent decisions to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 5)]
    last: usize,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = StatusFormat::Text)]
    output: StatusFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StatusFormat {
    /// For people
    Text,
    /// One document for all hosts
    Json,
}

/// Hook status of a host.
struct HostStatus {
    host: String,
    status: Result<HookStatus, HookHostError>,
}

impl HookStatusCommand {
    pub(super) fn run(&self, session: &Session) -> Result<ExitCode, Failure> {
        let named = self.hosts.iter().map(String::as_str).chain(self.local.then_some("qemu:///system"));
        let uris = named.map(|host| session.host_named(host)).collect::<Result<Vec<Uri>, _>>()?;
        let seen = uris.iter().map(|uri| look(uri, self.last, session)).collect::<Result<Vec<_>, _>>()?;
        output::to_stdout(|out| match self.output {
            StatusFormat::Text => seen.iter().try_for_each(|seen| print(out, seen)),
            StatusFormat::Json => {
                let hosts: Vec<_> = seen.iter().map(document).collect();
                report::document(&json!({"schema": "vmgate/hook-status/v1", "hosts": hosts}), out)
            }
        })?;
        let enforced =
            |seen: &HostStatus| seen.status.as_ref().is_ok_and(|status| problems(status).is_empty());
        Ok(if seen.iter().all(enforced) { ExitCode::Go } else { ExitCode::Internal })
    }
}

fn look(uri: &Uri, last: usize, session: &Session) -> Result<HostStatus, Failure> {
    let host = uri.host_for_people().to_owned();
    let shell = session.shell(uri)?;
    let request = HookRequest::Status { lines: last };
    let mut status: Result<HookStatus, _> =
        hook_host::ask(&shell, &host, Program::Installed(PROGRAM), &request, session.timeout());
    if let Ok(status) = &mut status {
        compare_uuid(uri, status, session);
        overrides::write_down(session, &host, status);
    }
    Ok(HostStatus { host, status })
}

/// A verdict names the host by the UUID that libvirt tells, so both must be the same.
fn compare_uuid(uri: &Uri, status: &mut HookStatus, session: &Session) {
    let told = Hypervisor::open(uri, session.timeout()).and_then(|host| host.uuid());
    match (told, &status.host_uuid) {
        (Err(why), _) => status.problems.push(format!("the UUID of the host cannot be compared: {why}")),
        (Ok(told), Some(recorded)) if told != *recorded => status.problems.push(format!(
            "libvirt reports the host UUID {told}, but the hook was installed for {recorded}, so every verdict is refused; \
             install the hook again with: vmgate hook install"
        )),
        _ => {}
    }
}

/// Everything that keeps the host from enforcing what it should.
fn problems(status: &HookStatus) -> Vec<String> {
    let mut all = status.problems.clone();
    if status.vmgate.is_none() && all.is_empty() {
        all.push("vmgate's hook is not installed".to_owned());
    }
    if let Some((false, words)) = status.known.as_ref().map(activation_text) {
        all.push(words);
    }
    all
}

fn document(seen: &HostStatus) -> serde_json::Value {
    match &seen.status {
        Ok(status) => json!({"host": seen.host, "status": status, "trouble": problems(status)}),
        Err(HookHostError::NoHook) => {
            json!({"host": seen.host, "trouble": ["vmgate's hook is not installed"]})
        }
        Err(HookHostError::Unreachable(why) | HookHostError::Refused(why)) => {
            json!({"host": seen.host, "trouble": [why]})
        }
    }
}

fn print(out: &mut dyn Write, seen: &HostStatus) -> io::Result<()> {
    let host = &seen.host;
    let status = match &seen.status {
        Ok(status) => status,
        Err(HookHostError::NoHook) => {
            let install = ShownCommand::new("vmgate hook install").operand(host);
            let nothing = format!("{host}: enforces nothing: vmgate's hook is not installed (`{install}`)");
            return writeln!(out, "{}", output::in_columns("", &nothing));
        }
        Err(HookHostError::Unreachable(why) | HookHostError::Refused(why)) => {
            return writeln!(out, "{}", output::in_columns("", &format!("{host}: not known: {why}")));
        }
    };
    let trouble = problems(status);
    let mark = if trouble.is_empty() { "" } else { ", with problems" };
    writeln!(out, "{host}: {}{mark}", in_words(status))?;
    if let (Some(version), Some(at)) = (&status.vmgate, status.installed_at) {
        writeln!(out, "  vmgate {version}, installed {at}")?;
    }
    if let Some(uuid) = &status.host_uuid {
        writeln!(out, "  host UUID {uuid}")?;
    }
    for key in &status.keys {
        writeln!(out, "  {}", key_line(key))?;
    }
    if let Some(config) = &status.config {
        demand_lines(config).iter().try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    writeln!(out, "  {} signed verdicts not used yet", status.waiting)?;
    for waiting in &status.verdicts {
        writeln!(out, "    {}", waiting_line(waiting))?;
    }
    if let Some(set) = &status.overridden {
        let whom = set.vm.as_ref().map_or_else(|| "every VM".to_owned(), ToString::to_string);
        let (by, reason) = (plain(&set.by), plain(&set.reason));
        writeln!(out, "  OVERRIDE until {}: {whom} is let in; set by {by}: {reason}", set.until)?;
    }
    for other in &status.others {
        writeln!(out, "  another hook: {}", plain(other))?;
    }
    for trouble in &trouble {
        writeln!(out, "  problem: {}", plain(trouble))?;
    }
    status.recent.iter().try_for_each(|entry| writeln!(out, "  {}", line(entry)))
}

/// A key with its limits, or the reason why it signs nothing.
fn key_line(key: &KeyFileStatus) -> String {
    let (file, id) = (plain(&key.file), key.id.as_deref().unwrap_or("(cannot be read)"));
    if key.refused.is_some() || key.id.is_none() {
        return format!("key {file}: {id}: signs nothing");
    }
    let limits = &key.limits;
    let days = [("from", limits.not_before), ("until", limits.not_after)];
    let days = days.into_iter().filter_map(|(word, day)| day.map(|day| format!("{word} {day}")));
    let scopes = [("for", &limits.vms), ("from the hosts", &limits.sources)];
    let scopes = scopes
        .into_iter()
        .filter(|(_, of)| !of.is_empty())
        .map(|(word, of)| format!("{word} {}", of.join(", ")));
    let all: Vec<String> = days.chain(scopes).collect();
    let limits = if all.is_empty() { String::new() } else { format!(", {}", plain(&all.join(", "))) };
    format!("key {file}: {id}{limits}")
}

/// Limits and demands on verdicts, and what is revoked.
fn demand_lines(config: &HookConfig) -> Vec<String> {
    let mut lines = vec![format!(
        "verdicts live for at most {} min, and may be evaluated at most {} s later than now",
        config.max_lifetime_minutes, config.max_clock_skew_seconds
    )];
    let mut list = |what: &str, words: Vec<String>| {
        if !words.is_empty() {
            lines.push(format!("{what}: {}", words.join(", ")));
        }
    };
    let demand = &config.demand;
    list("demands rules", demand.rules.iter().map(ToString::to_string).collect());
    list("demands facts", demand.facts.iter().map(ToString::to_string).collect());
    if demand.waivers == WaiversDemand::Refused {
        list("waivers", vec!["refused".to_owned()]);
    }
    list("revoked keys", config.revoked.keys.iter().map(ToString::to_string).collect());
    list("revoked verdicts", config.revoked.verdicts.iter().map(ToString::to_string).collect());
    lines
}

fn waiting_line(waiting: &WaitingVerdict) -> String {
    let address =
        waiting.migrate_address.as_deref().map_or_else(String::new, |address| format!(" by {address}"));
    let (vm, source) = (waiting.vm.label(), waiting.source.label());
    plain(&format!("{vm} from {source}{address} until {}: {}", waiting.expires_at, waiting.verdict))
}

fn in_words(status: &HookStatus) -> String {
    let now: Timestamp = status.clock;
    let Some(config) = &status.config else {
        return format!("its settings are not known (its clock: {now})");
    };
    match (config.mode, config.on_error) {
        (EnforcementMode::AuditOnly, _) => {
            "lets every migration in and writes down which had no verdict (audit-only)".to_owned()
        }
        (EnforcementMode::Enforce, OnError::Closed) => {
            "lets migrations in only with a signed verdict; refuses where nothing can be decided".to_owned()
        }
        (EnforcementMode::Enforce, OnError::Open) => {
            "lets migrations in only with a signed verdict; lets in where nothing can be decided".to_owned()
        }
    }
}

fn line(entry: &JournalEntry) -> String {
    let what = match &entry.event {
        JournalEvent::Decision { vm, let_in, because, reason, .. } => {
            let done = if *let_in { "let in" } else { "refused" };
            let because = match because {
                DecisionReason::Verdict => "by its verdict",
                DecisionReason::NoVerdict => "without a verdict",
                DecisionReason::Override => "by the override",
                DecisionReason::Error => "undecided",
            };
            format!("{vm} {done} {because}: {reason}")
        }
        JournalEvent::Received { vm, expires_at, by, cancelled, .. } => match cancelled.len() {
            0 => format!("verdict for {vm} until {expires_at}, from {by}"),
            number => format!("NO-GO for {vm} from {by}; it cancelled {number} waiting verdicts"),
        },
        JournalEvent::VerdictsWithdrawn { verdicts, by } => {
            format!("withdrawn by {by}: {}", verdicts.join(", "))
        }
        JournalEvent::OverrideSet { reason, by, until, .. } => {
            format!("override until {until} by {by}: {reason}")
        }
        JournalEvent::OverrideWithdrawn { by } => format!("override withdrawn by {by}"),
        JournalEvent::Installed { changed, by } => format!("installed by {by}: {}", changed.join(", ")),
        JournalEvent::Removed { by } => format!("removed by {by}"),
        JournalEvent::Other => "an event that only a newer version of vmgate knows".to_owned(),
    };
    format!("{} {}", entry.at, plain(&what))
}
