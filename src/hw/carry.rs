//! One event on the TLBs of one CPU, as the plain loops and the batches carry it out.

use super::event::{Event, NO_ACCESS, Op, flags};
use super::invalidate::{Invpcid, Scope};
use super::tlb::Tlb;
use super::{Kind, Pcid, Vpn};

/// One event that concerns the TLBs of its CPU alone; returns the level that answered, or [`NO_ACCESS`].
#[inline]
pub(super) fn carry_out(tlb: &mut Tlb, event: Event) -> u8 {
    let vpn = Vpn(event.vpn & Vpn::MASK);
    let pcid = Pcid(event.pcid);
    let size = event.size().unwrap_or_default();
    let global = event.flags & flags::GLOBAL != 0;
    let pages = u64::from(event.pages.max(1));
    let op = Op::from_number(event.op).unwrap_or(Op::Fill);
    match op {
        Op::Load | Op::Store | Op::Fetch => {
            tlb.switch(pcid);
            return tlb.access(vpn, Kind::ALL[op as usize], size, global).level;
        }
        Op::Fill => {
            tlb.switch(pcid);
            tlb.fill(vpn, Kind::Load, size, global);
        }
        Op::MovCr3 => {
            tlb.switch(pcid);
            if event.flags & flags::NOFLUSH == 0 {
                tlb.invalidate(Scope::mov_cr3(pcid));
            }
        }
        Op::Invlpg => {
            let current = tlb.pcid();
            tlb.invalidate_pages(vpn, pages, |page| Scope::invlpg(page, current));
        }
        Op::InvpcidAddress => {
            tlb.invalidate_pages(vpn, pages, |page| Scope::invpcid(Invpcid::Address(pcid, page)));
        }
        Op::InvpcidContext => _ = tlb.invalidate(Scope::invpcid(Invpcid::SingleContext(pcid))),
        Op::InvpcidAll => _ = tlb.invalidate(Scope::ALL),
        Op::InvpcidNonGlobal => _ = tlb.invalidate(Scope::ALL_NON_GLOBAL),
        Op::Invlpgb | Op::Edit => unreachable!("these concern every CPU"),
    }
    NO_ACCESS
}
