//! Validation of the TCP budgets: connections between two lab guests through real blackouts, compared with
//! the predictions of `vmgate::forecast::budget`.
//!
//! The guest `truth-moved` is stopped with `virsh suspend`; `truth-owner` keeps sending to it and is the peer whose
//! clock runs. In a migration the packets sent during the blackout are lost with the source's tap, so the tap is also taken off its
//! bridge (**lost**); a suspend alone keeps them in the tap's queue and delivers them at the resume (**kept**).
//!
//! `cargo test --test truth_tcp -- --ignored quick` takes a minute; `… full` ten, and writes docs/truth-tcp.md. Both
//! need root and a lab that is up; `VMGATE_LAB` names another checkout's `lab`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{fmt::Write as _, path::PathBuf, process::Command, thread::sleep, time::Duration};

use vmgate_forecast::budget::{
    Budget, ConnectionEnd, ConnectionState, KernelSettings, Silence, Survival, TickRate,
    model_timeout_seconds, tcp_budget,
};

/// Interval of requests, so that data is sent at most this long after a blackout has begun.
const EVERY_SECONDS: f64 = 0.05;
/// Tolerance of a measured time for a guest without hardware virtualisation on two shared cores.
const NOISE_SECONDS: f64 = 0.25;
const CONNECTIONS: usize = 4;
/// Prediction for a network that returns between the last retransmission and the timeout.
const LATE: &str = "after the last try: lost, unless the moved end has something to send";

struct Lab(PathBuf);

/// Guests that are stopped at the end of the test, also after a failure.
struct Guests<'a> {
    lab: &'a Lab,
    tap: String,
    peer: String,
}

/// Fate of one connection, as the owner reports it.
#[derive(Debug, Clone)]
struct Fate {
    lost: bool,
    silence: f64,
    first: f64,
    rto: f64,
    error: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Packets {
    Lost,
    Kept,
}

impl Lab {
    fn find() -> Self {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/lab/lab");
        Self(std::env::var_os("VMGATE_LAB").map_or(here, PathBuf::from))
    }

    fn call(&self, words: &[&str]) -> String {
        let out = Command::new(&self.0).args(words).output().expect("the lab's command runs");
        assert!(out.status.success(), "lab {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl<'a> Guests<'a> {
    fn start(lab: &'a Lab) -> Self {
        let folder = std::env::temp_dir().join("vmgate-truth");
        std::fs::create_dir_all(&folder).unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/truth/owner.rs");
        let built = Command::new("rustc")
            .args([
                "--edition",
                "2021",
                "-O",
                "-C",
                "target-feature=+crt-static",
                "-C",
                "strip=symbols",
                "-o",
            ])
            .arg(folder.join("owner"))
            .arg(source)
            .status();
        assert!(built.unwrap().success(), "{source} builds");
        let mut guests = Self { lab, tap: String::new(), peer: String::new() };
        for (name, workload) in [("truth-moved", "tcp-listen port=7"), ("truth-owner", "idle")] {
            let _ = Command::new(&lab.0).args(["guest", "stop", name]).output();
            lab.call(&["guest", "start", name, "--on", "a", "--memory", "160", "--workload", workload]);
        }
        let tap = lab.call(&["host", "a", "sh", "-c", "virsh -q domiflist truth-moved | awk '{print $1}'"]);
        tap.trim().clone_into(&mut guests.tap);
        guests.peer = guests.address("truth-moved");
        guests.send(&folder.join("owner"));
        guests
    }

    fn address(&self, name: &str) -> String {
        let hosts = self.lab.call(&["guest", "exec", name, "cat", "/etc/hosts"]);
        let line = hosts.lines().find(|line| line.ends_with(name)).expect("its own address");
        line.split_whitespace().next().unwrap().to_owned()
    }

    /// Copies the program to the owner: the guest listens, and a shell with TCP support sends.
    fn send(&self, program: &std::path::Path) {
        let to = self.address("truth-owner");
        self.owner(
            "(nc -l -p 8099 >/bin/owner </dev/null 2>/dev/null &); \
                    until netstat -ltn | grep -q :8099; do sleep 0.1; done",
        );
        let script = format!("cat '{}' >/dev/tcp/{to}/8099", program.display());
        self.lab.call(&["run", "bash", "-c", &script]);
        let size = std::fs::metadata(program).unwrap().len();
        self.owner(&format!(
            "until [ $(stat -c %s /bin/owner) = {size} ]; do sleep 0.1; done; chmod 755 /bin/owner"
        ));
    }

    fn owner(&self, script: &str) -> String {
        self.lab.call(&["guest", "exec", "truth-owner", "sh", "-c", script])
    }

    /// True if the owner's kernel may notice that its neighbour is gone, which it cannot behind a router.
    fn neighbour(&self, noticed: bool) {
        let script = if noticed {
            format!("arp -d {}; true", self.peer)
        } else {
            format!(
                "ping -c 1 -W 2 {0} >/dev/null; arp -s {0} $(grep '^{0} ' /proc/net/arp | awk '{{print $4}}')",
                self.peer
            )
        };
        self.owner(&script);
    }

    /// Opens the connections, with these settings, and waits until their RTOs have settled.
    fn connect(&self, retries2: u32, options: &str) {
        let peer = &self.peer;
        let out = self.owner(&format!(
            "kill $(pidof owner) 2>/dev/null; echo {retries2} >/proc/sys/net/ipv4/tcp_retries2; \
             (owner to={peer}:7 seconds=600 connections={CONNECTIONS} {options} >/tmp/out 2>&1 </dev/null &); \
             for i in $(seq 100); do grep -q ready /tmp/out && exit 0; sleep 0.2; done; cat /tmp/out; exit 1"
        ));
        assert!(out.is_empty(), "the connections stand: {out}");
    }

    /// Causes a blackout of the guest `name`; returns its shortest and longest possible duration.
    fn blackout(&self, name: &str, seconds: f64, packets: Packets) -> (f64, f64) {
        let tap = &self.tap;
        let (cut, join) = match packets {
            Packets::Lost => (format!("ip link set {tap} nomaster"), format!("ip link set {tap} master br0")),
            Packets::Kept => ("true".to_owned(), "true".to_owned()),
        };
        let clock = "cut -d' ' -f1 /proc/uptime";
        let out = self.lab.call(&["host", "a", "sh", "-ec", &format!(
            "{clock}; {cut}; virsh -q suspend {name}; {clock}; sleep {seconds:.2}; {clock}; virsh -q resume {name}; {join}; {clock}"
        )]);
        let times: Vec<f64> = out.lines().filter_map(|line| line.trim().parse().ok()).collect();
        assert_eq!(times.len(), 4, "{out}");
        (times[2] - times[1], times[3] - times[0])
    }

    /// The fates so far: the last line of each connection that reports a silence of at least `seconds`.
    fn fates(&self, seconds: f64) -> Vec<Option<Fate>> {
        let out = self.owner("cat /tmp/out");
        let mut fates = vec![None; CONNECTIONS];
        for line in out.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [number, what @ ("lost" | "answered"), values @ ..] = words.as_slice() else { continue };
            let value = |key: &str| values.iter().find_map(|word| word.strip_prefix(key)).unwrap_or("");
            let seconds_of = |key: &str| value(key).parse().unwrap_or(-1.0);
            let fate = Fate {
                lost: *what == "lost",
                silence: seconds_of("silence="),
                first: seconds_of("first="),
                rto: seconds_of("rto="),
                error: value("error=").to_owned(),
            };
            if fate.lost || fate.silence >= seconds {
                fates[number.parse::<usize>().unwrap()] = Some(fate);
            }
        }
        fates
    }

    /// Waits until every connection has a fate, or the time is over.
    fn settle(&self, seconds: f64, at_least: f64) -> Vec<Option<Fate>> {
        let step = 1.0;
        let mut left = seconds;
        loop {
            let fates = self.fates(at_least);
            if left <= 0.0 || fates.iter().all(Option::is_some) {
                return fates;
            }
            sleep(Duration::from_secs_f64(step));
            left -= step;
        }
    }
}

impl Drop for Guests<'_> {
    fn drop(&mut self) {
        for name in ["truth-owner", "truth-moved"] {
            let _ = Command::new(&self.lab.0).args(["guest", "stop", name]).output();
        }
    }
}

fn kernel(retries2: u32) -> KernelSettings {
    // Debian builds its kernels with 250 ticks a second.
    KernelSettings { retries2, ticks: TickRate::PerSecond(250), ..KernelSettings::default() }
}

fn predict(retries2: u32, rto: f64, user_timeout_seconds: Option<f64>) -> Budget {
    tcp_budget(
        &kernel(retries2),
        &ConnectionState { user_timeout_seconds, ..ConnectionState::established(rto) },
    )
}

fn range(values: impl Iterator<Item = f64> + Clone) -> String {
    let (low, high) =
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max));
    format!("{low:.2} … {high:.2}")
}

/// One silence without end for each setting: time until the connection is given up.
fn ends(
    guests: &Guests,
    settings: impl Iterator<Item = (u32, Option<f64>, bool)>,
    table: &mut String,
) -> bool {
    let mut agreed = true;
    table.push_str(
        "| setting | neighbour | RTO | modelled time-out | survives | predicted end (earliest … latest) | measured end | first retransmission | error | |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (retries2, user_timeout, noticed) in settings {
        guests.neighbour(noticed);
        guests.connect(
            retries2,
            &user_timeout.map(|s| format!("user-timeout={:.0}", s * 1e3)).unwrap_or_default(),
        );
        let latest = predict(retries2, 0.24, user_timeout)
            .latest_end_seconds
            .max(predict(retries2, 0.204, user_timeout).latest_end_seconds);
        let watch = std::thread::scope(|scope| {
            scope.spawn(|| guests.blackout("truth-moved", latest + 1.5, Packets::Lost));
            sleep(Duration::from_secs_f64(0.5));
            guests.settle(latest + 4.0, latest)
        });
        let fates: Vec<Fate> = watch.into_iter().flatten().collect();
        let budgets: Vec<Budget> =
            fates.iter().map(|fate| predict(retries2, fate.rto, user_timeout)).collect();
        let right = fates.len() == CONNECTIONS
            && fates.iter().zip(&budgets).all(|(fate, budget)| {
                let latest =
                    if noticed { budget.latest_end_seconds * 2.0 } else { budget.latest_end_seconds };
                fate.lost
                    && (budget.earliest_end_seconds - 0.02..=latest + NOISE_SECONDS).contains(&fate.silence)
            });
        agreed &= right;
        let setting = user_timeout
            .map_or(format!("tcp_retries2 = {retries2}"), |s| format!("TCP_USER_TIMEOUT = {s} s"));
        let _ = writeln!(
            table,
            "| {setting} | {} | {} | {:.1} | {} | {} ({:.2} … {:.2}) | {} | {} | {} | {} |",
            if noticed { "same segment" } else { "as behind a router" },
            fates
                .iter()
                .map(|fate| format!("{:.3}", fate.rto))
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
                .join(" "),
            user_timeout.unwrap_or(model_timeout_seconds(retries2, 0.2, 120.0)),
            range(budgets.iter().map(|budget| budget.survives_seconds)),
            range(budgets.iter().map(|budget| budget.actual_end_seconds)),
            budgets.iter().map(|budget| budget.earliest_end_seconds).fold(f64::INFINITY, f64::min),
            budgets.iter().map(|budget| budget.latest_end_seconds).fold(0.0, f64::max),
            range(fates.iter().map(|fate| fate.silence)),
            range(fates.iter().map(|fate| fate.first)),
            fates.first().map(|fate| fate.error.as_str()).unwrap_or_default(),
            if right { "agrees" } else { "**differs**" },
        );
        eprintln!("{}", table.lines().last().unwrap_or_default());
    }
    agreed
}

/// Blackouts of different length: connections that survive them.
fn lengths(guests: &Guests, settings: impl Iterator<Item = u32>, most: usize, table: &mut String) -> bool {
    let mut agreed = true;
    table.push_str(
        "| tcp_retries2 | blackout | packets | predicted | survived | answered after | |\n|---|---|---|---|---|---|---|\n",
    );
    guests.neighbour(false);
    for retries2 in settings {
        let usual = predict(retries2, 0.204, None);
        let last_try = usual.tries_seconds.last().copied().unwrap_or(0.0);
        let between = f64::midpoint(last_try, usual.earliest_end_seconds.max(last_try));
        let tried = [
            (between, Packets::Lost),
            (between, Packets::Kept),
            (usual.survives_seconds * 0.6, Packets::Lost),
            (usual.latest_end_seconds + 0.5, Packets::Lost),
        ];
        for (seconds, packets) in tried.into_iter().take(most) {
            guests.connect(retries2, "");
            let (least, longest) = guests.blackout("truth-moved", seconds, packets);
            let fates = guests.settle(usual.latest_end_seconds + 1.0, (least - 0.2).max(0.15));
            let answered: Vec<f64> =
                fates.iter().flatten().filter(|fate| !fate.lost).map(|fate| fate.silence).collect();
            let survived = answered.len();
            let rto = fates.iter().flatten().map(|fate| fate.rto).fold(0.2, f64::max);
            let budget = predict(retries2, rto, None);
            let endless = predict(15, rto, None);
            let estimate = |seconds: f64| {
                Silence { blackout_seconds: seconds.max(0.0), dark_seconds: 0.0 }
                    .survival_estimate(&endless, &budget)
                    .survival
            };
            // The silence that the owner sees is shorter than the blackout by the time until it next sends.
            let predicted = match (estimate(longest), estimate(least - EVERY_SECONDS - NOISE_SECONDS)) {
                (Survival::Certain, _) => "survives",
                (_, Survival::Lost) => "lost",
                _ if packets == Packets::Kept && longest < budget.earliest_end_seconds => {
                    "survives: kept packets are answered"
                }
                _ if packets == Packets::Lost
                    && least > last_try + 0.1
                    && budget.tries_seconds.len() == usual.tries_seconds.len() =>
                {
                    LATE
                }
                _ => "either",
            };
            let right = match predicted {
                "either" => true,
                // Its own data, if the blackout cut off an answer of the moved end, is sent again soon after the resume.
                LATE => answered.iter().all(|silence| *silence < longest + 0.8),
                text if text.starts_with("survives") => survived == CONNECTIONS,
                _ => survived == 0,
            };
            agreed &= right;
            let after = if answered.is_empty() { String::new() } else { range(answered.iter().copied()) };
            let kind = if packets == Packets::Lost { "lost" } else { "kept" };
            let verdict = if right { "agrees" } else { "**differs**" };
            let _ = writeln!(
                table,
                "| {retries2} | {least:.2} … {longest:.2} | {kind} | {predicted} | {survived} of {CONNECTIONS} | {after} | {verdict} |"
            );
            eprintln!("{}", table.lines().last().unwrap_or_default());
        }
    }
    agreed
}

/// The owner itself is stopped, with data in flight, for far longer than its budget: its clock stands still.
fn own_blackout(guests: &Guests, table: &mut String) -> bool {
    guests.neighbour(false);
    guests.connect(1, "");
    let budget = predict(1, 0.204, None);
    let tap = &guests.tap;
    let long = budget.latest_end_seconds * 3.0;
    // Dark before and after, for less than the budget survives; stopped in between.
    guests.lab.call(&["host", "a", "sh", "-ec", &format!(
        "ip link set {tap} nomaster; virsh -q suspend truth-owner; sleep {long:.1}; virsh -q resume truth-owner; ip link set {tap} master br0"
    )]);
    sleep(Duration::from_secs(2));
    let out = guests.owner("cat /tmp/out");
    let lost = out.lines().filter(|line| line.contains(" lost ")).count();
    let silence = Silence { blackout_seconds: long, dark_seconds: 0.3 };
    let estimate = silence.survival_estimate(&budget, &predict(15, 0.204, None));
    assert_eq!(estimate.decided_by, ConnectionEnd::Guest);
    let right = lost == 0 && estimate.survival == Survival::Certain;
    let _ = writeln!(
        table,
        "\nThe owner itself (tcp_retries2 = 1, ends after {:.1} s) stopped for {long:.1} s with data in flight: {} of {CONNECTIONS} connections lost. {}.",
        budget.actual_end_seconds,
        lost,
        if right { "Agrees: its clock stands still" } else { "**Differs**" },
    );
    eprintln!("{}", table.lines().last().unwrap_or_default());
    right
}

#[test]
#[ignore = "needs root and a lab that is up"]
fn quick() {
    let lab = Lab::find();
    let guests = Guests::start(&lab);
    let mut table = String::new();
    let agreed =
        ends(&guests, [(1, None, false), (2, None, false), (3, None, false)].into_iter(), &mut table)
            & lengths(&guests, 1..=1, 2, &mut table)
            & own_blackout(&guests, &mut table);
    assert!(agreed, "{table}");
}

#[test]
#[ignore = "needs root, a lab that is up, and ten minutes"]
fn full() {
    let lab = Lab::find();
    let guests = Guests::start(&lab);
    let release = guests.owner("uname -r");
    let mut text = format!(
        "# TCP budgets: predicted and measured\n\nWritten by `make truth-tcp` (tests/lab/truth_tcp.rs): guests with Linux {} under TCG, {CONNECTIONS} connections a row, \
         times in seconds from the send of the request that went unanswered. A measured end agrees when it lies between the earliest and the latest predicted one, \
         and {NOISE_SECONDS} s for a guest without hardware virtualisation.\n\n## When a connection is given up\n\n",
        release.trim()
    );
    let settings = (1..=8).map(|retries2| (retries2, None, false));
    let more = [
        (15, Some(0.5), false),
        (15, Some(1.5), false),
        (15, Some(5.0), false),
        (6, None, true),
        (7, None, true),
    ];
    let mut agreed = ends(&guests, settings.chain(more), &mut text);
    text.push_str("\nOn the same segment the owner's kernel could notice that its neighbour is gone, and would then take its backoff back (RFC 6069). It does not notice soon enough to matter here: half a minute as reachable, then eight seconds of probes that only a further try begins.\n\n## Blackouts of different length\n\n");
    agreed &= lengths(&guests, 1..=5, 4, &mut text);
    text.push_str("\nKept: `virsh suspend` alone, the tap holds what is sent until the resume. Lost: the tap off its bridge as well, which is what a migration does. A connection that is answered within half a second of the end of the blackout, where the owner had no try to make, was saved by the other end: the blackout had cut off an answer of its own, which it sent again.\n\n## Whose clock runs\n");
    agreed &= own_blackout(&guests, &mut text);
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/truth-tcp.md"), &text).unwrap();
    assert!(agreed, "{text}");
}
