//! Where a server is.

use std::fmt;

use hyper::Uri;

/// The address of a server: scheme, host, port, and the path in front of its own paths if a proxy put one there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    is_tls: bool,
    /// Host and port.
    authority: String,
    /// Empty, or with a slash at its beginning and none at its end.
    prefix: String,
}

impl Address {
    /// Reads a URL. Without a scheme it is `http`; `ws` and `wss` are taken for `http` and `https`.
    ///
    /// # Errors
    /// What is wrong, in words that fit behind the name of the flag.
    pub fn parse(text: &str) -> Result<Self, String> {
        let example = "must be a URL like http://localhost:8080";
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text.trim()));
        let is_tls = match scheme {
            "http" | "ws" => false,
            "https" | "wss" => true,
            _ => return Err(format!("{example}, and not begin with {scheme}://")),
        };
        let uri: Uri = format!("http://{rest}").parse().map_err(|_| example)?;
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(example)?;
        if authority.as_str().contains('@') {
            return Err("must not contain a user or a password; --token signs in".to_owned());
        }
        if uri.query().is_some() {
            return Err(format!("{example}, without parameters"));
        }
        Ok(Self {
            is_tls,
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Host and port, as a request names them.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The address of a path of the server, which begins with a slash.
    ///
    /// # Errors
    /// A path that cannot stand in a URL.
    pub fn http(&self, path: &str) -> Result<Uri, String> {
        self.with_scheme(if self.is_tls { "https" } else { "http" }, path)
    }

    /// The same for a WebSocket.
    ///
    /// # Errors
    /// A path that cannot stand in a URL.
    pub fn web_socket(&self, path: &str) -> Result<Uri, String> {
        self.with_scheme(if self.is_tls { "wss" } else { "ws" }, path)
    }

    fn with_scheme(&self, scheme: &str, path: &str) -> Result<Uri, String> {
        let text = format!("{scheme}://{}{}{path}", self.authority, self.prefix);
        text.parse().map_err(|error| format!("{text} is no URL: {error}"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.authority, self.prefix)
    }
}

/// Percent-encodes one segment of a path, or one value of a query.
pub fn encode(text: &str) -> String {
    // RFC 3986, 2.3: what is never escaped.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The parameters as a query, with its question mark; those without a value are left out.
pub fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(&format!("{name}={}", encode(value)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_people_write_them() {
        for (text, shown) in [
            ("http://localhost:8080", "http://localhost:8080"),
            ("localhost:8080", "http://localhost:8080"),
            ("wss://example.org/", "https://example.org"),
            ("https://example.org/pub/sub/", "https://example.org/pub/sub"),
            ("http://[::1]:9", "http://[::1]:9"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
        for bad in ["", "ftp://x", "http://", "http://a:b@c", "http://x/?a=b", "http://x y"] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
        let address = Address::parse("https://example.org/p").unwrap();
        assert_eq!(address.http("/publish").unwrap().to_string(), "https://example.org/p/publish");
        assert_eq!(address.web_socket("/ws").unwrap().to_string(), "wss://example.org/p/ws");
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("orders.>/é~"), "orders.%3E%2F%C3%A9~");
        assert_eq!(query(&[("last", Some("5")), ("after", None), ("filter", Some("{}"))]), "?last=5&filter=%7B%7D");
        assert_eq!(query(&[("last", None)]), "");
    }
}
