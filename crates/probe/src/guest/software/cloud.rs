//! Failure detectors of Patroni (lease of the leader) and Consul (gossip and Raft).

use serde_json::Value;
use vmgate_facts::DetectorBasis;

use crate::guest::software::{
    Evidence, Question, Reading, Software,
    format::{
        block::{self, Statement},
        duration::seconds,
        tree,
    },
};

/// Patroni's dynamic configuration: the leader's key expires ttl (30 s) after its renewal, and it is renewed every
/// loop_wait (10 s): a leader that falls silent has at least the difference.
pub(super) const PATRONI: Software = Software {
    id: "patroni",
    names: &["patroni"],
    argument_marks: &["/bin/patroni"],
    files: &["/etc/patroni/config.yml", "/etc/patroni/patroni.yml", "/etc/patroni.yml"],
    extra_questions: |running| {
        let named = running.argument_ending(&[".yml", ".yaml"]).and_then(|path| running.file(path));
        let option = named.as_ref().map(|file| format!("-c {} ", file.name())).unwrap_or_default();
        [named, Some(Question::Command(format!("patronictl {option}show-config")))]
            .into_iter()
            .flatten()
            .collect()
    },
    read: patroni,
    default: Some((20.0, "Patroni dynamic configuration, ttl of 30 s less loop_wait of 10 s")),
    ..Software::BASE
};

/// Consul: a member that misses a probe is suspected for `suspicion_mult * probe_interval` (4 x 1 s; longer with more
/// than ten members); a server's followers wait for 1000 ms x raft_multiplier (5).
pub(super) const CONSUL: Software = Software {
    id: "consul",
    names: &["consul"],
    files: &[
        "/etc/consul.d/consul.hcl",
        "/etc/consul.d/server.hcl",
        "/etc/consul.d/consul.json",
        "/etc/consul.d/config.json",
    ],
    extra_questions: |running| {
        running.option("-config-file").and_then(|path| running.file(path)).into_iter().collect()
    },
    read: consul,
    default: Some((4.0, "Consul gossip_lan, suspicion_mult 4 x probe_interval 1 s")),
    ..Software::BASE
};

fn patroni(evidence: &Evidence<'_>) -> Reading {
    let found = |place: &str, text: &str, under: &str, basis: DetectorBasis, note: &str| {
        let tree = tree::yaml(text)?;
        let value =
            |key: &str| tree::scalar(&tree, &format!("{under}{key}")).and_then(|text| seconds(&text, 1.0));
        let (ttl, wait) = (value("ttl"), value("loop_wait"));
        if ttl.is_none() && wait.is_none() {
            return None;
        }
        let (ttl, wait) = (ttl.unwrap_or(30.0), wait.unwrap_or(10.0));
        let source = format!("{place} ttl {ttl} s less loop_wait {wait} s{note}");
        Some(Reading::Timeout { seconds: (ttl - wait).max(0.0), basis, source })
    };
    let told = evidence
        .outputs()
        .find_map(|output| found("patronictl show-config", &output, "", DetectorBasis::Tool, ""));
    let note = ", the initial value: the value in force is in the distributed configuration store";
    told.or_else(|| {
        evidence
            .files()
            .find_map(|(path, text)| found(path, &text, "bootstrap.dcs.", DetectorBasis::Configuration, note))
    })
    .unwrap_or(Reading::NotConfigured)
}

/// Consul settings merged from all files: usually a folder of files, each in HCL or JSON.
#[derive(Default)]
struct Gossip {
    probe_interval: Option<f64>,
    suspicion_mult: Option<f64>,
    raft_multiplier: Option<f64>,
    server: bool,
    places: Vec<String>,
}

/// One configuration file of Consul.
enum Document {
    Hcl(Vec<Statement>),
    Json(Value),
}

impl Document {
    fn parse(text: &str) -> Option<Self> {
        if text.trim_start().starts_with('{') {
            tree::yaml(text).map(Self::Json)
        } else {
            Some(Self::Hcl(block::parse(text)))
        }
    }

    /// A setting in a section; an empty section means top level.
    fn value(&self, section: &str, key: &str) -> Option<String> {
        match self {
            Self::Json(tree) if section.is_empty() => tree::scalar(tree, key),
            Self::Json(tree) => tree::scalar(tree, &format!("{section}.{key}")),
            Self::Hcl(statements) if section.is_empty() => block::value(statements, key).map(str::to_owned),
            Self::Hcl(statements) => block::named(statements, section)
                .filter_map(|s| block::value(&s.block, key))
                .last()
                .map(str::to_owned),
        }
    }
}

fn consul(evidence: &Evidence<'_>) -> Reading {
    let mut gossip = Gossip { server: evidence.running.has_argument_with("-server"), ..Gossip::default() };
    for (path, text) in evidence.files() {
        let Some(document) = Document::parse(&text) else { continue };
        let value = |section: &str, key: &str| document.value(section, key);
        let time = |section, key, bare| value(section, key).and_then(|text| seconds(&text, bare));
        gossip.probe_interval = time("gossip_lan", "probe_interval", 1.0).or(gossip.probe_interval);
        gossip.suspicion_mult = time("gossip_lan", "suspicion_mult", 1.0).or(gossip.suspicion_mult);
        gossip.raft_multiplier = time("performance", "raft_multiplier", 1.0).or(gossip.raft_multiplier);
        gossip.server |= value("", "server").as_deref() == Some("true");
        gossip.places.push(path.to_owned());
    }
    let raft = gossip.raft_multiplier.filter(|_| gossip.server);
    if gossip.probe_interval.is_none() && gossip.suspicion_mult.is_none() && raft.is_none() {
        return Reading::NotConfigured;
    }
    let places = gossip.places.join(", ");
    let (interval, times) = (gossip.probe_interval.unwrap_or(1.0), gossip.suspicion_mult.unwrap_or(4.0));
    match raft {
        Some(raft) if raft < interval * times => {
            Reading::configured(raft, format!("{places} raft_multiplier {raft} x 1 s"))
        }
        _ => Reading::configured(
            interval * times,
            format!("{places} suspicion_mult {times} x probe_interval {interval} s"),
        ),
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // as written, not as computed
mod tests {
    use crate::guest::software::{
        cloud::*,
        testing::{Case, read},
    };

    const YML: &str = "scope: a\nrestapi: {password: hunter2}\nbootstrap:\n  dcs:\n    ttl: 30\n    loop_wait: 10\n    retry_timeout: 10\n";

    #[test]
    fn patroni_asks_the_store_before_the_file() {
        let case = || {
            Case::process("patroni", &["/usr/bin/python3", "/usr/bin/patroni", "/etc/patroni/a.yml"])
                .file("/etc/patroni/a.yml", YML)
        };
        let told = read(&PATRONI, &case().output("loop_wait: 5\nttl: 20\nretry_timeout: 5\n"));
        assert_eq!(told, Reading::reported(15.0, "patronictl show-config ttl 20 s less loop_wait 5 s"));
        let Reading::Timeout { seconds, source, .. } = read(&PATRONI, &case()) else { panic!("not read") };
        assert_eq!(seconds, 20.0);
        assert!(source.contains("initial value") && !source.contains("hunter2"), "{source}");
    }

    #[test]
    fn consul_is_read_as_hcl_and_json() {
        let agent = |server: &[&str]| Case::process("consul", &[&["consul", "agent"], server].concat());
        let hcl = "server = true\nencrypt = \"hunter2\"\ngossip_lan {\n  probe_interval = \"500ms\"\n}\nperformance { raft_multiplier = 1 }\n";
        let found = read(&CONSUL, &agent(&[]).file("/etc/consul.d/consul.hcl", hcl));
        assert_eq!(found, Reading::configured(1.0, "/etc/consul.d/consul.hcl raft_multiplier 1 x 1 s"));
        let json = "{\"gossip_lan\": {\"suspicion_mult\": 6, \"probe_interval\": \"2s\"}}";
        let found = read(&CONSUL, &agent(&[]).file("/etc/consul.d/config.json", json));
        assert_eq!(
            found,
            Reading::configured(12.0, "/etc/consul.d/config.json suspicion_mult 6 x probe_interval 2 s")
        );
        assert_eq!(read(&CONSUL, &agent(&["-server"])), Reading::NotConfigured);
    }
}
