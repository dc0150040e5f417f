//! Entries as a line of text.

use std::fmt;

use super::{
    Entry,
    entry::{
        ActionState, IsolationAction, Migration, MigrationOutcome, Override, RehearsalStarted, RunEnded,
        Transition,
    },
};

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict(given) => {
                let moved = &given.moved;
                let (vm, source, destination) =
                    (moved.vm.label(), moved.source.label(), moved.destination.label());
                let simulated = if given.simulated { "simulated " } else { "" };
                write!(f, "{vm}, {source} -> {destination}: {simulated}{}", given.decision.word())?;
                match given.blocking.as_slice() {
                    [] => Ok(()),
                    blocking => write!(f, " by {}", blocking.join(", ")),
                }
            }
            Self::RunStarted(run) => {
                let (vm, source, destination) = (run.vm.label(), run.source.label(), run.destination.label());
                let trial = if run.trial { "trial of " } else { "" };
                write!(f, "{trial}{vm}, {source} -> {destination}, by {}", run.driver)
            }
            Self::Transition(transition) => transition.fmt(f),
            Self::RunEnded(ended) => ended.fmt(f),
            Self::Migration(migration) => migration.fmt(f),
            Self::Rehearsal(rehearsal) => {
                let pair = &rehearsal.pair;
                write!(
                    f,
                    "{} of QEMU {} -> {} with {} {}, by {}",
                    rehearsal.vm.label(),
                    pair.source_version,
                    pair.destination_version,
                    pair.machine_type,
                    if rehearsal.passed { "passed" } else { "failed" },
                    rehearsal.by
                )
            }
            Self::RehearsalStarted(started) => {
                let RehearsalStarted { name, from, to, by, .. } = started;
                write!(f, "an empty copy of {name}, {from} -> {to}, by {by}")
            }
            Self::NetworkRehearsed(rehearsed) => {
                let (source, destination) = (rehearsed.source.label(), rehearsed.destination.label());
                let result = &rehearsed.result;
                write!(f, "{source} -> {destination}, {}: ", result.network)?;
                match result.dark_seconds {
                    Some(dark) => write!(f, "reached after {dark:.2} s"),
                    None => write!(f, "not reached within {:.0} s", result.waited_seconds),
                }?;
                write!(f, ", by {}", rehearsed.by)
            }
            Self::Isolation(isolation) => {
                let done = match isolation.action {
                    IsolationAction::Isolated => "cut off the network",
                    IsolationAction::Released => "connected to the network again",
                };
                let (vm, host) = (isolation.vm.label(), isolation.host.label());
                write!(f, "{vm} on {host} {done} by {}: {}", isolation.by, isolation.reason)
            }
            Self::Observation(seen) => write!(
                f,
                "{} on {} dirties {:.1} MiB/s, watched for {:.0} s",
                seen.vm.label(),
                seen.host.label(),
                f64::from(u32::try_from(seen.rate_bytes_per_second >> 10).unwrap_or(u32::MAX)) / 1024.0,
                seen.watched_seconds
            ),
            Self::Campaign(event) => event.fmt(f),
            Self::Expulsion(expulsion) => expulsion.fmt(f),
            Self::Override(given) => given.fmt(f),
            Self::Unknown(unknown) => unknown.fmt(f),
        }
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vm, destination, refused_by, by, reason, until, .. } = self;
        let host = destination.label();
        match until {
            Some(until) => {
                let whom =
                    vm.uuid.as_ref().map_or_else(|| "every VM".to_owned(), |uuid| format!("VM {uuid}"));
                write!(f, "{by} lets {whom} into {host} until {until}, overriding {refused_by}: {reason}")
            }
            None => {
                write!(f, "{} was let into {host} by {by}, overriding {refused_by}: {reason}", vm.label())
            }
        }
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.state.name())?;
        if let Some(action) = self.action {
            write!(f, ", action {}", action + 1)?;
        }
        match self.mark {
            Some(ActionState::Needless) => f.write_str(" (nothing to do)")?,
            Some(ActionState::Undone) => f.write_str(" undone")?,
            Some(ActionState::NotUndone) => f.write_str(" NOT undone")?,
            Some(ActionState::Doing) | None => {}
        }
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

impl fmt::Display for RunEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.ending.name())?;
        if self.recovered {
            f.write_str(" by recovery")?;
        }
        match &self.runs_on {
            Some(host) => write!(f, ", the VM runs on {host}")?,
            None => f.write_str(", it is not certain where the VM runs")?,
        }
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            MigrationOutcome::Completed => "migrated",
            MigrationOutcome::Suffers => "migrated, but does not work as before",
            MigrationOutcome::Aborted => "migration aborted",
            MigrationOutcome::Failed => "migration failed",
        };
        write!(f, "{} {outcome}", self.vm.label())?;
        if let Some(seconds) = self.total_seconds {
            write!(f, ", {seconds:.1} s")?;
        }
        if let Some(forecast) = self.forecast_total_seconds {
            write!(f, " (forecast {:.1} to {:.1})", forecast.p5, forecast.p95)?;
        }
        if let Some(seconds) = self.downtime_seconds {
            write!(f, ", downtime {seconds:.3} s")?;
        }
        if let Some(forecast) = self.forecast_blackout_seconds {
            write!(f, " (blackout forecast {:.3} to {:.3})", forecast.p5, forecast.p95)?;
        }
        Ok(())
    }
}
