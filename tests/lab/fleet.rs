//! Faults of a campaign on real migrations: three runners over one PostgreSQL move twelve guests around three hosts, each to
//! the next, and one thing breaks. After each fault, every guest runs once and on its destination, libvirt's own logs say that it
//! left its host once, its memory is intact, and the chain of the ledger holds.
//!
//! VMGATE_FAULT=TEXT runs the rows whose name has that text. With VMGATE_WRITE_FAULTS set, docs/fleet-faults.md is written with the
//! results; VMGATE_FAULTS_LEFT=1 runs the rows that the page does not have yet, or not with the expected result.

#[path = "../cluster/mod.rs"]
mod cluster;

use std::{
    collections::BTreeMap,
    env::{var, var_os},
    fmt::Write as _,
    fs, thread,
    time::{Duration, Instant},
};

use cluster::Cluster;
use tempfile::TempDir;
use vmgate_ledger::{Entry, Ledger, LedgerUrl, entry::RunStep};

use crate::{
    faults::page::Page,
    harness::{Guest, Running, lab, setting, vmgate},
};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fleet-faults.md");
const GUESTS: [&str; 12] = [
    "fleet-01", "fleet-02", "fleet-03", "fleet-04", "fleet-05", "fleet-06", "fleet-07", "fleet-08",
    "fleet-09", "fleet-10", "fleet-11", "fleet-12",
];
const HOSTS: [char; 3] = ['a', 'b', 'c'];
const LEASE_SECONDS: u64 = 30;
/// Time limit: everything is emulated, on a machine that may have other load.
const PATIENCE: Duration = Duration::from_mins(15);
const LIBFAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Fault of a campaign.
struct Row {
    name: String,
    strike: fn(&mut Fleet, Option<RunStep>),
    /// Step of a move in which the fault happens.
    at: Option<RunStep>,
    /// Permitted exit codes of the runner with the fault, and of the others.
    struck: &'static [i32],
    others: &'static [i32],
    /// Difference of the runners' clocks, in seconds.
    clocks: [i64; 3],
}

fn row(name: &str, strike: fn(&mut Fleet, Option<RunStep>), struck: &'static [i32]) -> Row {
    Row { name: name.to_owned(), strike, at: None, struck, others: &[0], clocks: [0; 3] }
}

const KILLED: i32 = -1;

fn rows() -> Vec<Row> {
    use RunStep::{Gate, Migrate, Notify, Prepare, Recheck, Restore, Verify};
    let mut rows = vec![row("no fault", |_, _| {}, &[0])];
    for state in [Gate, Notify, Prepare, Recheck, Migrate, Verify, Restore] {
        let name = format!("runner killed: {}", state.name());
        rows.push(Row {
            at: Some(state),
            ..row(&name, |fleet, at| fleet.signal(at, libc::SIGKILL), &[KILLED])
        });
    }
    // A commit that nobody confirmed may end any runner with 1: the others take over what it had.
    let of_database = |row: Row| Row { others: &[0, 1], ..row };
    rows.extend([
        Row { at: Some(Migrate), ..row("runner paused for a minute", Fleet::pause, &[31]) },
        row("a fourth runner for the same change", |fleet, _| fleet.start_runner(0), &[0]),
        of_database(row("PostgreSQL restarted", |fleet, _| fleet.restart("stop"), &[0])),
        of_database(row("PostgreSQL crashed", |fleet, _| fleet.restart("crash"), &[0])),
        of_database(row("PostgreSQL stands still for 5 s", Fleet::freeze, &[0])),
        of_database(row("connections to PostgreSQL cut, three times", Fleet::cut, &[0])),
        Row { clocks: [0, 600, -600], ..row("clocks ten minutes apart, either way", |_, _| {}, &[0]) },
    ]);
    rows
}

struct Fleet {
    guests: Vec<Guest>,
    cluster: Cluster,
    folder: TempDir,
    store: String,
    runners: Vec<Running>,
    /// Number of the runner with the fault.
    struck: Option<usize>,
    inside: Option<String>,
}

/// Observations of a row.
struct Seen {
    codes: Vec<i32>,
    struck: Option<usize>,
    /// Host that each guest must run on, and the hosts that it runs on.
    places: Vec<(char, Vec<char>)>,
    /// Number of times each guest left its host, by libvirt's logs.
    left: Vec<u64>,
    broken: Vec<String>,
    status: String,
    verified: bool,
    inside: Option<String>,
    said: Vec<String>,
    seconds: u64,
}

impl Seen {
    const HEAD: &str = "| fault | as it must be | runners ended with | where they must be | moved once | memory intact | chain | s |\n\
                        |---|---|---|---|---|---|---|---|";

    fn arrived(&self) -> usize {
        self.places.iter().filter(|(wanted, runs)| runs.as_slice() == [*wanted]).count()
    }

    fn once(&self) -> usize {
        self.left.iter().filter(|times| **times == 1).count()
    }

    fn line(&self, row: &Row) -> String {
        let codes: Vec<String> = self
            .codes
            .iter()
            .map(|code| if *code == KILLED { "killed".to_owned() } else { code.to_string() })
            .collect();
        format!(
            "| {} | {} | {} | {} of {} | {} | {} | {} | {} |",
            row.name,
            if self.complaints(row).is_empty() { "yes" } else { "NO" },
            codes.join(", "),
            self.arrived(),
            GUESTS.len(),
            self.once(),
            GUESTS.len() - self.broken.len(),
            if self.verified { "holds" } else { "BROKEN" },
            self.seconds
        )
    }

    fn complaints(&self, row: &Row) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                complaints.push(format!("{}: {what}", row.name));
            }
        };
        for (number, code) in self.codes.iter().enumerate() {
            let may = if self.struck == Some(number) { row.struck } else { row.others };
            must(
                may.contains(code),
                format!("runner {number} ended with {code}, not {may:?}\n{}", self.said[number]),
            );
        }
        must(self.arrived() == GUESTS.len(), format!("where they run: {:?}", self.places));
        must(self.once() == GUESTS.len(), format!("how often each left its host: {:?}", self.left));
        must(self.broken.is_empty(), format!("memory: {:?}", self.broken));
        must(self.verified, "the chain does not hold".to_owned());
        must(self.status.contains("12 of 12 moves done"), self.status.clone());
        must(self.inside.is_none(), format!("{:?}", self.inside));
        complaints
    }
}

/// The host after this one.
fn next(host: char) -> char {
    match host {
        'a' => 'b',
        'b' => 'c',
        _ => 'a',
    }
}

impl Fleet {
    fn new() -> Self {
        lab(&["host-up", "c"]).exits(0);
        // Slow enough that a fault meets the migration.
        lab(&["link", "rate", "200mbit"]).exits(0);
        let started = GUESTS.iter().zip(HOSTS.iter().cycle()).map(|(name, host)| {
            let on = host.to_string();
            Guest::start(
                name,
                &["--on", &on, "--memory", "160", "--wait", "300", "--workload", "pattern size=4 rate=1"],
            )
        });
        Self {
            guests: started.collect(),
            cluster: Cluster::own(),
            folder: tempfile::tempdir().unwrap(),
            store: String::new(),
            runners: Vec::new(),
            struck: None,
            inside: None,
        }
    }

    fn run(&mut self, row: &Row) -> Seen {
        let start = Instant::now();
        self.store = self.cluster.database();
        Ledger::init(LedgerUrl::from(&self.store), &[]).unwrap();
        (self.struck, self.inside) = (None, None);
        let before = self.places();
        let wanted: Vec<char> = before.iter().map(|on| next(on.first().copied().unwrap_or('c'))).collect();
        let left_before = self.left();
        self.write_change(&before, &wanted);
        for offset in row.clocks {
            self.start_runner(offset);
        }
        self.wait_for(RunStep::Gate);
        (row.strike)(self, row.at);
        let (codes, said) = self.wait_for_runners();
        let store = ["--store", self.store.as_str()];
        let status = vmgate(&[&["status"], &store[..]].concat()).stdout;
        let verified = vmgate(&[&["ledger", "verify"], &store[..]].concat()).code == 0;
        let left = self.left().iter().zip(left_before).map(|(after, before)| after - before).collect();
        Seen {
            codes,
            struck: self.struck,
            places: wanted.into_iter().zip(self.places()).collect(),
            left,
            broken: self.guests.iter().filter_map(|guest| memory(guest).err()).collect(),
            status,
            verified,
            inside: self.inside.take(),
            said,
            seconds: start.elapsed().as_secs(),
        }
    }

    /// Hosts that each guest runs on.
    fn places(&self) -> Vec<Vec<char>> {
        let running = HOSTS.map(|host| {
            (host, lab(&["host", &host.to_string(), "virsh", "-q", "list", "--name"]).exits(0).stdout)
        });
        let of = |guest: &Guest| {
            let there =
                running.iter().filter(|(_, names)| names.lines().any(|name| name.trim() == guest.name));
            there.map(|(host, _)| *host).collect()
        };
        self.guests.iter().map(of).collect()
    }

    /// Number of migrations of each guest, by the logs of all hosts.
    fn left(&self) -> Vec<u64> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for host in HOSTS {
            let script = "cd /var/log/libvirt/qemu && grep -c reason=migrated fleet-*.log";
            for line in lab(&["host", &host.to_string(), "sh", "-c", script]).stdout.lines() {
                let (file, count) = line.split_once(".log:").unwrap_or((line, "0"));
                *counts.entry(file.to_owned()).or_default() += count.trim().parse::<u64>().unwrap();
            }
        }
        self.guests.iter().map(|guest| counts.get(guest.name).copied().unwrap_or(0)).collect()
    }

    fn write_change(&self, places: &[Vec<char>], wanted: &[char]) {
        let mut text = String::from(
            "schema: vmgate/change/v1\nid: FLEET\ngoals: {longest_blackout_seconds: 2}\n\
             prepare:\n  - {run: [sleep, '1'], undo: [sleep, '1']}\nmoves:\n",
        );
        for ((guest, on), to) in self.guests.iter().zip(places).zip(wanted) {
            let from = on.first().unwrap_or_else(|| panic!("{} runs nowhere", guest.name));
            let uri = |host: &char| setting(&format!("VMGATE_LAB_URI_{}", host.to_ascii_uppercase()));
            let address = setting(&format!("VMGATE_LAB_MIGRATE_{}", to.to_ascii_uppercase()));
            let (name, from, to) = (guest.name, uri(from), uri(to));
            writeln!(text, "  - {{vm: {name}, from: '{from}', to: '{to}', migrate_address: {address}}}")
                .unwrap();
        }
        fs::write(self.folder.path().join("change.yaml"), text).unwrap();
    }

    /// Starts a runner whose clock is this many seconds ahead.
    fn start_runner(&mut self, clock_offset_seconds: i64) {
        let file = self.folder.path().join("change.yaml").display().to_string();
        let lease = LEASE_SECONDS.to_string();
        let arguments = ["run", "--change", &file, "--store", &self.store, "--timeout", "90"];
        let habits = ["--lease", &lease, "--backoff", "1", "--attempts", "5", "--jobs", "2"];
        let offset = format!("{clock_offset_seconds:+}s");
        let clock =
            [("LD_PRELOAD", LIBFAKETIME), ("FAKETIME", &offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let environment: &[(&str, &str)] = if clock_offset_seconds == 0 { &[] } else { &clock };
        self.runners.push(Running::start_with(&[&arguments[..], &habits[..]].concat(), environment));
    }

    /// Waits until a move is in this step; returns the number of its runner.
    fn wait_for(&mut self, state: RunStep) -> Option<usize> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let open =
                Ledger::open_existing(&self.store).and_then(|ledger| ledger.open_runs()).unwrap_or_default();
            let entered = open.iter().filter(|open| {
                open.history.iter().any(
                    |record| matches!(&record.entry, Entry::Transition(transition) if transition.state == state),
                )
            });
            let pids: Vec<u32> = entered.map(|open| open.run.driver.pid).collect();
            let found = self.runners.iter().position(|runner| pids.contains(&runner.child.id()));
            if found.is_some() {
                return found;
            }
            if self.runners.iter_mut().all(|runner| runner.child.try_wait().unwrap().is_some()) {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.inside = Some(format!("no move was seen in {}", state.name()));
        None
    }

    /// Sends a signal to the runner whose move is in this step.
    fn signal(&mut self, at: Option<RunStep>, signal: i32) {
        self.struck = self.wait_for(at.unwrap());
        if let Some(struck) = self.struck {
            self.signal_runner(struck, signal);
        }
    }

    fn signal_runner(&self, number: usize, signal: i32) {
        let pid = libc::pid_t::try_from(self.runners[number].child.id()).unwrap();
        // SAFETY: kill(2) takes no pointers, and the child has not been waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    fn pause(&mut self, at: Option<RunStep>) {
        self.signal(at, libc::SIGSTOP);
        if let Some(struck) = self.struck {
            thread::sleep(Duration::from_mins(1));
            self.signal_runner(struck, libc::SIGCONT);
        }
    }

    fn restart(&mut self, how: &str) {
        self.wait_for(RunStep::Migrate);
        self.cluster.order(how);
        thread::sleep(Duration::from_secs(2));
        self.cluster.order("start");
    }

    fn freeze(&mut self, _: Option<RunStep>) {
        self.wait_for(RunStep::Migrate);
        self.cluster.order("freeze");
        thread::sleep(Duration::from_secs(5));
        self.cluster.order("thaw");
    }

    fn cut(&mut self, _: Option<RunStep>) {
        self.wait_for(RunStep::Migrate);
        for _ in 0..3 {
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
            self.cluster.sql("postgres", cut);
            thread::sleep(Duration::from_secs(3));
        }
    }

    /// Exit codes and output of the runners.
    fn wait_for_runners(&mut self) -> (Vec<i32>, Vec<String>) {
        let start = Instant::now();
        let ended = std::mem::take(&mut self.runners).into_iter().map(|mut runner| {
            while runner.child.try_wait().unwrap().is_none() {
                if start.elapsed() > PATIENCE {
                    self.inside = Some("a runner did not end".to_owned());
                    runner.child.kill().unwrap();
                }
                thread::sleep(Duration::from_millis(100));
            }
            let ended = runner.said();
            (ended.code, format!("{}\n{}", ended.stdout, ended.stderr))
        });
        ended.unzip()
    }
}

/// True if a guest found no difference between the memory that it read and what it wrote.
fn memory(guest: &Guest) -> Result<(), String> {
    let said = lab(&["guest", "exec", guest.name, "cat", "/run/pattern"]);
    let read_something = said.stdout.starts_with("read=") && !said.stdout.starts_with("read=0 ");
    if read_something && said.stdout.trim().ends_with(" broken=0") {
        return Ok(());
    }
    Err(format!("{}: {} {}", guest.name, said.stdout, said.stderr))
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for mut runner in self.runners.drain(..) {
            let _ = runner.child.kill();
            let _ = runner.child.wait();
        }
        lab(&["link", "rate", "off"]);
        self.guests.clear();
        lab(&["host-down", "c"]);
    }
}

#[test]
#[ignore = "needs the lab, and most of an hour: make fleet-faults"]
fn after_every_fault_of_a_campaign_no_move_is_lost_and_none_is_doubled() {
    let wanted = var("VMGATE_FAULT").unwrap_or_default();
    let (all, mut page) = (rows(), Page::read(PAGE));
    let names: Vec<&str> = all.iter().map(|row| row.name.as_str()).collect();
    let left = |row: &&Row| var_os("VMGATE_FAULTS_LEFT").is_none() || !page.is_right(&row.name);
    let chosen: Vec<&Row> = all.iter().filter(|row| row.name.contains(&wanted)).filter(left).collect();
    assert!(!chosen.is_empty(), "no row is left with `{wanted}` in its name");
    let mut fleet = Fleet::new();
    let mut complaints = Vec::new();
    let end = "leave every VM running once, where it was to go, moved once.";
    for row in chosen {
        let seen = fleet.run(row);
        eprintln!("{}", seen.line(row));
        page.put(&row.name, seen.line(row));
        if var_os("VMGATE_WRITE_FAULTS").is_some() {
            page.write(include_str!("faults/fleet-head.md"), Seen::HEAD, &names, end);
        }
        let of_row = seen.complaints(row);
        for complaint in &of_row {
            eprintln!("    {complaint}");
        }
        complaints.extend(of_row);
    }
    println!("{}", page.text(Seen::HEAD, &names, end));
    assert!(complaints.is_empty(), "{complaints:#?}");
}
