//! Which memory an address is: its region, the name of what is there, and what is known of its content.

use std::rc::Rc;

use iced_x86::{Instruction, Register, UsedMemory};

use super::text;
use super::{Object, State, Walker};
use crate::binary::image::u64_at;
use crate::binary::scenario;
use crate::binary::step::{Op, Region};
use crate::binary::value::{ANY, Base, Val, mask};

/// A place in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loc {
    /// An offset from a base.
    Slot {
        base: Base,
        off: i64,
        /// Through the GS base?
        gs: bool,
    },
    /// An element of an array at an address of the image, or of per-CPU data.
    Indexed { base: Base, off: i64, gs: bool },
    /// Not told, with how the address was computed.
    Unknown(String),
}

/// Where vmalloc memory is with 4-level tables and without KASLR (Documentation/arch/x86/x86_64/mm.rst).
const VMALLOC: std::ops::Range<u64> = 0xffff_c900_0000_0000..0xffff_e900_0000_0000;

/// Structs whose pointers lead to slab objects, in the direct map.
const SLAB: [&str; 2] = ["task_struct", "mm_struct"];

impl Walker<'_, '_> {
    fn slot(&self, value: Val, gs: bool) -> Option<(Base, i64)> {
        match (value, gs) {
            (Val::Ptr(base, off), false) => Some((base, off)),
            (v, true) => v.constant(8).map(|off| (Base::PerCpu, off as i64)),
            (v, false) => v
                .constant(8)
                .filter(|a| {
                    VMALLOC.contains(a) || (self.kernel.image.section_at(*a).is_some() && *a >= 1 << 63)
                })
                .map(|a| (Base::Image, a as i64)),
        }
    }

    /// Where an instruction's memory operand is.
    pub(super) fn locate(&mut self, state: &State, i: &Instruction) -> Loc {
        let gs = i.memory_segment() == Register::GS;
        let value = self.address(state, i);
        if let Some((base, off)) = self.slot(value, gs) {
            return Loc::Slot { base, off, gs };
        }
        // A table with an index that is not known: its displacement says which.
        let displacement = i.memory_displacement64();
        if (i.memory_base() == Register::None || i.memory_index() == Register::None)
            && displacement != 0
            && let Some((base, off)) = self.slot(Val::of(displacement), gs)
        {
            return Loc::Indexed { base, off, gs };
        }
        let mut through = String::new();
        for register in [i.memory_base(), i.memory_index()] {
            if register.is_gpr()
                && let Val::Ptr(Base::Object(n), _) = state.regs[register.full_register().number()]
            {
                through = format!(" through {}", self.objects[n as usize].name);
            }
        }
        Loc::Unknown(format!("{}{through}", text(i)))
    }

    /// The address that a memory operand computes.
    pub(super) fn address(&self, state: &State, i: &Instruction) -> Val {
        if i.is_ip_rel_memory_operand() {
            return Val::of(i.ip_rel_memory_address());
        }
        let register = |r: Register| {
            if r == Register::None {
                Val::of(0)
            } else {
                state.regs[r.full_register().number()].cut(r.size())
            }
        };
        let index = register(i.memory_index());
        let scale = i.memory_index_scale().trailing_zeros();
        let index = if scale == 0 { index } else { index.shl(scale) };
        register(i.memory_base()).add(Val::of(i.memory_displacement64())).add(index)
    }

    /// Where a pointer points.
    pub(super) fn locate_value(&self, value: Val) -> Loc {
        match self.slot(value, false) {
            Some((base, off)) => Loc::Slot { base, off, gs: false },
            None => Loc::Unknown("an address that is not known".into()),
        }
    }

    /// Where an access is that the decoder's tables describe.
    pub(super) fn locate_used(&mut self, state: &State, used: &UsedMemory, size: usize) -> Loc {
        let register = |r: Register| {
            if r == Register::None {
                Val::of(0)
            } else {
                state.regs[r.full_register().number()].cut(r.size())
            }
        };
        let gs = used.segment() == Register::GS;
        let known = used.base() == Register::None || used.base().is_gpr();
        if !known {
            return Loc::Unknown(format!("{size} bytes at an address that is not known"));
        }
        let index = register(used.index()).shl(used.scale().trailing_zeros());
        let value = register(used.base()).add(Val::of(used.displacement())).add(index);
        match self.slot(value, gs) {
            Some((base, off)) => Loc::Slot { base, off, gs },
            None => Loc::Unknown(format!("{size} bytes at an address that is not known")),
        }
    }

    /// Where an address lies.
    pub(super) fn region(&self, loc: &Loc) -> Region {
        let (base, off) = match loc {
            Loc::Slot { base, off, .. } | Loc::Indexed { base, off, .. } => (*base, *off),
            Loc::Unknown(_) => return Region::Unknown,
        };
        match base {
            Base::TaskStack => Region::TaskStack,
            Base::EntryStack | Base::Ist => Region::EntryArea,
            Base::PerCpu => Region::PerCpu,
            Base::Object(n) => {
                // Before an object there is something else.
                if off < 0 { Region::Unknown } else { self.objects[n as usize].region }
            }
            Base::Image => {
                let address = off as u64;
                let (from, to) = self.kernel.entry_text;
                if VMALLOC.contains(&address) {
                    Region::Vmalloc
                } else if (from..to).contains(&address) {
                    Region::EntryText
                } else if address < self.kernel.data {
                    Region::Rodata
                } else {
                    Region::Data
                }
            }
        }
    }

    /// What is there.
    pub(super) fn name(&mut self, loc: &Loc) -> Rc<str> {
        match loc {
            Loc::Unknown(text) => text.as_str().into(),
            Loc::Slot { base, off, .. } => self.slot_name(*base, *off).0,
            Loc::Indexed { base, off, .. } => {
                let (name, _) = self.slot_name(*base, *off);
                format!("{name}[...]").into()
            }
        }
    }

    /// The name, and the type if BTF tells it.
    fn slot_name(&mut self, base: Base, off: i64) -> (Rc<str>, Option<u32>) {
        // One name for a whole stack.
        let stack = matches!(base, Base::TaskStack | Base::EntryStack | Base::Ist);
        let key = (base, if stack { 0 } else { off });
        if let Some(found) = self.named.get(&key) {
            return found.clone();
        }
        let (name, kind) = self.look_up(base, off);
        let found: (Rc<str>, _) = (name.into(), kind);
        self.named.insert(key, found.clone());
        found
    }

    fn look_up(&self, base: Base, off: i64) -> (String, Option<u32>) {
        let btf = self.kernel.btf.as_ref();
        match base {
            Base::TaskStack => ("task stack".into(), None),
            Base::EntryStack => ("entry stack".into(), None),
            Base::Ist => ("IST stack".into(), None),
            Base::Image | Base::PerCpu => {
                if VMALLOC.contains(&(off as u64)) {
                    return (format!("vmalloc memory at {off:#x}"), None);
                }
                let Some(symbol) = self.kernel.symbols.at(off as u64) else {
                    return (format!("{off:#x}"), None);
                };
                let inside = off as u64 - symbol.address;
                let kind = btf.and_then(|b| b.variable(&symbol.name));
                match (btf, kind) {
                    (Some(btf), Some(kind)) => {
                        let (field, kind) = btf.field(kind, inside as u32);
                        (format!("{}{field}", symbol.name), Some(kind))
                    }
                    _ if inside == 0 => (symbol.name.clone(), None),
                    _ => (format!("{}+{inside:#x}", symbol.name), None),
                }
            }
            Base::Object(n) => {
                let object = &self.objects[n as usize];
                match (btf, object.kind) {
                    (Some(btf), Some(kind)) if off >= 0 && kind != 0 => {
                        let (field, kind) = btf.field(kind, off as u32);
                        let field = field.strip_prefix('.').unwrap_or(&field).to_owned();
                        (format!("{}->{field}", object.name), Some(kind))
                    }
                    _ => (format!("{}->[{off:#x}]", object.name), None),
                }
            }
        }
    }

    fn object(&mut self, name: Rc<str>, kind: Option<u32>, region: Region) -> Val {
        let number = match self.by_name.get(&name) {
            Some(n) => *n,
            None => {
                let n = self.objects.len() as u32;
                self.by_name.insert(name.clone(), n);
                self.objects.push(Object { name, kind, region });
                n
            }
        };
        Val::Ptr(Base::Object(number), 0)
    }

    /// What a load finds.
    pub(super) fn load(&mut self, state: &State, loc: &Loc, size: usize) -> Val {
        let (base, off) = match loc {
            Loc::Slot { base, off, .. } => (*base, *off),
            Loc::Indexed { base, off, .. } => {
                let (name, _) = self.slot_name(*base, *off);
                return if &*name == "__per_cpu_offset" { Val::Ptr(Base::PerCpu, 0) } else { ANY.cut(size) };
            }
            Loc::Unknown(_) => return ANY.cut(size),
        };
        let low = off.saturating_sub(7);
        for (&(b, start), &(len, value)) in state.memory.range((base, low)..=(base, off)).rev() {
            let end = start + i64::from(len);
            if b == base && start <= off && off + size as i64 <= end {
                if start == off && usize::from(len) == size {
                    return value;
                }
                return value.shr(8 * (off - start) as u32).cut(size);
            }
            if end > off {
                return ANY.cut(size); // written in parts
            }
        }
        let end = off + size as i64;
        if state.memory.range((base, off)..(base, end)).next().is_some() {
            return ANY.cut(size);
        }
        self.initial(base, off, size)
    }

    fn initial(&mut self, base: Base, off: i64, size: usize) -> Val {
        match base {
            Base::TaskStack | Base::EntryStack => return ANY.cut(size),
            // No NMI is being handled: the variables on its stack say so.
            Base::Ist => return Val::of(0),
            _ => {}
        }
        let (name, kind) = self.slot_name(base, off);
        if let Some(known) = scenario::held(&name) {
            return known.cut(size);
        }
        if base == Base::Image && (name.starts_with("pv_ops") || name.starts_with("__SCK__")) {
            let bytes = self.kernel.image.read(off as u64, size);
            return bytes.and_then(|b| u64_at(b, 0)).map_or(ANY.cut(size), Val::of);
        }
        if size != 8 {
            return ANY.cut(size);
        }
        let btf = self.kernel.btf.as_ref();
        if matches!(&*name, "current_task" | "pcpu_hot.current_task") {
            return self.object("current".into(), self.kernel.task, Region::DirectMap);
        }
        let pointee = btf.zip(kind).and_then(|(b, k)| b.pointee(k));
        let slab = btf.zip(pointee).is_some_and(|(b, p)| SLAB.contains(&b.name(p)));
        let from_slab =
            matches!(base, Base::Object(n) if self.objects[n as usize].region == Region::DirectMap);
        // The page behind espfix's alias is in the direct map too; masks that are pointers are allocated at boot.
        let direct = (slab && from_slab) || matches!(&*name, "espfix_waddr" | "tick_nohz_full_mask");
        self.object(name, pointee, if direct { Region::DirectMap } else { Region::Unknown })
    }

    /// What a store leaves.
    pub(super) fn store(&mut self, state: &mut State, loc: &Loc, size: usize, value: Val) {
        let Loc::Slot { base, off, .. } = loc else { return };
        let (base, off) = (*base, *off);
        if matches!(base, Base::PerCpu | Base::Image)
            && let Some(variable) = self.kernel.variables.iter().find(|v| v.address == off as u64)
        {
            let (at, locked) = state.at;
            let op =
                Op::Store { variable: variable.name.clone(), value: value.constant(size.min(8)), locked };
            self.op(state, at, op);
        }
        // A part of a word that is known stays one word.
        let around = state
            .memory
            .range((base, off.saturating_sub(7))..=(base, off))
            .next_back()
            .map(|(k, v)| (*k, *v))
            .filter(|((_, start), (len, _))| {
                off + size as i64 <= start + i64::from(*len) && usize::from(*len) != size
            });
        if let Some(((_, start), (len, old))) = around {
            let shift = 8 * (off - start) as u32;
            let window = Val::of(!(mask(size) << shift));
            let new = old.and(window).or(value.cut(size).shl(shift));
            state.memory.insert((base, start), (len, new));
            return;
        }
        self.forget(state, loc, size);
        if size <= 8 {
            state.memory.insert((base, off), (size as u8, if size == 8 { value } else { value.cut(size) }));
        }
    }

    /// What is there is no longer known.
    pub(super) fn forget(&mut self, state: &mut State, loc: &Loc, size: usize) {
        let Loc::Slot { base, off, .. } = loc else { return };
        let (base, off, end) = (*base, *off, off + size as i64);
        let stale: Vec<_> = state
            .memory
            .range((base, off.saturating_sub(7))..(base, end))
            .filter(|((_, start), (len, _))| start + i64::from(*len) > off)
            .map(|(k, _)| *k)
            .collect();
        for key in stale {
            state.memory.remove(&key);
        }
        if size > 8 {
            for word in (off..end).step_by(8) {
                state.memory.insert((base, word), (8, ANY));
            }
        }
    }

    /// An operand's place as text.
    pub(super) fn place_text(&mut self, state: &State, i: &Instruction) -> Rc<str> {
        let loc = self.locate(state, i);
        self.name(&loc)
    }
}
