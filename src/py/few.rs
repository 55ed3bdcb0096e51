//! A few pages that Python hands over: copied, so that nothing is borrowed and nobody can write to them meanwhile.

use numpy::{Element, PyArray1, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

/// Copies of so many are cheap, and others wait for the interpreter a tenth of a millisecond.
const MOST: usize = 1 << 14;

/// The pages of a call that is over soon.
#[derive(Debug)]
pub(super) enum Few {
    /// One.
    One(u64),
    /// Up to [`MOST`].
    Some(Vec<u64>),
}

impl Few {
    pub(super) fn pages(&self) -> &[u64] {
        match self {
            Few::One(page) => std::slice::from_ref(page),
            Few::Some(pages) => pages,
        }
    }
}

/// The pages of an array of 32-bit or 64-bit integers in one row. `None`: it is something else, there are too many, or they
/// look like addresses, which the caller is to be told. Signed ones keep their sign: a negative page is none, and that is
/// noticed where pages are looked at.
pub(super) fn few_pages(vpn: &Bound<'_, PyAny>) -> Option<Few> {
    let array = vpn.cast_exact::<PyUntypedArray>().ok()?;
    if array.ndim() != 1 || array.len() > MOST || !array.is_c_contiguous() {
        return None;
    }
    let kind = array.dtype();
    // Which of C's types has so many bits differs between systems.
    let few = match (kind.kind(), kind.itemsize()) {
        (b'u', 8) => copy::<u64>(vpn, |page| page),
        (b'i', 8) => copy::<i64>(vpn, i64::cast_unsigned),
        (b'u', 4) => copy::<u32>(vpn, u64::from),
        (b'i', 4) => copy::<i32>(vpn, |page| i64::from(page).cast_unsigned()),
        _ => None,
    }?;
    // Addresses of pages are multiples of 4096, page numbers are only now and then.
    let suspect = matches!(few.pages(), [one, other, ..] if (one | other) & 4095 == 0);
    (!suspect).then_some(few)
}

fn copy<T: Element + Copy>(vpn: &Bound<'_, PyAny>, page: impl Fn(T) -> u64) -> Option<Few> {
    // Of another byte order it is no such array.
    let array = vpn.cast::<PyArray1<T>>().ok()?;
    if array.len() == 1 {
        return Some(Few::One(page(array.get_owned(0)?)));
    }
    Some(Few::Some(array.to_vec().ok()?.into_iter().map(page).collect()))
}
