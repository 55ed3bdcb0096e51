//! Which fields a scope needs: a CPU has bits for what its programs can come to do, and for nothing else.

use super::entries::{Device, Path, paths};
use super::liveness::{Ambient, frame, register_widths};
use super::packing::{Allocator, Bits, width};
use super::pages::Sites;
use super::pages::{MAX_MMS, address_spaces, pages, tables_left, tags, upper_tags};
use super::plan::{Plan, Runs, laters, traps_in_nmis};
use super::roots::idles;
use super::{CpuFields, Frame, LATERS, Later, Layout, Location, PageInfo, SharedFields, Target};
use crate::check::machine::Model;
use crate::check::machine::faults::page_of;
use crate::check::scope::{Assume, CheckError, MAX_ASIDS, Rest, Role, Scope, UNBOUNDED};
use crate::kernel::program::{
    Ask, At, BREAKPOINT, Code, Copies, Entry, GENERATION_BITS, Level, Op, PageKind, Pages, ProgId, REGS, Rcu,
    is_site,
};
use crate::order;

impl Layout {
    /// Derive the layout. `buffer` is the depth of the store buffers, `versions` the highest version.
    pub fn new(
        code: &Code,
        scope: &Scope,
        assume: Assume,
        buffer: usize,
        versions: u64,
    ) -> Result<Layout, CheckError> {
        scope.validate()?;
        let (pages, sites) = pages(code, scope, assume)?;
        let mut handlers: Vec<ProgId> = code
            .ops
            .iter()
            .filter_map(|op| if let Op::Ipi { run, .. } = op { Some(*run) } else { None })
            .collect();
        order::natural(&mut handlers);
        handlers.dedup();
        let checks = |zone| pages.iter().any(|p| Model::zone_may(assume, zone, p.kind));
        let plan = Plan::new(code, scope, &handlers, &checks, buffer, versions)?;
        let tables = |op: &Op| matches!(op, Op::Pte { level: Level::Table, .. } | Op::FreeTable(_));
        let walks = |op: &Op| matches!(op, Op::Walk { .. });
        if pages.iter().any(|p| p.within.is_some())
            && (plan.any(tables) || plan.any(walks) || !scope.frames.is_empty())
        {
            return Err(CheckError::Litmus(
                "beside a page in a large one there are neither page tables nor `frames`, and no walks in software (SEMANTICS H9)"
                    .into(),
            ));
        }
        let typed = typed(&plan, &pages);
        let beside = plan.any(tables) || plan.any(walks) || !scope.frames.is_empty() || plan.migrates;
        if typed != 0 && (beside || pages.iter().any(|p| p.within.is_some())) {
            return Err(CheckError::Litmus(
                "beside a page that becomes uncached there are neither page tables, walks in software, `frames` and pages in \
                 large ones, nor tasks that migrate (SEMANTICS H11)"
                    .into(),
            ));
        }
        if plan.migrates && plan.any(|op| walks(op) || matches!(op, Op::Rcu(_) | Op::CallLater(_))) {
            return Err(CheckError::Litmus(
                "a task migrates: walks in software, sections and grace periods beside it are not modelled (SEMANTICS L11)".into(),
            ));
        }
        let accessed =
            (0..pages.len()).fold(0, |all, p| all | u8::from(plan.any(|op| accesses(*op, p))) << p);
        let mut layout = Layout {
            cpus: Vec::new(),
            shared: SharedFields::default(),
            mms: address_spaces(code, &pages),
            text: pages.iter().position(|p| p.kind == PageKind::Text).unwrap_or(pages.len()),
            pages,
            tables: plan.any(tables),
            walks: plan.any(|op| matches!(op, Op::Walk { .. })),
            graces: plan
                .runs
                .iter()
                .enumerate()
                .fold(0, |all, (cpu, r)| all | u8::from(r.ops.iter().any(|op| is_grace(*op))) << cpu),
            laters: laters(code).collect(),
            sites,
            breakpoint: code.program(BREAKPOINT).filter(|_| plan.any(|op| is_site(*op))),
            words: 0,
            bits: (Vec::new(), 0),
            handlers,
            broadcasts: broadcasts(&plan),
            writers: writers(&plan),
            accessed,
            typed,
            migrates: plan.migrates,
            asids: scope.asids,
            paths: Vec::new(),
        };
        let offloaded = |(cpu, r): (usize, &Runs)| {
            scope.roles[cpu].rest == Rest::User && r.ops.iter().any(|op| matches!(op, Op::CallLater(_)))
        };
        if plan.runs.iter().enumerate().any(offloaded) {
            let why = "`call later` on a CPU that rests in user mode: its callbacks run on other CPUs, which is not modelled";
            return Err(CheckError::Assumption(why.into()));
        }
        layout.paths = layout.entry_paths(code, scope, assume);
        let ambient = Ambient::new(code);
        let registers = register_widths(code, (layout.asid_bits() as u8, layout.mm_bits() as u8));
        for cpu in 0..scope.roles.len() {
            let mut a = Allocator::new(layout.words);
            let mut c = CpuFields::default();
            for (level, (set, rets)) in plan.runs[cpu].levels.iter().enumerate() {
                if !set.is_empty() {
                    c.frames[level] = frame(code, set, rets, &ambient, &registers);
                    c.frames[level].allocate(&plan, level, &mut a);
                    if layout.leaves_calls(&plan, cpu, level) {
                        c.frames[level].device = a.take(1);
                    }
                }
            }
            layout.registers(&plan, cpu, &mut c, &mut a);
            layout.ends(&plan, cpu, &registers, &mut c, &mut a);
            layout.calls(&plan, cpu, &mut c, &mut a);
            layout.contexts(&plan, cpu, &mut c, &mut a);
            layout.stores(&plan, cpu, &mut c, &mut a);
            if plan.migrates {
                c.task = a.take(width(scope.roles.len() as u64 - 1).max(1));
            }
            c.words = (layout.words, a.used.len());
            layout.words += a.used.len();
            layout.bits.0.push(a.total);
            layout.cpus.push(c);
        }
        let mut a = Allocator::new(layout.words);
        layout.shared = layout.shared(&plan, &mut a);
        layout.bits.1 = a.total;
        layout.words += a.used.len();
        Ok(layout)
    }

    /// Can a program begin in a frame because a device sends an interrupt, where remote calls may wait?
    fn leaves_calls(&self, plan: &Plan<'_>, cpu: usize, level: usize) -> bool {
        let (code, role) = (plan.code, &plan.scope.roles[cpu]);
        let runs = |name: &&str| matches!(Device::new(code, role, name), Device::Runs(_));
        let sent = match level {
            0 => role.rest == Rest::User && self.paths[cpu].iter().any(Path::is_of_devices),
            1 => ["interrupt_kernel", "interrupt_idle"].iter().any(runs),
            _ => false,
        };
        plan.runs[cpu].receives && sent
    }

    /// By which paths each CPU enters.
    fn entry_paths(&self, code: &Code, scope: &Scope, assume: Assume) -> Vec<Vec<Path>> {
        let checks = |zone| self.pages.iter().any(|p| Model::zone_may(assume, zone, p.kind));
        scope.roles.iter().map(|role| paths(code, scope, role, &checks)).collect()
    }

    fn asid_bits(&self) -> u32 {
        width(self.asids as u64 - 1)
    }

    fn mm_bits(&self) -> u32 {
        width(self.mms as u64 - 1)
    }

    /// Registers, translations and this CPU's copies of variables.
    fn registers(&self, plan: &Plan<'_>, cpu: usize, c: &mut CpuFields, a: &mut Allocator) {
        let left = plan.scope.roles[cpu].left;
        c.cr3 = a.take(1 + self.asid_bits() + self.mm_bits());
        c.irqs = a.take(1);
        c.gs = a.take(1);
        c.left = a.take(if left == UNBOUNDED { 0 } else { width(u64::from(left)) });
        let role = &plan.scope.roles[cpu];
        let runs = |name| matches!(Device::new(plan.code, role, name), Device::Runs(_));
        let runs = runs("interrupt_kernel") || idles(plan.code, role) && runs("interrupt_idle");
        if role.rest == Rest::Kernel && runs {
            c.devices = a.take(width(u64::from(role.devices)));
        }
        for (p, page) in self.pages.iter().enumerate() {
            let mapped = page.kind != PageKind::Text;
            for t in 0..tags(page, self.asids) {
                c.tlb[p][t] = a.take(plan.version_bits);
                c.less[p][t] = a.take(u32::from(plan.rights && mapped));
                c.uncached[p][t] = a.take(u32::from(self.typed >> p & 1));
            }
            c.lines[p] = a.take(u32::from(self.typed >> p & 1));
            for t in 0..upper_tags(page, self.asids) {
                c.upper[p][t] = a.take(if self.tables && mapped { plan.version_bits } else { 0 });
            }
        }
        // Without a machine check or an INT3 in it, an NMI is over with its own IRET. ERETS of another event does not unblock NMIs.
        let within = plan.scope.mces > 0 || traps_in_nmis(plan.code);
        let nested = !plan.code.fred && within && plan.scope.nmis > 1 && !plan.scope.roles[cpu].deaf;
        c.nmi_blocked = a.take(u32::from(nested));
        for v in &plan.code.vars {
            let here = v.copies == Copies::Cpu;
            c.vars.push(if here { a.take(u32::from(v.bits)) } else { Bits::default() });
        }
    }

    /// How its column can end: in a fault, and with which values.
    fn ends(&self, plan: &Plan<'_>, cpu: usize, widths: &[[u8; REGS]], c: &mut CpuFields, a: &mut Allocator) {
        let role = &plan.scope.roles[cpu];
        let at_level_0 = plan.runs[cpu].levels[0].0.iter().map(|&(pc, _)| plan.code.ops[usize::from(pc)]);
        let ends_in_fault = |op: Op| {
            page_of(op).is_some_and(|p| {
                matches!(self.pages[p].kind, PageKind::User(_)) || plan.scope.asks_fault(cpu, p)
            })
        };
        let mut at_level_0 = at_level_0;
        if at_level_0.any(ends_in_fault) && !plan.migrates {
            c.fault = a.take(width(self.pages.len() as u64));
        }
        let Some(program) = plan.code.program(&role.first) else { return };
        let program = &plan.code.programs[usize::from(program.0)];
        for (_, reg) in &program.kept {
            let of = &widths[usize::from(program.start)..usize::from(program.end)];
            let most = of.iter().map(|w| w[usize::from(reg.0)]).max().unwrap_or(0);
            c.kept.push((*reg, a.take(u32::from(most))));
        }
    }

    /// Remote calls, and what a flush covers.
    fn calls(&self, plan: &Plan<'_>, cpu: usize, c: &mut CpuFields, a: &mut Allocator) {
        let cpus = plan.scope.roles.len();
        let Runs { receives, ops, .. } = &plan.runs[cpu];
        let from = plan.from(cpu);
        if *receives && !from.is_empty() {
            c.queued = a.take(width(from.len() as u64));
            let entry = width(self.handlers.len() as u64 * cpus as u64 - 1);
            c.queue = from.iter().map(|_| a.take(entry)).collect();
            c.irq = a.take(1);
            c.serving = a.take(width(cpus as u64));
        }
        if ops.iter().any(|op| matches!(op, Op::Ipi { .. } | Op::Rar(_))) {
            c.waits = a.take(cpus as u32);
        }
        if self.graces != 0 && ops.iter().any(|op| matches!(op, Op::Rcu(Rcu::Watch | Rcu::Unwatch))) {
            c.unwatched = a.take(1);
        }
        if ops.iter().any(|op| matches!(op, Op::Rcu(Rcu::Start))) {
            c.grace = a.take(cpus as u32);
        }
        if ops.iter().any(|op| matches!(op, Op::CallLater(_))) {
            let program = width(self.laters.len() as u64);
            c.later.resize_with(LATERS, || Later {
                run: a.take(program),
                begun: a.take(1),
                waits: a.take(cpus as u32),
            });
        }
        if ops.iter().any(|op| matches!(op, Op::Request(_))) {
            for p in 0..self.pages.len() {
                c.covered[p] = a.take(plan.version_bits);
            }
        }
    }

    /// What a CPU knows of address spaces and ASIDs, and its broadcasts.
    fn contexts(&self, plan: &Plan<'_>, cpu: usize, c: &mut CpuFields, a: &mut Allocator) {
        let ops = &plan.runs[cpu].ops;
        if ops.iter().any(|op| matches!(op, Op::OweUser | Op::OweOthers)) {
            c.owes = a.take(self.asids as u32 + 1);
        }
        if ops.iter().any(|op| matches!(op, Op::Ask { what: Ask::AsidFor(_), .. })) {
            for asid in 0..self.asids {
                c.contexts[asid] = a.take(self.mm_bits());
            }
            c.next_asid = a.take(width(self.asids as u64));
        }
        for v in &plan.code.vars {
            let mut copies = [Bits::default(); MAX_ASIDS];
            if v.copies == Copies::Asid {
                copies[..self.asids].fill_with(|| a.take(u32::from(v.bits)));
            }
            c.asid_vars.push(copies);
        }
        if ops.iter().any(|op| matches!(op, Op::FlushInfo { .. })) {
            c.info = (a.take(self.mm_bits()), a.take(u32::from(GENERATION_BITS)));
        }
        if ops.iter().any(|op| matches!(op, Op::Invlpgb(_) | Op::InvlpgbOf { .. } | Op::InvlpgbAll)) {
            c.broadcast = a.take((self.pages.len() * self.broadcasts.len()) as u32);
        }
    }

    /// The store buffer: nothing where a CPU stores nothing.
    fn stores(&self, plan: &Plan<'_>, cpu: usize, c: &mut CpuFields, a: &mut Allocator) {
        let (code, scope) = (plan.code, plan.scope);
        let many = (scope.roles.len(), self.mms, self.text);
        let targets = store_targets(
            &plan.runs[cpu].ops,
            cpu,
            &scope.roles[cpu],
            many,
            &self.sites,
            &scope.frames,
            self.typed,
        );
        if targets.is_empty() || plan.buffer == 0 {
            return;
        }
        c.targets = targets;
        if !c.queue.is_empty() {
            c.targets.extend(plan.from(cpu).iter().map(|&s| Target::Ack { sender: s as u8 }));
        }
        let value = |t: &Target| match t {
            Target::Field { field, .. } => u32::from(code.fields[usize::from(*field)].bits),
            Target::Entry { .. } | Target::Lines { .. } | Target::Ack { .. } => 0,
        };
        c.value_bits = c.targets.iter().map(value).max().unwrap_or(0);
        let entry = width(c.targets.len() as u64 - 1) + c.value_bits;
        c.pending = a.take(width(plan.buffer as u64));
        c.stores = (0..plan.buffer).map(|_| a.take(entry.max(1))).collect();
    }

    fn shared(&self, plan: &Plan<'_>, a: &mut Allocator) -> SharedFields {
        let scope = plan.scope;
        let mut s = SharedFields {
            nmis: a.take(width(u64::from(scope.nmis))),
            mces: a.take(width(u64::from(scope.mces))),
            ..SharedFields::default()
        };
        for v in &plan.code.vars {
            let here = v.copies == Copies::One;
            s.vars.push(if here { a.take(u32::from(v.bits)) } else { Bits::default() });
            let mut copies = [Bits::default(); MAX_MMS];
            if v.copies == Copies::Mm {
                copies[..self.mms].fill_with(|| a.take(u32::from(v.bits)));
            }
            s.mm_vars.push(copies);
        }
        if plan.any(|op| matches!(op, Op::Mask { .. })) {
            // init_mm is in nobody's mask, and 1 is no address space.
            for mask in &mut s.masks[2.min(self.mms)..self.mms] {
                *mask = a.take(scope.roles.len() as u32);
            }
        }
        if plan.any(|op| matches!(op, Op::FreeMm(_))) {
            s.freed_mms = a.take(self.mms as u32);
        }
        for p in 0..self.pages.len() {
            s.version[p] = a.take(plan.version_bits);
            let typed = self.typed >> p & 1 != 0;
            s.kind[p] = a.take(if typed { 3 } else { 2 });
            s.dead[p] = a.take(plan.version_bits);
            let mapped = self.pages[p].kind != PageKind::Text;
            if !mapped && plan.buffer > 0 {
                s.waiting[p] = a.take(width((plan.buffer * scope.roles.len()) as u64));
            }
            if plan.rights && mapped {
                s.since[p] = a.take(plan.version_bits);
            }
            if typed {
                s.cached_at[p] = a.take(plan.version_bits);
            }
            if self.tables && mapped {
                s.upper[p] = a.take(plan.version_bits);
                s.upper_kind[p] = a.take(1);
                s.freed[p] = a.take(plan.version_bits);
                for _ in 0..tables_left(plan.code, scope) {
                    s.old_leaf[p].push(a.take(plan.version_bits));
                    s.old_less[p].push(a.take(u32::from(plan.rights)));
                }
            }
        }
        s
    }
}

/// The operands that broadcasts of this scope have.
fn broadcasts(plan: &Plan<'_>) -> Vec<(bool, Option<u8>)> {
    let mut out = Vec::new();
    for op in plan.runs.iter().flat_map(|r| &r.ops) {
        let operands = match *op {
            Op::Invlpgb(_) | Op::InvlpgbAll => (false, None),
            Op::InvlpgbOf { leaves, asid, .. } => (leaves, asid),
            _ => continue,
        };
        if !out.contains(&operands) {
            out.push(operands);
        }
    }
    order::natural(&mut out);
    out
}

/// Does it ask for a grace period?
fn is_grace(op: Op) -> bool {
    matches!(op, Op::Rcu(Rcu::Start) | Op::CallLater(_))
}

/// Does the op access the page by itself, or walk to it in software?
fn accesses(op: Op, page: usize) -> bool {
    page_of(op) == Some(page) || matches!(op, Op::Walk { page: p, .. } if usize::from(p) == page)
}

/// CPUs that write entries or text: a bit each.
fn writers(plan: &Plan<'_>) -> u8 {
    let writes = |r: &Runs| r.ops.iter().any(|op| matches!(op, Op::Pte { .. }));
    plan.runs.iter().enumerate().fold(0, |all, (cpu, r)| all | u8::from(writes(r)) << cpu)
}

/// Pages that some program makes uncached, a bit each.
fn typed(plan: &Plan<'_>, pages: &[PageInfo]) -> u8 {
    let mapped = |p: &usize| pages[*p].kind != PageKind::Text;
    let all = (0..pages.len()).filter(mapped).fold(0, |all, p| all | 1 << p);
    plan.runs.iter().flat_map(|r| &r.ops).fold(0, |typed, op| match *op {
        Op::Pte { pages: Pages::One(p), v: Entry::Uncached, .. } => typed | 1 << p,
        Op::Pte { pages: Pages::Range, v: Entry::Uncached, .. } => all,
        _ => typed,
    })
}

fn store_targets(
    ops: &[Op],
    me: usize,
    role: &Role,
    (cpus, mms, pages): (usize, usize, usize),
    sites: &Sites,
    frames: &[Vec<u8>],
    typed: u8,
) -> Vec<Target> {
    let mut out = Vec::new();
    let mut add = |t: Target| {
        if !out.contains(&t) {
            out.push(t);
        }
    };
    for op in ops {
        match *op {
            Op::Store { to, .. } => match to.at {
                At::Shared => add(Target::Field { field: to.field, owner: 0 }),
                At::Me => add(Target::Field { field: to.field, owner: me as u8 }),
                At::Cur => (0..cpus).for_each(|c| add(Target::Field { field: to.field, owner: c as u8 })),
                At::Mm(_) => (0..mms).for_each(|m| add(Target::Field { field: to.field, owner: m as u8 })),
                // Nobody else reads it: it is written at once.
                At::Asid(_) => {}
            },
            Op::Clflush(which) => (0..pages)
                .filter(|&p| {
                    typed & 1 << p != 0 && matches!(which, Pages::One(q) if usize::from(q) == p)
                        || which == Pages::Range && typed & role.own & 1 << p != 0
                })
                .for_each(|p| add(Target::Lines { page: p as u8 })),
            Op::StorePage { page, .. } => {
                for &field in frames.get(usize::from(page)).map_or(&[][..], Vec::as_slice) {
                    add(Target::Field { field, owner: 0 });
                }
            }
            Op::Pte { pages: which, level, v, locked: false } => match which {
                Pages::One(p) => add(Target::Entry { page: p, level, v }),
                Pages::Range => (0..pages)
                    .filter(|p| role.own & 1 << p != 0)
                    .for_each(|p| add(Target::Entry { page: p as u8, level, v })),
                Pages::Text(site, part) => {
                    if let Some(at) = sites[usize::from(site)] {
                        add(Target::Entry { page: at[part as usize] as u8, level, v });
                    }
                }
            },
            _ => {}
        }
    }
    out
}

impl Location {
    /// Bits its registers need.
    fn area(&self) -> u32 {
        self.regs[..usize::from(self.live)].iter().map(|r| width(u64::from(r.2))).sum()
    }
}

impl Frame {
    fn allocate(&mut self, plan: &Plan<'_>, level: usize, a: &mut Allocator) {
        let scope = plan.scope;
        let cpus = scope.roles.len();
        self.at = a.take(width(self.locations.len() as u64));
        self.area = a.take(self.locations.iter().map(Location::area).max().unwrap_or(0));
        if self.locations.iter().any(|l| l.cur) {
            self.cur = a.take(width(cpus as u64));
        }
        if self.locations.iter().any(|l| l.visited) {
            self.visited = a.take(cpus as u32);
        }
        if self.locations.iter().any(|l| l.targets) {
            self.targets = a.take(cpus as u32);
        }
        if self.locations.iter().any(|l| matches!(l.op, Op::Walk { .. })) {
            self.walked = a.take(plan.version_bits);
            self.walked_less = a.take(u32::from(plan.rights));
        }
        let graces = plan.any(|op| is_grace(*op));
        if graces && self.locations.iter().any(|l| matches!(l.op, Op::Rcu(Rcu::Lock | Rcu::Unlock))) {
            self.reads = a.take(1);
        }
        if graces && level > 0 && self.locations.iter().any(|l| l.op == Op::Rcu(Rcu::Watch)) {
            self.watch = a.take(1);
        }
        if scope.mces > 0 {
            self.mce = a.take(1);
        }
        // A system call begins with the user's RSP; elsewhere only a word of the text says that RSP holds no stack. With FRED
        // there always is one.
        let says = self.locations.iter().any(|l| matches!(l.op, Op::Rsp(_)));
        if !plan.code.fred && plan.any(|op| is_site(*op)) && (level == 0 || says) {
            self.scratch = a.take(1);
        }
    }
}
