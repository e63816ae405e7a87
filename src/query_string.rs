//! The query string of an address, for all who read parameters from it.

use std::borrow::Cow;

use axum::http::Uri;
use percent_encoding::percent_decode_str;

use crate::broker::Error;

/// The parameters, in their order.
///
/// # Errors
/// [`Error::BadRequest`] for bytes that are not UTF-8. To replace them would be to act on something that the client did not
/// send.
pub fn parameters(uri: &Uri) -> Result<Vec<(String, String)>, Error> {
    let parts = uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decoded(name)?, decoded(value)?))
        })
        .collect()
}

/// A plus sign stands for a space, as forms write it.
fn decoded(text: &str) -> Result<String, Error> {
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8().map(Cow::into_owned);
    decoded.map_err(|_| Error::bad_request("query", "must be percent-encoded UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let read = |query: &str| parameters(&format!("/x?{query}").parse().unwrap());
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(read("a=1&b=%C3%BC+%2B&&c&=d"), Ok(pairs(&[("a", "1"), ("b", "ü +"), ("c", ""), ("", "d")])));
        assert_eq!(read(""), Ok(Vec::new()));
        assert_eq!(read("a=%"), Ok(pairs(&[("a", "%")])));
        for bad in ["a=%FF", "%C3=1", "a=1&b=%ED%A0%80"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
