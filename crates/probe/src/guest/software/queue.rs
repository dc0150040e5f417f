//! Failure detectors of ZooKeeper, Kafka and RabbitMQ.

use crate::guest::software::{
    Evidence, Reading, RunningProcess, Software,
    format::{duration::seconds, lines},
};

const MILLISECOND: f64 = 0.001;

/// zookeeperAdmin: leader and follower drop each other after a silence of `tickTime * syncLimit`.
pub(super) const ZOOKEEPER: Software = Software {
    id: "zookeeper",
    argument_marks: &["org.apache.zookeeper.server.quorum.QuorumPeerMain"],
    files: &["/etc/zookeeper/conf/zoo.cfg", "/etc/zookeeper/zoo.cfg", "/opt/zookeeper/conf/zoo.cfg"],
    extra_questions: |running| named(running, &[".cfg", ".conf", ".properties"]),
    read: zookeeper,
    default: Some((10.0, "ZooKeeper sample configuration, syncLimit 5 x tickTime 2000 ms")),
    ..Software::BASE
};

/// Kafka broker configuration: as a KRaft controller controller.quorum.fetch.timeout.ms (2000), as a KRaft broker
/// broker.session.timeout.ms (9000), with ZooKeeper zookeeper.session.timeout.ms (18000).
pub(super) const KAFKA: Software = Software {
    id: "kafka",
    argument_marks: &["kafka.Kafka"],
    files: &["/etc/kafka/server.properties", "/opt/kafka/config/server.properties"],
    extra_questions: |running| named(running, &[".properties"]),
    read: kafka,
    default: Some((2.0, "Kafka controller.quorum.fetch.timeout.ms of 2000")),
    ..Software::BASE
};

/// RabbitMQ, net tick time: a node is considered down after 0.75 to 1.25 times net_ticktime (60 s).
pub(super) const RABBITMQ: Software = Software {
    id: "rabbitmq",
    argument_marks: &["rabbitmq_server", "rabbit_boot", "rabbitmq_boot"],
    files: &["/etc/rabbitmq/rabbitmq.conf", "/etc/rabbitmq/advanced.config", "/etc/rabbitmq/rabbitmq.config"],
    read: rabbitmq,
    default: Some((45.0, "RabbitMQ net_ticktime of 60 s less a quarter")),
    ..Software::BASE
};

fn named(running: &RunningProcess, endings: &[&str]) -> Vec<crate::guest::software::Question> {
    running.argument_ending(endings).and_then(|path| running.file(path)).into_iter().collect()
}

fn zookeeper(evidence: &Evidence<'_>) -> Reading {
    let Some((path, text)) = evidence.file() else { return Reading::NotConfigured };
    // The members are listed in the file or, since 3.5, in another file that it names.
    let member = |key: &str| key.starts_with("server.") || key == "dynamicConfigFile";
    if !lines::settings(&text).any(|setting| member(setting.key)) {
        return Reading::NotAMember;
    }
    let tick = lines::value(&text, "tickTime").and_then(|text| seconds(text, MILLISECOND));
    let limit = lines::value(&text, "syncLimit").and_then(|text| seconds(text, 1.0));
    match (tick, limit) {
        (Some(tick), Some(limit)) => {
            Reading::configured(tick * limit, format!("{path} syncLimit {limit} x tickTime {tick} s"))
        }
        _ => Reading::NotConfigured,
    }
}

fn kafka(evidence: &Evidence<'_>) -> Reading {
    let file = evidence.file();
    let (path, text) = file.as_ref().map_or(("command line", ""), |(path, text)| (*path, text.as_ref()));
    let overrides = || {
        let arguments = evidence.running.arguments();
        arguments
            .pairs()
            .filter(|(first, _)| *first == "--override")
            .filter_map(|(_, pair)| pair.split_once('='))
    };
    let value = |key: &str| {
        let given = overrides().filter(|(name, _)| *name == key).map(|(_, value)| value).last();
        given.or_else(|| lines::value(text, key))
    };
    if file.is_none() && overrides().next().is_none() {
        return Reading::NotConfigured;
    }
    let time = |key: &str, default: f64| {
        let seconds = value(key).and_then(|text| seconds(text, MILLISECOND));
        (seconds.unwrap_or(default), key.to_owned(), if seconds.is_some() { "" } else { " by default" })
    };
    let roles = value("process.roles").unwrap_or_default();
    let mut times = Vec::new();
    if roles.contains("controller") {
        times.push(time("controller.quorum.fetch.timeout.ms", 2.0));
    }
    if roles.contains("broker") {
        times.push(time("broker.session.timeout.ms", 9.0));
    }
    if roles.is_empty() {
        times.push(time("zookeeper.session.timeout.ms", 18.0));
    }
    times.sort_by(|a, b| a.0.total_cmp(&b.0));
    match times.into_iter().next() {
        Some((seconds, key, default)) => {
            Reading::configured(seconds, format!("{path} {key} {seconds} s{default}"))
        }
        None => Reading::NotConfigured,
    }
}

fn rabbitmq(evidence: &Evidence<'_>) -> Reading {
    let tick = |place: &str, text: &str| {
        let tick = seconds(text, 1.0).filter(|seconds| *seconds > 0.0)?;
        Some(Reading::configured(0.75 * tick, format!("{place} net_ticktime {tick} s, less a quarter")))
    };
    let on_command_line = || {
        let arguments = evidence.running.arguments();
        arguments
            .pairs()
            .find_map(|(name, value)| if name == "net_ticktime" { tick("command line", value) } else { None })
    };
    let in_file = || {
        evidence.files().find_map(|(path, text)| match lines::value(&text, "net_ticktime") {
            Some(value) => tick(path, value),
            None => tick(path, erlang_value(&text, "net_ticktime")?),
        })
    };
    on_command_line().or_else(in_file).unwrap_or(Reading::NotConfigured)
}

/// The digits in `{name, 60}` of an Erlang term, on a line that is no comment.
fn erlang_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().filter(|line| !line.trim_start().starts_with('%')).find_map(|line| {
        let (_, rest) = line.split_once(name)?;
        let rest = rest.trim_start().strip_prefix(',')?.trim_start();
        rest.split(|c: char| !c.is_ascii_digit()).next()
    })
}

/// Each item with the one after it.
trait Pairs<'a>: Iterator<Item = &'a str> + Sized {
    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut before = None;
        self.filter_map(move |item| before.replace(item).map(|before| (before, item)))
    }
}

impl<'a, I: Iterator<Item = &'a str>> Pairs<'a> for I {}

#[cfg(test)]
mod tests {
    use crate::guest::software::{
        queue::*,
        testing::{Case, read},
    };

    #[test]
    fn zookeeper_multiplies_and_a_lone_server_is_no_member() {
        let java = |path: &str| {
            Case::process(
                "java",
                &["java", "-cp", "x", "org.apache.zookeeper.server.quorum.QuorumPeerMain", path],
            )
        };
        let text = "tickTime=2000\ninitLimit=10\nsyncLimit=5\nserver.1=a:2888:3888\nserver.2=b:2888:3888\n";
        let found = read(&ZOOKEEPER, &java("/srv/zoo.cfg").file("/srv/zoo.cfg", text));
        assert_eq!(found, Reading::configured(10.0, "/srv/zoo.cfg syncLimit 5 x tickTime 2 s"));
        let relative =
            read(&ZOOKEEPER, &java("../conf/zoo.cfg").file("/etc/zookeeper/conf/zoo.cfg", "tickTime=2000\n"));
        assert_eq!(relative, Reading::NotAMember);
        let cwd = read(
            &ZOOKEEPER,
            &java("conf/zoo.cfg").file("/proc/7/cwd/conf/zoo.cfg", &text.replace("2000", "500")),
        );
        assert_eq!(cwd, Reading::configured(2.5, "/proc/7/cwd/conf/zoo.cfg syncLimit 5 x tickTime 0.5 s"));
    }

    #[test]
    fn kafka_depends_on_its_roles() {
        let broker = |text: &str| {
            let case = Case::process("java", &["java", "kafka.Kafka", "/etc/kafka/kraft.properties"]);
            read(&KAFKA, &case.file("/etc/kafka/kraft.properties", text))
        };
        let found = broker("process.roles=broker,controller\ncontroller.quorum.fetch.timeout.ms=4000\n");
        assert_eq!(
            found,
            Reading::configured(4.0, "/etc/kafka/kraft.properties controller.quorum.fetch.timeout.ms 4 s")
        );
        let found = broker("process.roles=broker\nsasl.jaas.config=password=\"hunter2\"\n");
        assert_eq!(
            found,
            Reading::configured(9.0, "/etc/kafka/kraft.properties broker.session.timeout.ms 9 s by default")
        );
        let found = broker("zookeeper.session.timeout.ms=6000\n");
        assert_eq!(
            found,
            Reading::configured(6.0, "/etc/kafka/kraft.properties zookeeper.session.timeout.ms 6 s")
        );
        let given = [
            "java",
            "kafka.Kafka",
            "--override",
            "process.roles=broker",
            "--override",
            "broker.session.timeout.ms=3000",
        ];
        let found = read(&KAFKA, &Case::process("java", &given));
        assert_eq!(found, Reading::configured(3.0, "command line broker.session.timeout.ms 3 s"));
    }

    #[test]
    fn rabbitmq_says_it_in_either_syntax() {
        let node = || {
            Case::process(
                "beam.smp",
                &["beam.smp", "-pa", "/usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8/ebin"],
            )
        };
        let ini = node().file("/etc/rabbitmq/rabbitmq.conf", "# net_ticktime = 1\nnet_ticktime = 120\n");
        assert_eq!(
            read(&RABBITMQ, &ini),
            Reading::configured(90.0, "/etc/rabbitmq/rabbitmq.conf net_ticktime 120 s, less a quarter")
        );
        let terms = node().file(
            "/etc/rabbitmq/advanced.config",
            "%% {net_ticktime, 1}\n[{kernel, [{net_ticktime,  8}]}].\n",
        );
        assert_eq!(
            read(&RABBITMQ, &terms),
            Reading::configured(6.0, "/etc/rabbitmq/advanced.config net_ticktime 8 s, less a quarter")
        );
        assert_eq!(node().detector(&RABBITMQ).unwrap().detector_seconds.known(), Some(&45.0));
    }
}
