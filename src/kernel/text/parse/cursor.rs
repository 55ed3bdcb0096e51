//! The tokens of one line, read left to right.

use super::super::lex::Token;
use super::super::{Loc, Name, PolicyError};

/// The tokens of one line, read left to right.
pub(super) struct Cursor<'a> {
    pub(super) file: &'a str,
    pub(super) tokens: &'a [(Token, Loc)],
    pub(super) next: usize,
    pub(super) end: Loc,
}

impl Cursor<'_> {
    pub(super) fn here(&self) -> Loc {
        self.tokens.get(self.next).map_or(self.end, |t| t.1)
    }

    pub(super) fn error(&self, message: impl Into<String>) -> PolicyError {
        let found = self.peek().map_or("the end of the line".into(), |(token, _)| token.show());
        let message = format!("{}, found {found}", message.into());
        PolicyError { file: self.file.into(), at: self.here(), message }
    }

    pub(super) fn peek(&self) -> Option<&(Token, Loc)> {
        self.tokens.get(self.next)
    }

    pub(super) fn take(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some((Token::Sign(s), _)) if *s == sign);
        self.next += usize::from(found);
        found
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some((Token::Word(w), _)) if w == word);
        self.next += usize::from(found);
        found
    }

    /// Does `=` stand next, or an index and then `=`?
    pub(super) fn assigns(&self) -> bool {
        match self.peek() {
            Some((Token::Sign("="), _)) => true,
            Some((Token::Sign("["), _)) => {
                matches!(self.tokens.get(self.next + 3), Some((Token::Sign("="), _)))
            }
            _ => false,
        }
    }

    /// Is the token after the next one this word?
    pub(super) fn follows(&self, word: &str) -> bool {
        matches!(self.tokens.get(self.next + 1), Some((Token::Word(w), _)) if w == word)
    }

    pub(super) fn expect(&mut self, sign: &str) -> Result<(), PolicyError> {
        if self.take(sign) { Ok(()) } else { Err(self.error(format!("expected `{sign}`"))) }
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<(), PolicyError> {
        if self.take_word(word) { Ok(()) } else { Err(self.error(format!("expected `{word}`"))) }
    }

    pub(super) fn word(&mut self, what: &str) -> Result<(String, Loc), PolicyError> {
        match self.peek() {
            Some((Token::Word(w), at)) => {
                let out = (w.clone(), *at);
                self.next += 1;
                Ok(out)
            }
            _ => Err(self.error(format!("expected {what}"))),
        }
    }

    pub(super) fn text(&mut self, what: &str) -> Result<String, PolicyError> {
        match self.peek() {
            Some((Token::Text(t), _)) => {
                let out = t.clone();
                self.next += 1;
                Ok(out)
            }
            _ => Err(self.error(format!("expected {what}"))),
        }
    }

    pub(super) fn int(&mut self, what: &str, max: u64) -> Result<u64, PolicyError> {
        match self.peek() {
            Some((Token::Int(n), _)) if *n <= max => {
                let n = *n;
                self.next += 1;
                Ok(n)
            }
            Some((Token::Int(n), _)) => Err(PolicyError {
                file: self.file.into(),
                at: self.here(),
                message: format!("{what} is at most {max}: got {n}"),
            }),
            _ => Err(self.error(format!("expected {what}"))),
        }
    }

    pub(super) fn finish(&self) -> Result<(), PolicyError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.error("expected the end of the line")) }
    }

    /// `@ "kernel function or patch"`.
    pub(super) fn place(&mut self) -> Result<Option<String>, PolicyError> {
        if self.take("@") { Ok(Some(self.text("a source place in quotes")?)) } else { Ok(None) }
    }

    pub(super) fn name(&mut self, what: &str) -> Result<Name, PolicyError> {
        let (name, at) = self.word(what)?;
        let (mut cur, mut index) = (false, None);
        if self.take("[") {
            let (of, _) = self.word("`cpu` or a local")?;
            self.expect("]")?;
            cur = of == "cpu";
            index = (!cur).then_some(of);
        }
        Ok(Name { at, name, cur, index })
    }
}
