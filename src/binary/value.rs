//! What is known of a 64-bit value along a path: some of its bits, or that it is an offset from a base.

/// What an address counts from. The order is the order of the addresses in the kernel's layout, as far as two of them
/// are ever compared: a stack of a task (vmalloc) lies below cpu_entry_area, whose entry stack lies below its IST stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Base {
    /// An object that a path names (`current`, or what a pointer led to); its number in the walker's list.
    Object(u32),
    /// End of the current task's stack.
    TaskStack,
    /// End of the entry stack in cpu_entry_area, where `sp0` points.
    EntryStack,
    /// End of the interrupt-stack-table stack the event came on, in cpu_entry_area.
    Ist,
    /// This CPU's per-CPU area; the offset is the symbol's address.
    PerCpu,
    /// The kernel image; the offset is the address.
    Image,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Val {
    /// The bits of `known` have the values in `value`; none outside of `known` is set.
    Bits {
        /// Which are known.
        known: u64,
        /// Their values.
        value: u64,
    },
    /// An address.
    Ptr(Base, i64),
}

/// Nothing is known.
pub const ANY: Val = Val::Bits { known: 0, value: 0 };

/// The mask of a width in bytes.
pub fn mask(size: usize) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * size)) - 1 }
}

impl Val {
    /// A constant.
    pub const fn of(value: u64) -> Self {
        Self::Bits { known: u64::MAX, value }
    }

    /// The constant, if all of the lowest `size` bytes are known.
    pub fn constant(self, size: usize) -> Option<u64> {
        match self {
            Self::Bits { known, value } if known & mask(size) == mask(size) => Some(value & mask(size)),
            _ => None,
        }
    }

    /// Known bits and their values. Stacks end at a page, so the low bits of an address on one are known.
    pub fn bits(self) -> (u64, u64) {
        match self {
            Self::Bits { known, value } => (known, value),
            Self::Ptr(Base::TaskStack | Base::EntryStack | Base::Ist, off) => {
                (0xfff | 1 << 63, off as u64 & 0xfff | 1 << 63)
            }
            Self::Ptr(Base::Image, off) => (u64::MAX, off as u64),
            Self::Ptr(..) => (0, 0),
        }
    }

    fn known(known: u64, value: u64) -> Self {
        Self::Bits { known, value: value & known }
    }

    /// Cut to a width; the rest is zero.
    pub fn cut(self, size: usize) -> Self {
        if size >= 8 {
            return self;
        }
        let (known, value) = self.bits();
        Self::known(known | !mask(size), value & mask(size))
    }

    /// Extend the sign of a width.
    pub fn sign(self, size: usize) -> Self {
        if size >= 8 {
            return self;
        }
        let (known, value) = self.bits();
        let top = 1 << (8 * size - 1);
        let high = !mask(size);
        if known & top == 0 {
            return Self::known(known & mask(size), value & mask(size));
        }
        let fill = if value & top == 0 { 0 } else { high };
        Self::known(known & mask(size) | high, value & mask(size) | fill)
    }

    /// The sum.
    pub fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ptr(base, off), v) | (v, Self::Ptr(base, off)) => {
                v.constant(8).map_or(ANY, |c| Self::Ptr(base, off.wrapping_add(c as i64)))
            }
            (Self::Bits { known: a, value: x }, Self::Bits { known: b, value: y }) => {
                let run = low_run(a & b);
                Self::known(run, x.wrapping_add(y))
            }
        }
    }

    /// The difference.
    pub fn sub(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ptr(a, x), Self::Ptr(b, y)) => {
                if a == b {
                    Self::of(x.wrapping_sub(y) as u64)
                } else {
                    ANY
                }
            }
            (Self::Ptr(base, off), v) => {
                v.constant(8).map_or(ANY, |c| Self::Ptr(base, off.wrapping_sub(c as i64)))
            }
            (_, Self::Ptr(..)) => ANY,
            (Self::Bits { known: a, value: x }, Self::Bits { known: b, value: y }) => {
                Self::known(low_run(a & b), x.wrapping_sub(y))
            }
        }
    }

    /// Bitwise and; a mask that aligns an address on a stack leaves it one.
    pub fn and(self, other: Self) -> Self {
        if let (Self::Ptr(base @ (Base::TaskStack | Base::EntryStack | Base::Ist), off), Some(c)) =
            (self, other.constant(8))
            && c | 0xfff == u64::MAX
        {
            return Self::Ptr(base, off & c as i64);
        }
        let ((a, x), (b, y)) = (self.bits(), other.bits());
        Self::known(a & b | a & !x | b & !y, x & y)
    }

    /// Bitwise or.
    pub fn or(self, other: Self) -> Self {
        let ((a, x), (b, y)) = (self.bits(), other.bits());
        Self::known(a & b | a & x | b & y, x | y)
    }

    /// Bitwise exclusive or.
    pub fn xor(self, other: Self) -> Self {
        let ((a, x), (b, y)) = (self.bits(), other.bits());
        Self::known(a & b, x ^ y)
    }

    /// Shift left by a constant.
    pub fn shl(self, by: u32) -> Self {
        let (known, value) = self.bits();
        let low = (1u64 << by) - 1;
        Self::known(known << by | low, value << by)
    }

    /// Shift right by a constant, zeros from above.
    pub fn shr(self, by: u32) -> Self {
        let (known, value) = self.bits();
        let high = !(u64::MAX >> by);
        Self::known(known >> by | high, value >> by)
    }

    /// One bit, if it is known.
    pub fn bit(self, bit: u32) -> Option<bool> {
        let (known, value) = self.bits();
        (known >> bit & 1 != 0).then_some(value >> bit & 1 != 0)
    }

    /// This value with one bit known.
    pub fn with_bit(self, bit: u32, on: bool) -> Self {
        let (known, value) = self.bits();
        let one = 1u64 << bit;
        Self::known(known | one, if on { value | one } else { value & !one })
    }
}

fn low_run(known: u64) -> u64 {
    let run = known.trailing_ones();
    if run >= 64 { u64::MAX } else { (1 << run) - 1 }
}

/// The flags that branches test; `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// Carry.
    pub cf: Option<bool>,
    /// Zero.
    pub zf: Option<bool>,
    /// Sign.
    pub sf: Option<bool>,
    /// Overflow.
    pub of: Option<bool>,
}

impl Flags {
    /// Of a result that is neither a sum nor a difference.
    pub fn logic(result: Val, size: usize) -> Self {
        let (zf, sf) = zero_sign(result, size);
        Self { cf: Some(false), zf, sf, of: Some(false) }
    }

    /// Of a comparison, or a subtraction.
    pub fn compare(a: Val, b: Val, size: usize) -> Self {
        if size == 8
            && let (Val::Ptr(p, x), Val::Ptr(q, y)) = (a, b)
        {
            if p == q {
                let less = x < y;
                return Self { cf: Some(less), zf: Some(x == y), sf: Some(less), of: Some(false) };
            }
            if matches!((p, q), (Base::Object(_), _) | (_, Base::Object(_))) {
                return Self::default();
            }
            return Self { cf: Some(p < q), zf: Some(false), sf: Some(p < q), of: Some(false) };
        }
        if let (Some(x), Some(y)) = (a.constant(size), b.constant(size)) {
            let (sx, sy) = (signed(x, size), signed(y, size));
            let difference = x.wrapping_sub(y) & mask(size);
            let negative = signed(difference, size) < 0;
            return Self {
                cf: Some(x < y),
                zf: Some(x == y),
                sf: Some(negative),
                of: Some((sx < sy) != negative),
            };
        }
        let ((ka, x), (kb, y)) = (a.bits(), b.bits());
        let differ = ka & kb & (x ^ y) & mask(size) != 0;
        Self { zf: differ.then_some(false), ..Self::default() }
    }

    /// Of a sum.
    pub fn sum(a: Val, b: Val, result: Val, size: usize) -> Self {
        let (zf, sf) = zero_sign(result, size);
        let cf = match (a.constant(size), b.constant(size)) {
            (Some(x), Some(y)) => Some(u128::from(x) + u128::from(y) > u128::from(mask(size))),
            _ => None,
        };
        let of = match (a.constant(size), b.constant(size)) {
            (Some(x), Some(y)) => {
                let sum = i128::from(signed(x, size)) + i128::from(signed(y, size));
                Some(sum != i128::from(signed(x.wrapping_add(y) & mask(size), size)))
            }
            _ => None,
        };
        Self { cf, zf, sf, of }
    }
}

/// Sign-extended.
fn signed(value: u64, size: usize) -> i64 {
    let shift = 64 - 8 * size as u32;
    (value << shift) as i64 >> shift
}

/// ZF and SF of a result.
pub fn zero_sign(result: Val, size: usize) -> (Option<bool>, Option<bool>) {
    let (known, value) = result.bits();
    let (known, value) = (known & mask(size), value & mask(size));
    let zero = if value != 0 { Some(false) } else { (known == mask(size)).then_some(true) };
    (zero, result.bit(8 * size as u32 - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_that_a_mask_clears_is_known_whatever_was_there() {
        // 0xffff...e7ff clears bits 11 and 12: SWITCH_TO_KERNEL_CR3.
        let cr3 = ANY.with_bit(12, true).and(Val::of(!0x1800));

        assert_eq!(cr3.bit(12), Some(false));
        assert_eq!(cr3.bit(11), Some(false));
        assert_eq!(cr3.bit(13), None);
    }

    #[test]
    fn a_sum_is_known_as_far_as_no_unknown_bit_carries_into_it() {
        // State 2 (user) in the low three bits; + 2 is 4, whatever is above.
        let state = Val::Bits { known: 7, value: 2 };

        assert_eq!(state.add(Val::of(2)), Val::Bits { known: 7, value: 4 });
        assert_eq!(state.add(ANY), ANY);
    }

    #[test]
    fn addresses_compare_by_their_place_in_the_layout() {
        let flags = Flags::compare(Val::Ptr(Base::EntryStack, -8), Val::Ptr(Base::Ist, -40), 8);
        assert_eq!((flags.cf, flags.zf), (Some(true), Some(false)));

        let unknown = Flags::compare(Val::Ptr(Base::Object(0), 0), Val::Ptr(Base::Ist, 0), 8);
        assert_eq!(unknown, Flags::default());
    }

    #[test]
    fn an_address_is_aligned_only_by_masks_within_a_page() {
        let stack = Val::Ptr(Base::TaskStack, -24);

        assert_eq!(stack.and(Val::of(!0xf)), Val::Ptr(Base::TaskStack, -32));
        assert!(matches!(stack.and(Val::of(!0x3fff)), Val::Bits { .. }), "the size of a stack is not known");
    }

    #[test]
    fn signed_comparison_sees_the_overflow() {
        // 8 bits: -128 - 1 overflows to 127; -128 < 1, so SF != OF.
        let flags = Flags::compare(Val::of(0x80), Val::of(1), 1);

        assert_eq!(
            (flags.sf, flags.of, flags.cf, flags.zf),
            (Some(false), Some(true), Some(false), Some(false))
        );
    }
}
