//! Promises 3 and 4: data is not code.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::said::{Said, vmgate_in};

/// A folder with a program that leaves a mark when anything runs it.
struct Trap {
    folder: TempDir,
}

impl Trap {
    fn new() -> Self {
        let trap = Self { folder: tempfile::tempdir().unwrap() };
        let text = format!("#!/bin/sh\ntouch '{}'\nexit 1\n", trap.mark().display());
        fs::write(trap.program(), text).unwrap();
        fs::set_permissions(trap.program(), fs::Permissions::from_mode(0o755)).unwrap();
        trap
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn program(&self) -> PathBuf {
        self.path().join("program")
    }

    fn mark(&self) -> PathBuf {
        self.path().join("mark")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Said {
        vmgate_in(self.path(), arguments)
    }

    #[track_caller]
    fn did_not_snap(&self, by: &str) {
        assert!(!self.mark().exists(), "{by} ran the program");
    }

    /// URIs that would run the program or weaken the proof of who is there, each with the part that is refused.
    fn uris(&self) -> Vec<(String, &'static str)> {
        let program = self.program().display().to_string();
        let of = |uri: &str, part| (uri.replace("PROGRAM", &program), part);
        vec![
            of("qemu+ext://x/system?command=PROGRAM", "ext"),
            of("qemu+ssh://root@127.0.0.1/system?command=PROGRAM", "command"),
            of("qemu+ssh://root@127.0.0.1/system?no_tty=1&%63ommand=PROGRAM", "%63ommand"),
            of("qemu+ssh://root@127.0.0.1/system?COMMAND=PROGRAM", "COMMAND"),
            of("qemu+ssh://root@127.0.0.1/system?no_tty=1;command=PROGRAM", "no_tty"),
            of("qemu+libssh2://127.0.0.1/system?command=PROGRAM", "command"),
            of("qemu+ssh://root@127.0.0.1/system?netcat=PROGRAM", "netcat"),
            of("qemu+ssh://root@127.0.0.1/system?keyfile=PROGRAM", "keyfile"),
            of("qemu+tls://127.0.0.1/system?pkipath=/srv", "pkipath"),
            of("qemu+unix:///system?socket=PROGRAM", "socket"),
            of("qemu+ssh://127.0.0.1/system?no_verify=1", "no_verify"),
            of("qemu+ssh://127.0.0.1/system?known_hosts=PROGRAM", "known_hosts"),
            of("qemu+ssh://127.0.0.1/system?sshauth=none", "sshauth"),
            of("qemu+ssh://127.0.0.1/system?proxy=native", "proxy"),
            of("qemu+ssh://127.0.0.1/system?mode=direct", "mode"),
            of("qemu+ssh://-oProxyCommand=PROGRAM/system", "-oProxyCommand"),
            of("qemu+ssh://%2doProxyCommand@127.0.0.1/system", "-oProxyCommand"),
            of("qemu:///embed?root=/srv", "root"),
            of("test://PROGRAM", "test"),
        ]
    }
}

fn change(from: &str, to: &str, more: &str) -> String {
    format!(
        "schema: vmgate/change/v1\nid: CHG-1\nmoves:\n  - {{vm: web1, from: '{from}', to: '{to}'{more}}}\n"
    )
}

const GOOD: &str = "qemu+ssh://root@127.0.0.9:9/system";

/// Promise 4: a change file whose URIs name programs, keys, sockets and weaker proofs is refused by the part it names.
#[test]
fn reading_a_change_file_runs_nothing() {
    let trap = Trap::new();
    let head = "schema: vmgate/change/v1\nid: CHG-1\n";
    let of_each = |line: &dyn Fn(usize, &str) -> String| -> String {
        trap.uris().iter().enumerate().map(|(number, (uri, _))| line(number, uri)).collect()
    };
    let from = of_each(&|number, uri| format!("  - {{vm: vm{number}, from: '{uri}', to: '{GOOD}'}}\n"));
    let to = of_each(&|number, uri| format!("  - {{vm: vm{number}, from: '{GOOD}', to: '{uri}'}}\n"));
    let waits = of_each(&|_, uri| format!("'{uri}', "));
    let waits = format!(
        "waves: [{{name: one, wait_for: {{hosts: [{waits}]}}}}]\nmoves: [{{vm: a, from: '{GOOD}', to: 'qemu:///system', wave: one}}]\n"
    );
    for text in [format!("{head}moves:\n{from}"), format!("{head}moves:\n{to}"), format!("{head}{waits}")] {
        trap.write("change.yaml", &text);
        for command in
            [&["check", "--timeout", "1"][..], &["migrate", "--ledger", "l.db"], &["run", "--ledger", "l.db"]]
        {
            let said = trap.run(&[command, &["--change", "change.yaml"]].concat()).exits(2);
            for (uri, part) in trap.uris() {
                let line = format!("`{part}");
                let told =
                    said.stderr.lines().find(|line| line.contains(&uri) && line.contains("not allowed"));
                let told = told.unwrap_or_else(|| panic!("{uri} passed:\n{}", said.stderr));
                assert!(told.contains(&line) && told.contains("vmgate.yaml"), "{uri}: {told}");
            }
        }
        trap.did_not_snap(&text);
    }
}

/// Promise 4: a change file whose address of a guest names a program, a key or an option of ssh is refused.
#[test]
fn the_guests_address_in_a_change_file_runs_nothing() {
    let trap = Trap::new();
    let program = trap.program().display().to_string();
    for way in [
        format!("ssh://root@127.0.0.1?command={program}"),
        format!("ssh://root@127.0.0.1?keyfile={program}"),
        "ssh://root@127.0.0.1?no_verify=1".to_owned(),
        format!("ssh://-oProxyCommand={program}"),
    ] {
        trap.write(
            "change.yaml",
            &change(GOOD, "qemu+ssh://127.0.0.8:9/system", &format!(", guest: '{way}'")),
        );
        let said = trap.run(&["check", "--change", "change.yaml", "--timeout", "1"]).exits(2);
        assert!(said.stderr.contains("is not allowed in a document"), "{way}: {}", said.stderr);
        trap.did_not_snap(&way);
    }
}

/// Promise 4: an inventory with such URIs is refused before any host is asked.
#[test]
fn reading_an_inventory_runs_nothing() {
    let trap = Trap::new();
    let hosts = trap.uris().into_iter().enumerate();
    let hosts: Vec<String> =
        hosts.map(|(number, (uri, _))| format!("  - {{name: hv{number}, uri: '{uri}'}}\n")).collect();
    let hosts = hosts.concat();
    trap.write("site.yaml", &format!("schema: vmgate/inventory/v1\nhosts:\n{hosts}"));
    let said = trap
        .run(&["evacuate", "hv1", "--into", "hv2", "--inventory", "site.yaml", "--timeout", "1"])
        .exits(2);
    for (uri, part) in trap.uris() {
        let told = said.stderr.lines().any(|line| line.contains(&uri) && line.contains(&format!("`{part}")));
        assert!(told, "{uri} passed:\n{}", said.stderr);
    }
    trap.did_not_snap("the inventory");
}

/// Promise 4: facts whose hosts were reached by such a URI are judged, and the URI is not connected to.
#[test]
fn a_facts_file_runs_nothing() {
    let trap = Trap::new();
    let healthy = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
    let healthy = fs::read_to_string(healthy).unwrap();
    trap.write("change.yaml", &change("qemu+ssh://root@hv1/system", "qemu+ssh://root@hv2/system", ""));
    for (uri, _) in trap.uris().into_iter().step_by(6) {
        trap.write("facts.yaml", &healthy.replace("qemu+ssh://root@hv1/system", &format!("'{uri}'")));
        for more in [&[][..], &["--change", "change.yaml"]] {
            let arguments = ["check", "--facts", "facts.yaml", "-o", "json=verdict.json"];
            let said = trap.run(&[&arguments, more].concat());
            assert!([0, 20, 21].contains(&said.code), "{uri}: {}", said.stderr);
            trap.run(&["report", "verdict.json"]);
            trap.run(&["explain", "verdict.json", "destination-memory-fits"]);
        }
        trap.did_not_snap(&uri);
    }
}

/// Promise 4: of a host that a document names, the URI in vmgate.yaml is used, which alone may name a program.
#[test]
#[cfg(feature = "libvirt")]
fn the_sites_word_on_a_host_holds() {
    let trap = Trap::new();
    trap.write("change.yaml", &change("qemu+ssh://root@hv1/system", "qemu+ssh://root@hv2/system", ""));
    let uri = format!("qemu+ext://x/system?command={}", trap.program().display());
    trap.write("vmgate.yaml", &format!("hosts: {{hv1: {{uri: '{uri}'}}}}\n"));
    trap.run(&["check", "--change", "change.yaml", "--timeout", "5"]).exits(1);
    assert!(trap.mark().exists(), "the trap works, and the site's word was taken");
}

#[cfg(feature = "libvirt")]
#[path = "recovered.rs"]
mod recovered;
