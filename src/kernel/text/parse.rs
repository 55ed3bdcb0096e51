//! Tokens to tree, by recursive descent over indentation.

use std::sync::atomic::{AtomicU64, Ordering};

use super::lex::{Line, Token, lines};
use super::{Fact, File, Loc, PolicyError, Section, SiteDecl, Stmt, paths};
use crate::kernel::program::Feature;
use crate::names;

mod cursor;
mod declarations;
mod expressions;
mod statements;

use cursor::Cursor;

/// The header line that says which version of Linux a policy or test stands on.
pub const LINUX: &str = "linux";

/// The header line that multiplies `lazy_max_pages()`.
pub const LAZY_MAX_FACTOR: &str = "lazy_max_factor";

static PARSED: AtomicU64 = AtomicU64::new(0);

/// How many files this process has parsed: a test counts what one question takes.
pub fn parsed() -> u64 {
    PARSED.load(Ordering::Relaxed)
}

/// Parse one file, without those that it is based on.
pub(super) fn one(file: &str, text: &str) -> Result<File, PolicyError> {
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
                let at = c.here();
                let base = match c.peek() {
                    Some((Token::Text(_), _)) => {
                        let path = c.text("")?;
                        paths::refuse(&path).map_err(|why| PolicyError {
                            file: self.file.into(),
                            at,
                            message: why,
                        })?;
                        path
                    }
                    _ => c.word("a policy's name, or a file in quotes")?.0,
                };
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
            "site" if !matches!(c.peek(), Some((Token::Text(_), _))) => {
                let (name, at) = c.word("the name of a patched instruction")?;
                out.sites.push(SiteDecl { at, name });
            }
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
                            "`{key}` is no header line; these are: a sentence in quotes, source, limits, based on, needs, var, field, page, site, or NAME \"TEXT\""
                        ),
                    );
                }
            },
        }
        c.finish()
    }

    /// What a policy may state beside its program.
    fn fact(&self, key: &str, at: Loc, text: &str, value: Loc) -> Result<(), PolicyError> {
        if key == LINUX {
            return Ok(()); // whether there is such a version is known where the kernel's texts are
        }
        if key != LAZY_MAX_FACTOR {
            let hint = names::hint(key, ["source", "limits", LINUX, LAZY_MAX_FACTOR]);
            return self.fail(at, format!("`{key}` is no header line of a policy{hint}"));
        }
        match text.parse::<u32>() {
            Ok(1..=1_000_000) => Ok(()),
            _ => self.fail(value, format!("{key} is a number from 1 to 1000000 in quotes: got \"{text}\"")),
        }
    }
}
