//! The global queue: a tournament over all CPUs, keyed by (time, CPU). A CPU that owes the others nothing has no entry.
//!
//! Each node holds the smaller of its two children, so that a change costs one comparison per level, which no branch
//! predictor has to guess, however many CPUs have entries.

use crate::kernel::step::Cpu;

/// A point in the total order of actions.
pub type Key = (u64, Cpu);

/// After everything.
pub const NEVER: u64 = u64::MAX;

/// No entry: behind every entry.
const ABSENT: u128 = packed(NEVER, Cpu::MAX);

const fn packed(time: u64, cpu: Cpu) -> u128 {
    ((time as u128) << Cpu::BITS) | cpu as u128
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Node 1 is the root, the children of node i are 2i and 2i + 1, the leaves are in the upper half.
    nodes: Vec<u128>,
}

impl Queue {
    /// Empty, for that many CPUs.
    pub fn new(cpus: usize) -> Self {
        Queue { nodes: vec![ABSENT; 2 * cpus.next_power_of_two()] }
    }

    /// The first entry.
    pub fn top(&self) -> Key {
        let first = self.nodes[1];
        ((first >> Cpu::BITS) as u64, first as Cpu)
    }

    /// A CPU's time; [`NEVER`] if it has none.
    pub fn time_of(&self, cpu: Cpu) -> u64 {
        (self.nodes[self.nodes.len() / 2 + usize::from(cpu)] >> Cpu::BITS) as u64
    }

    /// Gives a CPU a time, or none.
    pub fn set(&mut self, cpu: Cpu, time: u64) {
        let mut at = self.nodes.len() / 2 + usize::from(cpu);
        self.nodes[at] = if time == NEVER { ABSENT } else { packed(time, cpu) };
        while at > 1 {
            let first = self.nodes[at].min(self.nodes[at ^ 1]);
            at /= 2;
            if self.nodes[at] == first {
                break;
            }
            self.nodes[at] = first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_a_sorted_list_under_random_changes() {
        let mut queue = Queue::new(50);
        let mut plain = [NEVER; 50];
        let mut draws = super::super::draw::Draws::new(1, 0, 0);
        for _ in 0..5000 {
            let cpu = draws.below(50) as Cpu;
            let time = if draws.below(4) == 0 { NEVER } else { draws.below(1000) };
            queue.set(cpu, time);
            plain[usize::from(cpu)] = time;
            let first = plain.iter().enumerate().map(|(c, t)| (*t, c as Cpu)).min().unwrap();
            assert_eq!(queue.top().0, first.0);
            assert!(first.0 == NEVER || queue.top() == first);
        }
    }
}
