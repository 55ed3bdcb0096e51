//! vmalloc's lazy purge and the kernel stacks that live there (FACTS 3.1, 3.2; Linux 6.12 `mm/vmalloc.c`,
//! `kernel/fork.c`). No clock: the driver says when a grace period ended and when the drain work runs.
//!
//! Invariant: an area is in exactly one place: mapped, in a stack cache, waiting for RCU, lazy, being purged, free.

use super::step::Cpu;

/// `CONFIG_VMAP_STACK`: 16 KiB and a guard page.
pub const STACK_PAGES: u32 = 5;

/// `NR_CACHED_STACKS`: per CPU.
pub const CACHED_STACKS: usize = 2;

/// `lazy_max_pages()`: `fls(num_online_cpus()) * 32 MiB / PAGE_SIZE`.
pub fn lazy_max_pages(online: u32) -> u64 {
    u64::from(u32::BITS - online.leading_zeros()) * 8192
}

/// A vmalloc area: first page, and pages including the guard page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Area {
    /// First page number.
    pub at: u64,
    /// Pages, guard included.
    pub pages: u32,
}

/// What one purge flushes: the hull of all lazy areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Areas purged.
    pub areas: u32,
    /// Their pages.
    pub pages: u64,
    /// Pages of the hull: what `flush_tlb_kernel_range` is called with.
    pub hull: u64,
}

/// vmalloc space, its lazy list and the stack caches.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Vmalloc {
    lazy_max: u64,
    /// `vmap_lazy_nr`: reduced only when a purge has finished, which makes tail purges.
    lazy_nr: u64,
    lazy: Vec<Area>,
    purging: Vec<Area>,
    in_purge: bool,
    /// The drain work is queued and has not started.
    queued: bool,
    caches: Vec<[Option<Area>; CACHED_STACKS]>,
    /// Areas free for reuse; sizes differ little, so a list per size.
    free: Vec<(u32, Vec<Area>)>,
    top: u64,
}

impl Vmalloc {
    /// Empty, on a machine with `online` CPUs; `lazy_max` overrides the formula (the `lazy-tune` policy).
    pub fn new(online: u32, lazy_max: Option<u64>) -> Self {
        Vmalloc {
            lazy_max: lazy_max.unwrap_or_else(|| lazy_max_pages(online)),
            lazy_nr: 0,
            lazy: Vec::new(),
            purging: Vec::new(),
            in_purge: false,
            queued: false,
            caches: vec![[None; CACHED_STACKS]; online as usize],
            free: Vec::new(),
            top: 0,
        }
    }

    /// Pages on the lazy list and in the running purge.
    pub fn lazy_nr(&self) -> u64 {
        self.lazy_nr
    }

    /// `__vmalloc`: a new area of that many pages, guard included.
    pub fn alloc(&mut self, pages: u32) -> Area {
        if let Some((_, list)) = self.free.iter_mut().find(|(size, _)| *size == pages)
            && let Some(area) = list.pop()
        {
            return area;
        }
        let at = self.top;
        self.top += u64::from(pages);
        Area { at, pages }
    }

    /// `alloc_thread_stack_node` on a CPU: from its cache (`true`), or a new area.
    pub fn alloc_stack(&mut self, cpu: Cpu) -> (Area, bool) {
        for slot in &mut self.caches[usize::from(cpu)] {
            if let Some(area) = slot.take() {
                return (area, true);
            }
        }
        (self.alloc(STACK_PAGES), false)
    }

    /// `try_release_thread_stack_to_cache`; otherwise the area waits for a grace period.
    pub fn cache_stack(&mut self, cpu: Cpu, area: Area) -> bool {
        for slot in &mut self.caches[usize::from(cpu)] {
            if slot.is_none() {
                *slot = Some(area);
                return true;
            }
        }
        false
    }

    /// `free_vmap_area_noflush`: onto the lazy list. `true`: the drain work is to be queued now.
    pub fn vfree(&mut self, area: Area) -> bool {
        self.lazy.push(area);
        self.lazy_nr += u64::from(area.pages);
        let queue = self.lazy_nr > self.lazy_max && !self.queued;
        self.queued |= queue;
        queue
    }

    /// The drain work starts: it can be queued again from here on.
    pub fn drain_starts(&mut self) {
        self.queued = false;
    }

    /// Takes every lazy area, under `vmap_purge_lock`. `None`: nothing to purge, or a purge is running.
    pub fn purge_starts(&mut self) -> Option<Purge> {
        if self.in_purge || self.lazy.is_empty() {
            return None;
        }
        std::mem::swap(&mut self.lazy, &mut self.purging);
        self.in_purge = true;
        let first = self.purging.iter().map(|a| a.at).min()?;
        let last = self.purging.iter().map(|a| a.at + u64::from(a.pages)).max()?;
        Some(Purge {
            areas: self.purging.len() as u32,
            pages: self.purging.iter().map(|a| u64::from(a.pages)).sum(),
            hull: last - first,
        })
    }

    /// Is a purge waiting for its flush?
    pub fn in_purge(&self) -> bool {
        self.in_purge
    }

    /// The purge gave up before its flush was complete everywhere: its areas are lazy again.
    pub fn purge_postponed(&mut self) {
        self.in_purge = false;
        self.lazy.append(&mut self.purging);
    }

    /// The flush returned: addresses may be reused.
    pub fn purge_ends(&mut self) {
        self.in_purge = false;
        let mut done = std::mem::take(&mut self.purging);
        for area in done.drain(..) {
            self.lazy_nr -= u64::from(area.pages);
            match self.free.iter_mut().find(|(size, _)| *size == area.pages) {
                Some((_, list)) => list.push(area),
                None => self.free.push((area.pages, vec![area])),
            }
        }
        self.purging = done;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_what_traced_kernels_print() {
        for (online, pages) in [(2, 16384), (3, 16384), (4, 24576), (8, 32768), (16, 40960), (44, 49152)] {
            assert_eq!(lazy_max_pages(online), pages, "{online} CPUs");
        }
    }

    #[test]
    fn the_drain_work_is_queued_at_the_first_stack_beyond_the_threshold() {
        let mut v = Vmalloc::new(4, None);
        let queued_at = (1..6000).find(|_| {
            let area = v.alloc(STACK_PAGES);
            v.vfree(area)
        });
        assert_eq!(queued_at, Some(24576 / 5 + 1));
    }

    #[test]
    fn a_free_during_the_flush_queues_a_tail_purge() {
        let mut v = Vmalloc::new(2, Some(10));
        let areas: Vec<Area> = (0..4).map(|_| v.alloc(STACK_PAGES)).collect();
        assert!(!v.vfree(areas[0]) && !v.vfree(areas[1]) && v.vfree(areas[2]));
        v.drain_starts();
        assert_eq!(v.purge_starts().unwrap().areas, 3);
        assert!(v.vfree(areas[3]), "vmap_lazy_nr still counts what is being purged");
        v.purge_ends();
        assert_eq!(v.purge_starts(), Some(Purge { areas: 1, pages: 5, hull: 5 }));
    }

    #[test]
    fn addresses_come_back_only_after_the_flush() {
        let mut v = Vmalloc::new(2, Some(0));
        let first = v.alloc(STACK_PAGES);
        v.vfree(first);
        v.purge_starts();
        assert_ne!(v.alloc(STACK_PAGES), first);
        v.purge_ends();
        assert_eq!(v.alloc(STACK_PAGES), first);
    }

    #[test]
    fn areas_follow_each_other_from_the_first_page_on() {
        let mut v = Vmalloc::new(2, None);
        assert_eq!(v.alloc(5), Area { at: 0, pages: 5 });
        assert_eq!(v.alloc(3), Area { at: 5, pages: 3 });
        assert_eq!(v.alloc(5), Area { at: 8, pages: 5 });
    }
}
