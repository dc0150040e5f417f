//! Checks a verified verdict against an incoming migration: VM, destination, expiry and GO. No I/O.

use jiff::Timestamp;
use thiserror::Error;

use crate::verdict::{Decision, Verdict};

/// An incoming migration: VM and destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IncomingMigration {
    /// The VM's UUID.
    pub(super) vm: String,
    /// This host's UUID.
    pub(super) destination: String,
}

/// Reason why a verdict does not let a VM in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum VerdictMismatch {
    /// The verdict is about another VM. There may be many of these; they are not reported.
    #[error("the verdict is about another VM")]
    OtherVm,
    /// The verdict is about another destination host.
    #[error("the verdict for this VM is about the destination host {0}, but this is host {1}")]
    OtherDestination(String, String),
    /// The verdict is not GO.
    #[error("the verdict for this VM is {0}: {1}")]
    NotGo(&'static str, &'static str),
    /// The verdict has expired.
    #[error("the verdict for this VM expired at {0}; the time on this host is {1}")]
    Expired(Timestamp, Timestamp),
}

/// Compares two UUIDs, ignoring case and hyphens.
pub(super) fn same_uuid(one: &str, other: &str) -> bool {
    let digits =
        |text: &str| text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect::<String>();
    digits(one) == digits(other)
}

/// Checks a verdict against an incoming migration. The source host is not compared: libvirt does not give it to a hook.
pub(super) fn check(
    verdict: &Verdict,
    asked: &IncomingMigration,
    now: Timestamp,
) -> Result<(), VerdictMismatch> {
    let is = |uuid: &Option<String>, meant: &str| uuid.as_deref().is_some_and(|uuid| same_uuid(uuid, meant));
    if !is(&verdict.moved.vm.uuid, &asked.vm) {
        return Err(VerdictMismatch::OtherVm);
    }
    check_destination(verdict, &asked.destination, now)
}

/// Checks a verdict without its VM: destination, expiry and GO.
pub(super) fn check_destination(
    verdict: &Verdict,
    host: &str,
    now: Timestamp,
) -> Result<(), VerdictMismatch> {
    let destination = verdict.moved.destination.uuid.as_deref().unwrap_or("(not named)");
    if !same_uuid(destination, host) {
        return Err(VerdictMismatch::OtherDestination(destination.to_owned(), host.to_owned()));
    }
    if now >= verdict.expires_at {
        return Err(VerdictMismatch::Expired(verdict.expires_at, now));
    }
    if !verdict.permits_migration(now) {
        let because = match verdict.decision {
            Decision::Go(_) => "there are warnings, and --strict was used",
            no_go @ Decision::NoGo(_) => no_go.reason(),
        };
        return Err(VerdictMismatch::NotGo(verdict.decision.word(), because));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::sample;

    fn asked() -> IncomingMigration {
        let moved = sample::go().moved;
        IncomingMigration { vm: moved.vm.uuid.unwrap(), destination: moved.destination.uuid.unwrap() }
    }

    #[test]
    fn a_go_lets_in_its_vm_on_its_destination_until_it_expires() {
        let go = sample::go();
        assert_eq!(check(&go, &asked(), sample::now()), Ok(()));
        let written_otherwise = IncomingMigration {
            vm: asked().vm.to_uppercase().replace('-', ""),
            destination: asked().destination,
        };
        assert_eq!(check(&go, &written_otherwise, sample::now()), Ok(()));
        assert!(matches!(check(&go, &asked(), go.expires_at), Err(VerdictMismatch::Expired(..))));
        let other_vm = IncomingMigration { vm: asked().destination, ..asked() };
        assert_eq!(check(&go, &other_vm, sample::now()), Err(VerdictMismatch::OtherVm));
        let other_host = IncomingMigration { destination: asked().vm, ..asked() };
        assert!(matches!(check(&go, &other_host, sample::now()), Err(VerdictMismatch::OtherDestination(..))));
    }

    #[test]
    fn what_is_no_clear_go_lets_nobody_in() {
        let mut no_go = sample::no_go();
        no_go.moved = sample::go().moved;
        let why = check(&no_go, &asked(), sample::now()).unwrap_err();
        assert_eq!(why.to_string(), "the verdict for this VM is NO-GO: a rule is violated");
        let mut nameless = sample::go();
        nameless.moved.vm.uuid = None;
        assert_eq!(check(&nameless, &asked(), sample::now()), Err(VerdictMismatch::OtherVm));
        nameless = sample::go();
        nameless.moved.destination.uuid = None;
        assert!(matches!(
            check(&nameless, &asked(), sample::now()),
            Err(VerdictMismatch::OtherDestination(..))
        ));
    }
}
