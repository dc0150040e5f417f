//! Speed of rules: loading the pack, judging a fleet with it, and the same expressions in two other engines.
//!
//! `cargo bench --bench rules`. The facts are a fixture's with a few fields changed from move to move, and are
//! handed over one by one, as a streamed fleet is. At the end the memory that this takes is printed.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot begin should stop")]
#![allow(clippy::indexing_slicing)] // a benchmark may fall

use std::{fs, hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group};
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use vmgate_facts::{Facts, Forecast};
use vmgate_rules::{Pack, RuleSource};

const MOVES: usize = 10_000;

/// Conditions that all three engines can express, in CEL.
const EXPRESSIONS: [&str; 8] = [
    "vm.state == \"running\"",
    "destination.memory.available_bytes >= vm.memory_max_bytes",
    "vm.vcpus <= destination.cpus",
    "source.load_ratio <= 0.9 && destination.load_ratio <= 0.9",
    "vm.nics.all(n, n.kind != \"hostdev\")",
    "guest.tcp.connections.all(c, c.budget_seconds >= 1.2)",
    "path.transport in [\"tls\", \"tunnelled\"]",
    "guest.udp.sockets.exists(s, s.port == 5405)",
];

/// The same in Rego.
const REGO: &str = r#"
package rules
import rego.v1
r0 if input.vm.state == "running"
r1 if input.destination.memory.available_bytes >= input.vm.memory_max_bytes
r2 if input.vm.vcpus <= input.destination.cpus
r3 if { input.source.load_ratio <= 0.9; input.destination.load_ratio <= 0.9 }
r4 if { every n in input.vm.nics { n.kind != "hostdev" } }
r5 if { every c in input.guest.tcp.connections { c.budget_seconds >= 1.2 } }
r6 if input.path.transport in {"tls", "tunnelled"}
r7 if { some s in input.guest.udp.sockets; s.port == 5405 }
"#;

fn fixture() -> Json {
    let text =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/busy-cluster-member.yaml"));
    serde_yaml::from_str(&text.unwrap()).unwrap()
}

/// Facts that differ from move to move.
fn moves(count: usize) -> Vec<Json> {
    (0..count)
        .map(|at| {
            let mut facts = fixture();
            facts["vm"]["name"] = format!("vm{at}").into();
            facts["vm"]["vcpus"] = (1 + at % 16).into();
            facts["vm"]["memory_max_bytes"] = (1_u64 << (30 + at % 6)).into();
            facts
        })
        .collect()
}

fn forecast() -> Forecast {
    serde_json::from_value(json!({
        "method": "assumed", "blackout_seconds": {"p5": 0.1, "p50": 0.3, "p95": 0.6},
        "dirty_to_bandwidth_ratio": 0.3, "total_seconds": {"p5": 30.0, "p50": 40.0, "p95": 60.0}
    }))
    .unwrap()
}

fn load(c: &mut Criterion) {
    c.bench_function("load and check the shipped pack", |b| {
        b.iter(|| black_box(Pack::load(&[RuleSource::Builtin]).unwrap()));
    });
}

fn fleet(c: &mut Criterion) {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let variants: Vec<Facts> =
        moves(64).into_iter().map(|json| serde_json::from_value(json).unwrap()).collect();
    let (forecast, now) = (forecast(), "2026-11-23T01:10:00Z".parse::<Timestamp>().unwrap());
    let outcomes = pack.evaluate(&variants[0], &forecast, now).len();
    let mut group = c.benchmark_group(format!("{} rules, {outcomes} outcomes a move", pack.rules().len()));
    group.sample_size(10);
    group.bench_function("one move", |b| {
        b.iter(|| black_box(pack.evaluate(&variants[0], &forecast, now)));
    });
    group.bench_function(format!("{MOVES} moves, one core"), |b| {
        b.iter(|| {
            variants
                .iter()
                .cycle()
                .take(MOVES)
                .map(|facts| pack.evaluate(facts, &forecast, now).len())
                .sum::<usize>()
        });
    });
    let nothing = tempfile::tempdir().unwrap();
    let no_rules = Pack::load(&[RuleSource::Dir(nothing.path().to_owned())]).unwrap();
    group.bench_function("one move, no rules: facts made ready", |b| {
        b.iter(|| black_box(no_rules.evaluate(&variants[0], &forecast, now)));
    });
    let outcomes = pack.evaluate(&variants[0], &forecast, now);
    group.bench_function("one move, outcomes written as JSON", |b| {
        b.iter(|| black_box(serde_json::to_string(&outcomes).unwrap()));
    });
    group.finish();
}

/// Resident memory of this process now.
fn resident_mebibytes() -> f64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / f64::from(1 << 20)
}

/// Judges a streamed fleet, in which no facts and no outcomes outlive their move, and prints what it takes.
fn memory() {
    let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
    let (forecast, now) = (forecast(), "2026-11-23T01:10:00Z".parse::<Timestamp>().unwrap());
    let template = fixture();
    let mut outcomes = 0;
    for at in 1..=MOVES {
        let mut json = template.clone();
        json["vm"]["name"] = format!("vm{at}").into();
        let facts: Facts = serde_json::from_value(json).unwrap();
        outcomes += pack.evaluate(&facts, &forecast, now).len();
        if at == MOVES / 100 || at == MOVES / 10 || at == MOVES {
            println!(
                "resident after {at:>6} streamed moves ({outcomes} outcomes): {:.1} MiB",
                resident_mebibytes()
            );
        }
    }
}

/// Our engine with rules that only hold one of the expressions each.
fn bare_pack() -> Pack {
    let dir = tempfile::tempdir().unwrap();
    for (at, expression) in EXPRESSIONS.iter().enumerate() {
        let rule = format!(
            "schema: vmgate/rule/v1\nid: r{at}\ntitle: R\nstep: prepare\nseverity: low\neffect: note\nassert: '{expression}'\n\
             message: m\nrationale: r\nremediation: r\n"
        );
        fs::write(dir.path().join(format!("r{at}.yaml")), rule).unwrap();
    }
    Pack::load(&[RuleSource::Dir(dir.path().to_owned())]).unwrap()
}

fn engines(c: &mut Criterion) {
    let json = moves(1).remove(0);
    let facts: Facts = serde_json::from_value(json.clone()).unwrap();
    let (forecast, now) = (Forecast::default(), Timestamp::UNIX_EPOCH);
    let mut group = c.benchmark_group("eight conditions on one move, with the facts' conversion");
    let pack = bare_pack();
    group.bench_function("vmgate (three-valued, with evidence)", |b| {
        b.iter(|| black_box(pack.evaluate(&facts, &forecast, now)));
    });
    let env = Arc::new(cel::Env::stdlib());
    let programs: Vec<_> = EXPRESSIONS.iter().map(|text| env.compile(text).unwrap()).collect();
    group.bench_function("cel crate (two-valued)", |b| {
        b.iter(|| {
            let mut context = cel::Context::with_env(Arc::clone(&env));
            for name in ["vm", "guest", "source", "destination", "path"] {
                context.add_variable_from_value(name, cel::to_value(&json[name]).unwrap());
            }
            for program in &programs {
                black_box(program.execute(&context).unwrap());
            }
        });
    });
    let mut engine = regorus::Engine::new();
    engine.add_policy("rules.rego".to_owned(), REGO.to_owned()).unwrap();
    group.bench_function("regorus (Rego)", |b| {
        b.iter(|| {
            engine.set_input(regorus::Value::from_json_str(&json.to_string()).unwrap());
            for at in 0..EXPRESSIONS.len() {
                black_box(engine.eval_rule(format!("data.rules.r{at}")).unwrap());
            }
        });
    });
    group.finish();
}

criterion_group!(benches, load, fleet, engines);

fn main() {
    memory();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
