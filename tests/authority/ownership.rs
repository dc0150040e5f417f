//! Promise 8: only what nobody else can write is believed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use crate::said::{Said, vmgate_in};

const NOBODY: u32 = 65534;
const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDwb0ZXBBzDS2n2ygTqKsFvp/8/k5lOvZaykDyqCs7S1\n-----END PRIVATE KEY-----\n";

/// Tests that change owners run as root, as CI does.
fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}

fn set(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A check of facts with these files beside it.
fn check(folder: &Path, more: &[&str]) -> Said {
    let at = ["check", "--facts", FACTS, "--at", "2026-11-23T01:05:00Z"];
    vmgate_in(folder, &[&at[..], more].concat())
}

fn folder_with(name: &str, text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), text).unwrap();
    folder
}

#[track_caller]
fn refused(said: Said, command: &str) {
    let said = said.exits(2);
    assert!(said.stderr.contains(command), "`{command}` is not said:\n{}", said.stderr);
}

/// Promise 8: vmgate.yaml is made writable for all, put into a folder that all can write, and given to nobody.
#[test]
fn configuration_that_others_could_have_written_is_refused_with_the_command_that_mends_it() {
    let folder = folder_with("vmgate.yaml", "timeout_seconds: 5\n");
    let file = folder.path().join("vmgate.yaml");
    check(folder.path(), &[]).exits(0);
    for named in [&[][..], &["--config", "vmgate.yaml"]] {
        set(&file, 0o666);
        refused(check(folder.path(), named), "chmod go-w");
        set(&file, 0o644);
        set(folder.path(), 0o777);
        refused(check(folder.path(), named), "chmod go-w");
        set(folder.path(), 0o755);
        check(folder.path(), named).exits(0);
        if is_root() {
            for path in [&file, folder.path()] {
                chown(path, Some(NOBODY), None).unwrap();
                refused(check(folder.path(), named), "chown root");
                chown(path, Some(0), None).unwrap();
            }
        }
    }
}

/// Promise 8: vmgate.yaml is a link out of a folder that all can write, a link that nobody owns, and a link that others turn.
#[test]
fn a_link_is_believed_only_where_nobody_else_could_turn_it() {
    let folder = folder_with("real.yaml", "timeout_seconds: 5\n");
    let (link, shared) = (folder.path().join("vmgate.yaml"), folder.path().join("shared"));
    symlink("real.yaml", &link).unwrap();
    check(folder.path(), &[]).exits(0);
    fs::create_dir(&shared).unwrap();
    set(&shared, 0o777);
    fs::write(shared.join("evil.yaml"), "timeout_seconds: 5\n").unwrap();
    fs::remove_file(&link).unwrap();
    symlink("shared/evil.yaml", &link).unwrap();
    refused(check(folder.path(), &[]), "chmod go-w");
    set(&shared, 0o1777);
    if is_root() {
        chown(shared.join("evil.yaml"), Some(NOBODY), None).unwrap();
        refused(check(folder.path(), &[]), "chown root");
        symlink("../real.yaml", shared.join("turned.yaml")).unwrap();
        std::os::unix::fs::lchown(shared.join("turned.yaml"), Some(NOBODY), None).unwrap();
        refused(check(folder.path(), &["--config", "shared/turned.yaml"]), "chown root");
    }
    refused(check(folder.path(), &["--config", "/dev/null"]), "not a regular file");
}

/// Promise 8: rules, their folders and waivers are writable for others.
#[test]
fn rules_and_waivers_that_others_could_have_written_are_refused() {
    let folder = folder_with("waivers.yaml", "schema: vmgate/waivers/v1\nwaivers: []\n");
    let rules = folder.path().join("site");
    fs::create_dir_all(rules.join("inner")).unwrap();
    let options = ["--rules", "site", "--waivers", "waivers.yaml"];
    check(folder.path(), &options).exits(0);
    for path in ["waivers.yaml", "site", "site/inner"] {
        let path = folder.path().join(path);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        set(&path, mode | 0o022);
        refused(check(folder.path(), &options), "chmod go-w");
        set(&path, mode);
        if is_root() {
            chown(&path, Some(NOBODY), None).unwrap();
            refused(check(folder.path(), &options), "chown root");
            chown(&path, Some(0), None).unwrap();
        }
    }
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/4-switch/tcp-retries-sysctl-sane.yaml");
    let rule = rules.join("tcp-retries-sysctl-sane.yaml");
    fs::copy(shipped, &rule).unwrap();
    set(&rule, 0o666);
    let alone = ["--no-builtin-rules", "--rules", "site"];
    refused(check(folder.path(), &alone), "chmod go-w");
    set(&rule, 0o644);
    check(folder.path(), &alone).exits(0);
}

/// Promise 8: a signing key and a token are readable for others, and a public key is writable for them.
#[test]
fn a_private_key_must_be_private_and_a_public_key_unchanged() {
    let folder = folder_with("key.pem", PRIVATE);
    let key = folder.path().join("key.pem");
    set(&key, 0o600);
    // Judged now, so NO-GO: a verdict of another time is not signed.
    vmgate_in(folder.path(), &["check", "--facts", FACTS, "-o", "json=verdict.json"]);
    let sign = || vmgate_in(folder.path(), &["verdict", "sign", "verdict.json", "--key", "key.pem"]);
    let envelope = sign().stdout;
    for mode in [0o640, 0o604, 0o644, 0o666] {
        set(&key, mode);
        refused(sign(), "chmod 600");
    }
    set(&key, 0o600);
    assert!(!envelope.is_empty(), "a private key signs");
    fs::write(folder.path().join("envelope.json"), envelope).unwrap();
    let public = Command::new("openssl").args(["pkey", "-in"]).arg(&key).arg("-pubout").output().unwrap();
    let file = folder.path().join("public.pem");
    fs::write(&file, public.stdout).unwrap();
    let verify = || vmgate_in(folder.path(), &["verdict", "verify", "envelope.json", "--key", "public.pem"]);
    verify().exits(0);
    set(&file, 0o666);
    refused(verify(), "chmod go-w");
    fs::write(folder.path().join("token"), "secret\n").unwrap();
    set(&folder.path().join("token"), 0o644);
    #[cfg(feature = "libvirt")]
    {
        let serve = ["serve", "--token-file", "token", "--ledger", "ledger.db", "--listen", "127.0.0.1:0"];
        refused(vmgate_in(folder.path(), &serve), "chmod 600");
    }
}

/// Promise 8: vmgate.yaml with a password in the ledger's URL is readable for others.
#[test]
fn a_file_with_a_password_is_a_secret() {
    let folder = folder_with("vmgate.yaml", "ledger: postgres://ann:secret@127.0.0.1:9/vmgate\n");
    let file = folder.path().join("vmgate.yaml");
    refused(vmgate_in(folder.path(), &["ledger", "list"]), "chmod 600");
    set(&file, 0o600);
    let said = vmgate_in(folder.path(), &["ledger", "list"]).exits(1);
    assert!(!said.stderr.contains("secret"), "{}", said.stderr);
}

/// Promise 8: a change file with commands is executed only if nobody else could have written it; looking needs no such proof.
#[test]
#[cfg(feature = "libvirt")]
fn a_change_file_with_commands_is_a_program() {
    let text = "schema: vmgate/change/v1\nid: CHG-1\nmoves:\n  - {vm: web1, from: 'qemu+ssh://root@127.0.0.8:9/system', \
                to: 'qemu+ssh://root@127.0.0.9:9/system', prepare: [{run: ['true'], undo: []}]}\n";
    let folder = folder_with("change.yaml", text);
    set(&folder.path().join("change.yaml"), 0o666);
    for command in ["migrate", "run", "recover"] {
        let said = [command, "--change", "change.yaml", "--ledger", "ledger.db", "--timeout", "1"];
        refused(vmgate_in(folder.path(), &said), "chmod go-w");
    }
    let look = ["check", "--change", "change.yaml", "--facts", FACTS];
    assert!([20, 21].contains(&vmgate_in(folder.path(), &look).code));
}

/// Promise 8: the program that is sent to hosts is writable for others.
#[test]
#[cfg(feature = "libvirt")]
fn a_program_for_hosts_that_others_could_have_written_is_not_sent() {
    let folder = folder_with("probe", "#!/bin/sh\n");
    set(&folder.path().join("probe"), 0o777);
    let output = Command::new(env!("CARGO_BIN_EXE_vmgate"))
        .args(["collect", "test", "--from", "test:///default", "--to", "qemu+ssh://root@127.0.0.9:9/system"])
        .args(["--guest", "ssh://root@127.0.0.9:9", "--timeout", "3"])
        .current_dir(folder.path())
        .env("VMGATE_PROBE", folder.path().join("probe"))
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("chmod go-w"), "{text}");
}

/// Promise 8: the operator vouches for a folder of somebody else, as for a checkout in a container of a CI.
#[test]
fn the_operator_can_vouch_for_a_folder() {
    let folder = folder_with("vmgate.yaml", "timeout_seconds: 5\n");
    set(folder.path(), 0o777);
    set(&folder.path().join("vmgate.yaml"), 0o666);
    let vouched = |place: &Path| {
        Command::new(env!("CARGO_BIN_EXE_vmgate"))
            .args(["check", "--facts", FACTS, "--at", "2026-11-23T01:05:00Z"])
            .current_dir(folder.path())
            .env("VMGATE_TRUST", place)
            .output()
            .unwrap()
    };
    assert!(vouched(folder.path()).status.success());
    assert_eq!(vouched(Path::new("/srv")).status.code(), Some(2));
}
