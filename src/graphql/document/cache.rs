//! A cache of prepared documents, bounded in bytes.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Document, DocumentError, DocumentLimits};

/// Charged for every entry beside its text and its document: the table's slot (it may be half
/// empty) and two allocations.
const ENTRY: usize = 128;

/// Documents that have passed all checks, by their full text.
///
/// Entries live in two generations of half the size each. New and recently used ones are in the
/// young one; when that is full it becomes the old one, and what was old then is dropped. So an
/// entry goes once as many other bytes as half the cache have been used after it, and every
/// operation costs O(1), amortised, beside hashing the text.
///
/// One cache serves one set of limits: an entry is not checked again if the limits change.
pub struct DocumentCache {
    /// Bytes in one generation.
    half: usize,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    entries: HashMap<Arc<str>, Arc<Document>>,
    bytes: usize,
}

impl DocumentCache {
    /// Makes a cache of at most `max_bytes` bytes of texts and documents, as estimated by
    /// [`Document::bytes`]. Documents of more than half of that are never kept; with 0 none are.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { half: max_bytes / 2, generations: Mutex::default() }
    }

    /// The document of this text, from the cache or prepared now and kept.
    ///
    /// The lock is not held while preparing, so two threads with the same new text may both do it.
    ///
    /// # Errors
    ///
    /// Those of [`Document::prepare`]; they are not kept.
    pub fn get_or_prepare(&self, text: &str, limits: &DocumentLimits) -> Result<Arc<Document>, DocumentError> {
        // What is too long to be accepted is not worth hashing either.
        if text.len() <= limits.max_bytes
            && let Some(found) = self.get(text)
        {
            return Ok(found);
        }
        let document = Arc::new(Document::prepare(text, limits)?);
        self.keep(Arc::from(text), &document);
        Ok(document)
    }

    /// Texts and documents now kept, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let generations = self.generations.lock();
        generations.young.bytes + generations.old.bytes
    }

    fn get(&self, text: &str) -> Option<Arc<Document>> {
        let (found, dropped);
        {
            let mut generations = self.generations.lock();
            if let Some(document) = generations.young.entries.get(text) {
                return Some(Arc::clone(document));
            }
            let (key, document) = generations.old.entries.remove_entry(text)?;
            generations.old.bytes -= charge(&key, &document);
            found = Arc::clone(&document);
            dropped = generations.insert(key, document, self.half);
        }
        // A whole generation takes a while to drop; others need not wait for that.
        drop(dropped);
        Some(found)
    }

    fn keep(&self, key: Arc<str>, document: &Arc<Document>) {
        if charge(&key, document) <= self.half {
            let dropped = {
                let mut generations = self.generations.lock();
                generations.insert(key, Arc::clone(document), self.half)
            };
            drop(dropped);
        }
    }
}

impl Generations {
    /// Puts an entry of no more than `half` bytes into the young generation, and returns what has
    /// to be dropped for it. A key is never in both generations.
    fn insert(&mut self, key: Arc<str>, document: Arc<Document>, half: usize) -> Option<Generation> {
        let bytes = charge(&key, &document);
        // Another thread may have prepared the same text meanwhile.
        if self.young.entries.contains_key(&key) || self.old.entries.contains_key(&key) {
            return None;
        }
        let full = self.young.bytes + bytes > half;
        let dropped = full.then(|| {
            let young = std::mem::take(&mut self.young);
            std::mem::replace(&mut self.old, young)
        });
        self.young.bytes += bytes;
        self.young.entries.insert(key, document);
        dropped
    }
}

fn charge(key: &str, document: &Document) -> usize {
    ENTRY + key.len() + document.bytes()
}
