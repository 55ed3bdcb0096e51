//! What a test asks: its conditions and locations, by names in the header, resolved and judged.

use super::Header;
use crate::check::machine::Model;
use crate::check::property::{self, Names, Quantity, Term, Tree};
use crate::check::scope::Scope;
use crate::kernel::program::{Copies, Field};
use crate::kernel::text::PolicyError;

const CONDITIONS: [&str; 3] = ["never", "forall", "exists"];

/// What a header asks, still by names.
pub(super) struct Asked {
    conditions: [Option<Tree>; 3],
    locations: Vec<Term>,
}

impl Asked {
    pub(super) fn of(header: &Header<'_>) -> Result<Asked, PolicyError> {
        let mut conditions = [None, None, None];
        for (key, tree) in CONDITIONS.iter().zip(&mut conditions) {
            if let Some(text) = header.text(key) {
                *tree = Some(property::condition(text).map_err(|why| header.bad_condition(key, text, &why))?);
            }
        }
        let text = header.text("locations").unwrap_or("");
        let locations = property::terms(text).map_err(|why| header.bad_condition("locations", text, &why))?;
        Ok(Asked { conditions, locations })
    }

    /// Locals that columns must keep to their ends.
    pub(super) fn keep(&self) -> Vec<(String, String)> {
        let terms = self.conditions.iter().flatten().flat_map(Tree::terms).chain(&self.locations);
        let mut out = Vec::new();
        for term in terms {
            if let Term::Register(cpu, local) = term {
                let kept = (format!("cpu {cpu}"), local.clone());
                if !out.contains(&kept) {
                    out.push(kept);
                }
            }
        }
        out
    }
}

impl Header<'_> {
    fn bad_condition(&self, key: &str, text: &str, why: &str) -> PolicyError {
        self.bad(key, format!("the condition `{text}`: {why}"))
    }

    /// The conditions of the scope, and what is listed of every end.
    pub(super) fn ask(
        &self,
        asked: &Asked,
        names: Names<'_>,
        scope: &mut Scope,
    ) -> Result<Vec<Quantity>, PolicyError> {
        let mut all: Vec<Quantity> = Vec::new();
        let text = self.text("locations").unwrap_or("");
        for (key, tree) in CONDITIONS.iter().zip(&asked.conditions) {
            let Some(tree) = tree else { continue };
            let text = self.text(key).unwrap_or("");
            let condition = names.resolve(tree).map_err(|why| self.bad_condition(key, text, &why))?;
            all.extend(condition.quantities());
            match *key {
                "never" => scope.never = Some(condition),
                "forall" => scope.forall = Some(condition),
                _ => scope.exists = Some(condition),
            }
        }
        for term in &asked.locations {
            let found = names.quantity(term).and_then(|q| match q {
                Quantity::Field(f) if names.code.counts(f).is_some() => Err(NO_VALUE.to_string()),
                q => Ok(q),
            });
            all.push(found.map_err(|why| self.bad_condition("locations", text, &why))?);
        }
        if all.is_empty() {
            let shared = |f: &Field| names.code.vars[usize::from(f.var)].copies == Copies::One;
            let whole = names.code.fields.iter().take(names.code.vars.len()).enumerate();
            all = whole.filter(|(_, f)| shared(f)).map(|(i, _)| Quantity::Field(i as u8)).collect();
        }
        let mut once = Vec::new();
        let listed = |q: &Quantity| !matches!(*q, Quantity::Field(f) if names.code.counts(f).is_some());
        for q in all.into_iter().filter(listed) {
            if !once.contains(&q) {
                once.push(q);
            }
        }
        Ok(once)
    }

    /// Refuse conditions that say nothing: constants out of reach, contradictions, what always holds.
    pub(super) fn judge(&self, scope: &Scope, model: &Model) -> Result<(), PolicyError> {
        for (key, condition) in CONDITIONS.iter().zip([&scope.never, &scope.forall, &scope.exists]) {
            let Some(condition) = condition else { continue };
            let text = self.text(key).unwrap_or("");
            let bad = |why: &str| Err(self.bad_condition(key, text, why));
            condition.fits(model).or_else(|why| bad(&why))?;
            match (condition.constant(model), *key) {
                (Some(false), _) => return bad("it contradicts itself: it holds for no values"),
                (Some(true), "never" | "forall") => return bad("it always holds: it asks nothing"),
                _ => {}
            }
            condition
                .quantities()
                .into_iter()
                .try_for_each(|q| can_change(q, model))
                .or_else(|why| bad(&why))?;
        }
        let text = self.text("locations").unwrap_or("");
        let changes = scope.observed.iter().try_for_each(|&q| can_change(q, model));
        changes.map_err(|why| self.bad_condition("locations", text, &why))
    }
}

/// Why a count is not listed.
const NO_VALUE: &str =
    "a count has no value that could be listed: nothing but the order of its copies is kept";

/// Refuse what no program of the test changes.
fn can_change(q: Quantity, model: &Model) -> Result<(), String> {
    let name = || q.name(&model.code);
    match q {
        Quantity::Table(_) if !model.layout.tables => {
            Err(format!("nothing writes the entry that `{}` asks about", name()))
        }
        Quantity::Fault(cpu, p) if !model.accesses(usize::from(cpu), usize::from(p)) => {
            Err(format!("the column of cpu {cpu} does not access the page: `{}` never holds", name()))
        }
        _ => Ok(()),
    }
}
