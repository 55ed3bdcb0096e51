//! The lines that are one op each, word by word.

use super::{Assembler, Result2};
use crate::kernel::program::{
    Cr3, Entry, Invpcid, Level, NoFlush, Op, Pages, Part, PcidOf, Rcu, Slot, Touch, Walk, Zone,
};
use crate::kernel::text::Loc;
use crate::names::hint;

impl Assembler<'_> {
    pub(super) fn bit63(&self, how: &str, at: Loc) -> Result2<NoFlush> {
        match how {
            "flush" => Ok(NoFlush::Flush),
            "noflush" => Ok(NoFlush::Keep),
            "owed" => Ok(NoFlush::Owed),
            _ => self.fail(at, format!("a write of cr3 ends in `noflush`, `owed` or nothing, not `{how}`")),
        }
    }

    pub(super) fn plain(&self, words: &[&str], at: Loc) -> Result2<Op> {
        let half = |word: &str| match word {
            "kernel" => Ok(PcidOf::Kernel),
            "user" => Ok(PcidOf::User),
            _ => self.fail(at, format!("a PCID is `kernel` or `user`, not `{word}`")),
        };
        Ok(match words {
            ["put", "cpu", "into", "targets"] => {
                if !self.in_each {
                    return self.fail(at, "`put cpu` stands outside of `each cpu in`");
                }
                Op::Put
            }
            ["clear", "targets"] => Op::Clear,
            ["await", "acks"] => Op::AwaitAcks,
            ["mov", "cr3", "kernel", how] => Op::MovCr3 { to: Cr3::Kernel, keep: self.bit63(how, at)? },
            ["mov", "cr3", "user", how] => Op::MovCr3 { to: Cr3::User, keep: self.bit63(how, at)? },
            ["mov", "cr4", "on"] => Op::MovCr4Pge(true),
            ["mov", "cr4", "off"] => Op::MovCr4Pge(false),
            ["mov", "cr4", how] => {
                return self.fail(at, format!("a write of `pge` ends in `on` or `off`, not `{how}`"));
            }
            ["invlpg", page] => Op::Invlpg(self.pages(page, at)?),
            ["invpcid", "address", of, page] => {
                Op::Invpcid { kind: Invpcid::Address, pcid: half(of)?, pages: self.pages(page, at)? }
            }
            ["invpcid", "context", of] => {
                Op::Invpcid { kind: Invpcid::Context, pcid: half(of)?, pages: Pages::Range }
            }
            ["invpcid", "all-including-global"] => {
                Op::Invpcid { kind: Invpcid::AllGlobal, pcid: PcidOf::Kernel, pages: Pages::Range }
            }
            ["invpcid", "all"] => {
                Op::Invpcid { kind: Invpcid::All, pcid: PcidOf::Kernel, pages: Pages::Range }
            }
            ["invlpgb", "all"] => Op::InvlpgbAll,
            ["invlpgb", page] => Op::Invlpgb(self.pages(page, at)?),
            ["invlpgb", page, operands @ ..] => self.invlpgb(page, operands, at)?,
            ["rar", set] => Op::Rar(self.cpu_set(set, at)?),
            ["read", page] => Op::Touch(Touch::Read(self.page(page, at)?)),
            ["write", page] => Op::Touch(Touch::Write(self.page(page, at)?)),
            ["touch", word] => match Zone::ALL.iter().find(|(name, _)| name == word) {
                Some(&(_, zone)) => Op::Touch(Touch::Zone(zone)),
                None => {
                    let known = Zone::ALL.map(|z| z.0).join(", ");
                    return self.fail(at, format!("`touch` takes one of {known}, not `{word}`"));
                }
            },
            ["body", slot] => Op::Body(match *slot {
                "syscall" => Slot::Syscall,
                "interrupt" => Slot::Interrupt,
                "nmi" => Slot::Nmi,
                "idle" => Slot::Idle,
                _ => {
                    return self
                        .fail(at, format!("`body` takes syscall, interrupt, nmi or idle, not `{slot}`"));
                }
            }),
            [level @ ("pte" | "table"), page, "=", v] => self.entry(level, page, v, false, at)?,
            [level @ ("pte" | "table"), page, "=", v, "locked"] => self.entry(level, page, v, true, at)?,
            ["free", "mm", n] => match n.parse::<u8>() {
                Ok(mm @ 1..=3) => Op::FreeMm(mm),
                _ => {
                    return self
                        .fail(at, format!("`free mm` takes 1 to 3 (0 is init_mm, which stays), not `{n}`"));
                }
            },
            ["clflush", page] => Op::Clflush(self.pages(page, at)?),
            ["free", "table", page] => Op::FreeTable(self.pages(page, at)?),
            ["text", of @ .., part, "=", v] => {
                let v = match *v {
                    "int3" => Entry::Int3,
                    "new" => Entry::Fresh,
                    _ => return self.fail(at, format!("text becomes int3 or new, not `{v}`")),
                };
                let pages = self.text_of(of, part, at)?;
                if v == Entry::Int3 && matches!(pages, Pages::Text(_, Part::Tail)) {
                    return self.fail(at, "only the head of an instruction becomes int3");
                }
                Op::Pte { pages, level: Level::Leaf, v, locked: false }
            }
            ["run", "text"] => Op::Touch(Touch::Text),
            ["run", "text", name] => {
                let message = format!(
                    "`run text` runs the instruction without a name; `if text {name} is new` runs a site, and what it \
                     fetched decides the branch"
                );
                return self.fail(at, message);
            }
            ["rsp", word] => match *word {
                "stack" => Op::Rsp(true),
                "scratch" => Op::Rsp(false),
                _ => return self.fail(at, format!("`rsp` holds `stack` or `scratch`, not `{word}`")),
            },
            ["request", "text", of @ .., part] => Op::Request(self.text_of(of, part, at)?),
            ["promise", "text", of @ .., part] => Op::Promise(self.text_of(of, part, at)?),
            ["request", page] => Op::Request(self.pages(page, at)?),
            ["promise", page] => Op::Promise(self.pages(page, at)?),
            ["rcu", word] => Op::Rcu(match *word {
                "lock" => Rcu::Lock,
                "unlock" => Rcu::Unlock,
                "watch" => Rcu::Watch,
                "unwatch" => Rcu::Unwatch,
                _ => {
                    return self
                        .fail(at, format!("`rcu` takes lock, unlock, watch or unwatch, not `{word}`"));
                }
            }),
            ["handle", "calls"] => Op::HandleCalls,
            ["owe", "user"] => Op::OweUser,
            ["owe", "others"] => Op::OweOthers,
            _ => {
                const STARTS: [&str; 25] = [
                    "put", "clear", "await", "mov", "invlpg", "invpcid", "invlpgb", "rar", "read", "write",
                    "touch", "body", "pte", "table", "free", "request", "promise", "handle", "owe", "text",
                    "run", "walk", "rcu", "rsp", "clflush",
                ];
                let hint = if STARTS.contains(&words[0]) { String::new() } else { hint(words[0], STARTS) };
                return self.fail(at, format!("`{}` is no op{hint}", words.join(" ")));
            }
        })
    }

    /// A part of a patched instruction, with the words between `text` and the part: none, or its name.
    fn text_of(&self, of: &[&str], part: &str, at: Loc) -> Result2<Pages> {
        let site = match of {
            [] => 0,
            [name] => self.site(name, at)?,
            _ => {
                return self
                    .fail(at, format!("`text` takes a site and a part, not `{} {part}`", of.join(" ")));
            }
        };
        Ok(Pages::Text(site, self.part(part, at)?))
    }

    /// A walk in software: an op for each load, and one for the use of what it found.
    pub(super) fn walk(&mut self, of: &[&str], at: Loc) -> Result2<()> {
        let (page, steps) = match of {
            [page] => (page, &[Walk::Table, Walk::Leaf, Walk::Use][..]),
            ["entries", "of", page] => (page, &[Walk::Table, Walk::Last][..]),
            _ => {
                let of = of.join(" ");
                return self.fail(at, format!("`walk` takes a page, or `entries of` a page, not `{of}`"));
            }
        };
        let page = self.page(page, at)?;
        for &step in steps {
            self.emit(Op::Walk { page, step });
        }
        Ok(())
    }

    /// INVLPGB's operands: `asid N`, `final`.
    fn invlpgb(&self, page: &str, operands: &[&str], at: Loc) -> Result2<Op> {
        let pages = self.pages(page, at)?;
        let (asid, rest) = match operands {
            ["asid", n, rest @ ..] => match n.parse::<u8>() {
                Ok(n @ 0..=1) => (Some(n), rest),
                _ => return self.fail(at, format!("`invlpgb` names ASID 0 or 1, not `{n}`")),
            },
            rest => (None, rest),
        };
        match rest {
            [] | ["final"] => Ok(Op::InvlpgbOf { pages, leaves: !rest.is_empty(), asid }),
            _ => self.fail(
                at,
                format!("`invlpgb` takes pages, then `asid N`, then `final`, not `{}`", operands.join(" ")),
            ),
        }
    }

    pub(super) fn entry(&self, level: &str, page: &str, v: &str, locked: bool, at: Loc) -> Result2<Op> {
        let v = match v {
            "none" => Entry::None,
            "fresh" => Entry::Fresh,
            "less-rights" => Entry::LessRights,
            "initial" => Entry::Initial,
            "uncached" => Entry::Uncached,
            "cached" => Entry::Cached,
            _ => {
                return self.fail(
                    at,
                    format!(
                        "an entry becomes none, fresh, less-rights, initial, uncached or cached, not `{v}`"
                    ),
                );
            }
        };
        let level = if level == "pte" { Level::Leaf } else { Level::Table };
        if level == Level::Table && matches!(v, Entry::Uncached | Entry::Cached) {
            return self.fail(at, "a type of memory is that of a page: `pte`, not `table`");
        }
        Ok(Op::Pte { pages: self.pages(page, at)?, level, v, locked })
    }
}
