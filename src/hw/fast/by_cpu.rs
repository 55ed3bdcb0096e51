//! Events on many CPUs of any shape: those of each CPU by themselves, as a [`Flow`].
//!
//! CPUs share nothing: but for INVLPGB and changes of tables, which end a part, an event concerns the TLBs of its CPU alone.
//! So a part is sorted by CPU, in the order of its events, and each CPU's state is in the caches once per part, however many
//! CPUs there are. Where a page was met as global and not as global, or something is stale, events go one by one.

use super::flow::{self, Buffers, Flow};
use crate::hw::carry::carry_out;
use crate::hw::cpus::Cpus;
use crate::hw::event::{CHUNK, EVENT_BYTES, Event, NO_ACCESS, Op, flags};
use crate::hw::tlb::Tlb;
use crate::hw::{PageSize, Pcid, TlbError};

/// Events that are copied and sorted at once.
const BLOCK: usize = 1 << 16;
/// Fewer events of a CPU go one by one.
const WORTH_A_FLOW: usize = 8;

type Bytes = [u8; EVENT_BYTES];

/// Runs events; fails as [`Cpus::run`] does.
pub(in crate::hw) fn run(
    cpus: &mut Cpus,
    events: &[Bytes],
    mut levels: Option<&mut [u8]>,
    offset: usize,
) -> Result<(), TlbError> {
    let rules = cpus.rules();
    let mut copy = Vec::new();
    let mut sorted = Sorted::default();
    let mut buffers = None;
    for (number, block) in events.chunks(BLOCK).enumerate() {
        let start = number * BLOCK;
        copy.clear();
        for (chunk, events) in block.chunks(CHUNK).enumerate() {
            copy.extend_from_slice(events);
            rules.check(&copy[chunk * CHUNK..], offset + start + chunk * CHUNK)?;
        }
        let mut at = 0;
        while at < copy.len() {
            let many = copy[at..].iter().position(|event| event[OP] >= Op::Invlpgb as u8);
            let end = many.map_or(copy.len(), |many| at + many);
            let out = levels.as_deref_mut().map(|levels| &mut levels[start + at..start + end]);
            part(cpus, &copy[at..end], out, &mut sorted, &mut buffers);
            at = end;
            if let Some(event) = copy.get(at) {
                let level = cpus.step(Event::read(event));
                if let Some(levels) = levels.as_deref_mut() {
                    levels[start + at] = level;
                }
                at += 1;
            }
        }
    }
    Ok(())
}

/// Where an event has its op, and where its flags.
const OP: usize = 14;
const FLAGS: usize = 15;

fn cpu_of(event: &Bytes) -> usize {
    usize::from(u16::from_le_bytes([event[10], event[11]]))
}

/// Events by CPU, in order, and which of the part each is; the numbers only where somebody asks for answers.
#[derive(Default)]
struct Sorted {
    events: Vec<Bytes>,
    numbers: Vec<u32>,
    /// By CPU: where its events end.
    ends: Vec<u32>,
}

impl Sorted {
    fn sort(&mut self, events: &[Bytes], cpus: usize, numbered: bool) {
        self.ends.clear();
        self.ends.resize(cpus + 1, 0);
        for event in events {
            self.ends[cpu_of(event) + 1] += 1;
        }
        for cpu in 1..self.ends.len() {
            self.ends[cpu] += self.ends[cpu - 1];
        }
        // What a place had before does not matter: each is written to.
        self.events.resize(events.len(), [0; EVENT_BYTES]);
        self.numbers.resize(if numbered { events.len() } else { 0 }, 0);
        for (number, event) in events.iter().enumerate() {
            let place = &mut self.ends[cpu_of(event)];
            self.events[*place as usize] = *event;
            if numbered {
                self.numbers[*place as usize] = number as u32;
            }
            *place += 1;
        }
    }
}

/// Events of one CPU, and where the answer to each goes.
#[derive(Clone, Copy)]
struct Own<'a> {
    events: &'a [Bytes],
    /// Empty: the places of the events.
    numbers: &'a [u32],
}

impl Own<'_> {
    #[inline]
    fn number(self, at: usize) -> u32 {
        if self.numbers.is_empty() { at as u32 } else { self.numbers[at] }
    }

    fn one_by_one(self, step: &mut impl FnMut(Event) -> u8, mut levels: Option<&mut [u8]>) {
        for (at, event) in self.events.iter().enumerate() {
            let level = step(Event::read(event));
            if let Some(levels) = levels.as_deref_mut() {
                levels[self.number(at) as usize] = level;
            }
        }
    }
}

/// Events that concern one CPU each.
fn part(
    cpus: &mut Cpus,
    events: &[Bytes],
    mut levels: Option<&mut [u8]>,
    sorted: &mut Sorted,
    buffers: &mut Option<Box<Buffers>>,
) {
    let ors = events.iter().fold(0, |all, event| all | event[FLAGS]);
    let giant = ors >> flags::SIZE_SHIFT & PageSize::G1 as u8 != 0;
    let vector = cpus.vectors();
    let tlbs = cpus.tlbs_mut();
    if !flow::flows(&tlbs[0], giant) || tlbs.iter().any(Tlb::holds_stale) {
        Own { events, numbers: &[] }.one_by_one(&mut |event| cpus.step(event), levels);
        return;
    }
    if tlbs.len() > 1 {
        sorted.sort(events, tlbs.len(), levels.is_some());
    }
    let buffers = buffers.get_or_insert_with(Buffers::new);
    let alone = tlbs.len() == 1;
    let mut start = 0;
    for (cpu, tlb) in tlbs.iter_mut().enumerate() {
        let own = if alone {
            Own { events, numbers: &[] }
        } else {
            let of = start..sorted.ends[cpu] as usize;
            start = of.end;
            Own { events: &sorted.events[of.clone()], numbers: sorted.numbers.get(of).unwrap_or_default() }
        };
        if own.events.len() < WORTH_A_FLOW {
            own.one_by_one(&mut |event| carry_out(tlb, event), levels.as_deref_mut());
            continue;
        }
        let globals = ors & flags::GLOBAL != 0 || flow::holds_globals(tlb);
        let before = globals.then(|| tlb.clone());
        let mut flow = Flow::new(tlb, buffers, own.events.len(), (globals, vector));
        of_one(&mut flow, own, levels.as_deref_mut());
        if let Some(before) = before
            && flow.crossed()
        {
            *tlb = before;
            own.one_by_one(&mut |event| carry_out(tlb, event), levels.as_deref_mut());
        }
    }
}

/// The events of one CPU.
fn of_one(flow: &mut Flow<'_>, own: Own<'_>, mut levels: Option<&mut [u8]>) {
    for (at, event) in own.events.iter().enumerate() {
        let event = Event::read(event);
        if event.op <= Op::Fetch as u8 {
            let size = event.size().unwrap_or_default();
            let global = event.flags & flags::GLOBAL != 0;
            let what = (size, usize::from(event.op));
            flow.push(event.vpn, what, Pcid(event.pcid), global, own.number(at));
            if flow.is_full() {
                flow.drain(levels.as_deref_mut());
            }
            continue;
        }
        if let Some(levels) = levels.as_deref_mut() {
            levels[own.number(at) as usize] = NO_ACCESS;
        }
        if event.op == Op::MovCr3 as u8 && event.flags & flags::NOFLUSH != 0 {
            flow.switch(Pcid(event.pcid));
        } else {
            flow.drain(levels.as_deref_mut());
            flow.settle();
            carry_out(flow.tlb(), event);
        }
    }
    flow.drain(levels);
    flow.settle();
}

#[cfg(test)]
mod tests;
