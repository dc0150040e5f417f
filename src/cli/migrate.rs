//! `vmgate migrate`: check, and on GO migrate, watch and verify.

use std::{
    io::IsTerminal,
    sync::{Arc, atomic::AtomicBool},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{
    Failure, hook,
    options::{Goals, MoveOptions, Shared},
    output,
    session::Session,
};
use crate::{
    collect::libvirt::JobStats,
    execute::{Done, Hosts, Pass, Settings, Undone},
    fact::Change,
    preflight::Asked,
    verdict::ExitCode,
};

#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// Name or UUID of the VM
    vm: String,
    #[command(flatten)]
    the_move: MoveOptions,
    #[command(flatten)]
    goals: Goals,
    #[command(flatten)]
    reports: output::Reports,
    /// Warnings keep the VM where it is, with exit code 10
    #[arg(long)]
    strict: bool,
}

impl Migrate {
    pub(super) fn run(&self, shared: &Shared) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let policy = session.policy()?;
        let reports = self.reports.open()?;
        let facts = super::collect::from_hosts(&self.vm, &self.the_move, &self.goals, &session)?;
        let verdict = policy.judge(facts, session.now(), &Asked { strict: self.strict, ..Asked::default() });
        reports.write(std::slice::from_ref(&verdict), shared)?;
        let pass = Pass::from_verdict(&verdict)
            .map_err(|refused| Failure { exit: refused.exit(), text: refused.to_string() })?;

        let hosts = self.the_move.connect(&session)?;
        hook::bring_own(&verdict, &self.the_move.destination()?, &session)?;
        let forecast = verdict.forecast.as_ref();
        let limit_seconds = forecast.and_then(|forecast| forecast.downtime_limit_seconds.known().copied());
        let result = self.carry_out(&pass, &hosts, limit_seconds, shared);
        match result {
            Ok(done) => {
                output::say(shared, &success(&self.vm, &hosts, &done));
                Ok(ExitCode::Go)
            }
            Err(undone) => Err(Failure { exit: undone.exit(), text: undone.to_string() }),
        }
    }

    /// Migrates with the downtime limit that the forecast chose, which is what the verdict rests on.
    fn carry_out(
        &self,
        pass: &Pass,
        hosts: &Hosts,
        limit_seconds: Option<f64>,
        shared: &Shared,
    ) -> Result<Done, Undone> {
        let change = self.goals.over(Change::default());
        let settings = Settings {
            migrate_address: self.the_move.migrate_address,
            bandwidth_limit_bytes_per_second: change.bandwidth_limit_bytes_per_second,
            longest_blackout_seconds: limit_seconds.unwrap_or(change.longest_blackout_seconds),
        };
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(|error| Undone::NotStarted(format!("Ctrl-C could not be caught: {error}")))?;
        }
        let bar = progress_bar(shared);
        let done = hosts.migrate(pass, &settings, &stop, &mut |job| advance(&bar, job));
        bar.finish_and_clear();
        done
    }
}

fn success(vm: &str, hosts: &Hosts, done: &Done) -> String {
    let downtime = done.account.as_ref().and_then(|job| job.downtime);
    let blackout = downtime.map_or(String::new(), |time| format!(", downtime {} ms", time.as_millis()));
    format!(
        "{vm} runs on {} and nowhere else; its agent and interfaces are as before (took {:.1} s{blackout})",
        hosts.destination.name(),
        done.took.as_secs_f64()
    )
}

/// A bar on stderr, where that is a terminal.
fn progress_bar(shared: &Shared) -> ProgressBar {
    if shared.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("migrating {bar:24} {bytes}/{total_bytes}, {elapsed}, {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn advance(bar: &ProgressBar, job: &JobStats) {
    let (Some(done), Some(rest)) = (job.data_processed_bytes, job.data_remaining_bytes) else { return };
    bar.set_length(done.saturating_add(rest));
    bar.set_position(done);
    let rate = job.memory_bytes_per_second.unwrap_or(0) >> 20;
    bar.set_message(match job.dirty_bytes_per_second {
        Some(dirty) => format!("{rate} MiB/s, dirtied at {} MiB/s", dirty >> 20),
        None => format!("{rate} MiB/s"),
    });
}
