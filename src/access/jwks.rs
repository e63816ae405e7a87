//! Reads keys: a JSON Web Key Set (RFC 7517), and a public key in a PEM file.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::key_set::{KeySet, VerifyingKey};

/// The most keys that are taken from one set. Issuers have two or three.
const MAX_KEYS: usize = 100;

/// The longest name of a key, in bytes. Names are compared with those in tokens.
const MAX_KID_BYTES: usize = 1_024;

#[derive(Deserialize)]
struct Jwks<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// What is used of one key. Other members, such as certificates, are left alone.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Reads a set of keys. Keys that are for something else, that are of other kinds, or that are malformed are left out:
/// a set may serve several purposes. Symmetric keys are left out, too: a published secret is none.
///
/// # Errors
/// Why there is no usable key in it. The message does not contain its text.
pub(super) fn parse(text: &[u8]) -> Result<KeySet, String> {
    let set: Jwks = serde_json::from_slice(text)
        .map_err(|error| format!("is no JSON Web Key Set (line {}, column {})", error.line(), error.column()))?;
    if set.keys.len() > MAX_KEYS {
        return Err(format!("has {} keys; at most {MAX_KEYS} are read", set.keys.len()));
    }
    let mut unusable = "it is empty";
    let mut keys = Vec::with_capacity(set.keys.len());
    for key in set.keys {
        match serde_json::from_str(key.get()).map_err(|_| "a key is malformed").and_then(key_of) {
            Ok(key) => keys.push(key),
            Err(wrong) => unusable = wrong,
        }
    }
    if keys.is_empty() {
        return Err(format!("has no key that tokens can be checked with (RS256, ES256, EdDSA): {unusable}"));
    }
    Ok(KeySet::new(keys))
}

fn key_of(jwk: Jwk) -> Result<VerifyingKey, &'static str> {
    if jwk.usage.is_some_and(|usage| usage != "sig") {
        return Err("a key is not for signatures");
    }
    if jwk.key_ops.is_some_and(|operations| !operations.iter().any(|operation| operation == "verify")) {
        return Err("a key is not for verifying");
    }
    if jwk.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
        return Err("a key's name is too long");
    }
    let part = |part: &Option<String>| part.clone().ok_or("a key is incomplete");
    let (algorithm, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => (Algorithm::RS256, Ok(rsa_key(&part(&jwk.n)?, &part(&jwk.e)?)?)),
        ("EC", Some("P-256")) => (Algorithm::ES256, DecodingKey::from_ec_components(&part(&jwk.x)?, &part(&jwk.y)?)),
        ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, DecodingKey::from_ed_components(&part(&jwk.x)?)),
        ("oct", _) => return Err("a key is symmetric"),
        _ => return Err("a key is of another kind"),
    };
    let named = match algorithm {
        Algorithm::RS256 => &["RS256"][..],
        Algorithm::ES256 => &["ES256"],
        // RFC 9864 names the algorithm by its curve.
        _ => &["EdDSA", "Ed25519"],
    };
    if jwk.alg.is_some_and(|alg| !named.contains(&alg.as_str())) {
        return Err("a key is for another algorithm");
    }
    VerifyingKey::public(jwk.kid, algorithm, key.map_err(|_| "a key is not in base64url")?)
}

/// ring refuses numbers that begin with zeros, which some issuers write.
fn rsa_key(modulus: &str, exponent: &str) -> Result<DecodingKey, &'static str> {
    let number = |text: &str| -> Result<Vec<u8>, &'static str> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| "a key is not in base64url")?;
        Ok(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
    };
    Ok(DecodingKey::from_rsa_raw_components(&number(modulus)?, &number(exponent)?))
}

/// Reads a public key in PEM: its kind says the algorithm.
///
/// # Errors
/// Why it cannot be used. The message does not contain its text.
pub(super) fn parse_pem(text: &[u8]) -> Result<KeySet, String> {
    let text = std::str::from_utf8(text).map_err(|_| "is not PEM text")?;
    let labels: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")).collect();
    let label = match labels.as_slice() {
        [] => return Err("contains no PEM block (-----BEGIN PUBLIC KEY-----)".to_owned()),
        [label] => label.trim_end_matches('-'),
        _ => return Err("contains several PEM blocks; only one public key belongs there".to_owned()),
    };
    match label {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
        "CERTIFICATE" => {
            return Err("is a certificate; `openssl x509 -in FILE -pubkey -noout` prints its public key".to_owned());
        }
        label if label.contains("PRIVATE KEY") => {
            return Err("is a private key, which only the issuer of tokens may have; \
                        `openssl pkey -in FILE -pubout` prints its public key"
                .to_owned());
        }
        _ => return Err("is not a public key (-----BEGIN PUBLIC KEY-----)".to_owned()),
    }
    let text = text.as_bytes();
    let (algorithm, key) = if let Ok(key) = DecodingKey::from_rsa_pem(text) {
        (Algorithm::RS256, key)
    } else if let Ok(key) = DecodingKey::from_ec_pem(text) {
        (Algorithm::ES256, key)
    } else if let Ok(key) = DecodingKey::from_ed_pem(text) {
        (Algorithm::EdDSA, key)
    } else {
        return Err("is no key of RSA, P-256 or Ed25519 that can be read".to_owned());
    };
    let key = VerifyingKey::public(None, algorithm, key).map_err(|wrong| format!("cannot be used: {wrong}"))?;
    Ok(KeySet::new(vec![key]))
}
