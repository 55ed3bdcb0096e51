//! A text and the files that it is based on: one text, so that it can be sent, pickled and hashed as one.
//!
//! `based on "FILE"` names a file by its path from the one that says so. Whoever reads the text from a file puts the text of
//! that one behind it, at a line `file "FILE"`, and so on, nearest first. Lines are counted anew in each, so that what is
//! wrong with one is said with its own name and line.

use super::parse::one;
use super::paths::is_file;
use super::{File, Loc, PolicyError};

/// What the line before a file that another one is based on begins with.
const HEAD: &str = "file \"";

/// A file's text behind that of the one that is based on it.
pub fn behind(path: &str, text: &str) -> String {
    format!("{HEAD}{path}\"\n{text}")
}

/// What follows `based on` in a line, if that is a text in quotes.
fn names_a_file(line: &str) -> Option<&str> {
    let on = line.trim_start().strip_prefix("based")?.trim_start().strip_prefix("on")?;
    on.trim_start().strip_prefix('"')
}

/// The file that a text is based on and where it says so; none if that is no file, or the text has other faults.
pub fn based_on(file: &str, text: &str) -> Option<(String, Loc)> {
    // Asked whenever a file is read: most are based on no file, and need not be parsed for that.
    if !text.lines().any(|line| names_a_file(line).is_some()) {
        return None;
    }
    let file = one(file, text).ok()?;
    Some((file.based_on.filter(|base| is_file(base))?, file.based_at))
}

/// Parse a whole text. What is asked more than once about one takes [`crate::kernel::policy::shared`].
pub fn parse(file: &str, text: &str) -> Result<File, PolicyError> {
    let mut parts = vec![(file, text)];
    while let Some((path, behind, at)) = split(parts[parts.len() - 1].1) {
        let last = parts.len() - 1;
        parts[last].1 = &parts[last].1[..at];
        parts.push((path, behind));
    }
    let mut base: Option<Box<File>> = None;
    for (name, text) in parts.into_iter().rev() {
        let mut file = one(name, text)?;
        let at = file.based_at;
        let fail = |at, message| PolicyError { file: name.into(), at, message };
        match (file.based_on.as_deref().filter(|base| is_file(base)), &base) {
            (Some(path), None) => {
                return Err(fail(
                    at,
                    format!(
                        "\"{path}\" is a file beside the one that says so, and this text was read from none"
                    ),
                ));
            }
            (Some(path), Some(base)) if path != base.file => {
                return Err(fail(
                    at,
                    format!("based on \"{path}\", and what stands behind is \"{}\"", base.file),
                ));
            }
            (Some(_), Some(base)) if base.kind != "policy" => {
                return Err(fail(
                    at,
                    format!("\"{}\" is no policy: it is the {} `{}`", base.file, base.kind, base.name),
                ));
            }
            (None, Some(base)) => {
                return Err(fail(
                    Loc { line: 1, col: 1 },
                    format!("nothing here is based on the file \"{}\" that stands behind", base.file),
                ));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        file.base = base;
        base = Some(Box::new(file));
    }
    Ok(*base.expect("a text has one part at least"))
}

/// The path and text of the first file behind a text, and where the text ends.
fn split(text: &str) -> Option<(&str, &str, usize)> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if let Some(path) = line.strip_prefix(HEAD).and_then(|rest| rest.trim_end().strip_suffix('"')) {
            return Some((path, &text[at + line.len()..], at));
        }
        at += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::print;
    use super::*;

    const MINE: &str = "policy mine\n  \"m\"\n  based on \"../base.policy\"\n\nto_kernel\n  base_macro\n";
    const BASE: &str = "# A remark.\npolicy base\n  \"b\"\n  based on ipi\n\nbase_macro\n  fence\n";

    #[test]
    fn each_file_keeps_its_name_and_its_lines() {
        let text = format!("{MINE}\n{}", behind("../base.policy", BASE));
        let file = parse("mine.policy", &text).unwrap();
        let base = file.base.as_ref().unwrap();
        assert_eq!((file.file.as_str(), base.file.as_str()), ("mine.policy", "../base.policy"));
        assert_eq!(
            (file.section("to_kernel").unwrap().at.line, base.section("base_macro").unwrap().at.line),
            (5, 6)
        );
        assert_eq!(base.based_on.as_deref(), Some("ipi"));
        let printed = print(&file);
        assert_eq!(print(&parse("mine.policy", &printed).unwrap()), printed);
    }

    #[test]
    fn what_does_not_belong_together_is_refused_with_its_place() {
        for (text, said) in [
            (MINE.into(), "m:3:12: \"../base.policy\" is a file beside"),
            (
                format!("{MINE}{}", behind("other.policy", BASE)),
                "m:3:12: based on \"../base.policy\", and what",
            ),
            (format!("{MINE}{}", behind("../base.policy", "policy b\n  x\n")), "../base.policy:2:3: "),
            (
                format!("{MINE}{}", behind("../base.policy", "litmus b\n\ncpu 0\n  fence\n")),
                "m:3:12: \"../base.policy\" is no policy: it is the litmus `b`",
            ),
            (
                format!("{BASE}{}", behind("x.policy", BASE)),
                "m:1:1: nothing here is based on the file \"x.policy\"",
            ),
            (MINE.replace("../base.policy", "/base.policy"), "m:3:12: a file that a policy is based on"),
            (MINE.replace("../base.policy", "base"), "m:3:12: a file that a policy is based on"),
        ] {
            let error = parse("m", &text).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
