//! Expressions behind a `print fmt`: the part of C that the kernel's formats use, parsed once per event.
//!
//! What is not understood is an error; the event is then printed field by field, so nothing is guessed.

use super::format::Format;

/// A parsed expression. Fields are places in `Format::fields`.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A number.
    Int(i64),
    /// A text in quotes.
    Text(Vec<u8>),
    /// `REC->field`.
    Field(usize),
    /// `REC->field[i]`.
    Element(usize, Box<Expr>),
    /// `-x`, `!x`, `~x`.
    Not(u8, Box<Expr>),
    /// `a op b`.
    Two(Op, Box<Expr>, Box<Expr>),
    /// `a ? b : c`.
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `(type)x`: bits, signed.
    Cast(u32, bool, Box<Expr>),
    /// `__print_symbolic`.
    Symbolic(Box<Expr>, Vec<(i64, Vec<u8>)>),
    /// `__print_flags`: what stands between them.
    Flags(Box<Expr>, Vec<u8>, Vec<(i64, Vec<u8>)>),
    /// `__get_str`.
    Str(usize),
    /// `__get_bitmask`, `__get_cpumask`.
    Mask(usize),
    /// `__get_dynamic_array`, as bytes.
    Bytes(usize),
    /// `__get_dynamic_array_len`.
    Len(usize),
    /// `__print_hex`, `__print_hex_str`: what stands between the bytes.
    Hex(Box<Expr>, Option<Box<Expr>>, bool),
    /// `__print_array`: bytes of an element.
    Array(Box<Expr>, Option<Box<Expr>>, Box<Expr>),
    /// `__print_ns_to_secs` and its rest.
    Seconds(Box<Expr>, bool),
}

/// Operators of two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // C's
pub enum Op {
    Mul,
    Div,
    Rem,
    Add,
    Sub,
    Shl,
    Shr,
    Lt,
    Gt,
    Le,
    Ge,
    Eq,
    Ne,
    And,
    Xor,
    Or,
    Both,
    Either,
}

/// Operators by what binds tightest first.
const LEVELS: &[&[(&[u8], Op)]] = &[
    &[(b"||", Op::Either)],
    &[(b"&&", Op::Both)],
    &[(b"|", Op::Or)],
    &[(b"^", Op::Xor)],
    &[(b"&", Op::And)],
    &[(b"==", Op::Eq), (b"!=", Op::Ne)],
    &[(b"<=", Op::Le), (b">=", Op::Ge), (b"<", Op::Lt), (b">", Op::Gt)],
    &[(b"<<", Op::Shl), (b">>", Op::Shr)],
    &[(b"+", Op::Add), (b"-", Op::Sub)],
    &[(b"*", Op::Mul), (b"/", Op::Div), (b"%", Op::Rem)],
];

const DEEPEST: u32 = 40;

/// What stands behind `print fmt:`: the text with its conversions, and what it prints.
pub fn parse(format: &Format) -> Option<(Vec<u8>, Vec<Expr>)> {
    let mut p = Parser { text: &format.print, at: 0, format, depth: 0 };
    let text = p.string()?;
    let mut arguments = Vec::new();
    while p.eat(b",") {
        arguments.push(p.whole()?);
        if arguments.len() > 64 {
            return None;
        }
    }
    p.spaces();
    (p.at == p.text.len()).then_some((text, arguments))
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    format: &'a Format,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn spaces(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn eat(&mut self, token: &[u8]) -> bool {
        self.spaces();
        let here = self.text[self.at..].starts_with(token);
        self.at += if here { token.len() } else { 0 };
        here
    }

    fn need(&mut self, token: &[u8]) -> Option<()> {
        self.eat(token).then_some(())
    }

    fn word(&mut self) -> Option<&'a [u8]> {
        self.spaces();
        let from = self.at;
        while self.text.get(self.at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
            self.at += 1;
        }
        (from < self.at && !self.text[from].is_ascii_digit()).then(|| &self.text[from..self.at])
    }

    /// One text or several behind each other.
    fn string(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.need(b"\"")?;
        loop {
            match *self.text.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    if !self.eat(b"\"") {
                        return Some(out);
                    }
                    continue;
                }
                b'\\' => {
                    self.at += 1;
                    out.push(match *self.text.get(self.at)? {
                        b'n' | b't' => b' ',
                        other => other,
                    });
                }
                byte => out.push(byte),
            }
            self.at += 1;
        }
    }

    fn whole(&mut self) -> Option<Expr> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let test = self.level(0)?;
        let out = if self.eat(b"?") {
            let yes = self.whole()?;
            self.need(b":")?;
            Expr::If(Box::new(test), Box::new(yes), Box::new(self.whole()?))
        } else {
            test
        };
        self.depth -= 1;
        Some(out)
    }

    fn level(&mut self, level: usize) -> Option<Expr> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.level(level + 1)?;
        loop {
            self.spaces();
            let rest = &self.text[self.at..];
            let found = operators.iter().find(|(token, _)| {
                // `|` is not `||`, `<` not `<<`.
                rest.starts_with(token)
                    && !(token.len() == 1
                        && rest.get(1) == Some(&token[0])
                        && matches!(token[0], b'|' | b'&' | b'<' | b'>'))
            });
            let Some((token, op)) = found else { return Some(left) };
            self.at += token.len();
            left = Expr::Two(*op, Box::new(left), Box::new(self.level(level + 1)?));
        }
    }

    fn unary(&mut self) -> Option<Expr> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        self.spaces();
        let out = match *self.text.get(self.at)? {
            b @ (b'-' | b'!' | b'~') => {
                self.at += 1;
                Expr::Not(b, Box::new(self.unary()?))
            }
            b'+' | b'*' | b'&' => return None,
            b'(' => {
                let from = self.at;
                if let Some((bits, signed)) = self.cast() {
                    Expr::Cast(bits, signed, Box::new(self.unary()?))
                } else {
                    self.at = from + 1;
                    let inside = self.whole()?;
                    self.need(b")")?;
                    inside
                }
            }
            _ => self.primary()?,
        };
        self.depth -= 1;
        Some(out)
    }

    /// `(type)` or `(type *)`; leaves the place open where it is none.
    fn cast(&mut self) -> Option<(u32, bool)> {
        self.need(b"(")?;
        let (mut bits, mut unsigned, mut known) = (None, false, false);
        while let Some(word) = self.word() {
            known = true;
            match word {
                b"unsigned" => unsigned = true,
                b"signed" | b"const" | b"struct" | b"enum" | b"union" | b"volatile" => {}
                b"char" | b"s8" | b"__s8" => bits = Some(8),
                b"u8" | b"__u8" | b"bool" | b"uint8_t" => (bits, unsigned) = (Some(8), true),
                b"short" | b"s16" | b"__s16" => bits = Some(16),
                b"u16" | b"__u16" | b"uint16_t" | b"umode_t" => (bits, unsigned) = (Some(16), true),
                b"int" | b"s32" | b"__s32" | b"pid_t" => bits = Some(bits.unwrap_or(32)),
                b"u32" | b"__u32" | b"uint32_t" | b"gfp_t" | b"dev_t" => (bits, unsigned) = (Some(32), true),
                b"long" | b"s64" | b"__s64" | b"loff_t" | b"ssize_t" | b"ktime_t" | b"off_t" => {
                    bits = Some(64);
                }
                b"u64" | b"__u64" | b"uint64_t" | b"size_t" | b"sector_t" | b"pgoff_t" | b"ino_t" => {
                    (bits, unsigned) = (Some(64), true);
                }
                b"void" => {}
                b"REC" => return None,
                // Somebody's struct or typedef: only a pointer to it, or a name of a type, can be a cast.
                other => {
                    self.spaces();
                    let pointer = self.text.get(self.at) == Some(&b'*');
                    if !(pointer || other.ends_with(b"_t")) {
                        return None;
                    }
                }
            }
        }
        let mut pointer = false;
        while self.eat(b"*") {
            pointer = true;
        }
        self.need(b")")?;
        if pointer {
            return known.then_some((64, false));
        }
        known.then_some((bits.unwrap_or(if unsigned { 32 } else { 64 }), !unsigned))
    }

    fn field(&mut self) -> Option<usize> {
        let name = self.word()?;
        self.format.find(name)
    }

    fn primary(&mut self) -> Option<Expr> {
        match *self.text.get(self.at)? {
            b'"' => return Some(Expr::Text(self.string()?)),
            b'0'..=b'9' => return self.number().map(Expr::Int),
            b'\'' => {
                let byte = *self.text.get(self.at + 1)?;
                (self.text.get(self.at + 2) == Some(&b'\'')).then_some(())?;
                self.at += 3;
                return Some(Expr::Int(i64::from(byte)));
            }
            _ => {}
        }
        let word = self.word()?;
        if word == b"REC" {
            self.need(b"->")?;
            let field = self.field()?;
            return Some(if self.eat(b"[") {
                let index = self.whole()?;
                self.need(b"]")?;
                Expr::Element(field, Box::new(index))
            } else {
                Expr::Field(field)
            });
        }
        self.need(b"(")?;
        let out = match word {
            b"__print_symbolic" | b"__print_symbolic_u64" => {
                let value = Box::new(self.whole()?);
                Expr::Symbolic(value, self.pairs()?)
            }
            b"__print_flags" | b"__print_flags_u64" => {
                let value = Box::new(self.whole()?);
                self.need(b",")?;
                let between = self.string()?;
                Expr::Flags(value, between, self.pairs()?)
            }
            b"__get_str" | b"__get_rel_str" => Expr::Str(self.field()?),
            b"__get_bitmask" | b"__get_rel_bitmask" | b"__get_cpumask" | b"__get_rel_cpumask" => {
                Expr::Mask(self.field()?)
            }
            b"__get_dynamic_array" | b"__get_rel_dynamic_array" => Expr::Bytes(self.field()?),
            b"__get_dynamic_array_len" | b"__get_rel_dynamic_array_len" => Expr::Len(self.field()?),
            b"__print_hex" | b"__print_hex_str" => {
                let bytes = Box::new(self.whole()?);
                let len = if self.eat(b",") { Some(Box::new(self.whole()?)) } else { None };
                Expr::Hex(bytes, len, word == b"__print_hex")
            }
            b"__print_array" => {
                let bytes = Box::new(self.whole()?);
                self.need(b",")?;
                let count = Some(Box::new(self.whole()?));
                self.need(b",")?;
                Expr::Array(bytes, count, Box::new(self.whole()?))
            }
            b"__print_ns_to_secs" => Expr::Seconds(Box::new(self.whole()?), true),
            b"__print_ns_without_secs" => Expr::Seconds(Box::new(self.whole()?), false),
            b"sizeof" => {
                self.at -= 1;
                let (bits, _) = self.cast()?;
                return Some(Expr::Int(i64::from(bits / 8)));
            }
            _ => return None,
        };
        self.need(b")")?;
        Some(out)
    }

    fn number(&mut self) -> Option<i64> {
        let from = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_alphanumeric) {
            self.at += 1;
        }
        let digits =
            std::str::from_utf8(&self.text[from..self.at]).ok()?.trim_end_matches(['u', 'U', 'l', 'L']);
        let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
        let value = match hex {
            Some(hex) => u64::from_str_radix(hex, 16).ok()?,
            None if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(digits, 8).ok()?,
            None => digits.parse().ok()?,
        };
        Some(value.cast_signed())
    }

    /// `, { value, "name" }, ...`. Older formats name constants where a value should be: such a pair is left out.
    fn pairs(&mut self) -> Option<Vec<(i64, Vec<u8>)>> {
        let mut out = Vec::new();
        while self.eat(b",") {
            self.need(b"{")?;
            let from = self.at;
            let value = self.whole();
            if value.is_none() {
                self.at = from + memchr::memchr(b',', &self.text[from..])?;
            }
            self.need(b",")?;
            let name = self.string()?;
            self.need(b"}")?;
            if let Some(value) = value.as_ref().and_then(constant) {
                out.push((value, name));
            }
            if out.len() > 4096 {
                return None;
            }
        }
        Some(out)
    }
}

/// The value of an expression without fields.
fn constant(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Int(value) => Some(*value),
        Expr::Not(op, a) => Some(not(*op, constant(a)?)),
        Expr::Two(op, a, b) => Some(two(*op, constant(a)?, constant(b)?)),
        Expr::Cast(bits, signed, a) => Some(cast(*bits, *signed, constant(a)?)),
        Expr::If(a, b, c) => constant(if constant(a)? != 0 { b } else { c }),
        _ => None,
    }
}

/// `-x`, `!x`, `~x`.
pub fn not(op: u8, value: i64) -> i64 {
    match op {
        b'-' => value.wrapping_neg(),
        b'!' => i64::from(value == 0),
        _ => !value,
    }
}

/// `a op b`, without C's undefined cases.
pub fn two(op: Op, a: i64, b: i64) -> i64 {
    match op {
        Op::Mul => a.wrapping_mul(b),
        Op::Div => a.checked_div(b).unwrap_or(0),
        Op::Rem => a.checked_rem(b).unwrap_or(0),
        Op::Add => a.wrapping_add(b),
        Op::Sub => a.wrapping_sub(b),
        Op::Shl => u32::try_from(b).ok().and_then(|b| a.checked_shl(b)).unwrap_or(0),
        Op::Shr => {
            u32::try_from(b).ok().and_then(|b| a.cast_unsigned().checked_shr(b)).unwrap_or(0).cast_signed()
        }
        Op::Lt => i64::from(a < b),
        Op::Gt => i64::from(a > b),
        Op::Le => i64::from(a <= b),
        Op::Ge => i64::from(a >= b),
        Op::Eq => i64::from(a == b),
        Op::Ne => i64::from(a != b),
        Op::And => a & b,
        Op::Xor => a ^ b,
        Op::Or => a | b,
        Op::Both => i64::from(a != 0 && b != 0),
        Op::Either => i64::from(a != 0 || b != 0),
    }
}

/// A number cut to so many bits.
pub fn cast(bits: u32, signed: bool, value: i64) -> i64 {
    if bits >= 64 {
        return value;
    }
    let shift = 64 - bits;
    if signed { value << shift >> shift } else { (value.cast_unsigned() << shift >> shift).cast_signed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expr(text: &str) -> Option<Expr> {
        let format = Format { print: format!("\"%d\", {text}").into_bytes(), ..Format::default() };
        parse(&format).map(|(_, mut arguments)| arguments.remove(0))
    }

    #[test]
    fn operators_bind_as_in_c() {
        for (text, value) in [
            ("1 + 2 * 3", 7),
            ("(1 + 2) * 3", 9),
            ("1 | 6 & 4", 5),
            ("1 << 2 + 1", 8),
            ("7 & ((((0x0 | 0x2) + 1) << 1) - 1)", 5),
            ("-1 >> 60", 15),
            ("!0 && ~0", 1),
            ("0 ? 5 : 1 ? 6 : 7", 6),
            ("(unsigned char)0x1ff", 255),
            ("(int)0xffffffffUL", -1),
            ("010", 8),
            ("1 / 0", 0),
        ] {
            assert_eq!(expr(text).as_ref().and_then(constant), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_and_depth_is_bounded() {
        for text in ["foo", "some_call(1)", "REC->none", "1 +", "(", "*p"] {
            assert_eq!(expr(text), None, "{text}");
        }
        assert_eq!(expr(&"(".repeat(100_000)), None);
        assert_eq!(expr(&"-".repeat(100_000)), None);
    }

    #[test]
    fn a_pair_with_a_constant_that_was_not_replaced_is_left_out() {
        let found = expr("__print_symbolic(3, { FOO, \"foo\" }, { 1 + 2, \"three\" })");
        assert_eq!(found, Some(Expr::Symbolic(Box::new(Expr::Int(3)), vec![(3, b"three".to_vec())])));
    }
}
