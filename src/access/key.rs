//! Keys: random text that a client sends as its credential. The server knows only their hashes.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

/// What generated keys begin with, so that people and scanners for leaked secrets recognize them.
pub const PREFIX: &str = "psk_";

/// Random bytes of a generated key: 192 bits. In hexadecimal it is shorter than a hash, so nobody takes one for the other.
const RANDOM_BYTES: usize = 24;

/// The SHA-256 hash of a key, which stands in `ACCESS_FILE` and is looked up in a map.
///
/// The comparison needs no constant time. What an attacker could measure is how far the hash of its guess agrees with a
/// stored hash; it cannot choose that hash, and neither hash leads back to a key. A slow hash is not needed either: keys
/// are random, unlike passwords.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }
}

impl FromStr for KeyHash {
    type Err = &'static str;

    /// Reads `sha256:` and 64 hexadecimal digits in lower case. The error does not contain the text, which may be a key.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "must be \"sha256:\" and 64 hexadecimal digits in lower case; `pub-sub key NAME` creates a key \
                             and prints its hash, and the key itself does not belong here";
        let digits = text.strip_prefix("sha256:").ok_or(WRONG)?.as_bytes();
        if digits.len() != 64 {
            return Err(WRONG);
        }
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(WRONG),
        };
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    /// Shows nothing: a short key that somebody chose can be guessed from its hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// A new key: `psk_` and 48 hexadecimal digits, 192 random bits from the operating system. It can stand in a URL and in
/// a header as it is.
///
/// # Errors
/// When the operating system has no random numbers.
pub fn generate() -> Result<String, &'static str> {
    let mut random = [0; RANDOM_BYTES];
    SystemRandom::new().fill(&mut random).map_err(|_| "the operating system has no random numbers")?;
    let mut key = PREFIX.to_owned();
    for byte in random {
        // Writing to a String cannot fail.
        let _ = write!(key, "{byte:02x}");
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_written_as_they_are_read() {
        // printf %s hunter2 | sha256sum
        let text = "sha256:f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7";
        assert_eq!(KeyHash::of("hunter2").to_string(), text);
        assert_eq!(text.parse(), Ok(KeyHash::of("hunter2")));
        assert!(!format!("{:?}", KeyHash::of("hunter2")).contains("f52f"));
    }

    #[test]
    fn a_key_is_no_hash_and_is_not_repeated() {
        let hash = KeyHash::of("x").to_string();
        for bad in ["psk_0123456789", "", "sha256:", &hash[..70], &hash.to_uppercase(), &format!("{hash}0"), &hash[7..]]
        {
            let error = bad.parse::<KeyHash>().unwrap_err();
            assert!(error.contains("pub-sub key NAME") && !error.contains("0123456789"), "{error}");
        }
        assert!("sha256:ööööööööööööööööööööööööööööööööx".parse::<KeyHash>().is_err());
    }

    #[test]
    fn keys_are_random_and_safe_in_urls() {
        let (a, b) = (generate().unwrap(), generate().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), PREFIX.len() + 48);
        assert!(a.starts_with(PREFIX) && a[4..].bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
