//! Lines to tokens: indentation counts, `#` starts a comment, strings are in double quotes.

use super::{Loc, PolicyError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Int(u64),
    Text(String),
    Sign(&'static str),
}

impl Token {
    pub(super) fn show(&self) -> String {
        match self {
            Token::Word(w) => format!("`{w}`"),
            Token::Int(n) => format!("`{n}`"),
            Token::Text(t) => format!("\"{t}\""),
            Token::Sign(s) => format!("`{s}`"),
        }
    }
}

/// A line that says something.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) indent: usize,
    pub(super) tokens: Vec<(Token, Loc)>,
    pub(super) end: Loc,
}

const SIGNS: [&str; 20] =
    ["==", "!=", ">=", "<=", "..", "<", ">", ",", ":", "=", "&", "|", "^", "+", "-", "[", "]", "(", ")", "@"];

pub(super) fn lines(file: &str, text: &str) -> Result<Vec<Line>, PolicyError> {
    let mut out = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text); // an editor's byte order mark
    for (i, raw) in text.lines().enumerate() {
        let line = u16::try_from(i + 1).map_err(|_| PolicyError {
            file: file.into(),
            at: Loc { line: u16::MAX, col: 1 },
            message: "a policy text has at most 65,534 lines".into(),
        })?;
        let fail = |col: usize, message: String| PolicyError {
            file: file.into(),
            at: Loc { line, col: col as u16 },
            message,
        };
        let bytes = raw.as_bytes();
        let indent = bytes.iter().take_while(|b| **b == b' ').count();
        let mut tokens = Vec::new();
        let mut p = indent;
        // Litmus tests have names like `2+2W` and `MP+mfence+po`, which are no words elsewhere.
        if out.is_empty() && raw.starts_with("litmus ") {
            tokens.push((Token::Word("litmus".into()), Loc { line, col: 1 }));
            p = "litmus".len() + bytes["litmus".len()..].iter().take_while(|b| **b == b' ').count();
            let inner = |b: &u8| b.is_ascii_alphanumeric() || b"_.+-".contains(b);
            let len = bytes[p..].iter().take_while(|b| inner(b)).count();
            if len > 0 {
                tokens.push((Token::Word(raw[p..p + len].into()), Loc { line, col: (p + 1) as u16 }));
                p += len;
            }
        }
        while p < bytes.len() {
            let rest = &raw[p..];
            let at = Loc { line, col: (p + 1) as u16 };
            let c = bytes[p];
            match c {
                b' ' => p += 1,
                b'#' => break,
                b'\t' => return Err(fail(p + 1, "a tab: indent with two spaces".into())),
                b'"' => {
                    let Some(len) = rest[1..].find('"') else {
                        return Err(fail(p + 1, "this string has no closing quote on its line".into()));
                    };
                    tokens.push((Token::Text(rest[1..=len].into()), at));
                    p += len + 2;
                }
                b'0'..=b'9' => {
                    let len = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
                    let word = &rest[..len];
                    let value = word
                        .strip_prefix("0x")
                        .map_or_else(|| word.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
                        .ok_or_else(|| fail(p + 1, format!("not a number: `{word}`")))?;
                    tokens.push((Token::Int(value), at));
                    p += len;
                }
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                    let len = word_len(rest.as_bytes());
                    tokens.push((Token::Word(rest[..len].into()), at));
                    p += len;
                }
                _ => match SIGNS.iter().find(|s| rest.starts_with(**s)) {
                    Some(sign) => {
                        tokens.push((Token::Sign(sign), at));
                        p += sign.len();
                    }
                    None => {
                        let odd = rest.chars().next().expect("the line has more bytes");
                        return Err(fail(p + 1, format!("`{odd}` means nothing here")));
                    }
                },
            }
        }
        if !tokens.is_empty() {
            out.push(Line { indent, tokens, end: Loc { line, col: (p + 1) as u16 } });
        }
    }
    Ok(out)
}

/// Letters, digits, `_`, and `-` or `.` before another of them (`coalesce-v7`, `linux-6.12`).
fn word_len(bytes: &[u8]) -> usize {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut len = 0;
    while len < bytes.len() {
        let dash = matches!(bytes[len], b'-' | b'.') && bytes.get(len + 1).is_some_and(|b| inner(*b));
        if !inner(bytes[len]) && !dash {
            break;
        }
        len += 1;
    }
    len
}
