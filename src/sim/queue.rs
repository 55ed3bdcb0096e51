//! The global queue: an indexed heap with one entry per CPU, keyed by (time, CPU). A CPU that owes the others
//! nothing has no entry.

use crate::kernel::step::Cpu;

/// A point in the total order of actions.
pub type Key = (u64, Cpu);

/// After everything.
pub const NEVER: u64 = u64::MAX;

/// See the module.
#[derive(Clone, Debug)]
pub struct Queue {
    heap: Vec<Key>,
    /// Index into `heap` plus one, by CPU; 0: absent.
    place: Vec<u32>,
}

impl Queue {
    /// Empty, for that many CPUs.
    pub fn new(cpus: usize) -> Self {
        Queue { heap: Vec::with_capacity(cpus), place: vec![0; cpus] }
    }

    /// The first entry.
    pub fn top(&self) -> Key {
        self.heap.first().copied().unwrap_or((NEVER, Cpu::MAX))
    }

    /// A CPU's time; [`NEVER`] if it has none.
    pub fn time_of(&self, cpu: Cpu) -> u64 {
        match self.place[usize::from(cpu)] {
            0 => NEVER,
            place => self.heap[place as usize - 1].0,
        }
    }

    /// Gives a CPU a time, or none.
    pub fn set(&mut self, cpu: Cpu, time: u64) {
        let at = self.place[usize::from(cpu)] as usize;
        match (at, time) {
            (0, NEVER) => {}
            (0, _) => {
                self.heap.push((time, cpu));
                self.up(self.heap.len() - 1);
            }
            (_, NEVER) => {
                let i = at - 1;
                self.place[usize::from(cpu)] = 0;
                let last = self.heap.pop().expect("it holds this CPU");
                if i < self.heap.len() {
                    self.heap[i] = last;
                    self.down(i);
                    self.up(self.place[usize::from(last.1)] as usize - 1);
                }
            }
            _ => {
                let i = at - 1;
                let old = self.heap[i].0;
                self.heap[i].0 = time;
                if time < old { self.up(i) } else { self.down(i) }
            }
        }
    }

    fn up(&mut self, mut i: usize) {
        let key = self.heap[i];
        while i > 0 && key < self.heap[(i - 1) / 2] {
            let above = self.heap[(i - 1) / 2];
            self.heap[i] = above;
            self.place[usize::from(above.1)] = i as u32 + 1;
            i = (i - 1) / 2;
        }
        self.heap[i] = key;
        self.place[usize::from(key.1)] = i as u32 + 1;
    }

    fn down(&mut self, mut i: usize) {
        let key = self.heap[i];
        loop {
            let mut child = 2 * i + 1;
            if child >= self.heap.len() {
                break;
            }
            if child + 1 < self.heap.len() && self.heap[child + 1] < self.heap[child] {
                child += 1;
            }
            if key <= self.heap[child] {
                break;
            }
            let below = self.heap[child];
            self.heap[i] = below;
            self.place[usize::from(below.1)] = i as u32 + 1;
            i = child;
        }
        self.heap[i] = key;
        self.place[usize::from(key.1)] = i as u32 + 1;
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
