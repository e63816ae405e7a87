//! Reading request bodies, in one way for all doors.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::LengthLimitError;
use tokio::time::timeout;

use crate::{
    headers,
    problem::{Code, Problem},
};

/// Reads the body. It may take so long to arrive; its bound on bytes is that of the server (`front.rs`).
///
/// # Errors
/// It is compressed, too large, late, broken off, or in another charset than UTF-8.
pub async fn read(request: Request, within: Duration) -> Result<Bytes, Problem> {
    check_coding(request.headers())?;
    let charset = charset(request.headers());
    let mut reading = pin!(whole(request.into_body()));
    // Nearly every body is there at once, and needs no timer.
    let now = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await;
    let read = match now {
        Poll::Ready(read) => read,
        Poll::Pending => timeout(within, reading).await.map_err(|_| {
            let problem = Problem::new(Code::BadRequest, "body: took too long to arrive");
            problem.with_http(StatusCode::REQUEST_TIMEOUT, None)
        })?,
    };
    let body = read.map_err(|error| {
        let is_large = error.into_inner().is::<LengthLimitError>();
        if is_large { too_large() } else { Problem::new(Code::BadRequest, "body: could not be read") }
    })?;
    match charset.filter(|charset| !reads_as_utf8(charset, &body)) {
        Some(charset) => Err(unsupported(format!("content-type: the charset must be utf-8, not {charset}"))),
        None => Ok(body),
    }
}

/// A body that comes in one piece is not copied.
async fn whole(mut body: Body) -> Result<Bytes, axum::Error> {
    let mut read = Bytes::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if read.is_empty() {
            read = data;
        } else {
            let mut both = read.try_into_mut().unwrap_or_else(|read| BytesMut::from(&read[..]));
            both.extend_from_slice(&data);
            read = both.freeze();
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(read)
}

/// The body as text, without a byte order mark.
///
/// # Errors
/// It is not in UTF-8.
pub fn text(body: &Bytes) -> Result<&str, Problem> {
    let text = std::str::from_utf8(body).map_err(|_| {
        let message = match body[..] {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "body: must be UTF-8, and begins with the byte order mark of UTF-16",
            _ => "body: must be UTF-8",
        };
        Problem::new(Code::BadRequest, message)
    })?;
    // Tools on Windows write it, and RFC 8259 lets a reader of JSON ignore it.
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The error for a body over the bound.
pub fn too_large() -> Problem {
    Problem::new(Code::PayloadTooLarge, "body: is too large (MAX_BODY_BYTES)")
}

/// The error for a body in a form that is not read here.
pub fn unsupported(message: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(Code::BadRequest, message).with_http(StatusCode::UNSUPPORTED_MEDIA_TYPE, None)
}

/// The media type of a body in small letters, without its parameters.
///
/// # Errors
/// The header has several lines.
pub fn media_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let value = headers::single(headers, "Content-Type")?;
    Ok(value.map(|value| headers::with_parameters(value).0.to_ascii_lowercase()))
}

/// The charset that the client says the body has.
pub fn charset(headers: &HeaderMap) -> Option<String> {
    let value = headers::single(headers, "Content-Type").ok().flatten()?;
    let (_, mut parameters) = headers::with_parameters(value);
    parameters.find(|(name, _)| name.eq_ignore_ascii_case("charset")).map(|(_, value)| value.to_ascii_lowercase())
}

/// Whether a body in this charset is the same text in UTF-8. Of the charsets that extend ASCII that holds while the body stays
/// within ASCII: some clients name ISO-8859-1 unless told otherwise.
fn reads_as_utf8(charset: &str, body: &[u8]) -> bool {
    match charset {
        "utf-8" | "utf8" | "us-ascii" | "ascii" => true,
        _ => !charset.starts_with("utf-") && !charset.starts_with("ucs-") && body.is_ascii(),
    }
}

fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers::items(headers, "Content-Encoding");
    let Some(coding) = codings.find(|coding| !coding.eq_ignore_ascii_case("identity")) else { return Ok(()) };
    let message = format!("content-encoding: bodies must not be compressed, and this one is ({coding})");
    // RFC 9110, 15.5.16: a client learns from it that only the coding is refused.
    let accepted = (header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Err(Problem::new(Code::BadRequest, message).with_http(StatusCode::UNSUPPORTED_MEDIA_TYPE, Some(accepted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_with(name: &'static str, value: &str, body: &[u8]) -> Result<String, (StatusCode, String)> {
        let request = Request::builder().header(name, value).body(Body::from(body.to_vec())).unwrap();
        let read = read(request, Duration::from_secs(5)).await;
        let read = read.and_then(|body| text(&body).map(str::to_owned));
        read.map_err(|problem| (problem.status(), problem.message.into_owned()))
    }

    #[tokio::test]
    async fn charsets_that_read_as_utf8() {
        for charset in ["utf-8", "\"UTF-8\"", "utf8", "us-ascii", "iso-8859-1", "windows-1252"] {
            let kind = format!("application/json; charset={charset}");
            assert_eq!(read_with("content-type", &kind, b"{}").await.as_deref(), Ok("{}"), "{charset}");
        }
        for (charset, body) in [("iso-8859-1", "é".as_bytes()), ("utf-16le", b"{\0}\0"), ("latin1", b"\xe9")] {
            let kind = format!("application/json;x=y; Charset={charset}");
            let (status, message) = read_with("content-type", &kind, body).await.unwrap_err();
            assert_eq!((status, message.ends_with(charset)), (StatusCode::UNSUPPORTED_MEDIA_TYPE, true), "{message}");
        }
    }

    #[tokio::test]
    async fn marks_and_codings() {
        let text = read_with("x", "y", b"\xef\xbb\xbf{}").await;
        assert_eq!(text.as_deref(), Ok("{}"));
        let (status, message) = read_with("x", "y", b"\xff\xfe{\0").await.unwrap_err();
        assert!(status == StatusCode::from_u16(400).unwrap() && message.contains("UTF-16"), "{message}");
        assert_eq!(read_with("content-encoding", "Identity", b"{}").await.as_deref(), Ok("{}"));
        for coding in ["gzip", "GZIP", "identity, br"] {
            let (status, _) = read_with("content-encoding", coding, b"{}").await.unwrap_err();
            assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{coding}");
        }
    }
}
