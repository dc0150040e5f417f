//! Oracle RAC, MongoDB, Elasticsearch and Cassandra.

use super::{
    Found, Question, Seen, Software,
    format::{duration::seconds, tree},
};
use vmgate_facts::{Cause, Unknown};

const MILLISECOND: f64 = 0.001;

/// Oracle Clusterware: a node is evicted when it missed network heartbeats for misscount seconds (30).
pub(super) const ORACLE_RAC: Software = Software {
    id: "oracle-rac",
    names: &["ocssd.bin", "ocssd"],
    more: |running| {
        let tool = running
            .folder()
            .map(|folder| format!("{folder}/crsctl"))
            .filter(|path| Question::file(path).is_some());
        tool.map(|path| Question::Command(format!("{path} get css misscount"))).into_iter().collect()
    },
    read: |seen| {
        // CRS-4678: Successful get misscount 30 for Cluster Synchronization Services.
        let value = seen.outputs().find_map(|output| {
            let (_, rest) = output.split_once("misscount ")?;
            seconds(rest.split_whitespace().next()?, 1.0)
        });
        value.map_or(Found::Nothing, |misscount| {
            Found::told(misscount, format!("crsctl get css misscount {misscount} s"))
        })
    },
    default: Some((30.0, "Oracle Clusterware CSS misscount of 30 s")),
    ..Software::PLAIN
};

/// MongoDB keeps electionTimeoutMillis in the replica set, which only a client that has logged in may read.
pub(super) const MONGODB: Software = Software {
    id: "mongodb",
    names: &["mongod"],
    files: &["/etc/mongod.conf", "/etc/mongodb.conf"],
    more: |running| {
        let named = running.option("--config").or_else(|| running.option("-f"));
        named.and_then(|path| running.file(path)).into_iter().collect()
    },
    read: |seen| {
        let flag = seen.running.option("--replSet").is_some();
        let file = seen.file();
        let configured =
            file.as_ref().and_then(|(_, text)| tree::scalar(&tree::yaml(text)?, "replication.replSetName"));
        if !flag && configured.is_none() && file.is_some() {
            return Found::NotAMember;
        }
        Found::Unknown(Unknown::new(
            Cause::NotSupported,
            "electionTimeoutMillis (10000 by default) stands in the replica set: rs.conf().settings tells it",
        ))
    },
    ..Software::PLAIN
};

/// Elasticsearch: a node goes after cluster.fault_detection.follower_check.retry_count (3) checks of timeout (10 s) in
/// a row; leader_check likewise.
pub(super) const ELASTICSEARCH: Software = Software {
    id: "elasticsearch",
    marks: &["org.elasticsearch.", "org.opensearch."],
    files: &["/etc/elasticsearch/elasticsearch.yml", "/etc/opensearch/opensearch.yml"],
    more: |running| {
        let folder = running.option("-Des.path.conf").or_else(|| running.option("-Dopensearch.path.conf"));
        let name = if running.says("org.opensearch.") { "opensearch.yml" } else { "elasticsearch.yml" };
        folder.and_then(|folder| running.file(&format!("{folder}/{name}"))).into_iter().collect()
    },
    read: elasticsearch,
    default: Some((30.0, "Elasticsearch fault detection, 3 checks of 10 s")),
    ..Software::PLAIN
};

/// Cassandra: silence of `phi_convict_threshold * ln 10` mean gossip intervals of 1 s convicts (8: 18.4 s), by
/// org.apache.cassandra.gms.FailureDetector and Hayashibara's phi accrual paper.
pub(super) const CASSANDRA: Software = Software {
    id: "cassandra",
    names: &["scylla"],
    marks: &["org.apache.cassandra.service.CassandraDaemon"],
    files: &[
        "/etc/cassandra/cassandra.yaml",
        "/etc/cassandra/conf/cassandra.yaml",
        "/etc/scylla/scylla.yaml",
    ],
    more: |running| {
        let named = running.option("-Dcassandra.config").and_then(|path| path.strip_prefix("file://"));
        named.and_then(|path| running.file(path)).into_iter().collect()
    },
    read: |seen| {
        let found = seen.files().find_map(|(path, text)| {
            let phi: f64 = tree::scalar(&tree::yaml(&text)?, "phi_convict_threshold")?.parse().ok()?;
            (1.0..=100.0).contains(&phi).then(|| {
                Found::configured(
                    silence(phi),
                    format!("{path} phi_convict_threshold {phi}, at one gossip a second"),
                )
            })
        });
        found.unwrap_or(Found::Nothing)
    },
    default: Some((18.4, "cassandra.yaml phi_convict_threshold of 8, at one gossip a second")),
    ..Software::PLAIN
};

/// Silence that phi stands for, to a tenth of a second.
fn silence(phi: f64) -> f64 {
    (phi * std::f64::consts::LN_10 * 10.0).round() / 10.0
}

fn elasticsearch(seen: &Seen<'_>) -> Found {
    let Some((path, text)) = seen.file() else { return Found::Nothing };
    let Some(tree) = tree::yaml(&text) else { return Found::Nothing };
    if tree::scalar(&tree, "discovery.type").as_deref() == Some("single-node") {
        return Found::NotAMember;
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
        Some((check, timeout, count, _)) => Found::configured(
            timeout * count,
            format!("{path} {check} retry_count {count} x timeout {timeout} s"),
        ),
        None => Found::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{Case, read},
        *,
    };

    #[test]
    fn oracle_is_asked_by_the_tool_beside_its_daemon() {
        let case = Case::process("ocssd.bin", &["/u01/app/19.0.0/grid/bin/ocssd.bin"])
            .output("CRS-4678: Successful get misscount 60 for Cluster Synchronization Services.\n");
        assert_eq!(read(&ORACLE_RAC, &case), Found::told(60.0, "crsctl get css misscount 60 s"));
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
            Found::configured(10.0, "/srv/es/elasticsearch.yml follower_check retry_count 2 x timeout 5 s")
        );
        let single = node().file("/srv/es/elasticsearch.yml", "discovery.type: single-node\n");
        assert_eq!(read(&ELASTICSEARCH, &single), Found::NotAMember);
        assert_eq!(read(&ELASTICSEARCH, &node()), Found::Nothing);
    }

    #[test]
    fn cassandra_counts_in_phi() {
        let case = Case::process("java", &["java", "org.apache.cassandra.service.CassandraDaemon"])
            .file("/etc/cassandra/cassandra.yaml", "cluster_name: 'a'\nphi_convict_threshold: 12\n");
        let source = "/etc/cassandra/cassandra.yaml phi_convict_threshold 12, at one gossip a second";
        assert_eq!(read(&CASSANDRA, &case), Found::configured(27.6, source));
        assert!((silence(8.0) - 18.4).abs() < 1e-9);
    }
}
