//! Who may come in: what turns the text that a client sends into a principal of the broker. What a principal may do is
//! checked there, in front of each operation (`broker/client.rs`).
//!
//! - [`Access`] finds the principal of a credential, follows changed rules and keys, and withdraws what has expired.
//! - [`Visitor`] is who sends a request, [`SignIn`] whose messages come over a WebSocket.
//! - Keys: [`AccessRules`] is what `ACCESS_FILE` says; a key is looked up by its [`KeyHash`].
//! - JSON Web Tokens: [`Tokens`] verifies them with the keys of the settings, and keeps those keys up to date.
//! - Files: [`WatchedFile`] reads a file again when its content changes, or when a [`Reload`] is asked for.
//!
//! Architecture invariant: the algorithm of a token comes from the key that is configured, never from the token.
//!
//! Architecture invariant: no error, no log line and no `Debug` output contains a key, a secret or a token.

mod authority;
mod claims;
pub(crate) mod cookie;
mod fetch;
mod fetching;
mod file;
mod file_fields;
mod found;
mod jwks;
mod key;
mod key_set;
mod name;
mod refusal;
mod refusals;
mod sessions;
mod settings;
mod sign_in;
mod signature;
#[cfg(test)]
mod signer;
mod token;
mod visitor;
mod watch;

pub use crate::broker::Rights;
pub use authority::Access;
pub use file::{AccessRules, KeyRule, entry};
pub use key::{KeyHash, PREFIX, generate};
pub use key_set::{KeyId, KeySet};
pub use name::{ANONYMOUS, API_KEY, check_name};
pub use refusal::Refusal;
pub use settings::Settings;
pub use sign_in::{ACCESS_CHANGED, SignIn};
pub use token::{Tokens, Verified};
pub use visitor::{Caller, Visitor};
pub use watch::{Reload, WatchedFile};

pub use cookie::routes;
pub use found::{CREDENTIAL_PARAMETER, bearer};
