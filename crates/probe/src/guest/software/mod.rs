//! Failure detectors of cluster software, read from the software's own tool, its configuration, its command line or
//! its environment.
//!
//! [`SOFTWARE`] lists what is known, one constant each; a constant says how the software is recognised, where its
//! time-outs stand, and how they are read. Reading is pure: text in, [`Found`] out. Of the text nothing stays but
//! numbers: configuration holds secrets.

mod ceph;
mod cloud;
mod corosync;
mod database;
mod drbd;
mod etcd;
mod format;
mod galera;
mod jvm;
mod keepalived;
mod queue;
mod redis;
mod running_process;
mod evidence;
#[cfg(test)]
mod testing;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use super::{
    GuestReader, RawProcess,
    ask::{Answers, Question},
};
use crate::guest::software::{
    running::Running,
    seen::{Found, Seen},
};
use vmgate_facts::{Cause, Detector, DetectorBasis, Fact, Unknown};

/// Most members that are looked at in one guest.
const MOST_MEMBERS: usize = 256;

/// What is known of one piece of software. `id` is the rule pack's catalogue's.
struct Software {
    id: &'static str,
    /// The kernel's names of its processes; one that ends in `*` stands for all that begin so.
    names: &'static [&'static str],
    /// Words one of which stands in an argument.
    marks: &'static [&'static str],
    /// Where its configuration stands when the command line does not say.
    files: &'static [&'static str],
    /// Environment variables that carry its settings.
    variables: &'static [&'static str],
    /// Files that the command line names, and commands to ask.
    more: fn(&Running) -> Vec<Question>,
    /// Files that what was read names.
    follow: fn(&Seen<'_>) -> Vec<Question>,
    read: fn(&Seen<'_>) -> Found,
    /// Its default, and where the vendor says so; none where the vendor names none or it hides a choice.
    default: Option<(f64, &'static str)>,
}

impl Software {
    /// What most have in common: nothing to ask beyond `files`.
    const PLAIN: Self = Self {
        id: "",
        names: &[],
        marks: &[],
        files: &[],
        variables: &[],
        more: |_| Vec::new(),
        follow: |_| Vec::new(),
        read: |_| Found::Nothing,
        default: None,
    };

    fn runs_as(&self, running: &Running) -> bool {
        let named = self.names.iter().any(|name| match name.strip_suffix('*') {
            Some(start) => running.name.starts_with(start),
            None => running.name == *name,
        });
        named || self.marks.iter().any(|mark| running.says(mark))
    }

    /// What there is to ask about one member.
    fn questions(&self, running: &Running) -> Vec<Question> {
        let mut questions = (self.more)(running);
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

/// Everything that vmgate can read the failure detector of.
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

/// The members in the guest, before and while they are asked.
pub(super) struct Members {
    members: Vec<(&'static Software, Running)>,
    /// Why the processes are not known. Then the configuration in its usual places is read: it tells the time-outs of
    /// what may run.
    unseen: Option<Unknown>,
}

impl Members {
    /// Finds them among the processes.
    pub(super) fn find(
        reader: &dyn GuestReader,
        processes: &Result<Vec<RawProcess>, Unknown>,
    ) -> Result<Self, Unknown> {
        Ok(match processes {
            Ok(processes) => Self { members: members(reader, processes)?, unseen: None },
            Err(why) => Self {
                members: SOFTWARE.iter().map(|software| (*software, Running::default())).collect(),
                unseen: Some(why.clone()),
            },
        })
    }

    /// What there is to ask about them.
    pub(super) fn questions(&self) -> impl Iterator<Item = Question> {
        self.members.iter().flat_map(|(software, running)| software.questions(running))
    }

    /// What the answers say, after those have led to further questions.
    pub(super) fn detectors(&self, reader: &dyn GuestReader, mut answers: Answers) -> Fact<Vec<Detector>> {
        let asked: BTreeSet<Question> = self.questions().collect();
        let refused = |question: &Question| match answers.get(question) {
            Some(Err(why)) => why.cause != Cause::NotSupported,
            _ => false,
        };
        if let (Some(why), true) = (&self.unseen, asked.iter().all(refused)) {
            return Fact::Unknown(why.clone());
        }
        let further: BTreeSet<Question> = self
            .members
            .iter()
            .flat_map(|(software, running)| (software.follow)(&Seen::of(software, running, &answers)))
            .filter(|question| !answers.contains_key(question))
            .collect();
        if !further.is_empty() {
            answers.extend(reader.ask(&further));
        }
        Fact::Known(detectors(&self.members, &answers))
    }
}

/// The processes that are members of something.
fn members(
    reader: &dyn GuestReader,
    processes: &[RawProcess],
) -> Result<Vec<(&'static Software, Running)>, Unknown> {
    let mut running: Vec<Running> = processes.iter().map(Running::of).collect();
    complete(reader, &mut running);
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

/// Command lines of Java are longer than what the list of processes holds, and what runs stands at their end.
fn complete(reader: &dyn GuestReader, running: &mut [Running]) {
    let questions: BTreeSet<Question> = running
        .iter()
        .filter(|running| running.is_cut())
        .take(MOST_MEMBERS)
        .filter_map(Running::whole)
        .collect();
    if questions.is_empty() {
        return;
    }
    let answers = reader.ask(&questions);
    for running in running {
        if let Some(Ok(command)) = running.whole().and_then(|question| answers.get(&question)) {
            running.set_command(command);
        }
    }
}

/// What the answers say, once for each process group: of several processes that say the same the eldest is named.
fn detectors(members: &[(&'static Software, Running)], answers: &Answers) -> Vec<Detector> {
    let mut found: BTreeMap<(&str, String), Detector> = BTreeMap::new();
    for (software, running) in members {
        let seen = Seen::of(software, running, answers);
        let Some(detector) = detector(software, &seen) else { continue };
        found
            .entry((software.id, detector.source.clone()))
            .and_modify(|known| known.pid = known.pid.min(detector.pid))
            .or_insert(detector);
    }
    found.into_values().collect()
}

fn detector(software: &Software, seen: &Seen<'_>) -> Option<Detector> {
    let (detector_seconds, basis, source) = match (software.read)(seen) {
        Found::Timeout { seconds, basis, source } => (Fact::Known(seconds), basis, source),
        Found::NotAMember => return None,
        // Without a process there is nothing that would have a default.
        _ if seen.running.pid.is_none() => return None,
        Found::Unknown(why) => (Fact::Unknown(why), DetectorBasis::VendorDefault, "not known".to_owned()),
        Found::Nothing => {
            let (seconds, reference) = software.default?;
            let source = format!("vendor default: {reference}{}", seen.obstacles());
            (Fact::Known(seconds), DetectorBasis::VendorDefault, source)
        }
    };
    Some(Detector {
        software: software.id.to_owned(),
        pid: seen.running.pid,
        detector_seconds,
        basis,
        source,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{testing::Case, *};

    /// Keys, units and marks of every format around, and a secret.
    const NEAR: &str = "(totem|nodelist|node|token|vrrp_instance|advert_int|bfd_instance|include|wsrep_on|\\[|\\]|server\\.1|\
        wsrep_provider_options|evs.suspect_timeout|cluster-enabled|cluster-node-timeout|sentinel|tickTime|syncLimit|\
        net_ticktime|ttl|bootstrap|gossip_lan|ping-timeout|hunter2|yes|ON|[0-9]{1,4}|ms|PT5S|[{}=:;,<>/\"' \n]){0,40}";

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic_or_tell_a_secret(text in NEAR, odd in "\\PC{0,60}", argument in NEAR) {
            for software in SOFTWARE {
                let name = software.names.first().map_or("java", |name| name.trim_end_matches('*'));
                let mut case = Case::process(name, &[name, &argument, software.marks.first().unwrap_or(&"x")]);
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
