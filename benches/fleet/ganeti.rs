//! The same fleet for ganeti-htools, and their plans for it.

use std::{
    fmt::Write as _,
    fs,
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use vmgate::fleet::{Fleet, HostId, VmId};

/// Plan of one of the programs.
pub(crate) struct Theirs {
    /// Moves that run at the same time, set after set.
    pub(crate) job_sets: Vec<Vec<(VmId, HostId)>>,
    /// Run time of the program.
    pub(crate) took_seconds: f64,
}

/// Memory of a node that is no instance's, MiB.
const NODE_MIB: u64 = 1024;

/// The fleet as `-t` reads it (htools(1)): groups, nodes, instances, tags, policies. Disks are shared, so that any node will
/// do; CPUs are never short.
fn text(fleet: &Fleet, offline: usize) -> String {
    let mut text = String::from("default|uuid-g|preferred||\n\n");
    for (at, host) in fleet.hosts.iter().enumerate() {
        let free = host.free[0] >> 20;
        let used: u64 = fleet.vms.iter().filter(|vm| vm.host.0 == at).map(|vm| vm.memory_bytes >> 20).sum();
        let (total, flag) = (free + used + NODE_MIB, if at < offline { 'Y' } else { 'N' });
        writeln!(text, "{}|{total}|{NODE_MIB}|{free}|0|0|64|{flag}|uuid-g|1||N|0|0|1.0", host.name).unwrap();
    }
    text.push('\n');
    for vm in &fleet.vms {
        let (memory, host) = (vm.memory_bytes >> 20, &fleet.hosts[vm.host.0].name);
        writeln!(text, "{}|{memory}|0|2|running|Y|{host}||ext||1", vm.name).unwrap();
    }
    text + "\n\n|4096,1,1024,1,1,1|0,0,0,0,0,0;1048576,128,1048576,16,8,12|ext|32.0|32.0\n"
}

/// `hbal` with the first `offline` nodes to be emptied, and allowed no other move. None where it takes too long.
pub(crate) fn hbal(fleet: &Fleet, offline: usize, patience: Duration) -> Option<Theirs> {
    let options = ["--evac-mode", "--no-disk-moves", "--restricted-migration", "-C"];
    let (said, took_seconds) = run("hbal", &options, &text(fleet, offline), patience)?;
    let mut job_sets: Vec<Vec<(VmId, HostId)>> = Vec::new();
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["echo", "jobset", ..] => job_sets.push(Vec::new()),
            ["gnt-instance", "migrate", "-f", "-n", node, instance] => {
                job_sets.last_mut().unwrap().push((vm(instance), host(node)));
            }
            _ => {}
        }
    }
    Some(Theirs { job_sets, took_seconds })
}

/// `hroller` for all nodes. None where it takes too long.
pub(crate) fn hroller(fleet: &Fleet, patience: Duration) -> Option<Theirs> {
    let (said, took_seconds) = run("hroller", &["--force", "--print-moves"], &text(fleet, 0), patience)?;
    let mut job_sets: Vec<Vec<(VmId, HostId)>> = Vec::new();
    for line in said.lines() {
        match (line.strip_prefix("  "), line.starts_with('n')) {
            (Some(moved), _) => {
                let (instance, node) = moved.split_once(' ').unwrap();
                job_sets.last_mut().unwrap().push((vm(instance), host(node.trim())));
            }
            (None, true) => job_sets.push(Vec::new()),
            (None, false) => {}
        }
    }
    Some(Theirs { job_sets, took_seconds })
}

fn vm(name: &str) -> VmId {
    VmId(name[1..].parse().unwrap())
}

fn host(name: &str) -> HostId {
    HostId(name[1..].parse().unwrap())
}

fn run(program: &str, options: &[&str], data: &str, patience: Duration) -> Option<(String, f64)> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.data");
    fs::write(&file, data).unwrap();
    let start = Instant::now();
    let mut child = Command::new(program)
        .arg("-t")
        .arg(&file)
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; apt-get install ganeti-htools"));
    let mut pipe = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut said = String::new();
        pipe.read_to_string(&mut said).map(|_| said)
    });
    while start.elapsed() < patience {
        if child.try_wait().unwrap().is_some() {
            let took_seconds = start.elapsed().as_secs_f64();
            return Some((reader.join().unwrap().unwrap(), took_seconds));
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}
