//! The campaign: every case of the plan, one after the other. It may be interrupted at any time and then continues.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use vmgate_facts::trace::DirtyTrace;

use crate::{
    Line, Outcome, Prediction, lab,
    net::{self, Goodput},
    plan::Case,
    predict::{self, Measured},
    score::{self, Pair},
};

/// Options of a campaign.
pub(crate) struct Campaign {
    /// File of results, next to which the constants are written.
    pub(crate) out: PathBuf,
    pub(crate) plan: Vec<Case>,
    pub(crate) trace_seconds: f64,
    /// Time to stop, checked between two cases.
    pub(crate) most: Duration,
}

/// Predictions and outcomes in a result file. An interrupted case has no outcome and is left out.
pub(crate) fn results(file: &Path) -> Outcome<Vec<Pair>> {
    let mut predicted: BTreeMap<u32, Prediction> = BTreeMap::new();
    let mut pairs = Vec::new();
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    // A line that was cut off by an interruption is no result.
    for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
        match line {
            Line::Predicted(prediction) => {
                predicted.insert(prediction.case.id, *prediction);
            }
            Line::Came(came) => pairs.extend(predicted.remove(&came.id).map(|prediction| (prediction, came))),
        }
    }
    Ok(pairs)
}

/// File of the trace of a case.
fn kept(results: &Path, id: u32) -> PathBuf {
    results.with_extension("traces").join(format!("{id}.json"))
}

/// All cases, forecast again from their saved traces: shows the effect of a changed predictor. Not a proof: the predictor was
/// not frozen before the cases ran.
pub(crate) fn again(file: &Path, out: Option<&Path>) -> Outcome<Vec<Pair>> {
    let mut pairs: Vec<Pair> = Vec::new();
    for (before, came) in results(file)? {
        let trace = serde_json::from_slice(&fs::read(kept(file, before.case.id))?)?;
        let path = Goodput { bytes_per_second: before.goodput, queue_bytes: before.queue_bytes };
        let (resident_bytes, waited_ratio) = (before.resident_bytes, before.waited_ratio);
        let measured = Measured { trace, path, resident_bytes, waited_ratio };
        let prediction = predict::predict(&before.case, &measured, &pairs)?;
        if let Some(out) = out {
            write(out, &Line::Predicted(Box::new(prediction.clone())))?;
            write(out, &Line::Came(came.clone()))?;
        }
        pairs.push((prediction, came));
    }
    Ok(pairs)
}

fn write(file: &Path, line: &Line) -> Outcome<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    writeln!(file, "{}", serde_json::to_string(line)?)?;
    Ok(file.sync_all()?)
}

impl Campaign {
    pub(crate) fn run(&self) -> Outcome<()> {
        let began = Instant::now();
        let mut done = if self.out.exists() { results(&self.out)? } else { Vec::new() };
        let known: BTreeSet<u32> = done.iter().map(|(prediction, _)| prediction.case.id).collect();
        let cases: Vec<&Case> = self.plan.iter().filter(|case| !known.contains(&case.id)).collect();
        let mut failed = 0;
        for case in cases {
            if began.elapsed() > self.most {
                println!("the time is over; the same command goes on with case {}", case.id);
                return Ok(());
            }
            println!("{} of {}: {case}", done.len() + 1, self.plan.len());
            match self.one(case, &done) {
                Ok(pair) => done.push(pair),
                // Such as a guest that was not ready in time: it is tried again by the next run.
                Err(error) => {
                    eprintln!("  not done: {error}");
                    lab::answers(case)?;
                    failed += 1;
                }
            }
        }
        println!("{} cases are done, {failed} could not be", done.len());
        Ok(())
    }

    fn one(&self, case: &Case, done: &[Pair]) -> Outcome<Pair> {
        let guest = lab::Guest::start(case)?;
        let (trace, waited_ratio) = guest.trace(self.trace_seconds)?;
        let resident_bytes = guest.resident_bytes()?;
        let link = lab::Link::shape(case.link_mbit)?;
        let path = net::goodput(&case.from, &case.to)?;
        self.keep(case, &trace)?;
        let measured = Measured { trace, path, resident_bytes, waited_ratio };
        let prediction = predict::predict(case, &measured, done)?;
        println!("  foretold {}", score::words(&prediction.trace));
        write(&self.out, &Line::Predicted(Box::new(prediction.clone())))?;
        let came = guest.migrate(case)?;
        drop(link);
        println!(
            "  came     {} total {:.2} s, {:.1} MB, blackout {:.0} ms ({:.0} reported, QEMU expected {:.0}), {} rounds, waited {:.2} and {:.2}",
            came.completed,
            came.total_seconds,
            came.bytes / 1e6,
            came.blackout_seconds.unwrap_or(f64::NAN) * 1e3,
            came.reported_downtime_seconds * 1e3,
            came.expected_downtime_seconds.unwrap_or(f64::NAN) * 1e3,
            came.rounds,
            prediction.waited_ratio.unwrap_or(f64::NAN),
            came.waited_ratio.unwrap_or(f64::NAN)
        );
        write(&self.out, &Line::Came(came.clone()))?;
        Ok((prediction, came))
    }

    /// Saves the trace next to the results (not in the repository): a changed predictor is tested with it, see [`again`].
    fn keep(&self, case: &Case, trace: &DirtyTrace) -> Outcome<()> {
        let file = kept(&self.out, case.id);
        fs::create_dir_all(file.parent().ok_or("the result file has no folder")?)?;
        Ok(fs::write(file, serde_json::to_vec(trace)?)?)
    }
}
