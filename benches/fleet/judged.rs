//! Plans with the whole rule pack as the judge, on facts of a site that exists only in memory.

use std::fs;

use vmgate::fleet::{
    HostId, PlanRequest, PolicyOracle, RollingPace, Site, SiteVm, build, evacuate, inventory::Inventory,
    rolling,
};
use vmgate_facts::{Change, Fact, Facts, Host};
use vmgate_judge::Policy;
use vmgate_rules::{ParamOverrides, RuleSource};

use super::{moves, timed};

const HOSTS: usize = 1000;
const VMS_PER_HOST: usize = 20;
/// Hosts of a rack.
const RACK: usize = 20;
const GIB: u64 = 1 << 30;

/// A site made up from the fixture of a quiet VM.
struct MadeUp {
    facts: Facts,
    hosts: Vec<Fact<Host>>,
    vms: Vec<SiteVm>,
}

impl MadeUp {
    fn new() -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/fixtures/idle-vm.yaml");
        let text = fs::read_to_string(file).unwrap();
        let parse = |text: &str| -> Facts { serde_yaml::from_str(text).unwrap() };
        let facts = parse(&text);
        let vm = facts.vm.known().unwrap().clone();
        let host = |at: usize| {
            let address = format!("10.{}.{}.1/24", at / 256, at % 256);
            let mut host =
                parse(&text.replace("10.77.1.2/24", &address)).destination.known().unwrap().clone();
            host.uri = Fact::Known(format!("qemu+ssh://root@hv{at}/system"));
            host.hostname = Fact::Known(format!("hv{at}"));
            host.uuid = Fact::Known(format!("6f0d3c4e-1111-4222-8333-{at:012}").parse().unwrap());
            Fact::Known(host)
        };
        let vm = |at: usize| {
            let mut vm = vm.clone();
            let memory = (2 * GIB) << (at * 7 % 3);
            vm.name = Fact::Known(format!("web{at}"));
            vm.uuid = Fact::Known(format!("5e7c9b3e-6a0e-4c2e-9a53-{at:012}").parse().unwrap());
            (vm.memory_bytes, vm.memory_max_bytes) = (Fact::Known(memory), Fact::Known(memory));
            SiteVm { host: at / VMS_PER_HOST, vm }
        };
        Self {
            hosts: (0..HOSTS).map(host).collect(),
            vms: (0..HOSTS * VMS_PER_HOST).map(vm).collect(),
            facts,
        }
    }
}

impl Site for MadeUp {
    fn hosts(&self) -> &[Fact<Host>] {
        &self.hosts
    }

    fn vms(&self) -> &[SiteVm] {
        &self.vms
    }

    fn facts(&self, vm: usize, destination: usize) -> Facts {
        let seen = &self.vms[vm];
        Facts {
            vm: Fact::Known(seen.vm.clone()),
            source: self.hosts[seen.host].clone(),
            destination: self.hosts[destination].clone(),
            ..self.facts.clone()
        }
    }
}

fn inventory() -> Inventory {
    let hosts: Vec<String> = (0..HOSTS)
        .map(|at| {
            format!(
                "  - {{name: hv{at}, uri: 'qemu+ssh://root@hv{at}/system', rack: r{:03}, bandwidth_bytes_per_second: 1250000000}}\n",
                at / RACK
            )
        })
        .collect();
    let text = format!("schema: vmgate/inventory/v1\nhosts:\n{}", hosts.concat());
    Inventory::parse("inventory", text.as_bytes()).unwrap()
}

/// Plans of 1,000 × 20, each move held against every rule.
pub(crate) fn with_the_rules() {
    let policy = Policy::load(&[RuleSource::Builtin], None, &ParamOverrides::new()).unwrap();
    let (inventory, read) = timed(inventory);
    let site = MadeUp::new();
    let ((fleet, _), built) = timed(|| build(&inventory, &site, 256 << 20).unwrap());
    println!(
        "\n{HOSTS} hosts × {VMS_PER_HOST} VMs, every move judged by {} rules:",
        policy.pack.rules().len()
    );
    println!("- inventory read in {read:.2} s, fleet counted in {built:.2} s");
    let now = site.facts.collected_at;
    let judge = || PolicyOracle::new(&policy, &site, &fleet, &Change::default(), now);
    let ids = |range: std::ops::Range<usize>| range.map(HostId).collect::<Vec<_>>();
    let two_racks = PlanRequest { empty: ids(0..40), into: ids(40..HOSTS), earlier: &|_| None };
    let (plan, took) = timed(|| evacuate(&fleet, &judge(), &two_racks));
    println!(
        "- 40 hosts emptied: planned in {took:.2} s, {} moves, {} stay, makespan {:.0} s",
        moves(&plan),
        plan.unplaced.len(),
        plan.makespan_seconds()
    );
    let all = PlanRequest { empty: ids(0..HOSTS), into: Vec::new(), earlier: &|_| None };
    for (pace, words) in
        [(RollingPace::RackByRack, "rack by rack"), (RollingPace::AsRoomAllows, "as room allows")]
    {
        let (plan, took) = timed(|| rolling(&fleet, &judge(), &all, pace));
        println!(
            "- all hosts emptied in turn, {words}: planned in {took:.2} s, {} moves there and back in {} waits, {} stay, makespan {:.0} s",
            moves(&plan),
            plan.waves.len() / 2,
            plan.unplaced.len(),
            plan.makespan_seconds()
        );
    }
}
