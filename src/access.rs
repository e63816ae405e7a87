//! Credentials: what turns the text that a client sends into verified facts. It knows the types of the broker that
//! permissions are made of, and nothing else of this crate.
//!
//! - Keys: [`AccessRules`] is what `ACCESS_FILE` says; a key is looked up by its [`KeyHash`].
//! - JSON Web Tokens: [`Tokens`] verifies them with the keys of the settings, and keeps those keys up to date.
//! - Files: [`WatchedFile`] reads a file again when its content changes, or when a [`Reload`] is asked for.
//!
//! Architecture invariant: the algorithm of a token comes from the key that is configured, never from the token.
//!
//! Architecture invariant: no error, no log line and no `Debug` output contains a key, a secret or a token.

mod claims;
mod fetch;
mod fetching;
mod file;
mod file_fields;
mod jwks;
mod key;
mod key_set;
mod name;
mod refusal;
mod rights;
mod settings;
mod signature;
#[cfg(test)]
mod signer;
mod token;
mod watch;

pub use file::{AccessRules, KeyRule, entry};
pub use key::{KeyHash, PREFIX, generate};
pub use key_set::{KeyId, KeySet};
pub use name::{ANONYMOUS, API_KEY, check_name};
pub use refusal::Refusal;
pub use rights::Rights;
pub use settings::Settings;
pub use token::{Tokens, Verified};
pub use watch::{Reload, WatchedFile};
