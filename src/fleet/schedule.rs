//! Schedule of moves: each starts as soon as its hosts have a free slot and its network has bandwidth for its share, the
//! moves of the busiest host first.
//!
//! List scheduling, longest remaining work first. No schedule can be shorter than the busiest host's work divided by its
//! number of slots, so this lower bound is given too. The same limits apply when the plan runs, so a move that takes
//! longer than forecast only delays the rest.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    iter, mem,
};

use super::{Fleet, HostId, VmId, model::MigrationRoute};

/// One move with its start and end.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduledMove {
    /// The VM.
    pub vm: VmId,
    /// The destination host.
    pub destination: HostId,
    /// Start, seconds after the first move.
    pub start_seconds: f64,
    /// End, seconds after the start of the first move.
    pub end_seconds: f64,
}

/// A set of moves with start and end times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schedule {
    /// The moves by start, then by VM.
    pub moves: Vec<ScheduledMove>,
    /// End of the last move.
    pub makespan_seconds: f64,
    /// Lower bound: no schedule of these moves can end earlier.
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
struct PendingMove {
    vm: VmId,
    source: HostId,
    destination: HostId,
    seconds: f64,
    /// Groups of which no other member may move at the same time.
    exclusive: Vec<usize>,
    /// The network and the move's share of it, bytes per second.
    share: Option<(usize, u64)>,
}

/// Moves that have not started, by their source, the longest first.
struct Queues {
    of_source: Vec<Vec<PendingMove>>,
    /// Next move of each source, with its urgency; searched again if that may have changed.
    next: Vec<Option<(f64, usize)>>,
    changed: Vec<bool>,
    /// Sources with moves into a host, of a group, and over a network with limited bandwidth.
    into: Vec<Vec<usize>>,
    groups: HashMap<usize, Vec<usize>>,
    networks: HashMap<usize, Vec<usize>>,
}

/// Moves that run at one moment, counted by host, group and network.
struct RunningMoves<'a> {
    fleet: &'a Fleet,
    outgoing: Vec<usize>,
    incoming: Vec<usize>,
    groups: HashSet<usize>,
    networks: HashMap<usize, u64>,
    running: usize,
}

/// Seconds of moves that have yet to start, out of and into each host.
struct RemainingWork {
    out: Vec<f64>,
    into: Vec<f64>,
}

/// Schedules `moves`, each given with its duration in seconds.
pub fn schedule(fleet: &Fleet, moves: &[(VmId, HostId, f64)]) -> Schedule {
    let mut queues = Queues::of(fleet, moves);
    let mut work = RemainingWork::of(&queues);
    let mut done = Schedule { lower_bound_seconds: work.lower_bound(fleet), ..Schedule::default() };
    let mut now = RunningMoves {
        fleet,
        outgoing: vec![0; queues.of_source.len()],
        incoming: vec![0; queues.of_source.len()],
        groups: HashSet::new(),
        networks: HashMap::new(),
        running: 0,
    };
    let mut running: Vec<Option<PendingMove>> = Vec::new();
    let mut ends: BinaryHeap<Reverse<(Time, usize)>> = BinaryHeap::new();
    let mut clock = 0.0;
    loop {
        while let Some(started) = queues.take(&now, &work) {
            now.start(&started);
            work.remove_started(&started);
            queues.affected_by(&started);
            let end_seconds = clock + started.seconds;
            done.moves.push(ScheduledMove {
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
            queues.affected_by(&ended);
        }
    }
    done.makespan_seconds = clock;
    done
}

impl Queues {
    fn of(fleet: &Fleet, moves: &[(VmId, HostId, f64)]) -> Self {
        let mut exclusive: HashMap<VmId, Vec<usize>> = HashMap::new();
        for (number, group) in fleet.affinities.iter().enumerate().filter(|(_, group)| group.one_at_a_time) {
            for vm in &group.vms {
                exclusive.entry(*vm).or_default().push(number);
            }
        }
        let hosts = fleet.hosts.len();
        let mut queues = Self {
            of_source: iter::repeat_with(Vec::new).take(hosts).collect(),
            next: vec![None; hosts],
            changed: vec![true; hosts],
            into: vec![Vec::new(); hosts],
            groups: HashMap::new(),
            networks: HashMap::new(),
        };
        for (vm, destination, seconds) in moves {
            let Some(source) = fleet.vm(*vm).map(|vm| vm.host) else { continue };
            let share = match fleet.route(source, *destination) {
                Some(MigrationRoute::Over(network)) if fleet.capacity(network).is_some() => {
                    Some((network, fleet.share_bytes_per_second(source, *destination)))
                }
                _ => None,
            };
            let exclusive = exclusive.remove(vm).unwrap_or_default();
            if let Some(sources) = queues.into.get_mut(destination.0) {
                sources.push(source.0);
            }
            for group in &exclusive {
                queues.groups.entry(*group).or_default().push(source.0);
            }
            if let Some((network, _)) = share {
                queues.networks.entry(network).or_default().push(source.0);
            }
            let (vm, destination, seconds) = (*vm, *destination, *seconds);
            if let Some(queue) = queues.of_source.get_mut(source.0) {
                queue.push(PendingMove { vm, source, destination, seconds, exclusive, share });
            }
        }
        for queue in &mut queues.of_source {
            queue.sort_by(|one, other| other.seconds.total_cmp(&one.seconds).then(one.vm.cmp(&other.vm)));
        }
        queues
    }

    /// The move to start now: of the moves that may start, the one whose hosts have most remaining work.
    fn take(&mut self, now: &RunningMoves, work: &RemainingWork) -> Option<PendingMove> {
        if now.running >= now.fleet.limits.total {
            return None;
        }
        let mut best: Option<(f64, usize, usize)> = None;
        let sources = self.of_source.iter().zip(&mut self.next).zip(&mut self.changed).enumerate();
        for (source, ((queue, next), changed)) in sources {
            if mem::take(changed) {
                *next = now.most_urgent(source, queue, work);
            }
            if let Some((urgency, at)) = *next
                && best.is_none_or(|(most, ..)| urgency > most)
            {
                best = Some((urgency, source, at));
            }
        }
        let (_, source, at) = best?;
        self.of_source.get_mut(source).map(|queue| queue.remove(at))
    }

    /// Marks the sources whose next move may change because a move has started or ended.
    fn affected_by(&mut self, moved: &PendingMove) {
        let into = self.into.get(moved.destination.0).into_iter().flatten();
        let groups = moved.exclusive.iter().filter_map(|group| self.groups.get(group)).flatten();
        let network = moved.share.and_then(|(network, _)| self.networks.get(&network)).into_iter().flatten();
        for source in into.chain(groups).chain(network).chain(iter::once(&moved.source.0)) {
            if let Some(changed) = self.changed.get_mut(*source) {
                *changed = true;
            }
        }
    }
}

impl RunningMoves<'_> {
    /// The move of a source to start next, with its urgency.
    fn most_urgent(
        &self,
        source: usize,
        queue: &[PendingMove],
        work: &RemainingWork,
    ) -> Option<(f64, usize)> {
        if count(&self.outgoing, HostId(source)) >= self.fleet.limits.outgoing_per_host {
            return None;
        }
        let those = queue.iter().enumerate().filter(|(_, waiting)| self.may_start(waiting));
        those
            .map(|(at, waiting)| (work.remaining_seconds(waiting), at))
            .max_by(|one, other| one.0.total_cmp(&other.0).then(other.1.cmp(&one.1)))
    }

    fn may_start(&self, waiting: &PendingMove) -> bool {
        let has_room = |(network, share): (usize, u64)| {
            let used = self.networks.get(&network).copied().unwrap_or(0);
            // A move that runs alone may use the whole network.
            used == 0
                || self.fleet.capacity(network).is_none_or(|capacity| used.saturating_add(share) <= capacity)
        };
        count(&self.incoming, waiting.destination) < self.fleet.limits.incoming_per_host
            && waiting.exclusive.iter().all(|group| !self.groups.contains(group))
            && waiting.share.is_none_or(has_room)
    }

    fn start(&mut self, started: &PendingMove) {
        update(&mut self.outgoing, started.source, |moves| *moves += 1);
        update(&mut self.incoming, started.destination, |moves| *moves += 1);
        self.groups.extend(&started.exclusive);
        if let Some((network, share)) = started.share {
            *self.networks.entry(network).or_default() += share;
        }
        self.running += 1;
    }

    fn end(&mut self, ended: &PendingMove) {
        update(&mut self.outgoing, ended.source, |moves| *moves -= 1);
        update(&mut self.incoming, ended.destination, |moves| *moves -= 1);
        self.groups.retain(|group| !ended.exclusive.contains(group));
        if let Some((network, share)) = ended.share {
            *self.networks.entry(network).or_default() -= share;
        }
        self.running -= 1;
    }
}

fn count(counts: &[usize], host: HostId) -> usize {
    counts.get(host.0).copied().unwrap_or(0)
}

/// Changes the figure of a host.
fn update<T>(figures: &mut [T], host: HostId, how: impl FnOnce(&mut T)) {
    if let Some(figure) = figures.get_mut(host.0) {
        how(figure);
    }
}

impl RemainingWork {
    fn of(queues: &Queues) -> Self {
        let hosts = queues.of_source.len();
        let mut work = Self { out: vec![0.0; hosts], into: vec![0.0; hosts] };
        for moved in queues.of_source.iter().flatten() {
            update(&mut work.out, moved.source, |seconds| *seconds += moved.seconds);
            update(&mut work.into, moved.destination, |seconds| *seconds += moved.seconds);
        }
        work
    }

    /// Remaining work of the busier of a move's two hosts, seconds.
    fn remaining_seconds(&self, waiting: &PendingMove) -> f64 {
        let left = |work: &[f64], host: HostId| work.get(host.0).copied().unwrap_or(0.0);
        left(&self.out, waiting.source).max(left(&self.into, waiting.destination))
    }

    fn remove_started(&mut self, started: &PendingMove) {
        update(&mut self.out, started.source, |seconds| *seconds -= started.seconds);
        update(&mut self.into, started.destination, |seconds| *seconds -= started.seconds);
    }

    #[allow(clippy::cast_precision_loss)] // numbers of slots
    fn lower_bound(&self, fleet: &Fleet) -> f64 {
        let most = |work: &[f64], slots: usize| {
            work.iter().map(|seconds| seconds / slots.max(1) as f64).fold(0.0, f64::max)
        };
        most(&self.out, fleet.limits.outgoing_per_host).max(most(&self.into, fleet.limits.incoming_per_host))
    }
}
