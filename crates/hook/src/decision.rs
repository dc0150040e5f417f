//! Decision on one migration: by a verdict, else by an override.
//!
//! [`find`] only reads, so it may take as long as it takes; [`take_effect`] marks the verdict as used.

use jiff::Timestamp;

use super::{
    DecisionReason, HookConfig, Layout,
    config::InvalidHookConfig,
    decide::{self, IncomingMigration, VerdictMismatch},
    emergency_override,
    incoming::IncomingVm,
    install,
    keyring::Keyring,
    store::{self, OnHost, Spent, WaitingFile},
};

/// A decision before the enforcement mode is applied.
pub(super) struct HookDecision {
    pub(super) let_in: bool,
    pub(super) because: DecisionReason,
    pub(super) reason: String,
    /// Digest of the verdict that was used.
    pub(super) verdict: Option<String>,
    /// Id of the key that signed it.
    pub(super) key: Option<String>,
}

impl HookDecision {
    /// The decision where none is possible.
    pub(super) fn error(let_in: bool, reason: String) -> Self {
        Self { let_in, because: DecisionReason::Error, reason, verdict: None, key: None }
    }

    fn refused(reason: String) -> Self {
        Self { because: DecisionReason::NoVerdict, ..Self::error(false, reason) }
    }
}

/// Verdicts that the host has for a VM, and reasons against those that do not let it in.
pub(super) struct FoundForVm {
    vm: IncomingVm,
    /// Verdicts that let the VM in, the earliest end first; or the reason why no decision by verdict is possible.
    matching: Result<Vec<(WaitingFile, OnHost)>, String>,
    /// Reasons why other verdicts do not let it in.
    mismatches: Vec<String>,
}

/// Looks up the verdicts for a VM by its UUID. Changes nothing but what has expired.
pub(super) fn find(
    layout: &Layout,
    vm: IncomingVm,
    config: &Result<HookConfig, InvalidHookConfig>,
) -> FoundForVm {
    let mut found = FoundForVm { vm, matching: Ok(Vec::new()), mismatches: Vec::new() };
    found.matching = match config {
        Ok(config) => matching(layout, &found.vm, config, &mut found.mismatches),
        // An override may still let the VM in.
        Err(invalid) => Err(invalid.to_string()),
    };
    found
}

fn matching(
    layout: &Layout,
    vm: &IncomingVm,
    config: &HookConfig,
    mismatches: &mut Vec<String>,
) -> Result<Vec<(WaitingFile, OnHost)>, String> {
    let record = install::record(layout)?;
    let now = Timestamp::now();
    let keyring = Keyring::load(layout, config, now)?;
    let keys = keyring.public();
    let asked = IncomingMigration { vm: vm.uuid.clone(), destination: record.host_uuid };
    let mut matching = Vec::new();
    for file in store::waiting_for(layout, &vm.uuid).map_err(|why| why.to_string())? {
        let verdict = match file.open(&keys) {
            Ok(verdict) => verdict,
            Err(why) => {
                let refused_key = file.bytes().ok().and_then(|envelope| keyring.signed_by_refused(&envelope));
                mismatches.push(refused_key.unwrap_or(why));
                continue;
            }
        };
        let fits = match store::spent(layout, &vm.uuid, &verdict) {
            Some(spent) => Err(format!("the verdict for this VM {}", spent.words())),
            None => match decide::fits(&verdict.verdict, &asked, config.time_limits(), now) {
                // Somebody put it into the wrong folder.
                Err(VerdictMismatch::OtherVm) => continue,
                Err(why) => Err(why.to_string()),
                Ok(()) => allowed(config, &keyring, &verdict, &vm.name),
            },
        };
        if file.until().is_some_and(|until| until <= now) {
            file.remove();
        }
        match fits {
            Ok(()) => matching.push((file, verdict)),
            Err(why) => mismatches.push(why),
        }
    }
    matching.sort_by_key(|(_, verdict)| verdict.verdict.expires_at);
    Ok(matching)
}

/// Checks what hook.yaml demands of a verdict that is otherwise fit.
fn allowed(config: &HookConfig, keyring: &Keyring, verdict: &OnHost, incoming: &str) -> Result<(), String> {
    if let Some(why) = keyring.forbids(&verdict.key_id, &verdict.verdict, Some(incoming)) {
        return Err(why);
    }
    config.demanded(verdict).map_err(|why| why.to_string())
}

/// Marks the verdict that lets the VM in as used, or asks the override, which applies even when no other decision is
/// possible.
pub(super) fn take_effect(
    layout: &Layout,
    found: Result<FoundForVm, String>,
    fallback_open: bool,
) -> HookDecision {
    let found = match found {
        Ok(found) => found,
        Err(why) => return HookDecision::error(fallback_open, why),
    };
    let vm = found.vm.clone();
    let by_verdict = by_verdict(layout, found);
    if let Ok(HookDecision { let_in: true, .. }) = by_verdict {
        return by_verdict.unwrap_or_else(|why| HookDecision::error(fallback_open, why));
    }
    let by_verdict = match emergency_override::load(layout) {
        Ok(Some(set)) if set.covers(&vm.uuid, Timestamp::now()) => {
            let reason = format!("the override by {} is active until {}: {}", set.by, set.until, set.reason);
            return HookDecision { because: DecisionReason::Override, ..HookDecision::error(true, reason) };
        }
        Ok(_) => by_verdict,
        Err(distrust) => by_verdict.map(|refused| HookDecision {
            reason: format!("{}; the override is ignored: {distrust}", refused.reason),
            ..refused
        }),
    };
    by_verdict.unwrap_or_else(|why| HookDecision::error(fallback_open, why))
}

fn by_verdict(layout: &Layout, found: FoundForVm) -> Result<HookDecision, String> {
    let FoundForVm { vm, matching, mut mismatches } = found;
    for (file, verdict) in matching? {
        let first = store::mark(layout, &vm.uuid, &verdict, Spent::Used).map_err(|why| {
            format!("{}: the verdict cannot be marked as used: {why}", layout.spent().display())
        })?;
        if first {
            file.remove();
            return Ok(HookDecision {
                let_in: true,
                because: DecisionReason::Verdict,
                reason: "let in by a signed GO, which is now used up".to_owned(),
                verdict: Some(verdict.statement.to_string()),
                key: Some(verdict.key_id),
            });
        }
        mismatches.push(format!("the verdict for this VM {}", Spent::Used.words()));
    }
    if store::used_before(layout, &vm.uuid) {
        mismatches.push("an earlier verdict for this VM was already used".to_owned());
    }
    Ok(HookDecision::refused(match mismatches.as_slice() {
        [] => "this host has no signed verdict for this VM".to_owned(),
        reasons => reasons.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("; "),
    }))
}
