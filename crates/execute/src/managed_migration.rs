//! A migration that a manager runs: ordered through its door, watched in its statistics, and aborted through the door.
//!
//! The manager decides on limits and measures; vmgate takes none, and aborts only on request or past the deadline. A door that
//! does not answer meanwhile proves nothing: the migration is waited for as long as its job is seen.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use vmgate_collect::HostedVm;
use vmgate_judge::change::MovePlan;
use vmgate_libvirt::JobStats;

use super::{
    Pass,
    door::{Door, DoorError, DoorQuestion, DoorState},
    guard,
    migration::{EndedMigration, Progress},
};

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Time for which the door may fail while no job is seen on the VM.
const PATIENCE: Duration = Duration::from_mins(1);

/// Migrates through the manager. `Err` if it was not ordered, as far as the manager says.
pub(super) fn migrate(
    (pass, door): (&Pass, &Door),
    vm: &HostedVm,
    plan: &MovePlan,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(&Progress),
) -> EndedMigration {
    let mut question = DoorQuestion::about(&pass.verdict().moved);
    let limit = pass
        .verdict()
        .forecast
        .as_ref()
        .and_then(|forecast| forecast.downtime_limit_seconds.known().copied());
    let ended = |result, abort_reason, last_stats| EndedMigration {
        result,
        is_open: false,
        abort_reason,
        last_stats,
        downtime_limit: Duration::from_secs_f64(limit.unwrap_or_default().clamp(0.0, 1e6)),
    };
    match door.start(pass, &question) {
        Ok(id) => question.migration = Some(id),
        Err(error) => {
            let is_open = matches!(error, DoorError::Unclear(_));
            return EndedMigration {
                is_open,
                ..ended(Err(format!("{}: {error}", door.manager)), None, None)
            };
        }
    }
    let start = Instant::now();
    let (mut aborted, mut last): (Option<String>, Option<JobStats>) = (None, None);
    let mut heard = Instant::now();
    loop {
        thread::sleep(LOOK);
        let job = vm.job().ok().flatten();
        match door.progress(&question) {
            Ok(DoorState::Finished) => return ended(Ok(()), aborted, last),
            Ok(DoorState::Failed { why }) => {
                let why = if why.is_empty() { "no reason was given".to_owned() } else { why };
                return ended(
                    Err(format!("{} reports that the migration failed: {why}", door.manager)),
                    aborted,
                    last,
                );
            }
            Ok(DoorState::Running) => heard = Instant::now(),
            Err(error) => {
                tracing::warn!("{error}");
                if job.is_some() {
                    heard = Instant::now();
                } else if heard.elapsed() > PATIENCE {
                    let result =
                        Err(format!("the end of the migration is not known: {}: {error}", door.manager));
                    return EndedMigration { is_open: true, ..ended(result, aborted, last) };
                }
            }
        }
        let elapsed = start.elapsed();
        if aborted.is_none()
            && let Some(why) = reason_to_abort(plan, elapsed, stop.load(Ordering::Relaxed))
        {
            match door.abort(&question) {
                Ok(()) => aborted = Some(why),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        if let Some(job) = job {
            let estimate = guard::estimate(&job, limit.unwrap_or_default());
            let progress = Progress::of(pass, job, estimate, elapsed);
            watch(&progress);
            last = Some(progress.job);
        }
    }
}

fn reason_to_abort(plan: &MovePlan, elapsed: Duration, stop: bool) -> Option<String> {
    if stop {
        return Some("the migration was aborted on request".to_owned());
    }
    let deadline = plan.deadline_seconds.filter(|deadline| elapsed.as_secs_f64() > *deadline)?;
    Some(format!(
        "the migration has run for {:.0} s, and at most {deadline:.0} s are allowed",
        elapsed.as_secs_f64()
    ))
}

/// Difference between the manager's record and the host on which the VM runs, with its cure; none if they agree.
pub(super) fn difference_of_record(door: &Door, question: &DoorQuestion, runs_on: &str) -> Option<String> {
    let vm = question.vm.label();
    match door.recorded_host(question) {
        Ok(host) if is_same_host(&host, runs_on) => None,
        Ok(host) => Some(format!(
            "{} has {vm} on {host}, and it runs on {runs_on}: correct the manager's record before anybody stops, starts or moves the \
             VM there",
            door.manager
        )),
        Err(error) => Some(format!(
            "the record of {} could not be read ({error}): look there that {vm} is on {runs_on}",
            door.manager
        )),
    }
}

/// The same, once the manager has had time to end a migration that nobody followed.
pub(super) fn settled_difference(door: &Door, question: &DoorQuestion, runs_on: &str) -> Option<String> {
    let end = Instant::now() + PATIENCE / 2;
    loop {
        let difference = difference_of_record(door, question, runs_on)?;
        if Instant::now() > end {
            return Some(difference);
        }
        thread::sleep(LOOK);
    }
}

/// True if two names of hosts are one, with their domain or without.
fn is_same_host(one: &str, other: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    one.eq_ignore_ascii_case(other)
        || (short(one) == short(other) && (!one.contains('.') || !other.contains('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_one_with_their_domain_or_without() {
        assert!(is_same_host("hv2", "HV2") && is_same_host("hv2.example.org", "hv2"));
        assert!(!is_same_host("hv2.a.org", "hv2.b.org") && !is_same_host("hv2", "hv20"));
    }

    #[test]
    fn a_move_past_its_deadline_is_aborted() {
        let plan = MovePlan { deadline_seconds: Some(60.0), ..MovePlan::default() };
        assert_eq!(reason_to_abort(&plan, Duration::from_secs(59), false), None);
        assert!(reason_to_abort(&plan, Duration::from_secs(61), false).unwrap().contains("at most 60 s"));
        assert!(reason_to_abort(&MovePlan::default(), Duration::from_hours(9), false).is_none());
        assert!(reason_to_abort(&plan, Duration::ZERO, true).unwrap().contains("on request"));
    }
}
