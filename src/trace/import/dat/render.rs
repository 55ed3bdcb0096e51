//! Events printed as the kernel prints them: printf's conversions over parsed expressions.

use super::{
    expr::{self, Expr},
    format::{Field, Format, Holds},
    symbols::Symbols,
};

const LONGEST: usize = 8192;

/// How an event's body is printed.
pub struct Printer {
    /// The event's name.
    pub name: Vec<u8>,
    format: Format,
    pieces: Option<Vec<Piece>>,
    /// `%lx` of a probe's place, which the kernel prints as a symbol.
    probe: Option<Probe>,
    /// Fields that name a task and hold its number.
    tasks: Vec<(usize, usize)>,
    long: usize,
}

/// Places of a kprobe's or kretprobe's addresses.
#[derive(Clone, Copy)]
struct Probe {
    function: usize,
    caller: Option<usize>,
}

/// A piece of a printed text.
enum Piece {
    Text(Vec<u8>),
    Value(Conversion, Expr),
}

/// One conversion.
#[derive(Clone, Debug, Default)]
struct Conversion {
    left: bool,
    zero: bool,
    plus: bool,
    alternative: bool,
    width: Number,
    precision: Number,
    /// Bits that its length says, 0 for a pointer's.
    bits: u32,
    kind: u8,
    /// What follows `%p`.
    pointer: u8,
}

#[derive(Clone, Debug, Default)]
enum Number {
    #[default]
    None,
    Fixed(usize),
    Argument(Expr),
}

enum Value<'a> {
    Int(i64),
    Bytes(&'a [u8]),
    Text(Vec<u8>),
}

impl Printer {
    /// For one event's format.
    pub fn new(format: Format, long: usize) -> Self {
        let parsed = expr::parse(&format);
        let find = |name: &[u8]| format.find(name);
        let probe = match (find(b"__probe_ip"), find(b"__probe_func"), find(b"__probe_ret_ip")) {
            (Some(function), ..) => Some(Probe { function, caller: None }),
            (_, Some(function), Some(caller)) => Some(Probe { function, caller: Some(caller) }),
            _ => None,
        };
        let probe = probe.filter(|_| format.print.trim_ascii().starts_with(b"\"(%lx"));
        let pieces = parsed.and_then(|(text, arguments)| pieces(&text, arguments));
        let pairs: &[(&[u8], &[u8])] = match &format.name[..] {
            b"sched_switch" => &[(b"prev_comm", b"prev_pid"), (b"next_comm", b"next_pid")],
            b"sched_wakeup" | b"sched_wakeup_new" | b"sched_waking" => &[(b"comm", b"pid")],
            _ => &[],
        };
        let tasks =
            pairs.iter().filter_map(|(comm, pid)| Some((format.find(comm)?, format.find(pid)?))).collect();
        Self { name: format.name.clone(), format, pieces, probe, tasks, long }
    }

    /// Writes the body of an event.
    pub fn write(&self, data: &[u8], symbols: &mut Symbols, out: &mut Vec<u8>) {
        let from = out.len();
        let mut print = Print { data, format: &self.format, symbols, long: self.long };
        let done = match &self.pieces {
            Some(pieces) => self.pieces(pieces, &mut print, out),
            None => None,
        };
        if done.is_none() {
            out.truncate(from);
            print.fields(out);
        }
        out.truncate(from + LONGEST);
        // One event is one line.
        for byte in &mut out[from..] {
            if *byte < b' ' || *byte == 0x7f {
                *byte = b' ';
            }
        }
        while out.len() > from && out.last() == Some(&b' ') {
            out.pop();
        }
    }

    /// Tasks that the event names, with their numbers.
    pub fn tasks<'a>(&'a self, data: &'a [u8]) -> impl Iterator<Item = (u32, &'a [u8])> {
        self.tasks.iter().filter_map(move |(comm, pid)| {
            let place = |at: usize| {
                let field = &self.format.fields[at];
                data.get(field.at..field.at.checked_add(field.size)?)
            };
            let pid = place(*pid)?.iter().rev().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
            Some((pid, until_zero(place(*comm)?)))
        })
    }

    fn pieces(&self, pieces: &[Piece], print: &mut Print<'_>, out: &mut Vec<u8>) -> Option<()> {
        let mut rest = pieces;
        if let Some(probe) = self.probe {
            out.push(b'(');
            if let Some(caller) = probe.caller {
                let address = print.int(&Expr::Field(caller))?;
                print.symbols.write(address.cast_unsigned(), true, out);
                out.extend_from_slice(b" <- ");
            }
            let address = print.int(&Expr::Field(probe.function))?;
            print.symbols.write(address.cast_unsigned(), true, out);
            out.push(b')');
            // `(`, the address, and as much again for a return, then `)` and what stands behind it.
            rest = pieces.get(2 + 2 * usize::from(probe.caller.is_some())..)?;
            let Piece::Text(text) = rest.first()? else { return None };
            out.extend_from_slice(text.strip_prefix(b")")?);
            rest = &rest[1..];
        }
        for piece in rest {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Value(conversion, value) => print.convert(conversion, value, out)?,
            }
        }
        Some(())
    }
}

/// Cuts a format into texts and conversions, each with its argument.
fn pieces(text: &[u8], arguments: Vec<Expr>) -> Option<Vec<Piece>> {
    let mut arguments = arguments.into_iter();
    let mut out = Vec::new();
    let mut literal = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'%' {
            literal.push(text[at]);
            at += 1;
            continue;
        }
        at += 1;
        if text.get(at) == Some(&b'%') {
            literal.push(b'%');
            at += 1;
            continue;
        }
        if !literal.is_empty() {
            out.push(Piece::Text(std::mem::take(&mut literal)));
        }
        let mut c = Conversion { bits: 32, ..Conversion::default() };
        while let Some(flag) = text.get(at).filter(|b| b"-0+# ".contains(b)) {
            match flag {
                b'-' => c.left = true,
                b'0' => c.zero = true,
                b'+' => c.plus = true,
                b'#' => c.alternative = true,
                _ => {}
            }
            at += 1;
        }
        let mut number = |at: &mut usize| {
            if text.get(*at) == Some(&b'*') {
                *at += 1;
                return arguments.next().map(Number::Argument);
            }
            let from = *at;
            while text.get(*at).is_some_and(u8::is_ascii_digit) {
                *at += 1;
            }
            if from == *at {
                return Some(Number::None);
            }
            let digits = std::str::from_utf8(&text[from..*at]).ok()?.parse::<usize>().ok()?;
            Some(Number::Fixed(digits.min(LONGEST)))
        };
        c.width = number(&mut at)?;
        if text.get(at) == Some(&b'.') {
            at += 1;
            c.precision = match number(&mut at)? {
                Number::None => Number::Fixed(0),
                some => some,
            };
        }
        while let Some(length) = text.get(at).filter(|b| b"hlLqjzt".contains(b)) {
            c.bits = match (length, c.bits) {
                (b'h', 16) => 8,
                (b'h', _) => 16,
                _ => 64,
            };
            at += 1;
        }
        c.kind = *text.get(at)?;
        at += 1;
        match c.kind {
            b'p' => {
                if let Some(letter) = text.get(at).filter(|b| b.is_ascii_alphabetic()) {
                    c.pointer = *letter;
                    while text.get(at).is_some_and(u8::is_ascii_alphanumeric) {
                        at += 1;
                    }
                }
            }
            b'd' | b'i' | b'u' | b'x' | b'X' | b'o' | b's' | b'c' => {}
            _ => return None,
        }
        out.push(Piece::Value(c, arguments.next()?));
    }
    if !literal.is_empty() {
        out.push(Piece::Text(literal));
    }
    Some(out)
}

struct Print<'a> {
    data: &'a [u8],
    format: &'a Format,
    symbols: &'a mut Symbols,
    long: usize,
}

impl<'a> Print<'a> {
    /// The bytes of a field, wherever they stand.
    fn bytes(&self, field: &Field) -> Option<&'a [u8]> {
        if field.holds == Holds::Plain {
            let end = if field.size == 0 { self.data.len() } else { field.at.checked_add(field.size)? };
            return self.data.get(field.at..end);
        }
        let place = self.data.get(field.at..field.at + 4)?;
        let place = u32::from_le_bytes(place.try_into().ok()?);
        let (at, len) = ((place & 0xffff) as usize, (place >> 16) as usize);
        let at = if field.holds == Holds::RelLoc { field.at + field.size + at } else { at };
        self.data.get(at..at + len)
    }

    fn number(bytes: &[u8], signed: bool) -> i64 {
        let bits = 8 * bytes.len().min(8) as u32;
        let value = bytes.iter().take(8).rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        if bits == 0 { 0 } else { expr::cast(bits, signed, value.cast_signed()) }
    }

    fn value(&self, expr: &Expr) -> Option<Value<'a>> {
        Some(match expr {
            Expr::Int(value) => Value::Int(*value),
            Expr::Text(text) => Value::Text(text.clone()),
            Expr::Field(at) => {
                let field = &self.format.fields[*at];
                let bytes = self.bytes(field)?;
                if field.element > 0 {
                    Value::Bytes(if field.chars { until_zero(bytes) } else { bytes })
                } else {
                    Value::Int(Self::number(bytes, field.signed))
                }
            }
            Expr::Element(at, index) => {
                let field = &self.format.fields[*at];
                let index = usize::try_from(self.int(index)?).ok()?;
                let from = index.checked_mul(field.element)?;
                let bytes = self.bytes(field)?.get(from..from.checked_add(field.element)?)?;
                Value::Int(Self::number(bytes, field.signed))
            }
            Expr::Not(op, a) => Value::Int(expr::not(*op, self.int(a)?)),
            Expr::Two(op, a, b) => Value::Int(expr::two(*op, self.int(a)?, self.int(b)?)),
            Expr::If(test, yes, no) => return self.value(if self.int(test)? != 0 { yes } else { no }),
            Expr::Cast(bits, signed, a) => match self.value(a)? {
                Value::Int(value) => Value::Int(expr::cast(*bits, *signed, value)),
                bytes => bytes,
            },
            Expr::Symbolic(value, pairs) => {
                let value = self.int(value)?;
                match pairs.iter().find(|pair| pair.0 == value) {
                    Some((_, name)) => Value::Text(name.clone()),
                    None => Value::Text(format!("{value:#x}").into_bytes()),
                }
            }
            Expr::Flags(value, between, pairs) => Value::Text(flags(self.int(value)?, between, pairs)),
            Expr::Str(at) => Value::Bytes(until_zero(self.bytes(&self.format.fields[*at])?)),
            Expr::Mask(at) => Value::Text(mask(self.bytes(&self.format.fields[*at])?)),
            Expr::Bytes(at) => Value::Bytes(self.bytes(&self.format.fields[*at])?),
            Expr::Len(at) => Value::Int(i64::try_from(self.bytes(&self.format.fields[*at])?.len()).ok()?),
            Expr::Hex(bytes, len, spaced) => {
                let Value::Bytes(bytes) = self.value(bytes)? else { return None };
                let len = self.count(len.as_deref(), bytes.len())?;
                let digits: Vec<String> = bytes[..len].iter().map(|b| format!("{b:02x}")).collect();
                Value::Text(digits.join(if *spaced { " " } else { "" }).into_bytes())
            }
            Expr::Array(bytes, count, element) => {
                let Value::Bytes(bytes) = self.value(bytes)? else { return None };
                let element = usize::try_from(self.int(element)?).ok().filter(|n| (1..=8).contains(n))?;
                let count = self.count(count.as_deref(), bytes.len() / element)?;
                let each = bytes.chunks_exact(element).take(count);
                let digits: Vec<String> = each.map(|b| format!("{:#x}", Self::number(b, false))).collect();
                Value::Text(format!("{{{}}}", digits.join(",")).into_bytes())
            }
            Expr::Seconds(ns, whole) => {
                let ns = self.int(ns)?.cast_unsigned();
                Value::Int(if *whole { ns / 1_000_000_000 } else { ns % 1_000_000_000 }.cast_signed())
            }
        })
    }

    fn count(&self, expr: Option<&Expr>, most: usize) -> Option<usize> {
        let Some(expr) = expr else { return Some(most) };
        Some(usize::try_from(self.int(expr)?).ok()?.min(most))
    }

    fn int(&self, expr: &Expr) -> Option<i64> {
        match self.value(expr)? {
            Value::Int(value) => Some(value),
            Value::Bytes(_) | Value::Text(_) => None,
        }
    }

    fn size(&self, number: &Number) -> Option<usize> {
        match number {
            Number::None => None,
            Number::Fixed(n) => Some(*n),
            Number::Argument(expr) => Some(usize::try_from(self.int(expr)?).unwrap_or(0).min(LONGEST)),
        }
    }

    fn convert(&mut self, c: &Conversion, expr: &Expr, out: &mut Vec<u8>) -> Option<()> {
        let value = self.value(expr)?;
        // The conversions of nearly every event, without a detour.
        let plain = matches!((&c.width, &c.precision), (Number::None, Number::None));
        let from = out.len();
        match (c.kind, value) {
            (b's', Value::Int(_)) => return None,
            (b's', Value::Bytes(bytes)) => text(bytes, self.size(&c.precision), out),
            (b's', Value::Text(bytes)) => text(&bytes, self.size(&c.precision), out),
            (b'p', value) => return self.pointer(c, value, out),
            (b'c', Value::Int(byte)) => out.push(byte as u8),
            (kind, Value::Int(value)) => {
                let digits = integer(kind, c, value, self.size(&c.precision), out);
                if let (true, Some(width)) = (c.zero && !c.left, self.size(&c.width)) {
                    let missing = width.saturating_sub(out.len() - from);
                    out.splice(digits..digits, std::iter::repeat_n(b'0', missing));
                }
            }
            (_, Value::Bytes(_) | Value::Text(_)) => return None,
        }
        if !plain && let Some(width) = self.size(&c.width) {
            let missing = width.saturating_sub(out.len() - from);
            let place = if c.left { out.len() } else { from };
            out.splice(place..place, std::iter::repeat_n(b' ', missing));
        }
        Some(())
    }

    fn pointer(&mut self, c: &Conversion, value: Value<'_>, out: &mut Vec<u8>) -> Option<()> {
        match (c.pointer, value) {
            (b'S' | b'F' | b'B', Value::Int(address)) => {
                self.symbols.write(address.cast_unsigned(), true, out);
            }
            (b's' | b'f', Value::Int(address)) => self.symbols.write(address.cast_unsigned(), false, out),
            (b'b', Value::Bytes(bytes)) => out.extend_from_slice(&mask(bytes)),
            (0 | b'x' | b'K', Value::Int(address)) => {
                out.extend_from_slice(format!("{address:0width$x}", width = 2 * self.long).as_bytes());
            }
            // Addresses of networks and the like: their bytes.
            (_, Value::Bytes(bytes)) => {
                for byte in bytes {
                    out.extend_from_slice(format!("{byte:02x}").as_bytes());
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// All fields but the common ones, where the format is not understood.
    fn fields(&mut self, out: &mut Vec<u8>) {
        for (at, field) in self.format.fields.iter().enumerate() {
            if field.name.starts_with(b"common_") {
                continue;
            }
            if out.last().is_some_and(|b| *b != b' ') {
                out.push(b' ');
            }
            out.extend_from_slice(&field.name);
            out.push(b'=');
            match self.value(&Expr::Field(at)) {
                Some(Value::Int(value)) if field.signed => {
                    out.extend_from_slice(value.to_string().as_bytes());
                }
                Some(Value::Int(value)) => {
                    out.extend_from_slice(value.cast_unsigned().to_string().as_bytes());
                }
                Some(Value::Bytes(bytes)) if field.chars => out.extend_from_slice(bytes),
                Some(Value::Bytes(bytes)) => {
                    for byte in bytes.iter().take(64) {
                        out.extend_from_slice(format!("{byte:02x}").as_bytes());
                    }
                }
                Some(Value::Text(text)) => out.extend_from_slice(&text),
                None => out.push(b'?'),
            }
        }
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
}

fn text(bytes: &[u8], precision: Option<usize>, out: &mut Vec<u8>) {
    let bytes = until_zero(bytes);
    out.extend_from_slice(&bytes[..bytes.len().min(precision.unwrap_or(usize::MAX))]);
}

/// Writes a number and returns where its digits begin: zeros stand behind the sign and the prefix, which no precision
/// counts (`number()` in lib/vsprintf.c).
fn integer(kind: u8, c: &Conversion, value: i64, precision: Option<usize>, out: &mut Vec<u8>) -> usize {
    let signed = matches!(kind, b'd' | b'i');
    let value = expr::cast(c.bits, signed, value);
    out.extend_from_slice(match kind {
        b'd' | b'i' if value < 0 => b"-",
        b'd' | b'i' if c.plus => b"+",
        b'o' if c.alternative && value != 0 => b"0",
        b'x' if c.alternative => b"0x",
        b'X' if c.alternative => b"0X",
        _ => b"",
    });
    let from = out.len();
    match kind {
        b'd' | b'i' => decimal(value.unsigned_abs(), out),
        b'u' => decimal(value.cast_unsigned(), out),
        b'o' => out.extend_from_slice(format!("{value:o}").as_bytes()),
        b'X' => out.extend_from_slice(format!("{value:X}").as_bytes()),
        _ => hexadecimal(value.cast_unsigned(), out),
    }
    if let Some(digits) = precision {
        let missing = digits.saturating_sub(out.len() - from);
        out.splice(from..from, std::iter::repeat_n(b'0', missing));
    }
    from
}

/// A decimal number.
pub fn decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn hexadecimal(value: u64, out: &mut Vec<u8>) {
    let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * at) & 15) as usize]);
    }
}

fn flags(value: i64, between: &[u8], pairs: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut left = value;
    let mut out = Vec::new();
    for (mask, name) in pairs {
        if left & mask == *mask && (*mask != 0 || value == 0) {
            if !out.is_empty() {
                out.extend_from_slice(between);
            }
            out.extend_from_slice(name);
            left &= !mask;
        }
    }
    if left != 0 {
        if !out.is_empty() {
            out.extend_from_slice(between);
        }
        out.extend_from_slice(format!("{left:#x}").as_bytes());
    }
    out
}

/// A mask of CPUs in groups of eight digits, the highest first, as the kernel prints it.
fn mask(bytes: &[u8]) -> Vec<u8> {
    let groups: Vec<String> = bytes
        .chunks(4)
        .rev()
        .map(|group| {
            format!("{:08x}", group.iter().rev().fold(0u32, |value, byte| value << 8 | u32::from(*byte)))
        })
        .collect();
    groups.join(",").into_bytes()
}
