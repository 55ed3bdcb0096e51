//! What a test of herd asks, in our words.

use super::{Reader, Result2};
use crate::check::property::{Term, Tree, condition, terms};
use crate::kernel::program::Cmp;
use crate::kernel::text::{Fact, PolicyError};

impl Reader<'_> {
    pub(super) fn questions(&mut self, columns: usize) -> Result2<Vec<Fact>> {
        let mut out: Vec<Fact> = Vec::new();
        loop {
            self.skip();
            let from = self.at;
            if self.rest().is_empty() {
                return Ok(out);
            }
            let starts: [(&str, &str); 6] = [
                ("locations", "locations"),
                ("~exists", "exists"),
                ("~ exists", "exists"),
                ("not exists", "exists"),
                ("exists", "exists"),
                ("forall", "forall"),
            ];
            let Some((word, key)) = starts.into_iter().find(|(word, _)| self.rest().starts_with(word)) else {
                let found = self.rest().split_whitespace().next().unwrap_or("");
                return self
                    .fail(from, format!("expected exists, ~exists, forall or locations, found `{found}`"));
            };
            self.at += word.len();
            if out.iter().any(|f| f.key == key) {
                return self.fail(from, format!("`{word}` stands here a second time"));
            }
            let at = self.loc(from);
            let bad =
                |why: String| PolicyError { file: self.file.into(), at, message: format!("{word}: {why}") };
            if key == "locations" {
                self.until('[', "locations")?;
                let (list, _) = self.until(']', "`[`")?;
                let all = terms(list).map_err(bad)?;
                let all = all.iter().map(|t| self.term(t, columns, from)).collect::<Result2<Vec<_>>>()?;
                let text = all.iter().map(show).collect::<Vec<_>>().join(" ");
                out.push(Fact { at, key: key.into(), text });
                continue;
            }
            let end = self.rest().find("locations").unwrap_or(self.rest().len());
            let text = self.rest()[..end].replace(['[', ']'], " ");
            self.at += end;
            let tree = condition(text.trim()).map_err(bad)?;
            let tree = self.tree(&tree, columns, from)?;
            out.push(Fact { at, key: key.into(), text: print(&tree) });
        }
    }

    fn term(&mut self, term: &Term, columns: usize, at: usize) -> Result2<Term> {
        Ok(match term {
            Term::Int(n) => {
                self.most = self.most.max(*n);
                Term::Int(*n)
            }
            Term::Name(name) => Term::Name(self.location(name, at)?),
            Term::Register(n, name) => match self.register(name) {
                Some(reg) if *n < columns => Term::Register(*n, reg),
                _ => return self.fail(at, format!("`{n}:{name}` is no register of a column")),
            },
            Term::Entry(..) | Term::Fault(..) => {
                return self.fail(at, "herd's x86 files have no page tables");
            }
        })
    }

    fn tree(&mut self, tree: &Tree, columns: usize, at: usize) -> Result2<Tree> {
        Ok(match tree {
            Tree::Always(on) => Tree::Always(*on),
            Tree::Compare(Term::Register(..), _, Term::Name(name)) => {
                return self
                    .fail(at, format!("`{name}` stands for an address, which no register of ours holds"));
            }
            Tree::Compare(a, cmp, b) => {
                Tree::Compare(self.term(a, columns, at)?, *cmp, self.term(b, columns, at)?)
            }
            Tree::Not(t) => Tree::Not(Box::new(self.tree(t, columns, at)?)),
            Tree::And(a, b) => {
                Tree::And(Box::new(self.tree(a, columns, at)?), Box::new(self.tree(b, columns, at)?))
            }
            Tree::Or(a, b) => {
                Tree::Or(Box::new(self.tree(a, columns, at)?), Box::new(self.tree(b, columns, at)?))
            }
        })
    }
}

fn show(term: &Term) -> String {
    match term {
        Term::Int(n) => n.to_string(),
        Term::Name(name) => name.clone(),
        Term::Register(n, name) => format!("{n}:{name}"),
        Term::Entry(_, page) => format!("pte({page})"),
        Term::Fault(n, page) => format!("fault({n}, {page})"),
    }
}

fn print(tree: &Tree) -> String {
    let sign = |cmp: Cmp| match cmp {
        Cmp::Eq => "==",
        Cmp::Ne => "!=",
        Cmp::Lt => "<",
        Cmp::Ge => ">=",
        Cmp::Le => "<=",
        Cmp::Gt => ">",
        Cmp::Test => "&",
    };
    match tree {
        Tree::Always(on) => on.to_string(),
        Tree::Compare(a, cmp, b) => format!("{} {} {}", show(a), sign(*cmp), show(b)),
        Tree::Not(t) => format!("not ({})", print(t)),
        Tree::And(a, b) => format!("({}) and ({})", print(a), print(b)),
        Tree::Or(a, b) => format!("({}) or ({})", print(a), print(b)),
    }
}
