//! What a page walk costs when the page-table lines it reads are not all in the L2.
//!
//! A line is 64 bytes, eight entries of one level. [`TableLines`] keeps which lines the L2 and the L3 hold of the page
//! tables (their shares of those caches, exact LRU); a walk pays for each entry where it finds its line.
//!
//! Independent walks overlap by a preset's measured divisor ([`Costs::overlapped`], HARDWARE 2.1), which contains what its
//! several walkers do. The number of walkers is a stated fact of a preset and bounds nothing: no source for it is good
//! enough to move a figure (HARDWARE 1.3).

use super::array::{Array, Entry};
use super::preset::Costs;
use super::{PageSize, Pcid, Vpn};

/// Entries per cache line of a page table, as bits.
const LINE_SHIFT: u32 = 3;

/// Page-table lines in the caches of one core.
#[derive(Clone, Debug)]
pub struct TableLines {
    l2: Array,
    l3: Array,
}

impl TableLines {
    /// Room for so many lines in the L2 and in the L3.
    pub fn new(l2_lines: u32, l3_lines: u32) -> Self {
        TableLines { l2: Array::associative(l2_lines.max(1)), l3: Array::associative(l3_lines.max(1)) }
    }

    /// Cycles of the reads of one walk: `loads` entries from the leaf upwards, for a page of `size` in context `pcid`.
    pub fn read(&mut self, costs: &Costs, vpn: Vpn, size: PageSize, pcid: Pcid, loads: u8) -> u32 {
        let leaf = size as u32;
        (leaf..leaf + u32::from(loads))
            .map(|level| {
                // The level is part of the name: bits 43 and above are free, as a line is eight pages at least.
                let line = vpn.0 >> (9 * level + LINE_SHIFT) | u64::from(level) << 42;
                let key = Entry::new(line, PageSize::K4, pcid, false);
                let held = |array: &mut Array| {
                    let hit = array.lookup(0, key, key) != Entry::EMPTY;
                    if !hit {
                        array.fill(0, key);
                    }
                    hit
                };
                if held(&mut self.l2) {
                    costs.mem_l2.cycles
                } else if held(&mut self.l3) {
                    costs.mem_l3.cycles
                } else {
                    costs.mem_dram.cycles
                }
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::Preset;

    #[test]
    fn a_line_is_paid_for_where_it_is_found() {
        let preset = Preset::builtin("skylake-sp").unwrap();
        let costs = &preset.costs;
        let mut lines = TableLines::new(2, 4);
        let mut leaf = |page| lines.read(costs, Vpn(page), PageSize::K4, Pcid(1), 1);
        assert_eq!(leaf(0), costs.mem_dram.cycles);
        assert_eq!(leaf(7), costs.mem_l2.cycles, "the same line");
        assert_eq!(leaf(8), costs.mem_dram.cycles);
        assert_eq!(leaf(16), costs.mem_dram.cycles);
        assert_eq!(leaf(0), costs.mem_l3.cycles, "pushed out of the L2, not out of the L3");
    }

    #[test]
    fn a_walk_of_four_levels_pays_four_reads_and_levels_do_not_share_lines() {
        let preset = Preset::builtin("skylake-sp").unwrap();
        let costs = &preset.costs;
        let mut lines = TableLines::new(64, 64);
        let cold = lines.read(costs, Vpn(0), PageSize::K4, Pcid(1), 4);
        assert_eq!(cold, 4 * costs.mem_dram.cycles);
        assert_eq!(lines.read(costs, Vpn(0), PageSize::K4, Pcid(1), 4), 4 * costs.mem_l2.cycles);
        assert_eq!(
            lines.read(costs, Vpn(0), PageSize::K4, Pcid(2), 1),
            costs.mem_dram.cycles,
            "another table"
        );
    }
}
