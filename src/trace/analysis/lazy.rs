//! The lazy list of vmalloc, replayed from its events so that each purge is charged to those who filled it.
//!
//! An area is freed by RCU or a kworker, milliseconds after its task has ended, so the task of the free event says
//! nothing; the area is charged to the task that allocated it (for a kernel stack: the forking one).

use crate::order;
use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::{
    MAX_ROWS,
    tasks::{Sym, Symbols, Tasks},
};

const MAX_AREAS: usize = 1 << 20;
const MAX_PURGES: usize = 1 << 15;
const MAX_OWNERS: usize = 1 << 14;
const OWNERS_PER_PURGE: usize = 12;

/// Who allocated an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    comm: Sym,
    cgroup: Sym,
    pid: u32,
    pages: u32,
    stack: bool,
}

impl Owner {
    const UNKNOWN: Owner = Owner { comm: Sym::NONE, cgroup: Sym::NONE, pid: 0, pages: 0, stack: false };
}

/// Areas and pages of one owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Areas handed back.
    pub areas: u64,
    /// Pages of them, guard pages included.
    pub pages: u64,
    /// Areas of the size and alignment of a kernel stack.
    pub stacks: u64,
}

impl Charge {
    fn add(&mut self, owner: Owner) {
        self.areas += 1;
        self.pages += u64::from(owner.pages);
        self.stacks += u64::from(owner.stack);
    }
}

/// One purge that purged something.
#[derive(Clone, Debug)]
pub struct PurgeRow {
    /// When its event was recorded.
    pub at_ns: u64,
    /// Line of that event.
    pub line: u64,
    /// Who ran it.
    pub by: Sym,
    /// Areas it handed back.
    pub areas: u64,
    /// Pages of the flushed hull.
    pub span_pages: u64,
    /// Largest owners and their areas.
    pub charged: Vec<(Sym, Charge)>,
    /// The same by control group; what is missing there is in a group the recording does not tell.
    pub cgroups: Vec<(Sym, Charge)>,
    /// Areas of nobody the trace knows: freed before it began, or their allocation was not recorded.
    pub unknown: u64,
}

/// Areas alive, the lazy list, and what purges took from it.
#[derive(Default)]
pub struct Lazy {
    alive: FxHashMap<u64, Owner>,
    list: VecDeque<Owner>,
    taken: Option<usize>,
    /// Purges with areas, the first 65,536.
    pub purges: Vec<PurgeRow>,
    /// Purges that purged something, and those that found nothing.
    pub counts: (u64, u64),
    /// Everything charged, by name.
    pub charged: FxHashMap<Sym, Charge>,
    /// The same by control group.
    pub cgroups: FxHashMap<Sym, Charge>,
    /// Areas charged to nobody.
    pub unknown: u64,
    /// Latest limit seen.
    pub nr_lazy_max: Option<u64>,
    /// Most pages on the list since the last purge that found something, and in the time before that.
    peaks: (u64, u64),
    /// Areas allocated and freed.
    pub traffic: (u64, u64),
    /// Pages on the list after each counted free, from when on; the first 131,072.
    pub levels: Vec<(u64, u64)>,
}

impl Lazy {
    /// An area is allocated by `pid`.
    pub fn alloc(&mut self, start: u64, size: u64, align: u64, pid: u32, comm: Sym, cgroup: Sym) {
        self.traffic.0 += 1;
        if self.alive.len() >= MAX_AREAS {
            self.alive.clear();
        }
        let pages = (size >> 12).min(u64::from(u32::MAX)) as u32;
        // THREAD_SIZE 16 KiB and its guard page, aligned to THREAD_SIZE (FACTS 3.2).
        let stack = size == 20480 && align == 16384;
        self.alive.insert(start, Owner { comm, cgroup, pid, pages, stack });
    }

    /// An area goes to the lazy list.
    pub fn free(&mut self, start: u64, (nr_lazy, nr_lazy_max): (u64, u64), at_ns: u64, counted: bool) {
        self.traffic.1 += 1;
        if counted && self.levels.len() < MAX_ROWS {
            self.levels.push((at_ns, nr_lazy));
        }
        self.peaks.0 = self.peaks.0.max(nr_lazy);
        self.nr_lazy_max = (nr_lazy_max > 0).then_some(nr_lazy_max).or(self.nr_lazy_max);
        if self.list.len() >= MAX_AREAS {
            self.list.pop_front();
        }
        let owner = self.alive.remove(&start).unwrap_or(Owner::UNKNOWN);
        self.list.push_back(owner);
    }

    /// A purge has taken the list and flushes: areas freed from now on belong to the next one.
    pub fn detach(&mut self) {
        self.taken = Some(self.list.len());
    }

    /// Events are missing, so the list is no longer known.
    pub fn hole(&mut self) {
        self.list.clear();
        self.taken = None;
    }

    /// Was the list full, so that the drain worker was due? The worker may run once more right after a purge (a tail
    /// purge, queued by frees while the flush waited), which is why the time before the last purge counts too.
    pub fn was_full(&self) -> bool {
        self.nr_lazy_max.is_some_and(|max| self.peaks.0.max(self.peaks.1) > max)
    }

    /// A purge has ended.
    #[allow(clippy::too_many_arguments)]
    pub fn purge(
        &mut self,
        (start, end, areas): (u64, u64, u64),
        at_ns: u64,
        line: u64,
        by: Sym,
        tasks: &Tasks,
        counted: bool,
    ) {
        let taken = self.taken.take().unwrap_or(self.list.len()).min(self.list.len());
        if areas == 0 {
            self.counts.1 += u64::from(counted);
            return;
        }
        self.peaks = (0, self.peaks.0);
        let known = usize::try_from(areas).unwrap_or(usize::MAX).min(taken);
        let mut owners: FxHashMap<Sym, Charge> = FxHashMap::default();
        let mut groups: FxHashMap<Sym, Charge> = FxHashMap::default();
        let mut unknown = areas - known as u64;
        for owner in self.list.drain(..known).collect::<Vec<_>>() {
            // A name the kernel's cache had lost when the area was allocated may have been heard since.
            let comm = if owner.comm == Sym::NONE { tasks.known(owner.pid) } else { owner.comm };
            if comm == Sym::NONE {
                unknown += 1;
                continue;
            }
            owners.entry(comm).or_default().add(owner);
            if owner.cgroup != Sym::NONE {
                groups.entry(owner.cgroup).or_default().add(owner);
            }
        }
        if !counted {
            return;
        }
        self.counts.0 += 1;
        self.unknown += unknown;
        let mut charged = largest_first(owners);
        let mut cgroups = largest_first(groups);
        self.unknown += sum_up(&mut self.charged, &charged);
        sum_up(&mut self.cgroups, &cgroups);
        if self.purges.len() < MAX_PURGES {
            let beyond: u64 = charged.iter().skip(OWNERS_PER_PURGE).map(|(_, c)| c.areas).sum();
            charged.truncate(OWNERS_PER_PURGE);
            cgroups.truncate(OWNERS_PER_PURGE);
            let span_pages = end.saturating_sub(start) >> 12;
            let row =
                PurgeRow { at_ns, line, by, areas, span_pages, charged, cgroups, unknown: unknown + beyond };
            self.purges.push(row);
        }
    }

    /// Counting starts anew; what is alive and on the list stays.
    pub fn restart(&mut self) {
        self.purges.clear();
        self.counts = (0, 0);
        self.charged.clear();
        self.cgroups.clear();
        self.unknown = 0;
        self.traffic = (0, 0);
    }
}

/// Names and charges by areas, largest first.
pub(super) fn by_areas(charged: &FxHashMap<Sym, Charge>, symbols: &Symbols) -> Vec<(String, Charge)> {
    let mut rows: Vec<_> = charged.iter().map(|(name, c)| (symbols.text(*name), *c)).collect();
    order::by(&mut rows, |a, b| b.1.areas.cmp(&a.1.areas).then_with(|| a.0.cmp(&b.0)));
    rows
}

fn largest_first(charges: FxHashMap<Sym, Charge>) -> Vec<(Sym, Charge)> {
    let mut rows: Vec<_> = charges.into_iter().collect();
    order::by_key(&mut rows, |(name, c)| (std::cmp::Reverse(c.areas), *name));
    rows
}

/// Adds the charges of one purge to those of all; returns the areas of names beyond those that are kept.
fn sum_up(all: &mut FxHashMap<Sym, Charge>, of_one: &[(Sym, Charge)]) -> u64 {
    let mut beyond = 0;
    for (name, c) in of_one {
        if all.len() >= MAX_OWNERS && !all.contains_key(name) {
            beyond += c.areas;
            continue;
        }
        let sum = all.entry(*name).or_default();
        sum.areas += c.areas;
        sum.pages += c.pages;
        sum.stacks += c.stacks;
    }
    beyond
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_is_charged_to_the_allocators_of_its_areas_and_sums_to_its_count() {
        let (mut symbols, tasks, mut lazy) = (Symbols::default(), Tasks::default(), Lazy::default());
        let (a, b) = (symbols.number(b"storm"), symbols.number(b"editor"));
        let service = symbols.number(b"/system.slice/storm.service");
        for i in 0..6u64 {
            let group = if i < 2 { service } else { Sym::NONE };
            lazy.alloc(i << 20, 20480, 16384, 10, if i < 4 { a } else { b }, group);
        }
        (0..5).for_each(|i| lazy.free(i << 20, (5, 24576), i, true));
        lazy.detach();
        lazy.free(5 << 20, (5, 24576), 6, true); // freed while the flush waits: the next purge's
        lazy.purge((0, 1 << 30, 7), 1, 1, a, &tasks, true);
        let row = &lazy.purges[0];
        assert_eq!(row.charged.iter().map(|(c, n)| (*c, n.areas)).collect::<Vec<_>>(), [(a, 4), (b, 1)]);
        assert_eq!(row.cgroups.iter().map(|(c, n)| (*c, n.areas)).collect::<Vec<_>>(), [(service, 2)]);
        assert_eq!(row.unknown, 2);
        assert_eq!(row.charged.iter().map(|(_, c)| c.areas).sum::<u64>() + row.unknown, row.areas);
        lazy.purge((0, 1 << 30, 1), 2, 2, a, &tasks, true);
        assert_eq!(lazy.purges[1].charged[0].0, b);
        assert_eq!(lazy.purges[1].unknown, 0);
    }

    #[test]
    fn a_name_heard_after_the_allocation_is_used() {
        let (mut symbols, mut tasks, mut lazy) = (Symbols::default(), Tasks::default(), Lazy::default());
        lazy.alloc(4096, 8192, 1, 77, Sym::NONE, Sym::NONE);
        lazy.free(4096, (1, 1), 0, true);
        tasks.named(77, symbols.number(b"late"));
        lazy.purge((0, 1, 1), 1, 1, Sym::NONE, &tasks, true);
        assert_eq!(by_areas(&lazy.charged, &symbols)[0].0, "late");
    }
}
