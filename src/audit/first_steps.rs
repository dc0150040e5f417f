//! First steps of an audit: the obstacles whose removal helps most VMs, each with its way out.

use std::collections::BTreeMap;

use super::{AuditedVm, FirstStep, MoveAnswer, RuleViolation};

/// Limit on the steps that are named: the order of further steps changes when these are done.
const MOST_STEPS: usize = 5;

/// Returns the obstacles, sorted by the number of VMs that get a destination if only this obstacle is removed, then by the number of
/// moves that the obstacle blocks.
pub(super) fn first_steps(vms: &[AuditedVm]) -> Vec<FirstStep> {
    let mut steps: BTreeMap<(&str, &str), FirstStep> = BTreeMap::new();
    for vm in vms {
        for destination in vm.destinations.iter().filter(|destination| destination.answer == MoveAnswer::No) {
            let mut rules: Vec<&str> =
                destination.because.iter().map(|reason| reason.rule.as_str()).collect();
            rules.dedup();
            for reason in &destination.because {
                let key = (reason.rule.as_str(), destination.host.as_str());
                let step = steps.entry(key).or_insert_with(|| blank(reason, &destination.host));
                if step.vms.last() != Some(&vm.name) {
                    step.blocks += 1;
                    step.frees += usize::from(!vm.can_move() && rules.len() == 1);
                    step.vms.push(vm.name.clone());
                }
            }
        }
    }
    let mut steps: Vec<FirstStep> = steps.into_values().collect();
    steps.sort_by(|a, b| {
        let rank = |step: &FirstStep| (step.frees, step.blocks);
        rank(b).cmp(&rank(a)).then_with(|| (&a.rule, &a.host).cmp(&(&b.rule, &b.host)))
    });
    steps.truncate(MOST_STEPS);
    steps
}

fn blank(reason: &RuleViolation, host: &str) -> FirstStep {
    FirstStep {
        rule: reason.rule.clone(),
        host: host.to_owned(),
        frees: 0,
        blocks: 0,
        vms: Vec::new(),
        message: reason.message.clone(),
        remediation: reason.remediation.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditedDestination;

    fn vm(name: &str, destinations: &[(&str, &[&str])]) -> AuditedVm {
        let destinations = destinations.iter().map(|(host, rules)| AuditedDestination {
            host: (*host).to_owned(),
            answer: if rules.is_empty() { MoveAnswer::Yes } else { MoveAnswer::No },
            because: rules
                .iter()
                .map(|rule| RuleViolation {
                    rule: (*rule).to_owned(),
                    subject: None,
                    message: "m".into(),
                    remediation: None,
                })
                .collect(),
            warnings: vec![],
            undecided: vec![],
        });
        AuditedVm {
            name: name.into(),
            uuid: name.into(),
            host: "hv1".into(),
            destinations: destinations.collect(),
        }
    }

    #[test]
    fn what_frees_most_vms_comes_first_even_if_something_else_blocks_more_moves() {
        let vms = [
            vm("a", &[("hv2", &["memory"])]),
            vm("b", &[("hv2", &["memory"])]),
            vm("c", &[("hv2", &["network", "memory"]), ("hv3", &["network"])]),
            vm("d", &[("hv2", &["network"]), ("hv3", &[])]),
            vm("e", &[("hv2", &["network"]), ("hv3", &[])]),
            vm("f", &[("hv2", &["network"]), ("hv3", &[])]),
        ];
        let steps = first_steps(&vms);
        let seen: Vec<_> =
            steps.iter().map(|s| (s.rule.as_str(), s.host.as_str(), s.frees, s.blocks)).collect();
        assert_eq!(seen, [("memory", "hv2", 2, 3), ("network", "hv3", 1, 1), ("network", "hv2", 0, 4)]);
    }

    #[test]
    fn where_nothing_blocks_there_is_nothing_to_do() {
        assert_eq!(first_steps(&[vm("a", &[("hv2", &[])])]), []);
    }
}
