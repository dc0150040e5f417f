//! The lab: guests, the shaped link, migrations by virsh.

use std::{
    env,
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use vmgate_facts::{Accelerator, trace::DirtyTrace};
use vmgate_probe::trace::{Qemu, TraceOptions, record};

use crate::{Came, Outcome, load::Load, net, plan::Case};

/// A migration that takes longer is aborted.
pub(crate) const DEADLINE_SECONDS: f64 = 60.0;
const NAME: &str = "fc-bench";

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
        for namespace in ["a", "b"].into_iter().filter_map(|host| namespace(host).ok()) {
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

/// Guest that is removed at the end of the case.
pub(crate) struct Guest {
    on: String,
}

impl Guest {
    pub(crate) fn start(case: &Case) -> Outcome<Self> {
        lab(&["guest", "stop", NAME])?;
        let beat = format!("udp to=10.77.2.254:{} rate={} size=64", net::HEARTBEAT_PORT, net::HEARTBEAT_RATE);
        let workload = if case.accelerator == Accelerator::Kvm {
            case.workload.clone()
        } else if case.workload == "idle" {
            beat
        } else {
            format!("{} + {beat}", case.workload)
        };
        let memory = case.memory_mib.to_string();
        let image = case.image();
        let mut arguments = vec!["guest", "start", NAME, "--on", &case.from, "--image", image];
        arguments.extend(["--memory", &memory, "--workload", &workload]);
        lab(&arguments)?;
        // Until its workload is steady: real programs take a while to start, and so does filling 128 MiB for the first time.
        let fills_much = case.workload.contains("size=128");
        let settled_seconds = match image {
            "software" => 12,
            "kvm" => 1,
            _ if fills_much => 7,
            _ => 3,
        };
        thread::sleep(Duration::from_secs(settled_seconds));
        Ok(Self { on: case.from.clone() })
    }

    #[expect(clippy::unused_self, reason = "only a guest that was started can be traced")]
    pub(crate) fn trace(&self, seconds: f64) -> Outcome<DirtyTrace> {
        let options = TraceOptions { length: Duration::from_secs_f64(seconds), ..TraceOptions::default() };
        Ok(record(&Qemu::of(NAME)?, &options, || false)?.trace)
    }

    pub(crate) fn migrate(&self, case: &Case) -> Outcome<Came> {
        let to = if self.on == "a" { "b" } else { "a" };
        virsh(&self.on, &["migrate-setmaxdowntime", NAME, &case.limit_ms.to_string()])?;
        let target = format!("qemu+tcp://lab-{to}/system");
        let heartbeat = net::Heartbeat::listen()?;
        thread::sleep(Duration::from_millis(500));
        let (bytes_before, _) = link_state(&self.on, case.link_mbit)?;
        let load = Load::now();
        let began = Instant::now();
        let mut child = Command::new(script())
            .args([
                "host",
                &self.on,
                "virsh",
                "-q",
                "migrate",
                "--live",
                "--persistent",
                "--undefinesource",
                NAME,
                &target,
            ])
            .args(&case.options)
            .args(case.bandwidth_mib.into_iter().flat_map(|limit| ["--bandwidth".into(), limit.to_string()]))
            .stdin(Stdio::null())
            .spawn()?;
        let mut aborted = false;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if !aborted && began.elapsed().as_secs_f64() > DEADLINE_SECONDS {
                aborted = true;
                virsh(&self.on, &["domjobabort", NAME])?;
            }
            thread::sleep(Duration::from_millis(5));
        };
        let wall_seconds = began.elapsed().as_secs_f64();
        let pressure = load.since();
        let ended = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
        let (bytes_after, shaped) = link_state(&self.on, case.link_mbit)?;
        thread::sleep(Duration::from_millis(700));
        let silences = heartbeat.silences()?;
        let completed = status.success();
        let stats = if completed {
            virsh(to, &["domjobinfo", NAME, "--completed", "--rawstats"])?
        } else {
            String::new()
        };
        let load = fs::read_to_string("/proc/loadavg")?.split(' ').next().and_then(|load| load.parse().ok());
        let bytes = stat(&stats, "memory_processed");
        Ok(Came {
            id: case.id,
            disturbed: !shaped || (completed && bytes_after - bytes_before > bytes * 1.15 + 2e6),
            completed,
            total_seconds: if completed { stat(&stats, "time_elapsed") / 1e3 } else { wall_seconds },
            wall_seconds,
            bytes,
            rounds: stat(&stats, "memory_iteration"),
            reported_downtime_seconds: stat(&stats, "downtime") / 1e3,
            blackout_seconds: net::around(&silences, ended),
            longest_silence_seconds: silences.iter().map(|(_, length)| *length).reduce(f64::max),
            pressure,
            setup_seconds: stat(&stats, "setup_time") / 1e3,
            load: load.unwrap_or(f64::NAN),
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Err(error) = lab(&["guest", "stop", NAME]) {
            eprintln!("{error}");
        }
    }
}

/// Figure of `virsh domjobinfo --rawstats`; NaN if missing.
fn stat(text: &str, name: &str) -> f64 {
    let words = text.lines().filter_map(|line| line.split_once([':', '=']));
    let found = words.map(|(key, value)| (key.trim(), value)).find(|(key, _)| *key == name);
    found.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(f64::NAN)
}
