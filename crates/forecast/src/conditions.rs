//! Conditions of a replay from the facts: speed of the path, pages that no trace shows, and the fixed costs of this pair of
//! hosts, measured by a trial where there was one.
//!
//! Costs differ from site to site. Nothing measured elsewhere is taken for this pair: without a trial or earlier migrations
//! the ranges are wide, and the forecast says so.

use vmgate_facts::{Facts, MigrationPath, TrialAnswer};

use super::{
    precopy,
    replay::{Conditions, Interval},
};

/// Coefficient of variation of the goodput from one migration to the next: measured, or estimated from the nominal
/// speed.
const MEASURED_CV: f64 = 0.01;
const NOMINAL_CV: f64 = 0.05;
/// Speed of a line that nobody knows, as a multiple of the limit below it, and its variation: the switchover goes without
/// the limit.
const UNTOLD_SPEED: f64 = 3.0;
const UNTOLD_CV: f64 = 0.5;
/// Setup of a migration relative to that of its trial.
const AS_IN_TRIAL: Interval = Interval { low: 0.8, high: 1.3 };

/// Conditions, and what the fixed costs in them come from.
pub(super) struct KnownConditions {
    pub(super) conditions: Conditions,
    /// True if a trial measured the setup.
    pub(super) tried: bool,
}

/// Conditions of this move; none where the speed of the path is not known.
pub(super) fn of(facts: &Facts, path: &MigrationPath) -> Option<KnownConditions> {
    let (goodput, goodput_cv) = goodput(path)?;
    let mut conditions =
        Conditions { goodput_bytes_per_second: goodput, goodput_cv, ..Conditions::default() };
    if let Some(vcpus) = facts.vm.known().and_then(|vm| vm.vcpus.known()) {
        conditions.vcpus = *vcpus;
    }
    let trial = facts.trial.known().and_then(Option::as_ref);
    let accepted = trial.filter(|trial| trial.answer == TrialAnswer::Accepted);
    let setup = accepted.and_then(|trial| trial.until_sent_seconds).filter(|setup| *setup > 0.0);
    if let Some(setup) = setup {
        conditions.setup_seconds = Interval { low: setup * AS_IN_TRIAL.low, high: setup * AS_IN_TRIAL.high };
    }
    let limit = facts.change.bandwidth_limit_bytes_per_second.map(precopy::as_f64);
    Some(KnownConditions {
        conditions: conditions.shared_by(facts.change.moves_at_once, limit),
        tried: setup.is_some(),
    })
}

/// Goodput of the path itself and its variation. QEMU's own limit holds until the switchover and is not part of it.
fn goodput(path: &MigrationPath) -> Option<(f64, f64)> {
    let measured = path.goodput_bytes_per_second.known().is_some();
    let goodput = match precopy::line_goodput(path) {
        Some(line) => (line, if measured { MEASURED_CV } else { NOMINAL_CV }),
        // What is known of the path is a limit: the line below it carries more.
        None if path.limit_bytes_per_second.known().copied().flatten().is_some() => {
            (precopy::path_goodput(path).known()? * UNTOLD_SPEED, UNTOLD_CV)
        }
        None => (*precopy::path_goodput(path).known()?, NOMINAL_CV),
    };
    (goodput.0 > 0.0).then_some(goodput)
}

/// Origin of the fixed costs, in words for the operator.
pub(super) fn in_words(tried: bool, earlier_migrations: u32) -> String {
    match (earlier_migrations, tried) {
        (0, false) => "assumed: no earlier migration between these hosts and QEMU versions is in the ledger, so duration and \
                       blackout may be off by some tenths of a second; `vmgate check --trial` measures the setup"
            .to_owned(),
        (0, true) => "setup measured by the trial; the switchover is assumed: no earlier migration between these hosts and \
                      QEMU versions is in the ledger"
            .to_owned(),
        (number, _) => format!(
            "corrected by {number} earlier migration{} between these hosts and QEMU versions",
            if number == 1 { "" } else { "s" }
        ),
    }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::{Fact, PathNic};

    use super::*;

    fn path(limit: Option<u64>, goodput: Option<u64>) -> MigrationPath {
        let known = |value: Option<u64>| value.map_or_else(Fact::default, Fact::Known);
        MigrationPath {
            goodput_bytes_per_second: known(goodput),
            bandwidth_bytes_per_second: known(limit),
            limit_bytes_per_second: Fact::Known(limit),
            ..MigrationPath::default()
        }
    }

    #[test]
    fn a_limit_of_qemu_is_not_the_speed_of_the_line() {
        assert_eq!(super::goodput(&path(Some(100), Some(1000))), Some((1000.0, MEASURED_CV)));
        let (untold, cv) = super::goodput(&path(Some(100), None)).unwrap();
        assert!(untold > 200.0 && cv > 0.4, "{untold}");
        assert_eq!(super::goodput(&MigrationPath::default()), None);
    }

    #[test]
    fn nominal_speeds_count_where_no_goodput_was_measured() {
        let facts = crate::tests::fixture("idle-vm");
        let mut path = facts.path.known().unwrap().clone();
        path.goodput_bytes_per_second = Fact::default();
        path.limit_bytes_per_second = Fact::Known(Some(100));
        path.bandwidth_bytes_per_second = Fact::Known(100);
        let speed = |nic: &Fact<PathNic>| nic.known().unwrap().speed_bytes_per_second.unwrap();
        let slower = speed(&path.source_nic).min(speed(&path.destination_nic));
        assert_eq!(super::goodput(&path), Some((precopy::as_f64(slower) * 0.9, NOMINAL_CV)));
    }
}
