//! A destination host in a folder: the hook installed under another root, keys, verdicts, and migrations that come in.

use std::{fs, io::Cursor, os::unix::fs::PermissionsExt, path::Path};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use vmgate_attest::{Permit, PrivateKey};
use vmgate_hook::{
    EnforcementMode, HookAnswer, HookPlacement, InstallRequest, Layout, OnError, SignerKey,
    requests::{HookRequest, carry_out},
};

/// UUID of the host.
pub(crate) const HOST: &str = "11111111-2222-4333-8444-00000000000b";
/// UUID of the host that VMs come from.
pub(crate) const SOURCE: &str = "11111111-2222-4333-8444-00000000000a";

/// Key pairs of tests, in PEM.
pub(crate) const SITE: (&str, &str) = (
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIBcofuvXRC/XHa29NnGB1nWYCIk0JoxAtksjpKzCrbLs\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAWV3pwmMgt9eqQou4FXQIOmbS4juCF0yBOafSk5WyEtY=\n-----END PUBLIC KEY-----\n",
);
pub(crate) const OTHER: (&str, &str) = (
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEICztVpFGw1ij+5tNpoUp6sGpwfmG4iiynR8dITlEcCzF\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAuh5kaJxTnBd40dEqXCXskQ/oLj0ZqSavDZcWMsfpIJk=\n-----END PUBLIC KEY-----\n",
);

pub(crate) struct Destination {
    root: TempDir,
    pub(crate) layout: Layout,
}

impl Destination {
    /// A host with the hook installed, which trusts the key `SITE`.
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        let destination = Self { root, layout };
        destination.install(&[("site.pem", SITE.1)]);
        destination
    }

    pub(crate) fn install(&self, keys: &[(&str, &str)]) {
        let keys = keys.iter().map(|(name, pem)| SignerKey { name: (*name).into(), pem: (*pem).into() });
        let wanted = InstallRequest {
            host_uuid: HOST.parse().unwrap(),
            place: HookPlacement::Folder,
            keys: keys.collect(),
            mode: Some(EnforcementMode::Enforce),
            on_error: Some(OnError::Closed),
            time_limit_seconds: None,
            reload: false,
            by: "test".into(),
        };
        self.ask(HookRequest::Install(wanted)).unwrap();
    }

    pub(crate) fn path(&self, below: &str) -> std::path::PathBuf {
        self.root.path().join(below.trim_start_matches('/'))
    }

    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.layout.config(), text).unwrap();
    }

    pub(crate) fn ask(&self, request: HookRequest) -> Result<Value, String> {
        carry_out(&self.layout, request, || Ok(b"#!/bin/sh\nexit 9\n".to_vec()))
    }

    /// Sends a verdict, as `vmgate verdict push` does.
    pub(crate) fn push(&self, verdict: &Value, key: (&str, &str)) -> Result<Value, String> {
        self.ask(HookRequest::Receive { envelope: signed(verdict, key), by: "test".into() })
    }

    /// Puts an envelope into the folder of a VM, without the checks of a push.
    pub(crate) fn place(&self, number: usize, name: &str, envelope: &str) {
        let folder = self.layout.verdicts().join(vm(number));
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        write_for_root(&folder.join(format!("{name}.json")), envelope);
    }

    pub(crate) fn status(&self) -> Value {
        self.ask(HookRequest::Status { lines: 10_000 }).unwrap()
    }

    /// A migration of a VM that begins now, as libvirt announces it.
    pub(crate) fn migrate(&self, name: &str, uuid: &str) -> HookAnswer {
        begin(&self.layout, name, uuid)
    }

    /// Lines of the log about decisions, oldest first. Every line must be whole.
    pub(crate) fn decisions(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.layout.journal()).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == "decision").collect()
    }
}

pub(crate) fn write_for_root(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn begin(layout: &Layout, name: &str, uuid: &str) -> HookAnswer {
    let xml = format!("<domain type='kvm'><name>{name}</name><uuid>{uuid}</uuid></domain>");
    vmgate_hook::run(layout.clone(), &call(name), Cursor::new(xml.into_bytes()))
}

/// Arguments that libvirt gives to a hook when a migration begins.
pub(crate) fn call(name: &str) -> Vec<String> {
    [name, "migrate", "begin", "-"].map(str::to_owned).to_vec()
}

/// UUID of the VM of this number.
pub(crate) fn vm(number: usize) -> String {
    format!("5e7c9b3e-0000-4000-8000-{number:012x}")
}

/// A GO on the VM of this number, evaluated now and valid for an hour, as far as a destination reads it.
pub(crate) fn go(number: usize) -> Value {
    let now = Timestamp::now();
    json!({
        "schema": "vmgate/verdict/v1",
        "evaluated_at": now,
        "expires_at": now + SignedDuration::from_mins(60),
        "move": {
            "vm": {"name": format!("web{number}"), "uuid": vm(number)},
            "source": {"name": "hv1", "uuid": SOURCE},
            "destination": {"name": "hv2", "uuid": HOST},
        },
        "decision": {"answer": "GO", "because": "all-clear"},
        "strict": false,
        "digests": {"facts": format!("sha256:{}", "ab".repeat(32))},
    })
}

/// The same as NO-GO.
pub(crate) fn no_go(number: usize) -> Value {
    with(go(number), "/decision", json!({"answer": "NO-GO", "because": "rule-violated"}))
}

/// A verdict with one field changed.
pub(crate) fn with(mut verdict: Value, pointer: &str, value: Value) -> Value {
    *verdict.pointer_mut(pointer).unwrap() = value;
    verdict
}

/// A verdict that was evaluated so many minutes from now, and lives for an hour.
pub(crate) fn evaluated(verdict: Value, minutes: i64) -> Value {
    with(with(verdict, "/evaluated_at", in_minutes(minutes)), "/expires_at", in_minutes(minutes + 59))
}

pub(crate) fn in_minutes(minutes: i64) -> Value {
    json!(Timestamp::now() + SignedDuration::from_mins(minutes))
}

pub(crate) fn signed(verdict: &Value, key: (&str, &str)) -> String {
    let permit: Permit = serde_json::from_value(verdict.clone()).unwrap();
    let key = PrivateKey::from_pem("test", key.0).unwrap();
    serde_json::to_string(&vmgate_attest::sign(&permit, &key).unwrap()).unwrap()
}

/// Id of a key pair's public key.
pub(crate) fn id(key: (&str, &str)) -> String {
    PrivateKey::from_pem("test", key.0).unwrap().public().id()
}

#[track_caller]
pub(crate) fn refused(answer: &HookAnswer, why: &str) {
    let message = answer.message.as_deref().unwrap_or_default();
    assert!(!answer.let_in && message.contains(why), "`{why}` is not in: {answer:?}");
}

#[track_caller]
pub(crate) fn let_in(answer: &HookAnswer) {
    assert!(answer.let_in, "{answer:?}");
}

/// Sets the times of a file back by ninety-one days, or forward.
pub(crate) fn touch(file: &Path, date: &str) {
    let done = std::process::Command::new("touch").args(["-h", "-d", date]).arg(file).status().unwrap();
    assert!(done.success());
}
