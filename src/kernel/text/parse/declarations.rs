//! Variables, fields and pages.

use super::super::{FieldDecl, PageDecl, PolicyError, VarDecl};
use super::cursor::Cursor;
use crate::kernel::program::{Copies, GENERATION_BITS, Holds, PageKind};

impl Cursor<'_> {
    pub(super) fn var(&mut self) -> Result<VarDecl, PolicyError> {
        let (name, at) = self.word("the name of a variable")?;
        self.expect(":")?;
        let mut of = None;
        let (bits, holds) = if self.take_word("count") {
            if self.take_word("of") {
                of = Some(self.word("the count that it is a copy of")?.0);
            }
            (16, Holds::Count(0))
        } else if self.take_word("mm") {
            (16, Holds::Mm)
        } else if self.take_word("generation") {
            (GENERATION_BITS, Holds::Generation)
        } else {
            (self.int("a width in bits, `count`, `mm` or `generation`", 16)? as u8, Holds::Bits)
        };
        if bits == 0 {
            return Err(PolicyError {
                file: self.file.into(),
                at,
                message: "a variable has 1 to 16 bits".into(),
            });
        }
        if holds == Holds::Bits && !self.take_word("bit") {
            self.expect_word("bits")?;
        }
        let (mut copies, mut init, mut user_mapped) = (Copies::Cpu, 0, false);
        while self.take(",") {
            let (word, at) =
                self.word("`per cpu`, `shared`, `per mm`, `per asid`, `starts N` or `user mapped`")?;
            match word.as_str() {
                "per" if self.take_word("mm") => copies = Copies::Mm,
                "per" if self.take_word("asid") => copies = Copies::Asid,
                "per" => self.expect_word("cpu")?,
                "shared" => copies = Copies::One,
                "starts" => init = self.int("an initial value", (1 << bits) - 1)? as u16,
                "user" => {
                    self.expect_word("mapped")?;
                    user_mapped = true;
                }
                _ => {
                    let message = format!(
                        "expected `per cpu`, `shared`, `per mm`, `per asid`, `starts N` or `user mapped`, found `{word}`"
                    );
                    return Err(PolicyError { file: self.file.into(), at, message });
                }
            }
        }
        if holds == Holds::Generation && !matches!(copies, Copies::Mm | Copies::Asid) {
            return Err(PolicyError {
                file: self.file.into(),
                at,
                message: "a generation is `per mm` or `per asid`".into(),
            });
        }
        if matches!(holds, Holds::Count(_)) {
            let message = if init > u16::from(of.is_none() && copies == Copies::Mm) {
                "a count and its copies start at 0, one per mm at 0 or 1"
            } else if of.is_none() && !matches!(copies, Copies::One | Copies::Mm) {
                "a count is `shared` or `per mm`; copies of it, `count of` it, are `shared`, `per cpu` or `per asid`"
            } else if of.is_some() && copies == Copies::Mm {
                "a copy of a count is `shared`, `per cpu` or `per asid`"
            } else {
                ""
            };
            if !message.is_empty() {
                return Err(PolicyError { file: self.file.into(), at, message: message.into() });
            }
        }
        Ok(VarDecl { at, name, bits, copies, holds, of, init, user_mapped })
    }

    pub(super) fn field(&mut self) -> Result<FieldDecl, PolicyError> {
        let (name, at) = self.word("the name of a field")?;
        self.expect(":")?;
        self.expect_word("bits")?;
        let low = self.int("the lowest bit", 15)? as u8;
        self.expect("..")?;
        let high = self.int("the highest bit", 15)? as u8;
        self.expect_word("of")?;
        let (var, _) = self.word("a variable")?;
        if high < low {
            return Err(PolicyError {
                file: self.file.into(),
                at,
                message: "a field's bits are LOW..HIGH".into(),
            });
        }
        Ok(FieldDecl { at, name, var, low, high })
    }

    pub(super) fn page(&mut self) -> Result<PageDecl, PolicyError> {
        let (name, at) = self.word("the name of a page")?;
        self.expect(":")?;
        let (region, where_) = self.word("vmalloc, direct map, image, per cpu, entry area or user of N")?;
        let kind = match region.as_str() {
            "vmalloc" => PageKind::Vmalloc,
            "direct" => {
                self.expect_word("map")?;
                PageKind::DirectMap
            }
            "image" => PageKind::Image,
            "per" => {
                self.expect_word("cpu")?;
                PageKind::PerCpu
            }
            "entry" => {
                self.expect_word("area")?;
                PageKind::EntryArea
            }
            "user" => {
                self.expect_word("of")?;
                PageKind::User(self.int("the number of an mm", 3)? as u8)
            }
            _ => {
                let message = format!(
                    "a page is vmalloc, direct map, image, per cpu, entry area or user of N, not `{region}`"
                );
                return Err(PolicyError { file: self.file.into(), at: where_, message });
            }
        };
        let entry_area = kind == PageKind::EntryArea;
        let (mut global, mut user_mapped, mut present) =
            (entry_area, entry_area || matches!(kind, PageKind::User(_)), true);
        let mut within = None;
        while self.take(",") {
            let (word, at) = self.word("`global`, `user mapped`, `absent` or `in PAGE`")?;
            match word.as_str() {
                "global" => global = true,
                "user" => {
                    self.expect_word("mapped")?;
                    user_mapped = true;
                }
                "absent" => present = false,
                "in" => within = Some(self.word("the page of the large entry")?.0),
                _ => {
                    let message =
                        format!("expected `global`, `user mapped`, `absent` or `in PAGE`, found `{word}`");
                    return Err(PolicyError { file: self.file.into(), at, message });
                }
            }
        }
        Ok(PageDecl { at, name, kind, global, user_mapped, present, within })
    }
}
