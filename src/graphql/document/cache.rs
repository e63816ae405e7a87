//! A cache of prepared documents, bounded in bytes.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use super::{Document, DocumentError, DocumentLimits};
use crate::graphql::generations::GenerationCache;

/// Charged for every entry beside its text and its document: the table's slot (it may be half
/// empty) and two allocations.
const ENTRY: usize = 128;

/// Documents that have passed all checks, by their full text, each with the programs that were made of it.
///
/// One cache serves one set of limits: an entry is not checked again if the limits change.
pub struct DocumentCache<P>(GenerationCache<Arc<Cached<P>>>);

/// A document, and what was compiled of it.
pub struct Cached<P> {
    document: Document,
    programs: OnceLock<Option<P>>,
}

impl<P> Deref for Cached<P> {
    type Target = Document;

    fn deref(&self) -> &Document {
        &self.document
    }
}

impl<P> Cached<P> {
    /// What was compiled, if that was possible and has been done.
    pub fn programs(&self) -> Option<&P> {
        self.programs.get()?.as_ref()
    }

    /// Whether it has been tried to compile the document.
    pub fn is_compiled(&self) -> bool {
        self.programs.get().is_some()
    }
}

impl<P> DocumentCache<P> {
    /// Makes a cache of at most `max_bytes` bytes of texts, documents and programs, as estimated by
    /// [`Document::bytes`]. Documents of more than half of that are never kept; with 0 none are.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self(GenerationCache::new(max_bytes))
    }

    /// The document of this text, if it is kept.
    #[must_use]
    pub fn get(&self, text: &str) -> Option<Arc<Cached<P>>> {
        self.0.get(text)
    }

    /// The document of this text, from the cache or prepared now and kept.
    ///
    /// The lock is not held while preparing, so two threads with the same new text may both do it.
    ///
    /// # Errors
    ///
    /// Those of [`Document::prepare`]; they are not kept.
    pub fn get_or_prepare(&self, text: &str, limits: &DocumentLimits) -> Result<Arc<Cached<P>>, DocumentError> {
        // What is too long to be accepted is not worth hashing either.
        if text.len() <= limits.max_bytes
            && let Some(found) = self.0.get(text)
        {
            return Ok(found);
        }
        let document = Document::prepare(text, limits)?;
        let bytes = ENTRY + text.len() + document.bytes();
        let cached = Arc::new(Cached { document, programs: OnceLock::new() });
        self.0.insert(Arc::from(text), Arc::clone(&cached), bytes);
        Ok(cached)
    }

    /// Keeps what was compiled of the document of this text, which takes so many bytes; `None` if nothing could be. What is
    /// known stays.
    pub fn keep_programs(&self, text: &str, document: &Cached<P>, programs: Option<P>, bytes: usize) {
        if document.programs.set(programs).is_ok() {
            self.0.charge(text, bytes);
        }
    }

    /// Texts, documents and programs now kept, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }
}
