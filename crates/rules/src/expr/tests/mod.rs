//! Tests of expressions: errors, results, and laws that are true for all expressions.

mod agreement;
mod errors;
mod laws;
mod results;

use jiff::Timestamp;
use proptest::{prelude::*, sample::select};
use serde_json::{Value as Json, json};
use vmgate_facts::{Facts, Forecast};

use super::{Checker, Evaluator, Expr, ExprProblem, Read, Scope, Val, with_stack};
use crate::value::Value;

/// A move for which all facts of the tests are known.
fn known_facts() -> Json {
    json!({
        "schema": "vmgate/facts/v1", "collected_at": "2026-11-23T01:00:00Z",
        "vm": {
            "name": "web1", "state": "running", "persistent": true, "has_agent_channel": false, "vcpus": 4,
            "memory_bytes": 4_294_967_296_u64, "memory_max_bytes": 8_589_934_592_u64, "huge_page_bytes": null,
            "job": null, "cpu_model": "EPYC", "qemu_version": "7.2.22", "machine_type": "pc-q35-7.2",
            "dirty_rate": {"rate_bytes_per_second": 1_000_000, "window_seconds": 2.0, "method": "trace"},
            "nics": [
                {"mac": "52:54:00:00:00:01", "kind": "bridge", "source": "br0", "tap": "vnet0", "model": "virtio", "link_up": true},
                {"mac": "52:54:00:00:00:02", "kind": "user", "source": null, "tap": null, "model": null, "link_up": false}
            ],
            "disks": [], "host_devices": []
        },
        "guest": {
            "hostname": "web1",
            "sysctl": {"tcp_retries1": 3, "tcp_retries2": 15, "tcp_keepalive_time_seconds": 7200.0},
            "tcp": {"connections": [
                {"local": "a:1", "remote": "b:2", "state": "established", "retransmits": 0, "budget_seconds": 3.0, "owner": "app"},
                {"local": "a:2", "remote": "c:3", "state": "closing", "retransmits": 2, "budget_seconds": 0.5, "owner": null}
            ], "listeners": []}
        },
        "source": {"cpus": 8, "load_ratio": 0.5, "qemu_version": "7.2.22"},
        "destination": {
            "cpus": 16, "load_ratio": 1.5, "qemu_version": "10.0", "offers_guest_cpu": true, "networks": ["default", "br0"],
            "memory": {"total_bytes": 274_877_906_944_u64, "available_bytes": 6_442_450_944_u64}
        },
        "path": {"transport": "tcp", "bandwidth_bytes_per_second": 125_000_000},
        "change": {"longest_blackout_seconds": 0.3, "window_end": "2026-11-23T05:00:00Z"}
    })
}

/// The root of expressions for a facts document.
fn root(facts: &Json) -> Value {
    let facts: Facts = serde_json::from_value(facts.clone()).unwrap();
    let forecast: Forecast = serde_json::from_value(json!({
        "blackout_seconds": {"p5": 0.1, "p50": 0.2, "p95": 0.6}, "dirty_to_bandwidth_ratio": 0.2
    }))
    .unwrap();
    Value::root(&facts, &forecast, "2026-11-23T01:30:00Z".parse::<Timestamp>().unwrap())
}

fn check(text: &str) -> Result<(Expr, usize), Vec<ExprProblem>> {
    with_stack(|| {
        let mut scope = Scope::default();
        let (expr, _) = Checker::check(text, &mut scope)?;
        Ok((expr, scope.next_slot))
    })
    .unwrap()
}

/// A result as text, for the tests to compare.
fn show(value: &Val<'_>) -> String {
    match value {
        Val::Null => "null".to_owned(),
        Val::Bool(value) => value.to_string(),
        Val::Int(value) => value.to_string(),
        Val::Double(value) => format!("{value:?}"),
        Val::Text(text) => format!("\"{text}\""),
        Val::Version(version) => version.to_string(),
        Val::Time(time) => time.to_string(),
        Val::Duration(span) => format!("{}s", span.as_secs_f64()),
        Val::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Val::Node(value, path) => {
            value.scalar_or_list(*path).map_or_else(|| "group".to_owned(), |value| show(&value))
        }
        Val::Unknown => "unknown".to_owned(),
    }
}

/// Result of an expression, and the paths that were read for it.
fn eval(text: &str, root: &Value) -> (String, Vec<String>) {
    let (expr, slots) = check(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    let mut evaluator = Evaluator::new(root);
    evaluator.start_rule(&[], [], slots, None);
    let value = evaluator.eval(&expr);
    let paths = evaluator
        .reads(0)
        .iter()
        .map(|read| match read {
            Read::Fact(Value::Unknown(_), path) => format!("?{}", evaluator.path(*path)),
            Read::Fact(_, path) | Read::Stale(_, path) => evaluator.path(*path),
            Read::Fault(reason) => format!("!{reason}"),
        })
        .collect();
    (show(&value), paths)
}

/// Expression for a whole number without a unit.
fn int_text(depth: u32) -> BoxedStrategy<String> {
    let leaf = select(vec![
        "vm.vcpus",
        "source.cpus",
        "destination.cpus",
        "guest.sysctl.tcp_retries1",
        "guest.sysctl.tcp_retries2",
        "3",
        "0",
        "-7",
        "vm.nics.size()",
        "destination.networks.size()",
        "size(vm.name)",
        "vm.disks.size()",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(depth, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), select(vec!["+", "-", "*"]), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), select(vec!["/ 2", "% 3"])).prop_map(|(a, op)| format!("({a} {op})")),
            (bool_leaf(), inner.clone(), inner.clone()).prop_map(|(c, a, b)| format!("({c} ? {a} : {b})")),
            bool_leaf().prop_map(|c| format!("vm.nics.filter(f, f.link_up || {c}).size()")),
        ]
    })
    .boxed()
}

fn bool_leaf() -> BoxedStrategy<String> {
    select(vec![
        "vm.persistent",
        "vm.has_agent_channel",
        "destination.offers_guest_cpu",
        "vm.job == null",
        "vm.cpu_model == null",
        "vm.state == \"running\"",
        "vm.name == guest.hostname",
        "vm.name.startsWith(\"w\")",
        "\"br0\" in destination.networks",
        "vm.name in destination.networks",
        "path.transport in [\"tls\", \"tunnelled\"]",
        "source.load_ratio < destination.load_ratio",
        "vm.huge_page_bytes != null",
        "guest.tcp.connections.exists(c, c.owner == null)",
        "vm.disks.all(d, d.read_only)",
        "forecast.blackout_seconds.p95 > change.longest_blackout_seconds",
        "true",
        "false",
    ])
    .prop_map(str::to_owned)
    .boxed()
}

/// A condition over the facts of [`known_facts`].
fn bool_text() -> BoxedStrategy<String> {
    let compared = (int_text(2), select(vec!["<", "<=", ">", ">=", "==", "!="]), int_text(2))
        .prop_map(|(a, op, b)| format!("{a} {op} {b}"));
    prop_oneof![3 => bool_leaf(), 1 => compared]
        .prop_recursive(4, 24, 3, |inner| {
            let item = prop_oneof![
                Just("n.link_up".to_owned()),
                Just("n.tap == null".to_owned()),
                Just("n.mac.endsWith(\"1\")".to_owned()),
                Just("n.kind in [\"bridge\", \"network\"]".to_owned()),
                (inner.clone(), select(vec!["&&", "||"]))
                    .prop_map(|(a, op)| format!("(n.link_up {op} ({a}))")),
            ];
            prop_oneof![
                inner.clone().prop_map(|a| format!("!({a})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(({a}) && ({b}))")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(({a}) || ({b}))")),
                (inner.clone(), inner.clone(), inner.clone())
                    .prop_map(|(c, a, b)| format!("(({c}) ? ({a}) : ({b}))")),
                (select(vec!["all", "exists", "exists_one"]), item.clone())
                    .prop_map(|(q, i)| format!("vm.nics.{q}(n, {i})")),
                item.prop_map(|i| format!(
                    "vm.nics.filter(n, {i}).map(m, m.mac).exists(t, t.contains(\"54\"))"
                )),
            ]
        })
        .boxed()
}
