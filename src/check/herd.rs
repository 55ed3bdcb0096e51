//! herd's litmus files for x86 as litmus tests of ours.
//!
//! `X86` files write operands as Intel does (`MOV [x],$1`), `X86_64` files as AT&T does (`movl $1,(x)`). A column
//! becomes `cpu N`, a register a local, a location a shared variable just wide enough for the file's constants.
//! Anything the language cannot say (jumps, operands of 8 and 16 bits, non-temporal stores) is refused with its place.

mod questions;

use crate::kernel::program::{Alu, Copies, Holds, Rmw};
use crate::kernel::text::{Expr, File, Loc, Name, PolicyError, Section, Stmt, StmtKind, Value, VarDecl};

/// Other languages of herd's.
const OTHERS: [&str; 9] = ["AArch64", "ARM", "PPC", "MIPS", "RISCV", "C", "LISA", "BPF", "JAVA"];

/// Is this text one of herd's, for whatever machine?
pub fn is_herd(text: &str) -> bool {
    let clean = without_comments(text);
    let word = clean.split_whitespace().next().unwrap_or("");
    word == "X86" || word == "X86_64" || OTHERS.contains(&word)
}

/// Blank out `(* comments *)`, keeping every line and column.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut depth = 0;
    let mut chars = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('(', Some('*')) => {
                chars.next();
                depth += 1;
                out.push_str("  ");
            }
            ('*', Some(')')) if depth > 0 => {
                chars.next();
                depth -= 1;
                out.push_str("  ");
            }
            ('\n', _) => out.push('\n'),
            (c, _) if depth > 0 => out.extend(std::iter::repeat_n(' ', c.len_utf8())),
            (c, _) => out.push(c),
        }
    }
    out
}

/// Read a file.
pub fn parse(file: &str, text: &str) -> Result<File, PolicyError> {
    let text = without_comments(text);
    let mut r = Reader {
        file,
        text: &text,
        at: 0,
        att: false,
        most: 1,
        adds: 0,
        mixes: false,
        vars: Vec::new(),
        pointers: Vec::new(),
    };
    r.file()
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    /// Bytes read.
    at: usize,
    /// Operands as AT&T writes them.
    att: bool,
    /// The largest constant.
    most: u64,
    /// Additions, of that much each.
    adds: u64,
    /// Bits are mixed too, so that each addition may carry into a bit of its own.
    mixes: bool,
    /// Locations, where first named, and their initial values.
    vars: Vec<(String, Loc, u64)>,
    /// Registers that hold an address: column, register, location.
    pointers: Vec<(usize, String, String)>,
}

/// Instructions that have a suffix for their size.
const SIZED: [&str; 13] =
    ["mov", "xchg", "add", "sub", "inc", "dec", "or", "and", "xor", "xadd", "bts", "btr", "btc"];

/// An operand.
#[derive(Clone, Debug)]
enum Operand {
    Imm(u16),
    Reg(String),
    Mem(String),
}

type Result2<T> = Result<T, PolicyError>;

impl<'a> Reader<'a> {
    fn loc(&self, at: usize) -> Loc {
        let before = &self.text[..at.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let col = before.len() - before.rfind('\n').map_or(0, |i| i + 1) + 1;
        Loc { line: u16::try_from(line).unwrap_or(u16::MAX), col: u16::try_from(col).unwrap_or(u16::MAX) }
    }

    fn fail<T>(&self, at: usize, message: impl Into<String>) -> Result2<T> {
        Err(PolicyError { file: self.file.into(), at: self.loc(at), message: message.into() })
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// What stands up to a sign, which is read too; and where it begins.
    fn until(&mut self, sign: char, what: &str) -> Result2<(&'a str, usize)> {
        let from = self.at;
        let Some(len) = self.rest().find(sign) else {
            return self.fail(from, format!("expected `{sign}` after {what}"));
        };
        let found = &self.rest()[..len];
        self.at += len + sign.len_utf8();
        Ok((found, from))
    }

    fn file(&mut self) -> Result2<File> {
        self.skip();
        let first = self.at;
        let line = self.rest().lines().next().unwrap_or("");
        self.at += line.len();
        let mut words = line.split_whitespace();
        let arch = words.next().unwrap_or("");
        if arch != "X86" && arch != "X86_64" {
            return self.fail(
                first,
                format!("a litmus test for {arch}: of herd's files those for X86 and X86_64 are read"),
            );
        }
        self.att = arch == "X86_64";
        let Some(name) = words.next() else { return self.fail(self.at, "expected the name of the test") };
        let mut out =
            File { file: self.file.into(), kind: "litmus".into(), name: name.into(), ..File::default() };
        let (head, _) = self.until('{', "the name")?;
        for line in head.lines().map(str::trim) {
            if let Some(doc) = line.strip_prefix('"').and_then(|l| l.strip_suffix('"')) {
                out.doc = doc.into();
            }
        }
        let (init, from) = self.until('}', "`{`")?;
        let given = self.init(init, from)?;
        out.sections = self.columns(&given)?;
        out.facts = self.questions(out.sections.len())?;
        let width = |v: u64| u64::from(64 - v.leading_zeros());
        let bound = self.most.saturating_mul(self.adds.saturating_add(1));
        if width(bound) > 16 {
            return self.fail(first, format!("values up to {bound}: a variable has at most 16 bits"));
        }
        let bits = if self.mixes { (width(self.most) + self.adds).min(16) } else { width(bound) };
        let var = |(name, at, init): &(String, Loc, u64)| VarDecl {
            at: *at,
            name: name.clone(),
            bits: bits as u8,
            copies: Copies::One,
            holds: Holds::Bits,
            of: None,
            init: *init as u16,
            user_mapped: false,
        };
        out.vars = self.vars.iter().map(var).collect();
        Ok(out)
    }

    /// A constant of at most 16 bits.
    fn number(&mut self, word: &str, at: usize) -> Result2<u16> {
        let value = match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => word.parse().ok(),
        };
        match value.and_then(|v| u16::try_from(v).ok()) {
            Some(v) => {
                self.most = self.most.max(u64::from(v));
                Ok(v)
            }
            None => self.fail(at, format!("a constant is a number from 0 to 65535: got `{word}`")),
        }
    }

    fn location(&mut self, name: &str, at: usize) -> Result2<String> {
        const WORDS: [&str; 8] = ["and", "or", "not", "true", "false", "pte", "table", "fault"];
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') || !name.chars().all(inner) {
            return self.fail(at, format!("expected a location, found `{name}`"));
        }
        if WORDS.contains(&name) {
            return self.fail(at, format!("`{name}` is a word of conditions: call the location otherwise"));
        }
        if !self.vars.iter().any(|v| v.0 == name) {
            let loc = self.loc(at);
            self.vars.push((name.into(), loc, 0));
        }
        Ok(name.into())
    }

    /// The name of a register's local: `EAX` in X86 files, `rax` in X86_64 files. Parts of registers have none.
    fn register(&self, word: &str) -> Option<String> {
        let lower = word.trim_start_matches('%').to_ascii_lowercase();
        let family = match lower.strip_prefix(['e', 'r']) {
            Some(f @ ("ax" | "bx" | "cx" | "dx" | "si" | "di" | "bp" | "sp")) => f.to_string(),
            Some(n) if lower.starts_with('r') => {
                let n = n.strip_suffix('d').unwrap_or(n);
                n.parse::<u8>().ok().filter(|n| (8..16).contains(n))?;
                return Some(format!("r{n}"));
            }
            _ => return None,
        };
        Some(if self.att { format!("r{family}") } else { format!("E{}", family.to_ascii_uppercase()) })
    }

    /// The initial block: values of locations, and of registers by column.
    fn init(&mut self, text: &str, from: usize) -> Result2<Vec<(usize, String, u16, Loc)>> {
        let mut out = Vec::new();
        let mut at = from;
        for item in text.split(';') {
            let here = at + item.len() - item.trim_start().len();
            at += item.len() + 1;
            let item = item.trim();
            if item.is_empty() {
                continue;
            }
            let (left, right) = match item.split_once('=') {
                Some((l, r)) => (l.trim(), Some(r.trim())),
                None => (item, None),
            };
            // A C type may stand before the name.
            let name = left.split_whitespace().last().unwrap_or("");
            if left.contains('*') || name.contains('[') && !name.starts_with('[') {
                return self.fail(here, format!("pointers and arrays are not read: `{item}`"));
            }
            let Some((column, register)) = name.split_once(':') else {
                let name = self.location(name.trim_matches(['[', ']']), here)?;
                if let Some(right) = right {
                    let value = self.number(right, here)?;
                    let var = self.vars.iter_mut().find(|v| v.0 == name).expect("just declared");
                    var.2 = u64::from(value);
                }
                continue;
            };
            let (Ok(column), Some(register)) = (column.trim().parse(), self.register(register.trim())) else {
                return self.fail(here, format!("`{name}` is no register of a column"));
            };
            let Some(right) = right else { continue };
            if right.starts_with(|c: char| c.is_ascii_digit()) {
                out.push((column, register, self.number(right, here)?, self.loc(here)));
            } else {
                let location = self.location(right.trim_start_matches('&'), here)?;
                self.pointers.push((column, register, location));
            }
        }
        Ok(out)
    }

    fn columns(&mut self, given: &[(usize, String, u16, Loc)]) -> Result2<Vec<Section>> {
        let mut out: Vec<Section> = Vec::new();
        for row in 0.. {
            self.skip();
            if row > 0 && self.asks() {
                break;
            }
            if self.rest().is_empty() {
                if row == 0 {
                    return self.fail(self.at, "expected the columns: `P0 | P1 ;`");
                }
                break;
            }
            let (text, from) = self.until(';', "a row")?;
            let mut at = from;
            for (n, cell) in text.split('|').enumerate() {
                let here = at + cell.len() - cell.trim_start().len();
                at += cell.len() + 1;
                let cell = cell.trim();
                if row == 0 {
                    if cell != format!("P{n}") {
                        return self.fail(here, format!("expected `P{n}`, found `{cell}`"));
                    }
                    let body = given.iter().filter(|g| g.0 == n).map(|(_, reg, v, at)| Stmt {
                        at: *at,
                        place: None,
                        kind: StmtKind::Let(reg.clone(), Expr::Value(Value::Int(*v))),
                    });
                    let (name, at) = (format!("cpu {n}"), self.loc(here));
                    out.push(Section { at, name, place: None, body: body.collect() });
                    continue;
                }
                if n >= out.len() {
                    return self.fail(here, format!("there are {} columns", out.len()));
                }
                let at = self.loc(here);
                let kinds = self.instruction(cell, n, here)?;
                out[n].body.extend(kinds.into_iter().map(|kind| Stmt { at, place: None, kind }));
            }
        }
        if let Some(g) = given.iter().find(|g| g.0 >= out.len()) {
            return Err(PolicyError {
                file: self.file.into(),
                at: g.3,
                message: format!("there is no column {}", g.0),
            });
        }
        for section in &mut out {
            self.start_at_zero(section);
        }
        Ok(out)
    }

    /// Does a question stand next?
    fn asks(&self) -> bool {
        let rest = self.rest();
        let word: &str = rest.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or("");
        rest.starts_with('~')
            || ["exists", "forall", "locations", "filter", "not", "observed"].contains(&word)
    }

    fn operand(&mut self, text: &str, column: usize, at: usize) -> Result2<Operand> {
        if let Some(n) = text.strip_prefix('$') {
            return self.number(n, at).map(Operand::Imm);
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains('(') {
            return self.number(text, at).map(Operand::Imm);
        }
        let inside = |open, close| text.strip_prefix(open).and_then(|t: &str| t.strip_suffix(close));
        let address = inside('[', ']').or(inside('(', ')')).or_else(|| text.strip_suffix("(%rip)"));
        let Some(address) = address.map(str::trim) else {
            return match self.register(text) {
                Some(reg) => Ok(Operand::Reg(reg)),
                None => {
                    self.fail(at, format!("`{text}` is no constant, register of 32 or 64 bits, or location"))
                }
            };
        };
        let Some(reg) = self.register(address) else {
            return self.location(address, at).map(Operand::Mem);
        };
        match self.pointers.iter().find(|p| p.0 == column && p.1 == reg) {
            Some(p) => Ok(Operand::Mem(p.2.clone())),
            None => self.fail(at, format!("`{reg}` holds no address: the initial block gives it none")),
        }
    }

    /// The statements of an instruction.
    fn instruction(&mut self, text: &str, column: usize, at: usize) -> Result2<Vec<StmtKind>> {
        let mut words = text.splitn(2, char::is_whitespace);
        let mut op = words.next().unwrap_or("").to_ascii_lowercase();
        let mut rest = words.next().unwrap_or("").trim();
        let locked = op == "lock";
        if locked {
            let mut words = rest.splitn(2, char::is_whitespace);
            op = words.next().unwrap_or("").to_ascii_lowercase();
            rest = words.next().unwrap_or("").trim();
        }
        let known = |op: &str| SIZED.contains(&op) || op == "cmpxchg";
        if let Some(base) = op.strip_suffix(['l', 'q'])
            && known(base)
        {
            op = base.into();
        }
        let parts = rest.split(',').map(str::trim).filter(|o| !o.is_empty());
        let mut operands = parts.map(|o| self.operand(o, column, at)).collect::<Result2<Vec<_>>>()?;
        if self.att {
            operands.reverse();
        }
        if let [Operand::Reg(to), ..] = &operands[..]
            && self.pointers.iter().any(|p| p.0 == column && p.1 == *to)
        {
            return self
                .fail(at, format!("`{to}` holds an address, and registers with addresses are not written"));
        }
        let name = |n: &str| Name { at: self.loc(at), name: n.into(), cur: false, index: None };
        let value = |o: &Operand| match o {
            Operand::Imm(n) => Value::Int(*n),
            Operand::Reg(n) | Operand::Mem(n) => Value::Name(name(n)),
        };
        let rmw = match op.as_str() {
            "add" | "inc" => Some((Rmw::Add, Alu::Add)),
            "sub" | "dec" => Some((Rmw::Sub, Alu::Sub)),
            "or" => Some((Rmw::Or, Alu::Or)),
            "and" => Some((Rmw::And, Alu::And)),
            "xor" => Some((Rmw::Xor, Alu::Xor)),
            _ => None,
        };
        let bit = match op.as_str() {
            "bts" => Some(Rmw::Bts),
            "btr" => Some(Rmw::Btr),
            "btc" => Some(Rmw::Btc),
            _ => None,
        };
        let one = Operand::Imm(1);
        let (to, from) = match &operands[..] {
            [] => (None, None),
            [to] if op == "inc" || op == "dec" => (Some(to), Some(&one)),
            [to] => (Some(to), None),
            [to, from] => (Some(to), Some(from)),
            _ => return self.fail(at, format!("`{text}` has more than two operands")),
        };
        let kinds = match (op.as_str(), to, from) {
            ("" | "nop", None, None) if !locked => Vec::new(),
            ("mfence", None, None) if !locked => vec![StmtKind::Use("fence".into())],
            (word @ ("lfence" | "sfence"), None, None) if !locked => vec![StmtKind::Use(word.into())],
            ("cpuid", None, None) if !locked => vec![StmtKind::Use("serialize".into())],
            ("mov", Some(Operand::Mem(to)), Some(from @ (Operand::Imm(_) | Operand::Reg(_)))) if !locked => {
                vec![StmtKind::Store(name(to), value(from))]
            }
            ("mov", Some(Operand::Reg(to)), Some(from)) if !locked => {
                vec![StmtKind::Let(to.clone(), Expr::Value(value(from)))]
            }
            // XCHG with memory is locked with and without the prefix.
            ("xchg", Some(Operand::Mem(m)), Some(Operand::Reg(r)))
            | ("xchg", Some(Operand::Reg(r)), Some(Operand::Mem(m))) => {
                vec![StmtKind::Let(r.clone(), Expr::Rmw(Rmw::Xchg, name(m), Value::Name(name(r))))]
            }
            ("xadd", Some(Operand::Mem(m)), Some(Operand::Reg(r))) if locked => {
                vec![StmtKind::Let(r.clone(), Expr::Rmw(Rmw::Add, name(m), Value::Name(name(r))))]
            }
            ("cmpxchg", Some(Operand::Mem(m)), Some(Operand::Reg(new))) if locked => {
                let eax = self.register("eax").expect("a register");
                let (old, new) = (Value::Name(name(&eax)), Value::Name(name(new)));
                vec![StmtKind::Let(eax, Expr::Cas(name(m), old, new))]
            }
            (_, Some(Operand::Mem(m)), Some(from @ Operand::Imm(_))) if locked && bit.is_some() => {
                vec![StmtKind::Locked(Expr::Rmw(bit.expect("asked"), name(m), value(from)))]
            }
            (_, Some(Operand::Mem(m)), Some(from @ (Operand::Imm(_) | Operand::Reg(_))))
                if rmw.is_some() && locked =>
            {
                vec![StmtKind::Locked(Expr::Rmw(rmw.expect("asked").0, name(m), value(from)))]
            }
            // Without the prefix: a load, then a store.
            (_, Some(Operand::Mem(m)), Some(from @ (Operand::Imm(_) | Operand::Reg(_)))) if rmw.is_some() => {
                let held = "held".to_string();
                let sum = Expr::Binary(Value::Name(name(&held)), rmw.expect("asked").1, value(from));
                vec![
                    StmtKind::Let(held.clone(), Expr::Value(Value::Name(name(m)))),
                    StmtKind::Let(held.clone(), sum),
                    StmtKind::Store(name(m), Value::Name(name(&held))),
                ]
            }
            (_, Some(Operand::Reg(r)), Some(from)) if rmw.is_some() && !locked => {
                let sum = Expr::Binary(Value::Name(name(r)), rmw.expect("asked").1, value(from));
                vec![StmtKind::Let(r.clone(), sum)]
            }
            _ => return self.fail(at, format!("`{text}` is no instruction that is read here")),
        };
        self.adds += u64::from(matches!(op.as_str(), "xadd" | "add" | "inc"));
        self.mixes |= bit.is_some() || matches!(op.as_str(), "or" | "xor");
        if let (Some(_), Some(Operand::Imm(n))) = (bit, from) {
            self.most = self.most.max(1u64.checked_shl(u32::from(*n)).unwrap_or(u64::MAX));
        }
        Ok(kinds)
    }

    /// A register that a column reads before it writes it holds 0, as herd has it.
    fn start_at_zero(&self, section: &mut Section) {
        let (mut written, mut zero): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for stmt in &section.body {
            let values = match &stmt.kind {
                StmtKind::Store(_, v)
                | StmtKind::Let(_, Expr::Value(v) | Expr::Rmw(_, _, v))
                | StmtKind::Locked(Expr::Rmw(_, _, v)) => vec![v],
                StmtKind::Let(_, Expr::Binary(a, _, b) | Expr::Cas(_, a, b)) => vec![a, b],
                _ => Vec::new(),
            };
            for v in values {
                if let Value::Name(n) = v
                    && ![&written, &zero].iter().any(|l| l.contains(&n.name))
                    && !self.vars.iter().any(|v| v.0 == n.name)
                {
                    zero.push(n.name.clone());
                }
            }
            if let StmtKind::Let(to, _) = &stmt.kind {
                written.push(to.clone());
            }
        }
        let at = section.at;
        let starts = zero.into_iter().map(|reg| Stmt {
            at,
            place: None,
            kind: StmtKind::Let(reg, Expr::Value(Value::Int(0))),
        });
        section.body.splice(0..0, starts);
    }
}
