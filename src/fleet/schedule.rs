//! When each move starts: as soon as its hosts have a free slot and its network has room for its share, the moves of the
//! busiest host first.
//!
//! List scheduling, longest remaining work first. No schedule can be shorter than the busiest host's work by its number
//! of slots, so that bound is given too. The same limits hold when the plan is carried out, so a move that takes longer
//! than foretold only shifts the rest.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
};

use super::{Fleet, HostId, VmId, model::Way};

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

/// A move that has not started.
struct Waiting {
    vm: VmId,
    source: HostId,
    destination: HostId,
    seconds: f64,
    /// Groups of which no other member may move meanwhile.
    exclusive: Vec<usize>,
    /// The network that it takes a share of, bytes per second.
    share: Option<(usize, u64)>,
}

/// What goes on at one moment.
struct Now<'a> {
    fleet: &'a Fleet,
    outgoing: HashMap<HostId, usize>,
    incoming: HashMap<HostId, usize>,
    groups: HashSet<usize>,
    networks: HashMap<usize, u64>,
    running: usize,
}

/// Seconds of moves that have yet to start, out of and into each host.
#[derive(Default)]
struct Work {
    out: HashMap<HostId, f64>,
    into: HashMap<HostId, f64>,
}

/// Times for `moves`, each with its duration in seconds.
pub fn schedule(fleet: &Fleet, moves: &[(VmId, HostId, f64)]) -> Schedule {
    let mut waiting = waiting(fleet, moves);
    let mut work = Work::default();
    for moved in waiting.values().flatten() {
        *work.out.entry(moved.source).or_default() += moved.seconds;
        *work.into.entry(moved.destination).or_default() += moved.seconds;
    }
    let mut done = Schedule { lower_bound_seconds: work.lower_bound(fleet), ..Schedule::default() };
    let mut now = Now {
        fleet,
        outgoing: HashMap::new(),
        incoming: HashMap::new(),
        groups: HashSet::new(),
        networks: HashMap::new(),
        running: 0,
    };
    let mut running: Vec<Option<Waiting>> = Vec::new();
    let mut ends: BinaryHeap<Reverse<(Time, usize)>> = BinaryHeap::new();
    let mut clock = 0.0;
    loop {
        while let Some(started) =
            now.next(&waiting, &work).and_then(|(host, at)| take(&mut waiting, host, at))
        {
            now.start(&started);
            work.begins(&started);
            let end_seconds = clock + started.seconds;
            done.moves.push(Scheduled {
                vm: started.vm,
                destination: started.destination,
                start_seconds: clock,
                end_seconds,
            });
            ends.push(Reverse((Time(end_seconds), running.len())));
            running.push(Some(started));
        }
        let Some(Reverse((Time(end), at))) = ends.pop() else { break };
        clock = end;
        if let Some(ended) = running.get_mut(at).and_then(Option::take) {
            now.end(&ended);
        }
    }
    done.makespan_seconds = clock;
    done
}

/// The moves by their source, the longest first.
fn waiting(fleet: &Fleet, moves: &[(VmId, HostId, f64)]) -> BTreeMap<HostId, Vec<Waiting>> {
    let mut exclusive: HashMap<VmId, Vec<usize>> = HashMap::new();
    for (number, group) in fleet.affinities.iter().enumerate().filter(|(_, group)| group.one_at_a_time) {
        for vm in &group.vms {
            exclusive.entry(*vm).or_default().push(number);
        }
    }
    let mut waiting: BTreeMap<HostId, Vec<Waiting>> = BTreeMap::new();
    for (vm, destination, seconds) in moves {
        let Some(source) = fleet.vm(*vm).map(|vm| vm.host) else { continue };
        let share = match fleet.way(source, *destination) {
            Some(Way::Over(network)) => Some((network, fleet.share_bytes_per_second(source, *destination))),
            _ => None,
        };
        waiting.entry(source).or_default().push(Waiting {
            vm: *vm,
            source,
            destination: *destination,
            seconds: *seconds,
            exclusive: exclusive.remove(vm).unwrap_or_default(),
            share,
        });
    }
    for queue in waiting.values_mut() {
        queue.sort_by(|one, other| other.seconds.total_cmp(&one.seconds).then(one.vm.cmp(&other.vm)));
    }
    waiting
}

fn take(waiting: &mut BTreeMap<HostId, Vec<Waiting>>, host: HostId, at: usize) -> Option<Waiting> {
    let queue = waiting.get_mut(&host)?;
    let taken = (at < queue.len()).then(|| queue.remove(at));
    if queue.is_empty() {
        waiting.remove(&host);
    }
    taken
}

impl Now<'_> {
    /// The move to start now: of those that may, the one whose hosts have most work before them.
    fn next(&self, waiting: &BTreeMap<HostId, Vec<Waiting>>, work: &Work) -> Option<(HostId, usize)> {
        if self.running >= self.fleet.limits.total {
            return None;
        }
        let mut best: Option<(f64, HostId, usize)> = None;
        for (host, queue) in waiting {
            if count(&self.outgoing, *host) >= self.fleet.limits.outgoing_per_host {
                continue;
            }
            let urgent = queue
                .iter()
                .enumerate()
                .filter(|(_, waiting)| self.lets(waiting))
                .map(|(at, waiting)| (work.before(waiting), at))
                .max_by(|one, other| one.0.total_cmp(&other.0).then(other.1.cmp(&one.1)));
            if let Some((urgency, at)) = urgent
                && best.is_none_or(|(most, ..)| urgency > most)
            {
                best = Some((urgency, *host, at));
            }
        }
        best.map(|(_, host, at)| (host, at))
    }

    fn lets(&self, waiting: &Waiting) -> bool {
        let has_room = |(network, share): (usize, u64)| {
            let used = self.networks.get(&network).copied().unwrap_or(0);
            // What runs alone may take all that there is.
            used == 0
                || self.fleet.capacity(network).is_none_or(|capacity| used.saturating_add(share) <= capacity)
        };
        count(&self.incoming, waiting.destination) < self.fleet.limits.incoming_per_host
            && waiting.exclusive.iter().all(|group| !self.groups.contains(group))
            && waiting.share.is_none_or(has_room)
    }

    fn start(&mut self, started: &Waiting) {
        *self.outgoing.entry(started.source).or_default() += 1;
        *self.incoming.entry(started.destination).or_default() += 1;
        self.groups.extend(&started.exclusive);
        if let Some((network, share)) = started.share {
            *self.networks.entry(network).or_default() += share;
        }
        self.running += 1;
    }

    fn end(&mut self, ended: &Waiting) {
        *self.outgoing.entry(ended.source).or_default() -= 1;
        *self.incoming.entry(ended.destination).or_default() -= 1;
        self.groups.retain(|group| !ended.exclusive.contains(group));
        if let Some((network, share)) = ended.share {
            *self.networks.entry(network).or_default() -= share;
        }
        self.running -= 1;
    }
}

fn count(counts: &HashMap<HostId, usize>, host: HostId) -> usize {
    counts.get(&host).copied().unwrap_or(0)
}

impl Work {
    /// The work before the busier of a move's hosts.
    fn before(&self, waiting: &Waiting) -> f64 {
        let left = |work: &HashMap<HostId, f64>, host| work.get(&host).copied().unwrap_or(0.0);
        left(&self.out, waiting.source).max(left(&self.into, waiting.destination))
    }

    fn begins(&mut self, started: &Waiting) {
        *self.out.entry(started.source).or_default() -= started.seconds;
        *self.into.entry(started.destination).or_default() -= started.seconds;
    }

    #[allow(clippy::cast_precision_loss)] // numbers of slots
    fn lower_bound(&self, fleet: &Fleet) -> f64 {
        let most = |work: &HashMap<HostId, f64>, slots: usize| {
            work.values().map(|seconds| seconds / slots.max(1) as f64).fold(0.0, f64::max)
        };
        most(&self.out, fleet.limits.outgoing_per_host).max(most(&self.into, fleet.limits.incoming_per_host))
    }
}
