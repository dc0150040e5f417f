//! Failure detectors of cluster software: time-outs from the guest's own configuration replace the vendors' defaults.

use vmgate_facts::{Detector, DetectorBasis, Fact, Guest, MemorySync};

use super::Catalogues;

impl Catalogues {
    /// Replaces the vendors' defaults by the time-outs that were read in the guest; of several members of one kind the
    /// shortest time-out counts. Adds cluster members that the catalogue's entry did not recognise, for instance a
    /// database server that is a member only by its configuration.
    pub fn apply_guest_detectors(&self, found: &mut Vec<MemorySync>, guest: &Guest) {
        let Fact::Known(detectors) = &guest.detectors else { return };
        for entry in self.memory_sync() {
            let own = detectors.iter().filter(|detector| detector.software == entry.id);
            let Some(tightest) = own.min_by(|a, b| timeout_or_shortest(a).total_cmp(&timeout_or_shortest(b)))
            else {
                continue;
            };
            if let Some(known) = found.iter_mut().find(|software| software.id == entry.id) {
                known.detector_seconds = tightest.detector_seconds.clone();
                known.detector_source.clone_from(&tightest.source);
            } else if let Some(pid) = tightest.pid
                && (tightest.basis != DetectorBasis::VendorDefault || is_command_line_cut(guest, pid))
            {
                found.push(MemorySync {
                    seen: format!("{} (pid {pid})", name_of(guest, pid).unwrap_or("process")),
                    detector_seconds: tightest.detector_seconds.clone(),
                    detector_source: tightest.source.clone(),
                    ..entry.handling()
                });
            }
        }
    }
}

/// Time-out for comparison, in seconds. An unknown time-out counts as the shortest, which it may be.
fn timeout_or_shortest(detector: &Detector) -> f64 {
    detector.detector_seconds.known().copied().unwrap_or(f64::NEG_INFINITY)
}

/// True if the end of the command line is missing from the facts. The missing part may identify the software: Java's main
/// class comes after thousands of characters.
fn is_command_line_cut(guest: &Guest, pid: u32) -> bool {
    let process =
        guest.processes.known().and_then(|processes| processes.iter().find(|process| process.pid == pid));
    process.is_some_and(|process| process.command.ends_with('…'))
}

fn name_of(guest: &Guest, pid: u32) -> Option<&str> {
    let processes = guest.processes.known()?;
    processes.iter().find(|process| process.pid == pid).map(|process| process.name.as_str())
}

#[cfg(test)]
mod tests {
    use vmgate_facts::{Cause, Process};

    use super::*;

    fn detector(software: &str, pid: u32, seconds: f64, basis: DetectorBasis) -> Detector {
        Detector {
            software: software.into(),
            pid: Some(pid),
            detector_seconds: Fact::Known(seconds),
            basis,
            source: format!("{seconds} s"),
        }
    }

    fn settled(processes: &[(u32, &str)], detectors: Vec<Detector>) -> Vec<MemorySync> {
        let process = |(pid, name): &(u32, &str)| Process {
            pid: *pid,
            name: (*name).into(),
            command: (*name).into(),
            state: "S".into(),
            resident_bytes: 0,
        };
        let guest = Guest {
            processes: Fact::Known(processes.iter().map(process).collect()),
            detectors: Fact::Known(detectors),
            ..Guest::default()
        };
        let catalogues = Catalogues::shipped().unwrap();
        let Fact::Known(mut found) = catalogues.recognise(&guest) else { panic!("not recognised") };
        catalogues.apply_guest_detectors(&mut found, &guest);
        found
    }

    #[test]
    fn what_was_read_replaces_the_default_and_the_least_patient_counts() {
        let read = [6.0, 3.15].map(|seconds| detector("corosync", 1, seconds, DetectorBasis::Tool));
        let found = settled(&[(1, "corosync")], read.into());
        assert_eq!((found.len(), &found[0].detector_seconds), (1, &Fact::Known(3.15)));
        assert_eq!(found[0].detector_source, "3.15 s");
    }

    #[test]
    fn a_member_that_only_its_configuration_gives_away_is_added() {
        let found =
            settled(&[(9, "mariadbd")], vec![detector("galera", 9, 7.0, DetectorBasis::Configuration)]);
        assert_eq!((found[0].id.as_str(), found[0].seen.as_str()), ("galera", "mariadbd (pid 9)"));
        assert!(!found[0].stop.is_empty());
        let assumed =
            settled(&[(9, "mariadbd")], vec![detector("galera", 9, 5.0, DetectorBasis::VendorDefault)]);
        assert_eq!(assumed, []);
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_not_the_default() {
        let mut unknown = detector("mongodb", 3, 0.0, DetectorBasis::VendorDefault);
        unknown.detector_seconds = Fact::unknown(Cause::NotSupported, "rs.conf() tells it");
        let found = settled(&[(3, "mongod")], vec![unknown]);
        assert_eq!(found[0].detector_seconds.known(), None);
    }
}
