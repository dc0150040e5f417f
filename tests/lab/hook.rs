//! A destination that requires verdicts, and migrations by virsh, which does not know vmgate.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{self, Guest, Said, a_to_b, lab, on_host, setting, uri_a, uri_b, words};

/// Host b with the hook installed, and a key that it trusts. The hook is removed on drop.
pub(crate) struct Enforced {
    folder: TempDir,
}

impl Enforced {
    pub(crate) fn with(options: &[&str]) -> Self {
        let enforced = Self { folder: tempfile::tempdir().unwrap() };
        for name in ["site", "stranger"] {
            enforced.make_key(name);
        }
        enforced.install(&["--reload", "--mode", "enforce", "--on-error", "closed"]).exits(0);
        // libvirt reloads by itself, in its own time.
        thread::sleep(Duration::from_secs(1));
        if !options.is_empty() {
            enforced.install(options).exits(0);
        }
        enforced
    }

    fn install(&self, options: &[&str]) -> Said {
        let key = self.path("site.pub.pem");
        let mut arguments = vec!["hook", "install", "lab-b", "--key", &key];
        arguments.extend(options);
        vmgate(&arguments)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn make_key(&self, name: &str) {
        let (private, public) = (self.path(&format!("{name}.key")), self.path(&format!("{name}.pub.pem")));
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &private]);
        openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
    }

    /// Verdict on the guest's move from a to b, GO or NO-GO.
    pub(crate) fn check(&self, guest: &Guest, options: &[&str]) -> Value {
        let mut arguments = words(&["check", guest.name, "--output", "json"], &[]);
        let a_to_b = a_to_b();
        arguments.extend(a_to_b.iter().map(String::as_str));
        arguments.extend(options);
        vmgate(&arguments).json()
    }

    /// Signs a verdict and gives the file with the envelope.
    pub(crate) fn sign(&self, verdict: &Value, key: &str) -> String {
        let (file, envelope) = (self.path("verdict.json"), self.path("envelope.json"));
        fs::write(&file, verdict.to_string()).unwrap();
        let key = self.path(&format!("{key}.key"));
        let signed = vmgate(&["verdict", "sign", &file, "--key", &key]).exits(0);
        fs::write(&envelope, signed.stdout).unwrap();
        envelope
    }

    /// Puts an envelope into the hook's folder, without the checks of `verdict push`.
    pub(crate) fn place(&self, guest: &Guest, envelope: &str) {
        let folder = format!("/var/lib/vmgate/verdicts/{}", uuid_of(guest));
        let put = format!("umask 077; mkdir -p {folder}; cat > {folder}/placed.json");
        on_host("b", &put, &fs::read(envelope).unwrap()).exits(0);
    }

    pub(crate) fn clear(&self) {
        on_host("b", "rm -rf /var/lib/vmgate/verdicts/*-*", b"").exits(0);
    }

    pub(crate) fn status(&self) -> Value {
        let said = vmgate(&["hook", "status", &uri_b(), "--output", "json"]);
        said.json()["hosts"][0].clone()
    }

    /// The last decision in the log.
    pub(crate) fn decision(&self) -> Value {
        let status = self.status();
        let recent = status["status"]["recent"].as_array().unwrap();
        recent.iter().rfind(|entry| entry["event"] == "decision").cloned().unwrap_or(Value::Null)
    }
}

impl Drop for Enforced {
    fn drop(&mut self) {
        vmgate(&["hook", "remove", "lab-b", "--purge"]);
        on_host("b", "rm -rf /etc/libvirt/hooks/* /var/lib/vmgate /var/log/vmgate /tmp/foreign", b"");
    }
}

/// Runs vmgate with a timeout that is long enough for an emulated host.
pub(crate) fn vmgate(arguments: &[&str]) -> Said {
    let patience: &[&str] = if arguments.contains(&"--timeout") { &[] } else { &["--timeout", "60"] };
    harness::vmgate(&[arguments, patience].concat())
}

fn openssl(arguments: &[&str]) {
    let output = std::process::Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn uuid_of(guest: &Guest) -> String {
    let host = if guest.state_on("a").is_empty() { "b" } else { "a" };
    lab(&["host", host, "virsh", "-q", "domuuid", guest.name]).exits(0).stdout.trim().to_owned()
}

/// Migrates with virsh, as a person who does not know vmgate would.
pub(crate) fn virsh_migrate(guest: &Guest, from: &str, to: &str) -> Said {
    let uri = format!("qemu+tcp://lab-{to}/system");
    lab(&["host", from, "virsh", "migrate", "--live", "--persistent", "--undefinesource", guest.name, &uri])
}

#[track_caller]
pub(crate) fn refused(guest: &Guest, why: &str) {
    virsh_migrate(guest, "a", "b").exits(1).says(guest.name).says(why);
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""), "{why}");
}

/// Lets the guest in and brings it back.
#[track_caller]
pub(crate) fn let_in(guest: &Guest) {
    virsh_migrate(guest, "a", "b").exits(0);
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("", "running"));
    virsh_migrate(guest, "b", "a").exits(0);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_migration_without_a_verdict_is_refused_and_with_one_passes_once() {
    let enforced = Enforced::with(&[]);
    let guest = Guest::start("gated", &["--on", "a"]);
    refused(&guest, "this host has no signed verdict for this VM");
    assert_eq!(enforced.decision()["because"], "no-verdict");

    let envelope = enforced.sign(&enforced.check(&guest, &[]), "site");
    vmgate(&["verdict", "push", &uri_b(), &envelope]).exits(0).says("may migrate in once");
    assert_eq!(enforced.status()["status"]["waiting"], 1);
    let_in(&guest);
    let decision = enforced.decision();
    assert_eq!(
        (&decision["because"], &decision["let_in"]),
        (&"verdict".into(), &true.into()),
        "{decision:#}"
    );

    refused(&guest, "was already used");
    vmgate(&["verdict", "push", &uri_b(), &envelope]).exits(2).says("can be used only once");
    enforced.place(&guest, &envelope);
    refused(&guest, "was already used; a verdict can be used only once");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn only_a_go_for_this_vm_and_this_host_by_a_trusted_key_lets_in() {
    let enforced = Enforced::with(&[]);
    let guest = Guest::start("picky", &["--on", "a"]);
    let go = enforced.check(&guest, &[]);
    assert_eq!(go["decision"]["answer"], "GO", "{go:#}");
    let now = jiff::Timestamp::now();
    let hours_ago = |hours| (now - jiff::SignedDuration::from_hours(hours)).to_string();
    let mut expired = go.clone();
    expired["evaluated_at"] = hours_ago(2).into();
    expired["expires_at"] = hours_ago(1).into();
    lab(&["host", "a", "virsh", "-q", "suspend", guest.name]).exits(0);
    let no_go = enforced.check(&guest, &[]);
    lab(&["host", "a", "virsh", "-q", "resume", guest.name]).exits(0);
    assert_eq!(no_go["decision"]["answer"], "NO-GO");
    let changed = |pointer: &str, value: &str| {
        let mut verdict = go.clone();
        *verdict.pointer_mut(pointer).unwrap() = value.into();
        verdict
    };
    let somebody = "11111111-2222-4333-8444-555555555555";
    let cases = [
        (expired, "site", "expired"),
        (no_go, "site", "NO-GO"),
        (changed("/move/vm/uuid", somebody), "site", "this host has no signed verdict for this VM"),
        (changed("/move/destination/uuid", somebody), "site", "is about the destination host"),
        (go.clone(), "stranger", "no signature of the envelope is valid for the trusted keys"),
    ];
    for (verdict, key, why) in &cases {
        let envelope = enforced.sign(verdict, key);
        match *why {
            "this host has no signed verdict for this VM" => {}
            "NO-GO" => {
                vmgate(&["verdict", "push", "lab-b", &envelope]).exits(0).says("may not migrate in");
            }
            why => {
                vmgate(&["verdict", "push", "lab-b", &envelope]).exits(2).says(why);
            }
        }
        enforced.place(&guest, &envelope);
        refused(&guest, why);
        enforced.clear();
    }

    let good = enforced.sign(&go, "site");
    let mut tampered: Value = serde_json::from_slice(&fs::read(&good).unwrap()).unwrap();
    let payload = tampered["payload"].as_str().unwrap();
    let other = if payload.as_bytes()[600] == b'A' { "B" } else { "A" };
    tampered["payload"] = format!("{}{other}{}", &payload[..600], &payload[601..]).into();
    let file = enforced.path("tampered.json");
    fs::write(&file, tampered.to_string()).unwrap();
    enforced.place(&guest, &file);
    refused(&guest, "the file was changed after it was signed");
    enforced.clear();

    // A verdict in a file that others could have written is not trusted, even with a valid signature.
    enforced.place(&guest, &good);
    on_host("b", "chmod 666 /var/lib/vmgate/verdicts/*-*/*.json", b"").exits(0);
    refused(&guest, "other users can write it");
    on_host("b", "chmod 600 /var/lib/vmgate/verdicts/*-*/*.json; chmod 666 /etc/vmgate/keys.d/*.pem", b"")
        .exits(0);
    refused(&guest, "other users can write it");
    on_host("b", "chmod 644 /etc/vmgate/keys.d/*.pem", b"").exits(0);
    let_in(&guest);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn where_nothing_can_be_decided_the_configuration_says_what_happens() {
    let enforced = Enforced::with(&[]);
    let guest = Guest::start("undecided", &["--on", "a"]);
    let config = |text: &str| {
        on_host("b", "cat > /etc/vmgate/hook.yaml", text.as_bytes()).exits(0);
    };
    config("mode: enforce\non-error: closed\nno-such-setting: 1\n");
    refused(&guest, "no-such-setting");
    config("mode: enforce\non-error: open\nno-such-setting: 1\n");
    let_in(&guest);
    assert_eq!(enforced.decision()["because"], "error");

    config("mode: audit-only\n");
    let_in(&guest);
    let decision = enforced.decision();
    assert_eq!(
        (&decision["because"], &decision["let_in"]),
        (&"no-verdict".into(), &true.into()),
        "{decision:#}"
    );

    // Another process holds the lock of the hook's files: no decision needs it.
    let hold = "flock /var/lib/vmgate/hook.lock sleep 20 >/dev/null 2>&1 & echo $!";
    config("mode: enforce\non-error: closed\n");
    let holder = on_host("b", hold, b"").exits(0).stdout;
    let start = Instant::now();
    refused(&guest, "no signed verdict");
    assert!(start.elapsed() < Duration::from_secs(15), "took {:?}", start.elapsed());
    on_host("b", &format!("pkill -P {0}; kill {0}; :", holder.trim()), b"");
    config("mode: enforce\non-error: open\n");

    // Without the program, the script decides by itself.
    on_host("b", "mv /usr/lib/vmgate/vmgate-hook /usr/lib/vmgate/away", b"").exits(0);
    let_in(&guest);
    config("mode: enforce\non-error: closed\n");
    refused(&guest, "is missing");
    on_host("b", "mv /usr/lib/vmgate/away /usr/lib/vmgate/vmgate-hook", b"").exits(0);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn the_emergency_override_has_a_name_an_end_and_a_trace() {
    let enforced = Enforced::with(&[]);
    let guest = Guest::start("urgent", &["--on", "a"]);
    let set = |more: &[&str]| {
        let mut arguments = vec!["hook", "override", "lab-b", "--reason", "room 2 is on fire", "--by", "lab"];
        arguments.extend(more);
        vmgate(&arguments)
    };
    set(&["--minutes", "0"]).exits(2).says("1 to 1440");
    set(&["--minutes", "5", "--vm", "11111111-2222-4333-8444-555555555555"]).exits(0);
    refused(&guest, "no signed verdict");
    set(&["--minutes", "5", "--vm", &uuid_of(&guest)]).exits(0).says("let in without a verdict until");
    let_in(&guest);
    let decision = enforced.decision();
    assert_eq!(decision["because"], "override");
    assert!(decision["reason"].as_str().unwrap().contains("room 2 is on fire"), "{decision:#}");
    vmgate(&["hook", "status", "lab-b"]).exits(0).says("OVERRIDE").says("room 2 is on fire");
    // Both, and the VM that came in by the second, are in the ledger, each once however often the host is looked at.
    vmgate(&["hook", "status", "lab-b"]).exits(0);
    let written =
        vmgate(&["ledger", "list", "--kind", "override"]).exits(0).says("urgent was let into lab-b").stdout;
    assert_eq!((written.lines().count(), written.matches("into lab-b until").count()), (3, 2), "{written}");

    // The override also applies when the hook cannot decide, which is its purpose.
    on_host("b", "mv /etc/vmgate/keys.d /etc/vmgate/away", b"").exits(0);
    let_in(&guest);
    on_host("b", "mv /etc/vmgate/away /etc/vmgate/keys.d", b"").exits(0);
    vmgate(&["hook", "override", "lab-b", "--withdraw"]).exits(0).says("withdrawn");
    refused(&guest, "no signed verdict");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn another_hook_goes_on_working_through_installation_update_and_removal() {
    let guest = Guest::start("neighbour", &["--on", "a"]);
    let foreign = b"#!/bin/sh\necho \"$2/$3\" >> /tmp/foreign\nexit 0\n";
    let put = "mkdir -p /etc/libvirt/hooks; cat > /etc/libvirt/hooks/qemu; chmod 755 /etc/libvirt/hooks/qemu";
    on_host("b", put, foreign).exits(0);
    // libvirt looks for hooks when it starts.
    lab(&["host", "b", "sh", "-c", "kill $(cat /run/libvirtd.pid)"]).exits(0);
    thread::sleep(Duration::from_secs(3));
    lab(&["up"]).exits(0);
    let calls = || {
        let said = on_host("b", "grep -c migrate/begin /tmp/foreign; :", b"").stdout;
        said.trim().parse::<u32>().unwrap_or(0)
    };
    let enforced = Enforced { folder: tempfile::tempdir().unwrap() };
    enforced.make_key("site");
    for options in [&[][..], &["--chain"]] {
        let first = enforced.install(options).exits(0).says("libvirt runs the hook from now on");
        assert!(first.stdout.contains("other hooks on the host keep working"), "{}", first.stdout);
        enforced.install(options).exits(0).says("nothing had to be changed");
        // An update, as a newer version would find it.
        on_host("b", "echo '# older' >> /etc/libvirt/hooks/qemu.d/90-vmgate", b"");
        vmgate(&["hook", "update", "lab-b", "--time-limit", "4"]).exits(0);
        enforced.install(options).exits(0);

        let before = calls();
        // At first there is none; the second time, the one of before has served.
        refused(&guest, "neighbour was refused");
        assert_eq!(calls(), before + 1, "{options:?}");
        let envelope = enforced.sign(&enforced.check(&guest, &[]), "site");
        vmgate(&["verdict", "push", "lab-b", &envelope]).exits(0);
        let_in(&guest);
        assert_eq!(calls(), before + 2, "{options:?}");
        vmgate(&["hook", "status", "lab-b"]).exits(0).says("another hook");
    }

    // The other hook may refuse too, and then no verdict is used up.
    on_host(
        "b",
        "printf '#!/bin/sh\\necho not today >&2; exit 3\\n' > /etc/libvirt/hooks/qemu.before-vmgate",
        b"",
    );
    let envelope = enforced.sign(&enforced.check(&guest, &[]), "site");
    vmgate(&["verdict", "push", "lab-b", &envelope]).exits(0);
    refused(&guest, "not today");
    on_host("b", "cat > /etc/libvirt/hooks/qemu.before-vmgate", foreign).exits(0);
    let_in(&guest);

    let before = calls();
    vmgate(&["hook", "remove", "lab-b"])
        .exits(0)
        .says("other hooks on the host keep working: /etc/libvirt/hooks/qemu");
    assert_eq!(on_host("b", "cat /etc/libvirt/hooks/qemu", b"").stdout.as_bytes(), foreign);
    let_in(&guest);
    assert_eq!(calls(), before + 1);
    vmgate(&["hook", "status", "lab-b"]).exits(1).says("not installed");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn vmgate_brings_its_own_verdict_and_without_a_key_the_guest_stays() {
    let enforced = Enforced::with(&[]);
    let guest = Guest::start("own", &["--on", "a"]);
    vmgate(&words(&["migrate", guest.name], &a_to_b())).exits(30).says("signing_key").says("was refused");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("running", ""));

    // By a shell of the user's instead of ssh, as one would behind a jump host.
    let file = enforced.path("vmgate.yaml");
    let shell = format!("[{}, host, b, sh, -c]", setting("VMGATE_LAB"));
    fs::write(&file, format!("signing_key: site.key\nhosts: {{lab-b: {{shell: {shell}}}}}\n")).unwrap();
    vmgate(&words(&["migrate", guest.name, "--config", &file], &a_to_b())).exits(0).says("runs on lab-b");
    assert_eq!(enforced.decision()["because"], "verdict");
    assert_eq!(enforced.status()["trouble"], Value::Array(vec![]), "{:#}", enforced.status());
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_host_is_told_apart_from_one_that_enforces() {
    vmgate(&["hook", "status", &uri_a()]).exits(1).says("lab-a: enforces nothing");
    vmgate(&["hook", "status", "qemu+tcp://10.77.3.77/system", "--timeout", "3"])
        .exits(1)
        .says("10.77.3.77: not known");
    vmgate(&["hook", "install", "lab-a"]).exits(2).says("no key is trusted");
    let said = on_host("a", "ls /etc/libvirt/hooks/qemu.d /usr/lib/vmgate /etc/vmgate 2>/dev/null", b"");
    assert_eq!(said.stdout.trim(), "", "nothing is left of an installation that was refused");
}
