//! The heads of requests and responses of HTTP/1 where hyper does not read and write them.

use std::{cell::RefCell, fmt::Write as _, io::Write as _, mem::MaybeUninit, time::SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, response};
use bytes::Bytes;

use crate::broker::RequestId;

/// Lines that the head of a request may have. hyper reads those that have more.
const MAX_LINES: usize = 64;

/// The head of a request that needs nothing but a response: HTTP/1.1, a body of a given length or none, and a connection
/// that stays open.
pub(super) struct Head {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    /// Bytes of the head itself.
    pub bytes: usize,
    /// Bytes of the body.
    pub body: usize,
}

/// What was read of a connection.
pub(super) enum Parsed {
    /// Not all of a head has come yet.
    Partial,
    /// A request that needs nothing but a response.
    Head(Head),
    /// Whatever else: chunks, upgrades, expectations, older versions, and what breaks the rules.
    Other,
}

/// Reads the head at the beginning of `read`. What it lets through, hyper would read in the same way: the parser is the
/// same, and what the two could take differently is not let through.
pub(super) fn parse(read: &Bytes) -> Parsed {
    let mut lines = [const { MaybeUninit::uninit() }; MAX_LINES];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(read, &mut lines) {
        Ok(httparse::Status::Complete(bytes)) => head(read, &request, bytes).map_or(Parsed::Other, Parsed::Head),
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Err(_) => Parsed::Other,
    }
}

fn head(read: &Bytes, request: &httparse::Request<'_, '_>, bytes: usize) -> Option<Head> {
    if request.version != Some(1) {
        return None;
    }
    // The response to HEAD has no body, and a tunnel is none of ours.
    let method = match request.method? {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        "OPTIONS" => Method::OPTIONS,
        _ => return None,
    };
    let path = request.path.filter(|path| path.starts_with('/'))?;
    let uri = Uri::from_maybe_shared(read.slice_ref(path.as_bytes())).ok()?;
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    let mut body = None;
    for line in &*request.headers {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        match name {
            header::CONTENT_LENGTH if body.is_none() => body = Some(length(line.value)?),
            // Two lengths, even of the same value, may be an attempt to make two servers see two different requests.
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::UPGRADE | header::EXPECT => return None,
            header::CONNECTION if !line.value.eq_ignore_ascii_case(b"keep-alive") => return None,
            _ => {}
        }
        headers.append(name, HeaderValue::from_maybe_shared(read.slice_ref(line.value)).ok()?);
    }
    Some(Head { method, uri, headers, bytes, body: body.unwrap_or(0) })
}

/// A length in digits alone. It is bounded, so that a sum with it is a number, too.
fn length(value: &[u8]) -> Option<usize> {
    let is_plain = !value.is_empty() && value.len() <= 10 && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_plain)?.parse().ok()
}

/// How a client learns where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// It has so many bytes.
    Length(u64),
    /// It comes in chunks, the last of which is empty.
    Chunked,
}

/// Whether responses with this status have a body.
pub(super) fn has_body(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Appends the head of a response. `closes`: whether the connection ends with it.
pub(super) fn write(out: &mut Vec<u8>, response: &response::Parts, id: &RequestId, framing: Framing, closes: bool) {
    let status = response.status;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    // Some clients cannot read a head without a reason. hyper writes the same.
    out.extend_from_slice(status.canonical_reason().unwrap_or("<none>").as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &response.headers {
        // These are written below.
        if !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION) {
            line(out, name.as_str(), value.as_bytes());
        }
    }
    match framing {
        _ if !has_body(status) => {}
        Framing::Length(length) => line(out, "content-length", Digits::of(length).text()),
        Framing::Chunked => line(out, "transfer-encoding", b"chunked"),
    }
    // Writing to a Vec cannot fail.
    let _ = write!(out, "x-request-id: {id}\r\n");
    if closes {
        line(out, "connection", b"close");
    }
    if !response.headers.contains_key(header::DATE) {
        out.extend_from_slice(b"date: ");
        with_date(|date| out.extend_from_slice(date));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The decimal digits of a number.
struct Digits {
    digits: [u8; 20],
    begin: usize,
}

impl Digits {
    fn of(mut number: u64) -> Self {
        let (mut digits, mut begin) = ([0; 20], 20);
        loop {
            begin -= 1;
            digits[begin] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { digits, begin };
            }
        }
    }

    fn text(&self) -> &[u8] {
        &self.digits[self.begin..]
    }
}

/// Calls `with` with the date as HTTP writes it. Each thread writes it once a second.
fn with_date(with: impl FnOnce(&[u8])) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(written, text)| {
        if *written != second || text.is_empty() {
            *written = second;
            text.clear();
            // Writing to a String cannot fail.
            let _ = write!(text, "{}", httpdate::HttpDate::from(now));
        }
        with(text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, response::Response};

    use super::*;

    fn parsed(text: &str) -> Parsed {
        parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn heads_that_need_nothing_but_a_response() {
        let text = "\r\nPOST /publish?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\nX-Own:  y \r\n\r\n{}more";
        let Parsed::Head(head) = parsed(text) else { panic!("not let through") };
        assert_eq!((head.method, head.uri.path(), head.uri.query()), (Method::POST, "/publish", Some("a=b")));
        assert_eq!((head.headers[header::HOST].as_bytes(), head.headers["x-own"].as_bytes()), (&b"x"[..], &b"y"[..]));
        assert_eq!((&text[head.bytes..], head.body), ("{}more", 2));
        let Parsed::Head(head) = parsed("GET / HTTP/1.1\r\n\r\n") else { panic!("not let through") };
        assert_eq!((head.method, head.body), (Method::GET, 0));
    }

    #[test]
    fn the_rest_is_for_hyper() {
        for text in [
            "GET / HTTP/1.0\r\n\r\n",
            "HEAD / HTTP/1.1\r\n\r\n",
            "BREW / HTTP/1.1\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\n\r\n",
            "GET http://x/ HTTP/1.1\r\n\r\n",
            "GET /> HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nX: y\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nX : y\r\n\r\n",
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n",
            "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: \r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
            "\x16\x03\x01",
        ] {
            assert!(matches!(parsed(text), Parsed::Other), "{text:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(MAX_LINES + 1));
        assert!(matches!(parsed(&many), Parsed::Other));
        for text in ["", "\r\n", "GET", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            assert!(matches!(parsed(text), Parsed::Partial), "{text:?}");
        }
    }

    #[test]
    fn heads_of_responses() {
        let id = RequestId::given(b"mine").unwrap();
        let written = |status: u16, framing, closes| {
            let response = Response::builder().status(status).header("x-own", "y").header("content-length", "7");
            let (parts, _) = response.body(Body::empty()).unwrap().into_parts();
            let mut out = Vec::new();
            write(&mut out, &parts, &id, framing, closes);
            let text = String::from_utf8(out).unwrap();
            let (text, date) = text.split_once("date: ").unwrap();
            assert!(httpdate::parse_http_date(date.strip_suffix("\r\n\r\n").unwrap()).is_ok(), "{date:?}");
            assert!(text.contains("x-request-id: mine\r\n"), "{text}");
            text.replacen("x-request-id: mine\r\n", "", 1)
        };
        let ok = "HTTP/1.1 200 OK\r\nx-own: y\r\n";
        assert_eq!(written(200, Framing::Length(0), false), format!("{ok}content-length: 0\r\n"));
        assert_eq!(
            written(200, Framing::Length(u64::MAX), true),
            format!("{ok}content-length: 18446744073709551615\r\nconnection: close\r\n")
        );
        assert_eq!(written(200, Framing::Chunked, false), format!("{ok}transfer-encoding: chunked\r\n"));
        assert_eq!(written(204, Framing::Length(0), false), "HTTP/1.1 204 No Content\r\nx-own: y\r\n");
        assert_eq!(
            written(294, Framing::Length(10), false),
            "HTTP/1.1 294 <none>\r\nx-own: y\r\ncontent-length: 10\r\n"
        );
    }
}
