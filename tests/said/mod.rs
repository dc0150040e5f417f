//! Runs the real binary in a folder, and returns its output.

use std::{path::Path, process::Command};

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
    let output = Command::new(env!("CARGO_BIN_EXE_vmgate"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("VMGATE_CONFIG")
        .env_remove("VMGATE_LEDGER")
        .env_remove("VMGATE_LOG")
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
