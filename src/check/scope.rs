//! What is explored: how many of everything, who does what, and what is assumed of the machine.

use super::property::{Condition, Quantity};
use crate::kernel::policy;
use crate::kernel::step::Violation;

/// Most CPUs of a scope.
pub const MAX_CPUS: usize = 5;
/// Most tracked pages of a scope, text aside.
pub const MAX_PAGES: usize = 3;
/// Most of them with two parts of text for each patched instruction beside.
pub const MAX_TRACKED: usize = 7;
/// Most ASIDs of a scope.
pub const MAX_ASIDS: usize = 2;

/// Why a check cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A bound outside of what the explorer holds.
    #[error("{what} is {least} to {most}: got {got}")]
    Bound {
        /// Which bound.
        what: &'static str,
        /// Least.
        least: usize,
        /// Most.
        most: usize,
        /// Given.
        got: usize,
    },
    /// The packed state is wider than the explorer's widest.
    #[error("{bits} bits of state do not fit {most} words of 64: fewer CPUs, pages, ASIDs or variables")]
    TooWide {
        /// Needed.
        bits: usize,
        /// Words there are.
        most: usize,
    },
    /// Rounds without bound where versions cannot be renamed.
    #[error("rounds can be unbounded where pages alone have versions: {0} has too")]
    Unbounded(&'static str),
    /// A program the scope needs is not there.
    #[error("{policy} has no program `{program}`")]
    NoProgram {
        /// Policy.
        policy: String,
        /// Program.
        program: String,
    },
    /// An assumption nobody knows.
    #[error("{0}")]
    Assumption(String),
    /// A schedule that cannot be read or does not run.
    #[error("{0}")]
    Schedule(String),
    /// A litmus file whose header is not complete.
    #[error("{0}")]
    Litmus(String),
}

/// Where a CPU is when it runs no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rest {
    /// In user mode: system calls, interrupts and NMIs enter from there.
    User,
    /// In ordinary kernel code with interrupts on.
    Kernel,
}

/// Paths by which a CPU in user mode comes into the kernel, NMIs apart, and that `isolated ENTRIES by ENTRY` names.
pub const USER_ENTRIES: [&str; 7] = [
    "syscall",
    "syscall_compat",
    "sysenter_compat",
    "exception",
    "exception_espfix",
    "exception_bad_iret",
    "interrupt",
];

/// Where the device interrupt is among them.
const DEVICE: usize = 6;

/// Any number of runs: nothing in the state counts them.
pub const UNBOUNDED: u8 = u8::MAX;

/// What one CPU does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Role {
    /// Heading of its lane.
    pub name: String,
    /// In `nohz_full`; otherwise in `housekeeping`.
    pub isolated: bool,
    /// The program it starts in.
    pub first: String,
    /// What it runs next, each time, from where it rests.
    pub again: String,
    /// By which programs it enters from user mode, each time one of them; `again` alone if there is none. With
    /// `interrupt` among them device interrupts come by themselves, in user mode as in the kernel.
    pub paths: Vec<String>,
    /// How often; [`UNBOUNDED`] for any number of times. Of a CPU that rests in user mode these are its entries, device
    /// interrupts amid the kernel included.
    pub left: u8,
    /// Device interrupts that come by themselves, of a CPU that rests in the kernel.
    pub devices: u8,
    /// Where it rests.
    pub rest: Rest,
    /// Pages that `range` means when it writes entries; a bit each. Flushes cover the hull, all pages.
    pub own: u8,
    /// Interrupts are off in its first program: it was on its way to user mode.
    pub irqs_off: bool,
    /// Takes neither interrupts nor NMIs: a walker such as an IOMMU.
    pub deaf: bool,
    /// In the mask that the entry flush tests, if isolated: senders and entries may look at different masks
    /// (FACTS 1.6 f).
    pub flushes: bool,
}

impl Role {
    /// A housekeeping CPU that runs `program` once and then `rounds - 1` times more.
    pub fn initiator(program: &str, rounds: u8) -> Role {
        let program = policy::asked_as(program);
        Role {
            name: "housekeeping".into(),
            isolated: false,
            first: program.into(),
            again: program.into(),
            paths: Vec::new(),
            left: if rounds == UNBOUNDED { rounds } else { rounds.saturating_sub(1) },
            devices: 1,
            rest: Rest::Kernel,
            own: 0xff,
            irqs_off: false,
            deaf: false,
            flushes: true,
        }
    }

    /// An isolated CPU on its way to user mode, which then enters the kernel `entries` times by any path. One that
    /// makes no entry of its own still takes a device interrupt.
    pub fn isolated(entries: u8) -> Role {
        let paths = if entries == 0 { &USER_ENTRIES[DEVICE..] } else { &USER_ENTRIES[..] };
        Role {
            name: "isolated".into(),
            isolated: true,
            first: "enter_user".into(),
            again: paths[0].into(),
            paths: paths.iter().map(|p| (*p).into()).collect(),
            left: entries.max(1),
            devices: 0,
            rest: Rest::User,
            own: 0,
            irqs_off: true,
            deaf: false,
            flushes: true,
        }
    }

    /// The same through one entry path alone, such as `exception_espfix`.
    pub fn isolated_by(entries: u8, entry: &str) -> Role {
        Role { again: entry.into(), paths: vec![entry.into()], left: entries, ..Role::isolated(entries) }
    }

    /// An isolated CPU that runs `program` once and `rounds - 1` times more.
    pub fn isolated_in(program: &str, rounds: u8) -> Role {
        let role = Role::initiator(program, rounds);
        Role {
            isolated: true,
            name: "isolated".into(),
            devices: if rounds == UNBOUNDED { 1 } else { rounds },
            ..role
        }
    }

    /// Does it flush nothing itself: an idle CPU, or one that runs a process?
    pub fn is_beside(&self) -> bool {
        self.first == "idle" || self.first.starts_with("run_process")
    }

    /// The programs an entry, or the next round, chooses from.
    pub fn entries(&self) -> &[String] {
        if self.paths.is_empty() { std::slice::from_ref(&self.again) } else { &self.paths }
    }

    /// Do device interrupts come by themselves?
    pub fn takes_devices(&self) -> bool {
        let by_interrupt = || self.paths.iter().any(|p| p == USER_ENTRIES[DEVICE]);
        !self.deaf && if self.rest == Rest::User { by_interrupt() } else { self.devices > 0 }
    }

    /// A CPU that runs one program and then rests in the kernel.
    pub fn column(name: &str, program: &str) -> Role {
        Role {
            name: name.into(),
            isolated: false,
            first: program.into(),
            again: program.into(),
            paths: Vec::new(),
            left: 0,
            devices: 0,
            rest: Rest::Kernel,
            own: 0xff,
            irqs_off: false,
            deaf: false,
            flushes: true,
        }
    }
}

/// Bounds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// One per CPU.
    pub roles: Vec<Role>,
    /// Tracked pages, where the text declares none.
    pub pages: usize,
    /// ASIDs per CPU.
    pub asids: usize,
    /// NMIs in all.
    pub nmis: u8,
    /// Machine checks in all; they nest in NMIs.
    pub mces: u8,
    /// Must hold in no state.
    pub never: Option<Condition>,
    /// Is an end reachable in which this holds?
    pub exists: Option<Condition>,
    /// Must hold in every end.
    pub forall: Option<Condition>,
    /// What the question reads of an end, and what else is listed of it.
    pub observed: Vec<Quantity>,
    /// Every end is listed.
    pub lists_ends: bool,
    /// The one rule that is looked for: a run that breaks another one first ends there and is passed over.
    pub sought: Option<Violation>,
    /// For each page the fields it maps: at first, after its next change, ...
    pub frames: Vec<Vec<u8>>,
    /// For each page the variable, one copy per address space, that says whether the top-level entry of that space leads to
    /// it: a walk reads it. None where every table does.
    pub tops: Vec<Option<u8>>,
    /// Rename versions (SEMANTICS S1) even if the rounds are bounded.
    pub rename: bool,
    /// Pages that no text declares are mapped by global entries, as the kernel's are where PTI is off
    /// (arch/x86/mm/init.c probe_page_size_mask).
    pub global: bool,
    /// Follow every path into the kernel, also those that another one covers.
    pub every_path: bool,
    /// It is asked whether flushes or syncs keep their promises: where none is made nothing is known.
    pub asks_flush: bool,
}

impl Scope {
    /// The standard scope: one housekeeping initiator, every other CPU isolated with two entries, one page.
    pub fn standard(cpus: usize, nmis: u8) -> Scope {
        let mut roles = vec![Role::initiator("purge", 1)];
        roles.extend((1..cpus).map(|_| Role::isolated(2)));
        Scope {
            roles,
            pages: 1,
            asids: 1,
            nmis,
            mces: 0,
            never: None,
            exists: None,
            forall: None,
            observed: Vec::new(),
            lists_ends: false,
            sought: None,
            frames: Vec::new(),
            tops: Vec::new(),
            rename: false,
            global: false,
            every_path: false,
            asks_flush: true,
        }
    }

    /// Everything the question reads of a state.
    pub fn quantities(&self) -> impl Iterator<Item = Quantity> + '_ {
        let conditions = [&self.never, &self.exists, &self.forall].into_iter().flatten();
        conditions.flat_map(Condition::quantities).chain(self.observed.iter().copied())
    }

    /// Does the question ask whether this CPU faults at this page?
    pub fn asks_fault(&self, cpu: usize, page: usize) -> bool {
        self.quantities().any(|q| q == Quantity::Fault(cpu as u8, page as u8))
    }

    /// Does the question tell this CPU from others?
    pub fn names_cpu(&self, cpu: usize) -> bool {
        self.quantities()
            .any(|q| matches!(q, Quantity::Fault(c, _) | Quantity::Register(c, _) if usize::from(c) == cpu))
    }

    /// Does a CPU run something any number of times?
    pub fn is_unbounded(&self) -> bool {
        self.roles.iter().any(|r| r.left == UNBOUNDED)
    }

    /// Reject what the explorer cannot hold.
    pub fn validate(&self) -> Result<(), CheckError> {
        let bound = |what, got, least, most| {
            if (least..=most).contains(&got) {
                Ok(())
            } else {
                Err(CheckError::Bound { what, least, most, got })
            }
        };
        bound("the number of CPUs", self.roles.len(), 1, MAX_CPUS)?;
        bound("the number of pages", self.pages, 1, MAX_PAGES)?;
        bound("the number of ASIDs", self.asids, 1, MAX_ASIDS)?;
        bound("the number of NMIs", usize::from(self.nmis), 0, 7)?;
        bound("the number of machine checks", usize::from(self.mces), 0, 3)
    }
}

/// What code of a class touches (SEMANTICS A2), from the fewest accesses to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Touches {
    /// Nothing that is ever unmapped.
    None,
    /// The direct map too.
    DirectMap,
    /// Recycled vmalloc memory too.
    Recycled,
}

impl Touches {
    /// The word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Touches::None => "none",
            Touches::DirectMap => "directmap",
            Touches::Recycled => "recycled",
        }
    }
}

/// Where an instruction may stand that is patched at run time (SEMANTICS S7; FACTS 1.2, v7 25), from the fewest places
/// to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Patched {
    /// In ordinary kernel code and in bodies of NMIs: `.noinstr.text` is never patched, as objtool enforces.
    Instrumentable,
    /// Also between the CR3 switch and the first instrumentable code.
    Danger,
    /// Anywhere in `.noinstr.text`, the first instruction of an entry path included.
    Noinstr,
}

impl Patched {
    /// The word of the command line.
    pub fn name(self) -> &'static str {
        match self {
            Patched::Instrumentable => "instr",
            Patched::Danger => "danger",
            Patched::Noinstr => "noinstr",
        }
    }
}

/// When translations are cached (SEMANTICS H2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fills {
    /// At any time: the hardware may speculate.
    Speculative,
    /// Only at an access that may need them.
    Demand,
}

/// What INVPCID and INVLPGB wait for (SEMANTICS H4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InvpcidOrder {
    /// Nothing: neither manual says that they do.
    Unordered,
    /// This CPU's own page-table stores.
    Ordered,
    /// Every earlier store of this CPU.
    Publishes,
}

/// Assumptions about the machine and about code that is not modelled. Each is one flag of `--assume`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Assume {
    /// D: code between the CR3 switch and the flush.
    pub danger: Touches,
    /// N: bodies of NMI, #MC and #DB.
    pub nmi: Touches,
    /// T: where text is patched.
    pub text: Patched,
    /// What INVPCID and INVLPGB wait for.
    pub invpcid: InvpcidOrder,
    /// EFER.TCE: INVLPG drops the upper entries of its own address only (SEMANTICS H3).
    pub tce: bool,
    /// The store buffer drains when an interrupt or exception is delivered (SEMANTICS H5).
    pub interrupts_drain: bool,
    /// TLBSYNC and RAR make the stores of the CPUs they reach visible (SEMANTICS H4).
    pub broadcast_drains: bool,
    /// Stores are buffered (x86-TSO); off: sequential consistency.
    pub store_buffers: bool,
    /// Fills.
    pub fills: Fills,
    /// A %gs-relative access under the user's GSBASE ends the run; otherwise it is reported beside the verdict
    /// and taken to work.
    pub gs_faults: bool,
    /// Requested ranges are flushed page by page, not as a whole.
    pub ranged: bool,
    /// NMIs arrive; off only to find the assumption core.
    pub nmis_arrive: bool,
}

impl Default for Assume {
    fn default() -> Self {
        Assume {
            danger: Touches::None,
            nmi: Touches::None,
            text: Patched::Instrumentable,
            invpcid: InvpcidOrder::Unordered,
            tce: true,
            interrupts_drain: true,
            broadcast_drains: false,
            store_buffers: true,
            fills: Fills::Speculative,
            gs_faults: false,
            ranged: false,
            nmis_arrive: true,
        }
    }
}

impl Assume {
    /// Names and values of every flag, for help and errors.
    pub const FLAGS: [(&'static str, &'static [&'static str]); 12] = [
        ("D", &["none", "directmap", "recycled"]),
        ("N", &["none", "directmap", "recycled"]),
        ("T", &["instr", "danger", "noinstr"]),
        ("invpcid", &["unordered", "ordered", "publishes"]),
        ("tce", &["on", "off"]),
        ("interrupts", &["drain", "keep"]),
        ("broadcast", &["keeps", "drains"]),
        ("walks", &["monotonic"]),
        ("stores", &["buffered", "sc"]),
        ("fills", &["speculative", "demand"]),
        ("gs", &["works", "faults"]),
        ("range", &["full", "pages"]),
    ];

    /// Set one flag as `--assume NAME=VALUE` does.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), CheckError> {
        let touches = |v: &str| match v {
            "none" => Some(Touches::None),
            "directmap" => Some(Touches::DirectMap),
            "recycled" => Some(Touches::Recycled),
            _ => None,
        };
        let done = match (name, value) {
            ("D", v) => touches(v).map(|t| self.danger = t),
            ("N", v) => touches(v).map(|t| self.nmi = t),
            ("T", "instr") => Some(self.text = Patched::Instrumentable),
            ("T", "danger") => Some(self.text = Patched::Danger),
            ("T", "noinstr") => Some(self.text = Patched::Noinstr),
            ("invpcid", "unordered") => Some(self.invpcid = InvpcidOrder::Unordered),
            ("invpcid", "ordered") => Some(self.invpcid = InvpcidOrder::Ordered),
            ("invpcid", "publishes") => Some(self.invpcid = InvpcidOrder::Publishes),
            ("tce", "on" | "off") => Some(self.tce = value == "on"),
            ("interrupts", "drain" | "keep") => Some(self.interrupts_drain = value == "drain"),
            ("broadcast", "keeps" | "drains") => Some(self.broadcast_drains = value == "drains"),
            ("walks", "monotonic") => Some(()),
            ("stores", "buffered" | "sc") => Some(self.store_buffers = value == "buffered"),
            ("fills", "speculative") => Some(self.fills = Fills::Speculative),
            ("fills", "demand") => Some(self.fills = Fills::Demand),
            ("gs", "works" | "faults") => Some(self.gs_faults = value == "faults"),
            ("range", "full" | "pages") => Some(self.ranged = value == "pages"),
            _ => None,
        };
        done.ok_or_else(|| {
            let known = Self::FLAGS.iter().map(|(n, v)| format!("{n}={}", v.join("|"))).collect::<Vec<_>>();
            CheckError::Assumption(format!("no assumption `{name}={value}`; these are: {}", known.join(", ")))
        })
    }

    /// One phrase per flag, for the closing sentence of a verdict.
    pub fn phrases(&self) -> Vec<String> {
        let mut out = vec![format!("D={}", self.danger.name()), format!("N={}", self.nmi.name())];
        out.push(
            match self.invpcid {
                InvpcidOrder::Unordered => "INVPCID waits for no store",
                InvpcidOrder::Ordered => "INVPCID waits for this CPU's page-table stores",
                InvpcidOrder::Publishes => "INVPCID publishes",
            }
            .into(),
        );
        if !self.tce {
            out.push("TCE off".into());
        }
        if !self.interrupts_drain {
            out.push("delivery of interrupts publishes nothing".into());
        }
        if self.broadcast_drains {
            out.push("TLBSYNC and RAR make remote stores visible".into());
        }
        out.push("an invalidation cancels walks in flight".into());
        out.push("walks=monotonic".into());
        if !self.store_buffers {
            out.push("sequential consistency".into());
        }
        if self.fills == Fills::Demand {
            out.push("fills at accesses only".into());
        }
        if self.ranged {
            out.push("ranges flushed page by page".into());
        }
        out
    }
}
