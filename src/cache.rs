//! What is made once and then shared: parsed texts, assembled programs, calibrations.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxBuildHasher;

/// Values by key; at most so many, then it begins anew.
pub(crate) struct Cache<K, V> {
    made: Mutex<HashMap<K, V, FxBuildHasher>>,
    most: usize,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// An empty one.
    pub(crate) const fn new(most: usize) -> Self {
        Cache { made: Mutex::new(HashMap::with_hasher(FxBuildHasher)), most }
    }

    /// The value of a key, made if there is none yet; an error is not kept. Two threads may make the same value at once.
    pub(crate) fn get_or<E>(&self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        if let Some(value) = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(value.clone());
        }
        let value = make()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= self.most {
            made.clear();
        }
        made.insert(key, value.clone());
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_and_an_error_every_time() {
        let cache: Cache<u32, u32> = Cache::new(2);
        let mut made = 0;
        let mut get = |key: u32| {
            cache.get_or(key, || {
                made += 1;
                if key == 9 { Err(made) } else { Ok(key * 10) }
            })
        };
        assert_eq!((get(1), get(2), get(1)), (Ok(10), Ok(20), Ok(10)));
        assert_eq!((get(9), get(9)), (Err(3), Err(4)));
        assert_eq!(get(3), Ok(30), "the third begins anew");
        assert_eq!(get(1), Ok(10));
        assert_eq!(made, 6);
    }
}
