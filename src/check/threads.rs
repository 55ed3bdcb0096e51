//! Threads for one step of a search. They share nothing but what they read, so their number changes no result.

use std::sync::OnceLock;
use std::thread;

/// Items of work below which a thread costs more than it brings.
pub const WORTH: usize = 1 << 14;

/// How many threads this process may run at once; asking the system costs more than a small search.
pub fn available() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Run `work` on each item with its place; on threads of their own if that is worth it.
pub fn each<T: Send>(items: &mut [T], apart: bool, work: impl Fn(usize, &mut T) + Sync) {
    if !apart || items.len() < 2 {
        for (i, item) in items.iter_mut().enumerate() {
            work(i, item);
        }
        return;
    }
    let work = &work;
    thread::scope(|scope| {
        let mut all = items.iter_mut().enumerate();
        let mine = all.next();
        for (i, item) in all {
            scope.spawn(move || work(i, item));
        }
        if let Some((i, item)) = mine {
            work(i, item);
        }
    });
}
