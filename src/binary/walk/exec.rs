//! One instruction of a path: what it computes, as far as the walk has to know, and what it accesses.

use std::rc::Rc;

use iced_x86::{ConditionCode, Instruction, Mnemonic, OpAccess, OpKind, Register};

use super::memory::Loc;
use super::{End, Flow, Gs, Resume, State, Walker, Why, text};
use crate::binary::BinaryError;
use crate::binary::step::{Op, Step, Way, What, Zone};
use crate::binary::value::{ANY, Base, Flags, Val, mask};

pub(super) const RSP: usize = 4;
pub(super) const RCX: usize = 1;
pub(super) const RSI: usize = 6;
pub(super) const RDI: usize = 7;

/// What an operand is.
pub(super) enum Operand {
    Reg(Register),
    Value(Val),
    Memory(Loc, usize),
}

impl Walker<'_, '_> {
    /// Execute the instruction at `state.ip`.
    pub(super) fn step(&mut self, state: &mut State, entry: &str) -> Result<Flow, BinaryError> {
        self.replacements(state);
        if let Some(jump) = self.kernel.patches.jumps.get(&state.ip) {
            let (jump, at) = (*jump, self.shown(state, state.ip));
            let len = self.decode(state.ip, entry)?.len() as u64;
            let key = self.kernel.symbols.place(jump.key).into();
            self.note(state, at, What::Key { key, on: jump.on });
            state.ip = if jump.taken { jump.target } else { state.ip + len };
            return Ok(Flow::On);
        }
        let instruction = self.decode(state.ip, entry)?;
        let at = self.shown(state, state.ip);
        state.ip = instruction.next_ip();
        state.instructions += 1;
        state.at = (at, instruction.has_lock_prefix() || instruction.mnemonic() == Mnemonic::Xchg);
        self.instructions += 1;
        Ok(self.execute(state, &instruction, at))
    }

    /// Into the replacement of an alternative, and out of it at its end.
    fn replacements(&self, state: &mut State) {
        loop {
            if let Some(r) = state.resume.last()
                && state.ip == r.code.1
            {
                state.ip = r.back;
                state.resume.pop();
                continue;
            }
            match self.kernel.patches.alternatives.get(&state.ip) {
                Some(a) => {
                    let back = state.ip + u64::from(a.replaced);
                    let code = (a.code, a.code + u64::from(a.len));
                    state.resume.push(Resume { code, instead: state.ip, back });
                    state.ip = a.code;
                }
                None => return,
            }
        }
    }

    pub(super) fn note(&self, state: &mut State, at: u64, what: What) {
        if state.zone != Zone::Body {
            state.steps.push(Step { at, zone: state.zone, what });
        }
    }

    pub(super) fn op(&self, state: &mut State, at: u64, op: Op) {
        self.note(state, at, What::Op(op));
    }

    fn execute(&mut self, state: &mut State, i: &Instruction, at: u64) -> Flow {
        use Mnemonic as M;
        let m = i.mnemonic();
        let size = self.width(i);
        match m {
            M::Nop | M::Endbr64 | M::Cld | M::Std | M::Clac | M::Stac | M::Pause | M::Sfence => {}
            M::Mov
                if matches!(
                    i.op1_register(),
                    Register::CR3 | Register::CR4 | Register::CR2 | Register::CR0
                ) =>
            {
                let value = match i.op1_register() {
                    Register::CR3 => {
                        self.op(state, at, Op::ReadCr3);
                        state.cr3
                    }
                    Register::CR4 => state.cr4,
                    _ => ANY,
                };
                self.set_register(state, i.op0_register(), value);
            }
            M::Mov if i.op0_register() == Register::CR3 => {
                let value = self.register(state, i.op1_register());
                let user = value.bit(12).filter(|_| self.kernel.features.has("pti"));
                let noflush = if self.kernel.features.has("pcid") { value.bit(63) } else { Some(false) };
                let before = state.zone;
                // The write itself is the first of the zone that it opens.
                state.zone = match (before, user) {
                    (Zone::Before, Some(false)) => Zone::Danger,
                    (Zone::Exit, Some(true)) => Zone::ExitUser,
                    (zone, _) => zone,
                };
                state.cr3 = value.with_bit(63, false);
                self.op(state, at, Op::WriteCr3 { user, noflush });
            }
            M::Mov if i.op0_register() == Register::CR4 => {
                let value = self.register(state, i.op1_register());
                state.cr4 = value;
                self.op(state, at, Op::WriteCr4(value.bit(7)));
            }
            M::Mov if i.op0_register().is_dr() || i.op0_register().is_cr() => {}
            M::Mov if i.op1_register().is_dr() => self.set_register(state, i.op0_register(), ANY),
            M::Mov if i.op0_register().is_segment_register() => {
                let _ = self.value(state, i, 1, at);
            }
            M::Mov => {
                let value = self.value(state, i, 1, at);
                self.assign(state, i, 0, value, at);
            }
            M::Movzx => {
                let from = self.op_size(i, 1);
                let value = self.value(state, i, 1, at).cut(from);
                self.assign(state, i, 0, value, at);
            }
            M::Movsx | M::Movsxd => {
                let from = self.op_size(i, 1);
                let value = self.value(state, i, 1, at).sign(from).cut(size);
                self.assign(state, i, 0, value, at);
            }
            M::Cdqe => {
                let value = state.regs[0].sign(4);
                state.regs[0] = value;
            }
            M::Lea => {
                let value = self.address(state, i).cut(size);
                self.set_register(state, i.op0_register(), value);
            }
            M::Push => {
                let value = self.value(state, i, 0, at);
                self.push(state, value, at);
            }
            M::Pushfq => self.push(state, ANY, at),
            M::Pop => {
                let value = self.pop(state, at);
                self.assign(state, i, 0, value, at);
            }
            M::Popfq => {
                let _ = self.pop(state, at);
                state.flags = Flags::default();
            }
            M::Leave => {
                state.regs[RSP] = state.regs[5];
                state.regs[5] = self.pop(state, at);
            }
            M::Add | M::Sub | M::And | M::Or | M::Xor | M::Cmp | M::Test | M::Adc | M::Sbb => {
                return self.arithmetic(state, i, m, size, at);
            }
            M::Inc | M::Dec | M::Neg | M::Not => self.unary(state, i, m, size, at),
            M::Shl | M::Shr | M::Sar => {
                let a = self.changed(state, i, at);
                let by = self
                    .value(state, i, 1, at)
                    .constant(1)
                    .map(|by| by as u32 & if size == 8 { 63 } else { 31 });
                let result = match (m, by) {
                    (M::Shl, Some(by)) => a.shl(by).cut(size),
                    (M::Shr, Some(by)) => a.cut(size).shr(by),
                    (M::Sar, Some(0)) => a,
                    _ => ANY.cut(size),
                };
                self.stored(state, i, result);
                if by != Some(0) {
                    state.flags = Flags { of: None, cf: None, ..Flags::logic(result, size) };
                }
            }
            M::Bt | M::Bts | M::Btr | M::Btc => self.bit_test(state, i, m, size, at),
            M::Xchg => {
                let (a, b) = (self.operand(state, i, 0), self.operand(state, i, 1));
                let (old_a, old_b) = match (&a, &b) {
                    (Operand::Memory(loc, size), _) | (_, Operand::Memory(loc, size)) => {
                        self.touch(state, at, loc, Way::Locked);
                        (self.peek(state, &a, loc, *size), self.peek(state, &b, loc, *size))
                    }
                    _ => (self.plain(state, &a), self.plain(state, &b)),
                };
                self.put(state, &a, old_b);
                self.put(state, &b, old_a);
            }
            M::Xadd => {
                let target = self.operand(state, i, 0);
                let added = self.register(state, i.op1_register());
                if let Operand::Memory(loc, size) = &target {
                    let way = if i.has_lock_prefix() { Way::Locked } else { Way::Rmw };
                    let atomic = self.is_tracking(loc) && i.has_lock_prefix();
                    self.touch(state, at, loc, way);
                    let old = self.load(state, loc, *size);
                    let new = old.add(added).cut(*size);
                    self.put(state, &target, new);
                    self.set_register(state, i.op1_register(), old);
                    state.flags = Flags::sum(old, added, new, *size);
                    if atomic {
                        return Flow::Atomic;
                    }
                } else {
                    let old = self.plain(state, &target);
                    self.put(state, &target, old.add(added).cut(size));
                    self.set_register(state, i.op1_register(), old);
                    state.flags = Flags::default();
                }
            }
            M::Jmp => return self.jump(state, i, at),
            M::Call => return self.call(state, i, at),
            M::Ret => return self.ret(state, at),
            _ if i.is_jcc_short_or_near() => {
                let target = i.near_branch_target();
                return match condition(i.condition_code(), state.flags) {
                    Some(true) => self.go_on(state, target, at),
                    Some(false) => Flow::On,
                    // A conditional tail call to what is passed over comes back like the way on.
                    None if state.zone == Zone::Body && self.kernel.instrumented(target) => {
                        let mut other = state.clone();
                        match self.go_on(&mut other, target, at) {
                            Flow::On => Flow::Split(Box::new(other)),
                            _ => Flow::On,
                        }
                    }
                    None => {
                        let test = self.test(state, i);
                        let asks = self.asks(state, i);
                        Flow::Fork(at, target, test, asks)
                    }
                };
            }
            _ if i.condition_code() != ConditionCode::None => {
                let decided = condition(i.condition_code(), state.flags);
                if i.op_count() == 1 {
                    let value =
                        decided.map_or(Val::Bits { known: !1, value: 0 }, |set| Val::of(u64::from(set)));
                    self.assign(state, i, 0, value.cut(1), at); // SETcc
                } else {
                    // CMOVcc reads its source either way.
                    let value = self.value(state, i, 1, at);
                    match decided {
                        Some(true) => self.assign(state, i, 0, value, at),
                        Some(false) => {
                            let kept = self.register(state, i.op0_register());
                            self.set_register(state, i.op0_register(), kept);
                        }
                        None => self.set_register(state, i.op0_register(), ANY.cut(size)),
                    }
                }
            }
            M::Movsb | M::Movsw | M::Movsd | M::Movsq | M::Stosb | M::Stosd | M::Stosq => {
                self.string(state, i, m, at);
            }
            M::Swapgs => {
                state.gs = if state.gs == Gs::User { Gs::Kernel } else { Gs::User };
                self.op(state, at, Op::Swapgs { user: state.gs == Gs::User });
            }
            M::Rdgsbase => {
                self.op(state, at, Op::ReadGs);
                let value = if state.gs == Gs::Kernel { Val::Ptr(Base::PerCpu, 0) } else { ANY };
                self.set_register(state, i.op0_register(), value);
            }
            M::Wrgsbase => {
                let kernel = self.register(state, i.op0_register()) == Val::Ptr(Base::PerCpu, 0);
                state.gs = if kernel { Gs::Kernel } else { Gs::User };
                self.op(state, at, Op::WriteGs { user: !kernel });
            }
            M::Wrmsr | M::Wrmsrns => {
                let name = match state.regs[RCX].constant(4) {
                    Some(0x48) => "SPEC_CTRL".into(),
                    Some(0x49) => "PRED_CMD".into(),
                    Some(0xc000_0101) => "GS_BASE".into(),
                    Some(0xc000_0102) => "KERNEL_GS_BASE".into(),
                    Some(n) => format!("{n:#x}"),
                    None => "of unknown number".into(),
                };
                if name == "GS_BASE" {
                    state.gs = Gs::User;
                }
                self.op(state, at, Op::Msr(name));
            }
            M::Rdmsr => {
                state.regs[0] = ANY.cut(4);
                state.regs[2] = ANY.cut(4);
            }
            M::Invpcid => {
                let kind = self.register(state, i.op0_register()).constant(8);
                let _ = self.value(state, i, 1, at);
                self.op(state, at, Op::Invpcid(kind));
            }
            M::Invlpg => {
                let what = self.place_text(state, i);
                self.op(state, at, Op::Invlpg(what.to_string()));
            }
            M::Lfence => self.op(state, at, Op::Lfence),
            M::Mfence => self.op(state, at, Op::Mfence),
            M::Serialize => self.op(state, at, Op::Serialize),
            M::Cpuid => {
                for r in [0, 1, 2, 3] {
                    state.regs[r] = ANY.cut(4);
                }
                self.op(state, at, Op::Serialize);
            }
            M::Sti => self.op(state, at, Op::Sti),
            M::Cli => self.op(state, at, Op::Cli),
            M::Verw => {
                let _ = self.value(state, i, 0, at);
                self.implicit(state, at, "GDT descriptor (verw)");
                self.op(state, at, Op::Verw);
                state.flags = Flags::default();
            }
            M::Lsl => {
                self.implicit(state, at, "GDT descriptor (lsl)");
                self.set_register(state, i.op0_register(), ANY.cut(size));
                state.flags = Flags { zf: Some(true), ..Flags::default() };
            }
            M::Prefetchw
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Prefetchnta
            | M::Prefetchwt1 => {
                if let Operand::Memory(loc, _) = self.operand(state, i, 0) {
                    self.touch(state, at, &loc, Way::Prefetch);
                }
            }
            M::Iretq => {
                for _ in 0..5 {
                    self.stack_touch(state, at, Way::Implicit, "IRET frame");
                }
                return Flow::End(End::Left("iret"));
            }
            M::Sysretq | M::Sysret => return Flow::End(End::Left("sysret")),
            M::Sysexit | M::Sysexitq => return Flow::End(End::Left("sysexit")),
            M::Eretu => return Flow::End(End::Left("eretu")),
            M::Erets => return Flow::End(End::Left("erets")),
            M::Ud2 | M::Ud1 | M::Ud0 | M::Int3 | M::Hlt => return Flow::Cut,
            _ => self.any(state, i, at),
        }
        Flow::On
    }

    /// What is not modelled: its accesses are listed, what it writes is unknown.
    fn any(&mut self, state: &mut State, i: &Instruction, at: u64) {
        let facts = self.facts.info(i).clone();
        for used in facts.used_memory() {
            let way = match used.access() {
                OpAccess::Read | OpAccess::CondRead => Way::Load,
                OpAccess::Write | OpAccess::CondWrite => Way::Store,
                OpAccess::ReadWrite | OpAccess::ReadCondWrite if i.has_lock_prefix() => Way::Locked,
                OpAccess::ReadWrite | OpAccess::ReadCondWrite => Way::Rmw,
                OpAccess::None | OpAccess::NoMemAccess => continue,
            };
            let size = used.memory_size().size().clamp(1, 64);
            let loc = self.locate_used(state, used, size);
            self.touch(state, at, &loc, way);
            if way != Way::Load {
                self.forget(state, &loc, size);
            }
        }
        for used in facts.used_registers() {
            if !matches!(
                used.access(),
                OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess
            ) && used.register().is_gpr()
            {
                self.set_register(state, used.register(), ANY.cut(used.register().size()));
            }
        }
        if i.rflags_modified() != 0 {
            state.flags = Flags::default();
            state.why = Why(Some(*i), None);
        }
    }

    /// A branch that the state does not decide, as reports show it.
    fn test(&mut self, state: &State, i: &Instruction) -> Rc<str> {
        let Why(setter, memory) = state.why.clone();
        let name = text(i);
        let name = name.split(' ').next().unwrap_or("");
        let object = memory.map_or(String::new(), |loc| format!(" {{{}}}", self.name(&loc)));
        format!("{name}: {}{object}", setter.map_or(String::new(), |s| text(&s))).into()
    }

    /// The set that a branch asks about with BT, and whether this CPU is in it where it is taken. The posted series tests
    /// bits of `tick_nohz_full_mask` itself; where that is a pointer the mask is what it points to.
    fn asks(&mut self, state: &State, i: &Instruction) -> Option<(&'static str, bool)> {
        let Why(Some(setter), Some(loc)) = state.why.clone() else { return None };
        let member = match i.condition_code() {
            ConditionCode::b => true,
            ConditionCode::ae => false,
            _ => return None,
        };
        if setter.mnemonic() != Mnemonic::Bt {
            return None;
        }
        let name = self.name(&loc);
        let rest = name.strip_prefix("tick_nohz_full_mask")?;
        Some((if rest.starts_with("->") { "nohz_full" } else { "flush_mask" }, member))
    }

    // ---- operands --------------------------------------------------------------------------------------

    /// Width of the operation in bytes.
    fn width(&self, i: &Instruction) -> usize {
        if i.op_count() == 0 { 8 } else { self.op_size(i, 0) }
    }

    fn op_size(&self, i: &Instruction, op: u32) -> usize {
        match i.op_kind(op) {
            OpKind::Register => i.op_register(op).size().min(8),
            OpKind::Memory => i.memory_size().size().clamp(1, 8),
            _ => 8,
        }
    }

    pub(super) fn register(&self, state: &State, register: Register) -> Val {
        if !register.is_gpr() {
            return ANY;
        }
        let full = state.regs[register.full_register().number()];
        if matches!(register, Register::AH | Register::BH | Register::CH | Register::DH) {
            return full.shr(8).cut(1);
        }
        full.cut(register.size())
    }

    fn set_register(&self, state: &mut State, register: Register, value: Val) {
        if !register.is_gpr() {
            return;
        }
        let slot = &mut state.regs[register.full_register().number()];
        *slot = match register.size() {
            8 => value,
            4 => value.cut(4),
            size => {
                let shift =
                    u32::from(matches!(register, Register::AH | Register::BH | Register::CH | Register::DH))
                        * 8;
                let window = Val::of(!(mask(size) << shift));
                let part = value.cut(size).shl(shift);
                slot.and(window).or(part)
            }
        };
    }

    pub(super) fn operand(&mut self, state: &State, i: &Instruction, op: u32) -> Operand {
        match i.op_kind(op) {
            OpKind::Register => Operand::Reg(i.op_register(op)),
            OpKind::Memory => {
                let size = i.memory_size().size().clamp(1, 64);
                Operand::Memory(self.locate(state, i), size)
            }
            OpKind::NearBranch64 => Operand::Value(Val::of(i.near_branch64())),
            _ => Operand::Value(i.try_immediate(op).map_or(ANY, Val::of)),
        }
    }

    /// An operand's value without listing an access.
    pub(super) fn plain(&mut self, state: &State, operand: &Operand) -> Val {
        match operand {
            Operand::Reg(r) => self.register(state, *r),
            Operand::Value(v) => *v,
            Operand::Memory(loc, size) => self.load(state, loc, *size),
        }
    }

    fn peek(&mut self, state: &State, operand: &Operand, loc: &Loc, size: usize) -> Val {
        match operand {
            Operand::Memory(..) => self.load(state, loc, size),
            other => self.plain(state, other),
        }
    }

    pub(super) fn put(&mut self, state: &mut State, operand: &Operand, value: Val) {
        match operand {
            Operand::Reg(r) => self.set_register(state, *r, value),
            Operand::Memory(loc, size) => self.store(state, loc, *size, value),
            Operand::Value(_) => {}
        }
    }

    /// Read an operand, and list the access.
    pub(super) fn value(&mut self, state: &mut State, i: &Instruction, op: u32, at: u64) -> Val {
        let operand = self.operand(state, i, op);
        if let Operand::Memory(loc, _) = &operand {
            self.touch(state, at, loc, Way::Load);
        }
        self.plain(state, &operand)
    }

    fn assign(&mut self, state: &mut State, i: &Instruction, op: u32, value: Val, at: u64) {
        let operand = self.operand(state, i, op);
        if let Operand::Memory(loc, _) = &operand {
            self.touch(state, at, loc, Way::Store);
        }
        self.put(state, &operand, value);
    }

    /// Read operand 0 of an instruction that changes it, and list that.
    pub(super) fn changed(&mut self, state: &mut State, i: &Instruction, at: u64) -> Val {
        let operand = self.operand(state, i, 0);
        if let Operand::Memory(loc, _) = &operand {
            self.touch(state, at, loc, if i.has_lock_prefix() { Way::Locked } else { Way::Rmw });
        }
        self.plain(state, &operand)
    }

    pub(super) fn stored(&mut self, state: &mut State, i: &Instruction, value: Val) {
        let operand = self.operand(state, i, 0);
        self.put(state, &operand, value);
    }
}

/// Does a condition hold?
fn condition(code: ConditionCode, f: Flags) -> Option<bool> {
    use ConditionCode as C;
    let or = |a: Option<bool>, b: Option<bool>| match (a, b) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    };
    let differ = |a: Option<bool>, b: Option<bool>| Some(a? != b?);
    let not = |a: Option<bool>| a.map(|a| !a);
    match code {
        C::o => f.of,
        C::no => not(f.of),
        C::b => f.cf,
        C::ae => not(f.cf),
        C::e => f.zf,
        C::ne => not(f.zf),
        C::be => or(f.cf, f.zf),
        C::a => not(or(f.cf, f.zf)),
        C::s => f.sf,
        C::ns => not(f.sf),
        C::l => differ(f.sf, f.of),
        C::ge => not(differ(f.sf, f.of)),
        C::le => or(f.zf, differ(f.sf, f.of)),
        C::g => not(or(f.zf, differ(f.sf, f.of))),
        C::p | C::np | C::None => None,
    }
}
