//! Worlds: what machine, boot configuration and kernel version a question is about.
//!
//! A world's name is a set of features: `pti`, `nopti`, `nopti+invlpgb`, `nopcid`. It starts from [`Features::PTI_PCID`]
//! and each word adds a feature, or takes it away with `no` in front; behind `@` stands the version of Linux that the
//! programs are written from; who asks puts the policy on it. Two names of one set are one world, printed one way.

use super::program::{Code, Cr3, Feature, Features, Op};
use super::text::{File, PolicyError};
use super::{assemble, policy};
use crate::names::hint;
use crate::order;

/// A set of features by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// What `if feature` folds by.
    pub features: Features,
}

/// The worlds that a policy is asked about where none is named, in this order: machines with PTI, machines without it
/// (most that were sold since 2019), and those of the two instructions that need no interrupt.
pub const STANDARD: [&str; 4] = ["pti", "nopti", "nopti+invlpgb", "nopti+rar"];

impl World {
    /// Read a name such as `nopti+invlpgb` or `pti@6.12`.
    pub fn parse(name: &str) -> Result<World, String> {
        let (words, version) = name.split_once('@').map_or((name, None), |(w, v)| (w, Some(v)));
        if let Some(Err(why)) = version.map(policy::version) {
            return Err(format!("world `{name}`: {why}"));
        }
        let mut features = Features::PTI_PCID;
        let mut said: Vec<(Feature, bool)> = Vec::new();
        for word in words.split('+') {
            let (feature, on) = match (Feature::named(word), word.strip_prefix("no").and_then(Feature::named))
            {
                (Some(feature), _) => (feature, true),
                (None, Some(feature)) => (feature, false),
                (None, None) => {
                    let all = Feature::ALL.iter().map(|f| f.0);
                    let known = all.clone().collect::<Vec<_>>().join(", ");
                    let near = match hint(word.strip_prefix("no").unwrap_or(word), all) {
                        none if none.is_empty() => {
                            format!("; these are (`no` in front takes one away): {known}")
                        }
                        near => near,
                    };
                    return Err(format!("world `{name}`: `{word}` is no feature{near}"));
                }
            };
            if said.contains(&(feature, !on)) {
                return Err(format!("world `{name}`: it has a feature and has it not: `{word}`"));
            }
            said.push((feature, on));
            features = if on { features.with(feature) } else { features.without(feature) };
        }
        if features.has(Feature::Pti) && features.has(Feature::Invlpgb) {
            return Err(format!("world `{name}`: Linux does not use INVLPGB under PTI: say `nopti+invlpgb`"));
        }
        if features.has(Feature::Pti) && features.has(Feature::Fred) {
            return Err(format!("world `{name}`: Linux switches FRED off under PTI: say `nopti+fred`"));
        }
        Ok(World { features })
    }

    /// Its one name.
    pub fn name(self) -> String {
        let pti = if self.features.has(Feature::Pti) { "pti" } else { "nopti" };
        let mut out = pti.to_string();
        for (name, feature) in Feature::ALL.into_iter().filter(|(_, f)| *f != Feature::Pti) {
            match (Features::PTI_PCID.has(feature), self.features.has(feature)) {
                (true, false) => out.push_str(&format!("+no{name}")),
                (false, true) => out.push_str(&format!("+{name}")),
                (true, true) | (false, false) => {}
            }
        }
        out
    }
}

/// What becomes of a policy in a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// It runs.
    Runs,
    /// It lacks these features, so that what runs is mainline.
    Inert(Vec<String>),
    /// It writes the user CR3 without a word on PTI: there is no such table here.
    NoUserTable,
}

/// The features a policy needs, its bases' included.
fn needs(file: &File) -> Vec<String> {
    let mut out = file.needs.clone();
    for base in policy::bases(file) {
        out.extend(base.needs);
    }
    order::natural(&mut out);
    out.dedup();
    out
}

/// Does the policy run in this world?
pub fn used(file: &File, world: World) -> Result<Use, PolicyError> {
    let has = |name: &String| Feature::named(name).is_some_and(|f| world.features.has(f));
    let lacks: Vec<String> = needs(file).into_iter().filter(|n| !has(n)).collect();
    if !lacks.is_empty() {
        return Ok(Use::Inert(lacks));
    }
    let code = policy::load(file, world.features)?;
    let user = |op: &Op| matches!(op, Op::MovCr3 { to: Cr3::User, .. });
    let entered = assemble::ENTRIES.iter().any(|(name, _)| code.ops_of(name).iter().any(user));
    Ok(if !world.features.has(Feature::Pti) && entered { Use::NoUserTable } else { Use::Runs })
}

/// The worlds a policy is asked about where none is named: `pti` alone if it needs that, otherwise each of
/// [`STANDARD`] in which it runs and is another program than in those before it.
pub fn standard(file: &File) -> Result<Vec<World>, PolicyError> {
    let mut out: Vec<(World, Code)> = Vec::new();
    for name in STANDARD {
        let world = World::parse(name).expect("these names are right: tested");
        if used(file, world)? != Use::Runs {
            continue;
        }
        let code = policy::load(file, world.features)?;
        // Pages and tables differ by PTI and PCID, programs by `if feature`.
        let same = |(w, c): &(World, Code)| {
            [Feature::Pti, Feature::Pcid].iter().all(|&f| w.features.has(f) == world.features.has(f))
                && c.ops == code.ops
        };
        if !out.iter().any(same) {
            out.push((world, code));
        }
    }
    Ok(out.into_iter().map(|(w, _)| w).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::policy::{POLICIES, builtin};
    use crate::kernel::text::parse;

    fn names(file: &File) -> Vec<String> {
        standard(file).unwrap().into_iter().map(World::name).collect()
    }

    #[test]
    fn a_name_is_a_set_of_features_and_has_one_form() {
        for (name, one) in [
            ("pti", "pti"),
            ("nopti", "nopti"),
            ("nopcid", "pti+nopcid"),
            ("nopti+invlpgb", "nopti+invlpgb"),
            ("invlpgb+nopti", "nopti+invlpgb"),
            ("fred+nopti", "nopti+fred"),
            ("pti+nopcid+noinvpcid", "pti+nopcid+noinvpcid"),
            ("pti@6.12", "pti"),
        ] {
            let world = World::parse(name).unwrap();
            assert_eq!(world.name(), one);
            assert_eq!(World::parse(&world.name()), Ok(world));
        }
        for name in STANDARD {
            assert_eq!(World::parse(name).unwrap().name(), name);
        }
    }

    #[test]
    fn a_wrong_name_says_what_is_wrong() {
        for (name, said) in [
            ("ptj", "`ptj` is no feature; did you mean `pti`?"),
            ("nopit", "`nopit` is no feature"),
            ("zzzzzzzz", "`zzzzzzzz` is no feature; these are (`no` in front takes one away): pti, "),
            ("", "`` is no feature"),
            ("pti+nopti", "has a feature and has it not"),
            ("pti+invlpgb", "Linux does not use INVLPGB under PTI"),
            ("fred", "Linux switches FRED off under PTI: say `nopti+fred`"),
            ("pti@5.4", "no programs of Linux 5.4; these are: 6.12, 7.3"),
        ] {
            let error = World::parse(name).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_policy_that_needs_pti_is_asked_about_there_and_others_without_it_too() {
        for row in POLICIES {
            let file = builtin(row.id).unwrap();
            let found = names(&file);
            if file.needs.iter().any(|n| n == "pti") {
                assert_eq!(found, ["pti"], "{}", row.id);
            } else {
                assert!(found.iter().any(|w| w.starts_with("nopti")), "{}: {found:?}", row.id);
            }
        }
        assert_eq!(names(&builtin("ipi").unwrap()), ["pti", "nopti"]);
        assert_eq!(names(&builtin("invlpgb").unwrap()), ["nopti+invlpgb"]);
        assert_eq!(names(&builtin("rar").unwrap()), ["nopti+rar"]);
    }

    #[test]
    fn what_loads_the_user_table_needs_pti_said_or_not() {
        let text = "policy p\n  \"p\"\n\nto_user\n  mov cr3, user owed\n";
        let file = parse("p.policy", text).unwrap();
        assert_eq!(names(&file), ["pti"]);
        assert_eq!(used(&file, World::parse("nopti").unwrap()), Ok(Use::NoUserTable));
        let derived = parse("q.policy", "policy q\n  \"q\"\n  based on coalesce-v7\n").unwrap();
        assert_eq!(names(&derived), ["pti"], "what its base needs");
        let inert = used(&derived, World::parse("nopti").unwrap());
        assert_eq!(inert, Ok(Use::Inert(vec!["pti".into()])));
    }
}
