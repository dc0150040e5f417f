//! Rules for the return move: rules with the tag `way-back` are also evaluated for the move in the opposite direction.
//! Their failures are warnings: the move itself may succeed, but the VM could not return to its source.

use jiff::Timestamp;
use vmgate_facts::{Fact, Facts, Forecast, Host, Vm};
use vmgate_rules::{Pack, Rule};
use vmgate_verdict::{Effect, Outcome, Status};

/// Tag of rules that also apply to the return move.
pub const TAG: &str = "way-back";

/// First words of the subject of an outcome for the return move.
const SUBJECT: &str = "on the way back";

/// Outcomes of rules that fail for the return move and not for the move itself, whose outcomes are `forward`.
pub fn outcomes(
    pack: &Pack,
    facts: &Facts,
    forecast: &Forecast,
    now: Timestamp,
    forward: &[Outcome],
) -> Vec<Outcome> {
    let is_tagged = |rule: &Rule| rule.tags.iter().any(|tag| tag == TAG);
    let fails_forward = |found: &Outcome| {
        forward.iter().any(|outcome| {
            (&outcome.rule, &outcome.subject, outcome.status) == (&found.rule, &found.subject, Status::Fail)
        })
    };
    let found = pack.evaluate_selected(is_tagged, &reversed(facts.clone()), forecast, now).into_iter();
    found
        .filter(|outcome| outcome.status == Status::Fail && !fails_forward(outcome))
        .map(|outcome| Outcome {
            subject: Some(match &outcome.subject {
                Some(subject) => format!("{SUBJECT}: {subject}"),
                None => SUBJECT.to_owned(),
            }),
            effect: outcome.effect.min(Effect::Warn),
            on_unknown: Effect::Note,
            // The paths of this evidence have source and destination exchanged and would mislead a reader.
            evidence: Vec::new(),
            ..outcome
        })
        .collect()
}

/// Facts of the return move, as they would be after the move: the VM then runs in the destination's QEMU.
fn reversed(facts: Facts) -> Facts {
    let Facts { vm, source, destination, .. } = facts;
    let destination_qemu = destination.as_ref().and_then(|host| host.qemu_version.clone());
    let vm = vm.map(|vm| Vm { qemu_version: destination_qemu, ..vm });
    let uuid = vm.known().and_then(|vm| vm.uuid.known().cloned());
    let name = vm.known().and_then(|vm| vm.name.known().cloned());
    let home = source.map(|host| Host {
        // This host runs the VM at present.
        offers_guest_cpu: Fact::Known(true),
        missing_cpu_features: Fact::Known(Vec::new()),
        forbidden_cpu_features: Fact::Known(Vec::new()),
        active_vms: without(host.active_vms, |active| Some(active) == uuid.as_ref()),
        vms: without(host.vms, |vm| Some(&vm.uuid) == uuid.as_ref()),
        jobs: without(host.jobs, |job| Some(&job.vm) == name.as_ref()),
        ..host
    });
    let rehearsal = facts.rehearsal.map(|rehearsal| rehearsal.map(|rehearsal| rehearsal.reversed()));
    // A trial was of the way there.
    Facts { vm, source: destination, destination: home, rehearsal, trial: Fact::Known(None), ..facts }
}

fn without<T>(list: Fact<Vec<T>>, gone: impl Fn(&T) -> bool) -> Fact<Vec<T>> {
    list.map(|mut list| {
        list.retain(|item| !gone(item));
        list
    })
}

#[cfg(test)]
mod tests {
    use vmgate_rules::RuleSource;

    use super::*;

    fn facts() -> Facts {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../rules/fixtures/idle-vm.yaml");
        serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn back(facts: &Facts) -> Vec<Outcome> {
        let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
        let (facts, forecast) =
            vmgate_forecast::derive(facts.clone(), &vmgate_rules::Catalogues::shipped().unwrap());
        let there = pack.evaluate(&facts, &forecast, facts.collected_at);
        outcomes(&pack, &facts, &forecast, facts.collected_at, &there)
    }

    #[test]
    fn between_healthy_hosts_the_way_back_is_open() {
        assert_eq!(back(&facts()), []);
    }

    #[test]
    fn a_source_that_could_not_take_the_vm_back_is_a_warning() {
        let mut facts = facts();
        let Fact::Known(source) = &mut facts.source else { panic!("the fixture has a source") };
        source.machine_types = Fact::Known(Vec::new());
        let found = back(&facts);
        assert_eq!(found.len(), 1);
        assert_eq!(&*found[0].rule, "machine-type-supported");
        assert_eq!(found[0].subject.as_deref(), Some("on the way back"));
        assert_eq!(found[0].effect_now(), Some(Effect::Warn));
    }

    #[test]
    fn what_stands_in_the_way_there_is_not_told_twice() {
        let mut facts = facts();
        for host in [&mut facts.source, &mut facts.destination] {
            let Fact::Known(host) = host else { panic!("the fixture has both hosts") };
            host.machine_types = Fact::Known(Vec::new());
        }
        assert_eq!(back(&facts), []);
    }
}
