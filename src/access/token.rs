//! JSON Web Tokens: verified with the keys of the settings, which are kept up to date.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, de::IgnoredAny};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    KeyId, KeySet, Refusal, Reload, Rights, Settings, WatchedFile,
    claims::{Checked, Rules},
    fetch::Fetcher,
    fetching::Fetching,
    jwks,
    key_set::VerifyingKey,
};
use crate::broker::Timestamp;

/// Bytes of the longest token. Longer ones do not fit into the headers that proxies pass on.
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// How long a token whose key is unknown waits for keys that are being fetched.
const FETCH_WAIT: Duration = Duration::from_secs(2);

/// What a token says, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The name of the principal (`sub`).
    pub name: String,
    /// What it may do; nothing if the token does not say.
    pub rights: Rights,
    /// When the token stops being valid: `exp` and the leeway.
    pub expires: Timestamp,
    /// The key that has verified it. When [`Tokens::keys`] no longer contains it, the token is withdrawn.
    pub key_id: KeyId,
}

/// Verifies tokens; clones share the keys.
#[derive(Clone)]
pub struct Tokens(Arc<Shared>);

struct Shared {
    rules: Rules,
    keys: watch::Sender<Arc<KeySet>>,
    source: Source,
}

/// Where the keys come from.
enum Source {
    /// `JWT_SECRET`: they do not change.
    Fixed,
    /// A file, and how it is read.
    File { setting: &'static str, path: String, parse: fn(&[u8]) -> Result<KeySet, String> },
    /// `JWT_JWKS_URL`.
    Url { fetcher: Fetcher, fetching: Fetching },
}

/// What is used of a token's header. It never says where a key is: `jku`, `jwk` and `x5u` are left alone.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl Header {
    fn of(token: &str) -> Result<Self, Refusal> {
        let header = token.split('.').next().unwrap_or_default();
        let header = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| Refusal::Malformed)?;
        let header: Self = serde_json::from_slice(&header).map_err(|_| Refusal::Malformed)?;
        // A token may require its reader to know an extension (RFC 7515, section 4.1.11), and none is known here.
        if header.crit.is_some() { Err(Refusal::Malformed) } else { Ok(header) }
    }
}

impl Tokens {
    /// Reads the keys that the settings name; `None` if they name none. Keys from a URL are fetched by
    /// [`keep_up_to_date`](Self::keep_up_to_date). It blocks the thread.
    ///
    /// # Errors
    /// What is wrong, in one line that names the setting and the file.
    pub fn open(settings: &Settings) -> Result<Option<Self>, String> {
        let source = if !settings.jwt_secret.is_empty() {
            Source::Fixed
        } else if !settings.jwt_public_key_file.is_empty() {
            let path = settings.jwt_public_key_file.clone();
            Source::File { setting: "JWT_PUBLIC_KEY_FILE", path, parse: jwks::parse_pem }
        } else if !settings.jwt_jwks_file.is_empty() {
            Source::File { setting: "JWT_JWKS_FILE", path: settings.jwt_jwks_file.clone(), parse: jwks::parse }
        } else if !settings.jwt_jwks_url.is_empty() {
            let fetcher = Fetcher::new(&settings.jwt_jwks_url).map_err(|wrong| format!("JWT_JWKS_URL: {wrong}"))?;
            Source::Url { fetcher, fetching: Fetching::default() }
        } else {
            return Ok(None);
        };
        let keys = match &source {
            Source::Fixed => KeySet::new(vec![VerifyingKey::secret(settings.jwt_secret.reveal())]),
            Source::File { setting, path, parse } => {
                let read = WatchedFile::new(path).read();
                let keys = read.and_then(|text| parse(&text).map_err(|wrong| format!("{path}: {wrong}")));
                keys.map_err(|wrong| format!("{setting}: {wrong}"))?
            }
            Source::Url { .. } => KeySet::default(),
        };
        let (keys, rules) = (watch::channel(Arc::new(keys)).0, Rules::new(settings));
        Ok(Some(Self(Arc::new(Shared { rules, keys, source }))))
    }

    /// The keys, and when they change.
    #[must_use]
    pub fn keys(&self) -> watch::Receiver<Arc<KeySet>> {
        self.0.keys.subscribe()
    }

    /// Verifies a token. With `JWT_JWKS_URL`, a token that names an unknown key waits up to 2 s for keys that are being
    /// fetched: so a token works at once after its issuer has changed keys, if the last fetch is a minute ago.
    ///
    /// # Errors
    /// Why it is refused.
    pub async fn verify(&self, token: &str) -> Result<Verified, Refusal> {
        let verified = self.verify_now(token);
        let (Source::Url { fetching, .. }, Err(refusal)) = (&self.0.source, &verified) else { return verified };
        let may_help = match refusal {
            Refusal::UnknownKey | Refusal::KeysUnavailable => true,
            // An issuer with one key may have changed it without changing its name.
            Refusal::BadSignature => self.0.keys.borrow().len() == 1,
            _ => false,
        };
        if !may_help {
            return verified;
        }
        let mut fetched = fetching.fetched();
        if fetching.ask() {
            // Without an answer in time the token is checked with the keys that there are.
            let _ = timeout(FETCH_WAIT, fetched.changed()).await;
        }
        self.verify_now(token)
    }

    /// Verifies a token with the keys that there are.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify_now(&self, token: &str) -> Result<Verified, Refusal> {
        self.verify_at(token, Timestamp::now())
    }

    pub(super) fn verify_at(&self, token: &str, now: Timestamp) -> Result<Verified, Refusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refusal::Malformed);
        }
        let header = Header::of(token)?;
        let keys = self.0.keys.borrow().clone();
        let key = keys.find(header.kid.as_deref(), &header.alg)?;
        let claims = key.open(token)?;
        let Checked { name, rights, expires } = self.0.rules.check(&claims, now)?;
        Ok(Verified { name, rights, expires, key_id: key.id() })
    }

    /// Keeps the keys up to date until `stop`. What cannot be used leaves the last good keys as they are, is logged, and
    /// counts as a failure of `reload`.
    pub async fn keep_up_to_date(&self, reload: &Reload, stop: CancellationToken) {
        let keep = async {
            match &self.0.source {
                Source::Fixed => {}
                Source::File { setting, path, parse } => self.follow(setting, path, *parse, reload).await,
                Source::Url { fetcher, fetching } => {
                    fetching.run(|| fetcher.fetch(), reload, |keys| self.install("JWT_JWKS_URL", keys)).await;
                }
            }
        };
        tokio::select! {
            () = keep => {}
            () = stop.cancelled() => {}
        }
    }

    async fn follow(
        &self,
        setting: &'static str,
        path: &str,
        parse: fn(&[u8]) -> Result<KeySet, String>,
        reload: &Reload,
    ) {
        let (mut file, mut asked) = (WatchedFile::new(path), reload.listen());
        loop {
            let read = file.changed(&mut asked).await;
            match read.and_then(|text| parse(&text).map_err(|wrong| format!("{path}: {wrong}"))) {
                Ok(keys) => self.install(setting, keys),
                Err(error) => {
                    reload.failed();
                    tracing::warn!(setting, %error, "the keys for tokens stay as they were");
                }
            }
        }
    }

    fn install(&self, setting: &'static str, keys: KeySet) {
        let keys = Arc::new(keys);
        let count = keys.len();
        let changed = self.0.keys.send_if_modified(|current| {
            let changed = **current != *keys;
            *current = keys;
            changed
        });
        if changed {
            tracing::info!(setting, keys = count, "the keys for tokens have changed");
        }
    }
}
