//! Bodies of responses in pieces. hyper takes whatever piece it is given, and then counts the body as sent. What the client has not
//! taken has to stay here, so that the connection is seen to be busy.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

/// A body of which no piece is larger than a bound.
pub(super) struct Pieces {
    body: Body,
    /// What is left of a frame of the body.
    rest: Bytes,
    /// Bytes of a piece.
    most: usize,
}

impl Pieces {
    /// In pieces of `most` bytes, which must not be 0.
    pub fn new(body: Body, most: usize) -> Self {
        Self { body, rest: Bytes::new(), most }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(data) if data.len() <= self.most => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(self.most);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if rest == 0 {
            return body;
        }
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn no_piece_is_larger_than_the_bound() {
        for length in [0, 1, 9, 10, 11, 25, 30] {
            let whole: Vec<u8> = (0..length).collect();
            let mut pieces = Pieces::new(whole.clone().into(), 10);
            let mut seen = Vec::new();
            loop {
                assert_eq!(pieces.size_hint().exact(), Some(whole.len() as u64 - seen.len() as u64));
                assert_eq!(pieces.is_end_stream(), seen.len() == whole.len());
                let Some(frame) = poll_fn(|cx| Pin::new(&mut pieces).poll_frame(cx)).await else { break };
                let piece = frame.unwrap().into_data().unwrap();
                assert!(!piece.is_empty() && piece.len() <= 10);
                seen.extend(piece);
            }
            assert_eq!(seen, whole);
        }
    }
}
