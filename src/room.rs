//! Whether there is memory for the next step: a failed allocation ends the process, Python and all, so what grows with its
//! input asks first.
//!
//! Memory that is asked for and given back untouched costs a system call. It fails where the allocation itself would
//! have failed: at the limit of the address space (`ulimit -v`), and where the kernel does not promise more than it has.

/// There is not so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// Is there room for so many bytes, in one piece?
pub fn room(bytes: usize) -> Result<(), NoRoom> {
    // A black box, else the compiler sees that nobody uses it and promises the room itself.
    std::hint::black_box(Vec::<u8>::new()).try_reserve_exact(bytes).map_err(|_| NoRoom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mebibyte_is_there_and_half_of_all_addresses_are_not() {
        assert_eq!(room(1 << 20), Ok(()));
        assert_eq!(room(isize::MAX as usize / 2), Err(NoRoom));
        assert_eq!(room(usize::MAX), Err(NoRoom), "more than a pointer can say");
    }
}
