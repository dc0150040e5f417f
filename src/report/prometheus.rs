//! Metrics for node_exporter's textfile collector: which moves may run, which rules block, and until when verdicts are valid.
//!
//! The collector refuses a file with a duplicate series, so of two verdicts on one move only the last is written.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use vmgate_verdict::{Decision, Effect, Status, Verdict};

use super::{visible, words};

/// A metric: name, help, and its value for a verdict by further labels.
type Metric = (&'static str, &'static str, fn(&Verdict) -> Vec<(String, f64)>);

const METRICS: [Metric; 9] = [
    ("vmgate_verdict_go", "1 if the move may run (GO), 0 if not (NO-GO).", go),
    ("vmgate_verdict_exit_code", "Exit code of vmgate for this move alone.", exit_code),
    ("vmgate_verdict_outcomes", "Outcomes of rules by status.", outcomes),
    ("vmgate_verdict_effects", "Outcomes by effect on the verdict, after waivers.", effects),
    (
        "vmgate_verdict_rule_blocks",
        "Blocking outcomes by rule; rules that do not block have no sample.",
        rules,
    ),
    (
        "vmgate_verdict_waiver_problems",
        "Waivers with a problem, by fault; faults that did not occur have no sample.",
        faults,
    ),
    ("vmgate_verdict_findings_since_baseline", "Findings by change since the baseline.", since),
    ("vmgate_verdict_evaluated_timestamp_seconds", "Time of the evaluation.", evaluated),
    (
        "vmgate_verdict_expires_timestamp_seconds",
        "Time from which the evidence is too old to act on.",
        expires,
    ),
];

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    let moves: BTreeMap<String, &Verdict> =
        verdicts.iter().map(|verdict| (labels(verdict), verdict)).collect();
    for (name, help, samples) in METRICS {
        writeln!(sink, "# HELP {name} {help}\n# TYPE {name} gauge")?;
        for (labels, verdict) in &moves {
            for (more, value) in samples(verdict) {
                writeln!(sink, "{name}{{{labels}{more}}} {value}")?;
            }
        }
    }
    sink.flush()
}

fn labels(verdict: &Verdict) -> String {
    let moved = &verdict.moved;
    let names = [("vm", &moved.vm), ("source", &moved.source), ("destination", &moved.destination)];
    let simulated = if verdict.simulated { ",simulated=\"true\"" } else { "" };
    names.map(|(name, named)| label(name, named.label())).join(",") + simulated
}

/// A label with its value.
pub(crate) fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", visible(value).replace('\\', "\\\\").replace('"', "\\\""))
}

fn alone(value: f64) -> Vec<(String, f64)> {
    vec![(String::new(), value)]
}

fn by(name: &str, values: impl IntoIterator<Item = (&'static str, usize)>) -> Vec<(String, f64)> {
    values.into_iter().map(|(value, count)| (format!(",{}", label(name, value)), number(count))).collect()
}

/// A count as a value.
#[expect(clippy::cast_precision_loss, reason = "counts of outcomes and moves are far below 2^52")]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}

/// A time as a value: seconds since 1970.
#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^52")]
pub(crate) fn seconds(time: jiff::Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

fn go(verdict: &Verdict) -> Vec<(String, f64)> {
    alone(if matches!(verdict.decision, Decision::Go(_)) && !verdict.simulated { 1.0 } else { 0.0 })
}

fn exit_code(verdict: &Verdict) -> Vec<(String, f64)> {
    alone(f64::from(verdict.exit_code().code()))
}

fn outcomes(verdict: &Verdict) -> Vec<(String, f64)> {
    let counts = verdict.counts;
    let statuses = [
        (Status::Pass, counts.pass),
        (Status::Fail, counts.fail),
        (Status::Unknown, counts.unknown),
        (Status::NotApplicable, counts.not_applicable),
    ];
    by("status", statuses.map(|(status, count)| (status.word(), count)))
}

fn effects(verdict: &Verdict) -> Vec<(String, f64)> {
    let counts = verdict.counts;
    let effects = [
        ("block", counts.blocking),
        ("warn", counts.warnings),
        ("note", counts.notes),
        ("waived", counts.waived),
    ];
    by("effect", effects)
}

fn rules(verdict: &Verdict) -> Vec<(String, f64)> {
    let mut blocks: BTreeMap<&str, usize> = BTreeMap::new();
    for judged in verdict.with_effect(Effect::Block) {
        *blocks.entry(&judged.outcome.rule).or_default() += 1;
    }
    blocks.into_iter().map(|(rule, count)| (format!(",{}", label("rule", rule)), number(count))).collect()
}

fn faults(verdict: &Verdict) -> Vec<(String, f64)> {
    let mut faults: BTreeMap<&'static str, usize> = BTreeMap::new();
    for problem in &verdict.waiver_problems {
        *faults.entry(words::fault(problem.fault)).or_default() += 1;
    }
    by("fault", faults)
}

fn since(verdict: &Verdict) -> Vec<(String, f64)> {
    let Some(since) = &verdict.since else { return Vec::new() };
    let counts = [
        ("new", since.new.len()),
        ("changed", since.changed.len()),
        ("fixed", since.fixed.len()),
        ("unchanged", since.unchanged),
    ];
    by("trend", counts)
}

fn evaluated(verdict: &Verdict) -> Vec<(String, f64)> {
    alone(seconds(verdict.evaluated_at))
}

fn expires(verdict: &Verdict) -> Vec<(String, f64)> {
    alone(seconds(verdict.expires_at))
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::sample;

    use super::*;

    fn written(verdicts: &[Verdict]) -> String {
        let mut out = Vec::new();
        write(verdicts, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn no_series_stands_twice_even_if_a_move_does() {
        let text = written(&[sample::no_go(), sample::no_go(), sample::go()]);
        let mut series: Vec<&str> = text
            .lines()
            .filter(|l| !l.starts_with('#'))
            .filter_map(|l| l.rsplit_once(' '))
            .map(|(s, _)| s)
            .collect();
        let count = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), count);
        assert!(text.contains("vmgate_verdict_go{vm=\"idle1\""));
    }

    #[test]
    fn a_name_cannot_leave_its_label() {
        let mut verdict = sample::go();
        verdict.moved.vm.name = Some("a\"} 1\nvmgate_verdict_go{vm=\"x\\".into());
        let text = written(&[verdict]);
        assert!(text.contains(r#"vm="a\"} 1 vmgate_verdict_go{vm=\"x\\","#), "{text}");
    }
}
