//! Small byte scanners: numbers, symbols and `key=value` fields, without regular expressions or allocation.

/// Digits from `*at` on; moves `*at` behind them.
#[inline]
pub fn decimal(text: &[u8], at: &mut usize) -> Option<u64> {
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
    while text.get(*at) == Some(&b' ') {
        *at += 1;
    }
}

/// A whole token as a decimal number.
pub fn number(token: &[u8]) -> Option<u64> {
    let mut at = 0;
    decimal(token, &mut at).filter(|_| at == token.len())
}

/// A token as an address: with or without `0x`; `(nil)` is 0.
pub fn hex(token: &[u8]) -> Option<u64> {
    let digits = token.strip_prefix(b"0x").unwrap_or(token);
    if digits == b"(nil)" {
        return Some(0);
    }
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |v, &b| Some(v << 4 | u64::from((b as char).to_digit(16)?)))
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
        let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
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
