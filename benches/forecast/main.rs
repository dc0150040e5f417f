//! The validation bench: forecasts of real migrations in the lab, written down before each starts, beside what came.
//!
//! ```text
//! cargo bench --bench forecast -- run OUT [--seed N] [--cases N] [--trace SECONDS] [--only TEXT]
//! cargo bench --bench forecast -- score FILE      a table, and the errors of all cases together
//! cargo bench --bench forecast -- speed           what a replay costs
//! cargo bench --bench forecast -- trace VM SECONDS
//! ```
//! `run` needs root and the lab (VMGATE_LAB names its command). Each case is two JSON lines in OUT: the prediction and
//! the outcome. The migration link is shaped under a lock and only while a case needs it.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::similar_names,
    reason = "a bench: its figures are small, and it may end with a panic"
)]

mod lab;
mod net;
mod plan;
mod predict;
mod score;
mod speed;

use std::{env, error::Error, fs::OpenOptions, io::Write as _, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};
use vmgate::{
    collect::probe::trace::{Options, Qemu, record},
    fact::trace::TraceCost,
    forecast::replay::Replay,
};

use plan::Case;

/// What a bench can fail with: it says why and ends.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// A line of a result file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Line {
    /// Written before the migration starts.
    Predicted(Box<Prediction>),
    /// Written when it is over.
    Came(Came),
}

/// What was known and foretold before the migration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Prediction {
    /// The case.
    pub(crate) case: Case,
    /// Goodput measured just before, in bytes per second.
    pub(crate) goodput: f64,
    /// Memory dirtied in 1 s by the goodput.
    pub(crate) rho: f64,
    /// Share of zero pages.
    pub(crate) zero_ratio: f64,
    /// What the trace cost.
    pub(crate) cost: TraceCost,
    /// Sampled pages.
    pub(crate) pages: usize,
    /// Time that the replay took, in milliseconds.
    pub(crate) replay_ms: f64,
    /// The forecast.
    pub(crate) replay: Replay,
    /// The simplest forecast: all RAM at the link's rate; the blackout is the limit.
    pub(crate) baseline_seconds: f64,
}

/// What the migration did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Came {
    /// Number of the case in its plan.
    pub(crate) id: u32,
    /// Whether it completed in time.
    pub(crate) completed: bool,
    /// Duration as libvirt reports it.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) total_seconds: f64,
    /// Duration of the command.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) wall_seconds: f64,
    /// Bytes of RAM sent, as QEMU reports.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) bytes: f64,
    /// Passes, as QEMU reports (dirty-sync-count).
    #[serde(deserialize_with = "or_nan")]
    pub(crate) rounds: f64,
    /// Downtime as libvirt reports it.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) reported_downtime_seconds: f64,
    /// Silence of the guest's heartbeat, seen outside it.
    pub(crate) blackout_seconds: Option<f64>,
    /// Setup time as QEMU reports it.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) setup_seconds: f64,
    /// Whether the link was not the case's alone: another rate at the end, or more bytes than QEMU sent.
    #[serde(default)]
    pub(crate) disturbed: bool,
    /// Load of the machine (one minute) when it was over.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) load: f64,
}

/// JSON has no word for what is not a number.
fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn main() -> Outcome<()> {
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let word = |at: usize| words.get(at).map(String::as_str);
    let option = |name: &str| {
        words.iter().position(|word| word == name).and_then(|at| words.get(at + 1)).map(String::as_str)
    };
    match word(0) {
        Some("heartbeat") => net::heartbeat(word(1).unwrap_or_default()),
        Some("sink") => net::sink(word(1).unwrap_or_default()),
        Some("source") => net::source(word(1).unwrap_or_default()),
        Some("score") => score::table(word(1).unwrap_or_default()),
        Some("trace") => trace(word(1).unwrap_or_default(), word(2).unwrap_or("10").parse()?),
        Some("run") => {
            let seed = option("--seed").unwrap_or("1").parse()?;
            let cases = option("--cases").unwrap_or("6").parse()?;
            let seconds = option("--trace").unwrap_or("15").parse()?;
            let plan = plan::cases(seed, cases, option("--only"));
            run(word(1).ok_or("run OUT")?, &plan, seconds)
        }
        None | Some("speed") => speed::measure(),
        Some(other) => Err(format!("there is no `{other}`: run, score, speed or trace").into()),
    }
}

fn run(out: &str, plan: &[Case], trace_seconds: f64) -> Outcome<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(out)?;
    let mut write = |line: &Line| -> Outcome<()> {
        writeln!(file, "{}", serde_json::to_string(line)?)?;
        Ok(file.sync_all()?)
    };
    for case in plan {
        println!("{case}");
        let guest = lab::Guest::start(case)?;
        let trace = guest.trace(trace_seconds)?;
        let link = lab::Link::shape(case.link_mbit)?;
        let goodput = net::goodput(&case.from)?;
        let prediction = predict::predict(case, &trace, goodput)?;
        println!("  foretold {}", score::words(&prediction.replay));
        write(&Line::Predicted(Box::new(prediction)))?;
        let came = guest.migrate(case)?;
        drop(link);
        println!(
            "  came     total {:.2} s, {:.1} MB, blackout {:.0} ms ({:.0} reported), {} rounds",
            came.total_seconds,
            came.bytes / 1e6,
            came.blackout_seconds.unwrap_or(f64::NAN) * 1e3,
            came.reported_downtime_seconds * 1e3,
            came.rounds
        );
        write(&Line::Came(came))?;
    }
    Ok(())
}

fn trace(vm: &str, seconds: f64) -> Outcome<()> {
    let options = Options { length: Duration::from_secs_f64(seconds), ..Options::default() };
    let recording = record(&Qemu::of(vm)?, &options, || false)?;
    for block in &recording.blocks {
        eprintln!("{} {} bytes at {:x}: {}", block.id, block.bytes, block.address, block.kind);
    }
    println!("{}", serde_json::to_string(&recording.trace)?);
    Ok(())
}
