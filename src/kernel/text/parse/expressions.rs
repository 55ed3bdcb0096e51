//! Values, expressions and tests.

use super::super::lex::Token;
use super::super::{Expr, Loc, PolicyError, Question, Test, Value};
use super::cursor::Cursor;
use crate::kernel::program::{Alu, Cmp, Rmw};

impl Cursor<'_> {
    pub(super) fn value(&mut self) -> Result<Value, PolicyError> {
        if matches!(self.peek(), Some((Token::Int(_), _))) {
            return Ok(Value::Int(self.int("a constant", 65535)? as u16));
        }
        let name = self.name("a value: a constant, a variable, a local, `cr3` or `gsbase`")?;
        Ok(match name.name.as_str() {
            "cr3" => Value::Cr3,
            "gsbase" => Value::GsBase,
            _ => Value::Name(name),
        })
    }

    pub(super) fn expr(&mut self) -> Result<Expr, PolicyError> {
        if let Some((Token::Word(w), _)) = self.peek() {
            let rmw = Rmw::ALL.iter().find(|(word, _)| word == w).map(|(_, rmw)| *rmw);
            if let Some(rmw) = rmw {
                self.next += 1;
                let name = self.name("a variable")?;
                self.expect(",")?;
                return Ok(Expr::Rmw(rmw, name, self.value()?));
            }
            // LOCK INC and LOCK DEC: the same with 1.
            let by_one = match w.as_str() {
                "inc" => Some(Rmw::Add),
                "dec" => Some(Rmw::Sub),
                _ => None,
            };
            if let Some(rmw) =
                by_one.filter(|_| matches!(self.tokens.get(self.next + 1), Some((Token::Word(_), _))))
            {
                self.next += 1;
                return Ok(Expr::Rmw(rmw, self.name("a variable")?, Value::Int(1)));
            }
            if w == "load" {
                self.next += 1;
                return Ok(Expr::Page(self.word("a page")?.0));
            }
            let asked = match w.as_str() {
                "next" if self.follows("mm") => Some((2, Question::NextMm)),
                "mm" if self.follows("to") => Some((3, Question::FlushMm)),
                "info" if self.follows("mm") => Some((2, Question::InfoMm)),
                "info" if self.follows("generation") => Some((2, Question::InfoGen)),
                "loaded" if self.follows("asid") => Some((2, Question::LoadedAsid)),
                "asid" if self.follows("for") => {
                    self.next += 2;
                    return Ok(Expr::Ask(Question::AsidFor(self.value()?)));
                }
                _ => None,
            };
            if let Some((words, question)) = asked {
                self.next += words;
                return Ok(Expr::Ask(question));
            }
            if w == "cas" {
                self.next += 1;
                let name = self.name("a variable")?;
                self.expect(",")?;
                let old = self.value()?;
                self.expect(",")?;
                return Ok(Expr::Cas(name, old, self.value()?));
            }
        }
        let a = self.value()?;
        for (sign, alu) in
            [("+", Alu::Add), ("-", Alu::Sub), ("&", Alu::And), ("|", Alu::Or), ("^", Alu::Xor)]
        {
            if self.take(sign) {
                return Ok(Expr::Binary(a, alu, self.value()?));
            }
        }
        Ok(Expr::Value(a))
    }

    pub(super) fn compare(&mut self) -> Option<Cmp> {
        [
            ("==", Cmp::Eq),
            ("!=", Cmp::Ne),
            ("<=", Cmp::Le),
            (">=", Cmp::Ge),
            ("<", Cmp::Lt),
            (">", Cmp::Gt),
            ("&", Cmp::Test),
        ]
        .into_iter()
        .find(|(sign, _)| self.take(sign))
        .map(|(_, cmp)| cmp)
    }

    pub(super) fn test(&mut self) -> Result<Test, PolicyError> {
        let mut left = self.test_and()?;
        while self.take_word("or") {
            left = Test::Or(Box::new(left), Box::new(self.test_and()?));
        }
        Ok(left)
    }

    pub(super) fn test_and(&mut self) -> Result<Test, PolicyError> {
        let mut left = self.test_one()?;
        while self.take_word("and") {
            left = Test::And(Box::new(left), Box::new(self.test_one()?));
        }
        Ok(left)
    }

    pub(super) fn test_one(&mut self) -> Result<Test, PolicyError> {
        if self.take_word("not") {
            return Ok(Test::Not(Box::new(self.test_one()?)));
        }
        if self.take("(") {
            let inner = self.test()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let at = self.here();
        if self.take_word("feature") {
            let (name, at) = self.word("a feature")?;
            return Ok(Test::Feature(name, at));
        }
        if self.take_word("either") {
            return Ok(Test::Either(at));
        }
        if self.take_word("me") {
            self.expect_word("in")?;
            let (set, at) = self.word("a CPU set")?;
            return Ok(Test::MeIn(set, at));
        }
        if self.take_word("cpu") {
            if self.take_word("is") {
                self.expect_word("me")?;
                return Ok(Test::CurIsMe);
            }
            self.expect_word("in")?;
            let (set, at) = self.word("a CPU set")?;
            return Ok(Test::CurIn(set, at));
        }
        if let Some(test) = self.patched(at) {
            return Ok(test);
        }
        let a = self.value()?;
        if self.take_word("is") {
            let (what, _) = self.word("`user`, `full`, `empty` or `new`")?;
            return match (what.as_str(), &a) {
                ("user", Value::Cr3 | Value::Name(_)) => Ok(Test::IsUser(a)),
                ("full", Value::Name(n)) if n.name == "range" => Ok(Test::RangeFull),
                ("empty", Value::Name(n)) => Ok(Test::Empty(n.name.clone(), n.at)),
                _ => Err(PolicyError {
                    file: self.file.into(),
                    at,
                    message: format!(
                        "expected `X is user`, `range is full`, `SET is empty` or `text is new`, found `is {what}`"
                    ),
                }),
            };
        }
        match self.compare() {
            Some(cmp) => Ok(Test::Compare(a, cmp, self.value()?)),
            None => Ok(Test::Compare(a, Cmp::Ne, Value::Int(0))),
        }
    }

    /// `text is new`, `text NAME is new`.
    fn patched(&mut self, at: Loc) -> Option<Test> {
        let word = |n: usize| match self.tokens.get(self.next + n) {
            Some((Token::Word(w), _)) => Some(w.as_str()),
            _ => None,
        };
        let (named, taken) = match [word(0)?, word(1)?, word(2)?] {
            ["text", "is", "new"] => (None, 3),
            ["text", name, "is"] if word(3) == Some("new") => (Some(name.to_string()), 4),
            _ => return None,
        };
        self.next += taken;
        Some(Test::Text(named, at))
    }
}
