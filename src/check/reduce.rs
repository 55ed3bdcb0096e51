//! Symmetry: CPUs with the same role that send nothing are interchangeable, so one order of them stands for all.
//!
//! Programs contain no CPU numbers and loops over sets go in every order, so renaming such CPUs maps runs to
//! runs. The canonical state has their words sorted; what others hold about them moves along.

use super::layout::{Bits, Frame, Target};
use super::machine::Model;
use crate::kernel::program::Op;

/// Which CPUs are interchangeable, and what names them in the words of others.
#[derive(Clone, Debug, Default)]
pub struct Symmetry {
    classes: Vec<Class>,
}

/// CPUs that can be exchanged for each other.
#[derive(Clone, Debug)]
pub struct Class {
    /// Which.
    pub cpus: Vec<usize>,
    /// First word of each, and how many.
    first: Vec<usize>,
    words: usize,
    /// Other CPUs whose words name these.
    pub holders: Vec<usize>,
    /// Fields of other CPUs with a bit per CPU.
    masks: Vec<Bits>,
    /// Fields of other CPUs that hold a CPU number.
    numbers: Vec<Bits>,
    /// Buffered stores of other CPUs into copies of these: the field, its bits of value, and which kind becomes
    /// which when CPU `a` becomes `b`.
    stores: Vec<Store>,
}

#[derive(Clone, Debug)]
struct Store {
    slot: Bits,
    pending: Bits,
    at: u64,
    value_bits: u32,
    /// Kind of store to (kind to CPU a's copy) for each CPU, flattened: `kind * cpus + a`.
    renamed: Vec<u8>,
    /// Whose copy a kind writes, plus one; 0 for none of ours.
    owner: Vec<u8>,
}

impl Symmetry {
    /// The interchangeable CPUs of a model.
    pub fn new(m: &Model) -> Symmetry {
        if m.layout.migrates {
            return Symmetry::default(); // whose task a CPU runs is named in its words
        }
        let n = m.layout.cpus.len();
        let quiet = |i: usize| {
            let c = &m.layout.cpus[i];
            let loops = c.frames.iter().any(|f| {
                f.locations.iter().any(|l| matches!(l.op, Op::Each { .. } | Op::Ipi { .. } | Op::Rar(_)))
            });
            // `mm_cpumask` names CPUs in shared words, which are not sorted along.
            let masked = m.layout.shared.masks.iter().any(|b| b.exists());
            let asks = c.grace.exists() || !c.later.is_empty();
            !loops && !asks && !c.waits.exists() && !masked && !m.scope.names_cpu(i)
        };
        let mut classes: Vec<Vec<usize>> = Vec::new();
        for i in (0..n).filter(|&i| quiet(i)) {
            match classes.iter_mut().find(|c| m.scope.roles[c[0]] == m.scope.roles[i]) {
                Some(c) => c.push(i),
                None => classes.push(vec![i]),
            }
        }
        let classes = classes
            .into_iter()
            .filter(|c| c.len() > 1)
            .map(|cpus| {
                let others = (0..n).filter(|i| !cpus.contains(i));
                let mut holders = Vec::new();
                let (mut masks, mut numbers, mut stores) = (Vec::new(), Vec::new(), Vec::new());
                for o in others {
                    let c = &m.layout.cpus[o];
                    let named = |f: &Frame| f.visited.exists() || f.targets.exists() || f.cur.exists();
                    let graces = || c.later.iter().map(|l| l.waits).chain([c.grace]).filter(|b| b.exists());
                    if c.waits.exists() || graces().next().is_some() || c.frames.iter().any(named) {
                        holders.push(o);
                    }
                    masks.push(c.waits);
                    masks.extend(graces());
                    for f in &c.frames {
                        masks.extend([f.visited, f.targets]);
                        numbers.push(f.cur);
                    }
                    let owner_of = |t: &Target| match t {
                        Target::Field { field, owner } => {
                            let var = m.code.fields[usize::from(*field)].var;
                            let ours =
                                m.code.vars[usize::from(var)].per_cpu && cpus.contains(&usize::from(*owner));
                            if ours { owner + 1 } else { 0 }
                        }
                        Target::Entry { .. } | Target::Lines { .. } | Target::Ack { .. } => 0,
                    };
                    let owner: Vec<u8> = c.targets.iter().map(owner_of).collect();
                    if owner.iter().all(|&x| x == 0) {
                        continue;
                    }
                    if holders.last() != Some(&o) {
                        holders.push(o);
                    }
                    let mut renamed = vec![0; c.targets.len() * n];
                    for (k, t) in c.targets.iter().enumerate() {
                        for a in 0..n {
                            let to = match *t {
                                Target::Field { field, .. } if owner[k] != 0 => c
                                    .targets
                                    .iter()
                                    .position(|u| *u == Target::Field { field, owner: a as u8 })
                                    .unwrap_or(k),
                                _ => k,
                            };
                            renamed[k * n + a] = to as u8;
                        }
                    }
                    for (at, &slot) in c.stores.iter().enumerate() {
                        stores.push(Store {
                            slot,
                            pending: c.pending,
                            at: at as u64,
                            value_bits: c.value_bits,
                            renamed: renamed.clone(),
                            owner: owner.clone(),
                        });
                    }
                }
                masks.retain(|b| b.exists());
                numbers.retain(|b| b.exists());
                let first = cpus.iter().map(|&i| m.layout.cpus[i].words.0).collect();
                Class { words: m.layout.cpus[cpus[0]].words.1, cpus, first, holders, masks, numbers, stores }
            })
            .collect();
        Symmetry { classes }
    }

    /// The classes; none if there is nothing to reduce.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }
}

impl Class {
    /// What a CPU of other words holds about one CPU.
    pub fn about(&self, s: &[u64], cpu: usize) -> u64 {
        let mut key = 0;
        for b in &self.masks {
            key = key << 1 | b.get(s) >> cpu & 1;
        }
        for b in &self.numbers {
            key = key << 1 | u64::from(b.get(s) == cpu as u64);
        }
        for x in &self.stores {
            let names = x.at < x.pending.get(s)
                && usize::from(x.owner[(x.slot.get(s) >> x.value_bits) as usize]) == cpu + 1;
            key = key << 1 | u64::from(names);
        }
        key
    }

    /// Rename: the `i`th CPU becomes what the `order[i]`th was.
    pub fn rename(&self, s: &mut [u64], order: &[usize]) {
        let old = s.to_vec();
        for (to, &from) in order.iter().enumerate() {
            for w in 0..self.words {
                s[self.first[to] + w] = old[self.first[from] + w];
            }
        }
        for b in &self.masks {
            let v = b.get(&old);
            let mut new = v;
            for (to, &from) in order.iter().enumerate() {
                let (to, from) = (self.cpus[to], self.cpus[from]);
                new = new & !(1 << to) | (v >> from & 1) << to;
            }
            let _ = b.put(s, new);
        }
        let renamed = |cpu: u64| {
            order
                .iter()
                .position(|&from| self.cpus[from] as u64 == cpu)
                .map_or(cpu, |to| self.cpus[to] as u64)
        };
        for b in &self.numbers {
            let _ = b.put(s, renamed(b.get(&old)));
        }
        for x in &self.stores {
            let e = x.slot.get(&old);
            let kind = (e >> x.value_bits) as usize;
            if x.at < x.pending.get(&old) && x.owner[kind] != 0 {
                let cpus = x.renamed.len() / x.owner.len();
                let to = renamed(u64::from(x.owner[kind]) - 1) as usize;
                let kind = u64::from(x.renamed[kind * cpus + to]);
                let _ = x.slot.put(s, kind << x.value_bits | e & ((1 << x.value_bits) - 1));
            }
        }
    }
}
