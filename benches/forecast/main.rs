//! Validation of the forecast: forecasts of real migrations in the lab, written before each starts, and the measured results.
//!
//! ```text
//! cargo bench --bench forecast -- run OUT [--seed N] [--kvm CASES | --share 1.0] [--minutes N] [--trace SECONDS] [--only TEXT]
//! cargo bench --bench forecast -- score FILE      a table of all cases, and the errors by kind
//! cargo bench --bench forecast -- again FILE      the same, forecast again by today's predictor from the saved traces
//! cargo bench --bench forecast -- docs DIR        docs/forecast-measured.md and its plots
//! cargo bench --bench forecast -- speed           cost of a replay
//! cargo bench --bench forecast -- trace VM SECONDS
//! ```
//! `run --kvm N` carries out N migrations of guests under KVM, where /dev/kvm works; `public FILE` foretells each migration of the
//! public KVM set (lines of query-migrate polls, see crates/forecast/tests/public_set) from the other runs, and scores it.
//!
//! `run` needs root and the lab (`eval "$(tests/lab/lab env)"`). Each case is two JSON lines in OUT: the prediction and
//! the outcome. It continues after an interruption, and ends after N minutes. Nothing is known of the hosts at first: each
//! forecast is corrected by the earlier cases between the same two hosts, once there are a few.

#![allow(clippy::pedantic)] // a campaign, run by hand
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::similar_names,
    reason = "a bench: its figures are small, and it may end with a panic"
)]

mod baseline;
mod campaign;
mod docs;
mod lab;
mod learnt;
mod load;
mod managers;
mod net;
mod plan;
mod predict;
mod public;
#[path = "../../crates/forecast/tests/public_set/mod.rs"]
#[allow(dead_code, clippy::all, reason = "shared with the test of the public set")]
mod public_set;
mod score;
mod speed;

use std::{env, error::Error, path::Path, time::Duration};

use baseline::Baseline;
use campaign::Campaign;
use learnt::Forecast;
use load::Pressure;
use plan::Case;
use serde::{Deserialize, Deserializer, Serialize};
use vmgate_facts::trace::TraceCost;
use vmgate_probe::trace::{Qemu, TraceOptions, record};

/// Error of the bench, which prints it and ends.
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

/// Inputs and forecast before the migration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Prediction {
    /// The case.
    pub(crate) case: Case,
    /// Goodput measured just before, in bytes per second.
    pub(crate) goodput: f64,
    /// Unsent and unacknowledged bytes in the socket of that measurement.
    pub(crate) queue_bytes: f64,
    /// Resident set of the guest's QEMU.
    pub(crate) resident_bytes: u64,
    /// Memory dirtied in 1 s by the goodput.
    pub(crate) rho: f64,
    /// Share of zero pages.
    pub(crate) zero_ratio: f64,
    /// Time that QEMU waited for a processor while it was traced, by the trace's length.
    #[serde(default)]
    pub(crate) waited_ratio: Option<f64>,
    /// Cost of the trace.
    pub(crate) cost: TraceCost,
    /// Sampled pages.
    pub(crate) pages: usize,
    /// Time that the replay took, in milliseconds.
    pub(crate) replay_ms: f64,
    /// Forecast from the trace.
    pub(crate) trace: Forecast,
    /// Forecast from dirty windows and the resident set.
    pub(crate) windows: Option<Forecast>,
    /// Two simpler models.
    pub(crate) mean_rate: Baseline,
    pub(crate) working_set: Baseline,
}

/// Measured result of the migration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Came {
    /// Number of the case in its plan.
    pub(crate) id: u32,
    /// True if the migration completed in time.
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
    /// Silence of the guest's heartbeat around the switch, seen outside it.
    pub(crate) blackout_seconds: Option<f64>,
    /// Its longest silence while the migration ran: a throttled guest has longer ones than the switch.
    #[serde(default)]
    pub(crate) longest_silence_seconds: Option<f64>,
    /// QEMU's last expected downtime before the switch, as libvirt reports it.
    pub(crate) expected_downtime_seconds: Option<f64>,
    /// Setup time as QEMU reports it.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) setup_seconds: f64,
    /// True if the link was not used by this case alone: another rate at the end, or more bytes than QEMU sent.
    #[serde(default)]
    pub(crate) disturbed: bool,
    /// Load of the machine (one minute) when it was over.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) load: f64,
    /// Time that the source's QEMU waited for a processor meanwhile, by the duration.
    #[serde(default)]
    pub(crate) waited_ratio: Option<f64>,
    /// Other load of the machine meanwhile.
    #[serde(default)]
    pub(crate) pressure: Pressure,
}

/// Serialises NaN as null: JSON has no NaN.
pub(crate) fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
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
        Some("score") => score::table(&campaign::results(Path::new(word(1).ok_or("score FILE")?))?),
        Some("again") => score::table(&campaign::again(Path::new(word(1).ok_or("again FILE")?))?),
        Some("docs") => docs::write(Path::new(word(1).unwrap_or("docs"))),
        Some("public") => public::score(Path::new(word(1).ok_or("public FILE")?)),
        Some("trace") => trace(word(1).unwrap_or_default(), word(2).unwrap_or("10").parse()?),
        Some("run") => {
            let seed = option("--seed").unwrap_or("1").parse()?;
            let share = option("--share").unwrap_or("1").parse()?;
            let minutes: f64 = option("--minutes").unwrap_or("1440").parse()?;
            let campaign = Campaign {
                out: word(1).ok_or("run OUT")?.into(),
                plan: match option("--kvm") {
                    Some(number) => plan::kvm_cases(seed, number.parse()?)?,
                    None => plan::cases(seed, share, option("--only")),
                },
                trace_seconds: option("--trace").unwrap_or("10").parse()?,
                most: Duration::from_secs_f64(minutes * 60.0),
            };
            campaign.run()
        }
        None | Some("speed") => speed::measure(),
        Some(other) => {
            Err(format!("there is no `{other}`: run, score, again, docs, public, speed or trace").into())
        }
    }
}

fn trace(vm: &str, seconds: f64) -> Outcome<()> {
    let options = TraceOptions { length: Duration::from_secs_f64(seconds), ..TraceOptions::default() };
    let recording = record(&Qemu::of(vm)?, &options, || false)?;
    for block in &recording.blocks {
        eprintln!("{} {} bytes at {:x}: {}", block.id, block.bytes, block.address, block.kind);
    }
    println!("{}", serde_json::to_string(&recording.trace)?);
    Ok(())
}
