//! Names: symbols and task names become small numbers, and a thread id finds the name its line had lost.

use crate::order;
use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

const MAX_SYMBOLS: usize = 1 << 16;
/// `PID_MAX_LIMIT` of 64-bit kernels.
const MAX_PIDS: usize = 1 << 22;

/// A symbol or task name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sym(pub u32);

impl Sym {
    /// Not known.
    pub const NONE: Sym = Sym(0);
}

/// Strings by number. Number 0 is the empty string: not known.
pub struct Symbols {
    numbers: FxHashMap<Box<[u8]>, u32>,
    texts: Vec<Box<[u8]>>,
}

impl Default for Symbols {
    fn default() -> Self {
        Self { numbers: FxHashMap::default(), texts: vec![Box::default()] }
    }
}

impl Symbols {
    /// The number of a text; beyond 65,536 different ones it is "not known".
    pub fn number(&mut self, text: &[u8]) -> Sym {
        if text.is_empty() {
            return Sym::NONE;
        }
        if let Some(&n) = self.numbers.get(text) {
            return Sym(n);
        }
        if self.texts.len() >= MAX_SYMBOLS {
            return Sym::NONE;
        }
        let n = self.texts.len() as u32;
        self.numbers.insert(text.into(), n);
        self.texts.push(text.into());
        Sym(n)
    }

    /// Its text.
    pub fn bytes(&self, sym: Sym) -> &[u8] {
        self.texts.get(sym.0 as usize).map_or(&[], |t| t)
    }

    /// Its text for people.
    pub fn text(&self, sym: Sym) -> String {
        if sym == Sym::NONE {
            "unknown".into()
        } else {
            String::from_utf8_lossy(self.bytes(sym)).into_owned()
        }
    }
}

/// Counts by name; what was never counted is left out.
pub(super) fn text_counts(map: &FxHashMap<Sym, u64>, symbols: &Symbols) -> BTreeMap<String, u64> {
    order::gather(map.iter().filter(|(_, n)| **n > 0).map(|(s, n)| (symbols.text(*s), *n)))
}

/// Thread ids, their latest names and their control groups.
#[derive(Default)]
pub struct Tasks {
    names: Vec<Sym>,   // by thread id
    cgroups: Vec<Sym>, // as above; empty where the recording tells none
}

impl Tasks {
    /// Remembers a name.
    pub fn named(&mut self, pid: u32, comm: Sym) {
        let pid = pid as usize;
        if comm == Sym::NONE || pid >= MAX_PIDS {
            return;
        }
        if pid >= self.names.len() {
            self.names.resize((pid + 1).next_power_of_two(), Sym::NONE);
        }
        self.names[pid] = comm;
    }

    /// The name a line gives, or the one last heard of its thread if the kernel's cache had lost it.
    pub fn name(&mut self, pid: u32, comm: &[u8], symbols: &mut Symbols) -> Sym {
        if comm == b"<...>" { self.known(pid) } else { symbols.number(comm) }
    }

    /// A thread is in a control group.
    pub fn attach(&mut self, pid: u32, cgroup: Sym) {
        let pid = pid as usize;
        if cgroup == Sym::NONE || pid >= MAX_PIDS {
            return;
        }
        if pid >= self.cgroups.len() {
            self.cgroups.resize((pid + 1).next_power_of_two(), Sym::NONE);
        }
        self.cgroups[pid] = cgroup;
    }

    /// A child begins in its parent's group, and a number used before is no longer in its old one.
    pub fn forked(&mut self, parent: u32, child: u32) {
        let group = self.cgroup(parent);
        if group == Sym::NONE {
            if let Some(old) = self.cgroups.get_mut(child as usize) {
                *old = Sym::NONE;
            }
        } else {
            self.attach(child, group);
        }
    }

    /// The control group of a thread.
    pub fn cgroup(&self, pid: u32) -> Sym {
        self.cgroups.get(pid as usize).copied().unwrap_or(Sym::NONE)
    }

    /// Is any known?
    pub fn has_cgroups(&self) -> bool {
        !self.cgroups.is_empty()
    }

    /// The name last heard of.
    pub fn known(&self, pid: u32) -> Sym {
        self.names.get(pid as usize).copied().unwrap_or(Sym::NONE)
    }
}
