//! The recording as text: events of all CPUs in the order of their time stamps, one line each, as the kernel prints them.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{self, Read},
};

use rustc_hash::FxHashMap;

use super::{
    bytes::Fault,
    format::Format,
    render::{Printer, decimal},
    ring::{Common, Lost, Ring},
    symbols::Symbols,
};

const BLOCK: usize = 1 << 16;

/// What turns time stamps into nanoseconds.
#[derive(Clone, Copy)]
pub enum Clock {
    /// They are.
    Nanoseconds,
    /// Cycles of the TSC: multiplier, shift, offset.
    Tsc(u64, u32, u64),
}

impl Clock {
    fn ns(self, stamp: u64) -> u64 {
        match self {
            Self::Nanoseconds => stamp,
            Self::Tsc(mult, shift, offset) => {
                let product = u128::from(stamp) * u128::from(mult);
                (product.checked_shr(shift).unwrap_or(0) as u64).wrapping_sub(offset)
            }
        }
    }
}

/// How an event is printed.
pub enum Printing {
    /// The recording has no format of it.
    Unknown,
    /// By this format, which no event has asked for yet.
    Format(Vec<u8>),
    /// As its format says.
    Known(Box<Printer>),
}

/// Reads as text.
pub struct Text {
    /// By the number of the event.
    pub printers: Vec<Printing>,
    /// Bytes of a `long`.
    pub long: usize,
    /// How the common head is laid out.
    pub common: Common,
    /// Where `kernel_stack` keeps its frames: its number, first byte, bytes of a frame.
    pub stack: Option<(u16, usize, usize)>,
    /// Names of addresses.
    pub symbols: Symbols,
    /// Names of tasks.
    pub comms: FxHashMap<u32, Box<[u8]>>,
    /// The clock.
    pub clock: Clock,
    /// One per CPU.
    pub rings: Vec<Ring>,
    /// What was written and not yet read.
    pub out: Vec<u8>,
    /// How much of it was read.
    pub read: usize,
    /// The next event of each CPU.
    pub next: BinaryHeap<Reverse<(u64, usize)>>,
    /// Why it ends before the recording does.
    pub fault: Option<Fault>,
    /// Whether every ring was begun.
    pub begun: bool,
    /// Lost events that the statistics count and no page has told of yet; None once a page lost an unknown number.
    pub lost: Option<u64>,
}

impl Text {
    fn fill(&mut self) {
        self.out.clear();
        self.read = 0;
        if !self.begun {
            self.begun = true;
            for at in 0..self.rings.len() {
                self.step(at);
            }
        }
        while self.out.len() < BLOCK {
            let Some(Reverse((_, at))) = self.next.pop() else {
                if let Some(lost) = self.lost.take().filter(|n| *n > 0) {
                    let line = format!("# entries-in-buffer/entries-written: 0/{lost}\n");
                    self.out.extend_from_slice(line.as_bytes());
                }
                return;
            };
            // Events of one CPU often follow each other: no detour through the heap for those.
            loop {
                self.line(at);
                if !self.step_if_first(at) || self.out.len() >= BLOCK {
                    break;
                }
            }
        }
    }

    /// Moves a CPU on; true if its next event is the next of all, which then stands in no heap.
    fn step_if_first(&mut self, at: usize) -> bool {
        match self.rings[at].advance() {
            Ok(true) => {
                let key = (self.rings[at].at, at);
                if self.out.len() < BLOCK && self.next.peek().is_none_or(|Reverse(other)| key < *other) {
                    return true;
                }
                self.next.push(Reverse(key));
            }
            Ok(false) => {}
            Err(fault) => self.fault = self.fault.take().or(Some(fault)),
        }
        false
    }

    fn step(&mut self, at: usize) {
        match self.rings[at].advance() {
            Ok(true) => self.next.push(Reverse((self.rings[at].at, at))),
            Ok(false) => {}
            // What the other CPUs have is still told; the fault comes at the end.
            Err(fault) => self.fault = self.fault.take().or(Some(fault)),
        }
    }

    fn line(&mut self, at: usize) {
        let ring = &self.rings[at];
        let out = &mut self.out;
        match ring.lost {
            Lost::Nothing => {}
            Lost::Events(n) => {
                self.lost = self.lost.map(|left| left.saturating_sub(n));
                out.extend_from_slice(format!("CPU:{} [LOST {n} EVENTS]\n", ring.cpu).as_bytes());
            }
            Lost::Some => {
                self.lost = None;
                out.extend_from_slice(format!("CPU:{} [LOST EVENTS]\n", ring.cpu).as_bytes());
            }
        }
        let data = ring.data();
        let Some((id, flags, preempt, pid)) = self.common.read(data) else { return };
        let comm: &[u8] = match self.comms.get(&pid) {
            _ if pid == 0 => b"<idle>",
            Some(comm) => comm,
            None => b"<...>",
        };
        out.extend_from_slice(&[b' '; 16][comm.len().min(16)..]);
        out.extend_from_slice(comm);
        out.push(b'-');
        let from = out.len();
        decimal(u64::from(pid), out);
        out.extend_from_slice(&[b' '; 7][(out.len() - from).min(7)..]);
        out.extend_from_slice(b" [");
        for limit in [100, 10] {
            if ring.cpu < limit {
                out.push(b'0');
            }
        }
        decimal(u64::from(ring.cpu), out);
        out.extend_from_slice(b"] ");
        out.extend_from_slice(&latency(flags, preempt));
        let ns = self.clock.ns(ring.at);
        out.push(b' ');
        decimal(ns / 1_000_000_000, out);
        out.push(b'.');
        let mut fraction = ns % 1_000_000_000;
        let mut digits = [b'0'; 9];
        for digit in digits.iter_mut().rev() {
            *digit += (fraction % 10) as u8;
            fraction /= 10;
        }
        out.extend_from_slice(&digits);
        out.extend_from_slice(b": ");
        if let Some((_, from, size)) = self.stack.filter(|(stack, ..)| *stack == id) {
            out.extend_from_slice(b"<stack trace>\n");
            for frame in data.get(from..).unwrap_or_default().chunks_exact(size) {
                let address = frame.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
                if address == u64::MAX || address == 0 || (size == 4 && address == 0xffff_ffff) {
                    break;
                }
                out.extend_from_slice(b" => ");
                self.symbols.write(address, false, out);
                out.push(b'\n');
            }
            return;
        }
        if let Some(printing) = self.printers.get_mut(usize::from(id))
            && let Printing::Format(text) = printing
        {
            *printing = match Format::parse(text, self.long) {
                Ok(format) => Printing::Known(Box::new(Printer::new(format, self.long))),
                Err(fault) => {
                    self.fault = self.fault.take().or(Some(fault));
                    Printing::Unknown
                }
            };
        }
        if let Some(Printing::Known(printer)) = self.printers.get(usize::from(id)) {
            // The kernel's list of names is short; events that name a task fill it up, as trace-cmd does.
            for (pid, comm) in printer.tasks(data) {
                self.comms.entry(pid).or_insert_with(|| clean(comm));
            }
            out.extend_from_slice(&printer.name);
            out.extend_from_slice(b": ");
            printer.write(data, &mut self.symbols, out);
        } else {
            out.extend_from_slice(format!("event_{id}_without_format:").as_bytes());
        }
        out.push(b'\n');
    }
}

/// A task's name, on one line.
pub fn clean(comm: &[u8]) -> Box<[u8]> {
    comm.iter().take(64).map(|b| if *b < b' ' || *b == 0x7f { b'?' } else { *b }).collect()
}

/// The column of flags: interrupts off, reschedule, hard or soft interrupt, preemption and migration depth.
fn latency(flags: u8, preempt: u8) -> [u8; 5] {
    let has = |bit: u8| flags & bit != 0;
    let (hard, soft, nmi) = (has(0x08), has(0x10), has(0x40));
    let depth = |n: u8| if n == 0 { b'.' } else { b"0123456789abcdef"[usize::from(n & 15)] };
    [
        match (has(0x01), has(0x80)) {
            (true, true) => b'D',
            (true, false) => b'd',
            (false, true) => b'b',
            (false, false) => b'.',
        },
        match (has(0x04), has(0x20)) {
            (true, true) => b'N',
            (true, false) => b'n',
            (false, true) => b'p',
            (false, false) => b'.',
        },
        match () {
            () if nmi && hard => b'Z',
            () if nmi => b'z',
            () if hard && soft => b'H',
            () if hard => b'h',
            () if soft => b's',
            () => b'.',
        },
        depth(preempt & 15),
        depth(preempt >> 4),
    ]
}

impl Read for Text {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.read == self.out.len() {
            self.fill();
        }
        if self.out.is_empty() {
            return match self.fault.take() {
                Some(fault) => Err(io::Error::other(format!("trace.dat {fault}"))),
                None => Ok(0),
            };
        }
        let n = into.len().min(self.out.len() - self.read);
        into[..n].copy_from_slice(&self.out[self.read..][..n]);
        self.read += n;
        Ok(n)
    }
}
