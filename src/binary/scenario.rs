//! Where a path starts and in which state: one entry point, what the CPU pushed, and what the kernel's own variables
//! hold. Every assumption of the walk stands here, once, and each report repeats [`ASSUMED`].

use super::features::FeatureSet;
use super::kallsyms::Symbols;
use super::value::{ANY, Base, Val};
use crate::order;

/// What every walk assumes.
pub const ASSUMED: [&str; 9] = [
    "context tracking is on and says that this CPU is in user mode",
    "the CPU is online",
    "no exit work is pending",
    "no NMI is being handled",
    "no breakpoint is armed",
    "this is no confidential guest",
    "no CPU is crashing the kernel",
    "the random offset of the task stack is the least",
    "branches that warn or panic are not followed",
];

/// How the CPU comes to an entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// SYSCALL: no stack, no frame.
    Syscall,
    /// SYSENTER: on the entry stack, no frame.
    Sysenter,
    /// Through the IDT out of user mode; an error code is on the stack.
    Gate {
        /// Is there an error code (or a vector that the stub pushed)?
        code: bool,
        /// On a stack of the interrupt stack table?
        ist: bool,
    },
    /// Through the IDT out of kernel code that still has the user's CR3.
    FromKernel {
        /// Is there an error code?
        code: bool,
    },
    /// FRED event delivery out of user mode: eight words on the task's stack.
    Fred {
        /// Event type (3 is an exception, 7 is SYSCALL and SYSENTER).
        kind: u64,
        /// Its vector.
        vector: u64,
    },
}

/// One entry to walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name in reports: the symbol, and how it is reached where there are several ways.
    pub name: String,
    /// Symbol.
    pub symbol: String,
    /// Address of the first instruction.
    pub address: u64,
    /// How it is reached.
    pub arrival: Arrival,
}

/// Exceptions for which the CPU pushes an error code (SDM 3A 6.13), and the two entries whose stubs push a vector in its
/// place (`irq_entries_start`, `spurious_entries_start`).
const WITH_CODE: [&str; 11] = [
    "asm_common_interrupt",
    "asm_spurious_interrupt",
    "asm_exc_double_fault",
    "asm_exc_invalid_tss",
    "asm_exc_segment_not_present",
    "asm_exc_stack_segment",
    "asm_exc_general_protection",
    "asm_exc_page_fault",
    "asm_exc_alignment_check",
    "asm_exc_control_protection",
    "asm_exc_vmm_communication",
];

/// Vectors with a stack of their own (arch/x86/kernel/idt.c, `ist_idts`).
const ON_IST: [&str; 5] = [
    "asm_exc_debug",
    "asm_exc_nmi",
    "asm_exc_double_fault",
    "asm_exc_machine_check",
    "asm_exc_vmm_communication",
];

/// Entries that are walked from kernel code too: the three that no interrupt flag holds back.
const NMI_LIKE: [&str; 3] = ["asm_exc_nmi", "asm_exc_debug", "asm_exc_machine_check"];

/// Every entry from user mode, and the NMI-like ones from kernel code, in a fixed order.
pub fn entries(symbols: &Symbols, features: &FeatureSet) -> Vec<Entry> {
    let mut out = Vec::new();
    let mut add = |symbol: &str, suffix: &str, arrival| {
        if let Some(address) = symbols.address(symbol) {
            out.push(Entry {
                name: format!("{symbol}{suffix}"),
                symbol: symbol.to_owned(),
                address,
                arrival,
            });
        }
    };
    if features.has("fred") {
        add("asm_fred_entrypoint_user", " (syscall)", Arrival::Fred { kind: 7, vector: 1 });
        add("asm_fred_entrypoint_user", " (page fault)", Arrival::Fred { kind: 3, vector: 14 });
        return out;
    }
    add("entry_SYSCALL_64", "", Arrival::Syscall);
    add("entry_SYSENTER_compat", "", Arrival::Sysenter);
    add("entry_SYSCALL_compat", "", Arrival::Syscall);
    let gate = |name: &str| {
        name == "asm_int80_emulation"
            || name == "asm_common_interrupt"
            || name == "asm_spurious_interrupt"
            || (name.starts_with("asm_exc_") && !name.contains("xen"))
            || (name.starts_with("asm_sysvec_") && !name.contains("xen"))
    };
    let mut gates: Vec<&str> = symbols.all().iter().map(|s| s.name.as_str()).filter(|n| gate(n)).collect();
    order::natural(&mut gates);
    gates.dedup();
    for name in gates {
        let code = WITH_CODE.contains(&name);
        let ist = ON_IST.contains(&name);
        if name != "asm_exc_double_fault" {
            let suffix = if NMI_LIKE.contains(&name) { " (from user mode)" } else { "" };
            add(name, suffix, Arrival::Gate { code, ist });
        }
        if NMI_LIKE.contains(&name) {
            add(name, " (from kernel code, user CR3)", Arrival::FromKernel { code });
        }
    }
    out
}

const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
const KERNEL_CS: u64 = 0x10;
const KERNEL_SS: u64 = 0x18;

/// The stack pointer and the words on the stack that the CPU leaves at an entry, lowest first.
pub(super) fn frame(arrival: Arrival, symbols: &Symbols) -> (Val, Vec<(Base, i64, Val)>) {
    let words = |base: Base, words: Vec<Val>| {
        let start = -8 * words.len() as i64;
        let frame = words.into_iter().enumerate().map(|(i, v)| (base, start + 8 * i as i64, v)).collect();
        (Val::Ptr(base, start), frame)
    };
    match arrival {
        Arrival::Syscall => (ANY, Vec::new()),
        Arrival::Sysenter => (Val::Ptr(Base::EntryStack, 0), Vec::new()),
        Arrival::Gate { code, ist } => {
            let base = if ist { Base::Ist } else { Base::EntryStack };
            // RIP, CS, RFLAGS with IF, RSP, SS.
            let mut frame = vec![
                user_address(),
                Val::of(USER_CS),
                ANY.with_bit(9, true).with_bit(17, false),
                user_address(),
                Val::of(USER_SS),
            ];
            if code {
                frame.insert(0, ANY);
            }
            words(base, frame)
        }
        Arrival::FromKernel { code } => {
            let inside = symbols.address("entry_SYSCALL_64").unwrap_or(0) + 3;
            let mut frame = vec![
                Val::of(inside),
                Val::of(KERNEL_CS),
                ANY.with_bit(9, false),
                Val::Ptr(Base::EntryStack, -64),
                Val::of(KERNEL_SS),
            ];
            if code {
                frame.insert(0, ANY);
            }
            words(Base::Ist, frame)
        }
        Arrival::Fred { kind, vector } => {
            let ss = USER_SS | vector << 32 | kind << 48 | 1 << 57;
            words(
                Base::TaskStack,
                vec![
                    ANY,
                    user_address(),
                    Val::of(USER_CS),
                    ANY.with_bit(9, true),
                    user_address(),
                    Val::of(ss),
                    ANY,
                    Val::of(0),
                ],
            )
        }
    }
}

/// Nothing is known but that it is no address of the kernel.
fn user_address() -> Val {
    ANY.with_bit(63, false)
}

/// CR3 at an entry: with PTI the user's table, whose bit 12 is set, and with PCID bit 11; bit 63 reads as 0.
pub(super) fn cr3(features: &FeatureSet) -> Val {
    let cr3 = ANY.with_bit(63, false).with_bit(12, features.has("pti"));
    if features.has("pti") { cr3.with_bit(11, features.has("pcid")) } else { cr3 }
}

/// CR4: global pages are on where the CPU has them.
pub(super) fn cr4(features: &FeatureSet) -> Val {
    if features.has("pge") { ANY.with_bit(7, true) } else { ANY }
}

/// What a variable holds when a path starts; `None` where nothing is known. Names are those of reports.
pub(super) fn held(name: &str) -> Option<Val> {
    let known = match name {
        "this_cpu_off" => Val::Ptr(Base::PerCpu, 0),
        "pcpu_hot.top_of_stack" | "cpu_current_top_of_stack" => Val::Ptr(Base::TaskStack, 0),
        "cpu_tss_rw.x86_tss.sp0" => Val::Ptr(Base::EntryStack, 0),
        // CT_STATE_USER in the low two bits; bit 2 is clear while RCU does not watch.
        "context_tracking.state.counter" | "context_tracking.state" => Val::Bits { known: 7, value: 2 },
        "context_tracking.active" => Val::of(1),
        "context_tracking.recursion"
        | "context_tracking.nesting"
        | "context_tracking.nmi_nesting"
        | "context_tracking.dynticks_nesting"
        | "context_tracking.dynticks_nmi_nesting"
        | "nmi_state"
        | "cpu_dr7"
        | "cc_vendor"
        | "hardirq_stack_inuse"
        | "pcpu_hot.hardirq_stack_inuse" => Val::of(0),
        // In user mode no section is open, and no reschedule is due: PREEMPT_NEED_RESCHED is inverted.
        "pcpu_hot.preempt_count" | "__preempt_count" => Val::of(0x8000_0000),
        // No other CPU is crashing the kernel.
        "crashing_cpu" => Val::of(u64::MAX),
        // The copy of CR4, with PGE on (`__flush_tlb_all` toggles it).
        "cpu_tlbstate.cr4" => ANY.with_bit(7, true),
        "current->thread_info.flags"
        | "current->thread_info.syscall_work"
        | "current->kstack_offset"
        | "current->flags" => Val::of(0),
        "__cpu_online_mask" | "__cpu_online_mask.bits" => Val::of(u64::MAX),
        _ => return None,
    };
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::features::Numbers;
    use crate::binary::kallsyms::Symbol;

    #[test]
    fn a_vector_is_pushed_by_the_stubs_of_devices_alone() {
        let names = ["asm_common_interrupt", "asm_spurious_interrupt", "asm_sysvec_apic_timer_interrupt"];
        let list = names.iter().enumerate().map(|(i, name)| Symbol {
            address: 0x1000 + 0x10 * i as u64,
            kind: b'T',
            name: (*name).to_owned(),
        });
        let symbols = Symbols::new(list.collect());

        let found = entries(&symbols, &FeatureSet::parse("pti", &Numbers::none()).unwrap());

        let code = |name: &str| {
            let entry = found.iter().find(|e| e.name == name).unwrap();
            entry.arrival == Arrival::Gate { code: true, ist: false }
        };
        assert!(code("asm_common_interrupt") && code("asm_spurious_interrupt"));
        assert!(!code("asm_sysvec_apic_timer_interrupt"), "what it reads as CS would be RIP");
    }
}
