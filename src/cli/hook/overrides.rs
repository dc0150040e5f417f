//! Overrides of a host's hook, copied to the ledger: those set in an emergency, and their uses by incoming VMs.
//!
//! They are first written to the host's own log, since an emergency may have no ledger at hand. Whenever vmgate asks
//! the host afterwards, it adds the overrides that are in that log and not yet in the ledger.

use vmgate_facts::text::plain;
use vmgate_hook::{DecisionReason, HookStatus, JournalEvent};
use vmgate_ledger::{
    Entry, Ledger, LedgerError, Selection,
    entry::{EntryKind, Override},
};
use vmgate_verdict::NameAndUuid;

use crate::cli::{Failure, session::Session};

/// The check that would have refused the VM.
const REFUSED_BY: &str = "the host's hook";

/// Adds to the ledger what it does not have yet. Nothing else depends on it, so that a ledger that fails is only warned of.
pub(super) fn write_down(session: &Session, host: &str, status: &HookStatus) {
    if status.overrides.is_empty() {
        return;
    }
    let Ok(place) = session.ledger_for_moves() else { return };
    let added = session
        .open_ledger(place.clone())
        .and_then(|ledger| add(&ledger, host, status).map_err(Failure::failed));
    if let Err(failure) = added {
        tracing::warn!(
            "the overrides of {host} could not be written to the ledger {place}: {}",
            failure.text
        );
    }
}

fn add(ledger: &Ledger, host: &str, status: &HookStatus) -> Result<(), LedgerError> {
    let wanted = Selection { kinds: vec![EntryKind::Override], ..Selection::default() };
    let known = ledger.records(&wanted)?;
    let known = |new: &Override| {
        known.iter().any(|record| match &record.entry {
            Entry::Override(old) => {
                (&old.destination.uuid, &old.vm, old.at) == (&new.destination.uuid, &new.vm, new.at)
            }
            _ => false,
        })
    };
    for new in overrides(host, status).into_iter().filter(|new| !known(new)) {
        ledger.append(&Entry::Override(new))?;
    }
    Ok(())
}

fn overrides(host: &str, status: &HookStatus) -> Vec<Override> {
    let destination = NameAndUuid { name: Some(host.to_owned()), uuid: status.host_uuid.clone() };
    let entries = status.overrides.iter().filter_map(|entry| {
        let (vm, by, reason, until) = match &entry.event {
            JournalEvent::OverrideSet { uuid, reason, by, until } => {
                (NameAndUuid { name: None, uuid: uuid.clone() }, plain(by), reason, Some(*until))
            }
            JournalEvent::Decision { vm, uuid, reason, because: DecisionReason::Override, .. } => {
                let by = "the operator who set the override".to_owned();
                (NameAndUuid { name: Some(plain(vm)), uuid: uuid.clone() }, by, reason, None)
            }
            _ => return None,
        };
        let (destination, at) = (destination.clone(), Some(entry.at));
        let (refused_by, reason) = (REFUSED_BY.to_owned(), plain(reason));
        Some(Override { vm, source: None, destination, refused_by, by, reason, at, until })
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_tells_twice_is_written_once() {
        let told = serde_json::json!({
            "host_uuid": "6f0d3c4e-1111-4222-8333-123456789abc", "keys": [], "others": [], "waiting": 0, "problems": [], "recent": [],
            "clock": "2026-11-26T10:00:00Z",
            "overrides": [
                {"at": "2026-11-26T09:00:00Z", "vmgate": "0.1.0", "event": "override-set", "uuid": null,
                 "reason": "fire", "by": "ops", "until": "2026-11-26T09:30:00Z"},
                {"at": "2026-11-26T09:05:00Z", "vmgate": "0.1.0", "event": "decision", "vm": "web1", "uuid": "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11",
                 "let_in": true, "because": "override", "reason": "the override of ops stands: fire",
                 "verdict": null, "key": null, "mode": "enforce", "took_milliseconds": 3},
            ],
        });
        let status: HookStatus = serde_json::from_value(told).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path().join("ledger.db")).unwrap();
        for host in ["hv2", "10.0.0.2"] {
            add(&ledger, host, &status).unwrap();
        }
        let records = ledger.records(&Selection::default()).unwrap();
        let words: Vec<String> = records.iter().map(|record| record.entry.to_string()).collect();
        assert_eq!(
            words,
            [
                "ops lets every VM into hv2 until 2026-11-26T09:30:00Z, overriding the host's hook: fire",
                "web1 was let into hv2 by the operator who set the override, overriding the host's hook: the override of ops stands: fire",
            ]
        );
    }
}
