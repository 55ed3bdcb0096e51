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
    let mut order = Vec::new();
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
            part(cpus, &copy[at..end], out, &mut order, &mut buffers);
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

/// Events that concern one CPU each.
fn part(
    cpus: &mut Cpus,
    events: &[Bytes],
    mut levels: Option<&mut [u8]>,
    order: &mut Vec<u32>,
    buffers: &mut Option<Box<Buffers>>,
) {
    let ors = events.iter().fold(0, |all, event| all | event[FLAGS]);
    let giant = ors >> flags::SIZE_SHIFT & PageSize::G1 as u8 != 0;
    let vector = cpus.vectors();
    let tlbs = cpus.tlbs_mut();
    if !flow::flows(&tlbs[0], giant) || tlbs.iter().any(Tlb::holds_stale) {
        one_by_one(&mut |event| cpus.step(event), events, 0..events.len() as u32, levels);
        return;
    }
    // By CPU, in order: how many events there are before those of each, then where each one goes.
    let mut starts = vec![0_u32; tlbs.len() + 1];
    for event in events {
        starts[cpu_of(event) + 1] += 1;
    }
    for cpu in 1..starts.len() {
        starts[cpu] += starts[cpu - 1];
    }
    order.clear();
    order.resize(events.len(), 0);
    for (number, event) in events.iter().enumerate() {
        let place = &mut starts[cpu_of(event)];
        order[*place as usize] = number as u32;
        *place += 1;
    }
    let buffers = buffers.get_or_insert_with(Buffers::new);
    let mut start = 0;
    for (tlb, &end) in tlbs.iter_mut().zip(&starts) {
        let own = &order[start..end as usize];
        start = end as usize;
        let numbers = own.iter().copied();
        if own.len() < WORTH_A_FLOW {
            one_by_one(&mut |event| carry_out(tlb, event), events, numbers, levels.as_deref_mut());
            continue;
        }
        let globals = ors & flags::GLOBAL != 0 || flow::holds_globals(tlb);
        let before = globals.then(|| tlb.clone());
        let mut flow = Flow::new(tlb, buffers, own.len(), (globals, vector));
        of_one(&mut flow, events, own, levels.as_deref_mut());
        if let Some(before) = before
            && flow.crossed()
        {
            *tlb = before;
            one_by_one(&mut |event| carry_out(tlb, event), events, numbers, levels.as_deref_mut());
        }
    }
}

/// The events of one CPU.
fn of_one(flow: &mut Flow<'_>, events: &[Bytes], own: &[u32], mut levels: Option<&mut [u8]>) {
    for &number in own {
        let event = Event::read(&events[number as usize]);
        if event.op <= Op::Fetch as u8 {
            let size = event.size().unwrap_or_default();
            let global = event.flags & flags::GLOBAL != 0;
            flow.push(event.vpn, (size, usize::from(event.op)), Pcid(event.pcid), global, number);
            if flow.is_full() {
                flow.drain(levels.as_deref_mut());
            }
            continue;
        }
        if let Some(levels) = levels.as_deref_mut() {
            levels[number as usize] = NO_ACCESS;
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

fn one_by_one(
    step: &mut impl FnMut(Event) -> u8,
    events: &[Bytes],
    numbers: impl Iterator<Item = u32>,
    mut levels: Option<&mut [u8]>,
) {
    for number in numbers {
        let level = step(Event::read(&events[number as usize]));
        if let Some(levels) = levels.as_deref_mut() {
            levels[number as usize] = level;
        }
    }
}

#[cfg(test)]
mod tests;
