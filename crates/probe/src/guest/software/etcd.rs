//! etcd: followers start an election if the leader has been silent for election-timeout (1000 ms) since its last
//! heartbeat; heartbeats come every heartbeat-interval (100 ms).

use crate::guest::software::{
    Evidence, Reading, Software,
    format::{duration::seconds, lines, tree},
};

pub(super) const ETCD: Software = Software {
    id: "etcd",
    names: &["etcd"],
    files: &["/etc/default/etcd", "/etc/etcd/etcd.conf"],
    variables: &["ETCD_ELECTION_TIMEOUT", "ETCD_HEARTBEAT_INTERVAL", "ETCD_CONFIG_FILE"],
    extra_questions: |running| {
        running.option("--config-file").and_then(|path| running.file(path)).into_iter().collect()
    },
    follow_up_questions: |evidence| {
        let named = evidence.variable("ETCD_CONFIG_FILE");
        named.and_then(|path| evidence.running.file(&path)).into_iter().collect()
    },
    read,
    default: Some((1.0, "etcd tuning guide, election-timeout of 1000 ms")),
    ..Software::BASE
};

fn read(evidence: &Evidence<'_>) -> Reading {
    // With a configuration file etcd ignores flags and environment variables.
    let named = evidence
        .running
        .option("--config-file")
        .map(str::to_owned)
        .or_else(|| evidence.variable("ETCD_CONFIG_FILE"));
    if let Some(path) = named {
        return evidence
            .running
            .file(&path)
            .and_then(|question| Some((question.name().to_owned(), evidence.file_at(question.name())?)))
            .and_then(|(path, text)| {
                let tree = tree::yaml(&text)?;
                found(
                    &path,
                    tree::scalar(&tree, "election-timeout"),
                    tree::scalar(&tree, "heartbeat-interval"),
                )
            })
            .unwrap_or(Reading::NotConfigured);
    }
    let option = |name: &str, short: &str| {
        evidence.running.option(name).or_else(|| evidence.running.option(short)).map(str::to_owned)
    };
    found(
        "command line",
        option("--election-timeout", "-election-timeout"),
        option("--heartbeat-interval", "-heartbeat-interval"),
    )
    .or_else(|| {
        found(
            "environment",
            evidence.variable("ETCD_ELECTION_TIMEOUT"),
            evidence.variable("ETCD_HEARTBEAT_INTERVAL"),
        )
    })
    .or_else(|| {
        // The packages' environment files are used only if the process's environment cannot be read.
        let environment =
            evidence.running.environment().and_then(|question| evidence.file_at(question.name()));
        if environment.is_some() {
            return None;
        }
        evidence.files().find_map(|(path, text)| {
            let value = |key: &str| lines::value(&text, key).map(str::to_owned);
            found(path, value("ETCD_ELECTION_TIMEOUT"), value("ETCD_HEARTBEAT_INTERVAL"))
        })
    })
    .unwrap_or(Reading::NotConfigured)
}

fn found(place: &str, election: Option<String>, heartbeat: Option<String>) -> Option<Reading> {
    let election = seconds(&election?, 0.001)?;
    let heartbeat = heartbeat
        .and_then(|text| seconds(&text, 0.001))
        .map(|seconds| format!(", heartbeat-interval {seconds} s"))
        .unwrap_or_default();
    Some(Reading::configured(election, format!("{place} election-timeout {election} s{heartbeat}")))
}

#[cfg(test)]
mod tests {
    use crate::guest::software::{
        etcd::*,
        testing::{Case, read},
    };

    #[test]
    fn flags_environment_and_file_each_say_it() {
        let flags =
            Case::process("etcd", &["etcd", "--election-timeout", "5000", "--heartbeat-interval=500"]);
        assert_eq!(
            read(&ETCD, &flags),
            Reading::configured(5.0, "command line election-timeout 5 s, heartbeat-interval 0.5 s")
        );
        let environment = Case::process("etcd", &["etcd"])
            .environment(&["ETCD_INITIAL_CLUSTER_TOKEN=hunter2", "ETCD_ELECTION_TIMEOUT=2500"])
            .file("/etc/default/etcd", "ETCD_ELECTION_TIMEOUT=9000");
        assert_eq!(read(&ETCD, &environment), Reading::configured(2.5, "environment election-timeout 2.5 s"));
        let yaml = Case::process("etcd", &["etcd", "--config-file=/srv/etcd.yml", "--election-timeout=1"])
            .file("/srv/etcd.yml", "name: a\nelection-timeout: 1500\nheartbeat-interval: 150\n");
        assert_eq!(
            read(&ETCD, &yaml),
            Reading::configured(1.5, "/srv/etcd.yml election-timeout 1.5 s, heartbeat-interval 0.15 s")
        );
        let named = Case::process("etcd", &["etcd"])
            .environment(&["ETCD_CONFIG_FILE=/srv/b.json"])
            .file("/srv/b.json", "{\"election-timeout\": 3000}");
        assert_eq!(read(&ETCD, &named), Reading::configured(3.0, "/srv/b.json election-timeout 3 s"));
    }

    #[test]
    fn the_package_file_is_believed_where_the_environment_is_locked() {
        let case = Case::process("etcd", &["etcd"])
            .locked("/proc/7/environ")
            .file("/etc/default/etcd", "# ETCD_NAME\nETCD_ELECTION_TIMEOUT=\"4000\"\n");
        assert_eq!(read(&ETCD, &case), Reading::configured(4.0, "/etc/default/etcd election-timeout 4 s"));
        let nothing = Case::process("etcd", &["etcd"]).locked("/proc/7/environ");
        assert!(nothing.detector(&ETCD).unwrap().source.ends_with("; /proc/7/environ could not be read"));
        let default = Case::process("etcd", &["etcd"])
            .environment(&["A=b"])
            .file("/etc/default/etcd", "ETCD_ELECTION_TIMEOUT=9");
        assert_eq!(read(&ETCD, &default), Reading::NotConfigured);
    }
}
