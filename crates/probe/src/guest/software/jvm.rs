//! Failure detectors of Java data grids: Hazelcast, Infinispan and others built on JGroups, Ignite.

use crate::guest::software::{
    Evidence, Reading, RunningProcess, Software,
    format::{duration::seconds, tree},
};

const MILLISECOND: f64 = 0.001;
const NO_HEARTBEAT: &str = "hazelcast.max.no.heartbeat.seconds";

/// Hazelcast, deadline failure detector: hazelcast.max.no.heartbeat.seconds (60).
pub(super) const HAZELCAST: Software = Software {
    id: "hazelcast",
    argument_marks: &["com.hazelcast.", "hazelcast-"],
    files: &[
        "/etc/hazelcast/hazelcast.yaml",
        "/etc/hazelcast/hazelcast.xml",
        "/opt/hazelcast/config/hazelcast.xml",
    ],
    extra_questions: |running| named(running, "-Dhazelcast.config="),
    read: hazelcast,
    default: Some((60.0, "Hazelcast deadline failure detector, max.no.heartbeat.seconds of 60")),
    ..Software::BASE
};

/// JGroups: FD_ALL, FD_ALL2, FD_ALL3 suspect a member after `timeout` ms; Infinispan's own stacks have 10000.
pub(super) const INFINISPAN: Software = Software {
    id: "infinispan",
    argument_marks: &["org.infinispan.", "infinispan-server", "-ha.xml", "-Djgroups."],
    files: &[
        "/opt/infinispan/server/conf/infinispan.xml",
        "/opt/wildfly/standalone/configuration/standalone-ha.xml",
        "/opt/jboss/wildfly/standalone/configuration/standalone-ha.xml",
    ],
    extra_questions: |running| {
        running
            .argument_ending(&["-ha.xml", "infinispan.xml"])
            .and_then(|path| running.file(path))
            .into_iter()
            .collect()
    },
    read: jgroups,
    default: Some((10.0, "JGroups FD_ALL timeout of 10000 ms, as the servers ship it")),
    ..Software::BASE
};

/// Ignite: failureDetectionTimeout of 10000 ms.
pub(super) const IGNITE: Software = Software {
    id: "ignite",
    argument_marks: &["org.apache.ignite."],
    files: &["/etc/apache-ignite/default-config.xml", "/opt/ignite/config/default-config.xml"],
    extra_questions: |running| {
        running.argument_ending(&[".xml"]).and_then(|path| running.file(path)).into_iter().collect()
    },
    read: |evidence| {
        let found = evidence.files().find_map(|(path, text)| {
            let timeout = seconds(&tree::property(&text, "failureDetectionTimeout")?, MILLISECOND)?;
            Some(Reading::configured(timeout, format!("{path} failureDetectionTimeout {timeout} s")))
        });
        found.unwrap_or(Reading::NotConfigured)
    },
    default: Some((10.0, "Ignite failureDetectionTimeout of 10000 ms")),
    ..Software::BASE
};

fn named(running: &RunningProcess, prefix: &str) -> Vec<crate::guest::software::Question> {
    let path = running.arguments().find_map(|argument| argument.strip_prefix(prefix));
    path.and_then(|path| running.file(path)).into_iter().collect()
}

fn hazelcast(evidence: &Evidence<'_>) -> Reading {
    let flag = evidence.running.option(&format!("-D{NO_HEARTBEAT}")).and_then(|text| seconds(text, 1.0));
    if let Some(timeout) = flag {
        return Reading::configured(timeout, format!("command line {NO_HEARTBEAT} {timeout} s"));
    }
    let found = evidence.files().find_map(|(path, text)| {
        let value = if text.trim_start().starts_with('<') {
            tree::property(&text, NO_HEARTBEAT)?
        } else {
            tree::scalar(&tree::yaml(&text)?, &format!("hazelcast.properties.{NO_HEARTBEAT}"))?
        };
        let timeout = seconds(&value, 1.0)?;
        Some(Reading::configured(timeout, format!("{path} {NO_HEARTBEAT} {timeout} s")))
    });
    found.unwrap_or(Reading::NotConfigured)
}

fn jgroups(evidence: &Evidence<'_>) -> Reading {
    let found = evidence.files().find_map(|(path, text)| {
        // Either an element of a JGroups stack, or WildFly's <protocol type="FD_ALL3"> with a property.
        let stack = tree::attributes(&text, |name| name.starts_with("FD_ALL"), "timeout");
        let wildfly = tree::property_within(&text, |kind| kind.starts_with("FD_ALL"), "timeout");
        let times = stack.into_iter().chain(wildfly).filter_map(|text| seconds(&text, MILLISECOND));
        let timeout = times.reduce(f64::min)?;
        Some(Reading::configured(timeout, format!("{path} FD_ALL timeout {timeout} s")))
    });
    found.unwrap_or(Reading::NotConfigured)
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // as written, not as computed
mod tests {
    use crate::guest::software::{
        jvm::*,
        testing::{Case, read},
    };

    fn java(arguments: &[&str]) -> Case {
        Case::process("java", &[&["/usr/bin/java", "-Xmx4g"], arguments].concat())
    }

    #[test]
    fn hazelcast_says_it_by_flag_yaml_or_xml() {
        let start = "com.hazelcast.core.server.HazelcastMemberStarter";
        let flag = java(&["-Dhazelcast.max.no.heartbeat.seconds=20", start]);
        assert_eq!(
            read(&HAZELCAST, &flag),
            Reading::configured(20.0, format!("command line {NO_HEARTBEAT} 20 s"))
        );
        let yaml =
            "hazelcast:\n  cluster-name: a\n  properties:\n    hazelcast.max.no.heartbeat.seconds: 30\n";
        let case = java(&["-Dhazelcast.config=/srv/h.yaml", start]).file("/srv/h.yaml", yaml);
        assert_eq!(
            read(&HAZELCAST, &case),
            Reading::configured(30.0, format!("/srv/h.yaml {NO_HEARTBEAT} 30 s"))
        );
        let xml = "<hazelcast xmlns=\"http://www.hazelcast.com/schema/config\"><properties>\
                   <property name=\"hazelcast.max.no.heartbeat.seconds\">15</property></properties></hazelcast>";
        let case = java(&[start]).file("/etc/hazelcast/hazelcast.xml", xml);
        assert_eq!(
            read(&HAZELCAST, &case),
            Reading::configured(15.0, format!("/etc/hazelcast/hazelcast.xml {NO_HEARTBEAT} 15 s"))
        );
    }

    #[test]
    fn jgroups_is_read_in_a_stack_and_in_wildfly() {
        let stack = "<config xmlns='urn:org:jgroups'><TCP/><FD_SOCK2/><FD_ALL3 timeout='8000' interval='2000'/></config>";
        let case = java(&["org.infinispan.server.Bootstrap", "-c", "/srv/infinispan.xml"])
            .file("/srv/infinispan.xml", stack);
        assert_eq!(
            read(&INFINISPAN, &case),
            Reading::configured(8.0, "/srv/infinispan.xml FD_ALL timeout 8 s")
        );
        let wildfly = "<server><stack name='udp'><protocol type='FD_SOCK'/><protocol type='FD_ALL3'>\
                       <property name='timeout'>6000</property></protocol></stack></server>";
        let case = java(&["-jar", "jboss-modules.jar", "--server-config=standalone-ha.xml"])
            .file("/opt/wildfly/standalone/configuration/standalone-ha.xml", wildfly);
        let Reading::Timeout { seconds, .. } = read(&INFINISPAN, &case) else { panic!("not read") };
        assert_eq!(seconds, 6.0);
    }

    #[test]
    fn ignite_is_a_spring_bean() {
        let xml = "<beans xmlns='http://www.springframework.org/schema/beans'><bean class='org.apache.ignite.configuration.\
                   IgniteConfiguration'><property name='failureDetectionTimeout' value='5000'/></bean></beans>";
        let case = java(&["org.apache.ignite.startup.cmdline.CommandLineStartup", "config/a.xml"])
            .file("/proc/7/cwd/config/a.xml", xml);
        assert_eq!(
            read(&IGNITE, &case),
            Reading::configured(5.0, "/proc/7/cwd/config/a.xml failureDetectionTimeout 5 s")
        );
    }
}
