//! Ceph: an OSD is reported down after osd_heartbeat_grace (20 s) of silence; a monitor's peers wait mon_lease (5 s).

use crate::guest::{
    ask::safe_word,
    software::{Evidence, Question, Reading, RunningProcess, Software, format::duration::seconds},
};

const CONFIGURATION: &str = "/etc/ceph/ceph.conf";

pub(super) const OSD: Software = Software {
    id: "ceph-osd",
    names: &["ceph-osd"],
    files: &[CONFIGURATION],
    extra_questions: |running| ask(running, "osd", "osd_heartbeat_grace"),
    read: |evidence| read(evidence, "osd_heartbeat_grace"),
    default: Some((20.0, "Ceph osd_heartbeat_grace of 20 s")),
    ..Software::BASE
};

pub(super) const MON: Software = Software {
    id: "ceph-mon",
    names: &["ceph-mon"],
    files: &[CONFIGURATION],
    extra_questions: |running| ask(running, "mon", "mon_lease"),
    read: |evidence| read(evidence, "mon_lease"),
    default: Some((5.0, "Ceph mon_lease of 5 s")),
    ..Software::BASE
};

/// The question to the daemon over its admin socket, which answers even if the cluster is down.
fn ask(running: &RunningProcess, kind: &str, setting: &str) -> Vec<Question> {
    let id = running.option("--id").or_else(|| running.option("-i")).filter(|id| safe_word(id));
    id.map(|id| Question::Command(format!("ceph daemon {kind}.{id} config get {setting}")))
        .into_iter()
        .collect()
}

fn read(evidence: &Evidence<'_>, setting: &str) -> Reading {
    // {"osd_heartbeat_grace": "20"}
    let told = evidence.outputs().find_map(|output| {
        let (_, rest) = output.split_once(setting)?;
        let value = rest.trim_start_matches(['"', ':', ' ']).split(['"', '}', ',', '\n']).next()?;
        let value = seconds(value, 1.0)?;
        Some(Reading::reported(value, format!("ceph daemon config get {setting} {value} s")))
    });
    let configured = || {
        let (path, text) = evidence.file()?;
        // Blanks, dashes and underscores are equivalent in ceph.conf.
        let same = |line: &&str| {
            let name = line.split('=').next().unwrap_or_default().trim();
            name.replace([' ', '-'], "_") == setting
        };
        let value = seconds(text.lines().rev().find(same)?.split_once('=')?.1, 1.0)?;
        Some(Reading::configured(value, format!("{path} {setting} {value} s")))
    };
    told.or_else(configured).unwrap_or(Reading::NotConfigured)
}

#[cfg(test)]
mod tests {
    use crate::guest::software::{
        ceph::*,
        testing::{Case, read},
    };

    #[test]
    fn the_daemon_says_it_or_the_file_in_any_spelling() {
        let osd =
            || Case::process("ceph-osd", &["/usr/bin/ceph-osd", "-f", "--cluster", "ceph", "--id", "3"]);
        let told = read(&OSD, &osd().output("{\n    \"osd_heartbeat_grace\": \"35\"\n}\n"));
        assert_eq!(told, Reading::reported(35.0, "ceph daemon config get osd_heartbeat_grace 35 s"));
        let file = osd().file(CONFIGURATION, "[global]\nosd heartbeat grace = 40\n");
        assert_eq!(
            read(&OSD, &file),
            Reading::configured(40.0, "/etc/ceph/ceph.conf osd_heartbeat_grace 40 s")
        );
        let mon = Case::process("ceph-mon", &["ceph-mon", "-i", "a;id"])
            .file(CONFIGURATION, "[mon]\nmon-lease=7\n");
        assert_eq!(read(&MON, &mon), Reading::configured(7.0, "/etc/ceph/ceph.conf mon_lease 7 s"));
    }
}
