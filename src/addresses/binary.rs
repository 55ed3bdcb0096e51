//! Records of fixed size: ChampSim's instructions, DynamoRIO's trace entries. Little endian.

use super::Chunk;
use crate::hw::Kind;

/// Bytes of ChampSim's `input_instr`: ip, is_branch, branch_taken, 2 destination and 4 source registers, 2 destination
/// and 4 source addresses (`inc/trace_instruction.h`).
pub const CHAMPSIM: usize = 64;
/// Bytes of DynamoRIO's `trace_entry_t` of a 64-bit build: type, size, address, packed.
pub const ENTRY: usize = 12;

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Whether an address is one with 5-level tables: bits 63 to 56 are equal.
fn canonical(address: u64) -> bool {
    matches!(address.cast_signed() >> 56, 0 | -1)
}

/// Whether these are whole records of ChampSim: branches that are 0 or 1, and addresses that a CPU has.
pub(super) fn is_champsim(head: &[u8]) -> bool {
    let mut records = head.chunks_exact(CHAMPSIM).take(256).peekable();
    records.peek().is_some()
        && records.all(|record| {
            let addresses = (16..CHAMPSIM).step_by(8).map(|at| word(record, at));
            word(record, 0) != 0
                && record[8] <= 1
                && record[9] <= record[8]
                && addresses.chain([word(record, 0)]).all(canonical)
        })
}

/// The accesses of one instruction: its fetch, its loads, its stores.
pub(super) fn champsim(record: &[u8], chunk: &mut Chunk) -> Result<(), String> {
    if record[8] > 1 || record[9] > 1 {
        let (branch, taken) = (record[8], record[9]);
        return Err(format!("is_branch and branch_taken must be 0 or 1: got {branch} and {taken}"));
    }
    chunk.push(word(record, 0), Kind::Fetch, 0);
    for (kind, places) in [(Kind::Load, 32..64), (Kind::Store, 16..32)] {
        for at in places.step_by(8) {
            let address = word(record, at);
            if address != 0 {
                chunk.push(address, kind, 0);
            }
        }
    }
    Ok(())
}

/// Types of DynamoRIO's `trace_type_t`, by the numbers that its header `trace_entry.h` states.
mod entry {
    pub(super) const READ: u16 = 0;
    pub(super) const WRITE: u16 = 1;
    pub(super) const INSTR: u16 = 10;
    pub(super) const RETURN: u16 = 16;
    pub(super) const BUNDLE: u16 = 17;
    pub(super) const HEADER: u16 = 25;
    pub(super) const FOOTER: u16 = 26;
    pub(super) const MARKER: u16 = 28;
    pub(super) const NO_FETCH: u16 = 29;
    pub(super) const MAYBE_FETCH: u16 = 30;
    pub(super) const SYSENTER: u16 = 31;
    pub(super) const TAKEN: u16 = 48;
    pub(super) const UNTAKEN: u16 = 49;
    /// `TRACE_MARKER_TYPE_CPU_ID`.
    pub(super) const CPU_ID: u16 = 3;
}

/// Whether this begins with the header of an offline trace, of a 64-bit build, with a version that can be.
pub(super) fn is_drmemtrace(head: &[u8]) -> bool {
    head.len() >= ENTRY && half(head, 0) == entry::HEADER && half(head, 2) == 0 && word(head, 4) < 256
}

/// What entries of one thread depend on.
#[derive(Debug, Default)]
pub(super) struct Thread {
    cpu: u16,
    /// Address and length of the last instruction.
    last: (u64, u64),
    begun: bool,
    footed: bool,
}

impl Thread {
    /// One entry. Prefetches and cache flushes are left out: they do not stop for a translation.
    pub(super) fn entry(&mut self, record: &[u8], chunk: &mut Chunk) -> Result<(), String> {
        let (what, size, value) = (half(record, 0), half(record, 2), word(record, 4));
        // Another thread's trace may follow: the parts of an archive, or files one after the other.
        if self.footed && what != entry::HEADER {
            return Err(format!("an entry of type {what} follows the footer"));
        }
        match what {
            entry::READ => chunk.push(value, Kind::Load, self.cpu),
            entry::WRITE => chunk.push(value, Kind::Store, self.cpu),
            entry::INSTR..=entry::RETURN | entry::SYSENTER | entry::TAKEN | entry::UNTAKEN => {
                self.fetch(value, size, chunk);
            }
            entry::MAYBE_FETCH if value != self.last.0 => self.fetch(value, size, chunk),
            entry::MAYBE_FETCH | entry::NO_FETCH => self.last = (value, u64::from(size)),
            entry::BUNDLE => {
                let lengths = record[4..]
                    .get(..usize::from(size))
                    .ok_or_else(|| format!("a bundle must have at most 8 instructions: got {size}"))?;
                for &length in lengths {
                    self.fetch(self.last.0.wrapping_add(self.last.1), u16::from(length), chunk);
                }
            }
            entry::MARKER if size == entry::CPU_ID && value != u64::MAX => self.cpu = (value & 0xfff) as u16,
            entry::HEADER => (self.begun, self.footed) = (true, false),
            entry::FOOTER => self.footed = true,
            other if other <= entry::UNTAKEN => {}
            _ => return Err(format!("an entry must have a type up to {}: got {what}", entry::UNTAKEN)),
        }
        Ok(())
    }

    fn fetch(&mut self, pc: u64, length: u16, chunk: &mut Chunk) {
        self.last = (pc, u64::from(length));
        if length > 0 {
            chunk.push(pc, Kind::Fetch, self.cpu); // one of length 0 only tells where the next access is from
        }
    }

    /// What is wrong with an end here.
    pub(super) fn end(&mut self) -> Result<(), String> {
        if self.begun && !std::mem::replace(&mut self.footed, true) {
            return Err("the trace ends without a footer: it is cut short".into());
        }
        Ok(())
    }
}
