//! Failure detectors of Corosync, and of Pacemaker and SBD, which run on top of it.
//!
//! corosync.conf(5): token is 3000 ms since 3.1, 1000 ms before; with a node list of three nodes or more the token is
//! `token + (nodes - 2) * token_coefficient`, coefficient 650 ms; consensus is 1.2 times that. Silence is noticed when
//! the token has not come back within that time; then members have the consensus time to agree.

use crate::guest::software::{
    Evidence, Question, Reading, Software,
    format::{block, duration::seconds, lines, tree},
};

const CONFIGURATION: &str = "/etc/corosync/corosync.conf";
const CIB: &str = "/var/lib/pacemaker/cib/cib.xml";
const COEFFICIENT_SECONDS: f64 = 0.65;
const MILLISECOND: f64 = 0.001;

pub(super) const COROSYNC: Software = Software {
    id: "corosync",
    names: &["corosync"],
    files: &[CONFIGURATION],
    extra_questions: |_| vec![Question::Command("corosync-cmapctl runtime.config.totem.".into())],
    read: totem,
    default: Some((1.0, "corosync.conf(5) token, 1000 ms before 3.1 and 3000 ms since")),
    ..Software::BASE
};

pub(super) const PACEMAKER: Software = Software {
    id: "pacemaker",
    names: &["pacemakerd", "pacemaker-remot", "pacemaker_remot"],
    files: &[CONFIGURATION, CIB],
    extra_questions: COROSYNC.extra_questions,
    read: pacemaker,
    default: COROSYNC.default,
    ..Software::BASE
};

pub(super) const SBD: Software = Software {
    id: "sbd",
    names: &["sbd"],
    files: &["/etc/sysconfig/sbd", "/etc/default/sbd"],
    read: sbd,
    default: Some((5.0, "sbd(8) SBD_WATCHDOG_TIMEOUT")),
    ..Software::BASE
};

fn totem(evidence: &Evidence<'_>) -> Reading {
    if let Some(found) = evidence.outputs().find_map(|output| running_totem(&output)) {
        return found;
    }
    evidence.file_at(CONFIGURATION).map_or(Reading::NotConfigured, |text| configured_totem(&text))
}

/// Parses the token in force, coefficient included: `runtime.config.totem.token (u32) = 3150`.
fn running_totem(output: &str) -> Option<Reading> {
    let value = |key: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" (u32) = "))?;
        seconds(line, MILLISECOND)
    };
    let token = value("runtime.config.totem.token")?;
    let consensus = value("runtime.config.totem.consensus")
        .map(|seconds| format!(", totem.consensus {seconds} s"))
        .unwrap_or_default();
    Some(Reading::reported(
        token,
        format!("corosync-cmapctl runtime.config.totem.token {token} s{consensus}"),
    ))
}

fn configured_totem(text: &str) -> Reading {
    let statements = block::parse(text);
    let totem: Vec<_> = block::named(&statements, "totem").flat_map(|totem| totem.block.clone()).collect();
    let value = |key: &str| block::value(&totem, key).and_then(|text| seconds(text, MILLISECOND));
    let nodes = block::named(&statements, "nodelist")
        .map(|list| block::named(&list.block, "node").count())
        .sum::<usize>();
    let Some(token) = value("token") else { return Reading::NotConfigured };
    // At most the number of statements in a file, so the conversion is exact.
    #[allow(clippy::cast_precision_loss)]
    let further = nodes.saturating_sub(2) as f64;
    let coefficient = value("token_coefficient").unwrap_or(COEFFICIENT_SECONDS);
    let sum = token + further * coefficient;
    let added = if further > 0.0 {
        format!(" + {further} x totem.token_coefficient {coefficient} s")
    } else {
        String::new()
    };
    let consensus =
        value("consensus").map(|seconds| format!(", totem.consensus {seconds} s")).unwrap_or_default();
    Reading::configured(sum, format!("{CONFIGURATION} totem.token {token} s{added}{consensus}"))
}

/// Corosync decides membership; a remote node does not run Corosync and is watched by monitor operations.
fn pacemaker(evidence: &Evidence<'_>) -> Reading {
    if evidence.running.name.contains("remot") {
        return Reading::vendor_default(20.0, "Pacemaker Explained, time-out of a monitor operation");
    }
    match totem(evidence) {
        Reading::Timeout { seconds, basis, source } => {
            let fencing = match evidence.file_at(CIB).and_then(|cib| tree::property(&cib, "stonith-enabled"))
            {
                Some(value) if matches!(value.trim(), "false" | "off" | "no" | "0") => "off",
                Some(_) => "on",
                // Fencing is on by default, also if the CIB does not set it or cannot be read.
                None => "on by default",
            };
            Reading::Timeout {
                seconds,
                basis,
                source: format!("{source}; fencing (stonith-enabled) is {fencing}"),
            }
        }
        other => other,
    }
}

fn sbd(evidence: &Evidence<'_>) -> Reading {
    let found = evidence.files().find_map(|(path, text)| {
        let timeout = seconds(lines::value(&text, "SBD_WATCHDOG_TIMEOUT")?, 1.0)?;
        Some(Reading::configured(timeout, format!("{path} SBD_WATCHDOG_TIMEOUT {timeout} s")))
    });
    found.unwrap_or(Reading::NotConfigured)
}

#[cfg(test)]
mod tests {
    use crate::guest::software::{
        corosync::*,
        testing::{Case, read},
    };

    const THREE: &str = "totem {\n\tversion: 2\n\ttoken: 2500\n\tinterface {\n\t\tringnumber: 0\n\t\ttoken: 9\n\t}\n}\n\
        nodelist {\n\tnode {\n\t\tring0_addr: fd00::1\n\t}\n\tnode {\n\t\tring0_addr: b\n\t}\n\tnode {\n\t\tring0_addr: c\n\t}\n}\n";

    #[test]
    fn the_token_grows_with_each_node_beyond_two() {
        let found =
            read(&COROSYNC, &Case::process("corosync", &["corosync", "-f"]).file(CONFIGURATION, THREE));
        let source = "/etc/corosync/corosync.conf totem.token 2.5 s + 1 x totem.token_coefficient 0.65 s";
        assert_eq!(found, Reading::configured(3.15, source));
        let two = "totem {\n token: 10000\n consensus: 12000\n}\nnodelist { node { }\n node { }\n }";
        let found = read(&COROSYNC, &Case::process("corosync", &["corosync"]).file(CONFIGURATION, two));
        assert_eq!(
            found,
            Reading::configured(10.0, "/etc/corosync/corosync.conf totem.token 10 s, totem.consensus 12 s")
        );
    }

    #[test]
    fn what_runs_goes_before_what_is_written() {
        let output = "runtime.config.totem.consensus (u32) = 3780\nruntime.config.totem.token (u32) = 3150\n\
                      runtime.config.totem.token_retransmit (u32) = 750\n";
        let case = Case::process("corosync", &["corosync"]).file(CONFIGURATION, THREE).output(output);
        let source = "corosync-cmapctl runtime.config.totem.token 3.15 s, totem.consensus 3.78 s";
        assert_eq!(read(&COROSYNC, &case), Reading::reported(3.15, source));
    }

    #[test]
    fn without_a_token_the_default_holds_and_says_so() {
        let case = Case::process("corosync", &["corosync"]).file(CONFIGURATION, "totem { version: 2 }");
        let detector = case.detector(&COROSYNC).unwrap();
        assert_eq!(detector.detector_seconds.known(), Some(&1.0));
        assert!(detector.source.starts_with("vendor default: corosync.conf(5)"), "{}", detector.source);
    }

    #[test]
    fn pacemaker_is_as_patient_as_corosync_and_says_whether_it_fences() {
        let cib = "<cib><configuration><crm_config><cluster_property_set id='b'>\
            <nvpair id='o' name='stonith-enabled' value='false'/></cluster_property_set></crm_config></configuration></cib>";
        let case = Case::process("pacemakerd", &["pacemakerd"]).file(CONFIGURATION, THREE);
        let Reading::Timeout { seconds, source, .. } = read(&PACEMAKER, &case) else { panic!("not read") };
        assert_eq!((seconds, source.ends_with("is on by default")), (3.15, true));
        let Reading::Timeout { source, .. } = read(&PACEMAKER, &case.file(CIB, cib)) else {
            panic!("not read")
        };
        assert!(source.ends_with("is off"), "{source}");
        let remote = Case::process("pacemaker-remot", &["pacemaker-remoted"]).file(CONFIGURATION, THREE);
        assert_eq!(remote.detector(&PACEMAKER).unwrap().detector_seconds.known(), Some(&20.0));
    }

    #[test]
    fn sbd_says_it_in_its_environment_file() {
        let case =
            Case::process("sbd", &["sbd: watcher"]).file("/etc/default/sbd", "SBD_WATCHDOG_TIMEOUT=\"15\"\n");
        assert_eq!(
            read(&SBD, &case),
            Reading::configured(15.0, "/etc/default/sbd SBD_WATCHDOG_TIMEOUT 15 s")
        );
    }
}
