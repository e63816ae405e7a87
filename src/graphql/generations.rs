//! A cache that is bounded in bytes and forgets what was not used for a while.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// Values by text.
///
/// They live in two generations of half the size each. New and recently used ones are in the young one; when that is full it
/// becomes the old one, and what was old then is dropped. So a value goes once as many other bytes as half the cache have
/// been used after it, and every operation costs O(1), amortised, beside hashing the text.
pub struct GenerationCache<V> {
    /// Bytes in one generation.
    half: usize,
    generations: Mutex<Generations<V>>,
}

struct Generations<V> {
    young: Generation<V>,
    old: Generation<V>,
}

struct Generation<V> {
    /// With the bytes that each is charged with.
    entries: HashMap<Arc<str>, (V, usize)>,
    bytes: usize,
}

impl<V> Default for Generation<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), bytes: 0 }
    }
}

impl<V: Clone> GenerationCache<V> {
    /// A cache of at most `max_bytes`. What is charged with more than half of that is never kept; with 0 nothing is.
    pub fn new(max_bytes: usize) -> Self {
        let generations = Generations { young: Generation::default(), old: Generation::default() };
        Self { half: max_bytes / 2, generations: Mutex::new(generations) }
    }

    /// Bytes that everything now kept is charged with.
    pub fn bytes(&self) -> usize {
        let generations = self.generations.lock();
        generations.young.bytes + generations.old.bytes
    }

    /// The value of this text. Counts as a use.
    pub fn get(&self, text: &str) -> Option<V> {
        let (found, dropped);
        {
            let mut generations = self.generations.lock();
            if let Some((value, _)) = generations.young.entries.get(text) {
                return Some(value.clone());
            }
            let (text, (value, bytes)) = generations.old.entries.remove_entry(text)?;
            generations.old.bytes -= bytes;
            found = value.clone();
            dropped = generations.insert(text, value, bytes, self.half);
        }
        // A whole generation takes a while to drop; others need not wait for that.
        drop(dropped);
        Some(found)
    }

    /// Charges the value of this text, if it is kept, with so many bytes more. Counts as a use.
    pub fn charge(&self, text: &str, more: usize) {
        let dropped = {
            let mut generations = self.generations.lock();
            let Some((text, value, bytes)) = generations.remove(text) else { return };
            if bytes + more <= self.half { generations.insert(text, value, bytes + more, self.half) } else { None }
        };
        drop(dropped);
    }

    /// Keeps a value that is charged with so many bytes, its text included. One that is known stays.
    pub fn insert(&self, text: Arc<str>, value: V, bytes: usize) {
        if bytes <= self.half {
            let dropped = self.generations.lock().insert(text, value, bytes, self.half);
            drop(dropped);
        }
    }
}

impl<V> Generations<V> {
    fn remove(&mut self, text: &str) -> Option<(Arc<str>, V, usize)> {
        [&mut self.young, &mut self.old].into_iter().find_map(|generation| {
            let (text, (value, bytes)) = generation.entries.remove_entry(text)?;
            generation.bytes -= bytes;
            Some((text, value, bytes))
        })
    }

    /// Puts an entry of no more than `half` bytes into the young generation, and returns what has to be dropped for it. A
    /// text is never in both generations.
    fn insert(&mut self, text: Arc<str>, value: V, bytes: usize, half: usize) -> Option<Generation<V>> {
        if self.young.entries.contains_key(&text) || self.old.entries.contains_key(&text) {
            return None;
        }
        let full = self.young.bytes + bytes > half;
        let dropped = full.then(|| {
            let young = std::mem::take(&mut self.young);
            std::mem::replace(&mut self.old, young)
        });
        self.young.bytes += bytes;
        self.young.entries.insert(text, (value, bytes));
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes_within_the_bound() {
        let cache = GenerationCache::new(100);
        cache.insert("used".into(), 0, 10);
        cache.insert("unused".into(), 1, 10);
        cache.insert("too big".into(), 2, 51);
        assert_eq!((cache.bytes(), cache.get("too big")), (20, None));
        for number in 0..50 {
            cache.insert(number.to_string().into(), number, 10);
            assert!(cache.bytes() <= 100);
            assert_eq!(cache.get("used"), Some(0), "after {number}");
        }
        assert_eq!((cache.get("unused"), cache.get("49")), (None, Some(49)));
    }

    #[test]
    fn what_grows_is_charged() {
        let cache = GenerationCache::new(100);
        cache.insert("a".into(), 0, 10);
        cache.charge("a", 30);
        cache.charge("b", 30);
        assert_eq!(cache.bytes(), 40);
        cache.insert("c".into(), 1, 20);
        assert_eq!((cache.bytes(), cache.get("a")), (60, Some(0)));
        cache.insert("d".into(), 2, 20);
        assert_eq!((cache.get("c"), cache.bytes()), (None, 60));
    }
}
