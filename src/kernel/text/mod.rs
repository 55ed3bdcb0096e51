//! The one text language: policy files, kernel paths, litmus tests, prints, pickles and counterexamples.
//!
//! A file is a header and sections. A section is a program of micro-ops in structured form; a line that is just
//! the name of another section stands for its body (the macros of `arch/x86/entry/calling.h` work so). [`parse()`]
//! makes the tree below, [`print()`] is its inverse up to comments and spacing.

mod bundle;
mod lex;
mod parse;
mod paths;
mod print;

pub use bundle::{based_on, behind, parse};
pub use parse::{LAZY_MAX_FACTOR, LINUX, parsed, statements};
pub use print::{print, statement};

use super::program::{Alu, Cmp, Copies, Holds, PageKind, Rmw};

/// A line and column, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loc {
    /// Line.
    pub line: u16,
    /// Column.
    pub col: u16,
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{}:{}: {message}", at.line, at.col)]
pub struct PolicyError {
    /// File name, or the policy's name for a text without file.
    pub file: String,
    /// Where.
    pub at: Loc,
    /// What, and which rule.
    pub message: String,
}

/// A parsed file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Where it came from.
    pub file: String,
    /// `policy`, `kernel` or `litmus`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// One sentence.
    pub doc: String,
    /// Patch, message id, paper.
    pub source: Vec<String>,
    /// The policy whose sections and variables it takes over.
    pub based_on: Option<String>,
    /// Where it says so.
    pub based_at: Loc,
    /// That policy, if it is a file: its text goes with this one's.
    pub base: Option<Box<File>>,
    /// Features without which the policy is inert.
    pub needs: Vec<String>,
    /// What its author or we say it does not do.
    pub limits: Vec<String>,
    /// Free `key "text"` lines, such as a litmus test's verdict.
    pub facts: Vec<Fact>,
    /// Variables.
    pub vars: Vec<VarDecl>,
    /// Fields of variables.
    pub fields: Vec<FieldDecl>,
    /// Tracked pages.
    pub pages: Vec<PageDecl>,
    /// Patched instructions that have a name.
    pub sites: Vec<SiteDecl>,
    /// Programs and macros.
    pub sections: Vec<Section>,
}

impl File {
    /// Is it the kernel's own, and no policy's or test's?
    pub fn is_kernel(&self) -> bool {
        self.kind == "kernel"
    }

    /// The section of that name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }
}

/// A header line `KEY "TEXT"` whose meaning is its reader's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Where.
    pub at: Loc,
    /// Key.
    pub key: String,
    /// Text.
    pub text: String,
}

/// `var NAME : N bits|mm|generation, per cpu|shared|per mm|per asid, starts V [, user mapped]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VarDecl {
    /// Where.
    pub at: Loc,
    /// Name.
    pub name: String,
    /// Width.
    pub bits: u8,
    /// Of what it has copies.
    pub copies: Copies,
    /// What it holds.
    pub holds: Holds,
    /// Of which count it is a copy.
    pub of: Option<String>,
    /// Initial value.
    pub init: u16,
    /// In the PTI user table.
    pub user_mapped: bool,
}

/// `field NAME : bits LOW..HIGH of VAR` (both ends included): a smaller access to a part of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldDecl {
    /// Where.
    pub at: Loc,
    /// Name.
    pub name: String,
    /// Variable.
    pub var: String,
    /// Lowest bit.
    pub low: u8,
    /// Highest bit.
    pub high: u8,
}

/// `page NAME : vmalloc|direct map|image|per cpu|entry area|user of N [, global] [, user mapped] [, absent] [, in PAGE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageDecl {
    /// Where.
    pub at: Loc,
    /// Name.
    pub name: String,
    /// Region.
    pub kind: PageKind,
    /// Global.
    pub global: bool,
    /// In the PTI user table.
    pub user_mapped: bool,
    /// Mapped at the start.
    pub present: bool,
    /// The page of a large entry in which it lies.
    pub within: Option<String>,
}

/// `site NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteDecl {
    /// Where.
    pub at: Loc,
    /// Name.
    pub name: String,
}

/// A named block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Where.
    pub at: Loc,
    /// Name.
    pub name: String,
    /// Kernel function or patch.
    pub place: Option<String>,
    /// Statements.
    pub body: Vec<Stmt>,
}

/// A statement and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stmt {
    /// Where.
    pub at: Loc,
    /// Kernel function or patch.
    pub place: Option<String>,
    /// What.
    pub kind: StmtKind,
}

/// A memory operand or a local, by name; `cur` when indexed by the loop's CPU, `index` when by a local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Where.
    pub at: Loc,
    /// Name.
    pub name: String,
    /// `NAME[cpu]`.
    pub cur: bool,
    /// `NAME[LOCAL]`.
    pub index: Option<String>,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Constant.
    Int(u16),
    /// Variable or local.
    Name(Name),
    /// The CR3 register.
    Cr3,
    /// Whose GSBASE.
    GsBase,
}

/// Right side of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// A value.
    Value(Value),
    /// `a op b`.
    Binary(Value, Alu, Value),
    /// `xchg|add|or|and|sub|xor VAR, value`, `bts|btr|btc VAR, bit`.
    Rmw(Rmw, Name, Value),
    /// `load PAGE`: the data it maps.
    Page(String),
    /// `cas VAR, old, new`.
    Cas(Name, Value, Value),
    /// `next mm`, `mm to flush`, `info mm`, `info generation`, `loaded asid`, `asid for VALUE`.
    Ask(Question),
}

/// What a program asks about address spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// `next mm`.
    NextMm,
    /// `mm to flush`.
    FlushMm,
    /// `info mm`.
    InfoMm,
    /// `info generation`.
    InfoGen,
    /// `loaded asid`.
    LoadedAsid,
    /// `asid for VALUE`.
    AsidFor(Value),
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// `a cmp b`; a bare value is `!= 0`.
    Compare(Value, Cmp, Value),
    /// `me in SET`.
    MeIn(String, Loc),
    /// `cpu in SET`.
    CurIn(String, Loc),
    /// `cpu is me`.
    CurIsMe,
    /// `SET is empty`.
    Empty(String, Loc),
    /// `cr3 is user`, `LOCAL is user`.
    IsUser(Value),
    /// `range is full`.
    RangeFull,
    /// `either`: undecided.
    Either(Loc),
    /// `text is new`, `text NAME is new`: what a patched instruction decides.
    Text(Option<String>, Loc),
    /// `feature NAME`.
    Feature(String, Loc),
    /// `not`.
    Not(Box<Test>),
    /// `and`.
    And(Box<Test>, Box<Test>),
    /// `or`.
    Or(Box<Test>, Box<Test>),
}

/// What a statement says. Words that only the assembler judges stay strings here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StmtKind {
    /// `if`.
    If(Test, Vec<Stmt>, Vec<Stmt>),
    /// `loop`, left by `break`.
    Loop(Vec<Stmt>),
    /// `while`.
    While(Test, Vec<Stmt>),
    /// `break`.
    Break,
    /// `each cpu in SET`.
    Each(String, Vec<Stmt>),
    /// `let NAME = expr`.
    Let(String, Expr),
    /// `VAR = value`.
    Store(Name, Value),
    /// A locked operation whose old value nobody wants.
    Locked(Expr),
    /// `store PAGE, value`: to the data it maps.
    StorePage(String, Value),
    /// `await VAR cmp value`.
    Await(Name, Cmp, Value),
    /// Everything else: a word and its operands, judged by the assembler.
    Plain(Vec<String>),
    /// `mov cr3, mm VALUE asid VALUE [noflush]`.
    SwitchMm(Value, Value, bool),
    /// `mov cr3, LOCAL [noflush|owed]`.
    MovCr3Local(Name, String),
    /// `flush info MM, GENERATION`.
    FlushInfo(Value, Value),
    /// `join mm_cpumask of MM` (`true`), `leave mm_cpumask of MM`.
    Mask(Value, bool),
    /// `mov gsbase, LOCAL|kernel`.
    MovGs(Option<Name>),
    /// `ipi SET, SECTION`.
    Ipi(String, String),
    /// `call later SECTION`.
    CallLater(String),
    /// The name of another section.
    Use(String),
}
