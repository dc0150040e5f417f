//! Migrations that are begun and taken back (`--trial`): accepted, refused by each who can, and killed at any moment.
//!
//! Most checks here know no rules but those of the trial: what the others foretell is not tried.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use vmgate_facts::VmState;

use crate::{
    harness::{
        Guest, Running, Said, SlowLink, a_to_b, domain_on, in_operators_network, lab, on_host, setting,
        uri_a, uri_b, vmgate, words,
    },
    hook::Enforced,
};

/// A check with a trial, with a ledger and rules of its own.
struct Trials {
    folder: TempDir,
}

impl Trials {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/1-prepare");
        for name in ["trial-accepted.yaml", "trial-left-nothing-behind.yaml"] {
            let to = folder.path().join("rules").join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(rules.join(name), to).unwrap();
        }
        Self { folder }
    }

    /// One more rule, so that something is judged without the trial too: else nothing would be GO before it.
    fn and_rule(self, file: &str) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules").join(file);
        fs::copy(&from, Path::new(&self.path("rules")).join(from.file_name().unwrap())).unwrap();
        self
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn arguments(&self, guest: &str) -> Vec<String> {
        let (rules, ledger) = (self.path("rules"), self.path("ledger.db"));
        let first = [
            "check",
            guest,
            "--trial",
            "--guest",
            "none",
            "--no-builtin-rules",
            "--rules",
            &rules,
            "--ledger",
            &ledger,
        ];
        let rest = ["--timeout", "60", "--output", "json"];
        first.iter().chain(&rest).map(|word| (*word).to_owned()).chain(a_to_b()).collect()
    }

    fn start(&self, guest: &str, environment: &[(&str, &str)]) -> Running {
        let arguments = self.arguments(guest);
        Running::start_with(&words(&[], &arguments), environment)
    }

    fn check(&self, guest: &str) -> Verdict {
        Verdict(self.start(guest, &[]).said())
    }

    /// Starts a check, and waits until the trial is in the ledger.
    fn begun(&self, guest: &str) -> Running {
        let ledger = PathBuf::from(self.path("ledger.db"));
        let wal = ledger.with_extension("db-wal");
        let written = move || {
            [&ledger, &wal].iter().filter_map(|file| fs::read(file).ok()).any(|bytes| {
                let mark = b"a trial: it is taken back";
                bytes.windows(mark.len()).any(|window| window == mark)
            })
        };
        self.start(guest, &[]).wait_until("the trial is in the ledger", written)
    }

    fn recover(&self) -> Said {
        vmgate(&["recover", "--ledger", &self.path("ledger.db"), "--timeout", "60"])
    }

    /// The trial in the last record of an end.
    fn recorded(&self) -> Value {
        let ledger = self.path("ledger.db");
        let said = vmgate(&["ledger", "list", "--kind", "run-ended", "--json", "--ledger", &ledger]).exits(0);
        let record: Value = serde_json::from_str(said.stdout.lines().last().unwrap_or("{}")).unwrap();
        let found = ["/entry/trial", "/trial", "/body/trial"].iter().find_map(|path| record.pointer(path));
        found.unwrap_or_else(|| panic!("no trial in {record}")).clone()
    }
}

/// Outcome of a check with the rules of the trial alone.
struct Verdict(Said);

impl Verdict {
    /// Status and message of a rule.
    #[track_caller]
    fn of(&self, rule: &str) -> (String, String) {
        let verdict = self.0.json();
        let outcomes = verdict["outcomes"].as_array().expect("a verdict has outcomes");
        let outcome = outcomes.iter().find(|outcome| outcome["rule"] == rule).unwrap();
        let text = |key: &str| outcome[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("message"))
    }

    #[track_caller]
    fn is(&self, status: &str, message: &str) -> &Self {
        let (found, words) = self.of("trial-accepted");
        assert_eq!(found, status, "{words}\n{}", self.0.stderr);
        assert!(words.contains(message), "`{message}` is missing: {words}");
        self
    }
}

/// Both hosts and the VM are as before a trial.
#[track_caller]
fn is_as_before(guest: &str) {
    let state = |host: &str| lab(&["host", host, "virsh", "domstate", guest]).stdout.trim().to_owned();
    assert_eq!((state("a").as_str(), state("b").as_str()), ("running", ""));
    let job = lab(&["host", "a", "virsh", "-q", "domjobinfo", guest]);
    assert!(job.stdout.contains("None"), "a job is left behind: {}", job.stdout);
    let left = on_host("b", &format!("pgrep -f '[g]uest={guest},' || true"), b"").exits(0).stdout;
    assert_eq!(left.trim(), "", "a QEMU is left at the destination");
}

/// What a guest's QEMU keeps of a migration, and its process.
fn qemu_of(guest: &str) -> String {
    let parameters = ["info migrate_parameters", "info migrate_capabilities"].map(|asked| {
        lab(&["host", "a", "virsh", "-q", "qemu-monitor-command", guest, "--hmp", asked]).exits(0).stdout
    });
    on_host("a", &format!("cat /run/libvirt/qemu/{guest}.pid; virsh -q domid {guest}"), b"").exits(0).stdout
        + &parameters.concat()
}

/// Starts a guest without an operating system, whose memory is sent within a few looks.
fn small(name: &'static str, memory_kib: u32) -> Guest {
    let guest = Guest { name };
    lab(&["guest", "stop", name]);
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><memory unit='KiB'>{memory_kib}</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os><devices>\
         <emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' index='0' model='none'/>\
         <memballoon model='none'/></devices></domain>"
    );
    let define = format!("cat >/tmp/{name}.xml && virsh -q define /tmp/{name}.xml && virsh -q start {name}");
    on_host("a", &define, xml.as_bytes()).exits(0);
    guest
}

/// Starts a guest with another device, after a command on this machine in the folder that the hosts have as /lab/guests/NAME.
fn with_device(name: &'static str, device: &str, first: &str) -> Guest {
    let guest = Guest::start(name, &["--on", "a", "--agent", "none", "--memory", "128", "--wait", "0"]);
    let folder = PathBuf::from(setting("VMGATE_LAB_STATE")).join("guests").join(name);
    assert!(
        Command::new("sh").args(["-c", first]).current_dir(&folder).status().unwrap().success(),
        "{first}"
    );
    let file = folder.join("domain.xml");
    let xml = fs::read_to_string(&file).unwrap();
    fs::write(&file, xml.replacen("</devices>", &format!("{device}</devices>"), 1)).unwrap();
    let again = format!(
        "virsh -q destroy {name} && virsh -q define /lab/guests/{name}/domain.xml && virsh -q start {name}"
    );
    on_host("a", &again, b"").exits(0);
    guest
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_trial_is_accepted_and_leaves_the_guest_and_both_hosts_as_they_were() {
    let guest = Guest::start("tr-accepted", &["--on", "a"]);
    let (before, trials) = (qemu_of(guest.name), Trials::new());
    for _ in 0..3 {
        trials.check(guest.name).is("pass", "");
        let trial = trials.recorded();
        println!("{trial}");
        assert_eq!(trial["guest_stopped_seconds"], 0.0);
        is_as_before(guest.name);
        assert_eq!(qemu_of(guest.name), before);
    }
    trials.recover().exits(0).says("nothing to recover");
    // And the move still works.
    vmgate(&words(&["migrate", guest.name], &a_to_b())).exits(0).says("runs on lab-b");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn without_the_option_nothing_is_tried() {
    let guest = Guest::start("tr-quiet", &["--on", "a"]);
    let said = vmgate(&words(&["check", guest.name, "--output", "json"], &a_to_b()));
    assert_eq!(crate::harness::statuses(&said.json(), "trial-accepted"), ["not-applicable"]);
    vmgate(&["ledger", "list", "--kind", "run-started"]).exits(0);
    let log = on_host("b", &format!("cat /var/log/libvirt/qemu/{}.log 2>/dev/null || true", guest.name), b"");
    assert_eq!(log.stdout, "", "a QEMU was started at the destination");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_guest_that_is_sent_as_a_whole_before_anybody_looks_goes_on_at_its_source() {
    for (name, memory) in [("tr-tiny", 1024), ("tr-small", 4096)] {
        let (guest, trials) = (small(name, memory), Trials::new());
        let before = qemu_of(guest.name);
        for _ in 0..3 {
            trials.check(guest.name).is("pass", "");
            println!("{name}: {}", trials.recorded());
            is_as_before(guest.name);
            assert_eq!(qemu_of(guest.name), before);
        }
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_trial_that_is_killed_at_any_moment_is_recovered() {
    let guest = Guest::start("tr-killed", &["--on", "a"]);
    let before = qemu_of(guest.name);
    for delay in (0..1000).step_by(100) {
        let trials = Trials::new();
        let mut vmgate = trials.begun(guest.name);
        thread::sleep(Duration::from_millis(delay));
        let _ = vmgate.child.kill();
        vmgate.said();
        let said = trials.recover();
        println!("killed after {delay} ms: {}", said.stdout.trim());
        said.exits(0);
        is_as_before(guest.name);
        assert_eq!(qemu_of(guest.name), before, "after {delay} ms");
    }
}

/// Stops a check while the VM's memory is being sent.
fn stopped_while_sending(trials: &Trials, guest: &Guest) -> Running {
    let vmgate = trials.begun(guest.name);
    let domain = domain_on('A', guest.name).unwrap();
    let start = Instant::now();
    while !domain.job_info().is_ok_and(|job| job.is_some_and(|job| job.data_processed_bytes > Some(0))) {
        assert!(start.elapsed() < Duration::from_mins(1), "nothing was sent");
        thread::sleep(Duration::from_millis(1));
    }
    signal(&vmgate, libc::SIGSTOP);
    vmgate
}

fn signal(vmgate: &Running, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(vmgate.child.id()).unwrap();
    // SAFETY: kill(2) takes no pointers, and the child has not been waited for, so the pid is its own.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// Waits until a guest on host a is, or is not, paused; false if that does not come to pass.
fn becomes_paused(guest: &Guest, wanted: bool, within: Duration) -> bool {
    let (domain, start) = (domain_on('A', guest.name).unwrap(), Instant::now());
    while start.elapsed() < within {
        if domain.state().is_ok_and(|now| (now.state == VmState::Paused) == wanted) {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_small_guest_whose_trial_hangs_and_is_killed_never_runs_at_the_destination() {
    let guest = small("tr-hangs", 4096);
    let (before, mut caught) = (qemu_of(guest.name), 0);
    for _ in 0..4 {
        let trials = Trials::new();
        let mut vmgate = stopped_while_sending(&trials, &guest);
        // The guest is small: with nobody to abort, all of it is sent, and it is stopped.
        let paused = becomes_paused(&guest, true, Duration::from_secs(5));
        let _ = vmgate.child.kill();
        vmgate.said();
        thread::sleep(Duration::from_millis(300));
        let left = guest.state_on("a");
        let said = trials.recover();
        println!("sent as a whole: {paused}; after the kill {left}; {}", said.stdout.trim());
        said.exits(0);
        is_as_before(guest.name);
        assert_eq!(qemu_of(guest.name), before);
        caught += u32::from(paused);
    }
    assert!(caught > 0, "no trial was caught while it sent");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_trial_that_hangs_ends_by_itself_when_it_goes_on() {
    for guest in [small("tr-resumes", 4096), Guest::start("tr-resumes-large", &["--on", "a"])] {
        let (before, trials) = (qemu_of(guest.name), Trials::new());
        let vmgate = stopped_while_sending(&trials, &guest);
        let paused = becomes_paused(&guest, true, Duration::from_secs(2));
        signal(&vmgate, libc::SIGCONT);
        let said = vmgate.said();
        println!("{}: paused meanwhile: {paused}; {}", guest.name, trials.recorded());
        Verdict(said).is("pass", "");
        is_as_before(guest.name);
        assert_eq!(qemu_of(guest.name), before);
    }
}

/// Secret that only host a has.
const SECRET: &str = "6a1f3d0e-1111-4222-8333-00000000000a";

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_refusal_is_told_in_the_words_of_who_refused() {
    let listens = "<graphics type='vnc' autoport='yes' listen='10.77.2.1'/>";
    let iso = "<disk type='file' device='cdrom'><source file='/srv/only-at-a.iso'/><target dev='sda' bus='sata'/><readonly/></disk>";
    let shmem = "<shmem name='vmgate'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>";
    let luks = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='/lab/guests/tr-luks/disk.img'>\
         <encryption format='luks'><secret type='passphrase' uuid='{SECRET}'/></encryption></source><target dev='vda' bus='virtio'/>\
         <readonly/></disk>"
    );
    let make_luks = "chmod 777 . && qemu-img create -q --object secret,id=s,data=vmgate -f luks -o key-secret=s,iter-time=10 \
                     disk.img 16M && chmod 666 disk.img";
    let secret = format!("<secret ephemeral='no' private='no'><uuid>{SECRET}</uuid></secret>");
    let define = format!(
        "truncate -s 1M /srv/only-at-a.iso; cat >/tmp/s.xml && virsh -q secret-define /tmp/s.xml && \
         virsh -q secret-set-value {SECRET} $(printf vmgate | base64)"
    );
    on_host("a", &define, secret.as_bytes()).exits(0);
    let cases = [
        ("tr-listens", listens, "true", "destination-qemu", "Cannot assign requested address"),
        ("tr-iso", iso, "true", "destination-", "only-at-a.iso"),
        ("tr-shmem", shmem, "true", "source-libvirt", "shmem"),
        ("tr-luks", &luks, make_luks, "destination-libvirt", "secret"),
    ];
    for (name, device, first, refuser, says) in cases {
        let (guest, trials) = (with_device(name, device, first), Trials::new());
        let verdict = trials.check(guest.name);
        println!("{name}: {:?}", verdict.of("trial-accepted").1);
        verdict.is("fail", &format!("refused by {refuser}")).is("fail", says);
        is_as_before(guest.name);
        trials.recover().exits(0).says("nothing to recover");
    }
    on_host("a", &format!("virsh -q secret-undefine {SECRET}"), b"").exits(0);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_firewall_refuses_a_trial_and_one_that_is_silent_ends_it_too() {
    let (guest, trials) = (Guest::start("tr-firewall", &["--on", "a"]), Trials::new());
    for (how, says) in [("reject", "refused by connection"), ("drop", "refused by connection")] {
        lab(&["firewall", "b", how]).exits(0);
        let start = Instant::now();
        let verdict = trials.check(guest.name);
        lab(&["firewall", "b", "off"]).exits(0);
        println!("{how}: {:.1} s: {:?}", start.elapsed().as_secs_f64(), verdict.of("trial-accepted").1);
        verdict.is("fail", says);
        is_as_before(guest.name);
    }
    // What was mended is known by another trial alone.
    let said = vmgate(&words(
        &["check", guest.name, "--guest", "none", "--ledger", &trials.path("ledger.db"), "--output", "json"],
        &a_to_b(),
    ));
    assert_eq!(crate::harness::statuses(&said.json(), "trial-accepted"), ["unknown"]);
    trials.check(guest.name).is("pass", "");
    let said = vmgate(&words(
        &["check", guest.name, "--guest", "none", "--ledger", &trials.path("ledger.db"), "--output", "json"],
        &a_to_b(),
    ));
    assert_eq!(crate::harness::statuses(&said.json(), "trial-accepted"), ["pass"]);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn the_hook_of_vmgate_admits_a_trial_only_with_a_go() {
    let enforced = Enforced::with(&[]);
    let guest = Guest::start("tr-hook", &["--on", "a"]);
    let trials = Trials::new().and_rule("2-precopy/vm-is-running.yaml");
    trials.check(guest.name).is("unknown", "lets a VM in only with a GO");
    is_as_before(guest.name);
    // With a key the GO of the check goes along, and nothing waits afterwards.
    let key = fs::read_to_string(enforced.path("site.key")).unwrap();
    Verdict(trials.start(guest.name, &[("VMGATE_SIGNING_KEY", &key)]).said()).is("pass", "");
    is_as_before(guest.name);
    crate::hook::refused(&guest, "vmgate");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_script_of_the_destination_refuses_a_trial_as_it_would_the_move() {
    let script = "#!/bin/sh\nif [ \"$2\" = migrate ]; then echo 'no room on this shelf' >&2; exit 1; fi\n";
    let restart = "p=$(cat /run/libvirtd.pid); kill $p; while [ -e /proc/$p ]; do sleep 0.1; done";
    let put = format!(
        "mkdir -p /etc/libvirt/hooks && cat >/etc/libvirt/hooks/qemu && chmod 755 /etc/libvirt/hooks/qemu && {restart}"
    );
    on_host("b", &put, script.as_bytes()).exits(0);
    lab(&["up"]).exits(0);
    let (guest, trials) = (Guest::start("tr-script", &["--on", "a"]), Trials::new());
    let verdict = trials.check(guest.name);
    on_host("b", &format!("rm /etc/libvirt/hooks/qemu; {restart}"), b"").exits(0);
    lab(&["up"]).exits(0);
    println!("{:?}", verdict.of("trial-accepted").1);
    verdict.is("fail", "refused by destination-hook").is("fail", "no room on this shelf");
    is_as_before(guest.name);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_vm_with_another_job_or_a_paused_one_is_not_tried() {
    let (guest, trials) = (Guest::start("tr-busy", &["--on", "a"]), Trials::new());
    let slow = SlowLink::at("20mbit");
    let name = guest.name;
    let other = thread::spawn(move || {
        lab(&["host", "a", "virsh", "migrate", "--live", name, "qemu+tcp://lab-b/system"])
    });
    crate::harness::wait_for_the_copy(&guest);
    trials.check(name).is("unknown", "migration-out");
    lab(&["host", "a", "virsh", "-q", "domjobabort", name]).exits(0);
    other.join().unwrap();
    drop(slow);
    is_as_before(name);
    lab(&["host", "a", "virsh", "-q", "suspend", name]).exits(0);
    trials.check(name).is("unknown", "paused");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("paused", ""));
    // With the rules the check fails already.
    let all = vmgate(&words(&["check", name, "--trial"], &a_to_b())).exits(20);
    all.says("the trial was not made: the check fails already");
}

/// A change with one move of a guest from a to b, with these settings.
fn change(trials: &Trials, guest: &Guest, settings: &str) -> String {
    let (file, address) = (trials.path("change.yaml"), setting("VMGATE_LAB_MIGRATE_B"));
    let text = format!(
        "schema: vmgate/change/v1\nid: TRIAL\ngoals: {{longest_blackout_seconds: 4}}\nsettings: {{{settings}}}\nmoves:\n  \
         - {{vm: {}, from: '{}', to: '{}', migrate_address: {address}, guest: none}}\n",
        guest.name,
        uri_a(),
        uri_b()
    );
    fs::write(&file, text).unwrap();
    file
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_change_that_asks_for_trials_gets_one_before_its_move() {
    let (guest, trials) = (Guest::start("tr-change", &["--on", "a"]), Trials::new());
    let (file, rules) = (change(&trials, &guest, "trial: true"), trials.path("rules"));
    let ledger = trials.path("ledger.db");
    let first =
        ["--change", &file, "--no-builtin-rules", "--rules", &rules, "--ledger", &ledger, "--timeout", "60"];
    vmgate(&[&["migrate"][..], &first].concat()).exits(0).says("runs on lab-b");
    assert_eq!((guest.state_on("a").as_str(), guest.state_on("b").as_str()), ("", "running"));
    let said = vmgate(&["ledger", "list", "--kind", "run-ended", "--json", "--ledger", &ledger]).exits(0);
    let ended: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(ended.len(), 2, "{}", said.stdout);
    assert!(ended[0].contains("\"answer\":\"accepted\"") && ended[1].contains("\"done\""), "{}", said.stdout);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn settings_of_the_move_are_those_of_the_trial() {
    let (guest, trials) = (Guest::start("tr-settings", &["--on", "a"]), Trials::new());
    let (rules, ledger) = (trials.path("rules"), trials.path("ledger.db"));
    let check = |settings: &str| {
        let file = change(&trials, &guest, settings);
        let first = [
            "check",
            "--change",
            &file,
            "--trial",
            "--no-builtin-rules",
            "--rules",
            &rules,
            "--ledger",
            &ledger,
        ];
        Verdict(vmgate(&[&first[..], &["--timeout", "60", "--output", "json"]].concat()))
    };
    // The lab's hosts have no certificates for QEMU.
    let refused = check("tls: true");
    println!("{:?}", refused.of("trial-accepted").1);
    refused.is("fail", "refused by");
    is_as_before(guest.name);
    let before = qemu_of(guest.name);
    for settings in ["multifd_channels: 4", "auto_converge: true, xbzrle: true"] {
        check(settings).is("pass", "");
        println!("{settings}: {}", trials.recorded());
        is_as_before(guest.name);
        assert_eq!(qemu_of(guest.name), before, "{settings}");
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_guest_that_is_tried_does_not_fall_silent() {
    let workload = "udp to=10.77.2.254:9077 rate=200 size=64";
    let guest = Guest::start("tr-silence", &["--on", "a", "--workload", workload]);
    let socket = in_operators_network(|| UdpSocket::bind("10.77.2.254:9077").unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let trials = Trials::new();
        let mut vmgate = trials.begun(guest.name);
        let (mut last, mut buffer) = (Instant::now(), [0; 64]);
        let mut longest = Duration::ZERO;
        while vmgate.child.try_wait().unwrap().is_none() {
            let _ = socket.recv(&mut buffer);
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        with.push(longest);
        vmgate.said();
        println!("{}", trials.recorded());
        let (mut longest, start) = (Duration::ZERO, Instant::now());
        while start.elapsed() < Duration::from_secs(2) {
            let _ = socket.recv(&mut buffer);
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        without.push(longest);
    }
    println!("longest silence with a trial {with:?}, without {without:?}");
    let median = |mut all: Vec<Duration>| {
        all.sort();
        all[all.len() / 2]
    };
    assert!(median(with) < median(without) + Duration::from_millis(20));
}
