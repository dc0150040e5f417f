//! DRBD: a peer is lost if it does not answer a ping within ping-timeout (0.5 s). A ping is sent after ping-int (10 s)
//! without traffic and after a request has waited for timeout (6 s). A blackout can coincide with a ping, so only
//! ping-timeout is guaranteed. Kernel threads are named after the resource.

use vmgate_facts::DetectorBasis;

use crate::guest::software::{
    Evidence, Question, Reading, RunningProcess, Software,
    format::{
        block::{self, Statement},
        duration::seconds,
    },
};

const TENTH: f64 = 0.1;
const THREADS: [&str; 5] = ["drbd_w_", "drbd_r_", "drbd_s_", "drbd_a_", "drbd_as_"];

pub(super) const DRBD: Software = Software {
    id: "drbd",
    names: &["drbd-reissue", "drbd_w_*", "drbd_r_*", "drbd_s_*", "drbd_a_*", "drbd_as_*"],
    files: &["/etc/drbd.d/global_common.conf", "/etc/drbd.conf"],
    extra_questions: |running| {
        let resource = resource(running).map(|name| format!("/etc/drbd.d/{name}.res"));
        let show = Question::Command("drbdsetup show --show-defaults".into());
        resource.and_then(Question::file).into_iter().chain([show]).collect()
    },
    read,
    default: Some((0.5, "drbd.conf(5) ping-timeout of 5 tenths of a second")),
    ..Software::BASE
};

/// The resource after which a kernel thread is named; the kernel cuts a thread's name after fifteen characters.
fn resource(running: &RunningProcess) -> Option<&str> {
    THREADS.iter().find_map(|prefix| running.name.strip_prefix(prefix)).filter(|name| !name.is_empty())
}

fn read(evidence: &Evidence<'_>) -> Reading {
    if let Some(output) = evidence.outputs().next()
        && let Some((tightest, words)) = tightest(&output)
    {
        let source = format!("drbdsetup show {words}");
        return Reading::Timeout { seconds: tightest, basis: DetectorBasis::Tool, source };
    }
    let mut all: Vec<_> = evidence
        .files()
        .filter_map(|(path, text)| {
            let (seconds, words) = tightest(&text)?;
            Some((seconds, format!("{path} {words}")))
        })
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter()
        .next()
        .map_or(Reading::NotConfigured, |(seconds, source)| Reading::configured(seconds, source))
}

/// The smallest ping-timeout of all `net` sections, at any depth.
fn tightest(text: &str) -> Option<(f64, String)> {
    fn collect(statements: &[Statement], found: &mut Vec<f64>) {
        for statement in statements {
            if statement.name() == "ping-timeout" {
                found.extend(statement.argument().and_then(|text| seconds(text, TENTH)));
            }
            collect(&statement.block, found);
        }
    }
    let mut found = Vec::new();
    collect(&block::parse(text), &mut found);
    let seconds = found.into_iter().reduce(f64::min)?;
    Some((seconds, format!("ping-timeout {seconds} s")))
}

#[cfg(test)]
mod tests {
    use crate::guest::software::{
        drbd::*,
        testing::{Case, read},
    };

    #[test]
    fn the_kernel_is_asked_before_the_files() {
        let output = "resource \"r0\" {\n    net {\n        ping-timeout        \t20; # 1/10 seconds\n        shared-secret \"hunter2\";\n    }\n}\n";
        let case = || Case::process("drbd-reissue", &[]);
        assert_eq!(
            read(&DRBD, &case().output(output)),
            Reading::reported(2.0, "drbdsetup show ping-timeout 2 s")
        );
        let file = case().file(
            "/etc/drbd.d/global_common.conf",
            "common {\n net\n {\n  ping-timeout 8; timeout 60;\n }\n}\n",
        );
        assert_eq!(
            read(&DRBD, &file),
            Reading::configured(0.8, "/etc/drbd.d/global_common.conf ping-timeout 0.8 s")
        );
    }

    #[test]
    fn a_thread_names_its_resource() {
        let process = crate::guest::RawProcess { stat: b"9 (drbd_w_r0) S".to_vec(), ..Default::default() };
        let running = RunningProcess::of(&process);
        assert_eq!(resource(&running), Some("r0"));
        assert_eq!((DRBD.extra_questions)(&running)[0].name(), "/etc/drbd.d/r0.res");
    }
}
