//! Tokens to tree, by recursive descent over indentation.

use std::sync::atomic::{AtomicU64, Ordering};

use super::lex::{Line, Token, lines};
use super::{
    Expr, Fact, FieldDecl, File, Loc, Name, PageDecl, PolicyError, Question, Section, Stmt, StmtKind, Test,
    Value, VarDecl,
};
use crate::kernel::program::{Alu, Cmp, Copies, Feature, GENERATION_BITS, Holds, PageKind, Rmw};
use crate::names;

/// The header line that multiplies `lazy_max_pages()`.
pub const LAZY_MAX_FACTOR: &str = "lazy_max_factor";

static PARSED: AtomicU64 = AtomicU64::new(0);

/// How many files this process has parsed: a test counts what one question takes.
pub fn parsed() -> u64 {
    PARSED.load(Ordering::Relaxed)
}

/// Parse a whole file. What is asked more than once about a text takes [`crate::kernel::policy::shared`].
pub fn parse(file: &str, text: &str) -> Result<File, PolicyError> {
    PARSED.fetch_add(1, Ordering::Relaxed);
    let lines = lines(file, text)?;
    Parser { file, lines: &lines, next: 0 }.file()
}

/// Parse statements without a section, as a builder supplies them.
pub fn statements(file: &str, text: &str) -> Result<Vec<Stmt>, PolicyError> {
    let lines = lines(file, text)?;
    let mut parser = Parser { file, lines: &lines, next: 0 };
    let body = parser.block(0)?;
    match parser.peek() {
        Some(line) => parser.fail(line.tokens[0].1, "indentation: a block's lines stand in one column"),
        None => Ok(body),
    }
}

struct Parser<'a> {
    file: &'a str,
    lines: &'a [Line],
    next: usize,
}

/// The tokens of one line, read left to right.
struct Cursor<'a> {
    file: &'a str,
    tokens: &'a [(Token, Loc)],
    next: usize,
    end: Loc,
}

impl<'a> Parser<'a> {
    fn fail<T>(&self, at: Loc, message: impl Into<String>) -> Result<T, PolicyError> {
        Err(PolicyError { file: self.file.into(), at, message: message.into() })
    }

    fn peek(&self) -> Option<&'a Line> {
        self.lines.get(self.next)
    }

    fn cursor(&self, line: &'a Line) -> Cursor<'a> {
        Cursor { file: self.file, tokens: &line.tokens, next: 0, end: line.end }
    }

    fn file(&mut self) -> Result<File, PolicyError> {
        let mut out = File { file: self.file.into(), ..File::default() };
        let Some(first) = self.peek() else {
            return self.fail(
                Loc { line: 1, col: 1 },
                "an empty text: it starts with `policy NAME` or `litmus NAME`",
            );
        };
        let mut c = self.cursor(first);
        let (kind, at) = c.word("`policy`, `kernel` or `litmus`")?;
        if !["policy", "kernel", "litmus"].contains(&kind.as_str()) || first.indent != 0 {
            return self.fail(at, format!("expected `policy NAME` or `litmus NAME`, found `{kind}`"));
        }
        out.kind = kind;
        out.name = c.word("a name")?.0;
        c.finish()?;
        self.next += 1;
        while let Some(line) = self.peek() {
            if line.indent == 0 {
                break;
            }
            self.next += 1;
            self.header(line, &mut out)?;
        }
        while let Some(line) = self.peek() {
            let mut c = self.cursor(line);
            let (mut name, at) = c.word("the name of a section")?;
            if line.indent != 0 {
                return self.fail(at, "indentation: a section's name stands in column 1");
            }
            if let Some((Token::Int(n), _)) = c.peek() {
                name = format!("{name} {n}");
                c.next += 1;
            }
            let place = c.place()?;
            c.finish()?;
            if out.section(&name).is_some() {
                return self.fail(at, format!("section `{name}` stands here a second time"));
            }
            self.next += 1;
            let body = match self.peek() {
                Some(l) if l.indent > 0 => self.block(l.indent)?,
                _ => Vec::new(),
            };
            out.sections.push(Section { at, name, place, body });
        }
        Ok(out)
    }

    fn header(&self, line: &'a Line, out: &mut File) -> Result<(), PolicyError> {
        let mut c = self.cursor(line);
        if matches!(c.peek(), Some((Token::Text(_), _))) {
            let text = c.text("")?;
            if !out.doc.is_empty() {
                out.doc.push(' ');
            }
            out.doc.push_str(&text);
            return c.finish();
        }
        let (key, at) = c.word("a header line")?;
        match key.as_str() {
            "source" => out.source.push(c.text("the source in quotes")?),
            "limits" => out.limits.push(c.text("the limits in quotes")?),
            "based" => {
                c.expect_word("on")?;
                let (base, at) = c.word("a policy's name")?;
                (out.based_on, out.based_at) = (Some(base), at);
            }
            "needs" => loop {
                let (feature, at) = c.word("a feature")?;
                if Feature::named(&feature).is_none() {
                    let hint = names::hint(&feature, Feature::ALL.iter().map(|f| f.0));
                    return self.fail(at, format!("`{feature}` is no feature{hint}"));
                }
                out.needs.push(feature);
                if !c.take(",") {
                    break;
                }
            },
            "var" => out.vars.push(c.var()?),
            "field" => out.fields.push(c.field()?),
            "page" => out.pages.push(c.page()?),
            _ => match c.peek() {
                Some((Token::Text(text), value)) => {
                    if out.kind == "policy" {
                        self.fact(&key, at, text, *value)?;
                    }
                    out.facts.push(Fact { at, key, text: text.clone() });
                    c.next += 1;
                }
                _ => {
                    return self.fail(
                        at,
                        format!(
                            "`{key}` is no header line; these are: a sentence in quotes, source, limits, based on, needs, var, field, page, or NAME \"TEXT\""
                        ),
                    );
                }
            },
        }
        c.finish()
    }

    /// What a policy may state beside its program.
    fn fact(&self, key: &str, at: Loc, text: &str, value: Loc) -> Result<(), PolicyError> {
        if key != LAZY_MAX_FACTOR {
            let hint = names::hint(key, ["source", "limits", LAZY_MAX_FACTOR]);
            return self.fail(at, format!("`{key}` is no header line of a policy{hint}"));
        }
        match text.parse::<u32>() {
            Ok(1..=1_000_000) => Ok(()),
            _ => self.fail(value, format!("{key} is a number from 1 to 1000000 in quotes: got \"{text}\"")),
        }
    }

    fn block(&mut self, indent: usize) -> Result<Vec<Stmt>, PolicyError> {
        let mut out = Vec::new();
        while let Some(line) = self.peek() {
            if line.indent < indent {
                break;
            }
            if line.indent > indent {
                return self.fail(line.tokens[0].1, "indentation: a block's lines stand in one column");
            }
            self.next += 1;
            out.push(self.stmt(line)?);
        }
        Ok(out)
    }

    /// The block that belongs to `line`.
    fn inner(&mut self, line: &Line) -> Result<Vec<Stmt>, PolicyError> {
        match self.peek() {
            Some(l) if l.indent > line.indent => self.block(l.indent),
            _ => self.fail(line.tokens[0].1, "expected an indented block below this line"),
        }
    }

    fn stmt(&mut self, line: &'a Line) -> Result<Stmt, PolicyError> {
        let mut c = self.cursor(line);
        let at = line.tokens[0].1;
        let (word, _) = c.word("a statement")?;
        let mut place = None;
        let kind = match word.as_str() {
            "if" => {
                let test = c.test()?;
                place = c.place()?;
                c.finish()?;
                let then = self.inner(line)?;
                let mut or_else = Vec::new();
                if let Some(l) = self.peek()
                    && l.indent == line.indent
                    && l.tokens[0].0 == Token::Word("else".into())
                {
                    self.next += 1;
                    let mut c = self.cursor(l);
                    c.next = 1;
                    c.finish()?;
                    or_else = self.inner(l)?;
                }
                StmtKind::If(test, then, or_else)
            }
            "else" => return self.fail(at, "`else` without an `if` in the same column"),
            "while" => {
                let test = c.test()?;
                place = c.place()?;
                c.finish()?;
                StmtKind::While(test, self.inner(line)?)
            }
            "loop" => {
                c.finish()?;
                StmtKind::Loop(self.inner(line)?)
            }
            "each" => {
                c.expect_word("cpu")?;
                c.expect_word("in")?;
                let set = c.word("a CPU set")?.0;
                place = c.place()?;
                c.finish()?;
                StmtKind::Each(set, self.inner(line)?)
            }
            _ => {
                let kind = simple(&mut c, word)?;
                place = c.place()?.or(place);
                kind
            }
        };
        if !matches!(kind, StmtKind::If(..) | StmtKind::While(..) | StmtKind::Loop(_) | StmtKind::Each(..)) {
            c.finish()?;
        }
        Ok(Stmt { at, place, kind })
    }
}

/// A statement that fits one line; `word` has been read.
fn simple(c: &mut Cursor<'_>, word: String) -> Result<StmtKind, PolicyError> {
    Ok(match word.as_str() {
        "break" => StmtKind::Break,
        "let" => {
            let (name, _) = c.word("the name of a local")?;
            c.expect("=")?;
            StmtKind::Let(name, c.expr()?)
        }
        "xchg" | "add" | "or" | "and" | "sub" | "xor" | "bts" | "btr" | "btc" | "inc" | "dec" | "cas"
            if !c.assigns() =>
        {
            c.next -= 1;
            StmtKind::Locked(c.expr()?)
        }
        "await" if c.peek().is_some_and(|(t, _)| *t == Token::Word("acks".into())) => {
            c.next += 1;
            StmtKind::Plain(vec!["await".into(), "acks".into()])
        }
        "await" => {
            let name = c.name("a variable")?;
            let cmp = c.compare().ok_or_else(|| c.error("expected a comparison"))?;
            StmtKind::Await(name, cmp, c.value()?)
        }
        "store" => {
            let (page, _) = c.word("a page")?;
            c.expect(",")?;
            StmtKind::StorePage(page, c.value()?)
        }
        "ipi" => {
            let set = c.word("a CPU set")?.0;
            c.expect(",")?;
            StmtKind::Ipi(set, c.word("the name of a handler section")?.0)
        }
        "mov" => mov(c)?,
        "flush" if c.take_word("info") => {
            let mm = c.value()?;
            c.expect(",")?;
            StmtKind::FlushInfo(mm, c.value()?)
        }
        "join" | "leave" if c.take_word("mm_cpumask") => {
            c.expect_word("of")?;
            StmtKind::Mask(c.value()?, word == "join")
        }
        _ => {
            // VAR = value, VAR[cpu] = value
            if c.assigns() {
                c.next -= 1;
                let name = c.name("a variable")?;
                c.expect("=")?;
                let v = c.value()?;
                if let Some((Token::Sign(sign @ ("+" | "-" | "&" | "|" | "^")), at)) = c.peek() {
                    let (n, sign, at) = (&name.name, *sign, *at);
                    let locked = match sign {
                        "+" => format!("; `add {n}, 1` does it in one locked instruction"),
                        "&" => format!("; `and {n}, 1` does it in one locked instruction"),
                        "|" => format!("; `or {n}, 1` does it in one locked instruction"),
                        _ => String::new(),
                    };
                    let message = format!(
                        "a variable is stored a value or a local, and a local computes: `let x = {n}`, \
                         `let x = x {sign} 1`, `{n} = x`{locked}"
                    );
                    return Err(PolicyError { file: c.file.into(), at, message });
                }
                return Ok(StmtKind::Store(name, v));
            }
            let mut words = vec![word];
            while let Some((token, _)) = c.peek() {
                match token {
                    Token::Word(w) => words.push(w.clone()),
                    Token::Sign(s @ ("=" | ",")) => words.push((*s).into()),
                    Token::Int(n) if words == ["free", "mm"] => words.push(n.to_string()),
                    Token::Int(n) if words[0] == "invlpgb" && words.last().is_some_and(|w| w == "asid") => {
                        words.push(n.to_string());
                    }
                    _ => break,
                }
                c.next += 1;
            }
            if words.len() == 1 { StmtKind::Use(words.remove(0)) } else { StmtKind::Plain(words) }
        }
    })
}

fn mov(c: &mut Cursor<'_>) -> Result<StmtKind, PolicyError> {
    let (register, at) = c.word("`cr3`, `cr4` or `gsbase`")?;
    c.expect(",")?;
    match register.as_str() {
        "cr4" => {
            c.expect_word("pge")?;
            let (on, _) = c.word("`on` or `off`")?;
            Ok(StmtKind::Plain(vec!["mov".into(), "cr4".into(), on]))
        }
        "gsbase" => {
            let name = c.name("`kernel` or a local")?;
            Ok(StmtKind::MovGs((name.name != "kernel").then_some(name)))
        }
        "cr3" => {
            let name = c.name("`kernel`, `user`, `mm` or a local")?;
            if name.name == "mm" {
                let mm = c.value()?;
                c.expect_word("asid")?;
                let asid = c.value()?;
                let keep = c.take_word("noflush");
                if !keep {
                    c.take_word("flush"); // what a write is without a word
                }
                return Ok(StmtKind::SwitchMm(mm, asid, keep));
            }
            let how =
                if matches!(c.peek(), Some((Token::Word(_), _))) { c.word("")?.0 } else { "flush".into() };
            Ok(match name.name.as_str() {
                "kernel" | "user" => StmtKind::Plain(vec!["mov".into(), "cr3".into(), name.name, how]),
                _ => StmtKind::MovCr3Local(name, how),
            })
        }
        _ => Err(PolicyError {
            file: c.file.into(),
            at,
            message: format!("`mov` writes cr3, cr4 or gsbase, not `{register}`"),
        }),
    }
}

impl Cursor<'_> {
    fn here(&self) -> Loc {
        self.tokens.get(self.next).map_or(self.end, |t| t.1)
    }

    fn error(&self, message: impl Into<String>) -> PolicyError {
        let found = self.peek().map_or("the end of the line".into(), |(token, _)| token.show());
        let message = format!("{}, found {found}", message.into());
        PolicyError { file: self.file.into(), at: self.here(), message }
    }

    fn peek(&self) -> Option<&(Token, Loc)> {
        self.tokens.get(self.next)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some((Token::Sign(s), _)) if *s == sign);
        self.next += usize::from(found);
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some((Token::Word(w), _)) if w == word);
        self.next += usize::from(found);
        found
    }

    /// Does `=` stand next, or an index and then `=`?
    fn assigns(&self) -> bool {
        match self.peek() {
            Some((Token::Sign("="), _)) => true,
            Some((Token::Sign("["), _)) => {
                matches!(self.tokens.get(self.next + 3), Some((Token::Sign("="), _)))
            }
            _ => false,
        }
    }

    /// Is the token after the next one this word?
    fn follows(&self, word: &str) -> bool {
        matches!(self.tokens.get(self.next + 1), Some((Token::Word(w), _)) if w == word)
    }

    fn expect(&mut self, sign: &str) -> Result<(), PolicyError> {
        if self.take(sign) { Ok(()) } else { Err(self.error(format!("expected `{sign}`"))) }
    }

    fn expect_word(&mut self, word: &str) -> Result<(), PolicyError> {
        if self.take_word(word) { Ok(()) } else { Err(self.error(format!("expected `{word}`"))) }
    }

    fn word(&mut self, what: &str) -> Result<(String, Loc), PolicyError> {
        match self.peek() {
            Some((Token::Word(w), at)) => {
                let out = (w.clone(), *at);
                self.next += 1;
                Ok(out)
            }
            _ => Err(self.error(format!("expected {what}"))),
        }
    }

    fn text(&mut self, what: &str) -> Result<String, PolicyError> {
        match self.peek() {
            Some((Token::Text(t), _)) => {
                let out = t.clone();
                self.next += 1;
                Ok(out)
            }
            _ => Err(self.error(format!("expected {what}"))),
        }
    }

    fn int(&mut self, what: &str, max: u64) -> Result<u64, PolicyError> {
        match self.peek() {
            Some((Token::Int(n), _)) if *n <= max => {
                let n = *n;
                self.next += 1;
                Ok(n)
            }
            Some((Token::Int(n), _)) => Err(PolicyError {
                file: self.file.into(),
                at: self.here(),
                message: format!("{what} is at most {max}: got {n}"),
            }),
            _ => Err(self.error(format!("expected {what}"))),
        }
    }

    fn finish(&self) -> Result<(), PolicyError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.error("expected the end of the line")) }
    }

    /// `@ "kernel function or patch"`.
    fn place(&mut self) -> Result<Option<String>, PolicyError> {
        if self.take("@") { Ok(Some(self.text("a source place in quotes")?)) } else { Ok(None) }
    }

    fn name(&mut self, what: &str) -> Result<Name, PolicyError> {
        let (name, at) = self.word(what)?;
        let (mut cur, mut index) = (false, None);
        if self.take("[") {
            let (of, _) = self.word("`cpu` or a local")?;
            self.expect("]")?;
            cur = of == "cpu";
            index = (!cur).then_some(of);
        }
        Ok(Name { at, name, cur, index })
    }

    fn value(&mut self) -> Result<Value, PolicyError> {
        if matches!(self.peek(), Some((Token::Int(_), _))) {
            return Ok(Value::Int(self.int("a constant", 65535)? as u16));
        }
        let name = self.name("a value: a constant, a variable, a local, `cr3` or `gsbase`")?;
        Ok(match name.name.as_str() {
            "cr3" => Value::Cr3,
            "gsbase" => Value::GsBase,
            _ => Value::Name(name),
        })
    }

    fn expr(&mut self) -> Result<Expr, PolicyError> {
        if let Some((Token::Word(w), _)) = self.peek() {
            let rmw = Rmw::ALL.iter().find(|(word, _)| word == w).map(|(_, rmw)| *rmw);
            if let Some(rmw) = rmw {
                self.next += 1;
                let name = self.name("a variable")?;
                self.expect(",")?;
                return Ok(Expr::Rmw(rmw, name, self.value()?));
            }
            // LOCK INC and LOCK DEC: the same with 1.
            let by_one = match w.as_str() {
                "inc" => Some(Rmw::Add),
                "dec" => Some(Rmw::Sub),
                _ => None,
            };
            if let Some(rmw) =
                by_one.filter(|_| matches!(self.tokens.get(self.next + 1), Some((Token::Word(_), _))))
            {
                self.next += 1;
                return Ok(Expr::Rmw(rmw, self.name("a variable")?, Value::Int(1)));
            }
            if w == "load" {
                self.next += 1;
                return Ok(Expr::Page(self.word("a page")?.0));
            }
            let asked = match w.as_str() {
                "next" if self.follows("mm") => Some((2, Question::NextMm)),
                "mm" if self.follows("to") => Some((3, Question::FlushMm)),
                "info" if self.follows("mm") => Some((2, Question::InfoMm)),
                "info" if self.follows("generation") => Some((2, Question::InfoGen)),
                "loaded" if self.follows("asid") => Some((2, Question::LoadedAsid)),
                "asid" if self.follows("for") => {
                    self.next += 2;
                    return Ok(Expr::Ask(Question::AsidFor(self.value()?)));
                }
                _ => None,
            };
            if let Some((words, question)) = asked {
                self.next += words;
                return Ok(Expr::Ask(question));
            }
            if w == "cas" {
                self.next += 1;
                let name = self.name("a variable")?;
                self.expect(",")?;
                let old = self.value()?;
                self.expect(",")?;
                return Ok(Expr::Cas(name, old, self.value()?));
            }
        }
        let a = self.value()?;
        for (sign, alu) in
            [("+", Alu::Add), ("-", Alu::Sub), ("&", Alu::And), ("|", Alu::Or), ("^", Alu::Xor)]
        {
            if self.take(sign) {
                return Ok(Expr::Binary(a, alu, self.value()?));
            }
        }
        Ok(Expr::Value(a))
    }

    fn compare(&mut self) -> Option<Cmp> {
        [
            ("==", Cmp::Eq),
            ("!=", Cmp::Ne),
            ("<=", Cmp::Le),
            (">=", Cmp::Ge),
            ("<", Cmp::Lt),
            (">", Cmp::Gt),
            ("&", Cmp::Test),
        ]
        .into_iter()
        .find(|(sign, _)| self.take(sign))
        .map(|(_, cmp)| cmp)
    }

    fn test(&mut self) -> Result<Test, PolicyError> {
        let mut left = self.test_and()?;
        while self.take_word("or") {
            left = Test::Or(Box::new(left), Box::new(self.test_and()?));
        }
        Ok(left)
    }

    fn test_and(&mut self) -> Result<Test, PolicyError> {
        let mut left = self.test_one()?;
        while self.take_word("and") {
            left = Test::And(Box::new(left), Box::new(self.test_one()?));
        }
        Ok(left)
    }

    fn test_one(&mut self) -> Result<Test, PolicyError> {
        if self.take_word("not") {
            return Ok(Test::Not(Box::new(self.test_one()?)));
        }
        if self.take("(") {
            let inner = self.test()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let at = self.here();
        if self.take_word("feature") {
            let (name, at) = self.word("a feature")?;
            return Ok(Test::Feature(name, at));
        }
        if self.take_word("me") {
            self.expect_word("in")?;
            let (set, at) = self.word("a CPU set")?;
            return Ok(Test::MeIn(set, at));
        }
        if self.take_word("cpu") {
            if self.take_word("is") {
                self.expect_word("me")?;
                return Ok(Test::CurIsMe);
            }
            self.expect_word("in")?;
            let (set, at) = self.word("a CPU set")?;
            return Ok(Test::CurIn(set, at));
        }
        let a = self.value()?;
        if self.take_word("is") {
            let (what, _) = self.word("`user`, `full` or `empty`")?;
            return match (what.as_str(), &a) {
                ("user", Value::Cr3 | Value::Name(_)) => Ok(Test::IsUser(a)),
                ("full", Value::Name(n)) if n.name == "range" => Ok(Test::RangeFull),
                ("empty", Value::Name(n)) => Ok(Test::Empty(n.name.clone(), n.at)),
                _ => Err(PolicyError {
                    file: self.file.into(),
                    at,
                    message: format!(
                        "expected `X is user`, `range is full` or `SET is empty`, found `is {what}`"
                    ),
                }),
            };
        }
        match self.compare() {
            Some(cmp) => Ok(Test::Compare(a, cmp, self.value()?)),
            None => Ok(Test::Compare(a, Cmp::Ne, Value::Int(0))),
        }
    }

    fn var(&mut self) -> Result<VarDecl, PolicyError> {
        let (name, at) = self.word("the name of a variable")?;
        self.expect(":")?;
        let (bits, holds) = if self.take_word("mm") {
            (16, Holds::Mm)
        } else if self.take_word("generation") {
            (GENERATION_BITS, Holds::Generation)
        } else {
            (self.int("a width in bits, `mm` or `generation`", 16)? as u8, Holds::Bits)
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
        Ok(VarDecl { at, name, bits, copies, holds, init, user_mapped })
    }

    fn field(&mut self) -> Result<FieldDecl, PolicyError> {
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

    fn page(&mut self) -> Result<PageDecl, PolicyError> {
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
        while self.take(",") {
            let (word, at) = self.word("`global`, `user mapped` or `absent`")?;
            match word.as_str() {
                "global" => global = true,
                "user" => {
                    self.expect_word("mapped")?;
                    user_mapped = true;
                }
                "absent" => present = false,
                _ => {
                    let message = format!("expected `global`, `user mapped` or `absent`, found `{word}`");
                    return Err(PolicyError { file: self.file.into(), at, message });
                }
            }
        }
        Ok(PageDecl { at, name, kind, global, user_mapped, present })
    }
}
