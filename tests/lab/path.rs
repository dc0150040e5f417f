//! The migration path on real hosts: obstacles are found, and if libvirt refuses a move, it has the predicted reason.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::harness::{Guest, Said, a_to_b, lab, statuses, uri_a, uri_b, vmgate, words};

/// Change of the lab that is undone when the test ends.
struct Undo(Vec<Vec<&'static str>>);

impl Undo {
    fn with(commands: &[&[&'static str]]) -> Self {
        Self(commands.iter().map(|command| command.to_vec()).collect())
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for command in &self.0 {
            lab(command);
        }
    }
}

/// Guest that only has to exist: the test does not wait until it is up, and does not access it.
fn only_there(name: &'static str) -> Guest {
    Guest::start(name, &["--on", "a", "--agent", "none", "--wait", "0"])
}

/// The facts that `vmgate collect` writes with these options.
fn facts(guest: &Guest, options: &[&str], the_move: &[String]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("facts.yaml");
    let mut arguments =
        words(&["collect", guest.name, "--guest", "none", "--output", file.to_str().unwrap()], the_move);
    arguments.extend(options);
    vmgate(&arguments).exits(0);
    serde_yaml::from_str(&fs::read_to_string(&file).unwrap()).unwrap()
}

/// Verdict with these options, GO or NO-GO.
fn verdict(guest: &Guest, options: &[&str], the_move: &[String]) -> Value {
    let mut arguments = words(&["check", guest.name, "--guest", "none", "--output", "json"], the_move);
    arguments.extend(options);
    vmgate(&arguments).json()
}

/// Options of a move from a to b over the guests' bridge.
fn over_the_bridge() -> Vec<String> {
    let (from, to) = (uri_a(), uri_b());
    ["--from", &from, "--to", &to, "--migrate-address", "10.77.2.2"].map(str::to_owned).to_vec()
}

#[track_caller]
fn failed(verdict: &Value, rule: &str, says: &str) {
    let outcomes = verdict["outcomes"].as_array().unwrap();
    let failed = outcomes.iter().filter(|outcome| outcome["rule"] == rule && outcome["status"] == "fail");
    let messages: Vec<_> = failed.map(|outcome| outcome["message"].as_str().unwrap_or_default()).collect();
    assert!(messages.iter().any(|message| message.contains(says)), "{rule}: {messages:?}, wanted `{says}`");
}

#[track_caller]
fn passes(verdict: &Value, rule: &str) {
    let found = statuses(verdict, rule);
    assert!(!found.is_empty() && found.iter().all(|status| status == "pass"), "{rule}: {found:?}");
}

/// libvirt's own message on a live migration from a to b.
fn libvirt_migrates(guest: &Guest, uri: &str) -> Said {
    lab(&["host", "a", "virsh", "migrate", "--live", "--persistent", "--undefinesource", guest.name, uri])
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_sound_path_is_proven_to_be_one() {
    let guest = only_there("path-sound");
    let facts = facts(&guest, &["--probe-path"], &a_to_b());
    let path = &facts["path"];
    assert_eq!(path["mtu_bytes"], 1500, "{path:#}");
    assert_eq!(path["ports"]["basis"], "tried");
    assert_eq!(path["ports"]["reachable"], true);
    // A port that was tried a moment ago is still held by its connection (TIME_WAIT).
    assert!((48..=64).contains(&path["ports"]["free"].as_u64().unwrap()), "{path:#}");
    assert!(path["rtt_seconds"].as_f64().unwrap() < 0.5);
    assert_eq!(path["source_address"], "10.77.1.1");
    assert_eq!(path["route_there"]["nic"], "mig0");
    assert_eq!(path["route_back"]["nic"], "mig0");
    assert_eq!(path["destination_name_addresses"], serde_json::json!(["10.77.1.2"]));
    assert_eq!(path["source_name_addresses"], serde_json::json!(["10.77.1.1"]));
    assert_eq!(path["source_nic"]["devices"], serde_json::json!(["mig0"]));
    assert!(path["source_nic"]["used_bytes_per_second"].is_u64());
    assert_eq!(path["limit_bytes_per_second"], Value::Null);
    let verdict = verdict(&guest, &["--probe-path"], &a_to_b());
    for rule in [
        "migration-address-routes-over-migration-nic",
        "migration-path-headroom",
        "migration-path-mtu-consistent",
        "migration-ports-reachable",
        "migration-traffic-shaped-when-shared",
        "hosts-resolve-each-other",
    ] {
        passes(&verdict, rule);
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn goodput_is_what_the_shaper_lets_through_and_never_above_the_cap() {
    let guest = only_there("path-goodput");
    let unshaped = facts(&guest, &["--measure-goodput", "8", "--measure-seconds", "1"], &a_to_b());
    let capped = &unshaped["path"]["goodput"];
    assert_eq!(capped["held_at_cap"], true, "{capped:#}");
    let mean = capped["mean_bytes_per_second"].as_u64().unwrap();
    assert!((6 << 20..9 << 20).contains(&mean), "the cap is 8 MiB/s: {mean}");

    let _undo = Undo::with(&[&["link", "rate", "off"]]);
    lab(&["link", "rate", "200mbit"]).exits(0);
    let shaped = facts(&guest, &["--measure-goodput", "100"], &a_to_b());
    let path = &shaped["path"];
    let goodput = &path["goodput"];
    assert_eq!(goodput["held_at_cap"], false, "{goodput:#}");
    let mean = goodput["mean_bytes_per_second"].as_u64().unwrap();
    assert!((18_000_000..25_500_000).contains(&mean), "200 Mbit/s are 25 MB/s: {mean}");
    assert!(goodput["p5_bytes_per_second"].as_u64() <= goodput["p95_bytes_per_second"].as_u64());
    assert_eq!(path["source_nic"]["shapers"][0]["kind"], "tbf");
    assert_eq!(path["source_nic"]["shapers"][0]["rate_bytes_per_second"], 25_000_000);
    assert_eq!(path["bandwidth_bytes_per_second"], 25_000_000);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn nothing_is_measured_while_a_migration_runs() {
    let guest = only_there("path-quiet");
    let busy =
        Guest::start("path-busy", &["--on", "a", "--workload", "dirty size=64 rate=30 pattern=random"]);
    let _undo = Undo::with(&[&["host", "a", "virsh", "domjobabort", "path-busy"], &["link", "rate", "off"]]);
    lab(&["link", "rate", "20mbit"]).exits(0);
    let start = format!("virsh migrate --live {} qemu+tcp://lab-b/system >/dev/null 2>&1 &", busy.name);
    lab(&["host", "a", "sh", "-c", &start]).exits(0);
    let path = &facts(&guest, &["--measure-goodput", "1"], &a_to_b())["path"];
    let why = path["goodput"]["unknown"].as_str().unwrap_or_default();
    assert!(why.contains("path-busy") && why.contains("migration"), "{path:#}");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_shared_network_is_no_go_and_every_cure_that_is_named_cures() {
    const RULE: &str = "migration-traffic-shaped-when-shared";
    let guest = only_there("path-shared");
    let path = over_the_bridge();
    let refused = verdict(&guest, &[], &path);
    failed(&refused, RULE, "br0 also carries other traffic");
    let outcomes = refused["outcomes"].as_array().unwrap();
    let remediation = outcomes.iter().find(|o| o["rule"] == RULE).unwrap()["remediation"].as_str().unwrap();
    let between = |begin: &str, end: char| {
        let (_, rest) =
            remediation.split_once(begin).unwrap_or_else(|| panic!("no `{begin}`: {remediation}"));
        rest.split_once(end).unwrap().0.trim().to_owned()
    };

    // The change's own limit.
    let limit = between("--bandwidth-limit ", '`');
    passes(&verdict(&guest, &["--bandwidth-limit", &limit], &path), RULE);

    // libvirt's.
    let setspeed = between("`virsh migrate-setspeed ", '`');
    let mut command = vec!["host", "a", "virsh", "migrate-setspeed"];
    command.extend(setspeed.split_whitespace());
    lab(&command).exits(0);
    let limited = verdict(&guest, &[], &path);
    passes(&limited, RULE);
    lab(&["host", "a", "virsh", "migrate-setspeed", guest.name, "8796093022207"]).exits(0);

    // A class of the kernel's own.
    let _undo = Undo::with(&[
        &["host", "a", "tc", "qdisc", "del", "dev", "br0", "root"],
        &["host", "a", "tc", "qdisc", "del", "dev", "biz0", "root"],
    ]);
    failed(&verdict(&guest, &[], &path), RULE, "br0");
    for command in remediation.split('`').filter(|command| command.starts_with("tc ")) {
        let mut words = vec!["host", "a"];
        words.extend(command.split_whitespace());
        lab(&words).exits(0);
    }
    let facts = facts(&guest, &[], &path);
    assert_eq!(facts["path"]["source_nic"]["shapers"][0]["kind"], "htb", "{:#}", facts["path"]["source_nic"]);
    passes(&verdict(&guest, &[], &path), RULE);
    lab(&["host", "a", "tc", "qdisc", "del", "dev", "br0", "root"]).exits(0);

    // A bucket that the guests have to share as well is none.
    let bucket = "tc qdisc replace dev biz0 root tbf rate 500mbit burst 256kb latency 50ms";
    let mut command = vec!["host", "a"];
    command.extend(bucket.split_whitespace());
    lab(&command).exits(0);
    failed(&verdict(&guest, &[], &path), RULE, "br0");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn the_changes_limit_is_applied_through_libvirt() {
    let guest = Guest::start(
        "path-limit",
        &["--on", "a", "--memory", "512", "--workload", "dirty size=128 rate=2 pattern=sweep"],
    );
    let child =
        crate::harness::start_vmgate(&words(&["migrate", guest.name, "--bandwidth-limit", "16"], &a_to_b()));
    let mut seen = String::new();
    for _ in 0..300 {
        let said = lab(&[
            "host",
            "a",
            "virsh",
            "qemu-monitor-command",
            guest.name,
            r#"{"execute":"query-migrate-parameters"}"#,
        ]);
        if lab(&["host", "a", "virsh", "domjobinfo", guest.name]).stdout.contains("Unbounded") {
            seen = said.stdout;
            if seen.contains(r#""max-bandwidth":16777216"#) {
                break;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let said = child.said();
    assert!(seen.contains(r#""max-bandwidth":16777216"#), "{seen}\n{}{}", said.stdout, said.stderr);
    said.exits(0).says("runs on lab-b");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_policy_rule_that_leads_elsewhere_is_seen() {
    let guest = only_there("path-policy");
    let _undo = Undo::with(&[
        &["host", "a", "ip", "rule", "del", "to", "10.77.1.2", "table", "100"],
        &["host", "a", "ip", "route", "flush", "table", "100"],
    ]);
    lab(&["host", "a", "ip", "route", "add", "default", "via", "10.77.2.254", "dev", "br0", "table", "100"])
        .exits(0);
    lab(&["host", "a", "ip", "rule", "add", "to", "10.77.1.2", "table", "100"]).exits(0);
    let verdict = verdict(&guest, &[], &a_to_b());
    failed(
        &verdict,
        "migration-address-routes-over-migration-nic",
        "leave by br0, through 10.77.2.254 (table 100)",
    );
    failed(&verdict, "migration-traffic-shaped-when-shared", "br0");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_wrong_mtu_is_seen_at_an_end_and_at_the_switch_between() {
    const RULE: &str = "migration-path-mtu-consistent";
    let guest = only_there("path-mtu");
    let _undo = Undo::with(&[
        &["host", "b", "ip", "link", "set", "mig0", "mtu", "1500"],
        &["run", "ip", "link", "set", "mig-b", "mtu", "1500"],
    ]);
    lab(&["host", "b", "ip", "link", "set", "mig0", "mtu", "1400"]).exits(0);
    failed(&verdict(&guest, &[], &a_to_b()), RULE, "mig0 at the destination 1400");
    lab(&["host", "b", "ip", "link", "set", "mig0", "mtu", "1500"]).exits(0);

    // A switch that drops what is larger than 1400 bytes, and says nothing.
    lab(&["run", "ip", "link", "set", "mig-b", "mtu", "1400"]).exits(0);
    assert_eq!(statuses(&verdict(&guest, &[], &a_to_b()), RULE), ["unknown"], "not proven without a packet");
    failed(&verdict(&guest, &["--probe-path"], &a_to_b()), RULE, "pass both ways has 1400 bytes");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_firewall_on_the_migration_ports_is_found_and_libvirt_fails_there() {
    const RULE: &str = "migration-ports-reachable";
    let guest = only_there("path-ports");
    let _undo = Undo::with(&[&["firewall", "b", "off"]]);
    lab(&["firewall", "b", "drop"]).exits(0);
    let untried = facts(&guest, &[], &a_to_b());
    let detail = untried["path"]["ports"]["detail"].as_str().unwrap();
    assert!(detail.contains("inet lab input at the destination"), "{detail}");
    assert_eq!(statuses(&verdict(&guest, &[], &a_to_b()), RULE), ["unknown"]);
    failed(&verdict(&guest, &["--probe-path"], &a_to_b()), RULE, "does not answer");

    lab(&["firewall", "b", "reject"]).exits(0);
    failed(&verdict(&guest, &["--probe-path"], &a_to_b()), RULE, "refused");
    let libvirt = libvirt_migrates(&guest, "qemu+tcp://lab-b/system");
    assert_ne!(libvirt.code, 0);
    libvirt.says("unable to connect to server at 'lab-b:49152'");
    assert_eq!(guest.state_on("a"), "running");

    lab(&["firewall", "b", "off"]).exits(0);
    passes(&verdict(&guest, &["--probe-path"], &a_to_b()), RULE);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn names_that_lead_elsewhere_are_found_and_libvirt_fails_there() {
    let guest = only_there("path-names");
    let restore = "cp /run/hosts.kept /etc/hosts";
    let _undo = Undo::with(&[&["host", "a", "sh", "-c", restore]]);
    lab(&["host", "a", "sh", "-c", "cp /etc/hosts /run/hosts.kept"]).exits(0);
    let as_installed = "sed 's/.* lab-b$/127.0.1.1 lab-b/' /run/hosts.kept >/etc/hosts";
    lab(&["host", "a", "sh", "-c", as_installed]).exits(0);
    failed(&verdict(&guest, &[], &a_to_b()), "hosts-resolve-each-other", "lab-b to 127.0.1.1");
    // The name serves libvirt at the source for the connection and for the migration; here only for the latter.
    let libvirt = libvirt_migrates(&guest, "qemu+tcp://10.77.1.2/system");
    assert_ne!(libvirt.code, 0);
    libvirt.says("unable to connect to server at 'lab-b:49152'");

    lab(&["host", "a", "sh", "-c", "grep -v lab-b /run/hosts.kept >/etc/hosts"]).exits(0);
    failed(&verdict(&guest, &[], &a_to_b()), "hosts-resolve-each-other", "the source resolves lab-b to");
    let libvirt = libvirt_migrates(&guest, "qemu+tcp://10.77.1.2/system");
    assert_ne!(libvirt.code, 0);
    libvirt.says("lab-b");
    assert_eq!(guest.state_on("a"), "running");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn an_expired_certificate_and_one_for_another_name_are_found_and_libvirt_refuses_them() {
    const RULE: &str = "migration-certificates-valid";
    let guest = only_there("path-tls");
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path();
    let uri = format!("qemu+tls://lab-b/system?pkipath={}", pki.display());
    let the_move: Vec<String> =
        ["--from", &uri_a(), "--to", &uri, "--migrate-address", "10.77.1.2"].map(str::to_owned).to_vec();
    let virsh = || -> Said {
        let netns = crate::harness::setting("VMGATE_LAB_NETNS");
        Command::new("ip")
            .args(["netns", "exec", &netns, "virsh", "-c", &uri, "list"])
            .output()
            .unwrap()
            .into()
    };
    authority(pki);
    certificate(pki, "client", "client", "20991231000000Z");
    let _undo = Undo::with(&[&["tls", "b", "off"]]);

    certificate(pki, "server", "lab-b", "20991231000000Z");
    lab(&["tls", "b", pki.to_str().unwrap()]).exits(0);
    virsh().exits(0);
    passes(&verdict(&guest, &[], &the_move), RULE);

    certificate(pki, "server", "lab-b", "20200102000000Z");
    lab(&["tls", "b", pki.to_str().unwrap()]).exits(0);
    failed(&verdict(&guest, &[], &the_move), RULE, "to 2020-01-02T00:00:00Z");
    let libvirt = virsh();
    assert_ne!(libvirt.code, 0);
    libvirt.says("Certificate failed validation");

    certificate(pki, "server", "lab-x", "20991231000000Z");
    lab(&["tls", "b", pki.to_str().unwrap()]).exits(0);
    failed(&verdict(&guest, &[], &the_move), RULE, "name that the peer expects: lab-b");
    let libvirt = virsh();
    assert_ne!(libvirt.code, 0);
    libvirt.says("lab-b");
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

fn authority(folder: &Path) {
    let mut arguments =
        vec!["req", "-x509", "-keyout", "cakey.pem", "-out", "cacert.pem", "-subj", "/CN=lab", "-days", "9"];
    arguments.extend(KEY);
    openssl(folder, &arguments);
}

/// A certificate of the authority for `name`, valid from 2020 to `until`.
fn certificate(folder: &Path, what: &str, name: &str, until: &str) {
    let (key, subject) = (format!("{what}key.pem"), format!("/CN={name}"));
    let mut arguments = vec!["req", "-keyout", &key, "-out", "request.pem", "-subj", &subject];
    arguments.extend(KEY);
    openssl(folder, &arguments);
    fs::write(folder.join("extensions"), format!("subjectAltName=DNS:{name}\n")).unwrap();
    fs::write(folder.join("index"), "").unwrap();
    let configuration = "[ca]\ndefault_ca=lab\n[lab]\ndatabase=index\nnew_certs_dir=.\nrand_serial=yes\n\
                         default_md=sha256\nunique_subject=no\npolicy=any\n[any]\ncommonName=supplied\n";
    fs::write(folder.join("ca.conf"), configuration).unwrap();
    let out = format!("{what}cert.pem");
    openssl(
        folder,
        &[
            "ca",
            "-batch",
            "-config",
            "ca.conf",
            "-cert",
            "cacert.pem",
            "-keyfile",
            "cakey.pem",
            "-in",
            "request.pem",
            "-out",
            &out,
            "-startdate",
            "20200101000000Z",
            "-enddate",
            until,
            "-extfile",
            "extensions",
            "-notext",
        ],
    );
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_third_host_is_a_destination_like_the_second() {
    let guest = Guest::start("path-third", &["--on", "a"]);
    let _undo = Undo::with(&[&["host-down", "c"]]);
    lab(&["host-up", "c"]).exits(0);
    let (from, to) = (uri_a(), crate::harness::setting("VMGATE_LAB_URI_C"));
    let the_move: Vec<String> =
        ["--from", &from, "--to", &to, "--migrate-address", "10.77.1.3"].map(str::to_owned).to_vec();
    vmgate(&words(&["migrate", guest.name, "--probe-path"], &the_move)).exits(0).says("runs on lab-c");
}
