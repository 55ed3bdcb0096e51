//! Accesses through one array, in the form that suits it.

use super::super::avx2;
use super::super::linked::Linked;
use super::super::stream::Stream;
use crate::hw::array::{Array, Entry};

/// How an array is kept while accesses come.
#[derive(Clone, Debug, Default)]
pub(super) struct Form {
    /// As a list.
    pub(super) list: Option<Linked>,
    /// Nearly all of the last batch hit.
    hits: bool,
}

/// Ways of an order that a list is never better for than the registers it fits in. With more, a hit in the list is: it does not
/// look at all of them.
const FEW: usize = 40;

/// The accesses `range` of a stream through one array; those that miss move to `missed` and on. Returns where they end. Orders
/// of up to `linked` ways may become lists.
pub(super) fn run(
    array: &mut Array,
    form: &mut Form,
    stream: &mut Stream,
    range: std::ops::Range<usize>,
    missed: usize,
    (linked, globals, vector): (usize, bool, bool),
) -> usize {
    let ways = array.ways();
    let in_registers = vector && ways <= avx2::longest();
    let better = !in_registers || ways > FEW && form.hits;
    if better && Linked::fits(array) && ways <= linked {
        form.list.get_or_insert_with(|| Linked::of(array, globals));
    } else if let Some(list) = form.list.take() {
        list.back(array);
    }
    let (count, before) = (range.len(), missed);
    let ended = if let Some(list) = &mut form.list {
        run_list(list, stream, range, missed, globals)
    } else {
        run_array(array, stream, range, missed, (globals, vector))
    };
    form.hits = 8 * (ended - before) < count;
    ended
}

/// [`run`] through a list.
fn run_list(
    list: &mut Linked,
    stream: &mut Stream,
    range: std::ops::Range<usize>,
    mut missed: usize,
    globals: bool,
) -> usize {
    for i in range {
        let hit = if globals {
            let (hit, crossed) = list.access_or(stream.keys[i], stream.others[i]);
            stream.crossed |= crossed;
            hit
        } else {
            list.access(stream.keys[i])
        };
        stream.keys[missed] = stream.keys[i];
        stream.others[missed] = stream.others[i];
        stream.numbers[missed] = stream.numbers[i];
        missed += usize::from(!hit);
    }
    missed
}

/// [`run`] through an array as it is.
fn run_array(
    array: &mut Array,
    stream: &mut Stream,
    range: std::ops::Range<usize>,
    mut missed: usize,
    (globals, vector): (bool, bool),
) -> usize {
    if vector
        && let Some(ended) = avx2::stream_pass(array, None, stream, range.clone(), missed, (globals, true))
    {
        return ended;
    }
    for i in range {
        let key = Entry(stream.keys[i]);
        let set = array.set_of(key.page());
        stream.crossed |= globals && {
            let other = Entry(stream.others[i]);
            array.peek(set, other, other) != Entry::EMPTY
        };
        let hit = array.lookup(set, key, key) != Entry::EMPTY;
        if !hit {
            array.fill(set, key);
        }
        stream.keys[missed] = stream.keys[i];
        stream.others[missed] = stream.others[i];
        stream.numbers[missed] = stream.numbers[i];
        missed += usize::from(!hit);
    }
    missed
}
