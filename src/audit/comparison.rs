//! Comparison with an earlier audit: obstacles that are new, fixed or unchanged.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use vmgate_documents::program_document;

use super::{Audit, AuditDifferences, Obstacle};

/// A baseline file that is not an audit.
#[derive(Debug, Error)]
#[error(
    "{file} is not an audit of vmgate (vmgate/audit/v1, as `vmgate audit --output json` writes it): {problem}"
)]
pub struct InvalidAudit {
    /// File, as it was named.
    pub file: String,
    /// Problem of the file.
    pub problem: String,
}

type Key<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

impl Audit {
    /// Reads an audit from JSON or YAML. `file` is only for messages.
    pub fn read(file: &str, bytes: &[u8]) -> Result<Self, InvalidAudit> {
        program_document(bytes).map_err(|problem| InvalidAudit { file: file.to_owned(), problem })
    }

    /// Compares this audit with an earlier one and stores the differences in `since`.
    pub fn compare_with(&mut self, earlier: &Self) {
        let (before, now) = (obstacles(earlier), obstacles(self));
        let only = |these: &BTreeMap<Key<'_>, Obstacle>, those: &BTreeMap<Key<'_>, Obstacle>| {
            these
                .iter()
                .filter(|(key, _)| !those.contains_key(*key))
                .map(|(_, obstacle)| obstacle.clone())
                .collect()
        };
        let since = AuditDifferences {
            evaluated_at: earlier.evaluated_at,
            new: only(&now, &before),
            fixed: only(&before, &now),
            unchanged: now.keys().filter(|key| before.contains_key(*key)).count(),
            gone: names(earlier).difference(&names(self)).map(|name| (*name).to_owned()).collect(),
        };
        self.since = Some(since);
    }
}

/// Returns every violation that blocks a VM from a host. The VM is identified by its UUID, because it may have moved.
fn obstacles(audit: &Audit) -> BTreeMap<Key<'_>, Obstacle> {
    let mut found = BTreeMap::new();
    for vm in &audit.vms {
        for destination in &vm.destinations {
            for reason in &destination.because {
                let key = (
                    vm.uuid.as_str(),
                    destination.host.as_str(),
                    reason.rule.as_str(),
                    reason.subject.as_deref(),
                );
                found.insert(
                    key,
                    Obstacle {
                        vm: vm.name.clone(),
                        destination: destination.host.clone(),
                        rule: reason.rule.clone(),
                        subject: reason.subject.clone(),
                        message: reason.message.clone(),
                    },
                );
            }
        }
    }
    found
}

fn names(audit: &Audit) -> BTreeSet<&str> {
    audit.vms.iter().map(|vm| vm.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{AuditSchema, AuditedDestination, AuditedVm, MoveAnswer, RuleViolation};

    fn audit(rules: &[&str]) -> Audit {
        let because = rules.iter().map(|rule| RuleViolation {
            rule: (*rule).to_owned(),
            subject: None,
            message: format!("{rule} is violated"),
            remediation: None,
        });
        let destination = AuditedDestination {
            host: "hv2".into(),
            answer: MoveAnswer::No,
            because: because.collect(),
            warnings: vec![],
            undecided: vec![],
        };
        let vm = AuditedVm {
            name: "web1".into(),
            uuid: "u".into(),
            host: "hv1".into(),
            destinations: vec![destination],
        };
        Audit {
            schema: AuditSchema::V1,
            evaluated_at: "2026-11-23T10:00:00Z".parse().unwrap(),
            simulated: false,
            hosts: vec![],
            vms: vec![vm],
            first: vec![],
            since: None,
            undecided: vec![],
        }
    }

    #[test]
    fn obstacles_are_new_fixed_or_as_they_were() {
        let mut now = audit(&["memory", "network"]);
        now.compare_with(&audit(&["memory", "cpu"]));
        let since = now.since.unwrap();
        let rules = |obstacles: &[Obstacle]| obstacles.iter().map(|o| o.rule.clone()).collect::<Vec<_>>();
        assert_eq!((rules(&since.new), rules(&since.fixed)), (vec!["network".into()], vec!["cpu".into()]));
        assert_eq!((since.unchanged, since.gone.len()), (1, 0));
    }

    #[test]
    fn an_audit_is_read_back_and_anything_else_refused() {
        let audit = audit(&["memory"]);
        let json = serde_json::to_vec(&audit).unwrap();
        assert_eq!(Audit::read("a.json", &json).unwrap(), audit);
        let yaml = serde_yaml::to_string(&audit).unwrap();
        assert_eq!(Audit::read("a.yaml", yaml.as_bytes()).unwrap(), audit);
        let error = Audit::read("v.json", b"{\"schema\": \"vmgate/verdict/v1\"}").unwrap_err().to_string();
        assert!(error.contains("v.json") && error.contains("vmgate/audit/v1"), "{error}");
    }
}
