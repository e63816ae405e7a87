//! Documents that clients name by their SHA-256 hash: automatic ones, sent once and kept while there is room, and an
//! allow-list from a file, which can be made the only way in.

use std::{collections::HashMap, path::Path, sync::Arc};

use sha2::{Digest, Sha256};

use super::generations::GenerationCache;
use crate::problem::{Code, Problem};

/// Known documents by their hash.
pub struct Persisted {
    listed: HashMap<String, Arc<str>>,
    only_listed: bool,
    /// Those that clients registered.
    automatic: GenerationCache<Arc<str>>,
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

impl From<Refusal> for Problem {
    /// The messages and the code of an unknown hash are those that Apollo's clients look for.
    fn from(refusal: Refusal) -> Self {
        let (code, message) = match refusal {
            Refusal::NotFound => (Code::PersistedQueryNotFound, "PersistedQueryNotFound"),
            Refusal::Mismatch => (Code::BadRequest, "provided sha does not match query"),
            Refusal::NotListed => (Code::Forbidden, "only documents on this server's list are executed"),
        };
        Problem::new(code, message)
    }
}

impl Persisted {
    /// Listed documents, and automatic ones in at most `max_bytes`.
    pub fn new(listed: HashMap<String, Arc<str>>, only_listed: bool, max_bytes: usize) -> Self {
        Self { listed, only_listed, automatic: GenerationCache::new(max_bytes) }
    }

    /// Whether a document may be executed that is on no list.
    pub fn accepts_all(&self) -> bool {
        !self.only_listed
    }

    /// The document of a hash.
    pub fn find(&self, hash: &str) -> Option<Arc<str>> {
        self.listed.get(hash).cloned().or_else(|| self.automatic.get(hash))
    }

    /// The document of a request that gives a text, a hash, or both.
    pub fn resolve(&self, text: Option<String>, hash: Option<&str>) -> Result<String, Refusal> {
        let known = hash.and_then(|hash| self.find(hash));
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
            // The entry, its key and the text.
            let bytes = 128 + hash.len() + text.len();
            self.automatic.insert(hash.into(), text.into(), bytes);
        }
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
        assert!(persisted.automatic.bytes() <= 4_000);
        assert_eq!(persisted.resolve(None, Some(&hash)), Err(Refusal::NotFound));
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
