//! GraphQL subscriptions as `multipart/mixed`, as Apollo's clients read them: one request, one operation.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{Door, Event, Options, Start, code_of, read_result, sse::End, subscription};
use crate::{harness::Client, raw::Raw};

const DELIMITER: &[u8] = b"--graphql";

/// A stream of one subscription.
pub struct Multipart {
    client: Client,
    parts: Option<Parts>,
    topic: String,
    queue: VecDeque<Event>,
    consumer: Option<Value>,
}

/// The body of a response, part by part.
struct Parts {
    raw: Raw,
    buffer: Vec<u8>,
    begun: bool,
}

impl Parts {
    /// The bytes before the next `end`, which is taken, too.
    ///
    /// # Errors
    /// How the body ended before it.
    async fn before(&mut self, end: &[u8]) -> Result<Vec<u8>, End> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let before = self.buffer.drain(..at + end.len()).take(at).collect();
                return Ok(before);
            }
            match self.raw.chunk().await {
                Ok(Some(bytes)) => self.buffer.extend(bytes),
                Ok(None) => return Err(End::Clean),
                Err(()) => return Err(End::Cut),
            }
        }
    }

    async fn next(&mut self) -> Result<String, End> {
        if !std::mem::replace(&mut self.begun, true) {
            assert_eq!(self.before(DELIMITER).await?, b"", "the body begins with a delimiter");
        }
        // Two dashes follow the last delimiter, the head of a part any other.
        let dashes = self.before(b"\r\n").await?;
        if dashes == b"--" {
            return Err(End::Clean);
        }
        assert_eq!(dashes, b"");
        assert_eq!(self.before(b"\r\n\r\n").await?, b"content-type: application/json; charset=utf-8");
        // JSON on one line has no line break, so this is the delimiter.
        let body = self.before(&[b"\r\n", DELIMITER].concat()).await?;
        Ok(String::from_utf8(body).unwrap())
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    /// There is none in a heartbeat.
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl Door for Multipart {
    const RESUMES: bool = true;
    const TELLS_OF_TOPICS: bool = false;

    async fn open(client: &Client) -> Self {
        Self { client: client.clone(), parts: None, topic: String::new(), queue: VecDeque::new(), consumer: None }
    }

    async fn subscribe(&mut self, topic: &str, start: Start, options: &Options) -> Result<(), String> {
        topic.clone_into(&mut self.topic);
        let (start, resume) = match start {
            Start::After(cursor) if options.consumer.is_some() => (Start::Live, format!("Last-Event-ID: {cursor}\r\n")),
            start => (start, String::new()),
        };
        let body = json!({"query": subscription(topic, &start, options)}).to_string();
        let mut raw = Raw::connect(self.client.addr).await;
        raw.write(format!(
            "POST /graphql HTTP/1.1\r\nHost: {}\r\nAccept: multipart/mixed;subscriptionSpec=\"1.0\"\r\n\
             Content-Type: application/json\r\n{resume}{}Content-Length: {}\r\n\r\n{body}",
            self.client.addr,
            self.client.credential_line(),
            body.len()
        ))
        .await;
        let head = raw.head().await.expect("a response");
        let kind = head.headers.get("content-type").map_or("", String::as_str);
        // A refusal is read to its end: it is a part of its own, or plain JSON.
        if let Some(length) = head.headers.get("content-length") {
            let body = String::from_utf8(raw.exactly(length.parse().unwrap()).await.unwrap()).unwrap();
            let json = if kind.starts_with("multipart/mixed") {
                let part = body.split("\r\n\r\n").nth(1).and_then(|part| part.split("\r\n--graphql").next());
                let envelope: Envelope<'_> = serde_json::from_str(part.expect("a part")).unwrap();
                envelope.payload.expect("a payload").get().to_owned()
            } else {
                body
            };
            let result: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {head:?} {json}"));
            return Err(code_of(&result["errors"][0]));
        }
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(kind, r#"multipart/mixed; boundary="graphql"; subscriptionSpec="1.0""#);
        self.parts = Some(Parts { raw, buffer: Vec::new(), begun: false });
        Ok(())
    }

    async fn event(&mut self) -> Event {
        let parts = self.parts.as_mut().expect("a subscription");
        loop {
            if let Some(event) = self.queue.pop_front() {
                return event;
            }
            let part = match parts.next().await {
                Ok(part) => part,
                Err(End::Clean) => return Event::Closed(None),
                Err(End::Cut) => return Event::Cut,
            };
            let envelope: Envelope<'_> = serde_json::from_str(&part).unwrap_or_else(|error| panic!("{error}: {part}"));
            let Some(payload) = envelope.payload else {
                assert_eq!(part, "{}", "a heartbeat is an empty object");
                continue;
            };
            self.queue.extend(read_result(payload.get(), &self.topic, &mut self.consumer));
        }
    }

    async fn unsubscribe(&mut self, _: &str) {
        self.parts = None;
    }

    async fn assert_open(&mut self) {
        // A stream is one subscription: what stays open is the door.
        self.client.assert_alive().await;
    }

    async fn close(self) {}

    fn consumer(&self) -> Option<Value> {
        self.consumer.clone()
    }
}
