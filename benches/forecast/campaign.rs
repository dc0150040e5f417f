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
    Came, Line, Outcome, Prediction,
    constants::{Constants, corrections},
    lab,
    net::{self, Goodput},
    plan::{Case, Part},
    predict, score,
};

/// Options of a campaign.
pub(crate) struct Campaign {
    /// File of results, next to which the constants are written.
    pub(crate) out: PathBuf,
    pub(crate) plan: Vec<Case>,
    /// Results of an earlier campaign, all of whose cases are tuning cases.
    pub(crate) tuned_on: Option<PathBuf>,
    pub(crate) trace_seconds: f64,
    /// Time to stop, checked between two cases.
    pub(crate) most: Duration,
}

/// Predictions and outcomes in a result file. An interrupted case has no outcome and is left out.
fn read(file: &Path) -> Outcome<Vec<(Prediction, Came)>> {
    let mut predicted: BTreeMap<u32, Prediction> = BTreeMap::new();
    let mut pairs = Vec::new();
    let text = if file.exists() { fs::read_to_string(file)? } else { String::new() };
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

/// Cases, forecast again by today's predictor from their saved traces.
fn foretell(
    results: &Path,
    pairs: Vec<(Prediction, Came)>,
    constants: &Constants,
) -> Outcome<Vec<(Prediction, Came)>> {
    let one = |(before, came): (Prediction, Came)| {
        let trace = serde_json::from_slice(&fs::read(kept(results, before.case.id))?)?;
        let path = Goodput { bytes_per_second: before.goodput, queue_bytes: before.queue_bytes };
        Ok((predict::predict(&before.case, &trace, path, constants)?, came))
    };
    pairs.into_iter().map(one).collect()
}

/// Constants that today's predictor learns from these cases.
fn learn(results: &Path, pairs: Vec<(Prediction, Came)>) -> Outcome<Constants> {
    let pairs = foretell(results, pairs, &Constants::default())?;
    let learnt = Constants::default().learn(&pairs);
    let corrections = corrections(&foretell(results, pairs, &learnt)?);
    Ok(Constants { corrections, ..learnt })
}

/// All cases, forecast again with the frozen constants, else with newly learnt ones: shows the effect of a changed predictor. Not a
/// proof: the predictor was not frozen before the cases ran.
pub(crate) fn again(results: &Path) -> Outcome<(Vec<(Prediction, Came)>, Constants)> {
    let pairs = read(results)?;
    let constants = match Constants::read(&frozen(results))? {
        Some(frozen) => frozen,
        None => learn(results, pairs.clone())?,
    };
    Ok((foretell(results, pairs, &constants)?, constants))
}

/// The cases of a result file, with the frozen constants for the validation cases.
pub(crate) fn results(file: &Path) -> Outcome<(Vec<(Prediction, Came)>, Constants)> {
    Ok((read(file)?, Constants::read(&frozen(file))?.unwrap_or_default()))
}

/// File of the learnt fixed costs.
fn frozen(results: &Path) -> PathBuf {
    results.with_extension("constants.json")
}

impl Campaign {
    pub(crate) fn run(&self) -> Outcome<()> {
        let began = Instant::now();
        let mut done = read(&self.out)?;
        let known: BTreeSet<u32> = done.iter().map(|(prediction, _)| prediction.case.id).collect();
        let mut failed = 0;
        for case in self.plan.iter().filter(|case| !known.contains(&case.id)) {
            if began.elapsed() > self.most {
                println!("the time is over; the same command goes on with case {}", case.id);
                return Ok(());
            }
            let constants = self.constants(case.part, &done)?;
            println!("{} of {}: {case}", case.id + 1, self.plan.len());
            match self.one(case, &constants) {
                Ok(pair) => done.push(pair),
                // Such as a guest that was not ready in time: it is tried again by the next run.
                Err(error) => {
                    failed += 1;
                    eprintln!("  not done: {error}");
                }
            }
        }
        println!("{} cases are done, {failed} could not be", done.len());
        Ok(())
    }

    /// Constants: wide guesses while tuning cases run; then those learnt from them, written once and never changed.
    fn constants(&self, part: Part, done: &[(Prediction, Came)]) -> Outcome<Constants> {
        let file = frozen(&self.out);
        if part == Part::Tune {
            return Ok(Constants::default());
        }
        if let Some(frozen) = Constants::read(&file)? {
            return Ok(frozen);
        }
        let learnt = if let Some(earlier) = &self.tuned_on {
            learn(earlier, read(earlier)?)?
        } else {
            let of_tuning = |(prediction, _): &&(Prediction, Came)| prediction.case.part == Part::Tune;
            learn(&self.out, done.iter().filter(of_tuning).cloned().collect())?
        };
        learnt.write(&file)?;
        println!("what {} cases taught is frozen in {}", learnt.cases, file.display());
        Ok(learnt)
    }

    fn one(&self, case: &Case, constants: &Constants) -> Outcome<(Prediction, Came)> {
        let guest = lab::Guest::start(case)?;
        let trace = guest.trace(self.trace_seconds)?;
        let link = lab::Link::shape(case.link_mbit)?;
        let path = net::goodput(&case.from)?;
        self.keep(case, &trace)?;
        let prediction = predict::predict(case, &trace, path, constants)?;
        println!("  foretold {}", score::words(&prediction.replay));
        self.write(&Line::Predicted(Box::new(prediction.clone())))?;
        let came = guest.migrate(case)?;
        drop(link);
        println!(
            "  came     total {:.2} s, {:.1} MB, blackout {:.0} ms ({:.0} reported), {} rounds, pressure {:.2}",
            came.total_seconds,
            came.bytes / 1e6,
            came.blackout_seconds.unwrap_or(f64::NAN) * 1e3,
            came.reported_downtime_seconds * 1e3,
            came.rounds,
            came.pressure.stalled_ratio
        );
        self.write(&Line::Came(came.clone()))?;
        Ok((prediction, came))
    }

    /// Saves the trace next to the results (not in the repository): a changed predictor is tested with it, see [`again`].
    fn keep(&self, case: &Case, trace: &DirtyTrace) -> Outcome<()> {
        let file = kept(&self.out, case.id);
        fs::create_dir_all(file.parent().ok_or("the result file has no folder")?)?;
        Ok(fs::write(file, serde_json::to_vec(trace)?)?)
    }

    fn write(&self, line: &Line) -> Outcome<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.out)?;
        writeln!(file, "{}", serde_json::to_string(line)?)?;
        Ok(file.sync_all()?)
    }
}
