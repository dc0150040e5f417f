//! A campaign as a page and a monitor show it: what its own records say, and what those of its runs add.

use std::{collections::HashMap, slice};

use serde::Serialize;

use super::{Counts, State, Task, TaskState};
use crate::{
    collect::Uri,
    ledger::{
        Entry, Record, Selection,
        entry::{Kind, Migration, VerdictGiven},
    },
};

/// A campaign with the verdicts, runs and migrations of its moves, as far as they were read.
#[derive(Debug, Clone)]
pub struct Board {
    /// What the campaign's own records add up to.
    pub state: State,
    /// What else is known of each move, in the order of the change.
    pub moves: Vec<MoveSeen>,
    /// The moves of each VM, as the change names it.
    of_vm: HashMap<String, Vec<usize>>,
    runs: HashMap<String, usize>,
    seen: u64,
}

/// What the ledger knows of a move beside the campaign's records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MoveSeen {
    /// The newest verdict on it.
    pub verdict: Option<VerdictGiven>,
    /// Its migration: what was forecast and what came.
    pub migration: Option<Migration>,
    /// The host that the VM runs on after its last run; none where that is not certain or no run has ended.
    pub runs_on: Option<String>,
}

/// One host's part of a campaign.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HostCounts {
    /// Moves that leave it.
    pub leaving: Counts,
    /// Moves that come to it.
    pub coming: Counts,
}

impl Board {
    /// Nothing read yet of the campaign with this digest.
    pub fn new(campaign: &str) -> Self {
        Self {
            state: State::new(campaign),
            moves: Vec::new(),
            of_vm: HashMap::new(),
            runs: HashMap::new(),
            seen: 0,
        }
    }

    /// The records that have not been read.
    pub fn unread(&self) -> Selection {
        let kinds = vec![
            Kind::Campaign,
            Kind::Expulsion,
            Kind::Verdict,
            Kind::RunStarted,
            Kind::RunEnded,
            Kind::Migration,
        ];
        Selection { kinds, after: self.seen, ..Selection::default() }
    }

    /// Adds records, in their order. `uptime_seconds` is the reader's.
    pub fn read(&mut self, records: &[Record], uptime_seconds: f64) {
        for record in records {
            self.seen = record.sequence;
            self.state.read(slice::from_ref(record), uptime_seconds);
            if self.moves.len() < self.state.tasks.len() {
                self.begin();
            }
            self.happens(&record.entry);
        }
    }

    fn begin(&mut self) {
        self.moves = vec![MoveSeen::default(); self.state.tasks.len()];
        for (at, task) in self.state.tasks.iter().enumerate() {
            self.of_vm.entry(task.the_move.vm.clone()).or_default().push(at);
        }
    }

    fn happens(&mut self, entry: &Entry) {
        let is_ours = |change: &Option<String>| change.as_deref() == Some(&self.state.id);
        match entry {
            Entry::Verdict(given) if is_ours(&given.change) => {
                let vm = [&given.moved.vm.name, &given.moved.vm.uuid];
                if let Some(seen) = self.task_of(&vm, |_| true).and_then(|at| self.moves.get_mut(at)) {
                    seen.verdict = Some(given.clone());
                }
            }
            Entry::RunStarted(run) if is_ours(&run.change) => {
                let vm = [&run.vm.name, &run.vm.uuid];
                let same_way = |task: &Task| task.the_move.from == run.from && task.the_move.to == run.to;
                if let Some(at) = self.task_of(&vm, same_way) {
                    self.runs.insert(run.run.clone(), at);
                }
            }
            Entry::RunEnded(run) => {
                if let Some(seen) = self.move_of_run(&run.run) {
                    seen.runs_on.clone_from(&run.runs_on);
                }
            }
            Entry::Migration(migration) => {
                if let Some(seen) = self.move_of_run(&migration.run) {
                    seen.migration = Some(migration.clone());
                }
            }
            _ => {}
        }
    }

    fn move_of_run(&mut self, run: &str) -> Option<&mut MoveSeen> {
        self.runs.get(run).and_then(|at| self.moves.get_mut(*at))
    }

    /// The move of a VM that is under way, else its first.
    fn task_of(&self, vm: &[&Option<String>], is_it: impl Fn(&Task) -> bool) -> Option<usize> {
        let named = vm.iter().filter_map(|name| self.of_vm.get(name.as_ref()?)).flatten();
        let mut found =
            named.filter_map(|at| Some((*at, self.state.tasks.get(*at)?))).filter(|(_, task)| is_it(task));
        let first = found.clone().next();
        found.find(|(_, task)| matches!(task.state, TaskState::Claimed { .. })).or(first).map(|(at, _)| at)
    }

    /// How many moves stand where, by the host they leave and the host they come to.
    pub fn hosts(&self) -> Vec<(String, HostCounts)> {
        let mut hosts: Vec<(String, HostCounts)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for task in &self.state.tasks {
            for (uri, leaves) in [(&task.the_move.from, true), (&task.the_move.to, false)] {
                let name = host_name(uri);
                let at = *places.entry(name.clone()).or_insert_with(|| {
                    hosts.push((name, HostCounts::default()));
                    hosts.len() - 1
                });
                if let Some((_, counts)) = hosts.get_mut(at) {
                    let counts = if leaves { &mut counts.leaving } else { &mut counts.coming };
                    self.state.count(task, counts);
                }
            }
        }
        hosts
    }
}

/// The host of a libvirt URI, for people.
pub(super) fn host_name(uri: &str) -> String {
    uri.parse().map_or_else(|_| uri.to_owned(), |uri: Uri| uri.host_for_people().to_owned())
}
