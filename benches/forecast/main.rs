//! Validation of the forecast: forecasts of real migrations in the lab, written before each starts, and the measured results.
//!
//! `cargo bench --bench forecast -- help` lists its commands. `run` needs root and the lab (`eval "$(tests/lab/lab env)"`). Each
//! case is two JSON lines in OUT: the prediction and the outcome. It continues after an interruption. Nothing is known of the hosts
//! at first: each forecast is corrected by the earlier cases between the same two hosts.

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
mod parts;
mod plan;
mod predict;
mod public;
#[path = "../../crates/forecast/tests/public_set/mod.rs"]
#[allow(dead_code, clippy::all, reason = "shared with the test of the public set")]
mod public_set;
mod score;
mod speed;

use std::{env, error::Error, path::PathBuf, time::Duration};

use baseline::Baseline;
use campaign::Campaign;
use clap::{Parser, Subcommand};
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

/// Forecasts of real migrations, held against what came.
#[derive(Parser)]
#[command(name = "forecast")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Foretell migrations in the lab, and carry them out
    Run {
        /// File of results, with which it goes on
        out: PathBuf,
        /// Seed of the plan
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Number of migrations of guests under KVM, instead of emulated ones
        #[arg(long, conflicts_with_all = ["share", "only"], value_parser = clap::value_parser!(u16).range(10..))]
        kvm: Option<u16>,
        /// Part of the plan for emulated guests
        #[arg(long, default_value_t = 1.0)]
        share: f64,
        /// Kinds of emulated guests whose name has this text
        #[arg(long)]
        only: Option<String>,
        /// Time after which no further migration is begun
        #[arg(long, default_value_t = 1440.0)]
        minutes: f64,
        /// Length of each trace, in seconds
        #[arg(long, default_value_t = 10.0)]
        trace: f64,
    },
    /// Table of all cases, and the errors by kind
    Score { file: PathBuf },
    /// The same, foretold anew by today's predictor from the saved traces
    Again {
        file: PathBuf,
        /// File for the new predictions beside what came
        out: Option<PathBuf>,
    },
    /// Write docs/forecast-measured.md and its plots
    Docs {
        #[arg(default_value = "docs")]
        folder: PathBuf,
    },
    /// Foretell each migration of the public KVM set from the other runs (crates/forecast/tests/public_set)
    Public { file: PathBuf },
    /// Time and memory of a forecast
    Speed,
    /// Trace a guest of this machine
    Trace {
        vm: String,
        #[arg(default_value_t = 10.0)]
        seconds: f64,
    },
    #[command(hide = true)]
    Heartbeat { address: String },
    #[command(hide = true)]
    Sink { address: String },
    #[command(hide = true)]
    Source { address: String },
}

fn main() -> Outcome<()> {
    // Cargo adds the option.
    let arguments = Arguments::parse_from(env::args().filter(|word| word != "--bench"));
    match arguments.command.unwrap_or(Command::Speed) {
        Command::Heartbeat { address } => net::heartbeat(&address),
        Command::Sink { address } => net::sink(&address),
        Command::Source { address } => net::source(&address),
        Command::Score { file } => score::table(&campaign::results(&file)?),
        Command::Again { file, out } => score::table(&campaign::again(&file, out.as_deref())?),
        Command::Docs { folder } => docs::write(&folder),
        Command::Public { file } => public::score(&file),
        Command::Trace { vm, seconds } => trace(&vm, seconds),
        Command::Speed => speed::measure(),
        Command::Run { out, seed, kvm, share, only, minutes, trace } => {
            let plan = match kvm {
                Some(number) => plan::kvm_cases(seed, number.into())?,
                None => plan::cases(seed, share, only.as_deref()),
            };
            let most = Duration::from_secs_f64(minutes * 60.0);
            Campaign { out, plan, trace_seconds: trace, most }.run()
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
