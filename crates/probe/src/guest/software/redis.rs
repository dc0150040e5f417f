//! Failure detectors of Redis and Valkey: cluster-node-timeout (15000 ms) in a cluster, down-after-milliseconds (30000)
//! under Sentinel.
//!
//! The server overwrites its command line with its address and mode, so the path of its file is lost; the server itself
//! is asked.

use crate::guest::{
    ask::safe_word,
    software::{
        Evidence, Question, Reading, RunningProcess, Software,
        format::{duration::seconds, lines},
    },
};

const MILLISECOND: f64 = 0.001;

pub(super) const CLUSTER: Software = Software {
    id: "redis-cluster",
    names: &["redis-server", "valkey-server"],
    files: &["/etc/redis/redis.conf", "/etc/redis.conf", "/etc/valkey/valkey.conf"],
    extra_questions: |running| {
        if is_sentinel(running) {
            Vec::new()
        } else {
            questions(running, "config get cluster-node-timeout", 6379)
        }
    },
    read: cluster,
    default: Some((15.0, "redis.conf cluster-node-timeout of 15000 ms")),
    ..Software::BASE
};

pub(super) const SENTINEL: Software = Software {
    id: "redis-sentinel",
    names: &["redis-sentinel", "valkey-sentinel", "redis-server", "valkey-server"],
    files: &[
        "/etc/redis/sentinel.conf",
        "/etc/redis-sentinel.conf",
        "/etc/sentinel.conf",
        "/etc/valkey/sentinel.conf",
    ],
    extra_questions: |running| {
        if is_sentinel(running) { questions(running, "sentinel masters", 26379) } else { Vec::new() }
    },
    read: sentinel,
    default: Some((30.0, "sentinel.conf down-after-milliseconds of 30000")),
    ..Software::BASE
};

fn questions(running: &RunningProcess, command: &str, port: u16) -> Vec<Question> {
    let mut questions: Vec<_> =
        running.argument_ending(&[".conf"]).and_then(|path| running.file(path)).into_iter().collect();
    if running.pid.is_some() {
        let client = if running.name.starts_with("valkey") { "valkey-cli" } else { "redis-cli" };
        let (address, own) = address(running);
        let host = address.map(|address| format!("-h {address} ")).unwrap_or_default();
        questions.push(Question::Command(format!("{client} {host}-p {} {command}", own.unwrap_or(port))));
    }
    questions
}

/// Address and port in `redis-server 10.0.0.5:7000 [cluster]`; no address if it is `*`.
fn address(running: &RunningProcess) -> (Option<&str>, Option<u16>) {
    let title = running.arguments().next().unwrap_or_default();
    let Some((host, port)) = title.split_whitespace().nth(1).and_then(|word| word.rsplit_once(':')) else {
        return (None, running.option("--port").and_then(|port| port.parse().ok()));
    };
    ((host != "*" && safe_word(host)).then_some(host), port.parse().ok())
}

fn is_sentinel(running: &RunningProcess) -> bool {
    running.has_argument_with("[sentinel]")
        || running.has_argument_with("--sentinel")
        || running.name.ends_with("-sentinel")
}

fn cluster(evidence: &Evidence<'_>) -> Reading {
    let running = evidence.running;
    let on_command_line =
        running.has_argument_with("[cluster]") || running.option("--cluster-enabled") == Some("yes");
    if is_sentinel(running) {
        return Reading::NotAMember;
    }
    // `config get` prints the name and, below it, the value.
    let told = evidence.outputs().find_map(|output| {
        let mut lines = output.lines().map(str::trim).skip_while(|line| *line != "cluster-node-timeout");
        let value = seconds(lines.nth(1)?, MILLISECOND)?;
        Some(Reading::reported(value, format!("config get cluster-node-timeout {value} s")))
    });
    let file = evidence.files().find(|(_, text)| is_of(text, running));
    let in_file = file.as_ref().is_some_and(|(_, text)| lines::value(text, "cluster-enabled") == Some("yes"));
    if !on_command_line && !in_file {
        return Reading::NotAMember;
    }
    let configured = || {
        if let Some(value) =
            running.option("--cluster-node-timeout").and_then(|text| seconds(text, MILLISECOND))
        {
            return Some(Reading::configured(value, format!("command line cluster-node-timeout {value} s")));
        }
        let (path, text) = file?;
        let value = seconds(lines::value(&text, "cluster-node-timeout")?, MILLISECOND)?;
        Some(Reading::configured(value, format!("{path} cluster-node-timeout {value} s")))
    };
    told.or_else(configured).unwrap_or(Reading::NotConfigured)
}

/// True if a file belongs to this process: several may run, and their ports differ.
fn is_of(text: &str, running: &RunningProcess) -> bool {
    let (_, port) = address(running);
    port.is_none_or(|port| {
        lines::value(text, "port").and_then(|port| port.parse().ok()).unwrap_or(6379) == port
    })
}

fn sentinel(evidence: &Evidence<'_>) -> Reading {
    if !is_sentinel(evidence.running) && evidence.running.pid.is_some() {
        return Reading::NotAMember;
    }
    let tightest = |values: &mut dyn Iterator<Item = f64>| values.reduce(f64::min);
    let told = evidence.outputs().find_map(|output| {
        let names = output.lines().map(str::trim);
        let mut values = names
            .clone()
            .zip(names.skip(1))
            .filter(|(name, _)| *name == "down-after-milliseconds")
            .filter_map(|(_, value)| seconds(value, MILLISECOND));
        let value = tightest(&mut values)?;
        Some(Reading::reported(value, format!("sentinel masters, down-after-milliseconds {value} s")))
    });
    let configured = || {
        evidence.files().find_map(|(path, text)| {
            let mut values =
                lines::settings(&text).filter(|setting| setting.key == "sentinel").filter_map(|setting| {
                    let mut words = setting.value.split_whitespace();
                    (words.next() == Some("down-after-milliseconds"))
                        .then(|| seconds(words.nth(1)?, MILLISECOND))?
                });
            let value = tightest(&mut values)?;
            Some(Reading::configured(value, format!("{path} sentinel down-after-milliseconds {value} s")))
        })
    };
    told.or_else(configured).unwrap_or(Reading::NotConfigured)
}

#[cfg(test)]
mod tests {
    use crate::guest::software::{
        redis::*,
        testing::{Case, read},
    };

    const CONF: &str = "port 7000\ncluster-enabled yes\ncluster-node-timeout 7000\nrequirepass hunter2\n";

    #[test]
    fn a_cluster_member_says_it_itself_or_in_the_file_of_its_port() {
        let member = || Case::process("redis-server", &["redis-server *:7000 [cluster]"]);
        assert_eq!(
            read(&CLUSTER, &member().output("cluster-node-timeout\n7000\n")),
            Reading::reported(7.0, "config get cluster-node-timeout 7 s")
        );
        let locked = member().output("NOAUTH Authentication required.\n");
        assert_eq!(read(&CLUSTER, &locked), Reading::NotConfigured);
        let file = member().file("/etc/redis/redis.conf", CONF);
        assert_eq!(
            read(&CLUSTER, &file),
            Reading::configured(7.0, "/etc/redis/redis.conf cluster-node-timeout 7 s")
        );
        let other = member().file("/etc/redis/redis.conf", &CONF.replace("7000\nc", "6379\nc"));
        assert_eq!(read(&CLUSTER, &other), Reading::NotConfigured);
        let alone = Case::process("redis-server", &["redis-server 127.0.0.1:6379"]);
        assert_eq!(alone.detector(&CLUSTER), None);
        assert_eq!(alone.detector(&SENTINEL), None);
    }

    #[test]
    fn it_is_asked_where_it_listens() {
        let commands = |title: &str| {
            let process = crate::guest::RawProcess {
                stat: b"7 (redis-server) S".to_vec(),
                command: title.into(),
                sockets: None,
            };
            questions(&RunningProcess::of(&process), "x", 1).pop().unwrap().name().to_owned()
        };
        assert_eq!(commands("redis-server *:7000 [cluster]"), "redis-cli -p 7000 x");
        assert_eq!(commands("redis-server 10.0.0.5:7000 [cluster]"), "redis-cli -h 10.0.0.5 -p 7000 x");
        assert_eq!(commands("redis-server ::1:7000 [cluster]"), "redis-cli -h ::1 -p 7000 x");
        assert_eq!(commands("redis-server $(id):7000 [cluster]"), "redis-cli -p 7000 x");
    }

    #[test]
    fn the_tightest_of_what_a_sentinel_watches_counts() {
        let sentinel = || Case::process("redis-sentinel", &["redis-sentinel *:26379 [sentinel]"]);
        let output = "name\na\ndown-after-milliseconds\n30000\nname\nb\ndown-after-milliseconds\n5000\n";
        assert_eq!(
            read(&SENTINEL, &sentinel().output(output)),
            Reading::reported(5.0, "sentinel masters, down-after-milliseconds 5 s")
        );
        let text = "sentinel monitor a 10.0.0.1 6379 2\nsentinel auth-pass a hunter2\nsentinel down-after-milliseconds a 60000\n";
        assert_eq!(
            read(&SENTINEL, &sentinel().file("/etc/redis/sentinel.conf", text)),
            Reading::configured(60.0, "/etc/redis/sentinel.conf sentinel down-after-milliseconds 60 s")
        );
    }
}
