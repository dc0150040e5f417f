#![allow(clippy::float_cmp)] // whole seconds

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

/// Oracle that refuses the given moves, with a forecast of memory divided by bandwidth.
#[derive(Default)]
struct Judge {
    refuses: HashSet<(VmId, HostId)>,
    stuck: HashSet<VmId>,
    memory: Vec<u64>,
}

fn why(reason: &str) -> RefusalReason {
    RefusalReason { reason: reason.to_owned(), way_out: None }
}

impl Judge {
    fn of(fleet: &Fleet) -> Self {
        Self { memory: fleet.vms.iter().map(|vm| vm.memory_bytes).collect(), ..Self::default() }
    }
}

impl Oracle for Judge {
    fn judge(&self, vm: VmId, destination: HostId) -> Ruling {
        if self.stuck.contains(&vm) {
            Ruling::NoGoAnywhere(vec![why("a device of the host is passed through")])
        } else if self.refuses.contains(&(vm, destination)) {
            Ruling::NoGo(vec![why("destination-networks-exist: br0 is missing")])
        } else {
            Ruling::Go
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn seconds(&self, vm: VmId, bytes_per_second: u64) -> Option<f64> {
        Some(self.memory[vm.0] as f64 / bytes_per_second as f64)
    }
}

/// Hosts with so many GiB free in racks of two, and VMs of so many GiB on hosts.
fn fleet(free: &[u64], vms: &[(usize, u64)]) -> Fleet {
    let hosts = free.iter().enumerate().map(|(number, free)| FleetHost {
        name: format!("hv{number}"),
        rack: format!("r{}", number / 2),
        closed: None,
        free: vec![free * GIB],
        bandwidth_bytes_per_second: GIB,
        networks: Vec::new(),
    });
    let vms = vms.iter().enumerate().map(|(number, (host, size))| FleetVm {
        name: format!("vm{number}"),
        host: HostId(*host),
        needs: vec![size * GIB],
        memory_bytes: size * GIB,
        dirty_bytes_per_second: 0,
    });
    Fleet {
        resources: vec![Resource::Memory],
        hosts: hosts.collect(),
        vms: vms.collect(),
        ..Fleet::default()
    }
}

fn request(empty: &[usize], into: &[usize]) -> PlanRequest<'static> {
    let ids = |numbers: &[usize]| numbers.iter().copied().map(HostId).collect();
    PlanRequest { empty: ids(empty), into: ids(into), earlier: &|_| None }
}

fn destinations(plan: &FleetPlan) -> HashMap<VmId, HostId> {
    plan.waves
        .iter()
        .flat_map(|wave| &wave.schedule.moves)
        .map(|moved| (moved.vm, moved.destination))
        .collect()
}

#[test]
fn every_vm_of_the_host_finds_room_and_the_largest_is_placed_first() {
    let fleet = fleet(&[0, 4, 6], &[(0, 2), (0, 2), (0, 6)]);
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[1, 2]));
    assert_eq!(plan.unplaced, []);
    assert_eq!(destinations(&plan)[&VmId(2)], HostId(2));
}

#[test]
fn a_move_that_the_rules_refuse_goes_elsewhere() {
    let fleet = fleet(&[0, 8, 8], &[(0, 2)]);
    let first = destinations(&evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[1, 2])))[&VmId(0)];
    let mut judge = Judge::of(&fleet);
    judge.refuses.insert((VmId(0), first));
    let second = destinations(&evacuate(&fleet, &judge, &request(&[0], &[1, 2])))[&VmId(0)];
    assert_ne!(first, second);
}

#[test]
fn a_vm_that_can_go_nowhere_is_named_with_the_reason() {
    let fleet = fleet(&[0, 8], &[(0, 2), (0, 3)]);
    let judge = Judge { stuck: HashSet::from([VmId(1)]), ..Judge::of(&fleet) };
    let plan = evacuate(&fleet, &judge, &request(&[0], &[1]));
    assert_eq!(plan.unplaced.len(), 1);
    assert_eq!(plan.unplaced[0].vm, VmId(1));
    assert_eq!(plan.unplaced[0].reasons, ["a device of the host is passed through"]);
    assert_eq!(destinations(&plan).len(), 1);
}

#[test]
fn a_pool_that_is_too_small_says_by_how_much() {
    let fleet = fleet(&[0, 3, 2], &[(0, 4)]);
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[1, 2]));
    assert_eq!(plan.unplaced[0].reasons, ["hv1, the closest fit, lacks 1.0 GiB of memory"]);
    assert_eq!(plan.unplaced[0].way_out, "free 1.0 GiB of memory on hv1");
    assert_eq!(plan.shortfalls, [], "5 GiB are free, only not on one host");
}

#[test]
fn what_no_placement_could_do_is_said_of_all_destinations_together() {
    let fleet = fleet(&[0, 3, 2], &[(0, 3), (0, 3)]);
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[1, 2]));
    let told: Vec<String> = plan.shortfalls.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["empty 1 host: the destinations lack 1.0 GiB of memory: 6.0 GiB needed, 5.0 GiB free"]);
}

#[test]
fn hosts_that_share_no_network_exchange_no_vms_and_a_full_network_makes_moves_wait() {
    let mut fleet = fleet(&[0, 0, 8, 8], &[(0, 1), (1, 1)]);
    let link =
        |name: &str, bandwidth| FleetNetwork { name: name.into(), bandwidth_bytes_per_second: bandwidth };
    fleet.networks = vec![link("a", Some(GIB + GIB / 2)), link("b", None)];
    for host in &mut fleet.hosts {
        host.networks = vec![0];
    }
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0, 1], &[2, 3]));
    assert_eq!(
        plan.makespan_seconds(),
        2.0,
        "the network carries one move at its full rate and half another"
    );
    fleet.hosts[3].networks = vec![1];
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[3]));
    assert_eq!(plan.unplaced[0].reasons, ["hv3 shares no migration network with the VM's host"]);
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[2, 3]));
    assert_eq!(destinations(&plan)[&VmId(0)], HostId(2));
}

#[test]
fn a_placed_vm_makes_room_for_one_that_fits_nowhere_else() {
    // vm0 is larger and would go to hv1, the roomier; only there vm1 is let in.
    let fleet = fleet(&[0, 5, 4], &[(0, 4), (0, 3)]);
    let judge = Judge { refuses: HashSet::from([(VmId(1), HostId(2))]), ..Judge::of(&fleet) };
    let plan = evacuate(&fleet, &judge, &request(&[0], &[1, 2]));
    assert_eq!(plan.unplaced, []);
    assert_eq!(destinations(&plan), HashMap::from([(VmId(0), HostId(2)), (VmId(1), HostId(1))]));
}

fn group(rule: Option<(AffinityRule, GroupScope)>, vms: &[usize], one_at_a_time: bool) -> AffinityGroup {
    AffinityGroup { name: "galera".into(), rule, vms: vms.iter().copied().map(VmId).collect(), one_at_a_time }
}

#[test]
fn members_that_must_be_apart_are_counted_where_they_stay_too() {
    let mut fleet = fleet(&[0, 8, 8, 8], &[(0, 1), (1, 1)]);
    fleet.affinities = vec![group(Some((AffinityRule::Apart, GroupScope::Host)), &[0, 1], false)];
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[1]));
    assert!(plan.unplaced[0].reasons[0].contains("`galera`"), "{:?}", plan.unplaced);
    // hv0 and hv1 are one rack, hv2 and hv3 another.
    fleet.affinities = vec![group(Some((AffinityRule::Apart, GroupScope::Rack)), &[0, 1], false)];
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[1, 2]));
    assert_eq!(destinations(&plan)[&VmId(0)], HostId(2));
}

#[test]
fn members_that_must_be_together_go_to_one_host_or_to_the_one_that_stays() {
    let mut fleet = fleet(&[0, 4, 5, 8], &[(0, 3), (0, 2), (3, 1)]);
    fleet.affinities = vec![group(Some((AffinityRule::Together, GroupScope::Host)), &[0, 1], false)];
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[1, 2]));
    assert_eq!(destinations(&plan), HashMap::from([(VmId(0), HostId(2)), (VmId(1), HostId(2))]));
    fleet.affinities = vec![group(Some((AffinityRule::Together, GroupScope::Host)), &[0, 2], false)];
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[1, 2, 3]));
    assert_eq!(destinations(&plan)[&VmId(0)], HostId(3));
}

#[test]
fn two_members_of_a_cluster_never_move_at_once() {
    let mut fleet = fleet(&[0, 0, 8, 8], &[(0, 1), (1, 1)]);
    let at_once = evacuate(&fleet, &Judge::of(&fleet), &request(&[0, 1], &[2, 3]));
    assert_eq!(at_once.makespan_seconds(), 1.0);
    fleet.affinities = vec![group(None, &[0, 1], true)];
    let apart = evacuate(&fleet, &Judge::of(&fleet), &request(&[0, 1], &[2, 3]));
    assert_eq!(apart.makespan_seconds(), 2.0);
}

#[test]
fn incoming_moves_are_spread_so_that_the_busiest_source_decides() {
    let fleet = fleet(&[0, 0, 40, 40, 0, 0], &[(0, 2), (0, 2), (1, 2), (1, 2)]);
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0, 1], &[2, 3]));
    assert_eq!(plan.makespan_seconds(), 4.0);
    assert_eq!(plan.waves[0].schedule.lower_bound_seconds, 4.0);
}

#[test]
fn an_earlier_plan_is_kept_where_it_serves() {
    let fleet = fleet(&[0, 8, 8, 8], &[(0, 1), (0, 1), (0, 1)]);
    let earlier = |vm: VmId| [Some(HostId(3)), Some(HostId(2)), None][vm.0];
    let judge = Judge { refuses: HashSet::from([(VmId(1), HostId(2))]), ..Judge::of(&fleet) };
    let plan = evacuate(&fleet, &judge, &PlanRequest { earlier: &earlier, ..request(&[0], &[1, 2, 3]) });
    let to = destinations(&plan);
    assert_eq!(to[&VmId(0)], HostId(3));
    assert_ne!(to[&VmId(1)], HostId(2));
}

#[test]
fn rolling_empties_a_rack_and_brings_its_vms_back_before_the_next() {
    let fleet = fleet(&[2, 2, 2, 2], &[(0, 1), (1, 1), (2, 1), (3, 1)]);
    let plan = rolling(&fleet, &Judge::of(&fleet), &request(&[0, 1, 2, 3], &[]), RollingPace::RackByRack);
    let titles: Vec<&str> = plan.waves.iter().map(|wave| wave.title.as_str()).collect();
    assert_eq!(titles, ["empty r0", "back to r0", "empty r1", "back to r1"]);
    assert_eq!(plan.unplaced, []);
    for moved in &plan.waves[1].schedule.moves {
        assert_eq!(moved.destination, fleet.vms[moved.vm.0].host);
    }
}

#[test]
fn a_move_back_is_as_slow_as_the_slower_link_whichever_end_has_it() {
    let mut fleet = fleet(&[0, 0, 2, 2], &[(0, 1), (1, 1)]);
    for host in &mut fleet.hosts[2..] {
        host.bandwidth_bytes_per_second = GIB / 4;
    }
    let judge = Judge::of(&fleet);
    let plan = rolling(&fleet, &judge, &request(&[0, 1], &[2, 3]), RollingPace::RackByRack);
    let hosts: Vec<(usize, usize)> =
        plan.moves(&fleet).map(|(_, moved, from)| (from.0 / 2, moved.destination.0 / 2)).collect();
    assert_eq!(hosts, [(0, 1), (0, 1), (1, 0), (1, 0)]);
    assert_eq!(plan.one_by_one_seconds(&fleet, &judge), 16.0, "there and back, two VMs, 4 s each");
}

#[test]
fn as_many_racks_are_away_at_once_as_the_others_have_room_for() {
    let fleet = fleet(&[1, 1, 1, 1, 1, 1, 1, 1], &(0..8).map(|host| (host, 1)).collect::<Vec<_>>());
    let all: Vec<usize> = (0..8).collect();
    let plan = rolling(&fleet, &Judge::of(&fleet), &request(&all, &[]), RollingPace::AsRoomAllows);
    let titles: Vec<&str> = plan.waves.iter().map(|wave| wave.title.as_str()).collect();
    assert_eq!(titles, ["empty r0 to r1", "back to r0 to r1", "empty r2 to r3", "back to r2 to r3"]);
    assert_eq!(plan.unplaced, []);
    assert_eq!(plan.makespan_seconds(), 4.0, "each host gives and takes one");
}

#[test]
fn a_vm_that_can_go_nowhere_does_not_make_the_others_wait() {
    let fleet = fleet(&[1, 1, 1, 1, 1, 1, 1, 1], &(0..8).map(|host| (host, 1)).collect::<Vec<_>>());
    let judge = Judge { stuck: HashSet::from([VmId(0)]), ..Judge::of(&fleet) };
    let all: Vec<usize> = (0..8).collect();
    let plan = rolling(&fleet, &judge, &request(&all, &[]), RollingPace::AsRoomAllows);
    let titles: Vec<&str> = plan.waves.iter().map(|wave| wave.title.as_str()).collect();
    assert_eq!(titles, ["empty r0 to r1", "back to r0 to r1", "empty r2 to r3", "back to r2 to r3"]);
    assert_eq!(plan.unplaced.iter().map(|unplaced| unplaced.vm).collect::<Vec<_>>(), [VmId(0)]);
}

#[test]
fn a_host_in_maintenance_takes_nothing() {
    let mut fleet = fleet(&[0, 8, 8], &[(0, 1)]);
    fleet.hosts[1].closed = Some("in maintenance: new disks".to_owned());
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[1, 2]));
    assert_eq!(destinations(&plan)[&VmId(0)], HostId(2));
    let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0], &[1]));
    let told = format!("{} takes no VMs, in maintenance: new disks", fleet.hosts[1].name);
    assert_eq!(plan.unplaced[0].reasons, [told]);
    assert_eq!(plan.shortfalls, []);
}

prop_compose! {
    fn any_fleet()(
        free in prop::collection::vec(0_u64..40, 3..8),
        vms in prop::collection::vec((0_usize..3, 1_u64..12), 1..25),
        slots in 1_usize..4,
    ) -> Fleet {
        let mut fleet = fleet(&free, &vms);
        fleet.limits = Limits { outgoing_per_host: slots, incoming_per_host: 2, total: 5 };
        fleet
    }
}

proptest! {
    #[test]
    fn a_plan_keeps_to_room_and_limits_and_accounts_for_every_vm(fleet in any_fleet()) {
        let into: Vec<usize> = (2..fleet.hosts.len()).collect();
        let plan = evacuate(&fleet, &Judge::of(&fleet), &request(&[0, 1], &into));
        let leaving = fleet.vms.iter().filter(|vm| vm.host.0 < 2).count();
        let schedule = &plan.waves[0].schedule;
        prop_assert_eq!(schedule.moves.len() + plan.unplaced.len(), leaving);
        for (number, host) in fleet.hosts.iter().enumerate() {
            let arrives: u64 = schedule.moves.iter().filter(|moved| moved.destination == HostId(number))
                .map(|moved| fleet.vms[moved.vm.0].needs[0]).sum();
            prop_assert!(arrives <= host.free[0]);
        }
        for moved in &schedule.moves {
            let at = moved.start_seconds;
            let running: Vec<_> = schedule.moves.iter()
                .filter(|other| other.start_seconds <= at && at < other.end_seconds).collect();
            let source = fleet.vms[moved.vm.0].host;
            let out = running.iter().filter(|other| fleet.vms[other.vm.0].host == source).count();
            let into = running.iter().filter(|other| other.destination == moved.destination).count();
            prop_assert!(out <= fleet.limits.outgoing_per_host && into <= 2 && running.len() <= 5);
        }
        prop_assert!(schedule.makespan_seconds >= schedule.lower_bound_seconds - 1e-6);
    }

    #[test]
    fn the_same_fleet_gives_the_same_plan(fleet in any_fleet()) {
        let plan = || evacuate(&fleet, &Judge::of(&fleet), &request(&[0, 1], &[2, 3, 4]));
        prop_assert_eq!(plan(), plan());
    }
}
