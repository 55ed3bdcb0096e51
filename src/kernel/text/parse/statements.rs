//! Statements: those with a block below them, and those that fit one line.

use super::super::lex::{Line, Token};
use super::super::{PolicyError, Stmt, StmtKind};
use super::Parser;
use super::cursor::Cursor;

impl<'a> Parser<'a> {
    pub(super) fn block(&mut self, indent: usize) -> Result<Vec<Stmt>, PolicyError> {
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
    pub(super) fn inner(&mut self, line: &Line) -> Result<Vec<Stmt>, PolicyError> {
        match self.peek() {
            Some(l) if l.indent > line.indent => self.block(l.indent),
            _ => self.fail(line.tokens[0].1, "expected an indented block below this line"),
        }
    }

    pub(super) fn stmt(&mut self, line: &'a Line) -> Result<Stmt, PolicyError> {
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
        "call" if c.take_word("later") => {
            StmtKind::CallLater(c.word("the name of the section that runs after a grace period")?.0)
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
