//! Dark times foretold and measured, over bridges with and without a spanning tree, VLANs, vxlan, macvtap and Open vSwitch: `make
//! bench-dark` makes the moves and writes docs/dark-measured.md.
//!
//! A guest goes from a to b and back, as often as the table says. Before each move `vmgate check` foretells the silence; then
//! `virsh` moves the guest, whatever the verdict, while a machine outside both hosts asks it for an echo every 10 ms, and
//! exchanges bytes with it over a TCP connection that must last.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, connect, socket};
use serde::{Deserialize, Serialize};

use crate::{
    dark::moved_silently,
    harness::{
        Guest, a_to_b, address_of, b_to_a, in_operators_network, lab, on_host, statuses, vmgate, words,
    },
};

/// A network between the hosts, made from what the lab has.
struct Network {
    name: &'static str,
    /// Attachment of the guest, as `lab guest start --attach` takes it.
    attach: &'static str,
    workload: &'static str,
    /// True where a trial (`--trial`) goes before the forecast.
    trial: bool,
    /// Moves on it.
    moves: usize,
    /// Time for which a new port does not forward.
    port_waits_seconds: f64,
    /// True for a bridge of Open vSwitch on each host, which the lab makes.
    switch: bool,
    /// Scripts that make it on each host, and on the operator's side.
    on_host: &'static str,
    on_operator: &'static str,
    /// The same backwards.
    undo_on_host: &'static str,
    undo_on_operator: &'static str,
}

/// Guest that answers and says nothing by itself, as one that was started days ago: its kernel seeks no router any more.
const QUIET: &str = "sysctl net.ipv6.conf.eth0.router_solicitations=0 + tcp-listen port=7000";
/// The same with a datagram every 20 ms to nobody who answers.
const SPEAKS: &str = "sysctl net.ipv6.conf.eth0.router_solicitations=0 + tcp-listen port=7000 + udp to=10.77.2.254:9000 rate=50 size=32";

const PLAIN: Network = Network {
    name: "bridge",
    attach: "bridge:br0",
    workload: QUIET,
    trial: true,
    moves: 8,
    port_waits_seconds: 0.0,
    switch: false,
    on_host: "true",
    on_operator: "true",
    undo_on_host: "true",
    undo_on_operator: "true",
};

/// Frees the cable, and makes the nodes of macvtap interfaces, as udev would, in a /dev of the host's own.
const MACVTAP: &str = r"
ip link set biz0 nomaster
mkdir -p /run/dev/net /run/dev/pts /run/dev/shm
for node in null zero full random urandom tty net/tun; do cp -a /dev/$node /run/dev/$node; done
ln -sf pts/ptmx /run/dev/ptmx
mount --bind /dev/pts /run/dev/pts
mount --bind /run/dev /dev
touch /run/macvtap
while [ -e /run/macvtap ]; do
  for tap in /sys/class/net/macvtap*/tap*; do
    [ ! -e $tap/dev ] || [ -e /dev/${tap##*/} ] || mknod /dev/${tap##*/} c $(tr : ' ' <$tap/dev)
  done
  for node in /dev/tap[0-9]*; do
    ls -d /sys/class/net/*/${node##*/} || rm -f $node
  done
  sleep 0.01
done >/dev/null 2>&1 </dev/null &
";

/// Without a spanning tree, and with its port to the network taken anew: a blocked port stays blocked.
const NO_STP: &str = "ip link set br0 type bridge stp_state 0; ip link set br0 type bridge forward_delay 0; \
                      ip link set biz0 nomaster; ip link set biz0 master br0";

const STP: Network = Network {
    name: "bridge with STP, 2 s, and a guest that only answers",
    moves: 4,
    port_waits_seconds: 4.0,
    on_host: "ip link set br0 type bridge stp_state 1 forward_delay 200; sleep 5",
    undo_on_host: NO_STP,
    ..PLAIN
};

const NETWORKS: [Network; 12] = [
    PLAIN,
    Network { name: "bridge with STP, 2 s, and a guest that speaks", workload: SPEAKS, moves: 6, ..STP },
    Network {
        name: "bridge with STP, 4 s, and a guest that speaks",
        workload: SPEAKS,
        moves: 4,
        port_waits_seconds: 8.0,
        on_host: "ip link set br0 type bridge stp_state 1 forward_delay 400; sleep 9",
        undo_on_host: NO_STP,
        ..PLAIN
    },
    Network {
        name: "libvirt's network with STP and delay 0, as its default, and a guest that speaks",
        workload: SPEAKS,
        attach: "network:lab",
        moves: 4,
        port_waits_seconds: 4.0,
        on_host: "echo \"<network><name>lab</name><bridge name='virbr7' stp='on' delay='0'/></network>\" >/run/lab.xml; \
                  virsh -q net-define /run/lab.xml && virsh -q net-start lab && ip link set biz0 master virbr7 && sleep 5",
        undo_on_host: "ip link set biz0 master br0; virsh -q net-destroy lab; virsh -q net-undefine lab",
        ..PLAIN
    },
    Network {
        name: "vxlan that learns, under a bridge",
        moves: 6,
        on_host: "ip link set biz0 nomaster; ip link add vx0 type vxlan id 42 dstport 4789 dev mgmt0; ip link set vx0 master br0 up; \
                  for to in 1 2 100; do ip -o addr show dev mgmt0 | grep -q \" 10.77.3.$to/\" || bridge fdb append 00:00:00:00:00:00 dev vx0 dst 10.77.3.$to; done",
        on_operator: "ip link add vx0 type vxlan id 42 dstport 4789 dev mgmt0; ip link set vx0 master business up; \
                      for to in 1 2; do bridge fdb append 00:00:00:00:00:00 dev vx0 dst 10.77.3.$to; done",
        undo_on_host: "ip link del vx0; ip link set biz0 master br0",
        undo_on_operator: "ip link del vx0",
        ..PLAIN
    },
    // What a host floods to itself comes back: its bridge learns the guest's address at the tunnel.
    Network {
        name: "vxlan, each host in its own flood list",
        moves: 4,
        on_host: "ip link set biz0 nomaster; ip link add vx0 type vxlan id 42 dstport 4789 dev mgmt0; ip link set vx0 master br0 up; \
                  for to in 1 2 100; do bridge fdb append 00:00:00:00:00:00 dev vx0 dst 10.77.3.$to; done",
        on_operator: "ip link add vx0 type vxlan id 42 dstport 4789 dev mgmt0; ip link set vx0 master business up; \
                      for to in 1 2; do bridge fdb append 00:00:00:00:00:00 dev vx0 dst 10.77.3.$to; done",
        undo_on_host: "ip link del vx0; ip link set biz0 master br0",
        undo_on_operator: "ip link del vx0",
        ..PLAIN
    },
    Network {
        name: "macvtap in bridge mode over veth",
        attach: "direct:biz0",
        moves: 6,
        on_host: MACVTAP,
        undo_on_host: "rm -f /run/macvtap; sleep 0.2; umount /dev; umount /run/dev/pts; rm -rf /run/dev; ip link set biz0 master br0",
        ..PLAIN
    },
    Network { name: "Open vSwitch, netdev datapath", attach: "ovs:ovs0", moves: 6, switch: true, ..PLAIN },
    // This machine's kernel filters no VLANs: the tags are those of Open vSwitch.
    Network {
        name: "Open vSwitch, VLAN 42",
        attach: "ovs:ovs0.42",
        moves: 6,
        switch: true,
        on_host: "ovs-vsctl set port biz0 tag=42",
        undo_on_host: "ovs-vsctl clear port biz0 tag",
        ..PLAIN
    },
    Network { name: "bridge, foretold without a trial", trial: false, ..PLAIN },
    Network {
        name: "bridge with STP, 2 s, and a guest that speaks, foretold without a trial",
        workload: SPEAKS,
        trial: false,
        moves: 6,
        ..STP
    },
    // It takes longest.
    STP,
];

/// Network for as long as this lives.
struct Made<'a>(&'a Network);

impl<'a> Made<'a> {
    /// Makes it; none where this machine cannot.
    fn on_both(network: &'a Network) -> Option<Self> {
        let made = Self(network);
        let fine = lab(&["run", "sh", "-ec", network.on_operator]).code == 0;
        let of_host = |host: &&str| {
            (!network.switch || lab(&["ovs", host, "up"]).code == 0)
                && on_host(host, network.on_host, b"").code == 0
        };
        let fine = fine && ["a", "b"].iter().all(of_host);
        fine.then_some(made)
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for host in ["a", "b"] {
            on_host(host, self.0.undo_on_host, b"");
            if self.0.switch {
                lab(&["ovs", host, "off"]);
            }
        }
        lab(&["run", "sh", "-c", self.0.undo_on_operator]);
    }
}

/// TCP connection from outside to the guest's echo service, with a byte every 50 ms.
struct Connection {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<bool>,
}

impl Connection {
    fn to(address: &str) -> Self {
        let at: SocketAddr = format!("{address}:7000").parse().unwrap();
        let socket = in_operators_network(|| socket(AddressFamily::INET, SocketType::STREAM, None).unwrap());
        connect(socket.as_fd(), &at).unwrap_or_else(|error| panic!("{at}: {error}"));
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_mins(2))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let mut byte = [7];
                if stream.write_all(&byte).and_then(|()| stream.read_exact(&mut byte)).is_err() {
                    return false;
                }
                thread::sleep(Duration::from_millis(50));
            }
            true
        });
        Self { stop, thread }
    }

    fn lasted(self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Every move that was made, so that a campaign goes on where it was.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/dark-measured.jsonl");

/// One move: what was foretold, and what was seen.
#[derive(Serialize, Deserialize)]
struct Row {
    network: String,
    status: String,
    foretold: Option<[f64; 3]>,
    measured: f64,
    /// Duration and downtime of the migration, as libvirt reports them afterwards.
    job: Option<(f64, f64)>,
    port_waits_seconds: f64,
    /// True if every rule on the connection passed.
    called_safe: Option<bool>,
    /// True if the connection lasted.
    lasted: Option<bool>,
}

fn moved(network: &Network, guest: &Guest, there: bool) -> Row {
    let (options, from, to) = if there { (a_to_b(), "a", "b") } else { (b_to_a(), "b", "a") };
    let first = ["check", guest.name, "--longest-blackout", "4", "--output", "json"];
    let trial = if network.trial { &["--trial"][..] } else { &[] };
    let verdict = vmgate(&words(&[&first, trial].concat(), &options)).json();
    let silence = &verdict["forecast"]["silence_seconds"];
    let quantile = |name: &str| silence[name].as_f64();
    let foretold = (|| Some([quantile("p5")?, quantile("p50")?, quantile("p95")?]))();
    let status = |rule: &str| statuses(&verdict, rule).first().cloned().unwrap_or_default();
    // A rule without a subject has nothing against the move.
    let silent_on = |rule: &str| ["pass", "not-applicable", ""].contains(&status(rule).as_str());
    let called_safe =
        ["guest-network-follows-soon", "tcp-retransmission-budget"].iter().all(|rule| silent_on(rule));
    let connection = Connection::to(&address_of(guest.name));
    let measured = moved_silently(guest, from, to);
    let lasted = connection.lasted();
    let job = completed_job(guest, to);
    Row {
        network: network.name.to_owned(),
        status: status("guest-network-follows-soon"),
        foretold,
        measured,
        job,
        port_waits_seconds: network.port_waits_seconds,
        called_safe: Some(called_safe),
        lasted: Some(lasted),
    }
}

/// Duration and downtime of the guest's last migration, in seconds.
fn completed_job(guest: &Guest, on: &str) -> Option<(f64, f64)> {
    let said = lab(&["host", on, "virsh", "-q", "domjobinfo", guest.name, "--completed"]).stdout;
    let seconds = |label: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(label))?;
        Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1000.0)
    };
    Some((seconds("Time elapsed:")?, seconds("Total downtime:")?))
}

impl Row {
    /// Size of the error of the median that was foretold; none where nothing was, or a range.
    fn error(&self) -> Option<f64> {
        let [_, p50, _] = self.foretold.filter(|foretold| !is_range(*foretold))?;
        Some((self.measured - p50).abs())
    }

    /// True for a silence within the range that was foretold; none where no range was.
    fn in_range(&self) -> Option<bool> {
        let [p5, _, p95] = self.foretold.filter(|foretold| is_range(*foretold))?;
        Some((p5..=p95).contains(&self.measured))
    }

    /// True for an error of a tenth of a second, or of a tenth of the silence.
    fn is_within(&self, error: f64) -> bool {
        error <= (self.measured / 10.0).max(0.1)
    }

    /// Network's part of the silence as it was measured, and as it follows from the settings for the duration that the migration
    /// had: another load than foretold is no error of the network's.
    fn network_part(&self) -> Option<(f64, f64)> {
        let (elapsed, downtime) = self.job?;
        Some((self.measured - downtime, (self.port_waits_seconds - elapsed).max(0.01)))
    }
}

/// True where the silence ends at a random time, as by neighbours that ask anew: its median says little.
fn is_range([p5, _, p95]: [f64; 3]) -> bool {
    p95 - p5 > 10.0
}

/// Makes the moves on a network that are not in the rows yet, `most` of them at most.
fn make(network: &Network, most: usize, rows: &mut Vec<Row>) {
    let made = rows.iter().filter(|row| row.network == network.name).count();
    let moves = network.moves.saturating_sub(made).min(most);
    let Some(_made) = (moves > 0).then(|| Made::on_both(network)).flatten() else { return };
    let options = ["--on", "a", "--attach", network.attach, "--workload", network.workload];
    let guest = Guest::start("goes-dark", &options);
    for number in 0..moves {
        let row = moved(network, &guest, number % 2 == 0);
        let mut file = fs::OpenOptions::new().create(true).append(true).open(RESULTS).unwrap();
        writeln!(file, "{}", serde_json::to_string(&row).unwrap()).unwrap();
        eprintln!("{}: {:?} measured {:.2} {}", row.network, row.foretold, row.measured, row.status);
        rows.push(row);
    }
}

#[test]
#[ignore = "half an hour: make bench-dark"]
fn dark_times_are_foretold() {
    let read = fs::read_to_string(RESULTS).unwrap_or_default();
    let mut rows: Vec<Row> = read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // So many in this run, so that others have their turn on the machine: `make bench-dark MOVES=2`.
    let most = env::var("VMGATE_BENCH_MOVES").ok().and_then(|most| most.parse().ok()).unwrap_or(usize::MAX);
    let before = rows.len();
    for network in &NETWORKS {
        make(network, most - (rows.len() - before), &mut rows);
    }
    fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dark-measured.md"), document(&rows)).unwrap();
    if most != usize::MAX {
        return;
    }
    assert!(rows.len() >= 40, "{} moves", rows.len());
    let foretold = rows.iter().filter_map(Row::error).count();
    assert!(2 * foretold_well(&rows) > foretold, "{} of {foretold} foretold well", foretold_well(&rows));
    let longer =
        |row: &&Row| row.in_range().is_some() && row.foretold.is_some_and(|[_, _, p95]| row.measured > p95);
    assert_eq!(rows.iter().filter(longer).count(), 0, "silences beyond their range");
    let broken = rows.iter().filter(|row| row.called_safe == Some(true) && row.lasted == Some(false)).count();
    assert_eq!(broken, 0, "connections that were called safe and broke");
}

fn foretold_well(rows: &[Row]) -> usize {
    rows.iter().filter(|row| row.error().is_some_and(|error| row.is_within(error))).count()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

fn document(rows: &[Row]) -> String {
    let mut text = String::from(
        "# Dark time, measured\n\n<!-- written by: make bench-dark -->\n\nReal moves between two hosts of the lab, each foretold by `vmgate check`, mostly with `--trial`, and \
         then measured from a third machine: the longest time without an answer to an echo request, sent every 10 ms. Silence is QEMU's blackout and the \
         network's dark time together. The lab runs on two cores without hardware virtualisation; less than half of the moves had other work beside them. The connection \
         is one of TCP from outside, with a byte every 50 ms. A guest that speaks sends 50 datagrams a second to nobody who answers; the others only answer, \
         and their kernel seeks no router, as one that was started days ago. Where a port forwards only after QEMU's announcements (0.8 s), such a guest is \
         found when its neighbours ask anew: at a random time, which is foretold, and judged, as a range.\n\n\
         | network | moves | foretold, median (p95) | measured, median (longest) | QEMU's downtime, median | network's part, measured | network's part, by its settings | within p95 | called safe | of these broken | others that lasted |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut errors = Vec::new();
    for network in &NETWORKS {
        let of: Vec<&Row> = rows.iter().filter(|row| row.network == network.name).collect();
        if of.is_empty() {
            let _ = writeln!(text, "| {} | 0 | not measured | | | | | | | | |", network.name);
            continue;
        }
        let foretold = |at: usize| median(of.iter().filter_map(|row| Some(row.foretold?[at])).collect());
        let in_words = match [foretold(0), foretold(1), foretold(2)] {
            [p5, _, p95] if is_range([p5, 0.0, p95]) => format!("{p5:.0} to {p95:.0} s"),
            [_, p50, p95] if p50.is_finite() => format!("{p50:.2} s ({p95:.2} s)"),
            _ => "unknown".to_owned(),
        };
        let measured = median(of.iter().map(|row| row.measured).collect());
        let longest = of.iter().map(|row| row.measured).fold(0.0, f64::max);
        errors.extend(of.iter().filter_map(|row| row.error()));
        let within =
            of.iter().filter(|row| row.foretold.is_some_and(|[_, _, p95]| row.measured <= p95)).count();
        let safe: Vec<_> = of.iter().filter(|row| row.called_safe == Some(true)).collect();
        let broken = safe.iter().filter(|row| row.lasted == Some(false)).count();
        let others =
            of.iter().filter(|row| row.called_safe == Some(false) && row.lasted == Some(true)).count();
        let _ = writeln!(
            text,
            "| {} | {} | {in_words} | {measured:.2} s ({longest:.2} s) | {:.2} s | {:.2} s | {:.2} s | {within} | {} | {broken} | {others} |",
            network.name,
            of.len(),
            median(of.iter().filter_map(|row| Some(row.job?.1)).collect()),
            median(of.iter().filter_map(|row| Some(row.network_part()?.0)).collect()),
            median(of.iter().filter_map(|row| Some(row.network_part()?.1)).collect()),
            safe.len(),
        );
    }
    let ranges: Vec<_> = rows.iter().filter_map(Row::in_range).collect();
    // Where neighbours must ask, the settings alone do not say when.
    let settled = rows.iter().filter(|row| row.in_range().is_none());
    let parts: Vec<_> = settled.filter_map(|row| Some((row, row.network_part()?))).collect();
    let _ = writeln!(
        text,
        "\n{} moves. Silence: median of the size of the error {:.2} s; {} of {} within 0.1 s or a tenth; {} of {} within their range. Network's part, for the duration that the \
         migration had: {:.2} s; {} of {} within 0.1 s or a tenth of the silence.",
        rows.len(),
        median(errors.clone()),
        foretold_well(rows),
        errors.len(),
        ranges.iter().filter(|within| **within).count(),
        ranges.len(),
        median(parts.iter().map(|(_, (seen, settings))| (seen - settings).abs()).collect()),
        parts.iter().filter(|(row, (seen, settings))| row.is_within((seen - settings).abs())).count(),
        parts.len(),
    );
    text
}
