//! The keys that tokens are verified with.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Validation, errors::ErrorKind};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{Refusal, signature::use_ring};

/// Bytes of the largest RSA key: a modulus of 8,192 bits, and what its encoding adds.
const MAX_RSA_BYTES: usize = 1_040;

/// Which key has verified a token. Another key under the same name (`kid`) is another key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 32]);

impl fmt::Debug for KeyId {
    /// Shows nothing: a weak secret can be guessed from its hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyId(…)")
    }
}

/// One key, with the one algorithm that it is used with.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    id: KeyId,
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl VerifyingKey {
    /// A key under the name that tokens call it by.
    fn new(kid: Option<String>, algorithm: Algorithm, key: DecodingKey) -> Self {
        use_ring();
        let mut hash = Sha256::new_with_prefix([algorithm as u8]);
        match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => hash.update(bytes),
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                hash.update((n.len() as u64).to_be_bytes());
                hash.update(n);
                hash.update(e);
            }
        }
        Self { id: KeyId(hash.finalize().into()), kid, algorithm, key }
    }

    /// A secret for HS256.
    pub fn secret(secret: &str) -> Self {
        Self::new(None, Algorithm::HS256, DecodingKey::from_secret(secret.as_bytes()))
    }

    /// A public key, whose kind says the algorithm.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn public(kid: Option<String>, algorithm: Algorithm, key: DecodingKey) -> Result<Self, &'static str> {
        let length = match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
            DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
        };
        // The encodings of one point of a curve have one length, and ring takes no RSA key outside of these bounds.
        match algorithm {
            Algorithm::RS256 if length < 256 => Err("an RSA key must have 2,048 bits or more"),
            Algorithm::RS256 if length > MAX_RSA_BYTES => Err("an RSA key must have at most 8,192 bits"),
            Algorithm::ES256 if length != 65 => Err("an elliptic curve must be P-256"),
            Algorithm::EdDSA if length != 32 => Err("an Edwards curve must be Ed25519"),
            _ => Ok(Self::new(kid, algorithm, key)),
        }
    }

    /// Which key it is.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The algorithm as tokens write it.
    fn algorithm_name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::HS256 => "HS256",
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            // No other algorithm gets here.
            _ => "EdDSA",
        }
    }

    /// Verifies the signature, and returns the claims as they are.
    ///
    /// # Errors
    /// [`Refusal::BadSignature`], [`Refusal::BadClaims`], [`Refusal::Malformed`].
    pub fn open(&self, token: &str) -> Result<Box<RawValue>, Refusal> {
        let mut validation = Validation::new(self.algorithm);
        // The claims are checked in `claims.rs`: with serde_json's arbitrary precision jsonwebtoken reads no numbers.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        match jsonwebtoken::decode(token, &self.key, &validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature => Refusal::BadSignature,
                ErrorKind::InvalidAlgorithm => Refusal::WrongAlgorithm,
                ErrorKind::Json(_) => Refusal::BadClaims("the token's header or claims are malformed"),
                _ => Refusal::Malformed,
            }),
        }
    }
}

/// The keys that tokens are verified with at one moment. There are none before the first set was fetched.
#[derive(Clone, Default)]
pub struct KeySet(Vec<VerifyingKey>);

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySet({} keys)", self.0.len())
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        let names = |set: &Self| set.0.iter().map(|key| (key.kid.clone(), key.id)).collect::<Vec<_>>();
        names(self) == names(other)
    }
}

impl KeySet {
    pub(super) fn new(keys: Vec<VerifyingKey>) -> Self {
        Self(keys)
    }

    /// Whether tokens that this key has verified are still valid.
    #[must_use]
    pub fn contains(&self, id: KeyId) -> bool {
        self.0.iter().any(|key| key.id == id)
    }

    /// Whether there are no keys yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The key of a token with this header. A token that names no key can only mean the only one.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: &str) -> Result<&VerifyingKey, Refusal> {
        let found: Vec<_> = match (kid, self.0.as_slice()) {
            (_, []) => return Err(Refusal::KeysUnavailable),
            // A secret or a key in a PEM file has no name, and tokens may call it by any.
            (_, [only]) if only.kid.is_none() => vec![only],
            (None, [only]) => vec![only],
            (None, _) => return Err(Refusal::UnknownKey),
            (Some(kid), keys) => keys.iter().filter(|key| key.kid.as_deref() == Some(kid)).collect(),
        };
        // Keys of different kinds may have one name.
        match found.iter().find(|key| key.algorithm_name() == algorithm) {
            Some(key) => Ok(*key),
            None if found.is_empty() => Err(Refusal::UnknownKey),
            None => Err(Refusal::WrongAlgorithm),
        }
    }
}
