//! Promise 7: what was refused cannot be used later. What the destination's hook does with a withdrawal is in hook.rs, and
//! real moves are in lab.rs.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;
use tempfile::TempDir;

use crate::said::{Said, vmgate_in};

const VM: &str = "5e7c9b3e-0000-4000-8000-000000000001";

/// A site whose host hv2 is reached by a shell that keeps what it is asked, and answers with a list of digests.
fn site(answer: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let shell = folder.path().join("shell");
    let asked = folder.path().join("asked.json");
    fs::write(&shell, format!("#!/bin/sh\ncat > {}\necho '{answer}'\n", asked.display())).unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!("hosts: {{hv2: {{shell: [{}]}}}}\n", shell.display());
    fs::write(folder.path().join("vmgate.yaml"), config).unwrap();
    folder
}

fn withdraw(site: &TempDir, which: &[&str]) -> Said {
    vmgate_in(site.path(), &[&["verdict", "withdraw", "hv2"], which].concat())
}

fn asked(site: &TempDir) -> Value {
    let text = fs::read_to_string(site.path().join("asked.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["withdraw-verdicts"].clone()
}

/// Promise 7: withdraws one verdict by its digest, or all of a VM, from the command line.
#[test]
fn a_verdict_that_waits_can_be_withdrawn() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    let waits = site(&format!("[\"{digest}\"]"));
    let said = withdraw(&waits, &[&digest]).exits(0);
    assert!(said.stdout.contains(&digest) && said.stdout.contains("lets no VM in"), "{}", said.stdout);
    assert_eq!((&asked(&waits)["verdict"], &asked(&waits)["vm"]), (&digest.as_str().into(), &Value::Null));
    withdraw(&waits, &["--vm", VM]).exits(0);
    assert_eq!((&asked(&waits)["verdict"], &asked(&waits)["vm"]), (&Value::Null, &VM.into()));
    let said = withdraw(&site("[]"), &["--vm", VM]).exits(0);
    assert!(said.stdout.contains("nothing was withdrawn"), "{}", said.stdout);
    withdraw(&waits, &[]).exits(2);
    withdraw(&waits, &[&digest, "--vm", VM]).exits(2);
}

/// Promise 7: an older hook does not know how to withdraw, and the operator is told that nothing was.
#[test]
fn a_withdrawal_that_did_not_happen_is_a_failure() {
    let site = site("");
    let shell = "#!/bin/sh\ncat >/dev/null\necho 'vmgate: this is another version of vmgate' >&2\nexit 2\n";
    fs::write(site.path().join("shell"), shell).unwrap();
    let said = withdraw(&site, &["--vm", VM]).exits(2);
    assert!(said.stderr.contains("another version") && said.stdout.is_empty(), "{}", said.stderr);
}
