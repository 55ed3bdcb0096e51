//! What a policy may not ask of a machine, found before the run: instructions that the CPU does not have, and accesses
//! to pages that no op ever maps. What depends on the moment (the user CR3, a full TLB) is the machine's to refuse.

use crate::hw::preset::Features as Cpu;
use crate::kernel::program::{Code, Entry, Op, Pages, Pc, Touch};
use crate::kernel::text::{Loc, PolicyError};

/// The first op that cannot be, with its place and the rule.
pub fn refuse(code: &Code, cpu: &Cpu) -> Result<(), PolicyError> {
    let reason = |op: Op| lacking(op, cpu).or_else(|| unpriced(op)).or_else(|| unmapped(op, code));
    let found = code.ops.iter().enumerate().find_map(|(pc, op)| Some((pc as Pc, reason(*op)?)));
    let Some((pc, rule)) = found else { return Ok(()) };
    let span = code.at[usize::from(pc)];
    Err(PolicyError {
        file: code.files[usize::from(span.file)].clone(),
        at: Loc { line: span.line, col: span.col },
        message: format!("`{}`: {rule}", code.text[usize::from(pc)]),
    })
}

/// An instruction that would raise #UD (SDM Vol. 2, APM Vol. 3).
fn lacking(op: Op, cpu: &Cpu) -> Option<String> {
    let (feature, name, has) = match op {
        Op::Invpcid { .. } => ("invpcid", "INVPCID", cpu.invpcid),
        Op::Invlpgb(_) | Op::InvlpgbOf { .. } | Op::InvlpgbAll => {
            ("invlpgb", "INVLPGB", cpu.invlpgb.is_some())
        }
        Op::Tlbsync => ("invlpgb", "TLBSYNC", cpu.invlpgb.is_some()),
        Op::Rar(_) => ("rar", "remote action requests", cpu.rar),
        _ => return None,
    };
    let rule =
        format!("the CPU has no {name}; `if feature {feature}` or `needs {feature}` says where it has");
    (!has).then_some(rule)
}

/// What is about caches of lines (SEMANTICS H11): no preset has its costs, nor those of accesses that are not cached.
fn unpriced(op: Op) -> Option<String> {
    let what = match op {
        Op::Clflush(_) => "CLFLUSH takes",
        Op::Wbinvd => "WBINVD takes",
        Op::Pte { v: Entry::Uncached | Entry::Cached, .. } => "accesses take whose type is uncached",
        _ => return None,
    };
    Some(format!("what {what} is not recorded of any CPU; the checker knows the word, and has no costs"))
}

/// An access to a page that is absent at the start and stays so.
fn unmapped(op: Op, code: &Code) -> Option<String> {
    let (Op::Touch(Touch::Read(page) | Touch::Write(page))
    | Op::LoadPage { page, .. }
    | Op::StorePage { page, .. }) = op
    else {
        return None;
    };
    let maps =
        |op: &Op| matches!(*op, Op::Pte { pages: Pages::One(p), v, .. } if p == page && v != Entry::None);
    let of = &code.pages[usize::from(page)];
    let never = !of.present && !code.ops.iter().any(maps);
    never.then(|| format!("no table maps `{}`: it is absent at the start, and nothing maps it", of.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hw::Preset;
    use crate::kernel::policy::{POLICIES, builtin, load};
    use crate::kernel::program::Features;
    use crate::kernel::text::parse;

    fn said(text: &str, machine: &str) -> Result<(), String> {
        let code = load(&parse("my.policy", text).unwrap(), Features::PTI_PCID).unwrap();
        refuse(&code, &Preset::builtin(machine).unwrap().features).map_err(|e| e.to_string())
    }

    #[test]
    fn instructions_the_cpu_lacks_and_pages_nobody_maps_are_refused_with_their_place() {
        let bad = said("policy p\nto_kernel\n  invlpgb all\n", "broadwell-ep").unwrap_err();
        assert!(bad.starts_with("my.policy:3:3: `invlpgb all`: the CPU has no INVLPGB;"), "{bad}");
        assert_eq!(said("policy p\nto_kernel\n  invlpgb all\n", "zen4-epyc"), Ok(()));
        let absent = "policy p\n  page x : vmalloc, absent\n\nto_kernel\n  read x\n";
        let bad = said(absent, "broadwell-ep").unwrap_err();
        assert!(bad.starts_with("my.policy:5:3: `read x`: no table maps `x`"), "{bad}");
        assert_eq!(said(&format!("{absent}  pte x = initial\n"), "broadwell-ep"), Ok(()));
    }

    #[test]
    fn what_is_about_cache_lines_is_refused_with_its_place() {
        for (line, what) in [
            ("clflush range", "CLFLUSH takes"),
            ("wbinvd", "WBINVD takes"),
            ("pte range = uncached", "accesses take whose type is uncached"),
            ("pte range = cached locked", "accesses take whose type is uncached"),
        ] {
            let bad = said(&format!("policy p\nto_kernel\n  {line}\n"), "broadwell-ep").unwrap_err();
            assert!(
                bad.starts_with(&format!("my.policy:3:3: `{line}`: what {what} is not recorded")),
                "{bad}"
            );
        }
    }

    #[test]
    fn built_in_policies_ask_for_nothing_that_a_cpu_of_theirs_lacks() {
        for row in POLICIES {
            let preset = Preset::builtin("zen4-epyc").unwrap();
            let code = load(&builtin(row.id).unwrap(), Features::NONE).unwrap();
            let lacks = refuse(&code, &preset.features).err();
            assert!(lacks.is_none() || row.id == "rar", "{}: {lacks:?}", row.id);
        }
    }
}
