//! Memory that earlier moves of a change will need, for a check of all moves without executing them.

use std::collections::BTreeMap;

use vmgate_facts::{Fact, Facts, Uuid};
use vmgate_verdict::{Decision, Verdict};

/// Memory that earlier moves reserve at their destinations, by the host's UUID.
#[derive(Debug, Default)]
pub struct ReservedMemory {
    memory_bytes: BTreeMap<Uuid, u64>,
}

impl ReservedMemory {
    /// Subtracts the reserved memory from the facts of the next move. Moves run one after the other, so each has the full
    /// bandwidth.
    pub fn subtract_from(&self, facts: &mut Facts) {
        let Fact::Known(destination) = &mut facts.destination else { return };
        let Fact::Known(uuid) = &destination.uuid else { return };
        let Some(reserved) = self.memory_bytes.get(uuid) else { return };
        if let Fact::Known(memory) = &mut destination.memory {
            memory.available_bytes = memory.available_bytes.saturating_sub(*reserved);
        }
    }

    /// Adds the memory of a move. A move that is not GO will not be made and needs none.
    pub fn add_move(&mut self, facts: &Facts, verdict: &Verdict) {
        let (Decision::Go(_), Some(vm), Some(destination)) =
            (verdict.decision, facts.vm.known(), facts.destination.known())
        else {
            return;
        };
        let most = vm.memory_max_bytes.known().or(vm.memory_bytes.known());
        if let (Some(most), Fact::Known(uuid)) = (most, &destination.uuid) {
            let reserved = self.memory_bytes.entry(uuid.clone()).or_default();
            *reserved = reserved.saturating_add(*most);
        }
    }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::{Host, HostMemory, Vm};
    use vmgate_verdict::sample;

    use super::*;

    fn facts() -> Facts {
        let mut facts = Facts::empty(sample::now());
        facts.vm = Fact::Known(Vm { memory_max_bytes: Fact::Known(60), ..Vm::default() });
        facts.destination = Fact::Known(Host {
            uuid: Fact::Known("6f0d3c4e-1111-4222-8333-123456789abc".parse().unwrap()),
            memory: Fact::Known(HostMemory { total_bytes: 200, available_bytes: 100 }),
            ..Host::default()
        });
        facts
    }

    fn left(reserved: &ReservedMemory) -> u64 {
        let mut facts = facts();
        reserved.subtract_from(&mut facts);
        facts.destination.known().unwrap().memory.known().unwrap().available_bytes
    }

    #[test]
    fn each_go_takes_its_memory_from_the_next_and_a_no_go_takes_none() {
        let mut reserved = ReservedMemory::default();
        assert_eq!(left(&reserved), 100);
        reserved.add_move(&facts(), &sample::no_go());
        assert_eq!(left(&reserved), 100);
        reserved.add_move(&facts(), &sample::go());
        assert_eq!(left(&reserved), 40);
        reserved.add_move(&facts(), &sample::go());
        assert_eq!(left(&reserved), 0);
    }
}
