//! Access to a host as sites give it: a user who may only read, a member of the group libvirt, one rule of sudo, a jump host.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use tempfile::TempDir;

use crate::harness::{Guest, Running, Said, a_to_b, on_host, statuses, vmgate, words};

/// A user of host a, and a socket of libvirt that only root and the group libvirt may write to. Dropped, they are gone.
struct Operator;

impl Operator {
    fn make() -> Self {
        let script = "
            getent group libvirt >/dev/null || groupadd --system libvirt
            useradd -m -s /bin/sh -p '*' ops
            install -d -o ops -m 700 /home/ops/.ssh
            install -o ops -m 600 /root/.ssh/authorized_keys /home/ops/.ssh/authorized_keys
            chgrp libvirt /run/libvirt/libvirt-sock && chmod 770 /run/libvirt/libvirt-sock";
        on_host("a", &format!("set -e{script}"), b"").exits(0);
        Self
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let script = "userdel -rf ops; rm -rf /etc/sudoers.d/vmgate /usr/lib/vmgate; chmod 777 /run/libvirt/libvirt-sock";
        on_host("a", script, b"");
    }
}

/// sudo as Debian packages it, which the lab's hosts do not have.
fn install_sudo() {
    let folder = TempDir::new().unwrap();
    let fetched =
        Command::new("apt-get").args(["download", "sudo"]).current_dir(folder.path()).output().unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let package = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let install = "cat >/tmp/sudo.deb && dpkg -i /tmp/sudo.deb && rm /tmp/sudo.deb";
    on_host("a", install, &fs::read(package).unwrap()).exits(0);
}

/// The lines that doctor prints for root, run as they stand there.
fn apply_cure(doctor: &Said) {
    let lines: Vec<&str> = doctor.stdout.lines().filter_map(|line| line.trim().strip_prefix("→ ")).collect();
    let wanted = |line: &&&str| {
        line.starts_with("install ") || line.starts_with("echo ") || line.starts_with("chmod ")
    };
    let script: Vec<&str> = lines.iter().filter(wanted).copied().collect();
    assert_eq!(script.len(), 3, "{lines:#?}");
    let probe = fs::read(Path::new(env!("CARGO_BIN_EXE_vmgate")).with_file_name("vmgate-probe")).unwrap();
    let script = format!("set -e; cd $(mktemp -d); cat >vmgate-probe\n{}", script.join("\n"));
    on_host("a", &script, &probe).exits(0);
}

/// Statuses of the rules that need the trace and the guest's agent.
fn seen(said: &Said) -> Vec<String> {
    let verdict = said.json();
    ["dirty-evidence-long-enough", "guest-agent-answers"]
        .iter()
        .flat_map(|rule| statuses(&verdict, rule))
        .collect()
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn one_rule_of_sudo_shows_a_member_of_the_group_libvirt_what_root_sees() {
    let guest = Guest::start("access", &["--on", "a"]);
    let _operator = Operator::make();
    install_sudo();
    let check = ["check", guest.name, "--from", "ops@lab-a", "--to", "root@lab-b", "--output", "json"];
    vmgate(&["doctor", "ops@lab-a"]).exits(0).says("may only read").says("usermod -aG libvirt ops");
    let reader = vmgate(&check).exits(21).says("read only access prevents").says("vmgate doctor");
    assert!(seen(&reader).iter().all(|status| status == "unknown"), "{:?}", seen(&reader));

    on_host("a", "usermod -aG libvirt ops", b"").exits(0);
    let doctor = vmgate(&["doctor", "ops@lab-a"]).exits(0).says("runs as ops");
    apply_cure(&doctor);
    vmgate(&["doctor", "ops@lab-a", "root@lab-b"]).exits(0).says("runs, by sudo -n").says("from lab-a");
    let other = "sudo -n /usr/lib/vmgate/vmgate-probe hook host";
    on_host("a", &format!("su ops -c '{other}' </dev/null"), b"").exits(1).says("password is required");
    let member = vmgate(&check).exits(0);
    assert!(seen(&member).iter().all(|status| status == "pass"), "{:?}", seen(&member));
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn whatever_is_done_logs_in_once_at_a_host_behind_a_jump_host_too() {
    let guest = Guest::start("once", &["--on", "a"]);
    let logins = || -> u32 {
        let connections = on_host("b", "ss -Htn state established 'sport = :22' | wc -l", b"").stdout;
        connections.trim().parse().unwrap()
    };
    let logs_in_once = |arguments: &[&str]| {
        let mut running = Running::start(arguments);
        let mut most = 0;
        while running.child.try_wait().unwrap().is_none() {
            most = most.max(logins());
        }
        assert_eq!(most, 1, "libvirt and the probe share a login: {arguments:?}");
        running.said()
    };
    for to in ["root@lab-b", "root@lab-behind"] {
        let check = ["check", guest.name, "--from", "root@lab-a", "--to", to, "--trace-seconds", "5"];
        let verdict = logs_in_once(&[&check[..], &["--output", "json"]].concat()).exits(0).json();
        assert_eq!(statuses(&verdict, "destination-memory-fits"), ["pass"], "{verdict:#}");
        let audit = logs_in_once(&["audit", "root@lab-a", to, "--output", "json"]).json();
        let hosts = audit["hosts"].as_array().unwrap();
        assert!(hosts.len() == 2 && hosts.iter().all(|host| host["lost"].is_null()), "{audit:#}");
    }
    let ledger = TempDir::new().unwrap();
    let ledger = ledger.path().join("ledger.db");
    let hosts = ["--from", "root@lab-a", "--to", "root@lab-b", "--ledger", ledger.to_str().unwrap()];
    logs_in_once(&[&["rehearse", guest.name], &hosts[..]].concat()).exits(0).says("and back");
    logs_in_once(&[&["migrate", guest.name], &hosts[..]].concat()).exits(0).says("on no other host");
    vmgate(&["doctor", "root@lab-behind"]).exits(0).says("to read and to migrate").says("runs");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn ctrl_c_leaves_nothing_on_any_machine() {
    let guest = Guest::start("interrupted", &["--on", "a"]);
    let folder = TempDir::new().unwrap();
    let here = folder.path().to_str().unwrap().to_owned();
    let hosts = a_to_b();
    let arguments = words(&["check", guest.name, "--trace-seconds", "30"], &hosts);
    let logged_in = || walk(folder.path()).iter().any(|file| file.ends_with("/ssh"));
    let running = Running::start_with(&arguments, &[("TMPDIR", &here)]);
    let running = running.wait_until("a login is kept", logged_in);
    running.interrupt();
    running.said();
    for _ in 0..600 {
        let there = ["a", "b"].map(|host| on_host(host, "ls -d /tmp/tmp.* 2>/dev/null", b"").stdout);
        if walk(folder.path()).is_empty() && there.concat().is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("left: {:?}", walk(folder.path()));
}

/// Every file and folder below a folder.
fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        found.extend(walk(&entry.path()));
    }
    found
}

/// A folder with what `vmgate init` writes of the lab's two hosts.
fn site() -> TempDir {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    vmgate(&["init", "--yes", "--folder", path, "root@lab-a", "root@lab-b"])
        .exits(0)
        .says("migrate_address: \"10.77.1.2\"");
    vmgate(&["init", "--yes", "--folder", path, "root@lab-a"]).exits(2).says("exists already");
    folder
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_is_found_on_the_hosts_of_the_site_and_destinations_are_ranked() {
    let guest = Guest::start("named", &["--on", "a"]);
    let folder = site();
    let config = folder.path().join("vmgate.yaml");
    let by_site = |arguments: &[&str]| vmgate(&[&["--config", config.to_str().unwrap()], arguments].concat());
    let verdict = by_site(&["check", guest.name, "--to", "lab-b", "--output", "json"]).exits(0).json();
    assert_eq!(
        (&verdict["move"]["source"]["name"], &verdict["move"]["destination"]["name"]),
        (&"lab-a".into(), &"lab-b".into())
    );
    assert_eq!(verdict["move"]["migrate_address"], "10.77.1.2", "the inventory's");
    by_site(&["check", "namde", "--to", "lab-b"]).exits(2).says("Did you mean named (on lab-a)?");

    let inventory = folder.path().join("inventory.yaml");
    let more = "  - name: gone\n    uri: qemu+ssh://root@10.77.3.99/system\n";
    fs::write(&inventory, fs::read_to_string(&inventory).unwrap() + more).unwrap();
    let best = by_site(&["check", guest.name, "--to", "any", "--output", "json"]).exits(0).json();
    assert_eq!(best["move"]["destination"]["name"], "lab-b", "{best:#}");
    let other = &best["alternatives"][0];
    assert_eq!(other["decision"]["answer"], "NO-GO", "{other:#}");
    assert!(!other["reasons"].as_array().unwrap().is_empty());
    by_site(&["migrate", guest.name, "--to", "any"]).exits(2).says("--to any is for `vmgate check`");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn every_vm_of_a_host_is_checked_with_its_guests_evidence_and_one_login() {
    let guests = [Guest::start("all-1", &["--on", "a"]), Guest::start("all-2", &["--on", "a"])];
    let sessions = || on_host("a", "cat /proc/[0-9]*/comm | grep -c sshd", b"").stdout;
    let report = |more: &[&str]| {
        let arguments = ["check", "--all", "--from", "root@lab-a", "--to", "root@lab-b", "--output", "json"];
        vmgate(&[&arguments[..], more].concat())
    };
    let all = report(&[]).exits(0).json();
    let verdicts = all["verdicts"].as_array().unwrap();
    let names: Vec<&str> =
        verdicts.iter().map(|verdict| verdict["move"]["vm"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, guests.each_ref().map(|guest| guest.name));
    for verdict in verdicts {
        assert_eq!(statuses(verdict, "guest-agent-answers"), ["pass"], "{verdict:#}");
        assert_eq!(statuses(verdict, "dirty-evidence-long-enough"), ["pass"], "{verdict:#}");
    }
    report(&["--budget", "0.01"]).exits(21).says("--budget");
    assert_eq!(sessions().trim(), "1", "no login is left");
}
