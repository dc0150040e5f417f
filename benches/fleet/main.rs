//! Speed and quality of plans: compared with `hbal` and `hroller` of ganeti-htools on equal inputs, and
//! with the whole rule pack as the judge.
//!
//! `cargo bench --bench fleet` (`--no-default-features` will do; `-- judged` for the second part alone). Prints the tables
//! of docs/scale.md, and fails where a plan of ours is worse than theirs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a benchmark that cannot begin should stop"
)]
#![allow(clippy::indexing_slicing, clippy::cast_precision_loss)]

mod ganeti;
mod judged;

use std::time::{Duration, Instant};

use vmgate::fleet::{
    Fleet, FleetHost, FleetPlan, FleetVm, HostId, Limits, Oracle, PlanRequest, Resource, RollingPace, Ruling,
    VmId, evacuate, rolling, schedule,
};

/// Time limit of one of htools' programs.
const PATIENCE: Duration = Duration::from_mins(2);
const GIB: u64 = 1 << 30;

/// Judge for which only free resources count; a move takes one second and the time to send its memory.
pub(crate) struct Amounts<'a>(pub(crate) &'a Fleet);

impl Oracle for Amounts<'_> {
    fn judge(&self, _: VmId, _: HostId) -> Ruling {
        Ruling::Go
    }

    fn seconds(&self, vm: VmId, bytes_per_second: u64) -> Option<f64> {
        Some(1.0 + self.0.vms[vm.0].memory_bytes as f64 / bytes_per_second as f64)
    }
}

/// Hosts of 256 GiB and 10 Gbit/s with so many VMs of 2, 4 or 8 GiB each. Every host is a rack of its own: htools know none.
fn fleet(hosts: usize, vms_per_host: usize) -> Fleet {
    let mut random = 7_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (2 * GIB) << ((random >> 33) % 3)
    };
    let vms: Vec<FleetVm> = (0..hosts * vms_per_host)
        .map(|at| {
            let memory = next();
            FleetVm {
                name: format!("i{at}"),
                host: HostId(at / vms_per_host),
                needs: vec![memory],
                memory_bytes: memory,
                dirty_bytes_per_second: 0,
            }
        })
        .collect();
    let host = |at: usize| {
        let used: u64 = vms.iter().filter(|vm| vm.host.0 == at).map(|vm| vm.memory_bytes).sum();
        FleetHost {
            name: format!("n{at}"),
            rack: format!("n{at:05}"),
            closed: None,
            free: vec![255 * GIB - used],
            bandwidth_bytes_per_second: 1_250_000_000,
            networks: Vec::new(),
        }
    };
    Fleet {
        resources: vec![Resource::Memory],
        hosts: (0..hosts).map(host).collect(),
        limits: Limits::default(),
        vms,
        ..Fleet::default()
    }
}

fn request(empty: std::ops::Range<usize>, into: std::ops::Range<usize>) -> PlanRequest<'static> {
    PlanRequest { empty: empty.map(HostId).collect(), into: into.map(HostId).collect(), earlier: &|_| None }
}

fn moves(plan: &FleetPlan) -> usize {
    plan.waves.iter().map(|wave| wave.schedule.moves.len()).sum()
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64())
}

/// The time that moves take in the order that our own scheduler gives them, with the same limits.
fn makespan(fleet: &Fleet, moves: &[(VmId, HostId)]) -> f64 {
    let oracle = Amounts(fleet);
    let seconds = |vm: VmId, to: HostId| {
        let share = fleet.share_bytes_per_second(fleet.vms[vm.0].host, to);
        oracle.seconds(vm, share).unwrap()
    };
    let timed: Vec<_> = moves.iter().map(|(vm, to)| (*vm, *to, seconds(*vm, *to))).collect();
    schedule(fleet, &timed).makespan_seconds
}

/// A tenth of the hosts is emptied into the others.
fn against_hbal() -> bool {
    println!(
        "| hosts × VMs, of which are emptied | vmgate: planned in, moves, makespan | hbal: planned in, moves, makespan in its job sets, in our order |"
    );
    println!("|---|---|---|");
    let mut never_worse = true;
    for (hosts, emptied) in [(20, 2), (40, 4), (60, 6), (100, 10), (1000, 100)] {
        let fleet = fleet(hosts, 20);
        let (plan, took) = timed(|| evacuate(&fleet, &Amounts(&fleet), &request(0..emptied, emptied..hosts)));
        assert_eq!(plan.unplaced, [], "{hosts} hosts have room for the VMs of {emptied}");
        let ours = format!("{took:.3} s, {}, {:.0} s", moves(&plan), plan.makespan_seconds());
        let theirs = match ganeti::hbal(&fleet, emptied, PATIENCE) {
            None => format!("not done in {} s", PATIENCE.as_secs()),
            Some(hbal) => {
                let all: Vec<_> = hbal.job_sets.iter().flatten().copied().collect();
                let sets: f64 = hbal.job_sets.iter().map(|set| makespan(&fleet, set)).sum();
                let at_best = sets.min(makespan(&fleet, &all));
                never_worse &= moves(&plan) <= all.len() && plan.makespan_seconds() <= at_best + 1e-6;
                format!(
                    "{:.3} s, {}, {sets:.0} s, {:.0} s",
                    hbal.took_seconds,
                    all.len(),
                    makespan(&fleet, &all)
                )
            }
        };
        println!("| {hosts} × 20, {emptied} | {ours} | {theirs} |");
    }
    never_worse
}

/// Every host is emptied once, as many at a time as the others have room for, and gets its VMs back.
fn against_hroller() -> bool {
    println!(
        "\n| hosts × VMs, all emptied in turn | vmgate: planned in, waits for hosts, makespan there and back | hroller |"
    );
    println!("|---|---|---|");
    let mut never_worse = true;
    for hosts in [100, 1000] {
        let fleet = fleet(hosts, 20);
        let all =
            PlanRequest { empty: (0..hosts).map(HostId).collect(), into: Vec::new(), earlier: &|_| None };
        let (plan, took) = timed(|| rolling(&fleet, &Amounts(&fleet), &all, RollingPace::AsRoomAllows));
        assert_eq!(plan.unplaced, [], "each host's VMs find room");
        let waits = plan.waves.len() / 2;
        let ours = format!("{took:.3} s, {waits}, {:.0} s", plan.makespan_seconds());
        let theirs = match ganeti::hroller(&fleet, PATIENCE) {
            None => format!("not done in {} s", PATIENCE.as_secs()),
            Some(hroller) => {
                let groups = hroller.job_sets.len();
                let there_and_back: f64 =
                    hroller.job_sets.iter().map(|set| 2.0 * makespan(&fleet, set)).sum();
                never_worse &= waits <= groups && plan.makespan_seconds() <= there_and_back + 1e-6;
                format!("{:.3} s, {groups}, {there_and_back:.0} s", hroller.took_seconds)
            }
        };
        println!("| {hosts} × 20 | {ours} | {theirs} |");
    }
    never_worse
}

fn main() {
    if std::env::args().any(|word| word == "judged") {
        return judged::with_the_rules();
    }
    let not_worse = [against_hbal(), against_hroller()];
    judged::with_the_rules();
    assert_eq!(not_worse, [true, true], "a plan is worse than that of hbal or hroller");
}
