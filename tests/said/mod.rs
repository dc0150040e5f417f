//! Runs the real binary in a folder, and returns its output.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use jiff::{SignedDuration, Timestamp};

pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }
}

/// Runs vmgate in a folder, without other settings.
pub(crate) fn vmgate_in(folder: &Path, arguments: &[&str]) -> Said {
    vmgate_with(folder, arguments, &[])
}

/// The same with these variables in its environment.
pub(crate) fn vmgate_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_vmgate"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("VMGATE_CONFIG")
        .env_remove("VMGATE_LEDGER")
        .env_remove("VMGATE_LOG")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The healthy facts of the fixtures as if they had been collected some time ago, by this machine's clock.
#[allow(dead_code, reason = "not every binary of tests asks for it")]
pub(crate) fn facts_collected(ago: SignedDuration) -> String {
    const COLLECTED: &str = "2026-11-23T01:00:";
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
    let fixture = fs::read_to_string(fixture).unwrap();
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap() - ago;
    let mut parts = fixture.split(COLLECTED);
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let (second, rest) = part.split_at(2);
        // The fixture's measurements end some seconds after their start.
        let at = now + SignedDuration::from_secs(second.parse().unwrap()) - SignedDuration::from_secs(10);
        let _ = write!(text, "{}{}", at.to_string().trim_end_matches('Z'), rest);
    }
    text
}
