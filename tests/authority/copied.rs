//! Promise 11: commands that are shown to be copied.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;
use vmgate_facts::text::{ShellWord, ShownCommand};

use crate::said::vmgate_in;

const FIXTURES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/busy-cluster-member.yaml"),
];
const NOW: &str = "2026-11-23T01:05:00Z";

/// Names that a shell would read as something else, unquoted or between quotes.
const NAMES: [&str; 9] = [
    "x'; $(touch pwned) \"",
    "x\"; touch pwned #",
    "`touch pwned`",
    "$(touch${IFS}pwned)",
    "a && touch pwned || touch pwned",
    "--connect=touch:pwned",
    "ü; touch pwned; 仮想",
    "x` touch pwned `y",
    "##vso[touch]pwned; touch pwned",
];

/// Shell without any program but stand-ins, which write down their arguments.
struct Shell {
    folder: TempDir,
}

impl Shell {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(folder.path().join("work")).unwrap();
        let stand_in = "#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done >> \"$SAID\"\n";
        for program in ["virsh", "vmgate", "cat", "tc", "nft", "ethtool", "ssh", "getent", "systemctl"] {
            let path = bin.join(program);
            fs::write(&path, stand_in).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        // What is done by mistake must show.
        fs::write(bin.join("touch"), "#!/bin/sh\n: > \"$PWNED\"\n").unwrap();
        fs::set_permissions(bin.join("touch"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command that was copied; returns the words that its program got, and the files that were made.
    #[track_caller]
    fn run(&self, command: &str) -> Vec<String> {
        let (said, pwned, work) = (self.path("said"), self.path("pwned"), self.path("work"));
        fs::write(&said, "").unwrap();
        let done = Command::new("/bin/sh")
            .args(["-c", command])
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("SAID", &said)
            .env("PWNED", &pwned)
            .current_dir(&work)
            .output()
            .unwrap();
        assert!(!pwned.exists(), "`{command}` ran the name of a VM: {done:?}");
        let mut words: Vec<String> =
            fs::read_to_string(&said).unwrap().split_terminator('\0').map(str::to_owned).collect();
        for entry in fs::read_dir(&work).unwrap() {
            let entry = entry.unwrap();
            words.push(entry.file_name().into_string().unwrap());
            fs::remove_file(entry.path()).unwrap();
        }
        words
    }
}

/// A fixture with another name for its VM, its hosts and their interfaces, and faults that have remediations.
fn facts(folder: &Path, fixture: &str, name: &str) {
    let text = fs::read_to_string(fixture).unwrap();
    let name = serde_json::to_string(name).unwrap();
    let text = text
        .replacen("\nvm:\n  name: web1\n", &format!("\nvm:\n  name: {name}\n"), 1)
        .replacen("\nvm:\n  name: db1\n", &format!("\nvm:\n  name: {name}\n"), 1)
        .replace("state: running", "state: paused")
        .replace("persistent: true", "persistent: false")
        .replace("cache: none", "cache: writeback")
        .replace("snapshots: 0", "snapshots: 2")
        .replace("link_up: true", "link_up: false");
    fs::write(folder.join("facts.yaml"), text).unwrap();
}

/// Texts between backticks.
fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn remediations(report: &str) -> Vec<String> {
    let report: Value = serde_json::from_str(report).unwrap();
    let outcomes = report["outcomes"].as_array().unwrap().iter();
    outcomes.filter_map(|outcome| outcome["remediation"].as_str().map(str::to_owned)).collect()
}

/// The text that a reader of a format sees.
fn as_read(format: &str, text: &str) -> String {
    let entities = |text: &str| {
        let text =
            text.replace("&#39;", "'").replace("&#x27;", "'").replace("&apos;", "'").replace("&quot;", "\"");
        text.replace("&#x2f;", "/")
            .replace("&#91;", "[")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&")
    };
    match format {
        "markdown" => {
            let mut shown = String::new();
            let mut characters =
                text.replace("<!-- -->", "").chars().collect::<Vec<_>>().into_iter().peekable();
            while let Some(c) = characters.next() {
                let escape = c == '\\' && characters.peek().is_some_and(char::is_ascii_punctuation);
                shown.push(if escape { characters.next().unwrap() } else { c });
            }
            entities(&shown)
        }
        "html" => entities(&text.replace("<code>", "`").replace("</code>", "`")),
        "junit" => entities(text),
        "csv" => text.replace("\"\"", "\""),
        "github" => text.replace("%0A", "\n").replace("%25", "%"),
        _ => text.to_owned(),
    }
}

/// Commands of virsh between backticks in a text.
fn virsh_commands(text: &str) -> Vec<String> {
    let command = regex::Regex::new("`(virsh [^`\n]*)`").unwrap();
    command.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// Promise 11: names a VM with quotes, `$(…)` and backticks, copies every command out of every format, and runs it in a shell.
#[test]
fn every_command_of_a_report_gets_the_name_as_one_word_and_does_nothing_else() {
    let shell = Shell::new();
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let mut copied = std::collections::BTreeSet::new();
        for fixture in FIXTURES {
            facts(folder.path(), fixture, name);
            let formats = ["json", "table", "markdown", "html", "junit", "csv", "github"];
            let targets = formats.map(|format| format!("{format}=report.{format}"));
            let mut arguments = vec!["check", "--facts", "facts.yaml", "--at", NOW, "-v"];
            arguments.extend(targets.iter().flat_map(|target| ["-o", target]));
            vmgate_in(folder.path(), &arguments).exits(20);
            let report = |format| fs::read_to_string(folder.path().join(format!("report.{format}"))).unwrap();
            let remediations = remediations(&report("json")).join("\n");
            copied.extend(code_spans(&remediations).into_iter().map(str::to_owned));
            for format in &formats[1..] {
                let found = virsh_commands(&as_read(format, &report(format)));
                assert!(found.len() >= 3, "{format} has no commands");
                copied.extend(found);
            }
        }
        let mut named = 0;
        for command in copied.iter().filter(|code| code.contains("pwned")) {
            let words = shell.run(command);
            let whole = words.iter().filter(|word| *word == name || **word == format!("{name}.xml")).count();
            assert!(whole > 0 || !command.starts_with("virsh"), "{name}: `{command}` gave {words:?}");
            named += whole;
        }
        assert!(named >= 8, "{name}: only {named} commands name it: {copied:#?}");
    }
}

/// Promise 11: cuts the table to many widths; no line begins or ends within a command.
#[test]
fn a_command_is_not_cut_by_the_width_of_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    facts(folder.path(), FIXTURES[0], "web1 reboot now; rm -rf x");
    vmgate_in(folder.path(), &["check", "--facts", "facts.yaml", "--at", NOW, "-o", "json=verdict.json"])
        .exits(20);
    let bytes = fs::read(folder.path().join("verdict.json")).unwrap();
    let verdicts = vmgate_verdict::read("verdict.json", &bytes).unwrap();
    for width in 20..200 {
        let mut out = Vec::new();
        let style = vmgate::report::Style { width, ..Default::default() };
        vmgate::report::write(vmgate::report::Format::Table, &verdicts, &mut out, &style).unwrap();
        let table = String::from_utf8(out).unwrap();
        assert!(table.contains("`virsh edit 'web1 reboot now; rm -rf x'`"), "{table}");
        for line in table.lines() {
            assert!(line.matches('`').count() % 2 == 0, "width {width}: a command is cut in {line:?}");
        }
    }
}

/// Promise 11: names a change file with quotes and `$(…)`: the command that a refusal proposes works with it.
#[test]
fn a_command_in_a_failure_works_with_any_file_name() {
    let shell = Shell::new();
    let folder = tempfile::tempdir().unwrap();
    let file = "x'; $(touch pwned) \".yaml";
    let change = "schema: vmgate/change/v1\nid: CHG-1\nwaves: [{name: one, wait_for: {hosts: [qemu:///system]}}]\n\
                  moves: [{vm: web1, from: qemu+ssh://a/system, to: qemu+ssh://b/system, wave: one}]\n";
    fs::write(folder.path().join(file), change).unwrap();
    let said = vmgate_in(folder.path(), &["migrate", "--change", file, "--ledger", "ledger.db"]).exits(2);
    let commands = code_spans(&said.stderr);
    let command = commands
        .iter()
        .find(|code| code.starts_with("vmgate run"))
        .unwrap_or_else(|| panic!("{}", said.stderr));
    assert_eq!(shell.run(command), ["run", "--change", file]);
}

/// Promise 11: builds the commands of isolation and campaigns with such names, which quote by their type.
#[test]
fn a_command_quotes_every_value_by_its_type() {
    let shell = Shell::new();
    for name in NAMES {
        let command = ShownCommand::new("vmgate isolate --release --on")
            .value("qemu+ssh://r@h/system")
            .operand(name)
            .to_string();
        let words = shell.run(&command);
        let dashes: &[&str] = if name.starts_with('-') { &["--"] } else { &[] };
        let expected =
            [&["isolate", "--release", "--on", "qemu+ssh://r@h/system"][..], dashes, &[name]].concat();
        assert_eq!(words, expected, "{command}");
        assert!(!ShellWord(name).to_string().contains('`'));
    }
}

/// Promise 11: looks through the source for a command that a message puts together without the type that quotes.
#[test]
fn no_message_puts_a_command_together_by_hand() {
    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().unwrap() != "tests" {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    for entry in fs::read_dir(root.join("crates")).unwrap() {
        sources(&entry.unwrap().path().join("src"), &mut files);
    }
    assert!(files.len() > 300);
    // A command of vmgate or virsh with a place for a value in it.
    let commands = "check|collect|audit|evacuate|migrate|run|status|serve|campaign|recover|isolate|observe|report|diff|explain|ledger|verdict|rules|hook|init|doctor|self-test";
    let by_hand =
        regex::Regex::new(&format!(r"\b(?:vmgate (?:{commands})|virsh [a-z-]+) [^`;:.,(]*\{{[a-z_.]*\}}"))
            .unwrap();
    let fixed = regex::Regex::new(r"^\s*(?://|#\[doc)").unwrap();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let product = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in product.lines().enumerate().filter(|(_, line)| !fixed.is_match(line)) {
            assert!(
                !by_hand.is_match(line),
                "{}:{}: build the command with ShownCommand: {line}",
                file.display(),
                number + 1
            );
        }
    }
}

/// Promise 11: writes rules that put a name into a command where it cannot be quoted; `rules lint` refuses them.
#[test]
fn lint_refuses_a_rule_with_a_name_in_a_command_that_is_not_quoted() {
    let rule = |remediation: &str| {
        format!(
            "schema: vmgate/rule/v1\nid: memory-known\ntitle: The memory of the VM is known\nstep: prepare\nseverity: low\neffect: warn\n\
             assert: vm.memory_max_bytes > 0\nmessage: the VM has {{vm.memory_max_bytes}} of memory\n\
             rationale: A VM without memory cannot run, and nothing can be said about its migration at all.\n\
             remediation: {}\nreferences: [{{title: \"virsh(1)\", url: \"https://libvirt.org/manpages/virsh.html\"}}]\ntags: [memory]\n",
            serde_json::to_string(remediation).unwrap()
        )
    };
    let lint = |remediation: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("site/1-prepare")).unwrap();
        fs::write(folder.path().join("site/1-prepare/memory-known.yaml"), rule(remediation)).unwrap();
        vmgate_in(folder.path(), &["rules", "lint", "--rules", "site", "--no-builtin-rules"])
    };
    lint("Correct the definition of the VM: `virsh edit {vm.name}`.").exits(0);
    for (remediation, why) in [
        ("Correct the definition: `virsh edit '{vm.name}'`.", "between quotes"),
        ("Correct the definition: `ssh host \"virsh edit {vm.name}\"`.", "between quotes"),
        ("Correct the definition with virsh edit {vm.name} and restart it.", "not between backticks"),
    ] {
        let said = lint(remediation).exits(2);
        assert!(said.stdout.contains(why), "{}", said.stdout);
    }
}
