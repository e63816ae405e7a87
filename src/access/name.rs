//! The names of principals.

use crate::broker::MAX_NAME_BYTES;

/// The name of a client without credentials.
pub const ANONYMOUS: &str = "anonymous";

/// The name of the client that has the key of the setting `API_KEY`.
pub const API_KEY: &str = "api_key";

/// Checks the name of a principal: 1 to 255 bytes of UTF-8 without control characters, and none of the names that the
/// server itself gives.
///
/// # Errors
/// The part of the rule that the name breaks.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("must not be empty")
    } else if name.len() > MAX_NAME_BYTES {
        Err("must be at most 255 bytes of UTF-8")
    } else if name.chars().any(char::is_control) {
        Err("must not contain control characters")
    } else if name.trim() != name {
        Err("must not begin or end with white space")
    } else if name == ANONYMOUS || name == API_KEY {
        Err("must not be \"anonymous\" or \"api_key\", which are the server's own names")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_rule() {
        for good in ["billing", "a", "Ü n", "auth0|5f7c", "x@example.com", &"x".repeat(255)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", " a", "a ", "a\nb", "a\u{7f}", "\u{85}a", "anonymous", "api_key", &"x".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
