//! Rule files, and expressions: loaded, checked, their errors printed, evaluated.

use std::sync::LazyLock;

use vmgate_facts::{Facts, Forecast};
use vmgate_rules::{Pack, explain_rule, lint};

static FACTS: LazyLock<Facts> = LazyLock::new(|| {
    let nic = |mac: &str| serde_json::json!({"mac": mac, "kind": "bridge", "source": "br0", "tap": null, "model": null, "link_up": true});
    serde_json::from_value(serde_json::json!({
        "schema": "vmgate/facts/v1", "collected_at": "2026-11-23T01:00:00Z",
        "vm": {"name": "web1", "state": "running", "vcpus": 4, "job": null, "memory_bytes": 1_u64 << 32, "nics": [nic("a"), nic("b")],
               "disks": [], "persistent": true},
        "destination": {"cpus": 16, "networks": ["br0"], "memory": {"total_bytes": 1_u64 << 40, "available_bytes": 1_u64 << 33}},
        "change": {"window_end": "2026-11-23T05:00:00Z"}
    }))
    .expect("the facts fit their type")
});

/// A rule of these bytes; after `=` a rule whose assertion they are.
pub(crate) fn load(data: &[u8]) {
    let rule = match data.split_first() {
        Some((b'=', text)) => match std::str::from_utf8(text) {
            Ok(text) => expression(text),
            Err(_) => return,
        },
        _ => data.to_vec(),
    };
    match Pack::of_rule("fuzz.yaml", &rule) {
        Err(errors) => drop(errors.render(true)),
        Ok(pack) => {
            let now = FACTS.collected_at;
            let first = pack.evaluate(&FACTS, &Forecast::default(), now);
            assert_eq!(first, pack.evaluate(&FACTS, &Forecast::default(), now));
            drop((lint(&pack), pack.digest(), pack.rules().iter().map(explain_rule).collect::<String>()));
        }
    }
}

/// A rule whose assertion, and an expression of whose message, is the text.
fn expression(text: &str) -> Vec<u8> {
    let rule = serde_json::json!({
        "schema": "vmgate/rule/v1", "id": "fuzz", "title": "Fuzz", "step": "prepare", "severity": "low", "effect": "note",
        "assert": text, "message": format!("{{{text}}}"), "rationale": "r", "remediation": "r"
    });
    rule.to_string().into_bytes()
}
