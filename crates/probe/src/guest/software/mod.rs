//! Failure detectors of cluster software, read from the software's own tool, its configuration, its command line or
//! its environment.
//!
//! [`SOFTWARE`] lists the supported software, one constant each: how it is recognised, which files and commands hold
//! its time-outs, and how they are read. Reading is pure: text in, [`Reading`] out. Only numbers of the text are kept:
//! configuration holds secrets.

mod ceph;
mod cloud;
mod corosync;
mod database;
mod drbd;
mod etcd;
mod evidence;
mod format;
mod galera;
mod jvm;
mod keepalived;
mod queue;
mod redis;
mod running_process;
#[cfg(test)]
mod testing;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use vmgate_facts::{Cause, Detector, DetectorBasis, Fact, Unknown};

use crate::guest::{
    GuestReader, RawProcess,
    ask::{Answers, Question},
    software::{
        evidence::{Evidence, Reading},
        running_process::RunningProcess,
    },
};

/// Most cluster members that are read in one guest.
const MOST_MEMBERS: usize = 256;

/// Recognition and configuration of one piece of cluster software. `id` is its id in the rule pack's catalogue.
struct Software {
    id: &'static str,
    /// Names (comm) of its processes; a name that ends in `*` is a prefix.
    names: &'static [&'static str],
    /// Texts of which one occurs in an argument of its process.
    argument_marks: &'static [&'static str],
    /// Default paths of its configuration, if the command line names none.
    files: &'static [&'static str],
    /// Environment variables that carry its settings.
    variables: &'static [&'static str],
    /// Files that the command line names, and commands to run.
    extra_questions: fn(&RunningProcess) -> Vec<Question>,
    /// Files that the files already read refer to.
    follow_up_questions: fn(&Evidence<'_>) -> Vec<Question>,
    read: fn(&Evidence<'_>) -> Reading,
    /// The vendor's default in seconds, with its source; none if the vendor names none or assuming it would be wrong.
    default: Option<(f64, &'static str)>,
}

impl Software {
    /// Base of each constant: no questions beyond `files`.
    const BASE: Self = Self {
        id: "",
        names: &[],
        argument_marks: &[],
        files: &[],
        variables: &[],
        extra_questions: |_| Vec::new(),
        follow_up_questions: |_| Vec::new(),
        read: |_| Reading::NotConfigured,
        default: None,
    };

    fn runs_as(&self, running: &RunningProcess) -> bool {
        let named = self.names.iter().any(|name| match name.strip_suffix('*') {
            Some(start) => running.name.starts_with(start),
            None => running.name == *name,
        });
        named || self.argument_marks.iter().any(|mark| running.has_argument_with(mark))
    }

    /// All questions about one member.
    fn questions(&self, running: &RunningProcess) -> Vec<Question> {
        let mut questions = (self.extra_questions)(running);
        questions.extend(self.files.iter().filter_map(|path| Question::file(*path)));
        if !self.variables.is_empty() {
            questions.extend(running.environment());
        }
        questions
    }
}

/// Catalogue ids of the software whose failure detectors are read.
pub fn recognised_software() -> impl Iterator<Item = &'static str> {
    SOFTWARE.iter().map(|software| software.id)
}

/// All software of which vmgate can read the failure detector.
const SOFTWARE: [&Software; 25] = [
    &corosync::COROSYNC,
    &corosync::PACEMAKER,
    &corosync::SBD,
    &keepalived::KEEPALIVED,
    &etcd::ETCD,
    &galera::GALERA,
    &galera::ARBITRATOR,
    &redis::CLUSTER,
    &redis::SENTINEL,
    &queue::ZOOKEEPER,
    &queue::KAFKA,
    &queue::RABBITMQ,
    &cloud::PATRONI,
    &cloud::CONSUL,
    &jvm::HAZELCAST,
    &jvm::INFINISPAN,
    &jvm::IGNITE,
    &drbd::DRBD,
    &database::ORACLE_RAC,
    &database::MONGODB,
    &database::ELASTICSEARCH,
    &database::CASSANDRA,
    &windows::WSFC,
    &ceph::OSD,
    &ceph::MON,
];

/// The cluster members in the guest, before their answers are in.
pub(super) struct ClusterMembers {
    members: Vec<(&'static Software, RunningProcess)>,
    /// Reason why the processes are unknown. Then the configuration at its default paths is read: it gives the
    /// time-outs of software that may run.
    processes_unknown: Option<Unknown>,
}

impl ClusterMembers {
    /// Finds the members among the processes.
    pub(super) fn find(
        reader: &dyn GuestReader,
        processes: &Result<Vec<RawProcess>, Unknown>,
    ) -> Result<Self, Unknown> {
        Ok(match processes {
            Ok(processes) => Self { members: members(reader, processes)?, processes_unknown: None },
            Err(why) => Self {
                members: SOFTWARE.iter().map(|software| (*software, RunningProcess::default())).collect(),
                processes_unknown: Some(why.clone()),
            },
        })
    }

    /// All questions about the members.
    pub(super) fn questions(&self) -> impl Iterator<Item = Question> {
        self.members.iter().flat_map(|(software, running)| software.questions(running))
    }

    /// The failure detectors according to the answers; asks the follow-up questions first.
    pub(super) fn detectors(&self, reader: &dyn GuestReader, mut answers: Answers) -> Fact<Vec<Detector>> {
        let asked: BTreeSet<Question> = self.questions().collect();
        let refused = |question: &Question| match answers.get(question) {
            Some(Err(why)) => why.cause != Cause::NotSupported,
            _ => false,
        };
        if let (Some(why), true) = (&self.processes_unknown, asked.iter().all(refused)) {
            return Fact::Unknown(why.clone());
        }
        let further: BTreeSet<Question> = self
            .members
            .iter()
            .flat_map(|(software, running)| {
                (software.follow_up_questions)(&Evidence::of(software, running, &answers))
            })
            .filter(|question| !answers.contains_key(question))
            .collect();
        if !further.is_empty() {
            answers.extend(reader.ask(&further));
        }
        Fact::Known(detectors(&self.members, &answers))
    }
}

/// The processes that are members of a cluster.
fn members(
    reader: &dyn GuestReader,
    processes: &[RawProcess],
) -> Result<Vec<(&'static Software, RunningProcess)>, Unknown> {
    let mut running: Vec<RunningProcess> = processes.iter().map(RunningProcess::of).collect();
    complete_command_lines(reader, &mut running);
    let members: Vec<_> = running
        .into_iter()
        .flat_map(|running| {
            let known = SOFTWARE.iter().filter(|software| software.runs_as(&running));
            known.map(|software| (*software, running.clone())).collect::<Vec<_>>()
        })
        .take(MOST_MEMBERS + 1)
        .collect();
    if members.len() > MOST_MEMBERS {
        return Err(Unknown::new(
            Cause::Malformed,
            format!("more than {MOST_MEMBERS} processes of cluster software in the guest"),
        ));
    }
    Ok(members)
}

/// Reads long command lines in full: Java's are longer than the list of processes holds, and name the program last.
fn complete_command_lines(reader: &dyn GuestReader, running: &mut [RunningProcess]) {
    let questions: BTreeSet<Question> = running
        .iter()
        .filter(|running| running.may_be_cut())
        .take(MOST_MEMBERS)
        .filter_map(RunningProcess::full_command_line)
        .collect();
    if questions.is_empty() {
        return;
    }
    let answers = reader.ask(&questions);
    for running in running {
        if let Some(Ok(command)) = running.full_command_line().and_then(|question| answers.get(&question)) {
            running.set_command(command);
        }
    }
}

/// The failure detectors according to the answers. Of several processes with the same one, the lowest pid is named.
fn detectors(members: &[(&'static Software, RunningProcess)], answers: &Answers) -> Vec<Detector> {
    let mut found: BTreeMap<(&str, String), Detector> = BTreeMap::new();
    for (software, running) in members {
        let evidence = Evidence::of(software, running, answers);
        let Some(detector) = detector(software, &evidence) else { continue };
        found
            .entry((software.id, detector.source.clone()))
            .and_modify(|known| known.pid = known.pid.min(detector.pid))
            .or_insert(detector);
    }
    found.into_values().collect()
}

fn detector(software: &Software, evidence: &Evidence<'_>) -> Option<Detector> {
    let (detector_seconds, basis, source) = match (software.read)(evidence) {
        Reading::Timeout { seconds, basis, source } => (Fact::Known(seconds), basis, source),
        Reading::NotAMember => return None,
        // Without a process no default applies.
        _ if evidence.running.pid.is_none() => return None,
        Reading::Unknown(why) => (Fact::Unknown(why), DetectorBasis::VendorDefault, "not known".to_owned()),
        Reading::NotConfigured => {
            let (seconds, reference) = software.default?;
            let source = format!("vendor default: {reference}{}", evidence.obstacles());
            (Fact::Known(seconds), DetectorBasis::VendorDefault, source)
        }
    };
    Some(Detector {
        software: software.id.to_owned(),
        pid: evidence.running.pid,
        detector_seconds,
        basis,
        source,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::guest::software::{testing::Case, *};

    /// Keys, units and punctuation of all formats, and a secret.
    const NEAR: &str = "(totem|nodelist|node|token|vrrp_instance|advert_int|bfd_instance|include|wsrep_on|\\[|\\]|server\\.1|\
        wsrep_provider_options|evs.suspect_timeout|cluster-enabled|cluster-node-timeout|sentinel|tickTime|syncLimit|\
        net_ticktime|ttl|bootstrap|gossip_lan|ping-timeout|hunter2|yes|ON|[0-9]{1,4}|ms|PT5S|[{}=:;,<>/\"' \n]){0,40}";

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic_or_tell_a_secret(text in NEAR, odd in "\\PC{0,60}", argument in NEAR) {
            for software in SOFTWARE {
                let name = software.names.first().map_or("java", |name| name.trim_end_matches('*'));
                let mut case = Case::process(name, &[name, &argument, software.argument_marks.first().unwrap_or(&"x")]);
                for path in software.files {
                    case = case.file(path, if path.len() % 2 == 0 { &text } else { &odd });
                }
                if let Some(detector) = case.output(&text).output(&odd).environment(&[&text]).detector(software) {
                    prop_assert!(!detector.source.contains("hunter2"), "{}", detector.source);
                    let seconds = detector.detector_seconds.known().copied().unwrap_or(0.0);
                    prop_assert!(seconds.is_finite() && seconds >= 0.0);
                }
            }
        }
    }
}
