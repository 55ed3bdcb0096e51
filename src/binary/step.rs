//! What a path consists of: steps, each with its address and zone, and the words of reports for them.

use std::rc::Rc;

use serde::Serialize;

/// Where on the way a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Zone {
    /// User CR3, or before it is known which.
    #[serde(rename = "before CR3")]
    Before,
    /// Kernel CR3, up to the call into context tracking.
    #[serde(rename = "danger zone")]
    Danger,
    /// Context tracking, up to its atomic: the danger zone of a late flush goes on.
    #[serde(rename = "context tracking")]
    Tracking,
    /// Between the two atomics: the kernel's ordinary work, which is not listed.
    #[serde(rename = "body")]
    Body,
    /// After the atomic of the way out.
    #[serde(rename = "exit")]
    Exit,
    /// After the CR3 write of the way out.
    #[serde(rename = "exit, user CR3")]
    ExitUser,
}

impl Zone {
    /// The zones that a census lists, in order.
    pub const LISTED: [Self; 5] = [Self::Before, Self::Danger, Self::Tracking, Self::Exit, Self::ExitUser];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before CR3",
            Self::Danger => "danger zone",
            Self::Tracking => "context tracking",
            Self::Body => "body",
            Self::Exit => "exit",
            Self::ExitUser => "exit, user CR3",
        }
    }
}

/// Which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Region {
    /// IDT, GDT, TSS, entry and IST stacks.
    #[serde(rename = "cpu_entry_area")]
    EntryArea,
    /// Static per-CPU data.
    #[serde(rename = "per-CPU")]
    PerCpu,
    /// Text that the user's table maps too.
    #[serde(rename = "entry text")]
    EntryText,
    /// Text, constants, and what is read-only after boot.
    #[serde(rename = "kernel rodata")]
    Rodata,
    /// Data of the image.
    #[serde(rename = "kernel data")]
    Data,
    /// Slab objects: `task_struct`, `mm_struct`.
    #[serde(rename = "direct map")]
    DirectMap,
    /// The current task's stack.
    #[serde(rename = "task stack")]
    TaskStack,
    /// A constant address in the vmalloc range of a kernel without KASLR.
    #[serde(rename = "vmalloc")]
    Vmalloc,
    /// Not told.
    #[serde(rename = "unknown")]
    Unknown,
}

impl Region {
    /// All, in the order of tables.
    pub const ALL: [Self; 9] = [
        Self::EntryArea,
        Self::PerCpu,
        Self::EntryText,
        Self::Rodata,
        Self::Data,
        Self::DirectMap,
        Self::TaskStack,
        Self::Vmalloc,
        Self::Unknown,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::EntryArea => "cpu_entry_area",
            Self::PerCpu => "per-CPU",
            Self::EntryText => "entry text",
            Self::Rodata => "kernel rodata",
            Self::Data => "kernel data",
            Self::DirectMap => "direct map",
            Self::TaskStack => "task stack",
            Self::Vmalloc => "vmalloc",
            Self::Unknown => "unknown",
        }
    }
}

/// How memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// A load.
    Load,
    /// A store.
    Store,
    /// A load and a store of one instruction.
    Rmw,
    /// The same, locked.
    Locked,
    /// A prefetch: no access, but it may fill the TLB.
    Prefetch,
    /// A load that the CPU makes by itself: a descriptor, or the frame of an IRET.
    Implicit,
}

impl Way {
    /// How many accesses it counts as. A locked one counts once: at the atomic of context tracking a zone ends.
    pub fn count(self) -> u32 {
        match self {
            Self::Load | Self::Store | Self::Locked => 1,
            Self::Rmw => 2,
            Self::Prefetch | Self::Implicit => 0,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Store => "store",
            Self::Rmw => "rmw",
            Self::Locked => "locked rmw",
            Self::Prefetch => "prefetch",
            Self::Implicit => "implicit load",
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// An access.
    Access {
        /// Which memory.
        region: Region,
        /// How.
        way: Way,
        /// What is there: a variable, a field, or how the address came to be.
        object: Rc<str>,
        /// Relative to a GS base that is still the user's?
        user_gs: bool,
    },
    /// An op on TLB, CR3, CR4, GS, a speculation MSR, or interrupts.
    Op(Op),
    /// A branch that the state does not decide.
    Branch {
        /// The test.
        test: Rc<str>,
        /// Does this path take it?
        taken: bool,
        /// Where it asks whether this CPU is in a set of the language: the set, and whether it is on this path.
        asks: Option<(&'static str, bool)>,
    },
    /// A jump label.
    Key {
        /// The key.
        key: Rc<str>,
        /// Is it on?
        on: bool,
    },
    /// A call of a function.
    Call(Rc<str>),
}

/// Ops that matter to a TLB, and what stands beside them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// MOV from CR3.
    ReadCr3,
    /// MOV to CR3.
    WriteCr3 {
        /// To the user's table? `None` where the value is not known.
        user: Option<bool>,
        /// Bit 63: keep this PCID's entries? `None` where it depends on the path.
        noflush: Option<bool>,
    },
    /// MOV to CR4; the state of PGE after it, if known.
    WriteCr4(Option<bool>),
    /// INVPCID of a type, if known.
    Invpcid(Option<u64>),
    /// INVLPG.
    Invlpg(String),
    /// SWAPGS; whose base it leaves.
    Swapgs {
        /// The user's?
        user: bool,
    },
    /// RDGSBASE or RDMSR of it.
    ReadGs,
    /// WRGSBASE or WRMSR; to the user's base?
    WriteGs {
        /// The user's?
        user: bool,
    },
    /// WRMSR: its name.
    Msr(String),
    /// LFENCE.
    Lfence,
    /// MFENCE.
    Mfence,
    /// SERIALIZE, CPUID.
    Serialize,
    /// STI.
    Sti,
    /// CLI.
    Cli,
    /// VERW.
    Verw,
    /// A store to a variable of a policy.
    Store {
        /// The policy's name for it.
        variable: String,
        /// What it leaves, if known.
        value: Option<u64>,
        /// Is it a locked instruction, or XCHG?
        locked: bool,
    },
    /// A call out of entry and noinstr text.
    LeavesNoinstr(String),
    /// A branch to an address that the state does not tell.
    Unresolved(String),
}

impl Op {
    /// Does it change what a TLB holds, or which table it is filled from?
    pub fn on_tlb(&self) -> bool {
        matches!(self, Self::WriteCr3 { .. } | Self::WriteCr4(_) | Self::Invpcid(_) | Self::Invlpg(_))
    }

    /// As reports print it.
    pub fn text(&self) -> String {
        match self {
            Self::ReadCr3 => "read cr3".into(),
            Self::WriteCr3 { user, noflush } => {
                let table = user.map_or("unknown", |u| if u { "user" } else { "kernel" });
                let flush = noflush.map_or("owed", |n| if n { "noflush" } else { "flush" });
                format!("mov cr3, {table} {flush}")
            }
            Self::WriteCr4(pge) => {
                format!("mov cr4, pge {}", pge.map_or("unknown", |on| if on { "on" } else { "off" }))
            }
            Self::Invpcid(kind) => match kind {
                Some(0) => "invpcid address".into(),
                Some(1) => "invpcid context".into(),
                Some(2) => "invpcid all-including-global".into(),
                Some(3) => "invpcid all".into(),
                Some(n) => format!("invpcid type {n}"),
                None => "invpcid of unknown type".into(),
            },
            Self::Invlpg(what) => format!("invlpg {what}"),
            Self::Swapgs { user } => format!("swapgs -> {}", if *user { "user" } else { "kernel" }),
            Self::ReadGs => "read gsbase".into(),
            Self::WriteGs { user } => format!("mov gsbase, {}", if *user { "user" } else { "kernel" }),
            Self::Msr(name) => format!("wrmsr {name}"),
            Self::Lfence => "lfence".into(),
            Self::Mfence => "mfence".into(),
            Self::Serialize => "serialize".into(),
            Self::Sti => "sti".into(),
            Self::Cli => "cli".into(),
            Self::Verw => "verw".into(),
            Self::Store { variable, value, locked } => {
                let value = value.map_or("unknown".into(), |v| v.to_string());
                if *locked { format!("xchg {variable}, {value}") } else { format!("{variable} = {value}") }
            }
            Self::LeavesNoinstr(name) => format!("calls {name}, out of noinstr"),
            Self::Unresolved(what) => format!("branches to {what}, which the walk cannot tell"),
        }
    }
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Address of the instruction in the running text.
    pub at: u64,
    /// Where on the way.
    pub zone: Zone,
    /// What.
    pub what: What,
}
