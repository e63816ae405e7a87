//! A cache of prepared documents, bounded in bytes.

use std::sync::Arc;

use super::{Document, DocumentError, DocumentLimits};
use crate::graphql::generations::GenerationCache;

/// Charged for every entry beside its text and its document: the table's slot (it may be half
/// empty) and two allocations.
const ENTRY: usize = 128;

/// Documents that have passed all checks, by their full text.
///
/// One cache serves one set of limits: an entry is not checked again if the limits change.
pub struct DocumentCache(GenerationCache<Arc<Document>>);

impl DocumentCache {
    /// Makes a cache of at most `max_bytes` bytes of texts and documents, as estimated by
    /// [`Document::bytes`]. Documents of more than half of that are never kept; with 0 none are.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self(GenerationCache::new(max_bytes))
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
            && let Some(found) = self.0.get(text)
        {
            return Ok(found);
        }
        let document = Arc::new(Document::prepare(text, limits)?);
        self.0.insert(Arc::from(text), Arc::clone(&document), ENTRY + text.len() + document.bytes());
        Ok(document)
    }

    /// Texts and documents now kept, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}
