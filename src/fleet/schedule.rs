//! When each move starts: as soon as its hosts have a free slot, the moves of the busiest host first.
//!
//! List scheduling, longest remaining work first. No schedule can be shorter than the busiest host's work by its number
//! of slots, so that bound is given too. The same limits hold when the plan is carried out, so a move that takes longer
//! than foretold only shifts the rest.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
};

use super::{Fleet, HostId, VmId};

/// One move with its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheduled {
    /// The VM.
    pub vm: VmId,
    /// Where it goes.
    pub destination: HostId,
    /// When it starts, seconds after the first.
    pub start_seconds: f64,
    /// When it ends.
    pub end_seconds: f64,
}

/// A set of moves in time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schedule {
    /// By start, then by VM.
    pub moves: Vec<Scheduled>,
    /// When the last one ends.
    pub makespan_seconds: f64,
    /// No schedule of these moves can end before.
    pub lower_bound_seconds: f64,
}

/// A time in a heap. Durations are finite and not negative, so their order is total.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Time(f64);

impl Eq for Time {}
impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Time {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

struct Waiting {
    vm: VmId,
    source: HostId,
    destination: HostId,
    seconds: f64,
}

/// What goes on at one moment.
#[derive(Default)]
struct Now {
    outgoing: HashMap<HostId, usize>,
    incoming: HashMap<HostId, usize>,
    groups: HashMap<usize, usize>,
    running: usize,
}

/// Times for `moves`, each with its duration in seconds.
pub fn schedule(fleet: &Fleet, moves: &[(VmId, HostId, f64)]) -> Schedule {
    let one_at_a_time = one_at_a_time(fleet);
    let mut work = work(fleet, moves);
    let lower_bound_seconds = lower_bound(fleet, &work);
    let mut waiting: BTreeMap<HostId, Vec<Waiting>> = BTreeMap::new();
    for (vm, destination, seconds) in moves {
        let Some(source) = fleet.vm(*vm).map(|vm| vm.host) else { continue };
        waiting.entry(source).or_default().push(Waiting {
            vm: *vm,
            source,
            destination: *destination,
            seconds: *seconds,
        });
    }
    for queue in waiting.values_mut() {
        queue.sort_by(|one, other| other.seconds.total_cmp(&one.seconds).then(one.vm.cmp(&other.vm)));
    }
    let mut now = Now::default();
    let mut ends: BinaryHeap<Reverse<(Time, VmId, HostId, HostId)>> = BinaryHeap::new();
    let mut done = Schedule { lower_bound_seconds, ..Schedule::default() };
    let mut clock = 0.0;
    loop {
        while let Some((host, at)) = next(fleet, &waiting, &now, &work, &one_at_a_time) {
            let Some(queue) = waiting.get_mut(&host) else { break };
            let started = queue.remove(at);
            if queue.is_empty() {
                waiting.remove(&host);
            }
            now.start(&started, &one_at_a_time);
            for (host, way) in [(started.source, 0), (started.destination, 1)] {
                if let Some(left) = work.get_mut(&(host, way)) {
                    *left -= started.seconds;
                }
            }
            let end_seconds = clock + started.seconds;
            ends.push(Reverse((Time(end_seconds), started.vm, started.source, started.destination)));
            done.moves.push(Scheduled {
                vm: started.vm,
                destination: started.destination,
                start_seconds: clock,
                end_seconds,
            });
        }
        let Some(Reverse((Time(end), vm, source, destination))) = ends.pop() else { break };
        clock = end;
        now.end(vm, source, destination, &one_at_a_time);
    }
    done.makespan_seconds = clock;
    done
}

/// The move to start now: of those that may, the one whose hosts have most work before them.
fn next(
    fleet: &Fleet,
    waiting: &BTreeMap<HostId, Vec<Waiting>>,
    now: &Now,
    work: &HashMap<(HostId, u8), f64>,
    one_at_a_time: &HashMap<VmId, Vec<usize>>,
) -> Option<(HostId, usize)> {
    if now.running >= fleet.limits.total {
        return None;
    }
    let left = |host: HostId, way: u8| work.get(&(host, way)).copied().unwrap_or(0.0);
    let mut best: Option<(f64, HostId, usize)> = None;
    for (host, queue) in waiting {
        if now.outgoing.get(host).copied().unwrap_or(0) >= fleet.limits.outgoing_per_host {
            continue;
        }
        let urgent = queue
            .iter()
            .enumerate()
            .filter(|(_, waiting)| now.lets(waiting, fleet, one_at_a_time))
            .map(|(at, waiting)| (left(*host, 0).max(left(waiting.destination, 1)), at))
            .max_by(|one, other| one.0.total_cmp(&other.0).then(other.1.cmp(&one.1)));
        if let Some((urgency, at)) = urgent
            && best.is_none_or(|(most, ..)| urgency > most)
        {
            best = Some((urgency, *host, at));
        }
    }
    best.map(|(_, host, at)| (host, at))
}

impl Now {
    fn lets(&self, waiting: &Waiting, fleet: &Fleet, one_at_a_time: &HashMap<VmId, Vec<usize>>) -> bool {
        self.incoming.get(&waiting.destination).copied().unwrap_or(0) < fleet.limits.incoming_per_host
            && one_at_a_time.get(&waiting.vm).is_none_or(|groups| {
                groups.iter().all(|group| self.groups.get(group).copied().unwrap_or(0) == 0)
            })
    }

    fn start(&mut self, started: &Waiting, one_at_a_time: &HashMap<VmId, Vec<usize>>) {
        *self.outgoing.entry(started.source).or_default() += 1;
        *self.incoming.entry(started.destination).or_default() += 1;
        for group in one_at_a_time.get(&started.vm).into_iter().flatten() {
            *self.groups.entry(*group).or_default() += 1;
        }
        self.running += 1;
    }

    fn end(
        &mut self,
        vm: VmId,
        source: HostId,
        destination: HostId,
        one_at_a_time: &HashMap<VmId, Vec<usize>>,
    ) {
        let down = |count: Option<&mut usize>| {
            if let Some(count) = count {
                *count -= 1;
            }
        };
        down(self.outgoing.get_mut(&source));
        down(self.incoming.get_mut(&destination));
        for group in one_at_a_time.get(&vm).into_iter().flatten() {
            down(self.groups.get_mut(group));
        }
        self.running -= 1;
    }
}

/// The groups of each VM of which one member moves at a time.
fn one_at_a_time(fleet: &Fleet) -> HashMap<VmId, Vec<usize>> {
    let mut of: HashMap<VmId, Vec<usize>> = HashMap::new();
    for (number, group) in fleet.affinities.iter().enumerate().filter(|(_, group)| group.one_at_a_time) {
        for vm in &group.vms {
            of.entry(*vm).or_default().push(number);
        }
    }
    of
}

/// Seconds of moves out of (0) and into (1) each host.
fn work(fleet: &Fleet, moves: &[(VmId, HostId, f64)]) -> HashMap<(HostId, u8), f64> {
    let mut work: HashMap<(HostId, u8), f64> = HashMap::new();
    for (vm, destination, seconds) in moves {
        if let Some(vm) = fleet.vm(*vm) {
            *work.entry((vm.host, 0)).or_default() += seconds;
            *work.entry((*destination, 1)).or_default() += seconds;
        }
    }
    work
}

#[allow(clippy::cast_precision_loss)] // numbers of slots
fn lower_bound(fleet: &Fleet, work: &HashMap<(HostId, u8), f64>) -> f64 {
    work.iter()
        .map(|((_, way), seconds)| {
            let slots =
                if *way == 0 { fleet.limits.outgoing_per_host } else { fleet.limits.incoming_per_host };
            seconds / slots.max(1) as f64
        })
        .fold(0.0, f64::max)
}
