//! Small byte scanners: numbers, symbols and `key=value` fields, without regular expressions or allocation.

/// Eight bytes from `at` on, the first lowest.
#[inline]
fn word(text: &[u8], at: usize) -> Option<u64> {
    let bytes = text.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*bytes))
}

/// A byte eight times.
const fn each(byte: u8) -> u64 {
    byte as u64 * 0x0101_0101_0101_0101
}

/// Digits from `*at` on; moves `*at` behind them.
///
/// Up to seven of them are read eight bytes at once: a byte that is no digit has its high bit set in `others`, the digits
/// before the first of those move up so that zeros stand in front, and three steps add up pairs, fours, eights.
#[inline]
pub fn decimal(text: &[u8], at: &mut usize) -> Option<u64> {
    if let Some(bytes) = word(text, *at) {
        let digits = bytes ^ each(b'0');
        let others = (((digits & each(0x7f)) + each(0x76)) | digits) & each(0x80);
        if others != 0 {
            let bits = others.trailing_zeros() & !7;
            if bits == 0 {
                return None;
            }
            *at += bits as usize / 8;
            let v = digits << (64 - bits);
            let v = (v.wrapping_mul(10) + (v >> 8)) & 0x00ff_00ff_00ff_00ff;
            let v = (v.wrapping_mul(100) + (v >> 16)) & 0x0000_ffff_0000_ffff;
            return Some((v.wrapping_mul(10_000) + (v >> 32)) & 0xffff_ffff);
        }
    }
    decimal_by_bytes(text, at)
}

/// The same, byte by byte: at the end of the text, and for longer numbers.
fn decimal_by_bytes(text: &[u8], at: &mut usize) -> Option<u64> {
    let digits = text.get(*at..)?;
    let mut value = 0u64;
    let mut len = 0;
    for b in digits {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        // Nineteen digits always fit; only then does a step need a check.
        value = if len < 19 {
            value * 10 + u64::from(digit)
        } else {
            value.checked_mul(10)?.checked_add(u64::from(digit))?
        };
        len += 1;
    }
    *at += len;
    (len > 0).then_some(value)
}

/// Moves `*at` behind spaces.
#[inline]
pub fn spaces(text: &[u8], at: &mut usize) {
    while let Some(bytes) = word(text, *at) {
        let others = bytes ^ each(b' ');
        if others != 0 {
            *at += others.trailing_zeros() as usize / 8;
            return;
        }
        *at += 8;
    }
    while text.get(*at) == Some(&b' ') {
        *at += 1;
    }
}

/// Where the next space stands, from `at` on.
#[inline]
pub fn to_space(text: &[u8], at: usize) -> Option<usize> {
    if let Some(bytes) = word(text, at) {
        // The lowest byte that is zero is found exactly; borrows only reach the ones above.
        let others = bytes ^ each(b' ');
        let found = others.wrapping_sub(each(1)) & !others & each(0x80);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
    }
    let rest = text.get(at..)?;
    memchr::memchr(b' ', rest).map(|len| at + len)
}

/// A whole token as a decimal number.
pub fn number(token: &[u8]) -> Option<u64> {
    let mut at = 0;
    decimal(token, &mut at).filter(|_| at == token.len())
}

/// Values of hexadecimal digits; 16 for any other byte.
const HEX: [u8; 256] = {
    let mut table = [16; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        table[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    table
};

/// A token as an address: with or without `0x`; `(nil)` is 0.
pub fn hex(token: &[u8]) -> Option<u64> {
    let digits = token.strip_prefix(b"0x").unwrap_or(token);
    if digits == b"(nil)" {
        return Some(0);
    }
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let (mut value, mut wrong) = (0, 0);
    for b in digits {
        let digit = HEX[usize::from(*b)];
        wrong |= digit;
        value = value << 4 | u64::from(digit & 15);
    }
    (wrong < 16).then_some(value)
}

/// A symbol without `+0x24/0x40`.
pub fn symbol(token: &[u8]) -> &[u8] {
    memchr::memchr(b'+', token).map_or(token, |plus| &token[..plus])
}

/// A function's name without what the compiler appended (`.isra.0`, `.constprop.0`, `.part.0`, `.cold`).
pub fn plain_function(name: &[u8]) -> &[u8] {
    memchr::memchr(b'.', name).map_or(name, |dot| if dot == 0 { name } else { &name[..dot] })
}

/// Reads `key=value` fields in the order of the kernel's print format; a missing or moved key is searched for.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The token behind `key` (which includes `=` or `:`), up to a space; a comma behind it is dropped.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Option<&'a [u8]> {
        let from = if self.0.starts_with(key) { key.len() } else { find_key(self.0, key)? + key.len() };
        let rest = &self.0[from..];
        let rest = rest.strip_prefix(b" ").unwrap_or(rest);
        let end = to_space(rest, 0).unwrap_or(rest.len());
        self.0 = rest.get(end + 1..).unwrap_or_default();
        let value = &rest[..end];
        Some(value.strip_suffix(b",").unwrap_or(value))
    }
}

/// Where `key` begins a field.
fn find_key(text: &[u8], key: &[u8]) -> Option<usize> {
    memchr::memmem::find_iter(text, key).find(|&at| at == 0 || text[at - 1] == b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_order_and_out_of_order() {
        let mut f = Fields(b"func=do_flush_tlb_all, csd=00000000d32e82b2");
        assert_eq!(f.get(b"func="), Some(&b"do_flush_tlb_all"[..]));
        assert_eq!(f.get(b"csd=").and_then(hex), Some(0xd32e_82b2));
        let mut f = Fields(b"va_start: 18446688774948175872 size=20480");
        assert_eq!(f.get(b"va_start:").and_then(number), Some(18_446_688_774_948_175_872));
        assert_eq!(f.get(b"size=").and_then(number), Some(20480));
        assert_eq!(Fields(b"xcpu=1 cpu=2").get(b"cpu="), Some(&b"2"[..]));
        assert_eq!(Fields(b"cpu=1").get(b"func="), None);
    }

    #[test]
    fn eight_bytes_at_once_are_as_one_after_the_other() {
        let mut seed = 1u64;
        let mut below = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        for _ in 0..20_000 {
            let len = below(24) as usize;
            let kind = below(3);
            let text: Vec<u8> = (0..len)
                .map(|_| match below(if kind == 0 { 30 } else { 6 }) {
                    0 => below(256) as u8,
                    1 => b"/:\x00\xb0 "[below(5) as usize],
                    _ if kind == 1 => b' ',
                    _ => b'0' + below(10) as u8,
                })
                .collect();
            let from = below(4) as usize;
            let (mut fast, mut slow) = (from, from);
            assert_eq!(decimal(&text, &mut fast), decimal_by_bytes(&text, &mut slow), "{text:?} {from}");
            assert_eq!(fast, slow, "{text:?} {from}");
            fast = from;
            spaces(&text, &mut fast);
            let rest = text.get(from..).unwrap_or_default();
            assert_eq!(fast, from + rest.iter().take_while(|b| **b == b' ').count(), "{text:?} {from}");
            let space = rest.iter().position(|b| *b == b' ').map(|len| from + len);
            assert_eq!(to_space(&text, from), space, "{text:?} {from}");
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_refused_not_wrapped() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(number(b"18446744073709551616"), None);
        assert_eq!(hex(b"0xffffffffffffffff"), Some(u64::MAX));
        assert_eq!(hex(b"(nil)"), Some(0));
        assert_eq!(hex(b"0x1ffffffffffffffff"), None);
        assert_eq!(hex(b"xyz"), None);
    }

    #[test]
    fn symbols_lose_offsets_and_compiler_suffixes() {
        assert_eq!(symbol(b"on_each_cpu_cond_mask+0x24/0x40"), b"on_each_cpu_cond_mask");
        assert_eq!(plain_function(b"do_kernel_range_flush.isra.0"), b"do_kernel_range_flush");
    }
}
