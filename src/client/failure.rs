//! Why something did not succeed, in words that help.

use std::{error::Error, fmt, io, time::Duration};

use hyper::StatusCode;
use serde::Deserialize;

use super::Address;

/// Why something did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server could not be reached, or the connection has ended.
    Connection(String),
    /// The server has refused it.
    Refused(Refusal),
    /// The server's answer is not one that a pub-sub server gives.
    Answer(String),
}

/// A refusal by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable: what to do is decided by it.
    pub code: String,
    /// For people.
    pub message: String,
    /// How long to wait before it may be tried again.
    pub retry_after: Option<Duration>,
}

/// An error as every interface of the server writes it.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorObject {
    code: String,
    message: String,
    retry_after_ms: Option<u64>,
}

/// An error as the body of a response.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

/// A response that was read to its end.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its status.
    pub status: StatusCode,
    /// How long its header says to wait.
    pub retry_after: Option<Duration>,
    /// Its body.
    pub text: String,
}

impl From<ErrorObject> for Refusal {
    fn from(error: ErrorObject) -> Self {
        let retry_after = error.retry_after_ms.map(Duration::from_millis);
        Self { code: error.code, message: error.message, retry_after }
    }
}

impl Refusal {
    /// Whether the same may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self.code.as_str(), "RATE_LIMITED" | "UNAVAILABLE" | "UNKNOWN")
    }
}

impl Failure {
    /// Whether the same may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Failure::Connection(_) => true,
            Failure::Refused(refusal) => refusal.may_pass(),
            Failure::Answer(_) => false,
        }
    }

    /// How long the server asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Refused(refusal) => refusal.retry_after,
            Failure::Connection(_) | Failure::Answer(_) => None,
        }
    }

    /// The server did not respond in time.
    pub fn timeout(address: &Address, wait: Duration) -> Self {
        Failure::Connection(format!("{address} did not respond within {} s", wait.as_secs()))
    }

    /// What a response with an error says. One without the server's error body is that of a proxy, or of another server.
    pub fn of_response(response: &Answered, address: &Address) -> Self {
        let Answered { status, retry_after, text } = response;
        if let Ok(ErrorBody { error }) = serde_json::from_str(text) {
            let refusal = Refusal::from(error);
            return Failure::Refused(Refusal { retry_after: refusal.retry_after.or(*retry_after), ..refusal });
        }
        let message = format!("{address} responded with {status}, and not as a pub-sub server does");
        let refused = |code: &str, message| {
            Failure::Refused(Refusal { code: code.to_owned(), message, retry_after: *retry_after })
        };
        match status.as_u16() {
            // Proxies have rates, too.
            429 => refused("RATE_LIMITED", message),
            // A proxy in front of a server that is away.
            502..=504 => refused("UNAVAILABLE", message),
            _ => Failure::Answer(message),
        }
    }

    /// What went wrong on the way to the server, with what may help.
    pub fn of(error: &(dyn Error + 'static), address: &Address) -> Self {
        let mut causes = vec![error.to_string()];
        let mut kind = None;
        let mut next = Some(error);
        while let Some(cause) = next {
            let io = cause.downcast_ref::<io::Error>();
            kind = kind.or(io.map(io::Error::kind).filter(|kind| *kind != io::ErrorKind::Other));
            // An error of input and output does not count the one that it wraps among its causes.
            let inner = io.and_then(io::Error::get_ref).map(|inner| inner as &(dyn Error + 'static));
            next = inner.or_else(|| cause.source());
            causes.extend(next.map(ToString::to_string));
        }
        causes.dedup();
        Failure::Connection(explain(kind, &causes.join(": "), address))
    }
}

fn explain(kind: Option<io::ErrorKind>, causes: &str, address: &Address) -> String {
    let authority = address.authority();
    if kind == Some(io::ErrorKind::ConnectionRefused) {
        return format!("connection refused: is the server running at {address}?");
    }
    if kind == Some(io::ErrorKind::TimedOut) {
        return format!("{address} did not respond in time");
    }
    if causes.contains("dns error") || causes.contains("failed to lookup address") {
        return format!("the host of {address} is not known; is it spelled correctly?");
    }
    if causes.contains("UnknownIssuer") || causes.contains("CaUsedAsEndEntity") {
        return format!("{address} has a certificate of an authority that is not trusted here; --ca FILE names one");
    }
    if causes.contains("invalid peer certificate") {
        return format!("the certificate of {address} is not valid: {causes}");
    }
    if causes.contains("corrupt message") {
        return format!("{address} does not speak TLS; try http://{authority}");
    }
    if !address.is_tls() && causes.contains("connection closed before message completed") {
        return format!(
            "{address} closed the connection without a response; if it speaks TLS, use https://{authority}"
        );
    }
    format!("the connection to {address} failed: {causes}")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connection(text) | Failure::Answer(text) => f.write_str(text),
            Failure::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        match self.code.as_str() {
            "UNAUTHENTICATED" => f.write_str("; --token or PUB_SUB_TOKEN signs in"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_may_help() {
        let address = Address::parse("localhost:1").unwrap();
        let refused = io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused));
        let said = Failure::of(&refused, &address).to_string();
        assert_eq!(said, "connection refused: is the server running at http://localhost:1?");
        let unknown = io::Error::other("dns error: failed to lookup address information");
        assert!(Failure::of(&unknown, &address).to_string().contains("is not known"));
        let strange = io::Error::other("a strange thing");
        assert!(Failure::of(&strange, &address).to_string().ends_with("failed: a strange thing"));
    }

    /// Also what a proxy in front of the server says.
    #[test]
    fn responses_say_whether_to_try_again() {
        let address = Address::parse("localhost:1").unwrap();
        let of = |status: u16, text: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let retry_after = Some(Duration::from_secs(3));
            Failure::of_response(&Answered { status, retry_after, text: text.to_owned() }, &address)
        };
        let proxy = of(429, "<html>");
        assert_eq!((proxy.may_pass(), proxy.retry_after()), (true, Some(Duration::from_secs(3))));
        assert!(of(502, "").may_pass() && !of(404, "").may_pass());
        let server = of(429, r#"{"error":{"code":"RATE_LIMITED","message":"no","retry_after_ms":20}}"#);
        assert_eq!(server.retry_after(), Some(Duration::from_millis(20)), "the more exact one");
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let refused = |code: &str| {
            let object: ErrorObject =
                serde_json::from_str(&format!(r#"{{"code":"{code}","message":"no","retry_after_ms":20}}"#)).unwrap();
            Failure::Refused(object.into())
        };
        assert!(refused("RATE_LIMITED").may_pass() && !refused("FORBIDDEN").may_pass());
        assert_eq!(refused("UNAVAILABLE").retry_after(), Some(Duration::from_millis(20)));
        assert!(refused("UNAUTHENTICATED").to_string().contains("--token"));
    }
}
