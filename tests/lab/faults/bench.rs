//! Test bench of faults: a guest that is moved back and forth, and the faults during its moves.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use vmgate_ledger::{Entry, Ledger, entry::RunStep};

use super::rows::{Row, Twist};
use crate::harness::{Guest, Running, Said, lab, setting, uri_a, uri_b, vmgate};

pub(super) const NAME: &str = "shuttle";
/// Rate of the migration link: slow enough that a fault meets the migration.
pub(super) const RATE: &str = "100mbit";
/// Time limit: everything is emulated, on a machine that may have other load.
pub(super) const PATIENCE: Duration = Duration::from_mins(15);
/// Begin of the message for a fault that met no migration.
const NOT_ENTERED: &str = "the run did not enter";
const POLL: Duration = Duration::from_millis(20);

/// One side of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

pub(super) struct Bench {
    guest: Guest,
    /// The host that the guest is on.
    on: char,
    pub(super) folder: TempDir,
    pub(super) ledger: PathBuf,
    pub(super) child: Option<Running>,
    pub(super) failed_inside: Option<String>,
}

/// Observations of a row.
pub(super) struct Seen {
    code: i32,
    stderr: String,
    /// Lines of the report with NO-GO and its reasons.
    blocking: String,
    recovered: Option<i32>,
    runs_on: Vec<char>,
    moved: bool,
    memory: Result<(), String>,
    service_up: bool,
    next: i32,
    next_said: String,
    inside: Option<String>,
    seconds: u64,
}

impl Seen {
    pub(super) const HEAD: &str = "| fault | as it must be | exit | recover | runs on | memory | service | next move | s | vmgate says |\n\
                                   |---|---|---|---|---|---|---|---|---|---|";

    pub(super) fn line(&self, row: &Row) -> String {
        let exit = if self.code < 0 { "killed".to_owned() } else { self.code.to_string() };
        let recovered = self.recovered.map_or("–".to_owned(), |code| code.to_string());
        let runs_on = match self.runs_on.as_slice() {
            [_] if self.moved => "destination".to_owned(),
            [_] => "source".to_owned(),
            [] => "nowhere".to_owned(),
            _ => "BOTH".to_owned(),
        };
        let says = self.stderr.lines().rfind(|line| line.starts_with("vmgate: ")).unwrap_or_default();
        let says: String = says.trim_start_matches("vmgate: ").replace('|', "/").chars().take(160).collect();
        format!(
            "| {} | {} | {exit} | {recovered} | {runs_on} | {} | {} | {} | {} | {says} |",
            row.name,
            if self.complaints(row).is_empty() { "yes" } else { "NO" },
            if self.memory.is_ok() { "intact" } else { "BROKEN" },
            if self.service_up { "up" } else { "DOWN" },
            if self.next == 0 { "works".to_owned() } else { format!("FAILS ({})", self.next) },
            self.seconds
        )
    }

    /// True if the fault happened at the intended time.
    pub(super) fn met_the_move(&self) -> bool {
        !self.inside.as_ref().is_some_and(|why| why.starts_with(NOT_ENTERED))
    }

    /// Everything that is not as expected.
    pub(super) fn complaints(&self, row: &Row) -> Vec<(&'static str, String)> {
        let mut complaints = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                complaints.push((row.name, what));
            }
        };
        must(
            row.exits.contains(&self.code),
            format!("exit {}, not {:?}: {}\n{}", self.code, row.exits, self.stderr, self.blocking),
        );
        must(self.stderr.contains(row.says), format!("`{}` is not said: {}", row.says, self.stderr));
        must(
            self.recovered.unwrap_or(0) == 0 || row.twist == Twist::VmDies,
            format!("recover ended with {:?}", self.recovered),
        );
        must(self.runs_on.len() == 1, format!("runs on {:?}", self.runs_on));
        must(row.moves.is_none_or(|moves| moves == self.moved), format!("moved: {}", self.moved));
        must(self.memory.is_ok(), format!("memory: {:?}", self.memory));
        must(self.service_up, "the service is down".to_owned());
        must(self.next == 0, format!("the next move ended with {}: {}", self.next, self.next_said));
        must(self.inside.is_none(), format!("{:?}", self.inside));
        complaints
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        lab(&["link", "rate", RATE]).exits(0);
        let guest = Guest::start(
            NAME,
            &[
                "--on",
                "a",
                "--memory",
                "192",
                "--wait",
                "300",
                "--workload",
                "pattern size=24 rate=4 + service",
            ],
        );
        let ledger = folder.path().join("ledger.db");
        Self { guest, on: 'a', folder, ledger, child: None, failed_inside: None }
    }

    pub(super) fn host(&self, side: Side) -> &'static str {
        match (self.on, side) {
            ('a', Side::Source) | ('b', Side::Destination) => "a",
            _ => "b",
        }
    }

    /// Runs one row.
    pub(super) fn run(&mut self, row: &Row) -> Seen {
        let start = Instant::now();
        self.set_up(row);
        let from = self.on;
        let change = self.change(row);
        if row.at.is_none() {
            (row.strike)(self);
        }
        // vmgate waits this long for an agent that hangs.
        let timeout = if row.twist == Twist::DeafGuest { "15" } else { "90" };
        let mut arguments = vec!["migrate", "--change", &change, "--timeout", timeout, "-v"];
        let ledger = self.ledger.display().to_string();
        arguments.extend(["--ledger", &ledger]);
        let signed = self.signed(row, &change);
        if let Some((verdict, key, late)) = &signed {
            arguments.extend(["--verdict", verdict, "--trusted-key", key, "--at", late]);
        }
        self.child = Some(Running::start(&arguments));
        if let (Some(state), None) = (row.at, &signed)
            && !matches!(row.twist, Twist::EndlessHook | Twist::HookObjects)
        {
            self.wait_for(state);
            (row.strike)(self);
        }
        let said = self.wait_for_vmgate();
        (row.heal)(self);
        let recovered = matches!(said.code, -1 | 31).then(|| self.recover());
        let runs_on = self.runs_on();
        if let [one] = runs_on.as_slice() {
            self.on = *one;
        }
        let moved = runs_on.len() == 1 && self.on != from;
        let (memory, service_up, runs_on) = if row.twist == Twist::VmDies {
            self.start_again(&runs_on);
            (self.memory(), self.service_is_up(), vec![self.on])
        } else {
            (self.memory(), self.service_is_up(), runs_on)
        };
        self.tear_down(row);
        let next = self.next_move();
        Seen {
            code: said.code,
            stderr: said.stderr,
            blocking: said
                .stdout
                .lines()
                .filter(|line| line.contains("block"))
                .take(20)
                .collect::<Vec<_>>()
                .join("\n"),
            recovered,
            runs_on,
            moved,
            memory,
            service_up,
            next: next.code,
            next_said: next.stderr,
            inside: self.failed_inside.take(),
            seconds: start.elapsed().as_secs(),
        }
    }

    fn set_up(&mut self, row: &Row) {
        let hook = match row.twist {
            Twist::EndlessHook => "sleep 1000",
            Twist::HookObjects => "[ $1 != before ]",
            // Long enough for a fault to meet it.
            _ => "sleep 2",
        };
        let script = format!(
            "mkdir -p /etc/vmgate/migrate.d; printf '#!/bin/sh\\n{hook}\\n' >/etc/vmgate/migrate.d/10-lab; chmod 755 /etc/vmgate/migrate.d/10-lab"
        );
        Self::in_guest(&script).exits(0);
        if row.twist == Twist::SmallDisk {
            let disk = self.folder.path().join("disk");
            fs::create_dir_all(&disk).unwrap();
            let mounted =
                Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&disk).status();
            assert!(mounted.unwrap().success());
            self.ledger = disk.join("ledger.db");
            Ledger::open(&self.ledger).unwrap();
        }
    }

    fn tear_down(&mut self, row: &Row) {
        if row.twist == Twist::SmallDisk {
            let disk = self.folder.path().join("disk");
            assert!(Command::new("umount").arg(&disk).status().unwrap().success());
            self.ledger = self.folder.path().join("ledger.db");
        }
        Self::in_guest("rm -rf /etc/vmgate");
    }

    /// Change file of a move from the guest's present host.
    fn change(&self, row: &Row) -> String {
        let (from, to, address) = if self.on == 'a' {
            (uri_a(), uri_b(), setting("VMGATE_LAB_MIGRATE_B"))
        } else {
            (uri_b(), uri_a(), setting("VMGATE_LAB_MIGRATE_A"))
        };
        let deadline =
            if row.twist == Twist::ShortDeadline { "deadline_seconds: 40" } else { "deadline_seconds: 240" };
        let text = format!(
            "schema: vmgate/change/v1\nid: LAB\ngoals: {{longest_blackout_seconds: 2, {deadline}}}\n\
             notify: {{longest_delay_seconds: 8}}\n\
             prepare:\n  - {{stop_service: lab-service, time_limit_seconds: 60}}\n  - {{run: [sleep, '2'], undo: [sleep, '2']}}\n\
             moves:\n  - {{vm: {NAME}, from: '{from}', to: '{to}', migrate_address: {address}}}\n"
        );
        let file = self.folder.path().join("change.yaml");
        fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    /// A signed verdict, a trusted key, and a time at which the verdict has expired.
    fn signed(&self, row: &Row, change: &str) -> Option<(String, String, String)> {
        if !row.name.starts_with("clock") {
            return None;
        }
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let openssl = |arguments: &[&str]| {
            assert!(Command::new("openssl").args(arguments).status().unwrap().success());
        };
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &path("private.pem")]);
        openssl(&["pkey", "-in", &path("private.pem"), "-pubout", "-out", &path("public.pem")]);
        let report = format!("json={}", path("verdict.json"));
        vmgate(&["check", "--change", change, "--timeout", "90", "--output", &report]).exits(0);
        let signed =
            vmgate(&["verdict", "sign", &path("verdict.json"), "--key", &path("private.pem")]).exits(0);
        fs::write(path("signed.json"), &signed.stdout).unwrap();
        let late = jiff::Timestamp::now().saturating_add(jiff::SignedDuration::from_hours(2)).unwrap();
        Some((path("signed.json"), path("public.pem"), late.to_string()))
    }

    /// Waits until the ledger has this step of the run.
    fn wait_for(&mut self, state: RunStep) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let open =
                Ledger::open_existing(&self.ledger).and_then(|ledger| ledger.open_runs()).unwrap_or_default();
            let entered = open.iter().flat_map(|run| &run.history).any(
                |record| matches!(&record.entry, Entry::Transition(transition) if transition.state == state),
            );
            if entered && (state != RunStep::Migrate || self.migrates()) {
                return;
            }
            if self.child.as_mut().is_some_and(|running| running.child.try_wait().unwrap().is_some()) {
                break;
            }
            thread::sleep(POLL);
        }
        self.failed_inside = Some(format!("{NOT_ENTERED} {}", state.name()));
    }

    /// True if the migration has begun to send.
    fn migrates(&self) -> bool {
        lab(&["host", self.host(Side::Source), "virsh", "-q", "domjobinfo", NAME])
            .stdout
            .contains("Memory processed")
    }

    fn wait_for_vmgate(&mut self) -> Said {
        let mut running = self.child.take().unwrap();
        let start = Instant::now();
        while running.child.try_wait().unwrap().is_none() {
            if start.elapsed() > PATIENCE {
                self.failed_inside = Some("vmgate did not end".to_owned());
                let _ = running.child.kill();
            }
            thread::sleep(POLL);
        }
        running.said()
    }

    fn recover(&self) -> i32 {
        let ledger = self.ledger.display().to_string();
        let start = Instant::now();
        loop {
            let said = vmgate(&["recover", "--ledger", &ledger, "--timeout", "90"]);
            if said.code == 0 || start.elapsed() > Duration::from_mins(1) {
                eprint!("    {}", said.stdout);
                return said.code;
            }
            thread::sleep(Duration::from_secs(2));
        }
    }

    /// Hosts that the guest runs on.
    fn runs_on(&self) -> Vec<char> {
        ['a', 'b'].into_iter().filter(|host| self.guest.state_on(&host.to_string()) == "running").collect()
    }

    /// Starts a VM that died, on the only host where it is defined.
    fn start_again(&mut self, runs_on: &[char]) {
        assert!(runs_on.is_empty(), "it should be dead: {runs_on:?}");
        let defined: Vec<char> = ['a', 'b']
            .into_iter()
            .filter(|host| self.guest.state_on(&host.to_string()) == "shut off")
            .collect();
        assert_eq!(defined, [self.on], "it is to be defined where it was");
        lab(&["host", &self.on.to_string(), "virsh", "-q", "start", NAME]).exits(0);
        let start = Instant::now();
        while !Self::in_guest("cat /run/pattern").stdout.contains("read=") && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// True if the guest still reads its memory and found no difference from what it wrote.
    fn memory(&self) -> Result<(), String> {
        let read = || {
            let said = Self::in_guest("cat /run/pattern");
            let (read, broken) = said.stdout.trim().split_once(' ').unwrap_or_default();
            let number =
                |text: &str, name: &str| text.strip_prefix(name).and_then(|text| text.parse::<u64>().ok());
            match (number(read, "read="), number(broken, "broken=")) {
                (Some(read), Some(0)) => Ok(read),
                _ => Err(format!("{} {}", said.stdout, said.stderr)),
            }
        };
        let before = read()?;
        let start = Instant::now();
        // A whole pass over its memory.
        while start.elapsed() < PATIENCE {
            if read()? >= before + 2 * 6144 {
                return Ok(());
            }
            thread::sleep(Duration::from_secs(1));
        }
        Err("it does not read any more".to_owned())
    }

    fn service_is_up(&self) -> bool {
        Self::in_guest("/etc/init.d/lab-service status").code == 0
    }

    pub(super) fn in_guest(script: &str) -> Said {
        lab(&["guest", "exec", NAME, "/bin/sh", "-c", script])
    }

    /// Moves the guest back, or to the same host again, without preparation.
    fn next_move(&mut self) -> Said {
        let (from, to, address) = if self.on == 'a' {
            (uri_a(), uri_b(), setting("VMGATE_LAB_MIGRATE_B"))
        } else {
            (uri_b(), uri_a(), setting("VMGATE_LAB_MIGRATE_A"))
        };
        let ledger = self.ledger.display().to_string();
        let said = vmgate(&[
            "migrate",
            NAME,
            "--from",
            &from,
            "--to",
            &to,
            "--migrate-address",
            &address,
            "--ledger",
            &ledger,
            "--timeout",
            "90",
            "--longest-blackout",
            "2",
        ]);
        if let [one] = self.runs_on().as_slice() {
            self.on = *one;
        }
        said
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        lab(&["link", "rate", "off"]);
    }
}
