//! The tracked pages and address spaces of a scope, and how many versions its programs can give a page.

use super::PageInfo;
use super::packing::width;
use crate::check::scope::{Assume, CheckError, MAX_PAGES, MAX_TRACKED, Patched, Role, Scope, UNBOUNDED};
use crate::kernel::program::is_site;
use crate::kernel::program::{
    Ask, BREAKPOINT, COUNT_BITS, COUNT_OF_BITS, Code, Cond, Copies, Cr3, Entry, Holds, Level, Op, PageKind,
    Pages, ProgId, SITES, Site, Touch, Val,
};

/// Tags a page's translations can carry: kernel half of each ASID, then user half; one for global pages.
pub fn tags(page: &PageInfo, asids: usize) -> usize {
    if page.global { 1 } else { asids * (1 + usize::from(page.user_mapped)) }
}

/// Tags an entry of a paging-structure cache above a page can carry: the G bit has no effect on those (SDM 3A 4.10.2.4).
pub fn upper_tags(page: &PageInfo, asids: usize) -> usize {
    asids * (1 + usize::from(page.user_mapped))
}

/// Where the parts of each patched instruction are among the pages.
pub(super) type Sites = [Option<[usize; 2]>; SITES];

/// The tracked pages, and where the patched instructions are among them. A question about text alone tracks no
/// other page: no bit of state for what nothing changes.
pub(super) fn pages(
    code: &Code,
    scope: &Scope,
    assume: Assume,
) -> Result<(Vec<PageInfo>, Sites), CheckError> {
    let ops = || run_by(code, scope).into_iter().flat_map(|(name, _)| code.ops_of(name));
    let is_range = |op: &Op| match op {
        Op::Pte { pages, .. } | Op::Request(pages) | Op::Promise(pages) => !matches!(pages, Pages::Text(..)),
        _ => false,
    };
    let mut sites: Sites = [None; SITES];
    if !has_text(code, scope) {
        return Ok((mapped_pages(code, scope)?, sites));
    }
    let mut pages =
        if ops().any(is_range) || !code.pages.is_empty() { mapped_pages(code, scope)? } else { Vec::new() };
    for (site, at) in sites.iter_mut().enumerate() {
        if !ops().any(|op| text_of(*op) == Some(site as Site)) {
            continue;
        }
        *at = Some([pages.len(), pages.len() + 1]);
        // An instruction that decides a branch may be one of the entry text, which both tables map. Where it is not,
        // whoever runs it has written CR3 since it could be fetched in user mode, which serialises.
        let decides =
            ops().any(|op| matches!(op, Op::Unless { c: Cond::Text(s), .. } if usize::from(*s) == site));
        for part in ["head", "tail"] {
            let name = site.checked_sub(1).map_or("", |n| code.sites[n].as_str());
            pages.push(PageInfo {
                name: format!("{name} {part}").trim_start().into(),
                kind: PageKind::Text,
                global: true,
                user_mapped: decides || assume.text == Patched::Noinstr,
                present: true,
                within: None,
            });
        }
    }
    if pages.len() > MAX_TRACKED {
        return Err(CheckError::Bound {
            what: "the number of pages, head and tail of each patched instruction among them",
            least: 2,
            most: MAX_TRACKED,
            got: pages.len(),
        });
    }
    Ok((pages, sites))
}

/// The patched instruction that an op writes, asks about or runs.
fn text_of(op: Op) -> Option<Site> {
    match op {
        Op::Pte { pages: Pages::Text(site, _), .. } | Op::Unless { c: Cond::Text(site), .. } => Some(site),
        Op::Touch(Touch::Text) => Some(0),
        _ => None,
    }
}

/// Do the scope's programs write or run patched text?
pub(super) fn has_text(code: &Code, scope: &Scope) -> bool {
    let is_text = |op: &Op| text_of(*op).is_some();
    run_by(code, scope).into_iter().any(|(name, _)| code.ops_of(name).iter().any(is_text))
}

/// The programs that a scope runs, each with how often at most: those of its roles, the entries and device interrupts
/// they take, NMIs, and remote calls, which every CPU may take once for each op that sends one. An op in a loop counts
/// once, and where there is no bound one run does: what that leaves too narrow overflows, and says so.
fn run_by<'a>(code: &'a Code, scope: &'a Scope) -> Vec<(&'a str, u64)> {
    let times = |left: u8| if left == UNBOUNDED { 1 } else { u64::from(left) };
    let mut out: Vec<(&str, u64)> = Vec::new();
    for role in &scope.roles {
        out.push((&role.first, 1));
        out.extend(role.entries().iter().map(|name| (name.as_str(), times(role.left))));
        if role.takes_devices() {
            let most = times(role.left.max(role.devices));
            out.extend(["interrupt_kernel", "interrupt_idle"].map(|name| (name, most)));
        }
    }
    let nmis = u64::from(scope.nmis) + u64::from(scope.mces);
    if nmis > 0 {
        out.extend(["nmi", "nmi_user"].map(|name| (name, nmis)));
    }
    let name_of = |id: ProgId| code.programs[usize::from(id.0)].name.as_str();
    let mut from = 0;
    // Calls that send calls are followed once each.
    while from < out.len() {
        let (sender, times) = out[from];
        from += 1;
        for op in code.ops_of(sender) {
            if let Op::CallLater(run) = *op
                && out.iter().all(|(name, _)| *name != name_of(run))
            {
                out.push((name_of(run), times * scope.roles.len() as u64));
            }
            let Op::Ipi { run, .. } = *op else { continue };
            let already = out.iter().filter(|(name, _)| *name == name_of(run)).count();
            if already < scope.roles.len() * 2 {
                out.push((name_of(run), times * scope.roles.len() as u64));
            }
        }
    }
    // An INT3 counts as one for each program that may run it.
    let traps =
        |(name, times): &(&'a str, u64)| code.ops_of(name).iter().any(|op| is_site(*op)).then_some(*times);
    let times: u64 = out.iter().filter_map(traps).sum();
    if times > 0 {
        out.push((BREAKPOINT, times));
    }
    out
}

fn mapped_pages(code: &Code, scope: &Scope) -> Result<Vec<PageInfo>, CheckError> {
    if code.pages.len() > MAX_PAGES {
        return Err(CheckError::Bound {
            what: "the number of pages",
            least: 1,
            most: MAX_PAGES,
            got: code.pages.len(),
        });
    }
    let mut pages: Vec<PageInfo> = code
        .pages
        .iter()
        .map(|p| PageInfo {
            name: p.name.clone(),
            kind: p.kind,
            global: p.global,
            user_mapped: p.user_mapped,
            present: p.present,
            within: p.within.map(usize::from),
        })
        .collect();
    // What the scope's programs change, where the text declares nothing of the kind: rights are the direct map's.
    let ops = || run_by(code, scope).into_iter().flat_map(|(name, _)| code.ops_of(name));
    // So is the type of memory, where that changes.
    let stays = |v: Entry| matches!(v, Entry::LessRights | Entry::Uncached | Entry::Cached);
    let rights = ops().any(|op| matches!(op, Op::Pte { pages: Pages::Range, v, .. } if stays(*v)));
    let unmaps = ops().any(|op| match op {
        Op::Pte { pages: Pages::Range, v, .. } => !stays(*v),
        op => matches!(op, Op::FreeTable(Pages::Range)),
    });
    let mut undeclared = |name: &str, kind| {
        pages.extend((0..scope.pages).map(|i| PageInfo {
            name: if scope.pages == 1 { name.into() } else { format!("{name}{i}") },
            kind,
            global: scope.global,
            user_mapped: false,
            present: true,
            within: None,
        }));
    };
    let declared = |lasting| code.pages.iter().any(|p| p.kind.is_lasting() == lasting);
    if code.pages.is_empty() && !rights || unmaps && !declared(false) {
        undeclared("va", PageKind::Vmalloc);
    }
    if rights && code.pages.is_empty() {
        undeclared("dm", PageKind::DirectMap);
    }
    if pages.len() > MAX_PAGES {
        return Err(CheckError::Bound {
            what: "the number of pages, those that the programs change among them",
            least: 1,
            most: MAX_PAGES,
            got: pages.len(),
        });
    }
    Ok(pages)
}

/// Most address spaces: `user of N` goes to 3.
pub const MAX_MMS: usize = 4;

/// How many address spaces a scope has, `init_mm` and the number that says "switching" included.
pub(super) fn address_spaces(code: &Code, pages: &[PageInfo]) -> usize {
    let user = |kind| if let PageKind::User(n) = kind { usize::from(n) + 1 } else { 1 };
    let of_pages = pages.iter().map(|p| user(p.kind)).max().unwrap_or(1);
    let used = code.ops.iter().map(|op| match *op {
        Op::Ask { what: Ask::NextMm | Ask::FlushMm, .. } => 3,
        Op::MovCr3 { to: Cr3::Mm { mm: Val::Imm(mm), .. }, .. } | Op::FreeMm(mm) => usize::from(mm) + 1,
        Op::MovCr3 { to: Cr3::Mm { mm: Val::Reg(_), .. }, .. } => 2,
        _ => 1,
    });
    of_pages.max(used.max().unwrap_or(1))
}

/// The code with variables that hold numbers of address spaces, and counts, as wide as the scope needs.
pub fn narrow(code: &Code, scope: &Scope, assume: Assume) -> Result<Code, CheckError> {
    let mut code = code.clone();
    let mms = address_spaces(&code, &pages(&code, scope, assume)?.0);
    let per_mm: Vec<bool> = code.vars.iter().map(|v| v.copies == Copies::Mm).collect();
    for (i, v) in code.vars.iter_mut().enumerate() {
        v.bits = match v.holds {
            Holds::Mm => width(mms as u64 - 1).max(1) as u8,
            Holds::Count(source) if per_mm[usize::from(source)] => COUNT_BITS + COUNT_OF_BITS,
            Holds::Count(_) => COUNT_BITS,
            Holds::Bits | Holds::Generation => continue,
        };
        for f in code.fields.iter_mut().filter(|f| usize::from(f.var) == i) {
            f.bits = v.bits;
        }
    }
    Ok(code)
}

/// Does a program make an upper entry point to another table?
fn relinks(code: &Code, program: &str) -> bool {
    let links = |op: &Op| matches!(op, Op::Pte { level: Level::Table, v, .. } if *v != Entry::None);
    code.ops_of(program).iter().any(links)
}

/// Are versions renamed (SEMANTICS S1)? They must be where page-table entries are written without bound.
pub fn renames(code: &Code, scope: &Scope) -> Result<bool, CheckError> {
    let writes = |r: &Role| code.ops_of(&r.again).iter().any(|op| matches!(op, Op::Pte { .. }));
    let renamed = scope.rename || scope.roles.iter().any(|r| r.left == UNBOUNDED && writes(r));
    let counts = |r: &Role| code.ops_of(&r.again).iter().any(|op| matches!(op, Op::FlushInfo { .. }));
    match renamed {
        true if has_text(code, scope) => Err(CheckError::Unbounded("patched text")),
        // `tlb_gen` and what flushes carry of it only grow: without bound they fit no width.
        true if scope.roles.iter().any(|r| r.left == UNBOUNDED && counts(r)) => {
            Err(CheckError::Unbounded("the generation of an address space"))
        }
        true if run_by(code, scope).iter().any(|(name, _)| relinks(code, name)) => {
            Err(CheckError::Unbounded("an upper entry that points to one table after another"))
        }
        true if !scope.frames.is_empty() => Err(CheckError::Unbounded("the data of `frames`")),
        true if code.pages.iter().any(|p| p.within.is_some()) => {
            Err(CheckError::Unbounded("a page in a large one"))
        }
        renamed => Ok(renamed),
    }
}

/// Is this an op on an upper entry?
fn links(op: Op) -> bool {
    matches!(op, Op::Pte { level: Level::Table, .. })
}

/// How many versions of a page's upper entry can be left behind: each table keeps its leaf. Where versions are renamed no
/// table is linked a second time, so the first one, which keeps its number, is the only one.
pub(super) fn tables_left(code: &Code, scope: &Scope) -> usize {
    if renames(code, scope) == Ok(true) {
        return 1;
    }
    let stores = |(name, times)| code.ops_of(name).iter().filter(|op| links(**op)).count() * times as usize;
    run_by(code, scope).into_iter().map(stores).sum::<usize>().max(1)
}

/// The highest version the scope's programs can give one page: the initial one is 1, text counts as in [`TEXT`].
/// Renamed ones are at most one for what is dead, for each flush under way, and for what is current; and one more
/// for each store in a buffer that a flush counts on.
pub fn versions_needed(code: &Code, scope: &Scope) -> u64 {
    if renames(code, scope) == Ok(true) {
        // And one for the last version of the type cached, where types change.
        let types = code.ops.iter().any(|op| matches!(op, Op::Pte { v: Entry::Uncached, .. }));
        return scope.roles.len() as u64 + 6 + u64::from(types);
    }
    let mut pages = 1;
    let mut text = [[TEXT.initial + 1; 2]; SITES];
    for (name, times) in run_by(code, scope) {
        for op in code.ops_of(name) {
            match op {
                Op::Pte { pages: Pages::Text(..), v: Entry::Int3, .. } => {}
                Op::Pte { pages: Pages::Text(site, part), .. } => {
                    text[usize::from(*site)][*part as usize] += TEXT.step * times;
                }
                Op::Pte { .. } => pages += times,
                Op::FreeTable(_) => pages = pages.max(2), // below it, the first table is free
                _ => {}
            }
        }
    }
    let text = text.into_iter().flatten().max().unwrap_or(0);
    if has_text(code, scope) { pages.max(text) } else { pages }
}

/// How versions of text count: whole instructions have even ones, equal in head and tail; an INT3 makes the
/// head's odd.
pub struct TextVersions {
    /// At the start.
    pub initial: u64,
    /// From one instruction to the next.
    pub step: u64,
}

impl TextVersions {
    /// Is it a version of a whole instruction, not of an INT3?
    pub fn is_whole(&self, version: u64) -> bool {
        version.is_multiple_of(self.step)
    }

    /// Is this instruction, or the one that an INT3 of this version stands for while it is written, the new one? Whoever
    /// patches it again turns it over, as a key is enabled and disabled.
    pub fn is_new(&self, version: u64) -> bool {
        (version.div_ceil(self.step) - self.initial / self.step) % 2 == 1
    }
}

/// How versions of text count.
pub const TEXT: TextVersions = TextVersions { initial: 2, step: 2 };
