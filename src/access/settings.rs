//! Which credentials the server accepts.

use std::time::Duration;

use super::{AccessRules, WatchedFile, fetch};
use crate::broker::Secret;

/// The longest leeway: clocks that differ by more than this are broken, and a longer one makes expired tokens useful.
const MAX_LEEWAY: Duration = Duration::from_hours(1);

/// HS256 needs a secret of at least as many bytes as its hash has (RFC 7518, section 3.2).
const STRONG_SECRET_BYTES: usize = 32;

/// The claims that have a meaning of their own.
const REGISTERED_CLAIMS: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];

/// Which credentials the server accepts. Text that is empty is not set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A key that may do everything.
    pub api_key: Secret,
    /// The path of the TOML file of keys.
    pub access_file: String,
    /// The secret that tokens are signed with (HS256).
    pub jwt_secret: Secret,
    /// The path of the PEM file of the public key that tokens are checked with.
    pub jwt_public_key_file: String,
    /// Where to fetch the set of keys that tokens are checked with.
    pub jwt_jwks_url: String,
    /// The path of a file with such a set.
    pub jwt_jwks_file: String,
    /// The issuer that tokens must have.
    pub jwt_issuer: String,
    /// The audience that tokens must have.
    pub jwt_audience: String,
    /// By how much the clocks of the issuer and of this server may differ.
    pub jwt_leeway: Duration,
    /// The name of the claim that says what its owner may do.
    pub jwt_claim: String,
    /// Whether credentials may stand in the query of a URL.
    pub auth_query_token: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api_key: Secret::default(),
            access_file: String::new(),
            jwt_secret: Secret::default(),
            jwt_public_key_file: String::new(),
            jwt_jwks_url: String::new(),
            jwt_jwks_file: String::new(),
            jwt_issuer: String::new(),
            jwt_audience: String::new(),
            jwt_leeway: Duration::from_secs(30),
            jwt_claim: "pubsub".to_owned(),
            auth_query_token: false,
        }
    }
}

impl Settings {
    /// Whether clients need credentials. If not, everybody may do everything.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        !self.api_key.is_empty() || !self.access_file.is_empty() || self.token_keys().next().is_some()
    }

    /// The settings that say which keys tokens are checked with, of those that are set. [`check`](Self::check) allows one.
    fn token_keys(&self) -> impl Iterator<Item = &'static str> {
        let set = [
            ("JWT_SECRET", !self.jwt_secret.is_empty()),
            ("JWT_PUBLIC_KEY_FILE", !self.jwt_public_key_file.is_empty()),
            ("JWT_JWKS_URL", !self.jwt_jwks_url.is_empty()),
            ("JWT_JWKS_FILE", !self.jwt_jwks_file.is_empty()),
        ];
        set.into_iter().filter(|(_, set)| *set).map(|(name, _)| name)
    }

    /// Checks how the values go together, without reading files.
    ///
    /// # Errors
    /// What is wrong, in one line that begins with the name of the setting.
    pub fn check(&self) -> Result<(), String> {
        let mut keys = self.token_keys();
        let first = keys.next();
        if let (Some(first), Some(second)) = (first, keys.next()) {
            return Err(format!(
                "{second}: must not be set together with {first}: tokens are checked with one of them"
            ));
        }
        let defaults = Self::default();
        let about_tokens = [
            ("JWT_ISSUER", self.jwt_issuer != defaults.jwt_issuer),
            ("JWT_AUDIENCE", self.jwt_audience != defaults.jwt_audience),
            ("JWT_LEEWAY", self.jwt_leeway != defaults.jwt_leeway),
            ("JWT_CLAIM", self.jwt_claim != defaults.jwt_claim),
        ];
        if let (None, Some((name, _))) = (first, about_tokens.into_iter().find(|(_, set)| *set)) {
            return Err(format!(
                "{name}: has no effect without JWT_SECRET, JWT_PUBLIC_KEY_FILE, JWT_JWKS_URL or JWT_JWKS_FILE"
            ));
        }
        if self.jwt_leeway > MAX_LEEWAY {
            return Err("JWT_LEEWAY: must be at most 1h".to_owned());
        }
        if self.jwt_claim.is_empty() || REGISTERED_CLAIMS.contains(&self.jwt_claim.as_str()) {
            return Err(format!("JWT_CLAIM: must name a claim of its own, not {:?}", self.jwt_claim));
        }
        if !self.jwt_jwks_url.is_empty() {
            fetch::check_url(&self.jwt_jwks_url).map_err(|wrong| format!("JWT_JWKS_URL: {wrong}"))?;
        }
        Ok(())
    }

    /// What is allowed and should not be, for the log at the start.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        let length = self.jwt_secret.reveal().len();
        let weak = (1..STRONG_SECRET_BYTES).contains(&length);
        let warning = "JWT_SECRET is shorter than 32 bytes: whoever has a token may find the secret by trying";
        weak.then_some(warning).into_iter().collect()
    }

    /// Reads `ACCESS_FILE`, if it is set.
    ///
    /// # Errors
    /// What is wrong, in one line that names the setting and the file.
    pub fn access_rules(&self) -> Result<Option<AccessRules>, String> {
        if self.access_file.is_empty() {
            return Ok(None);
        }
        let rules = WatchedFile::new(&self.access_file)
            .read_text()
            .and_then(|text| AccessRules::parse(&text).map_err(|wrong| format!("{}: {wrong}", self.access_file)));
        rules.map(Some).map_err(|wrong| format!("ACCESS_FILE: {wrong}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn each_kind_of_credential_restricts_the_server() {
        assert!(!Settings::default().is_restricted());
        assert!(!Settings { auth_query_token: true, ..Settings::default() }.is_restricted());
        for settings in [
            Settings { api_key: secret("x"), ..Settings::default() },
            Settings { access_file: "x".to_owned(), ..Settings::default() },
            Settings { jwt_secret: secret("x"), ..Settings::default() },
            Settings { jwt_public_key_file: "x".to_owned(), ..Settings::default() },
            Settings { jwt_jwks_url: "https://x".to_owned(), ..Settings::default() },
            Settings { jwt_jwks_file: "x".to_owned(), ..Settings::default() },
        ] {
            assert!(settings.is_restricted(), "{settings:?}");
            assert_eq!(settings.check(), Ok(()));
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let base = Settings { jwt_secret: secret("x"), ..Settings::default() };
        for (settings, name) in [
            (Settings { jwt_jwks_url: "https://x".to_owned(), ..base.clone() }, "JWT_JWKS_URL: "),
            (Settings { jwt_jwks_file: "x".to_owned(), ..base.clone() }, "JWT_JWKS_FILE: "),
            (Settings { jwt_public_key_file: "x".to_owned(), ..base.clone() }, "JWT_PUBLIC_KEY_FILE: "),
            (Settings { jwt_leeway: Duration::from_secs(3601), ..base.clone() }, "JWT_LEEWAY: "),
            (Settings { jwt_claim: "sub".to_owned(), ..base.clone() }, "JWT_CLAIM: "),
            (Settings { jwt_issuer: "x".to_owned(), ..Settings::default() }, "JWT_ISSUER: has no effect"),
            (Settings { jwt_audience: "x".to_owned(), ..Settings::default() }, "JWT_AUDIENCE: has no effect"),
            (Settings { jwt_jwks_url: "http://example.com/".to_owned(), ..Settings::default() }, "JWT_JWKS_URL: "),
        ] {
            let error = settings.check().unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
        assert_eq!(base.check(), Ok(()));
    }

    #[test]
    fn a_short_secret_gives_a_warning() {
        let warnings = |text: &str| Settings { jwt_secret: secret(text), ..Settings::default() }.warnings().len();
        assert_eq!((warnings(""), warnings(&"x".repeat(31)), warnings(&"x".repeat(32))), (0, 1, 0));
    }

    #[test]
    fn an_access_file_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.toml");
        let rules = || Settings { access_file: path.display().to_string(), ..Settings::default() }.access_rules();
        let error = rules().unwrap_err();
        assert!(error.starts_with("ACCESS_FILE: ") && error.contains("access.toml: "), "{error}");
        std::fs::write(&path, "[[key]]\n").unwrap();
        let error = rules().unwrap_err();
        assert!(error.ends_with("access.toml: line 1: key: must have a name"), "{error}");
        std::fs::write(&path, "[anonymous]\n").unwrap();
        assert!(rules().unwrap().is_some());
        assert_eq!(Settings::default().access_rules(), Ok(None));
    }
}
