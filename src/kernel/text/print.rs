//! Tree to text: the canonical form that hashes, pickles and counterexamples use.

use std::fmt::Write;

use super::bundle::behind;
use super::paths::is_file;
use super::{Expr, Fact, File, Name, Question, Stmt, StmtKind, Test, Value};
use crate::kernel::program::{Alu, Cmp, Copies, Holds, PageKind};

/// The canonical text of a file; comments are gone.
pub fn print(file: &File) -> String {
    let mut out = format!("{} {}\n", file.kind, file.name);
    let mut line = |text: String| {
        out.push_str("  ");
        out.push_str(&text);
        out.push('\n');
    };
    if !file.doc.is_empty() {
        line(format!("\"{}\"", file.doc));
    }
    for source in &file.source {
        line(format!("source \"{source}\""));
    }
    for Fact { key, text, .. } in &file.facts {
        line(format!("{key} \"{text}\""));
    }
    for limits in &file.limits {
        line(format!("limits \"{limits}\""));
    }
    if let Some(base) = &file.based_on {
        line(if is_file(base) { format!("based on \"{base}\"") } else { format!("based on {base}") });
    }
    if !file.needs.is_empty() {
        line(format!("needs {}", file.needs.join(", ")));
    }
    for v in &file.vars {
        let what = match v.holds {
            Holds::Bits if v.bits == 1 => "1 bit".into(),
            Holds::Bits => format!("{} bits", v.bits),
            Holds::Mm => "mm".into(),
            Holds::Generation => "generation".into(),
            Holds::Count(_) => v.of.as_ref().map_or("count".into(), |of| format!("count of {of}")),
        };
        let place = match v.copies {
            Copies::One => "shared",
            Copies::Cpu => "per cpu",
            Copies::Mm => "per mm",
            Copies::Asid => "per asid",
        };
        let mapped = if v.user_mapped { ", user mapped" } else { "" };
        line(format!("var {} : {what}, {place}, starts {}{mapped}", v.name, v.init));
    }
    for f in &file.fields {
        line(format!("field {} : bits {}..{} of {}", f.name, f.low, f.high, f.var));
    }
    for p in &file.pages {
        let kind = match p.kind {
            PageKind::Vmalloc => "vmalloc".into(),
            PageKind::DirectMap => "direct map".into(),
            PageKind::Image => "image".into(),
            PageKind::PerCpu => "per cpu".into(),
            PageKind::EntryArea => "entry area".into(),
            PageKind::User(n) => format!("user of {n}"),
            PageKind::Text => unreachable!("no file declares text as a page"),
        };
        let implied = p.kind == PageKind::EntryArea;
        let global = if p.global && !implied { ", global" } else { "" };
        let mapped = if p.user_mapped && !implied && !matches!(p.kind, PageKind::User(_)) {
            ", user mapped"
        } else {
            ""
        };
        let absent = if p.present { "" } else { ", absent" };
        let within = p.within.as_ref().map_or(String::new(), |large| format!(", in {large}"));
        line(format!("page {} : {kind}{global}{mapped}{absent}{within}", p.name));
    }
    for site in &file.sites {
        line(format!("site {}", site.name));
    }
    for s in &file.sections {
        let place = s.place.as_ref().map_or(String::new(), |p| format!(" @ \"{p}\""));
        let _ = writeln!(out, "\n{}{place}", s.name);
        block(&mut out, &s.body, 1);
    }
    if let Some(base) = &file.base {
        out.push('\n');
        out.push_str(&behind(&base.file, &print(base)));
    }
    out
}

fn block(out: &mut String, body: &[Stmt], depth: usize) {
    for stmt in body {
        let place = stmt.place.as_ref().map_or(String::new(), |p| format!(" @ \"{p}\""));
        let _ = writeln!(out, "{:width$}{}{place}", "", statement(&stmt.kind), width = depth * 2);
        match &stmt.kind {
            StmtKind::If(_, then, or_else) => {
                block(out, then, depth + 1);
                if !or_else.is_empty() {
                    let _ = writeln!(out, "{:width$}else", "", width = depth * 2);
                    block(out, or_else, depth + 1);
                }
            }
            StmtKind::While(_, body) | StmtKind::Loop(body) | StmtKind::Each(_, body) => {
                block(out, body, depth + 1);
            }
            _ => {}
        }
    }
}

/// One statement's own line, without its block.
pub fn statement(kind: &StmtKind) -> String {
    match kind {
        StmtKind::If(t, ..) => format!("if {}", test(t)),
        StmtKind::While(t, _) => format!("while {}", test(t)),
        StmtKind::Loop(_) => "loop".into(),
        StmtKind::Break => "break".into(),
        StmtKind::Each(set, _) => format!("each cpu in {set}"),
        StmtKind::Let(to, e) => format!("let {to} = {}", expr(e)),
        StmtKind::Store(to, v) => format!("{} = {}", name(to), value(v)),
        StmtKind::Locked(e) => expr(e),
        StmtKind::StorePage(page, v) => format!("store {page}, {}", value(v)),
        StmtKind::Await(n, c, v) => format!("await {} {} {}", name(n), cmp(*c), value(v)),
        StmtKind::Plain(words) => plain(words),
        StmtKind::SwitchMm(mm, asid, keep) => {
            format!("mov cr3, mm {} asid {}{}", value(mm), value(asid), if *keep { " noflush" } else { "" })
        }
        StmtKind::MovCr3Local(n, how) => format!("mov cr3, {}{}", name(n), bit63(how)),
        StmtKind::FlushInfo(mm, generation) => format!("flush info {}, {}", value(mm), value(generation)),
        StmtKind::Mask(mm, on) => {
            format!("{} mm_cpumask of {}", if *on { "join" } else { "leave" }, value(mm))
        }
        StmtKind::MovGs(n) => format!("mov gsbase, {}", n.as_ref().map_or("kernel".into(), name)),
        StmtKind::Ipi(set, run) => format!("ipi {set}, {run}"),
        StmtKind::CallLater(run) => format!("call later {run}"),
        StmtKind::Use(section) => section.clone(),
    }
}

fn bit63(how: &str) -> String {
    if how == "flush" { String::new() } else { format!(" {how}") }
}

fn plain(words: &[String]) -> String {
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["mov", "cr3", what, how] => format!("mov cr3, {what}{}", bit63(how)),
        ["mov", "cr4", on] => format!("mov cr4, pge {on}"),
        words => words.join(" ").replace(" ,", ","),
    }
}

fn name(n: &Name) -> String {
    match &n.index {
        Some(index) => format!("{}[{index}]", n.name),
        None if n.cur => format!("{}[cpu]", n.name),
        None => n.name.clone(),
    }
}

fn value(v: &Value) -> String {
    match v {
        Value::Int(n) => n.to_string(),
        Value::Name(n) => name(n),
        Value::Cr3 => "cr3".into(),
        Value::GsBase => "gsbase".into(),
    }
}

fn cmp(c: Cmp) -> &'static str {
    match c {
        Cmp::Eq => "==",
        Cmp::Ne => "!=",
        Cmp::Lt => "<",
        Cmp::Ge => ">=",
        Cmp::Le => "<=",
        Cmp::Gt => ">",
        Cmp::Test => "&",
    }
}

fn expr(e: &Expr) -> String {
    match e {
        Expr::Value(v) => value(v),
        Expr::Binary(a, alu, b) => {
            let sign = match alu {
                Alu::Add => "+",
                Alu::Sub => "-",
                Alu::And => "&",
                Alu::Or => "|",
                Alu::Xor => "^",
            };
            format!("{} {sign} {}", value(a), value(b))
        }
        Expr::Rmw(f, n, v) => {
            format!("{} {}, {}", f.name(), name(n), value(v))
        }
        Expr::Page(page) => format!("load {page}"),
        Expr::Ask(Question::NextMm) => "next mm".into(),
        Expr::Ask(Question::FlushMm) => "mm to flush".into(),
        Expr::Ask(Question::InfoMm) => "info mm".into(),
        Expr::Ask(Question::InfoGen) => "info generation".into(),
        Expr::Ask(Question::LoadedAsid) => "loaded asid".into(),
        Expr::Ask(Question::AsidFor(v)) => format!("asid for {}", value(v)),
        Expr::Cas(n, old, new) => format!("cas {}, {}, {}", name(n), value(old), value(new)),
    }
}

fn test(t: &Test) -> String {
    match t {
        Test::Compare(v, Cmp::Ne, Value::Int(0)) => value(v),
        Test::Compare(a, c, b) => format!("{} {} {}", value(a), cmp(*c), value(b)),
        Test::MeIn(set, _) => format!("me in {set}"),
        Test::CurIn(set, _) => format!("cpu in {set}"),
        Test::CurIsMe => "cpu is me".into(),
        Test::Empty(set, _) => format!("{set} is empty"),
        Test::IsUser(v) => format!("{} is user", value(v)),
        Test::RangeFull => "range is full".into(),
        Test::Either(_) => "either".into(),
        Test::Text(None, _) => "text is new".into(),
        Test::Text(Some(site), _) => format!("text {site} is new"),
        Test::Feature(name, _) => format!("feature {name}"),
        Test::Not(t) => format!("not {}", nested(t)),
        Test::And(a, b) => format!("{} and {}", nested(a), nested(b)),
        Test::Or(a, b) => format!("{} or {}", nested_or(a), nested_or(b)),
    }
}

/// In parentheses unless it binds tighter than `and`; the right-nested forms are kept as they are.
fn nested(t: &Test) -> String {
    if matches!(t, Test::And(..) | Test::Or(..)) { format!("({})", test(t)) } else { test(t) }
}

fn nested_or(t: &Test) -> String {
    if matches!(t, Test::Or(..)) { format!("({})", test(t)) } else { test(t) }
}
