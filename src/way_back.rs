//! The way back: the rules that carry the tag `way-back` are also held against the move in the other direction. What they
//! find is a warning: the move itself may be fine, but the VM could not come home.

use jiff::Timestamp;

use crate::{
    fact::{Fact, Facts, Forecast, Host, Vm},
    rule::{Effect, Outcome, Pack, Rule, Status},
};

/// Rules with this tag hold for the way back too.
pub const TAG: &str = "way-back";

/// What the subject of such an outcome begins with.
const SUBJECT: &str = "on the way back";

/// What stands in the way back and not in the way there: `there` are the outcomes of the move itself.
pub fn outcomes(
    pack: &Pack,
    facts: &Facts,
    forecast: &Forecast,
    now: Timestamp,
    there: &[Outcome],
) -> Vec<Outcome> {
    let is_tagged = |rule: &Rule| rule.tags.iter().any(|tag| tag == TAG);
    let told_already = |found: &Outcome| {
        there.iter().any(|outcome| {
            (&outcome.rule, &outcome.subject, outcome.status) == (&found.rule, &found.subject, Status::Fail)
        })
    };
    let found = pack.evaluate_selected(is_tagged, &reversed(facts.clone()), forecast, now).into_iter();
    found
        .filter(|outcome| outcome.status == Status::Fail && !told_already(outcome))
        .map(|outcome| Outcome {
            subject: Some(match &outcome.subject {
                Some(subject) => format!("{SUBJECT}: {subject}"),
                None => SUBJECT.to_owned(),
            }),
            effect: outcome.effect.min(Effect::Warn),
            on_unknown: Effect::Note,
            // Its paths name the hosts the other way round: whoever read them would look at the wrong one.
            evidence: Vec::new(),
            ..outcome
        })
        .collect()
}

/// The facts of the move back, as they would be after the move: the VM runs in the destination's QEMU then.
fn reversed(facts: Facts) -> Facts {
    let Facts { vm, source, destination, .. } = facts;
    let arrived_in = destination.as_ref().and_then(|host| host.qemu_version.clone());
    let vm = vm.map(|vm| Vm { qemu_version: arrived_in, ..vm });
    let uuid = vm.known().and_then(|vm| vm.uuid.known().cloned());
    let name = vm.known().and_then(|vm| vm.name.known().cloned());
    let home = source.map(|host| Host {
        // It runs the VM now.
        offers_guest_cpu: Fact::Known(true),
        missing_cpu_features: Fact::Known(Vec::new()),
        active_vms: without(host.active_vms, |active| Some(active) == uuid.as_ref()),
        vms: without(host.vms, |vm| Some(&vm.uuid) == uuid.as_ref()),
        jobs: without(host.jobs, |job| Some(&job.vm) == name.as_ref()),
        ..host
    });
    Facts { vm, source: destination, destination: home, ..facts }
}

fn without<T>(list: Fact<Vec<T>>, gone: impl Fn(&T) -> bool) -> Fact<Vec<T>> {
    list.map(|mut list| {
        list.retain(|item| !gone(item));
        list
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleSource;

    fn facts() -> Facts {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
        serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn back(facts: &Facts) -> Vec<Outcome> {
        let pack = Pack::load(&[RuleSource::Builtin]).unwrap();
        let (facts, forecast) =
            crate::forecast::derive(facts.clone(), &crate::rule::Catalogues::shipped().unwrap());
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
