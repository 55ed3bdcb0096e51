//! Follows a path from its entry to user mode and lists what it does: each access with its region, and each op on TLB,
//! CR3, GS and the speculation MSRs.
//!
//! A path is one way through the branches. Where the state says which way a branch goes it is followed that way alone;
//! else both ways are. Each path ends at user mode, at the atomic of context tracking (the way in) or where it warns.

use std::collections::BTreeMap;
use std::rc::Rc;

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, InstructionInfoFactory, IntelFormatter};
use rustc_hash::{FxHashMap, FxHashSet};

use super::BinaryError;
use super::btf::{Btf, Type};
use super::features::{FeatureSet, Numbers};
use super::image::Image;
use super::kallsyms::Symbols;
use super::patch::Patches;
use super::scenario::{self, Arrival, Entry};
use super::step::{Region, Step, Way, What, Zone};
use super::value::{ANY, Base, Flags, Val};

mod alu;
mod branch;
mod exec;
mod memory;
mod reach;

use memory::Loc;

/// How a path ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// At the atomic of context tracking, on the way in.
    Tracking,
    /// IRET, SYSRET, SYSEXIT or ERETU to user mode (or to the interrupted kernel code).
    Left(&'static str),
    /// A branch whose target is not known.
    Lost(String),
}

/// One way through an entry, or back out of it.
#[derive(Clone, Debug)]
pub struct Path {
    /// Its steps.
    pub steps: Vec<Step>,
    /// How it ends.
    pub end: End,
    /// Instructions.
    pub instructions: usize,
}

/// An entry as it was walked.
#[derive(Debug)]
pub struct Walked {
    /// Which.
    pub entry: Entry,
    /// Ways in, to the atomic of context tracking, or to user mode where there is none.
    pub ways_in: Vec<Path>,
    /// Ways out, from the atomic of the way out.
    pub ways_out: Vec<Path>,
    /// Ways that warn, panic or cannot happen in the assumed state.
    pub cut: usize,
    /// Why there are no ways out, if the walk gave up in the body.
    pub gave_up: Option<String>,
}

/// An image with everything that a walk needs.
#[derive(Debug)]
pub struct Kernel<'a> {
    /// The image.
    pub image: &'a Image,
    /// Its symbols.
    pub symbols: &'a Symbols,
    /// Its types.
    pub btf: Option<Btf<'a>>,
    /// Features.
    pub features: FeatureSet,
    /// What is patched.
    pub patches: Patches,
    /// Version whose feature numbers were borrowed.
    pub borrowed: Option<&'static str>,
    entry_text: (u64, u64),
    noinstr: (u64, u64),
    data: u64,
    /// `struct task_struct`.
    task: Option<Type>,
    /// Variables of policies that it has.
    pub variables: Vec<Variable>,
}

/// A policy's variable in the machine code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The policy's name for it.
    pub name: String,
    /// Its symbol's address.
    pub address: u64,
}

/// Variables of posted series, whose symbols have the names that the policies give them (v7 28/31).
const VARIABLES: [&str; 1] = ["kernel_cr3_loaded"];

impl<'a> Kernel<'a> {
    /// Of an image, for these features.
    pub fn new(image: &'a Image, symbols: &'a Symbols, features: &str) -> Result<Self, BinaryError> {
        let numbers = Numbers::read(image, symbols);
        let features = FeatureSet::parse(features, &numbers)?;
        let patches = Patches::read(image, symbols, &numbers, &features)?;
        let range = |from: &str, to: &str| Ok::<_, BinaryError>((symbols.need(from)?, symbols.need(to)?));
        let data = image.section(".data").map_or(u64::MAX, |s| s.address);
        let btf = Btf::read(image);
        Ok(Self {
            image,
            symbols,
            task: btf.as_ref().and_then(|b| b.structure("task_struct")),
            btf,
            features,
            patches,
            borrowed: numbers.borrowed,
            entry_text: range("__entry_text_start", "__entry_text_end")?,
            noinstr: range("__noinstr_text_start", "__noinstr_text_end")?,
            data,
            variables: VARIABLES
                .iter()
                .filter_map(|name| {
                    Some(Variable { name: (*name).to_owned(), address: symbols.address(name)? })
                })
                .collect(),
        })
    }

    /// The same with text that is patched already, as it runs: no alternative and no jump label is applied.
    #[must_use]
    pub fn as_it_runs(mut self) -> Self {
        self.patches = Patches::default();
        self
    }

    /// Further variables of a policy, each with the symbol that holds it.
    pub fn find_variables(&mut self, given: &[(String, String)]) -> Result<(), BinaryError> {
        for (name, symbol) in given {
            let address = self.symbols.address(symbol).ok_or_else(|| {
                let near = self.symbols.all().iter().map(|s| s.name.as_str());
                let hint = crate::names::hint(symbol, near.filter(|n| n.len().abs_diff(symbol.len()) < 4));
                BinaryError(format!("variable `{name}`: the kernel has no symbol `{symbol}`{hint}"))
            })?;
            self.variables.retain(|v| v.name != *name);
            self.variables.push(Variable { name: name.clone(), address });
        }
        Ok(())
    }

    /// The entries that the image has.
    pub fn entries(&self) -> Vec<Entry> {
        scenario::entries(self.symbols, &self.features)
    }

    /// Is it C code that must not be instrumented?
    fn in_noinstr(&self, address: u64) -> bool {
        (self.noinstr.0..self.noinstr.1).contains(&address)
    }

    fn instrumented(&self, address: u64) -> bool {
        let within = |(from, to): (u64, u64)| (from..to).contains(&address);
        !within(self.entry_text) && !within(self.noinstr)
    }
}

/// Something that a pointer points to.
#[derive(Clone, Debug)]
struct Object {
    name: Rc<str>,
    kind: Option<Type>,
    region: Region,
}

/// Whose GS base is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Gs {
    User,
    Kernel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Resume {
    /// First and last byte of the replacement.
    code: (u64, u64),
    /// What it replaces.
    instead: u64,
    /// Where it goes on.
    back: u64,
}

/// What set the flags: an instruction, and the memory that it looked at.
#[derive(Clone, Debug, Default)]
struct Why(Option<Instruction>, Option<Loc>);

/// A path under way.
#[derive(Clone, Debug)]
struct State {
    ip: u64,
    regs: [Val; 16],
    flags: Flags,
    /// What set the flags.
    why: Why,
    memory: BTreeMap<(Base, i64), (u8, Val)>,
    gs: Gs,
    cr3: Val,
    cr4: Val,
    /// The instruction under way, and whether it is locked.
    at: (u64, bool),
    zone: Zone,
    resume: Vec<Resume>,
    steps: Vec<Step>,
    instructions: usize,
}

impl State {
    /// How much of it is kept while it waits.
    fn weight(&self) -> usize {
        self.steps.len() + self.memory.len()
    }

    fn start(entry: &Entry, kernel: &Kernel<'_>) -> Self {
        let (rsp, frame) = scenario::frame(entry.arrival, kernel.symbols);
        let mut regs = [ANY; 16];
        regs[4] = rsp;
        let steps = match entry.arrival {
            Arrival::Fred { .. } => (0..8)
                .map(|_| Step {
                    at: entry.address,
                    zone: Zone::Before,
                    what: What::Access {
                        region: Region::TaskStack,
                        way: Way::Store,
                        object: "FRED frame (event delivery)".into(),
                        user_gs: false,
                    },
                })
                .collect(),
            _ => Vec::new(),
        };
        Self {
            ip: entry.address,
            regs,
            flags: Flags::default(),
            why: Why::default(),
            memory: frame.into_iter().map(|(base, off, v)| ((base, off), (8, v))).collect(),
            // FRED delivers with the kernel's GS base.
            gs: if matches!(entry.arrival, Arrival::Fred { .. }) { Gs::Kernel } else { Gs::User },
            cr3: scenario::cr3(&kernel.features),
            cr4: scenario::cr4(&kernel.features),
            at: (entry.address, false),
            zone: Zone::Before,
            resume: Vec::new(),
            steps,
            instructions: 0,
        }
    }

    fn same(&self) -> u64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = rustc_hash::FxHasher::default();
        (self.ip, self.regs, self.flags, self.gs, self.cr3, self.cr4, self.zone, &self.resume, &self.memory)
            .hash(&mut hasher);
        hasher.finish()
    }
}

/// What becomes of a path after an instruction.
enum Flow {
    /// It goes on at `ip`.
    On,
    /// The branch at the first address may also go to the second; its test, and the set that it asks about with whether
    /// this CPU is in it where it goes there.
    Fork(u64, u64, Rc<str>, Option<(&'static str, bool)>),
    /// It may also go on as this.
    Split(Box<State>),
    /// It ends.
    End(End),
    /// It warns or cannot happen.
    Cut,
    /// It passed the atomic of context tracking.
    Atomic,
}

/// Instructions from one branch to the end of a path; the longest of three kernels has some 600.
const LONGEST: usize = 20_000;
/// Steps of one path: a repeated string instruction makes many.
const STEPS: usize = 100_000;
/// Paths of one entry, each way.
const MOST: usize = 512;
/// Instructions between the two atomics, over all paths of an entry.
const BODY: usize = 100_000;
/// Steps and known words of memory, over all ways of an entry that are kept at a time [OWN]. A way that
/// forks at each turn of a loop keeps the square of its turns.
const KEPT: usize = 1 << 20;

/// Follows paths through one kernel.
pub struct Walker<'k, 'a> {
    kernel: &'k Kernel<'a>,
    objects: Vec<Object>,
    by_name: FxHashMap<Rc<str>, u32>,
    decoded: FxHashMap<u64, Instruction>,
    /// What is at an offset: its name and its type.
    named: FxHashMap<(Base, i64), (Rc<str>, Option<Type>)>,
    /// Does a function lead to an atomic of context tracking? By its address.
    leads: FxHashMap<u64, bool>,
    facts: InstructionInfoFactory,
    /// Instructions walked so far.
    pub instructions: usize,
}

impl<'k, 'a> Walker<'k, 'a> {
    /// For one kernel.
    pub fn new(kernel: &'k Kernel<'a>) -> Self {
        Self {
            kernel,
            objects: Vec::new(),
            by_name: FxHashMap::default(),
            decoded: FxHashMap::default(),
            named: FxHashMap::default(),
            leads: FxHashMap::default(),
            facts: InstructionInfoFactory::new(),
            instructions: 0,
        }
    }

    /// Walk one entry: all ways in, and from the first of them all ways out.
    pub fn walk(&mut self, entry: &Entry) -> Result<Walked, BinaryError> {
        let mut out =
            Walked { entry: entry.clone(), ways_in: Vec::new(), ways_out: Vec::new(), cut: 0, gave_up: None };
        let mut pending = vec![State::start(entry, self.kernel)];
        let (mut entered, mut told) = (None, 0);
        let started = self.instructions;
        while let Some(state) = pending.pop() {
            self.follow(entry, state, &mut pending, &mut FxHashSet::default(), &mut |state, end| {
                let steps = std::mem::take(&mut state.steps);
                told += steps.len();
                out.ways_in.push(Path { steps, end: end.clone(), instructions: state.instructions });
                // What the ways in differ in does not reach the way out.
                if end == End::Tracking && entered.is_none() {
                    state.zone = Zone::Body;
                    entered = Some(state.clone());
                }
            })
            .map(|cut| out.cut += cut)
            .map_err(|e| BinaryError(format!("{}: {e}", entry.name)))?;
            let many = out.ways_in.len() + pending.len() > MOST || told > KEPT;
            if many || self.instructions - started > BODY {
                let at = pending.last().map_or(entry.address, |s| s.ip);
                return Err(BinaryError(format!(
                    "{}: more than {MOST} ways in, {KEPT} steps or {BODY} instructions, one way now at {at:#x} ({})",
                    entry.name,
                    self.kernel.symbols.place(at)
                )));
            }
        }
        if out.ways_in.is_empty() {
            return Err(BinaryError(format!(
                "{} at {:#x}: every way warns or panics under the assumed state ({} ways)",
                entry.name, entry.address, out.cut
            )));
        }
        self.ways_out(entry, entered, &mut out);
        Ok(out)
    }

    /// On from the atomic of the way in. The body may be long (machine checks): then only the ways in are told.
    fn ways_out(&mut self, entry: &Entry, entered: Option<State>, out: &mut Walked) {
        let mut pending: Vec<State> = entered.into_iter().collect();
        let mut seen = FxHashSet::default();
        let (started, mut told) = (self.instructions, 0);
        while let Some(state) = pending.pop() {
            let mut ended = Vec::new();
            let followed = self.follow(entry, state, &mut pending, &mut seen, &mut |state, end| {
                if matches!(state.zone, Zone::Exit | Zone::ExitUser) {
                    let steps = std::mem::take(&mut state.steps);
                    ended.push(Path { steps, end, instructions: state.instructions });
                }
            });
            told += ended.iter().map(|path| path.steps.len()).sum::<usize>();
            out.ways_out.append(&mut ended);
            let at = pending.last().map_or(entry.address, |s| s.ip);
            let many = out.ways_out.len() + pending.len() > MOST || told > KEPT;
            let too_many = many || self.instructions - started > BODY;
            match followed {
                Ok(cut) => out.cut += cut,
                Err(why) => out.gave_up = Some(why.0),
            }
            if too_many {
                let place = self.kernel.symbols.place(at);
                out.gave_up =
                    Some(format!("more than {BODY} instructions or {MOST} ways, one at {at:#x} ({place})"));
            }
            if out.gave_up.is_some() {
                out.ways_out.clear();
                return;
            }
        }
    }

    /// Follow one state to its end; others that branch off are left in `pending`. Returns how many were cut.
    fn follow(
        &mut self,
        entry: &Entry,
        mut state: State,
        pending: &mut Vec<State>,
        seen: &mut FxHashSet<u64>,
        ended: &mut dyn FnMut(&mut State, End),
    ) -> Result<usize, BinaryError> {
        let limit = state.instructions + LONGEST;
        let mut kept: usize = pending.iter().map(State::weight).sum();
        loop {
            if kept + state.weight() > KEPT || pending.len() > MOST {
                let (ip, place) = (state.ip, self.kernel.symbols.place(state.ip));
                return Err(BinaryError(format!(
                    "too many ways to follow: {} besides the one that is at {ip:#x} ({place})",
                    pending.len()
                )));
            }
            if state.instructions >= limit || state.steps.len() > STEPS {
                let (ip, place) = (state.ip, self.kernel.symbols.place(state.ip));
                return Err(BinaryError(format!(
                    "the walk does not end: {LONGEST} instructions, and is at {ip:#x} ({place})"
                )));
            }
            match self.step(&mut state, &entry.name)? {
                Flow::On => {}
                Flow::Fork(at, target, test, asks) => {
                    let mut other = state.clone();
                    other.ip = target;
                    if state.zone == Zone::Body {
                        if seen.insert(other.same()) {
                            kept += other.weight();
                            pending.push(other);
                        }
                        if !seen.insert(state.same()) {
                            return Ok(0);
                        }
                    } else {
                        let zone = state.zone;
                        let not = asks.map(|(set, member)| (set, !member));
                        let no = What::Branch { test: test.clone(), taken: false, asks: not };
                        other.steps.push(Step { at, zone, what: What::Branch { test, taken: true, asks } });
                        state.steps.push(Step { at, zone, what: no });
                        kept += other.weight();
                        pending.push(other);
                    }
                }
                Flow::Split(other) => {
                    if seen.insert(other.same()) {
                        kept += other.weight();
                        pending.push(*other);
                    }
                }
                Flow::Atomic if state.zone <= Zone::Tracking => {
                    ended(&mut state, End::Tracking);
                    return Ok(0);
                }
                Flow::Atomic if state.zone == Zone::Body => {
                    state.zone = Zone::Exit;
                    state.steps.clear();
                    if !seen.insert(state.same()) {
                        return Ok(0);
                    }
                }
                Flow::Atomic => {}
                Flow::Cut => return Ok(1),
                Flow::End(end) => {
                    ended(&mut state, end);
                    return Ok(0);
                }
            }
        }
    }

    /// An address in a replacement, as the address in the running text.
    fn shown(&self, state: &State, address: u64) -> u64 {
        match state.resume.last() {
            Some(r) if (r.code.0..r.code.1).contains(&address) => r.instead + (address - r.code.0),
            _ => address,
        }
    }

    fn decode(&mut self, ip: u64, entry: &str) -> Result<Instruction, BinaryError> {
        if let Some(found) = self.decoded.get(&ip) {
            return Ok(*found);
        }
        let place = || self.kernel.symbols.place(ip);
        let Some(bytes) = self.kernel.image.from(ip) else {
            return Err(BinaryError(format!(
                "the walk of {entry} came to {ip:#x}, which is in no section of the image"
            )));
        };
        let mut decoder = Decoder::with_ip(64, &bytes[..bytes.len().min(15)], ip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            let start: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
            return Err(BinaryError(format!(
                "no instruction that is known here at {ip:#x} ({}), on the way of {entry}: bytes {}",
                place(),
                start.join(" ")
            )));
        }
        self.decoded.insert(ip, instruction);
        Ok(instruction)
    }
}

/// The instruction as text.
fn text(i: &Instruction) -> String {
    let mut out = String::new();
    IntelFormatter::new().format(i, &mut out);
    out
}
