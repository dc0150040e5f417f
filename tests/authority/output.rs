//! Promises 9 and 10: where output goes, and what it may say to its reader.

use std::{
    fs,
    io::Read as _,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink},
        net::UnixListener,
    },
    path::Path,
    process::{Command, Stdio},
};

use proptest::prelude::*;
use serde_json::Value;
use vmgate::report::{Format, Style};
use vmgate_verdict::{Verdict, sample};

use crate::said::{Said, vmgate_in};

const HEALTHY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
const NOW: &str = "2026-11-23T01:05:00Z";

/// Checks the healthy facts and writes the JSON report to a path.
fn report_to(folder: &Path, path: &str) -> Said {
    vmgate_in(folder, &["check", "--facts", HEALTHY, "--at", NOW, "-o", &format!("json={path}")])
}

/// Runs a script of bash in a folder; `$vmgate` checks the healthy facts.
fn bash(folder: &Path, script: &str) -> Said {
    let output = Command::new("bash")
        .args(["-c", script])
        .current_dir(folder)
        .env("vmgate", format!("{} check --facts {HEALTHY} --at {NOW}", env!("CARGO_BIN_EXE_vmgate")))
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Makes a device in a folder; false where this is not permitted.
fn make_node(path: &Path, kind: &str, major: &str, minor: &str) -> bool {
    Command::new("mknod").args([path.to_str().unwrap(), kind, major, minor]).status().unwrap().success()
}

fn assert_report(text: &str) {
    let document: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(document["schema"], "vmgate/verdict/v1");
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Promise 9: writes a report to a character device, which stays a device, and to one that is full.
#[test]
fn a_device_is_written_to_and_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (null, full) = (folder.path().join("null"), folder.path().join("full"));
    if !make_node(&null, "c", "1", "3") || !make_node(&full, "c", "1", "7") {
        eprintln!("this user may not make devices: not tested");
        return;
    }
    let before = fs::metadata(&null).unwrap();
    report_to(folder.path(), "null").exits(0);
    let after = fs::metadata(&null).unwrap();
    assert!(after.file_type().is_char_device());
    assert_eq!((after.ino(), after.rdev(), after.mode()), (before.ino(), before.rdev(), before.mode()));
    let said = report_to(folder.path(), "full").exits(1);
    assert!(said.stderr.contains("full: cannot be written"), "{}", said.stderr);
    assert!(fs::metadata(&full).unwrap().file_type().is_char_device());
    assert_eq!(names_in(folder.path()), ["full", "null"]);
}

/// Promise 9: names a disk as the file of a report, and a folder; both are refused.
#[test]
fn a_disk_and_a_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    let said = report_to(folder.path(), "sub").exits(1);
    assert!(said.stderr.contains("sub: cannot be written: the path is a folder"), "{}", said.stderr);
    // Major number 7 is a loop device; this minor number has none.
    if make_node(&folder.path().join("disk"), "b", "7", "250") {
        let said = report_to(folder.path(), "disk").exits(1);
        assert!(said.stderr.contains("does not overwrite disks"), "{}", said.stderr);
        assert!(fs::metadata(folder.path().join("disk")).unwrap().file_type().is_block_device());
    }
}

/// Promise 9: writes to a named pipe and to a socket, which stay, and their readers get the whole report.
#[test]
fn a_pipe_and_a_socket_get_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // With a limit: a pipe that was replaced has no writer, and would be waited for for ever.
    let reader =
        Command::new("timeout").args(["60", "cat"]).arg(&pipe).stdout(Stdio::piped()).spawn().unwrap();
    report_to(folder.path(), "pipe").exits(0);
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert_report(&String::from_utf8(reader.wait_with_output().unwrap().stdout).unwrap());

    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    listener.set_nonblocking(true).unwrap();
    report_to(folder.path(), "socket").exits(0);
    assert!(fs::metadata(folder.path().join("socket")).unwrap().file_type().is_socket());
    // The report fits into the socket's buffer, so it can be read when vmgate has ended.
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_report(&text);
    assert_eq!(names_in(folder.path()), ["pipe", "socket"]);
}

/// Promise 9: writes to open files by their names in /dev/fd and /proc: a pipe, a file, process substitution, a closed pipe.
#[test]
fn an_open_file_is_written_to_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let run = |script: &str| bash(folder.path(), script);
    // Links like those in /dev, but of this test: a vmgate without the cure replaces them, and the machine keeps its own.
    symlink("/proc/self/fd/1", folder.path().join("stdout")).unwrap();
    symlink("/proc/self/fd/2", folder.path().join("stderr")).unwrap();
    for name in ["stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        assert_report(&run(&format!("$vmgate -o json={name} | cat")).exits(0).stdout);
        // Into a file, the report stands after what was written before, and the file is the same one.
        fs::write(folder.path().join("log"), "").unwrap();
        let inode = fs::metadata(folder.path().join("log")).unwrap().ino();
        run(&format!("{{ echo before; $vmgate -o json={name}; echo after; }} > log")).exits(0);
        let text = fs::read_to_string(folder.path().join("log")).unwrap();
        let report = text.strip_prefix("before\n").and_then(|text| text.strip_suffix("after\n"));
        assert_report(report.unwrap_or_else(|| panic!("{name}: {text}")));
        assert_eq!(fs::metadata(folder.path().join("log")).unwrap().ino(), inode);
    }
    run("$vmgate -o json=/dev/fd/3 3>three").exits(0);
    assert_report(&fs::read_to_string(folder.path().join("three")).unwrap());
    run("$vmgate -o json=>(cat >four); wait $!").exits(0);
    assert_report(&fs::read_to_string(folder.path().join("four")).unwrap());
    assert!(folder.path().join("stdout").is_symlink());
    assert_report(&run("$vmgate -o json=stderr 2>&1 >/dev/null | cat").exits(0).stdout);
    // A device of this test's own too: none of the machine's may be the target, for the day on which the cure is broken.
    if make_node(&folder.path().join("null"), "c", "1", "3") {
        run("$vmgate -o json=/dev/fd/3 3>null").exits(0);
        assert!(fs::metadata(folder.path().join("null")).unwrap().file_type().is_char_device());
        fs::remove_file(folder.path().join("null")).unwrap();
    }
    run("$vmgate -o json=/dev/fd/3 3>&1 >&2 | true; exit ${PIPESTATUS[0]}").exits(0);
    assert_eq!(names_in(folder.path()), ["four", "log", "stderr", "stdout", "three"]);
}

/// Promise 9: names symbolic links: the file behind them is replaced, with its permissions, and the links stay.
#[test]
fn a_link_is_followed_and_its_target_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("sub")).unwrap();
    fs::write(path("sub/old"), "old").unwrap();
    fs::set_permissions(path("sub/old"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("sub/old", path("link")).unwrap();
    symlink(path("link"), path("link-to-link")).unwrap();
    symlink("../sub/new", path("sub/dangling")).unwrap();
    symlink("loop", path("loop")).unwrap();

    report_to(folder.path(), "link-to-link").exits(0);
    assert_report(&fs::read_to_string(path("sub/old")).unwrap());
    assert_eq!(fs::metadata(path("sub/old")).unwrap().mode() & 0o7777, 0o640);
    assert!(path("link").is_symlink() && path("link-to-link").is_symlink());
    report_to(folder.path(), "sub/dangling").exits(0);
    assert_report(&fs::read_to_string(path("sub/new")).unwrap());
    assert!(path("sub/dangling").is_symlink());
    let said = report_to(folder.path(), "loop").exits(1);
    assert!(said.stderr.contains("symbolic links lead to it"), "{}", said.stderr);
    assert_eq!(names_in(&path("sub")), ["dangling", "new", "old"]);
}

/// Promise 9: plants links, pipes and files of another user in a folder like /tmp: root does not write to them.
#[test]
fn what_another_user_put_into_a_shared_folder_is_not_used() {
    const SOMEBODY: u32 = 64_999;
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(folder.path().join("precious"), "kept").unwrap();
    symlink(folder.path().join("precious"), shared.join("link")).unwrap();
    symlink(folder.path(), shared.join("way")).unwrap();
    fs::write(shared.join("file"), "theirs").unwrap();
    fs::write(shared.join("own"), "old").unwrap();
    assert!(Command::new("mkfifo").arg(shared.join("pipe")).status().unwrap().success());
    for name in ["link", "way", "file", "pipe"] {
        if lchown(shared.join(name), Some(SOMEBODY), Some(SOMEBODY)).is_err() {
            eprintln!("this user may not give files away: not tested");
            return;
        }
    }
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    for path in ["shared/link", "shared/way/precious", "shared/file", "shared/pipe"] {
        let said = report_to(folder.path(), path).exits(1);
        assert!(said.stderr.contains("belongs to another user"), "{path}: {}", said.stderr);
    }
    assert_eq!(fs::read_to_string(folder.path().join("precious")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(shared.join("file")).unwrap(), "theirs");
    report_to(folder.path(), "shared/own").exits(0);
    assert_report(&fs::read_to_string(shared.join("own")).unwrap());
}

/// Promise 9: lets the writing fail half-way: the old file stays, no draft is left, and the exit code says so.
#[test]
fn a_report_that_cannot_be_written_whole_leaves_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("old"), "kept").unwrap();
    // A limit on the size of files stands for a full disk; the signal that comes with it is ignored.
    let said = bash(folder.path(), "trap '' XFSZ; ulimit -f 4; exec $vmgate -o json=old").exits(1);
    assert!(said.stderr.contains("old: cannot be written"), "{}", said.stderr);
    assert_eq!(fs::read_to_string(folder.path().join("old")).unwrap(), "kept");
    assert_eq!(names_in(folder.path()), ["old"]);
}

/// Promise 9: a new report has the permissions that the user's umask gives, and another file's mode is kept.
#[test]
fn permissions_are_those_of_the_umask_or_of_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().mode() & 0o7777;
    bash(folder.path(), "umask 027; $vmgate -o json=new").exits(0);
    assert_eq!(mode("new"), 0o640);
    fs::set_permissions(folder.path().join("new"), fs::Permissions::from_mode(0o604)).unwrap();
    bash(folder.path(), "umask 077; $vmgate -o json=new").exits(0);
    assert_eq!(mode("new"), 0o604);
}

/// What a reader of this line would obey, as the runners' sources read lines.
fn obeyed(line: &str) -> Option<&'static str> {
    let line = line.trim();
    let in_brackets = |start: &str| line.find(start).is_some_and(|at| line[at..].contains(']'));
    let workflow_command = line.strip_prefix("::").is_some_and(|rest| rest.contains("::"));
    let hidden = |c: char| {
        c.is_control() && c != '\t'
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if workflow_command {
        Some("a workflow command of GitHub")
    } else if in_brackets("##[") {
        Some("a command of GitHub or Azure")
    } else if in_brackets("##vso[") {
        Some("a command of Azure")
    } else if line.contains("##teamcity[") {
        Some("a service message of TeamCity")
    } else if line.contains("section_start:") || line.contains("section_end:") {
        Some("a section of GitLab")
    } else if line.chars().any(hidden) {
        Some("a control or hidden character")
    } else {
        None
    }
}

#[track_caller]
fn assert_obeyed_by_nobody(text: &str, what: &str) {
    for line in text.split(['\n', '\r']) {
        let obeyed = obeyed(line);
        assert!(obeyed.is_none(), "{what}: {}: {line:?}\n{text}", obeyed.unwrap());
    }
}

/// The sample verdict, with a text in every place that a guest, a host or a colleague fills in.
fn verdict_of(hostile: &str) -> Verdict {
    let mut verdict = sample::no_go();
    let moved = &mut verdict.moved;
    for named in [&mut moved.vm, &mut moved.source, &mut moved.destination] {
        named.name = Some(hostile.to_owned());
    }
    verdict.change.id = Some(hostile.to_owned());
    for judged in &mut verdict.outcomes {
        judged.outcome.message = hostile.into();
        judged.outcome.subject = Some(hostile.to_owned());
        judged.outcome.remediation = Some(format!("{hostile}\n{hostile}"));
        if let Some(waiver) = &mut judged.waiver {
            (waiver.owner, waiver.reason) = (hostile.to_owned(), hostile.to_owned());
        }
    }
    for group in &mut verdict.unknown {
        group.reasons = vec![hostile.to_owned()];
    }
    for problem in &mut verdict.waiver_problems {
        problem.message = hostile.to_owned();
    }
    verdict
}

fn written(format: Format, verdicts: &[Verdict], width: usize, verbose: bool) -> String {
    let mut out = Vec::new();
    let style = Style { width, verbose, ..Style::default() };
    vmgate::report::write(format, verdicts, &mut out, &style).unwrap();
    String::from_utf8(out).unwrap()
}

/// Names that a guest could have: commands of runners, between words of all lengths.
fn hostile_name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("::error::x".to_owned()),
        Just("::add-mask::y".to_owned()),
        Just("##vso[task.setvariable variable=a]b".to_owned()),
        Just("##[error]x".to_owned()),
        Just("##teamcity[buildStop comment='x']".to_owned()),
        Just("section_start:1:a[collapsed=true]\r\u{1b}[0K".to_owned()),
        Just("\u{1b}[8mha:////x\u{1b}[0m\u{202e}\u{200b}\n".to_owned()),
        Just("=1+1".to_owned()),
        "[a-z:#`'\\[\\] ]{0,20}",
        "[a-z]{1,30}",
        any::<String>(),
    ];
    prop::collection::vec(part, 1..6).prop_map(|parts| parts.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Promise 10: puts commands of CI runners into every name, at widths from 20 to 200 and in every format; no line is obeyed, and JSON and YAML give the names back.
    #[test]
    fn no_line_of_a_report_is_obeyed(hostile in hostile_name(), width in 20_usize..200, verbose in any::<bool>()) {
        let verdicts = [verdict_of(&hostile), sample::go()];
        for format in Format::ALL {
            for verdicts in [&verdicts[..1], &verdicts[..]] {
                let text = written(format, verdicts, width, verbose);
                for line in text.split(['\n', '\r']) {
                    // These annotations are the format's own: what is in them is escaped.
                    let own = ["::error ", "::warning ", "::notice "];
                    let line = match own.iter().find_map(|own| line.strip_prefix(own)) {
                        Some(rest) if format == Format::Github => rest,
                        _ => line,
                    };
                    prop_assert_eq!(obeyed(line), None, "{}: {:?}\n{}", format, line, text);
                }
                match format {
                    Format::Json | Format::Yaml => {
                        let back = vmgate_verdict::read("report", text.as_bytes()).unwrap();
                        prop_assert_eq!(back, verdicts);
                    }
                    Format::Csv => {
                        let evaluated = text.split("\r\n").flat_map(|line| line.split(',')).any(|cell| {
                            cell.trim_start_matches('"').trim_start().starts_with(['=', '@'])
                        });
                        prop_assert!(!evaluated, "{}", text);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A name that every runner would obey, after words of this length: at one of the lengths it is wrapped to the beginning
/// of a line.
fn wrapped_name(length: usize) -> String {
    let words = "w".repeat(length);
    format!(
        "{words} ::error::a {words} ##vso[task.complete]b {words} ##teamcity[c] {words} ##[error]d {words} section_start:1:e"
    )
}

/// Promise 10: names a VM, a host and a process so that wrapping brings a command to the beginning of a line, in every format and in the log.
#[test]
fn no_line_that_the_program_prints_is_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = fs::read_to_string(HEALTHY).unwrap();
    for length in [1, 30, 40, 47, 55, 60, 66] {
        let name = serde_json::to_string(&wrapped_name(length)).unwrap();
        let text = ["name: web1\n", "name: sshd, command", "hostname: hv1.example.org", "state: running"]
            .iter()
            .zip(["name: H\n", "name: H, command", "hostname: H", "state: paused"])
            .fold(fixture.clone(), |text, (from, to)| {
                assert!(text.contains(from), "the fixture has no `{from}`");
                text.replacen(from, &to.replace('H', &name), 1)
            });
        fs::write(folder.path().join("facts.yaml"), text).unwrap();
        let mut arguments = vec!["check", "--facts", "facts.yaml", "--at", NOW, "-vv", "-o", "table"];
        let targets = Format::ALL.map(|format| format!("{format}=report.{format}"));
        arguments.extend(targets.iter().flat_map(|target| ["-o", target]));
        let said = vmgate_in(folder.path(), &arguments).exits(20);
        assert_obeyed_by_nobody(&said.stdout, "stdout");
        assert_obeyed_by_nobody(&said.stderr, "stderr");
        for format in Format::ALL {
            let text = fs::read_to_string(folder.path().join(format!("report.{format}"))).unwrap();
            let own = |text: &str, level: &str| text.replace(&format!("::{level} title"), "title");
            let text = ["error", "warning", "notice"].iter().fold(text, |text, level| own(&text, level));
            assert_obeyed_by_nobody(&text, format.name());
        }
        let explain = ["explain", "vm-is-running", "--verdict", "report.json"];
        assert_obeyed_by_nobody(&vmgate_in(folder.path(), &explain).exits(0).stdout, "explain");
    }
}

/// Promise 10: gives commands of runners as arguments and file names, which messages repeat.
#[test]
fn no_message_about_arguments_is_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = "a\n::error::x ##vso[a] ##[b] ##teamcity[c] \u{1b}[2J\u{202e}";
    fs::write(folder.path().join("rule.yaml"), format!("{hostile}: ::error::y\n  ##vso[x]: [\n")).unwrap();
    for arguments in [
        vec![hostile],
        vec!["check", hostile],
        vec!["check", "--facts", hostile],
        vec!["check", "--output", hostile, "--facts", HEALTHY],
        vec!["check", "--facts", "rule.yaml"],
        vec!["rules", "show", hostile],
        vec!["rules", "lint", "--rules", "rule.yaml"],
        vec!["report", hostile],
        vec!["diff", hostile, hostile],
        vec!["ledger", "--ledger", hostile, "verify"],
        vec!["explain", hostile, "--facts", HEALTHY],
        vec!["verdict", "verify", hostile, "--key", hostile],
    ] {
        let said = vmgate_in(folder.path(), &arguments);
        assert_ne!(said.code, 0, "{arguments:?}");
        assert_obeyed_by_nobody(&said.stderr, &format!("{arguments:?}"));
        assert_obeyed_by_nobody(&said.stdout, &format!("{arguments:?}"));
    }
}
