//! Failure detectors of cluster software: time-outs from the guest's own configuration replace the vendors' defaults, and
//! sessions on the wire are joined to the software whose detector they are.

use vmgate_facts::{
    ControlBasis, ControlSession, Detector, DetectorBasis, Fact, FlowDirection, Guest, MemorySync,
};

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

    /// Joins the sessions on the wire to the members whose failure detector they are, so that one detector is judged once: the
    /// shorter time-out counts, and the time between the member's packets.
    pub fn join_sessions(&self, guest: &mut Guest) {
        let (Fact::Known(members), Fact::Known(sessions)) =
            (&mut guest.memory_sync, &mut guest.control_sessions)
        else {
            return;
        };
        let watched =
            |session: &&mut ControlSession| session.active && session.direction != FlowDirection::ToGuest;
        for session in sessions.iter_mut().filter(watched).filter(|session| session.member.is_none()) {
            let Some(entry) = self.speaker(&session.protocol, &guest.udp) else { continue };
            let Some(member) = members.iter_mut().find(|member| member.id == entry.id) else { continue };
            session.member = Some(member.id.clone());
            if !member.seen.contains("its packets") {
                member.seen = format!("{}, its packets {} -> {}", member.seen, session.local, session.remote);
            }
            // A default says less than the guest's own configuration.
            let (Fact::Known(timeout), ControlBasis::Packet | ControlBasis::Spacing) =
                (&session.timeout_seconds, session.basis)
            else {
                continue;
            };
            member.detector_source =
                format!("{}; on the wire {timeout:.3} s, {}", member.detector_source, session.source);
            member.detector_seconds = member.detector_seconds.clone().map(|seconds| seconds.min(*timeout));
            if let Fact::Known(tolerated) = session.tolerated_seconds {
                member.heartbeat_seconds = member.heartbeat_seconds.max(timeout - tolerated);
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
    use vmgate_facts::{Cause, Process, Udp};

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
    fn one_vrrp_router_in_a_file_and_on_the_wire_is_one_detector() {
        let catalogues = Catalogues::shipped().unwrap();
        let session = |protocol: &str, timeout, tolerated, basis| ControlSession {
            protocol: protocol.into(),
            local: "10.0.0.5".into(),
            remote: "224.0.0.18".into(),
            active: true,
            direction: FlowDirection::FromGuest,
            timeout_seconds: Fact::Known(timeout),
            tolerated_seconds: Fact::Known(tolerated),
            basis,
            source: "from the packets".into(),
            ..ControlSession::default()
        };
        let of_file = catalogues.member("keepalived", "keepalived (pid 7)".into()).unwrap();
        let joined = |sessions: Vec<ControlSession>, bfd_owner: &str| {
            let socket = serde_json::json!({"local": "0.0.0.0:3784", "port": 3784, "remote": null,
                "drops": 0, "owner": bfd_owner,
                "service": null});
            let sockets = serde_json::from_value(serde_json::json!([socket])).unwrap();
            let mut guest = Guest {
                memory_sync: Fact::Known(vec![of_file.clone()]),
                control_sessions: Fact::Known(sessions),
                udp: Fact::Known(Udp { sockets: Fact::Known(sockets), flows: Fact::default() }),
                ..Guest::default()
            };
            catalogues.join_sessions(&mut guest);
            let once = guest.clone();
            catalogues.join_sessions(&mut guest);
            assert_eq!(once, guest, "facts that were derived are not derived again");
            guest
        };
        let both =
            [session("vrrp", 2.5, 1.5, ControlBasis::Packet), session("bfd", 0.9, 0.6, ControlBasis::Packet)];
        let guest = joined(both.to_vec(), "bfdd");
        let member = &guest.memory_sync.known().unwrap()[0];
        assert_eq!((member.detector_seconds.known(), member.heartbeat_seconds), (Some(&2.5), 1.0));
        assert_eq!(member.seen, "keepalived (pid 7), its packets 10.0.0.5 -> 224.0.0.18");
        assert!(member.detector_source.ends_with("sets it; on the wire 2.500 s, from the packets"));
        let members = guest.control_sessions.known().unwrap().iter().map(|session| session.member.as_deref());
        assert_eq!(members.collect::<Vec<_>>(), [Some("keepalived"), None]);

        // BFD is the routing daemon's or keepalived's: the socket tells.
        let guest = joined(both.to_vec(), "keepalived");
        let member = &guest.memory_sync.known().unwrap()[0];
        assert_eq!(member.detector_seconds.known(), Some(&0.9));
        assert!(guest.control_sessions.known().unwrap().iter().all(|session| session.member.is_some()));

        // What is set in the file is shorter, and the packets tell a default only.
        let guest = joined(vec![session("vrrp", 9.0, 9.0, ControlBasis::Default)], "bfdd");
        assert_eq!(guest.memory_sync.known().unwrap()[0].detector_seconds, of_file.detector_seconds);
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_not_the_default() {
        let mut unknown = detector("mongodb", 3, 0.0, DetectorBasis::VendorDefault);
        unknown.detector_seconds = Fact::unknown(Cause::NotSupported, "rs.conf() tells it");
        let found = settled(&[(3, "mongod")], vec![unknown]);
        assert_eq!(found[0].detector_seconds.known(), None);
    }
}
