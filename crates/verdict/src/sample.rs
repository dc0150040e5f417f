//! Fixed outcomes, waivers and verdicts that tests and golden reports are made from.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "for tests")]

use std::sync::Arc;

use serde_json::json;
use vmgate_attest::Digest;
use vmgate_facts::{
    Alternative as SettingForecast, Cause, Fact, Facts, Forecast, ForecastMethod, Host, Quantiles,
    RemainingMemory, Vm,
};

use super::{
    DecisionContext, Digests, FileLine, Verdict, Waivers, decide,
    waiver::{Day, Glob, Match, Waiver},
};
use crate::{Effect, Evidence, Missing, Outcome, Severity, Status, Step};

/// An outcome of a rule that blocks.
pub fn outcome(rule: &str, status: Status) -> Outcome {
    Outcome {
        rule: rule.into(),
        title: format!("What {rule} demands holds").into(),
        step: Step::Prepare,
        severity: Severity::High,
        effect: Effect::Block,
        on_unknown: Effect::Block,
        status,
        subject: None,
        message: format!("{rule} says so").into(),
        remediation: None,
        evidence: vec![],
        missing: vec![],
        waivable: true,
    }
}

/// A waiver for all subjects of a rule, from 2026-11-01 to 2026-11-30.
pub fn waiver(rule: &str) -> Waiver {
    Waiver {
        rule: rule.into(),
        matches: Match { subject: Some(Glob::new("*")), vm: None, host: None },
        owner: "dba@example.org".into(),
        reason: "the client reconnects by itself, tested on 2026-11-02".into(),
        ticket: "OPS-4711".into(),
        created: day("2026-11-01"),
        expires: day("2026-11-30"),
    }
}

/// A day.
pub(crate) fn day(text: &str) -> Day {
    text.parse().unwrap()
}

/// The time of the samples.
pub fn now() -> jiff::Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

/// A move of `vm` between two hosts of which everything needed here is known.
pub fn facts(vm: &str) -> Facts {
    let host = |name: &str, uuid: &str| {
        Fact::Known(Host {
            hostname: Fact::Known(name.into()),
            uuid: Fact::Known(uuid.parse().unwrap()),
            ..Host::default()
        })
    };
    let mut facts = Facts::empty("2026-11-23T09:58:00Z".parse().unwrap());
    facts.change.id = Some("CHG-2041".into());
    facts.vm = Fact::Known(Vm {
        name: Fact::Known(vm.into()),
        uuid: Fact::Known("5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11".parse().unwrap()),
        ..Vm::default()
    });
    facts.source = host("hv1.example.org", "6f0d3c4e-1111-4222-8333-123456789abc");
    facts.destination = host("hv2.example.org", "7a1e4d5f-2222-4333-8444-23456789abcd");
    facts
}

fn context() -> DecisionContext {
    DecisionContext {
        digests: Digests {
            facts: Some(Digest::of(b"facts")),
            rules: Some(Digest::of(b"rules")),
            waivers: None,
            change: Some(Digest::of(b"change")),
        },
        asked_in: Some(FileLine { file: "changes/CHG-2041.yaml".into(), line: 12 }),
        forecast: Some(Forecast {
            blackout_seconds: Fact::Known(Quantiles { p5: 0.3, p50: 0.9, p95: 2.4 }),
            total_seconds: Fact::Known(Quantiles { p5: 21.0, p50: 34.0, p95: 58.0 }),
            dirty_to_bandwidth_ratio: Fact::Known(0.31),
            method: Fact::Known(ForecastMethod::Replay),
            evidence_seconds: Fact::Known(30.0),
            converges_ratio: Fact::Known(0.98),
            sent_bytes: Fact::Known(Quantiles { p5: 4.6e9, p50: 4.9e9, p95: 5.6e9 }),
            rounds: Fact::Known(Quantiles { p5: 4.0, p50: 5.0, p95: 8.0 }),
            downtime_limit_seconds: Fact::Known(0.22),
            limited_by: Fact::Known("the bandwidth of the migration path".into()),
            advice: Fact::Known(
                "with the present settings: 34 s; with a path of twice the goodput: 17 s; with auto-converge: 31 s".into(),
            ),
            alternatives: Fact::Known(vec![
                alternative("a path of twice the goodput", (17.0, 0.7), "a faster network", 0.0),
                alternative(
                    "auto-converge",
                    (31.0, 0.9),
                    "slows the vCPUs by up to 30 %, in pauses of 4 ms",
                    0.0043,
                ),
            ]),
            recommended: Fact::Known(None),
            timeline: Fact::Known(timeline()),
            round_ends_seconds: Fact::Known(vec![20.0, 28.0, 31.0, 32.5, 33.1]),
            ..Forecast::default()
        }),
        ..DecisionContext::at(now())
    }
}

fn alternative(setting: &str, (total, blackout): (f64, f64), costs: &str, pause: f64) -> SettingForecast {
    let spread = |figure: f64| Some(Quantiles { p5: figure * 0.5, p50: figure, p95: figure * 2.0 });
    SettingForecast {
        setting: setting.into(),
        converges_ratio: 1.0,
        total_seconds: spread(total),
        blackout_seconds: spread(blackout),
        throttle_pause_seconds: pause,
        downtime_limit_seconds: 0.22,
        costs: costs.into(),
    }
}

/// Memory that is sent at a steady pace, and then the little that is dirtied meanwhile.
fn timeline() -> Vec<RemainingMemory> {
    let moment = |at_seconds: f64| {
        let left = |end: f64| {
            (4.3e9_f64 * (1.0 - at_seconds / end)).round().max(if at_seconds < end + 4.0 { 2e8 } else { 0.0 })
        };
        let remaining_bytes = Quantiles { p5: left(20.0), p50: left(30.0), p95: left(54.0) };
        RemainingMemory { at_seconds, remaining_bytes }
    };
    (0..=30).map(|step| moment(f64::from(step) * 2.0)).collect()
}

/// GO without a word against it.
pub fn go() -> Verdict {
    let outcomes = vec![
        outcome("vm-is-running", Status::Pass),
        Outcome { step: Step::Resume, ..outcome("machine-type-supported", Status::Pass) },
        Outcome { step: Step::Stop, ..outcome("no-rdma-or-dpdk", Status::NotApplicable) },
    ];
    decide(outcomes, &Waivers::default(), &facts("idle1"), &context())
}

/// NO-GO with something of everything: violations, missing evidence, warnings, notes, waivers that hold and
/// waivers that do not, and a guest that gives hostile names.
pub fn no_go() -> Verdict {
    let at = Some("2026-11-23T09:58:04Z".parse().unwrap());
    let from = |path: &str, value, source: Option<&str>| {
        let at = source.and(at);
        Arc::new(Evidence { path: path.into(), value, source: source.map(Arc::from), at })
    };
    let agent = Some("guest agent: guest-file-read /proc/net/tcp");
    let connection = |local: &str, remote: &str, budget: f64| Outcome {
        title: "Every TCP connection outlives the predicted blackout".into(),
        step: Step::Switch,
        subject: Some(format!("{local} -> {remote}")),
        message: format!("{remote} gives up after {budget} s; the blackout may last 2.4 s (p95)").into(),
        remediation: Some(
            "Raise net.ipv4.tcp_retries2 to 8 or more for the time of the change, or move at a quieter hour."
                .into(),
        ),
        evidence: vec![
            from("guest.tcp.connections[3].budget_seconds", json!(budget), agent),
            from("forecast.blackout_seconds.p95", json!(2.4), None),
        ],
        ..outcome("tcp-retransmission-budget", Status::Fail)
    };
    let lacking = |rule: &str, path: &str, effect| Outcome {
        step: Step::Stop,
        on_unknown: effect,
        message: format!("cannot be decided: {path} is not known").into(),
        missing: vec![Missing {
            path: path.into(),
            reason: "the agent forbids guest-file-open".into(),
            cause: Cause::AgentForbids,
        }],
        ..outcome(rule, Status::Unknown)
    };
    let outcomes = vec![
        connection("10.0.0.5:41822", "10.0.0.7:5432", 1.2),
        connection("10.0.0.5:41823", "10.0.0.8:5432", 1.2),
        connection("10.0.0.5:50001", "10.0.0.9:6379", 0.8),
        Outcome {
            title: "The destination has the memory that the VM needs".into(),
            severity: Severity::Critical,
            message: "hv2.example.org has 3.1 GiB available; web1 needs 4.0 GiB and 0.5 GiB of reserve"
                .into(),
            remediation: Some(
                "Move another VM away from hv2.example.org first, or choose another host.".into(),
            ),
            evidence: vec![from(
                "destination.memory.available_bytes",
                json!(3_328_599_654_u64),
                Some("host probe: /proc/meminfo"),
            )],
            ..outcome("destination-memory-fits", Status::Fail)
        },
        lacking("memory-sync-survives-blackout", "guest.memory_sync", Effect::Block),
        lacking("udp-listeners-known", "guest.udp.sockets", Effect::Warn),
        Outcome {
            title: "The migration interface carries nothing else".into(),
            severity: Severity::Medium,
            effect: Effect::Warn,
            subject: Some("eth1".into()),
            message: "eth1 carries the default route of hv1.example.org besides the migration".into(),
            remediation: Some("Give the migration an interface of its own, or shape it with tc.".into()),
            ..outcome("migration-nic-dedicated", Status::Fail)
        },
        Outcome {
            title: "No process hangs in the kernel".into(),
            step: Step::Stop,
            severity: Severity::Low,
            effect: Effect::Note,
            subject: Some(
                "\u{1b}]0;owned\u{7}=cmd|' /C calc'!A0 <script>alert(1)</script> \u{202e}gpj.exe".into(),
            ),
            message: "the process is in state D since 40 s".into(),
            ..outcome("no-uninterruptible-process", Status::Fail)
        },
        Outcome { step: Step::Precopy, ..outcome("vm-is-running", Status::Pass) },
        Outcome {
            step: Step::Resume,
            message: "hv2.example.org offers pc-q35-7.2".into(),
            evidence: vec![from(
                "vm.machine_type",
                json!("pc-q35-7.2"),
                Some("libvirt: virDomainGetXMLDesc"),
            )],
            ..outcome("machine-type-supported", Status::Pass)
        },
        Outcome { step: Step::Stop, ..outcome("no-rdma-or-dpdk", Status::NotApplicable) },
    ];
    let redis = Match { subject: Some(Glob::new("* -> 10.0.0.9:6379")), ..Match::default() };
    let waivers: Waivers = [
        Waiver { matches: redis, ..waiver("tcp-retransmission-budget") },
        Waiver { expires: day("2026-11-20"), ..waiver("destination-memory-fits") },
        waiver("vm-is-running"),
    ]
    .into_iter()
    .collect();
    decide(outcomes, &waivers, &facts("web1"), &context())
}
