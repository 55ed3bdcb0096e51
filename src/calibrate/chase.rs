//! Pointer chasing: each load's address comes from the load before, so nothing overlaps and time per load is latency.
//!
//! The nodes of a chain lie one per page, or one per cache line in few pages; the order is a random cycle, so that no
//! prefetcher follows it.

use std::hint::black_box;
use std::io;
use std::time::Instant;

use memmap2::{Advice, MmapMut, MmapOptions};

/// Bytes of the small page.
pub const PAGE: usize = 4096;
/// Bytes of a cache line.
pub const LINE: usize = 64;

/// Memory that chains are laid into.
pub struct Arena {
    map: MmapMut,
}

impl Arena {
    /// Memory of small pages, all of them touched.
    pub fn small(bytes: usize) -> io::Result<Arena> {
        let mut map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        // Refused by a kernel without huge pages, which then needs no advice.
        let _ = map.advise(Advice::NoHugePage);
        // Touched in random order, so that neighbours in here are none in memory: some CPUs join those in one entry.
        let mut pages: Vec<usize> = (0..bytes / PAGE).collect();
        shuffle(&mut pages, 77);
        for page in pages {
            map[page * PAGE] = 1;
        }
        Ok(Arena { map })
    }

    /// Memory of huge pages, where the kernel gives them to those who ask; all of it touched.
    pub fn huge(bytes: usize) -> io::Result<Arena> {
        let mut map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        let _ = map.advise(Advice::HugePage);
        for at in (0..bytes).step_by(PAGE) {
            map[at] = 1;
        }
        Ok(Arena { map })
    }

    /// Lays a cycle through the nodes at these offsets, which must be different, and returns one of them.
    pub fn link(&mut self, mut nodes: Vec<usize>, seed: u64) -> usize {
        shuffle(&mut nodes, seed);
        self.cycle(&nodes)
    }

    /// The same for nodes in rising order, page after page at random and at random within each: one translation serves
    /// all nodes of a page, so what is timed is caches, whatever size of page the hypervisor backs this memory with.
    pub fn link_in_blocks(&mut self, nodes: Vec<usize>, seed: u64) -> usize {
        let mut blocks: Vec<Vec<usize>> = Vec::new();
        for node in nodes {
            match blocks.last_mut() {
                Some(block) if block[0] / PAGE == node / PAGE => block.push(node),
                _ => blocks.push(vec![node]),
            }
        }
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        shuffle(&mut order, seed);
        let mut nodes = Vec::new();
        for i in order {
            shuffle(&mut blocks[i], seed ^ i as u64);
            nodes.append(&mut blocks[i]);
        }
        self.cycle(&nodes)
    }

    /// A chain through the same pages forth and back, in random order: each page has a node for either way, half a page
    /// apart. Of the pages just visited a TLB that keeps the latest finds as many as it holds, however they fall into
    /// its sets.
    pub fn link_zigzag(&mut self, mut nodes: Vec<usize>, seed: u64) -> usize {
        shuffle(&mut nodes, seed);
        let back = |at: usize| at / PAGE * PAGE + (at + PAGE / 2) % PAGE;
        let both: Vec<usize> = nodes.iter().copied().chain(nodes.iter().rev().map(|&at| back(at))).collect();
        self.cycle(&both)
    }

    fn cycle(&mut self, nodes: &[usize]) -> usize {
        for (i, &at) in nodes.iter().enumerate() {
            let next = nodes[(i + 1) % nodes.len()] as u64;
            self.map[at..at + 8].copy_from_slice(&next.to_le_bytes());
        }
        nodes[0]
    }

    /// Nanoseconds per load of `loads` loads along the chain from `start`.
    pub fn run(&self, start: usize, loads: u32) -> f64 {
        let began = Instant::now();
        black_box(follow(&self.map, black_box(start), loads));
        began.elapsed().as_nanos() as f64 / f64::from(loads)
    }
}

#[inline(never)]
fn follow(bytes: &[u8], mut at: usize, loads: u32) -> usize {
    for _ in 0..loads {
        let word: [u8; 8] = bytes[at..at + 8].try_into().expect("eight bytes were asked for");
        at = u64::from_le_bytes(word) as usize;
    }
    at
}

/// One node in each of these pages, each in another cache line, so that they spread over the sets of the cache.
pub fn one_per_page(pages: impl Iterator<Item = usize>) -> Vec<usize> {
    pages.enumerate().map(|(i, page)| page * PAGE + (i * 29 % (PAGE / LINE)) * LINE).collect()
}

/// Nodes in every `apart`-th cache line.
pub fn lines(count: usize, apart: usize) -> Vec<usize> {
    (0..count).map(|i| i * apart * LINE).collect()
}

/// Fisher and Yates, with splitmix64 (Steele et al. 2014).
fn shuffle(items: &mut [usize], seed: u64) {
    let mut state = seed;
    for i in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        items.swap(i, (z % (i as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_visits_every_node_once_and_returns() {
        let mut arena = Arena::small(300 * PAGE).unwrap();
        for count in [1, 2, 7, 300] {
            let start = arena.link(one_per_page(0..count), 3);
            let mut seen = std::collections::BTreeSet::new();
            let mut at = start;
            for _ in 0..count {
                seen.insert(at / PAGE);
                at = follow(&arena.map, at, 1);
            }
            assert_eq!((at, seen.len()), (start, count));
        }
    }

    #[test]
    fn a_chain_in_blocks_leaves_each_page_once() {
        let mut arena = Arena::small(16 * PAGE).unwrap();
        let nodes = lines(16 * 16, 4);
        let mut at = arena.link_in_blocks(nodes.clone(), 3);
        let (mut changes, mut seen) = (0, std::collections::BTreeSet::new());
        for _ in 0..nodes.len() {
            let next = follow(&arena.map, at, 1);
            changes += usize::from(next / PAGE != at / PAGE);
            seen.insert(next);
            at = next;
        }
        assert_eq!((changes, seen.len()), (16, nodes.len()));
    }
}
