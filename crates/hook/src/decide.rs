//! Checks a verified verdict against an incoming migration: VM, destination, expiry and GO. No I/O.

use jiff::{SignedDuration, Timestamp};
use thiserror::Error;
use vmgate_attest::{Decision, NoAuthority, Permit};

use vmgate_facts::Uuid;

/// An incoming migration: VM and destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IncomingMigration {
    /// The VM's UUID.
    pub(super) vm: Uuid,
    /// This host's UUID.
    pub(super) destination: Uuid,
}

/// Limits that a host sets to the times of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeLimits {
    /// Longest time that a verdict may have been evaluated later than now.
    pub(super) skew: SignedDuration,
    /// Longest time from the evaluation of a verdict to its end.
    pub(super) lifetime: SignedDuration,
}

/// Reason why a verdict does not let a VM in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum VerdictMismatch {
    /// The verdict is about another VM. There may be many of these; they are not reported.
    #[error("the verdict is about another VM")]
    OtherVm,
    /// The verdict is about another destination host.
    #[error("the verdict for this VM is about the destination host {0}, but this is host {1}")]
    OtherDestination(String, Uuid),
    /// The verdict is not GO.
    #[error("the verdict for this VM is {0}: {1}")]
    NotGo(&'static str, &'static str),
    /// The verdict has expired.
    #[error("the verdict for this VM expired at {0}; the time on this host is {1}")]
    Expired(Timestamp, Timestamp),
    /// The verdict permits nothing: it is simulated, or its times are not those of a verdict of the present.
    #[error(transparent)]
    NoAuthority(#[from] NoAuthority),
}

/// Holds a verdict against what is asked. The source host is not among what libvirt tells, so it is not compared.
pub(super) fn fits(
    verdict: &Permit,
    asked: &IncomingMigration,
    limits: TimeLimits,
    now: Timestamp,
) -> Result<(), VerdictMismatch> {
    if verdict.moved.vm.uuid.as_ref() != Some(&asked.vm) {
        return Err(VerdictMismatch::OtherVm);
    }
    destined(verdict, &asked.destination, limits, now)
}

/// The same without regard to the VM: whether it can ever be of use on this host.
pub(super) fn destined(
    verdict: &Permit,
    host: &Uuid,
    limits: TimeLimits,
    now: Timestamp,
) -> Result<(), VerdictMismatch> {
    holds_here(verdict, host, now)?;
    verdict.validity().check(now, limits.skew, limits.lifetime)?;
    if !verdict.permits_migration(now) {
        let because = match verdict.decision {
            Decision::Go(_) => "there are warnings, and --strict was used",
            no_go @ Decision::NoGo(_) => no_go.reason(),
        };
        return Err(VerdictMismatch::NotGo(verdict.decision.word(), because));
    }
    Ok(())
}

/// True to its word, a NO-GO cancels what waits for its VM: it must be about this host, and of the present. The age of its
/// facts does not matter.
pub(super) fn cancels(
    verdict: &Permit,
    host: &Uuid,
    limits: TimeLimits,
    now: Timestamp,
) -> Result<(), VerdictMismatch> {
    holds_here(verdict, host, now)?;
    match verdict.validity().check(now, limits.skew, SignedDuration::MAX) {
        Err(NoAuthority::StaleFacts { .. }) => Ok(()),
        checked => Ok(checked?),
    }
}

/// A verdict must be about this host and not have expired.
fn holds_here(verdict: &Permit, host: &Uuid, now: Timestamp) -> Result<(), VerdictMismatch> {
    let destination = verdict.moved.destination.uuid.as_ref();
    if destination != Some(host) {
        let named = destination.map_or("(not named)", Uuid::as_str);
        return Err(VerdictMismatch::OtherDestination(named.to_owned(), host.clone()));
    }
    if now >= verdict.expires_at {
        return Err(VerdictMismatch::Expired(verdict.expires_at, now));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vmgate_attest::{
        Digest, GoReason, NameAndUuid, NoGoReason, PermitDigests, PermitSchema, PermittedMove,
    };

    use super::*;

    const LIMITS: TimeLimits =
        TimeLimits { skew: SignedDuration::from_secs(60), lifetime: SignedDuration::from_hours(1) };

    fn now() -> Timestamp {
        "2026-11-23T10:00:00Z".parse().unwrap()
    }

    fn go() -> Permit {
        let uuid = |digit: char| {
            let uuid = "00000000-0000-4000-8000-00000000000a".replace('a', &digit.to_string());
            NameAndUuid { name: None, uuid: Some(uuid.parse().unwrap()) }
        };
        Permit {
            schema: PermitSchema::V1,
            evaluated_at: now(),
            expires_at: "2026-11-23T11:00:00Z".parse().unwrap(),
            simulated: false,
            moved: PermittedMove {
                vm: uuid('a'),
                source: uuid('c'),
                destination: uuid('b'),
                migrate_address: None,
            },
            decision: Decision::Go(GoReason::AllClear),
            strict: false,
            digests: PermitDigests { facts: Some(Digest::of(b"facts")) },
            basis: None,
            counts: None,
        }
    }

    fn asked() -> IncomingMigration {
        let moved = go().moved;
        IncomingMigration { vm: moved.vm.uuid.unwrap(), destination: moved.destination.uuid.unwrap() }
    }

    #[test]
    fn a_go_lets_in_its_vm_on_its_destination_until_it_expires() {
        let permit = go();
        assert_eq!(fits(&permit, &asked(), LIMITS, now()), Ok(()));
        let written_otherwise = IncomingMigration {
            vm: asked().vm.as_str().to_uppercase().replace('-', "").parse().unwrap(),
            destination: asked().destination,
        };
        assert_eq!(fits(&permit, &written_otherwise, LIMITS, now()), Ok(()));
        assert!(matches!(
            fits(&permit, &asked(), LIMITS, permit.expires_at),
            Err(VerdictMismatch::Expired(..))
        ));
        let other_vm = IncomingMigration { vm: asked().destination, ..asked() };
        assert_eq!(fits(&permit, &other_vm, LIMITS, now()), Err(VerdictMismatch::OtherVm));
        let other_host = IncomingMigration { destination: asked().vm, ..asked() };
        assert!(matches!(
            fits(&permit, &other_host, LIMITS, now()),
            Err(VerdictMismatch::OtherDestination(..))
        ));
    }

    #[test]
    fn a_simulated_verdict_and_one_from_the_future_let_nobody_in() {
        let simulated = Permit { simulated: true, ..go() };
        let why = fits(&simulated, &asked(), LIMITS, now()).unwrap_err();
        assert!(why.to_string().contains("simulated"), "{why}");
        let future = Permit { evaluated_at: "2026-11-23T10:30:00Z".parse().unwrap(), ..go() };
        let why = fits(&future, &asked(), LIMITS, now()).unwrap_err();
        assert!(matches!(why, VerdictMismatch::NoAuthority(NoAuthority::Future { .. })), "{why}");
    }

    #[test]
    fn what_is_no_clear_go_lets_nobody_in() {
        let no_go = Permit { decision: Decision::NoGo(NoGoReason::RuleViolated), ..go() };
        let why = fits(&no_go, &asked(), LIMITS, now()).unwrap_err();
        assert_eq!(why.to_string(), "the verdict for this VM is NO-GO: a rule is violated");
        let mut nameless = go();
        nameless.moved.vm.uuid = None;
        assert_eq!(fits(&nameless, &asked(), LIMITS, now()), Err(VerdictMismatch::OtherVm));
        nameless = go();
        nameless.moved.destination.uuid = None;
        assert!(matches!(
            fits(&nameless, &asked(), LIMITS, now()),
            Err(VerdictMismatch::OtherDestination(..))
        ));
    }
}
