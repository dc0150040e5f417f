//! Failure detectors of Oracle RAC, MongoDB, Elasticsearch and Cassandra.

use vmgate_facts::{Cause, Unknown};

use crate::guest::software::{
    Evidence, Question, Reading, Software,
    format::{duration::seconds, tree},
};

const MILLISECOND: f64 = 0.001;

/// Oracle Clusterware: a node is evicted when it missed network heartbeats for misscount seconds (30).
pub(super) const ORACLE_RAC: Software = Software {
    id: "oracle-rac",
    names: &["ocssd.bin", "ocssd"],
    extra_questions: |running| {
        let tool = running
            .folder()
            .map(|folder| format!("{folder}/crsctl"))
            .filter(|path| Question::file(path).is_some());
        tool.map(|path| Question::Command(format!("{path} get css misscount"))).into_iter().collect()
    },
    read: |evidence| {
        // CRS-4678: Successful get misscount 30 for Cluster Synchronization Services.
        let value = evidence.outputs().find_map(|output| {
            let (_, rest) = output.split_once("misscount ")?;
            seconds(rest.split_whitespace().next()?, 1.0)
        });
        value.map_or(Reading::NotConfigured, |misscount| {
            Reading::reported(misscount, format!("crsctl get css misscount {misscount} s"))
        })
    },
    default: Some((30.0, "Oracle Clusterware CSS misscount of 30 s")),
    ..Software::BASE
};

/// MongoDB keeps electionTimeoutMillis in the replica set, which only a client that has logged in may read.
pub(super) const MONGODB: Software = Software {
    id: "mongodb",
    names: &["mongod"],
    files: &["/etc/mongod.conf", "/etc/mongodb.conf"],
    extra_questions: |running| {
        let named = running.option("--config").or_else(|| running.option("-f"));
        named.and_then(|path| running.file(path)).into_iter().collect()
    },
    read: |evidence| {
        let flag = evidence.running.option("--replSet").is_some();
        let file = evidence.file();
        let configured =
            file.as_ref().and_then(|(_, text)| tree::scalar(&tree::yaml(text)?, "replication.replSetName"));
        if !flag && configured.is_none() && file.is_some() {
            return Reading::NotAMember;
        }
        Reading::Unknown(Unknown::new(
            Cause::NotSupported,
            "electionTimeoutMillis (10000 by default) is stored in the replica set: rs.conf().settings shows it",
        ))
    },
    ..Software::BASE
};

/// Elasticsearch: a node is removed after cluster.fault_detection.follower_check.retry_count (3) failed checks of
/// timeout (10 s) in a row; leader_check likewise.
pub(super) const ELASTICSEARCH: Software = Software {
    id: "elasticsearch",
    argument_marks: &["org.elasticsearch.", "org.opensearch."],
    files: &["/etc/elasticsearch/elasticsearch.yml", "/etc/opensearch/opensearch.yml"],
    extra_questions: |running| {
        let folder = running.option("-Des.path.conf").or_else(|| running.option("-Dopensearch.path.conf"));
        let name =
            if running.has_argument_with("org.opensearch.") { "opensearch.yml" } else { "elasticsearch.yml" };
        folder.and_then(|folder| running.file(&format!("{folder}/{name}"))).into_iter().collect()
    },
    read: elasticsearch,
    default: Some((30.0, "Elasticsearch fault detection, 3 checks of 10 s")),
    ..Software::BASE
};

/// Cassandra: a node is convicted after a silence of `phi_convict_threshold * ln 10` mean gossip intervals of 1 s
/// (8: 18.4 s), see org.apache.cassandra.gms.FailureDetector and Hayashibara's phi accrual paper.
pub(super) const CASSANDRA: Software = Software {
    id: "cassandra",
    names: &["scylla"],
    argument_marks: &["org.apache.cassandra.service.CassandraDaemon"],
    files: &[
        "/etc/cassandra/cassandra.yaml",
        "/etc/cassandra/conf/cassandra.yaml",
        "/etc/scylla/scylla.yaml",
    ],
    extra_questions: |running| {
        let named = running.option("-Dcassandra.config").and_then(|path| path.strip_prefix("file://"));
        named.and_then(|path| running.file(path)).into_iter().collect()
    },
    read: |evidence| {
        let found = evidence.files().find_map(|(path, text)| {
            let phi: f64 = tree::scalar(&tree::yaml(&text)?, "phi_convict_threshold")?.parse().ok()?;
            (1.0..=100.0).contains(&phi).then(|| {
                Reading::configured(
                    silence(phi),
                    format!("{path} phi_convict_threshold {phi}, at one gossip a second"),
                )
            })
        });
        found.unwrap_or(Reading::NotConfigured)
    },
    default: Some((18.4, "cassandra.yaml phi_convict_threshold of 8, at one gossip a second")),
    ..Software::BASE
};

/// Seconds of silence that correspond to phi, rounded to a tenth.
fn silence(phi: f64) -> f64 {
    (phi * std::f64::consts::LN_10 * 10.0).round() / 10.0
}

fn elasticsearch(evidence: &Evidence<'_>) -> Reading {
    let Some((path, text)) = evidence.file() else { return Reading::NotConfigured };
    let Some(tree) = tree::yaml(&text) else { return Reading::NotConfigured };
    if tree::scalar(&tree, "discovery.type").as_deref() == Some("single-node") {
        return Reading::NotAMember;
    }
    let checks = ["follower_check", "leader_check"].map(|check| {
        let value = |key: &str, bare| {
            tree::scalar(&tree, &format!("cluster.fault_detection.{check}.{key}"))
                .and_then(|text| seconds(&text, bare))
        };
        let (timeout, count) = (value("timeout", MILLISECOND), value("retry_count", 1.0));
        let given = timeout.is_some() || count.is_some();
        (check, timeout.unwrap_or(10.0), count.unwrap_or(3.0), given)
    });
    let tightest =
        checks.into_iter().filter(|check| check.3).min_by(|a, b| (a.1 * a.2).total_cmp(&(b.1 * b.2)));
    match tightest {
        Some((check, timeout, count, _)) => Reading::configured(
            timeout * count,
            format!("{path} {check} retry_count {count} x timeout {timeout} s"),
        ),
        None => Reading::NotConfigured,
    }
}

#[cfg(test)]
mod tests {
    use crate::guest::software::{
        database::*,
        testing::{Case, read},
    };

    #[test]
    fn oracle_is_asked_by_the_tool_beside_its_daemon() {
        let case = Case::process("ocssd.bin", &["/u01/app/19.0.0/grid/bin/ocssd.bin"])
            .output("CRS-4678: Successful get misscount 60 for Cluster Synchronization Services.\n");
        assert_eq!(read(&ORACLE_RAC, &case), Reading::reported(60.0, "crsctl get css misscount 60 s"));
        let odd = Case::process("ocssd.bin", &["/u01/$(id)/ocssd.bin"]).detector(&ORACLE_RAC).unwrap();
        assert_eq!(odd.detector_seconds.known(), Some(&30.0));
    }

    #[test]
    fn a_replica_set_is_unknown_and_a_lone_mongod_no_member() {
        let member = Case::process("mongod", &["mongod", "--config", "/etc/mongod.conf"])
            .file("/etc/mongod.conf", "replication:\n  replSetName: rs0\n");
        let detector = member.detector(&MONGODB).unwrap();
        assert_eq!(detector.detector_seconds.known(), None);
        let alone = Case::process("mongod", &["mongod"])
            .file("/etc/mongod.conf", "net:\n  port: 27017\n#replication:\n");
        assert_eq!(alone.detector(&MONGODB), None);
    }

    #[test]
    fn elasticsearch_multiplies_its_checks() {
        let node = || {
            Case::process(
                "java",
                &["java", "-Des.path.conf=/srv/es", "org.elasticsearch.bootstrap.Elasticsearch"],
            )
        };
        let text = "cluster.name: a\ncluster.fault_detection:\n  follower_check.timeout: 5s\n  follower_check.retry_count: 2\n";
        let found = read(&ELASTICSEARCH, &node().file("/srv/es/elasticsearch.yml", text));
        assert_eq!(
            found,
            Reading::configured(10.0, "/srv/es/elasticsearch.yml follower_check retry_count 2 x timeout 5 s")
        );
        let single = node().file("/srv/es/elasticsearch.yml", "discovery.type: single-node\n");
        assert_eq!(read(&ELASTICSEARCH, &single), Reading::NotAMember);
        assert_eq!(read(&ELASTICSEARCH, &node()), Reading::NotConfigured);
    }

    #[test]
    fn cassandra_counts_in_phi() {
        let case = Case::process("java", &["java", "org.apache.cassandra.service.CassandraDaemon"])
            .file("/etc/cassandra/cassandra.yaml", "cluster_name: 'a'\nphi_convict_threshold: 12\n");
        let source = "/etc/cassandra/cassandra.yaml phi_convict_threshold 12, at one gossip a second";
        assert_eq!(read(&CASSANDRA, &case), Reading::configured(27.6, source));
        assert!((silence(8.0) - 18.4).abs() < 1e-9);
    }
}
