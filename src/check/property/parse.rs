//! The text of a condition to a tree of names, in the words of the policy language or in herd's.

use crate::kernel::program::{Cmp, Level};

/// What stands on a side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// A constant.
    Int(u64),
    /// A variable, or the word for an entry.
    Name(String),
    /// `N:local`: a local of column N at its end.
    Register(usize, String),
    /// `pte(page)`, `table(page)`.
    Entry(Level, String),
    /// `fault(N, page)`: column N ended in a fault at that page.
    Fault(usize, String),
}

/// A condition over names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// `true`, `false`.
    Always(bool),
    /// A comparison; a bare term is not zero.
    Compare(Term, Cmp, Term),
    /// `not`.
    Not(Box<Tree>),
    /// `and`.
    And(Box<Tree>, Box<Tree>),
    /// `or`.
    Or(Box<Tree>, Box<Tree>),
}

impl Tree {
    /// Every term, in order.
    pub fn terms(&self) -> Vec<&Term> {
        match self {
            Tree::Always(_) => Vec::new(),
            Tree::Compare(a, _, b) => vec![a, b],
            Tree::Not(t) => t.terms(),
            Tree::And(a, b) | Tree::Or(a, b) => [a.terms(), b.terms()].concat(),
        }
    }
}

/// Deepest nesting of a condition.
const DEEPEST: usize = 100;

struct Parser<'a> {
    /// What is left.
    rest: &'a str,
    depth: usize,
}

/// Read a condition.
pub fn condition(text: &str) -> Result<Tree, String> {
    let mut p = Parser { rest: text, depth: 0 };
    let tree = p.either()?;
    p.end()?;
    Ok(tree)
}

/// Read a list of terms such as `x 0:r pte(a)`, with `,` or `;` between them or not.
pub fn terms(text: &str) -> Result<Vec<Term>, String> {
    let mut p = Parser { rest: text, depth: 0 };
    let mut out = Vec::new();
    loop {
        while p.sign(",") || p.sign(";") {}
        p.skip();
        if p.rest.is_empty() {
            return Ok(out);
        }
        out.push(p.term()?);
    }
}

impl<'a> Parser<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// The word or number that stands next.
    fn peek(&mut self) -> &'a str {
        self.skip();
        let bytes = self.rest.as_bytes();
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let mut len = 0;
        while len < bytes.len() {
            let dash =
                len > 0 && matches!(bytes[len], b'-' | b'.') && bytes.get(len + 1).is_some_and(|b| inner(*b));
            if !inner(bytes[len]) && !dash {
                break;
            }
            len += 1;
        }
        &self.rest[..len]
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.peek() == word;
        if found {
            self.rest = &self.rest[word.len()..];
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.sign(sign) { Ok(()) } else { Err(self.found(&format!("`{sign}`"))) }
    }

    fn found(&mut self, expected: &str) -> String {
        let word = self.peek();
        match (word, self.rest.chars().next()) {
            ("", None) => format!("expected {expected}, found the end"),
            ("", Some(c)) => format!("expected {expected}, found `{c}`"),
            (word, _) => format!("expected {expected}, found `{word}`"),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.skip();
        if self.rest.is_empty() { Ok(()) } else { Err(self.found("the end, `and` or `or`")) }
    }

    fn either(&mut self) -> Result<Tree, String> {
        let mut left = self.both()?;
        while self.take("or") || self.sign("\\/") || self.sign("||") {
            left = Tree::Or(Box::new(left), Box::new(self.both()?));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Tree, String> {
        let mut left = self.one()?;
        while self.take("and") || self.sign("/\\") || self.sign("&&") {
            left = Tree::And(Box::new(left), Box::new(self.one()?));
        }
        Ok(left)
    }

    fn one(&mut self) -> Result<Tree, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("nested more than {DEEPEST} deep"));
        }
        let tree = self.any()?;
        self.depth -= 1;
        Ok(tree)
    }

    fn any(&mut self) -> Result<Tree, String> {
        self.skip();
        if self.take("not") || self.sign("~") || !self.rest.starts_with("!=") && self.sign("!") {
            return Ok(Tree::Not(Box::new(self.one()?)));
        }
        if self.sign("(") {
            let inner = self.either()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.take("true") {
            return Ok(Tree::Always(true));
        }
        if self.take("false") {
            return Ok(Tree::Always(false));
        }
        let a = self.term()?;
        let signs = [
            ("==", Cmp::Eq),
            ("!=", Cmp::Ne),
            ("<>", Cmp::Ne),
            ("<=", Cmp::Le),
            (">=", Cmp::Ge),
            ("=", Cmp::Eq),
            ("<", Cmp::Lt),
            (">", Cmp::Gt),
        ];
        if let Some((_, cmp)) = signs.into_iter().find(|(sign, _)| self.sign(sign)) {
            return Ok(Tree::Compare(a, cmp, self.term()?));
        }
        self.skip();
        if !self.rest.starts_with("&&") && self.sign("&") {
            return Ok(Tree::Compare(a, Cmp::Test, self.term()?));
        }
        match a {
            Term::Entry(..) => {
                Err(self.found("`==` or `!=` and none, fresh, less-rights, initial, uncached or present"))
            }
            a => Ok(Tree::Compare(a, Cmp::Ne, Term::Int(0))),
        }
    }

    fn number(&mut self, what: &str) -> Result<u64, String> {
        let word = self.peek();
        if !word.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.found(what));
        }
        let value = match word.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => word.parse().ok(),
        };
        let value = value.ok_or_else(|| format!("not a number: `{word}`"))?;
        self.rest = &self.rest[word.len()..];
        Ok(value)
    }

    fn name(&mut self, what: &str) -> Result<String, String> {
        let word = self.peek();
        if !word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Err(self.found(what));
        }
        self.rest = &self.rest[word.len()..];
        Ok(word.into())
    }

    fn term(&mut self) -> Result<Term, String> {
        if self.peek().starts_with(|c: char| c.is_ascii_digit()) {
            let n = self.number("a constant")?;
            if !self.rest.starts_with(':') {
                return Ok(Term::Int(n));
            }
            self.expect(":")?;
            let cpu = usize::try_from(n).map_err(|_| format!("there is no cpu {n}"))?;
            return Ok(Term::Register(cpu, self.name("the name of a local")?));
        }
        let name =
            self.name("a value: a variable, a constant, `N:LOCAL`, `pte(PAGE)` or `fault(N, PAGE)`")?;
        let of = match name.as_str() {
            "pte" => Some(Level::Leaf),
            "table" => Some(Level::Table),
            _ => None,
        };
        if let Some(level) = of.filter(|_| self.rest.starts_with('(')) {
            self.expect("(")?;
            let page = self.name("a page")?;
            self.expect(")")?;
            return Ok(Term::Entry(level, page));
        }
        if name == "fault" && self.rest.starts_with('(') {
            self.expect("(")?;
            let n = self.number("the number of a CPU")?;
            let cpu = usize::try_from(n).map_err(|_| format!("there is no cpu {n}"))?;
            self.expect(",")?;
            let page = self.name("a page")?;
            self.expect(")")?;
            return Ok(Term::Fault(cpu, page));
        }
        Ok(Term::Name(name))
    }
}
