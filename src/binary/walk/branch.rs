//! Calls, jumps, returns and the stack: where a path goes on.

use iced_x86::{Instruction, Register};

use super::exec::{Operand, RSP};
use super::memory::Loc;
use super::{End, Flow, Gs, State, Walker, text};
use crate::binary::step::{Op, Region, Way, What, Zone};
use crate::binary::value::{ANY, Flags, Val};

/// Functions that do not return, or that print: a path that calls one warns.
const NO_RETURN: [&str; 9] = [
    "__stack_chk_fail",
    "panic",
    "nmi_panic",
    "__warn_printk",
    "warn_slowpath_fmt",
    "__fortify_panic",
    "make_task_dead",
    "die",
    "handle_stack_overflow",
];

/// The first instruction of context tracking on the way in.
const TRACKING: [&str; 3] = ["__ct_user_exit", "ct_nmi_enter", "ct_irq_enter"];

impl Walker<'_, '_> {
    pub(super) fn push(&mut self, state: &mut State, value: Val, at: u64) {
        state.regs[RSP] = state.regs[RSP].sub(Val::of(8));
        let loc = self.locate_value(state.regs[RSP]);
        self.touch(state, at, &loc, Way::Store);
        self.store(state, &loc, 8, value);
    }

    pub(super) fn pop(&mut self, state: &mut State, at: u64) -> Val {
        let loc = self.locate_value(state.regs[RSP]);
        self.touch(state, at, &loc, Way::Load);
        let value = self.load(state, &loc, 8);
        state.regs[RSP] = state.regs[RSP].add(Val::of(8));
        value
    }

    pub(super) fn stack_touch(&mut self, state: &mut State, at: u64, way: Way, object: &str) {
        let loc = self.locate_value(state.regs[RSP]);
        let region = self.region(&loc);
        self.note(state, at, What::Access { region, way, object: object.into(), user_gs: false });
        state.regs[RSP] = state.regs[RSP].add(Val::of(8));
    }

    pub(super) fn implicit(&mut self, state: &mut State, at: u64, object: &str) {
        let what = What::Access {
            region: Region::EntryArea,
            way: Way::Implicit,
            object: object.into(),
            user_gs: false,
        };
        self.note(state, at, what);
    }

    pub(super) fn touch(&mut self, state: &mut State, at: u64, loc: &Loc, way: Way) {
        if state.zone == Zone::Body {
            return;
        }
        let (region, object) = (self.region(loc), self.name(loc));
        let user_gs = matches!(loc, Loc::Slot { gs: true, .. }) && state.gs == Gs::User;
        self.note(state, at, What::Access { region, way, object, user_gs });
    }

    pub(super) fn is_tracking(&mut self, loc: &Loc) -> bool {
        matches!(&*self.name(loc), "context_tracking.state.counter" | "context_tracking.state")
    }

    /// A jump out of a replacement does not come back to it.
    pub(super) fn leave_replacement(&self, state: &mut State, target: u64) {
        if state.resume.last().is_some_and(|r| !(r.code.0..=r.code.1).contains(&target)) {
            state.resume.pop();
        }
    }

    pub(super) fn jump(&mut self, state: &mut State, i: &Instruction, at: u64) -> Flow {
        let Some(target) = self.target(state, i) else {
            return self.lost(state, i, at);
        };
        if let Some(register) = self.thunk(target) {
            return match self.register(state, register).constant(8).filter(|to| is_place(*to)) {
                Some(target) => self.go(state, target),
                None => self.lost(state, i, at),
            };
        }
        if self.kernel.symbols.address("__x86_return_thunk") == Some(target) {
            if let Some(thunk) = self.return_thunk() {
                return self.go(state, thunk);
            }
            return self.ret(state, at);
        }
        // A tail call into context tracking opens its zone too.
        self.go_on(state, target, at)
    }

    fn go(&mut self, state: &mut State, target: u64) -> Flow {
        self.leave_replacement(state, target);
        state.ip = target;
        Flow::On
    }

    /// A jump, decided or not, to an address. In the body a function outside of noinstr is passed over.
    pub(super) fn go_on(&mut self, state: &mut State, target: u64, at: u64) -> Flow {
        self.enters(state, target);
        if state.zone == Zone::Body && self.is_function(target) && self.passed_over(target) {
            self.opaque(state);
            return self.ret(state, at);
        }
        self.go(state, target)
    }

    fn is_function(&self, target: u64) -> bool {
        self.kernel.symbols.at(target).is_some_and(|s| s.address == target)
    }

    fn lost(&mut self, state: &mut State, i: &Instruction, at: u64) -> Flow {
        self.op(state, at, Op::Unresolved(text(i)));
        Flow::End(End::Lost(format!("{at:#x} ({}): {}", self.kernel.symbols.place(at), text(i))))
    }

    /// Where a direct branch, or one through a known pointer, goes.
    fn target(&mut self, state: &mut State, i: &Instruction) -> Option<u64> {
        let to = match self.operand(state, i, 0) {
            Operand::Value(v) => v.constant(8),
            Operand::Reg(r) => self.register(state, r).constant(8),
            Operand::Memory(loc, size) => self.load(state, &loc, size).constant(8),
        };
        to.filter(|to| is_place(*to))
    }

    /// The register that an indirect thunk branches through.
    fn thunk(&self, target: u64) -> Option<Register> {
        let symbols = self.kernel.symbols;
        let all = [
            ("rax", Register::RAX),
            ("rbx", Register::RBX),
            ("rcx", Register::RCX),
            ("rdx", Register::RDX),
            ("rsi", Register::RSI),
            ("rdi", Register::RDI),
            ("rbp", Register::RBP),
            ("r8", Register::R8),
            ("r9", Register::R9),
            ("r10", Register::R10),
            ("r11", Register::R11),
            ("r12", Register::R12),
            ("r13", Register::R13),
            ("r14", Register::R14),
            ("r15", Register::R15),
        ];
        let base = symbols.address("__x86_indirect_thunk_array")?;
        if !(base..base + 0x400).contains(&target) {
            return None;
        }
        all.into_iter()
            .find(|(name, _)| symbols.address(&format!("__x86_indirect_thunk_{name}")) == Some(target))
            .map(|(_, register)| register)
    }

    /// The return thunk that these features choose; `None` where a plain RET is patched in.
    fn return_thunk(&self) -> Option<u64> {
        let (features, symbols) = (&self.kernel.features, self.kernel.symbols);
        let name = if !features.has("rethunk") {
            return None;
        } else if features.has("srso_alias") {
            "srso_alias_return_thunk"
        } else if features.has("srso") {
            "srso_return_thunk"
        } else if features.has("unret") {
            "retbleed_return_thunk"
        } else {
            return None;
        };
        symbols.address(name)
    }

    fn enters(&self, state: &mut State, target: u64) {
        let tracking = matches!(state.zone, Zone::Before | Zone::Danger)
            && self.kernel.symbols.at(target).is_some_and(|s| {
                s.address == target
                    && TRACKING.iter().any(|t| s.name == *t || s.name.starts_with(&format!("{t}.")))
            });
        if tracking {
            state.zone = Zone::Tracking;
        }
    }

    pub(super) fn call(&mut self, state: &mut State, i: &Instruction, at: u64) -> Flow {
        let direct = self.target(state, i);
        let through = direct.and_then(|t| self.thunk(t));
        let target = match through {
            Some(register) => self.register(state, register).constant(8).filter(|to| is_place(*to)),
            None => direct,
        };
        let Some(target) = target else {
            if state.zone == Zone::Body {
                self.opaque(state);
                return Flow::On;
            }
            return self.lost(state, i, at);
        };
        let name = self.kernel.symbols.place(target);
        if NO_RETURN.contains(&name.as_str()) {
            return Flow::Cut;
        }
        if state.zone == Zone::Body && self.passed_over(target) {
            self.opaque(state);
            return Flow::On;
        }
        self.push(state, Val::of(i.next_ip()), at);
        self.note(state, at, What::Call(name.as_str().into()));
        if self.kernel.instrumented(target) && !is_thunk(&name) {
            self.op(state, at, Op::LeavesNoinstr(name));
        }
        self.enters(state, target);
        state.ip = target;
        Flow::On
    }

    /// A function that is not followed: what it may change by the calling convention is unknown.
    pub(super) fn opaque(&self, state: &mut State) {
        for r in [0, 1, 2, 6, 7, 8, 9, 10, 11] {
            state.regs[r] = ANY;
        }
        state.flags = Flags::default();
    }

    pub(super) fn ret(&mut self, state: &mut State, at: u64) -> Flow {
        // A RET at the end of a replacement does not come back to it.
        if state.resume.last().is_some_and(|r| (r.code.0..r.code.1).contains(&(state.ip - 1))) {
            state.resume.pop();
        }
        let value = self.pop(state, at);
        match value.constant(8) {
            Some(target) => {
                state.ip = target;
                Flow::On
            }
            None => {
                self.op(state, at, Op::Unresolved("the return address".into()));
                Flow::End(End::Lost(format!("{at:#x} ({}): ret", self.kernel.symbols.place(at))))
            }
        }
    }
}

/// A pointer that is filled in while the kernel boots is 0 in the file.
fn is_place(address: u64) -> bool {
    address != 0
}

/// Thunks are kernel text outside of .noinstr.text, and belong to every path.
fn is_thunk(name: &str) -> bool {
    ["__x86_", "srso_", "retbleed_", "its_", "entry_untrain_ret", "clear_bhb", "write_ibpb", "entry_ibpb"]
        .iter()
        .any(|p| name.starts_with(p))
}
