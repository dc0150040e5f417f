//! Rules about software that tolerates no silence: each finds its cause in a real guest, and its remedy helps.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Guest, a_to_b, address_of, lab, statuses, vmgate, words};

/// Present statuses of a rule, from `vmgate check` with these options.
fn now(guest: &Guest, rule: &str, options: &[&str]) -> Vec<String> {
    let all = [&["check", guest.name, "--timeout", "60", "--output", "json"], options].concat();
    statuses(&vmgate(&words(&all, &a_to_b())).json(), rule)
}

/// Checks again until every outcome of the rule is `wanted`: some causes take time to appear and to disappear.
#[track_caller]
fn becomes(guest: &Guest, rule: &str, wanted: &str) {
    becomes_with(guest, rule, wanted, &[]);
}

#[track_caller]
fn becomes_with(guest: &Guest, rule: &str, wanted: &str, options: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let found = now(guest, rule, options);
        if !found.is_empty() && found.iter().all(|status| status == wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "{rule} is {found:?}, not {wanted}");
        thread::sleep(Duration::from_secs(1));
    }
}

#[track_caller]
fn inside(guest: &Guest, script: &str) -> String {
    lab(&["guest", "exec", guest.name, "sh", "-c", script]).exits(0).stdout
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn waiting_for_memory_is_found_and_ends_with_the_program_that_takes_it() {
    let guest = Guest::start("sl-pressure", &["--on", "a"]);
    becomes(&guest, "no-memory-pressure-in-guest", "pass");
    inside(
        &guest,
        "mkdir /tmp/cg && mount -t cgroup2 none /tmp/cg && mkdir /tmp/cg/tight && \
         echo +memory >/tmp/cg/cgroup.subtree_control && echo 8M >/tmp/cg/tight/memory.high && \
         (sh -c 'echo $$ >/tmp/cg/tight/cgroup.procs; exec workload dirty size=64 rate=64' >/dev/null 2>&1 </dev/null &)",
    );
    becomes(&guest, "no-memory-pressure-in-guest", "fail");
    inside(&guest, "kill -9 $(cat /tmp/cg/tight/cgroup.procs)");
    becomes(&guest, "no-memory-pressure-in-guest", "pass");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn memory_that_grows_is_found_and_settles_with_its_program() {
    let guest = Guest::start(
        "sl-grow",
        &["--on", "a", "--memory", "768", "--workload", "hold size=500 kind=grow rate=80"],
    );
    // An emulated guest on a busy machine grows more slowly than the rule minds by itself.
    let config = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(config.path(), "schema: vmgate/config/v1\nparameters: {guest-memory-settled: {max_growth_bytes_per_second: 4194304}}\n")
        .unwrap();
    let options = ["--config", config.path().to_str().unwrap()];
    becomes_with(&guest, "guest-memory-settled", "fail", &options);
    inside(&guest, "kill -9 $(pidof workload)");
    becomes_with(&guest, "guest-memory-settled", "pass", &options);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_balloon_that_moves_is_found_and_comes_to_rest() {
    let guest = Guest::start("sl-balloon", &["--on", "a", "--memory", "384"]);
    let name = guest.name;
    let pump = "for i in $(seq 25); do virsh -q setmem \"$0\" 200M --live; sleep 0.4; \
                virsh -q setmem \"$0\" 380M --live; sleep 0.4; done";
    let mover = thread::spawn(move || lab(&["host", "a", "sh", "-c", pump, name]));
    becomes(&guest, "guest-memory-settled", "fail");
    mover.join().unwrap().exits(0);
    becomes(&guest, "guest-memory-settled", "pass");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn locked_shared_and_huge_memory_is_found_and_goes_with_its_program() {
    for (name, kind) in [("sl-locked", "locked"), ("sl-shared", "shared"), ("sl-huge", "huge")] {
        let workload = format!("sysctl vm.nr_hugepages=120 + hold size=200 kind={kind}");
        let workload = if kind == "huge" { workload } else { format!("hold size=200 kind={kind}") };
        let guest = Guest::start(name, &["--on", "a", "--memory", "384", "--workload", &workload]);
        becomes(&guest, "no-large-locked-memory", "fail");
        inside(&guest, "kill -9 $(pidof workload)");
        becomes(&guest, "no-large-locked-memory", "pass");
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_device_driven_past_the_kernel_is_found_and_goes_when_it_is_unbound() {
    let guest = Guest::start("sl-bypass", &["--on", "a"]);
    becomes(&guest, "no-rdma-or-dpdk", "pass");
    // The random number generator: nothing in this guest needs it.
    let address = inside(
        &guest,
        "modprobe uio_pci_generic; cd /sys/bus/pci/devices; for d in *; do \
         [ $(cat $d/device) = 0x1044 ] || [ $(cat $d/device) = 0x1005 ] || continue; \
         echo $d > $d/driver/unbind; echo uio_pci_generic > $d/driver_override; \
         echo $d > /sys/bus/pci/drivers/uio_pci_generic/bind; echo $d; done",
    );
    assert!(!address.trim().is_empty());
    becomes(&guest, "no-rdma-or-dpdk", "fail");
    inside(&guest, &format!("echo {} > /sys/bus/pci/drivers/uio_pci_generic/unbind", address.trim()));
    becomes(&guest, "no-rdma-or-dpdk", "pass");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_tight_sctp_path_is_found_and_bears_more_when_it_is_opened_anew() {
    let peer = Guest::start("sl-sctp-peer", &["--on", "a", "--workload", "sctp listen=36412"]);
    let to = format!("{}:36412", address_of(peer.name));
    let guest = Guest::start("sl-sctp", &["--on", "a"]);
    let connect = format!("(workload sctp to={to} >/dev/null 2>&1 </dev/null &)");
    inside(
        &guest,
        &format!(
            "modprobe sctp && sysctl -w net.sctp.path_max_retrans=1 net.sctp.rto_min=200 net.sctp.rto_max=400 net.sctp.rto_initial=400 && {connect}"
        ),
    );
    becomes(&guest, "sctp-paths-survive-blackout", "fail");
    inside(
        &guest,
        &format!(
            "kill -9 $(pidof workload); sleep 1; sysctl -w net.sctp.rto_max=60000 net.sctp.rto_initial=3000 net.sctp.rto_min=1000 net.sctp.path_max_retrans=5 && {connect}"
        ),
    );
    becomes(&guest, "sctp-paths-survive-blackout", "pass");
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn the_peer_of_a_connection_is_asked_where_that_is_allowed() {
    let workload = "sysctl net.ipv4.tcp_retries2=1 + tcp-listen port=7000";
    let peer = Guest::start("sl-tcp-peer", &["--on", "a", "--workload", workload]);
    let to = format!("{}:7000", address_of(peer.name));
    let guest = Guest::start("sl-tcp", &["--on", "a", "--workload", &format!("tcp to={to}")]);
    // By itself the guest cannot know how its peer is set.
    becomes(&guest, "tcp-retransmission-budget", "pass");
    becomes_with(&guest, "tcp-retransmission-budget", "fail", &["--ask-peers"]);
    inside(&peer, "sysctl -w net.ipv4.tcp_retries2=8");
    becomes_with(&guest, "tcp-retransmission-budget", "pass", &["--ask-peers"]);
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_multicast_group_is_asked_for_where_the_destination_asks() {
    let guest = Guest::start("sl-group", &["--on", "a", "--workload", "udp listen=5000 group=239.192.0.1"]);
    becomes(&guest, "multicast-groups-rejoinable", "fail");
    let bridge = "ip link set br0 type bridge mcast_querier 1 mcast_query_interval 500 mcast_startup_query_interval 100";
    for host in ["a", "b"] {
        lab(&["host", host, "sh", "-c", bridge]).exits(0);
    }
    becomes(&guest, "multicast-groups-rejoinable", "pass");
    // And it is true: the destination's bridge learns the group soon after the move.
    vmgate(&words(&["migrate", guest.name, "--longest-blackout", "2"], &a_to_b())).exits(0);
    let start = Instant::now();
    while !lab(&["host", "b", "bridge", "mdb", "show", "dev", "br0"]).stdout.contains("239.192.0.1") {
        assert!(start.elapsed() < Duration::from_secs(10), "not joined again");
        thread::sleep(Duration::from_millis(200));
    }
    let back = "ip link set br0 type bridge mcast_querier 0 mcast_query_interval 12500 mcast_startup_query_interval 3125";
    for host in ["a", "b"] {
        lab(&["host", host, "sh", "-c", back]).exits(0);
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_stateful_filter_on_the_destinations_bridge_is_found_and_goes_with_its_remedy() {
    let guest = Guest::start("sl-filter", &["--on", "a"]);
    becomes(&guest, "host-conntrack-not-in-path", "pass");
    let filter = Filter::on_b(
        "add table ip fw; add chain ip fw guests { type filter hook forward priority 0; }; \
                               add rule ip fw guests ct state established accept",
    );
    lab(&["host", "b", "sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=1"]).exits(0);
    becomes(&guest, "host-conntrack-not-in-path", "fail");
    lab(&["host", "b", "sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=0"]).exits(0);
    becomes(&guest, "host-conntrack-not-in-path", "pass");
    drop(filter);
}

/// Packet filter on host b, removed at the end of the test.
struct Filter;

impl Filter {
    fn on_b(rules: &str) -> Self {
        Self::nft(rules);
        Self
    }

    /// With the nft of this machine: the hosts have none.
    fn nft(rules: &str) {
        let netns = crate::harness::setting("VMGATE_LAB_NETNS").replace("-op", "-b");
        let status =
            std::process::Command::new("ip").args(["netns", "exec", &netns, "nft", rules]).status().unwrap();
        assert!(status.success(), "nft {rules}");
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        Self::nft("delete table ip fw");
        lab(&["host", "b", "sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=0"]);
    }
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn a_clock_that_nothing_keeps_right_is_found_and_chrony_keeps_it_over_the_move() {
    const RULE: &str = "guest-clock-stable";
    let server = Guest::start("sl-time", &["--on", "b", "--image", "software"]);
    let guest = Guest::start("sl-clock", &["--on", "a", "--image", "software"]);
    becomes(&guest, RULE, "fail");
    let chrony = |guest: &Guest, config: &str| {
        inside(guest, &format!("printf '{config}' >/run/chrony.conf && chronyd -f /run/chrony.conf"))
    };
    chrony(&server, "local stratum 8\\nallow\\n");
    let address = address_of(server.name);
    chrony(&guest, &format!("server {address} iburst minpoll 0 maxpoll 2\\nmakestep 1 -1\\n"));
    becomes(&guest, RULE, "pass");
    vmgate(&words(&["migrate", guest.name, "--longest-blackout", "5"], &a_to_b())).exits(0);
    thread::sleep(Duration::from_secs(10));
    let tracking = inside(&guest, "chronyc -c tracking");
    let offset: f64 = tracking.split(',').nth(4).and_then(|text| text.parse().ok()).unwrap();
    assert!(offset.abs() < 0.5, "{tracking}");
}
