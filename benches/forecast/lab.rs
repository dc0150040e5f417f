//! The lab: guests, the shaped link, migrations by virsh.

use std::{
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    os::fd::AsRawFd as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use vmgate_facts::{Accelerator, trace::DirtyTrace};
use vmgate_probe::trace::{Qemu, TraceOptions, record};

use crate::{
    Came, Outcome,
    load::{Load, waited_seconds},
    managers::Manager,
    net,
    plan::Case,
};

/// A migration that takes longer is aborted.
pub(crate) const DEADLINE_SECONDS: f64 = 40.0;

/// Hosts of the lab that campaigns use.
const HOSTS: [&str; 3] = ["a", "b", "d"];
/// The guest, and the one that moves beside it.
const NAME: &str = "fc-bench";
const BESIDE: &str = "fc-beside";

fn script() -> String {
    env::var("VMGATE_LAB").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/lab").into())
}

/// Runs the lab's command and returns what it printed.
pub(crate) fn lab(arguments: &[&str]) -> Outcome<String> {
    let script = script();
    let output = Command::new(script).args(arguments).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(
            format!("lab {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)).into()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Shapes the migration link to a rate until it is dropped.
pub(crate) struct Link(#[expect(dead_code, reason = "its lock is held while it is open")] File);

impl Link {
    /// Waits for the lock and shapes the link.
    pub(crate) fn shape(mbit: u64) -> Outcome<Self> {
        // In the lab's own state: whoever else shapes this lab's link waits.
        let state = env::var("VMGATE_LAB_STATE").unwrap_or_else(|_| "/run/vmgate-lab".into());
        let file = File::create(Path::new(&state).join("link.lock"))?;
        // SAFETY: the descriptor is open for as long as `file` lives.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        let link = Self(file);
        lab(&["link", "rate", &format!("{mbit}mbit")])?;
        Ok(link)
    }
}

/// Network namespace of a host, or of the operator (`op`), from the one that `lab env` names.
pub(crate) fn namespace(of: &str) -> Outcome<String> {
    let operators = env::var("VMGATE_LAB_NETNS")
        .map_err(|_| "VMGATE_LAB_NETNS is not set: bring the lab up and eval its `lab env`")?;
    let prefix = operators.strip_suffix("op").ok_or("VMGATE_LAB_NETNS is not the operator's namespace")?;
    Ok(format!("{prefix}{of}"))
}

/// Bytes that left a host over the migration link, and true if the link still has the rate.
fn link_state(host: &str, mbit: u64) -> Outcome<(f64, bool)> {
    let namespace = namespace(host)?;
    let said = |arguments: &[&str]| -> Outcome<String> {
        Ok(String::from_utf8_lossy(&Command::new(arguments[0]).args(&arguments[1..]).output()?.stdout)
            .into_owned())
    };
    let bytes = said(&["ip", "netns", "exec", &namespace, "cat", "/sys/class/net/mig0/statistics/tx_bytes"])?;
    let shape = said(&["tc", "-json", "-n", &namespace, "qdisc", "show", "dev", "mig0"])?;
    let shape: serde_json::Value = serde_json::from_str(&shape)?;
    Ok((bytes.trim().parse()?, shape[0]["options"]["rate"] == mbit * 125_000))
}

impl Drop for Link {
    /// Restores the link without the lab's command, which may have failed: others must find the link unchanged.
    fn drop(&mut self) {
        for namespace in HOSTS.into_iter().filter_map(|host| namespace(host).ok()) {
            let arguments = ["-n", &namespace, "qdisc", "delete", "dev", "mig0", "root"];
            if !Command::new("tc").args(arguments).status().is_ok_and(|status| status.success()) {
                eprintln!("the link of {namespace} may still be shaped: tc {}", arguments.join(" "));
            }
        }
    }
}

/// Runs virsh on a host.
fn virsh(host: &str, arguments: &[&str]) -> Outcome<String> {
    lab(&[&["host", host, "virsh", "-q"], arguments].concat())
}

/// An error if a host of the case does not answer, as none does where there is no lab.
pub(crate) fn answers(case: &Case) -> Outcome<()> {
    for host in [&case.from, &case.to] {
        virsh(host, &["version"]).map_err(|error| {
            format!(
                "host {host} of the lab does not answer ({error}): bring the lab up, and eval its `lab env`"
            )
        })?;
    }
    Ok(())
}

/// Guest that is removed at the end of the case.
pub(crate) struct Guest {
    name: String,
    on: String,
    /// Guest that moves at the same time. It is paused, so that it takes nothing but its part of the link.
    beside: Option<Box<Guest>>,
}

impl Guest {
    pub(crate) fn start(case: &Case) -> Outcome<Self> {
        let beat = format!("udp to=10.77.2.254:{} rate={} size=64", net::HEARTBEAT_PORT, net::HEARTBEAT_RATE);
        let workload = if case.accelerator == Accelerator::Kvm {
            case.workload.clone()
        } else if case.workload == "idle" {
            beat
        } else {
            format!("{} + {beat}", case.workload)
        };
        let image = case.image();
        // Until its workload is steady: real programs take a while to start, and so does filling 128 MiB for the first time.
        let fills_much = case.workload.contains("size=128");
        let settles = Duration::from_secs(match image {
            "software" => 12,
            "kvm" => 1,
            _ if fills_much => 7,
            _ => 3,
        });
        let mut guest = Self { name: NAME.into(), on: case.from.clone(), beside: None };
        guest.beside = case.beside.then(|| Self::beside(case).map(Box::new)).transpose()?;
        guest.started(image, case.memory_mib, &workload)?;
        thread::sleep(settles);
        Ok(guest)
    }

    fn started(&self, image: &str, memory_mib: u64, workload: &str) -> Outcome<()> {
        lab(&["guest", "stop", &self.name])?;
        let memory = memory_mib.to_string();
        let arguments = ["guest", "start", &self.name, "--on", &self.on, "--image", image];
        lab(&[&arguments[..], &["--memory", &memory, "--workload", workload]].concat())?;
        Ok(())
    }

    fn beside(case: &Case) -> Outcome<Self> {
        let guest = Self { name: BESIDE.into(), on: case.from.clone(), beside: None };
        // As much as its limit lets it send in the time that most cases take.
        let filled = (case.bandwidth_mib.unwrap_or(0) * 6).clamp(64, 320);
        guest.started("kvm", filled + 64, &format!("fill size={filled}"))?;
        virsh(&guest.on, &["suspend", &guest.name])?;
        Ok(guest)
    }

    /// The trace, and the share of its time in which QEMU waited for a processor.
    pub(crate) fn trace(&self, seconds: f64) -> Outcome<(DirtyTrace, Option<f64>)> {
        let options = TraceOptions { length: Duration::from_secs_f64(seconds), ..TraceOptions::default() };
        let qemu = Qemu::of(&self.name)?;
        let before = waited_seconds(qemu.pid);
        let trace = record(&qemu, &options, || false)?.trace;
        let waited = before.zip(waited_seconds(qemu.pid)).map(|(before, after)| after - before);
        let seconds = trace.seconds();
        Ok((trace, waited.map(|waited| waited / seconds)))
    }

    /// Resident set of its QEMU.
    pub(crate) fn resident_bytes(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", Qemu::of(&self.name)?.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no resident set")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    fn migration(&self, case: &Case) -> Outcome<Child> {
        let target = format!("qemu+tcp://lab-{}/system", case.to);
        let mut command = Command::new(script());
        command
            .args(["host", &self.on, "virsh", "-q", "migrate", "--live", "--persistent", "--undefinesource"])
            .args([&self.name, &target])
            .args(&case.options)
            .args(case.bandwidth_mib.into_iter().flat_map(|limit| ["--bandwidth".into(), limit.to_string()]))
            .stdin(Stdio::null());
        Ok(command.spawn()?)
    }

    pub(crate) fn migrate(&self, case: &Case) -> Outcome<Came> {
        virsh(&self.on, &["migrate-setmaxdowntime", &self.name, &case.limit_ms.to_string()])?;
        let heartbeat = net::Heartbeat::listen()?;
        thread::sleep(Duration::from_millis(500));
        let (bytes_before, _) = link_state(&self.on, case.link_mbit)?;
        let mut other = self.beside.as_ref().map(|beside| beside.migration(case)).transpose()?;
        let mut statistics = Statistics::watch(&self.on, &self.name)?;
        let mut manager = case.managed.as_ref().map(Manager::of);
        let source = Qemu::of(&self.name)?.pid;
        let waited_before = waited_seconds(source);
        let mut waited = waited_before;
        let load = Load::now();
        let began = Instant::now();
        let mut child = self.migration(case)?;
        let mut aborted = false;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if !aborted && began.elapsed().as_secs_f64() > DEADLINE_SECONDS {
                aborted = true;
                virsh(&self.on, &["domjobabort", &self.name])?;
            }
            if statistics.ask()? {
                waited = waited_seconds(source).or(waited);
            }
            let elapsed = began.elapsed().as_secs_f64();
            if let Some(order) =
                manager.as_mut().and_then(|manager| manager.order(elapsed, statistics.remaining_and_round()))
            {
                statistics.send(&order.words(&self.name))?;
            }
            thread::sleep(Duration::from_millis(5));
        };
        let wall_seconds = began.elapsed().as_secs_f64();
        let pressure = load.since();
        let ended = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
        let (bytes_after, shaped) = link_state(&self.on, case.link_mbit)?;
        thread::sleep(Duration::from_millis(700));
        let silences = heartbeat.silences()?;
        if let (Some(beside), Some(other)) = (&self.beside, &mut other) {
            // It has done what it was for.
            virsh(&self.on, &["domjobabort", &beside.name]).ok();
            other.wait()?;
        }
        let completed = status.success();
        let stats = if completed {
            virsh(&case.to, &["domjobinfo", &self.name, "--completed", "--rawstats"])?
        } else {
            String::new()
        };
        let load = fs::read_to_string("/proc/loadavg")?.split(' ').next().and_then(|load| load.parse().ok());
        let bytes = stat(&stats, "memory_processed");
        let alone = completed && !case.beside;
        Ok(Came {
            id: case.id,
            disturbed: !shaped || (alone && bytes_after - bytes_before > bytes * 1.15 + 2e6),
            completed,
            total_seconds: if completed { stat(&stats, "time_elapsed") / 1e3 } else { wall_seconds },
            wall_seconds,
            bytes,
            rounds: stat(&stats, "memory_iteration"),
            reported_downtime_seconds: stat(&stats, "downtime") / 1e3,
            expected_downtime_seconds: statistics.last_expected_downtime()?,
            blackout_seconds: net::around(&silences, ended),
            longest_silence_seconds: silences.iter().map(|(_, length)| *length).reduce(f64::max),
            waited_ratio: waited.zip(waited_before).map(|(now, before)| (now - before) / wall_seconds),
            pressure,
            setup_seconds: stat(&stats, "setup_time") / 1e3,
            load: load.unwrap_or(f64::NAN),
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Err(error) = lab(&["guest", "stop", &self.name]) {
            eprintln!("{error}");
        }
    }
}

/// One virsh that asks for the statistics of a running migration again and again, and gives a manager's orders.
struct Statistics {
    virsh: Child,
    question: String,
    asked: Instant,
    lines: mpsc::Receiver<String>,
    remaining: Option<f64>,
    round: Option<f64>,
    expected_downtime: Option<f64>,
}

impl Statistics {
    const EVERY: Duration = Duration::from_millis(200);

    fn watch(host: &str, name: &str) -> Outcome<Self> {
        let mut command = Command::new(script());
        command.args(["host", host, "virsh", "-q"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut virsh = command.stderr(Stdio::null()).spawn()?;
        let output = BufReader::new(virsh.stdout.take().ok_or("no output")?);
        let (said, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        let question = format!("domjobinfo {name} --rawstats\n");
        Ok(Self {
            virsh,
            question,
            asked: Instant::now(),
            lines,
            remaining: None,
            round: None,
            expected_downtime: None,
        })
    }

    /// Asks if it is time to; true if it was.
    fn ask(&mut self) -> Outcome<bool> {
        self.read(Duration::ZERO);
        let due = self.asked.elapsed() > Self::EVERY;
        if due {
            self.asked = Instant::now();
            self.send(&self.question.clone())?;
        }
        Ok(due)
    }

    /// A virsh that has ended, as it does with its daemon, takes no more orders: the migration's own virsh tells why.
    fn send(&mut self, words: &str) -> Outcome<()> {
        let stdin = self.virsh.stdin.as_mut().ok_or("no input")?;
        stdin.write_all(words.as_bytes()).or_else(|error| match error.kind() {
            ErrorKind::BrokenPipe => Ok(()),
            _ => Err(error.into()),
        })
    }

    /// Bytes left to send, and the round, as last told.
    fn remaining_and_round(&self) -> Option<(f64, f64)> {
        Some((self.remaining?, self.round?))
    }

    fn read(&mut self, patience: Duration) {
        while let Ok(line) = self.lines.recv_timeout(patience) {
            let told = |name| Some(stat(&line, name)).filter(|figure| figure.is_finite());
            self.remaining = told("memory_remaining").or(self.remaining);
            self.round = told("memory_iteration").or(self.round);
            self.expected_downtime = told("downtime").map(|ms| ms / 1e3).or(self.expected_downtime);
        }
    }

    /// The last expected downtime that QEMU gave.
    fn last_expected_downtime(mut self) -> Outcome<Option<f64>> {
        drop(self.virsh.stdin.take());
        self.virsh.wait()?;
        self.read(Duration::from_millis(100));
        Ok(self.expected_downtime)
    }
}

/// Figure of `virsh domjobinfo --rawstats`; NaN if missing.
fn stat(text: &str, name: &str) -> f64 {
    let words = text.lines().filter_map(|line| line.split_once([':', '=']));
    let found = words.map(|(key, value)| (key.trim(), value)).find(|(key, _)| *key == name);
    found.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(f64::NAN)
}
