//! Documents that clients name by their SHA-256 hash: automatic ones, sent once and kept while there is room, and an
//! allow-list from a file, which can be made the only way in.

use std::{collections::HashMap, path::Path, sync::Arc};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Known documents by their hash.
pub struct Persisted {
    listed: HashMap<String, Arc<str>>,
    only_listed: bool,
    automatic: Mutex<Automatic>,
}

/// Documents that clients registered: two generations, so that forgetting the oldest costs nothing.
#[derive(Default)]
struct Automatic {
    young: HashMap<String, Arc<str>>,
    old: HashMap<String, Arc<str>>,
    young_bytes: usize,
    max_bytes: usize,
}

/// What a request names by hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The hash is not known: the client sends the document with it.
    NotFound,
    /// The document does not have this hash.
    Mismatch,
    /// Only listed documents are executed here.
    NotListed,
}

impl Refusal {
    /// The message, in the words that Apollo's clients look for.
    pub fn message(self) -> &'static str {
        match self {
            Refusal::NotFound => "PersistedQueryNotFound",
            Refusal::Mismatch => "provided sha does not match query",
            Refusal::NotListed => "only documents on this server's list are executed",
        }
    }

    /// The code, likewise.
    pub fn code(self) -> &'static str {
        match self {
            Refusal::NotFound => "PERSISTED_QUERY_NOT_FOUND",
            Refusal::Mismatch => "BAD_REQUEST",
            Refusal::NotListed => "FORBIDDEN",
        }
    }
}

impl Persisted {
    /// Listed documents, and automatic ones in at most `max_bytes`.
    pub fn new(listed: HashMap<String, Arc<str>>, only_listed: bool, max_bytes: usize) -> Self {
        // Each generation may take half.
        let automatic = Automatic { max_bytes: max_bytes / 2, ..Automatic::default() };
        Self { listed, only_listed, automatic: Mutex::new(automatic) }
    }

    /// The document of a request that gives a text, a hash, or both.
    pub fn resolve(&self, text: Option<String>, hash: Option<&str>) -> Result<String, Refusal> {
        let known = hash.and_then(|hash| self.listed.get(hash).cloned().or_else(|| self.automatic.lock().get(hash)));
        match (text, hash, known) {
            (None, _, None) if self.only_listed => Err(Refusal::NotListed),
            (None, _, None) => Err(Refusal::NotFound),
            (None, _, Some(known)) => Ok(known.to_string()),
            (Some(text), None, _) if !self.only_listed => Ok(text),
            (Some(text), hash, _) => {
                let own = hash_of(&text);
                if hash.is_some_and(|hash| hash != own) {
                    return Err(Refusal::Mismatch);
                }
                if self.only_listed && !self.listed.contains_key(&own) {
                    return Err(Refusal::NotListed);
                }
                Ok(text)
            }
        }
    }

    /// Keeps a document that was found valid under the hash that its request gave.
    pub fn keep(&self, hash: &str, text: &str) {
        if !self.only_listed && !self.listed.contains_key(hash) {
            self.automatic.lock().insert(hash, text);
        }
    }
}

impl Automatic {
    fn get(&mut self, hash: &str) -> Option<Arc<str>> {
        if let Some(text) = self.young.get(hash) {
            return Some(text.clone());
        }
        let text = self.old.remove(hash)?;
        self.insert(hash, &text);
        Some(text)
    }

    fn insert(&mut self, hash: &str, text: &str) {
        // The entry, its key and the text.
        let bytes = 128 + hash.len() + text.len();
        if bytes > self.max_bytes || self.young.contains_key(hash) {
            return;
        }
        if self.young_bytes + bytes > self.max_bytes {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young.insert(hash.to_owned(), text.into());
        self.young_bytes += bytes;
    }
}

/// The SHA-256 hash of a document, in lower-case hexadecimal.
fn hash_of(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads an allow-list: a JSON object of documents by hash, or an array of documents.
///
/// # Errors
/// What is wrong, in one line.
pub fn read_list(path: &Path) -> Result<HashMap<String, Arc<str>>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let wrong = |what: &str| format!("{}: {what}", path.display());
    let documents: Vec<(Option<String>, String)> = match serde_json::from_str(&text) {
        Ok(serde_json::Value::Object(fields)) => fields
            .into_iter()
            .map(|(hash, text)| Some((Some(hash), text.as_str()?.to_owned())))
            .collect::<Option<_>>()
            .ok_or_else(|| wrong("every document must be a string"))?,
        Ok(serde_json::Value::Array(items)) => items
            .into_iter()
            .map(|text| Some((None, text.as_str()?.to_owned())))
            .collect::<Option<_>>()
            .ok_or_else(|| wrong("every document must be a string"))?,
        _ => return Err(wrong("must be a JSON object of documents by SHA-256 hash, or an array of documents")),
    };
    let mut listed = HashMap::new();
    for (hash, text) in documents {
        let own = hash_of(&text);
        if hash.is_some_and(|hash| hash.trim_start_matches("sha256:") != own) {
            return Err(wrong(&format!("a document does not have its hash; it should be {own}")));
        }
        listed.insert(own, text.into());
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{ health { status } }";

    #[test]
    fn automatic_ones_are_kept_by_their_hash() {
        let persisted = Persisted::new(HashMap::new(), false, 4_000);
        let hash = hash_of(TEXT);
        assert_eq!(persisted.resolve(None, Some(&hash)), Err(Refusal::NotFound));
        assert_eq!(persisted.resolve(Some(TEXT.to_owned()), Some("0")), Err(Refusal::Mismatch));
        assert_eq!(persisted.resolve(Some(TEXT.to_owned()), Some(&hash)).as_deref(), Ok(TEXT));
        persisted.keep(&hash, TEXT);
        assert_eq!(persisted.resolve(None, Some(&hash)).as_deref(), Ok(TEXT));
        for number in 0..1_000 {
            persisted.keep(&number.to_string(), TEXT);
        }
        let automatic = persisted.automatic.lock();
        assert!(automatic.young.len() + automatic.old.len() < 40, "bounded");
    }

    #[test]
    fn a_list_can_be_the_only_way_in() {
        let listed = HashMap::from([(hash_of(TEXT), TEXT.into())]);
        let persisted = Persisted::new(listed, true, 4_000);
        assert_eq!(persisted.resolve(None, Some(&hash_of(TEXT))).as_deref(), Ok(TEXT));
        assert_eq!(persisted.resolve(Some(TEXT.to_owned()), None).as_deref(), Ok(TEXT));
        assert_eq!(persisted.resolve(Some("{ stats { topics } }".to_owned()), None), Err(Refusal::NotListed));
        persisted.keep("1", "x");
        assert_eq!(persisted.resolve(None, Some("1")), Err(Refusal::NotListed));
    }
}
