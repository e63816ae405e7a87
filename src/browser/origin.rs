//! Origins as browsers send them (RFC 6454, section 6.2), and those that the operator allows.

use std::{fmt, str::FromStr};

use axum::http::uri::Authority;

/// Where a page comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `null`: a file, a sandboxed frame, a page behind a redirect. Any page can make itself such a one.
    Opaque,
    /// A page of a host.
    Page(PageOrigin),
}

/// A scheme, a host and a port, all in small letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOrigin {
    scheme: String,
    host: String,
    /// `None` for the scheme's default.
    port: Option<u16>,
}

/// The text is no origin.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAnOrigin;

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        if text == "null" {
            return Ok(Origin::Opaque);
        }
        let (scheme, authority) = text.split_once("://").ok_or(NotAnOrigin)?;
        let (first, rest) = scheme.split_at_checked(1).ok_or(NotAnOrigin)?;
        let is_rest = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        // Extensions and apps have schemes of their own.
        if !first.chars().all(|c| c.is_ascii_alphabetic()) || !rest.chars().all(is_rest) {
            return Err(NotAnOrigin);
        }
        let authority: Authority = authority.parse().map_err(|_| NotAnOrigin)?;
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = host_and_port(&scheme, &authority).ok_or(NotAnOrigin)?;
        Ok(Origin::Page(PageOrigin { scheme, host, port }))
    }
}

/// The host in small letters and the port, if it is not the default of the scheme.
fn host_and_port(scheme: &str, authority: &Authority) -> Option<(String, Option<u16>)> {
    let (text, host) = (authority.as_str(), authority.host());
    let port = authority.port_u16();
    // No user, and nothing after the host but a port that is one.
    let has_only_these = text.len() == host.len() + authority.port().map_or(0, |port| port.as_str().len() + 1);
    if host.is_empty() || !has_only_these || port.is_some() != authority.port().is_some() {
        return None;
    }
    let default = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    Some((host.to_ascii_lowercase(), port.filter(|port| Some(*port) != default)))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin::Page(PageOrigin { scheme, host, port }) = self else { return f.write_str("null") };
        write!(f, "{scheme}://{host}")?;
        port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Origin {
    /// Whether it is a page that was loaded by HTTP from this host, with or without TLS.
    pub(super) fn is_at(&self, host: &Authority) -> bool {
        let Origin::Page(page) = self else { return false };
        let same = |(host, port)| page.host == host && page.port == port;
        page.is_web() && host_and_port(&page.scheme, host).is_some_and(same)
    }
}

impl PageOrigin {
    fn is_web(&self) -> bool {
        matches!(self.scheme.as_str(), "http" | "https")
    }

    /// Whether it comes from a server on the browser's own machine, where developers have theirs.
    fn is_local(&self) -> bool {
        self.is_web() && matches!(self.host.as_str(), "localhost" | "127.0.0.1" | "[::1]")
    }
}

/// The origins whose pages may use this server from a browser, beside its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Pages under development: every port of `localhost`, `127.0.0.1` and `[::1]`.
    #[default]
    Local,
    /// All.
    Any,
    /// These.
    Listed(Vec<Origin>),
}

impl AllowedOrigins {
    pub(super) fn allow(&self, origin: &Origin) -> bool {
        match (self, origin) {
            (AllowedOrigins::Any, _) => true,
            (AllowedOrigins::Local, Origin::Page(page)) => page.is_local(),
            (AllowedOrigins::Local, Origin::Opaque) => false,
            (AllowedOrigins::Listed(listed), origin) => listed.contains(origin),
        }
    }
}

impl FromStr for AllowedOrigins {
    type Err = String;

    /// Reads what the setting says: origins that commas separate, or `*`. Nothing means the default.
    fn from_str(text: &str) -> Result<Self, String> {
        let items: Vec<_> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        match items[..] {
            [] => return Ok(AllowedOrigins::Local),
            ["*"] => return Ok(AllowedOrigins::Any),
            _ if items.contains(&"*") => return Err("* allows every origin, so nothing may stand beside it".to_owned()),
            _ => {}
        }
        items.into_iter().map(listed).collect::<Result<_, _>>().map(AllowedOrigins::Listed)
    }
}

/// One origin of the list.
fn listed(item: &str) -> Result<Origin, String> {
    let wrong = |what: &str| format!("{item:?} {what}");
    if item.contains('*') {
        return Err(wrong("has a *, which stands for every origin and only alone"));
    }
    match item.parse() {
        Ok(Origin::Opaque) => Err(wrong("is the origin that any page can give itself; only * allows it")),
        Ok(origin) => Ok(origin),
        Err(NotAnOrigin) => Err(wrong("must be an origin such as https://example.org, without a path")),
    }
}

impl fmt::Display for AllowedOrigins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AllowedOrigins::Local => Ok(()),
            AllowedOrigins::Any => f.write_str("*"),
            AllowedOrigins::Listed(listed) => {
                f.write_str(&listed.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse().unwrap_or_else(|_| panic!("{text} is an origin"))
    }

    #[test]
    fn origins_are_normalised() {
        for (text, normal) in [
            ("null", "null"),
            ("http://example.org", "http://example.org"),
            ("HTTP://Example.ORG:80", "http://example.org"),
            ("https://example.org:443", "https://example.org"),
            ("http://example.org:443", "http://example.org:443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(origin(text).to_string(), normal);
        }
        for text in [
            "",
            "*",
            "Null",
            "example.org",
            "://example.org",
            "http://",
            "http:example.org",
            "1http://example.org",
            "ht tp://example.org",
            "http://example.org/",
            "http://example.org?a",
            "http://example.org#a",
            "http://user@example.org",
            "http://user:80@example.org",
            "http://example.org:",
            "http://example.org:65536",
            "http://example.org:x",
            "http://a b",
            "http://a, http://b",
            "http://a http://b",
            "http://[::1",
            "http://::1",
            "http://ä.example",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(NotAnOrigin), "{text}");
        }
    }

    #[test]
    fn a_page_is_at_its_own_host() {
        let is_at = |text: &str, host: &str| origin(text).is_at(&host.parse().unwrap());
        for (text, host) in [
            ("http://example.org", "example.org"),
            ("https://example.org", "example.org"),
            ("https://example.org", "EXAMPLE.org:443"),
            ("http://example.org", "example.org:80"),
            ("http://example.org:8080", "example.org:8080"),
            ("http://[fd00::1]:8080", "[fd00::1]:8080"),
        ] {
            assert!(is_at(text, host), "{text} at {host}");
        }
        for (text, host) in [
            ("null", "example.org"),
            ("http://example.org", "example.org:443"),
            ("https://example.org", "example.org:80"),
            ("http://example.org", "example.org:8080"),
            ("http://example.org:8080", "example.org"),
            ("http://example.org.evil.example", "example.org"),
            ("http://evil-example.org", "example.org"),
            ("http://sub.example.org", "example.org"),
            ("capacitor://example.org", "example.org"),
        ] {
            assert!(!is_at(text, host), "{text} at {host}");
        }
    }

    #[test]
    fn what_the_setting_allows() {
        let allows = |setting: &str, text: &str| setting.parse::<AllowedOrigins>().unwrap().allow(&origin(text));
        for (setting, text) in [
            ("", "http://localhost"),
            ("", "https://localhost:5173"),
            (" , ", "http://127.0.0.1:1"),
            ("", "http://[::1]:3000"),
            ("*", "null"),
            (" * ", "https://evil.example"),
            ("https://a.example, http://B.example:80,", "https://a.example:443"),
            ("https://a.example, http://B.example:80,", "http://b.example"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert!(allows(setting, text), "{setting} allows {text}");
        }
        for (setting, text) in [
            ("", "null"),
            ("", "https://example.org"),
            ("", "http://localhost.example.org"),
            ("", "http://127.0.0.2"),
            ("", "capacitor://localhost"),
            ("https://a.example", "http://a.example"),
            ("https://a.example", "https://a.example:8443"),
            ("https://a.example", "https://sub.a.example"),
            ("https://a.example", "http://localhost:3000"),
            ("https://a.example", "null"),
        ] {
            assert!(!allows(setting, text), "{setting} does not allow {text}");
        }
    }

    #[test]
    fn a_bad_entry_is_named() {
        for (setting, entry) in [
            ("https://a.example,b.example", "b.example"),
            ("https://a.example/path", "https://a.example/path"),
            ("https://a.example/", "https://a.example/"),
            ("https://*.example", "https://*.example"),
            ("null", "null"),
            ("https://a.example https://b.example", "https://a.example https://b.example"),
            ("*,https://a.example", "*"),
        ] {
            let error = setting.parse::<AllowedOrigins>().unwrap_err();
            assert!(error.contains(entry) && !error.contains('\n'), "{setting}: {error}");
        }
    }
}
