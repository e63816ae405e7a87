//! Server-sent events, read byte by byte: `GET /topics/{name}/messages`.

use serde_json::Value;

use super::{Door, Event, Options, Start, read_frame};
use crate::{
    harness::{Client, encode},
    raw::{Head, Raw},
};

/// One event of a stream.
#[derive(Debug, Default, PartialEq)]
pub struct Sent {
    pub event: String,
    pub data: String,
    pub id: Option<String>,
    pub retry: Option<String>,
}

/// How a stream ended.
#[derive(Debug, PartialEq)]
pub enum End {
    /// As HTTP says.
    Clean,
    /// The connection broke.
    Cut,
}

/// A response of `text/event-stream`.
pub struct EventStream {
    raw: Raw,
    buffer: Vec<u8>,
    /// Comments seen.
    pub comments: usize,
}

impl EventStream {
    /// Sends a request (its head and body) and reads the response's head.
    ///
    /// # Errors
    /// The response that is no stream.
    pub async fn open(client: &Client, request: &str) -> Result<Self, (Head, String)> {
        let mut raw = Raw::connect(client.addr).await;
        raw.write(request).await;
        let head = raw.head().await.expect("an response");
        let kind = head.headers.get("content-type").cloned().unwrap_or_default();
        let whole = head.headers.contains_key("content-length");
        if head.status != 200 || !kind.starts_with("text/event-stream") || whole {
            let length = head.headers["content-length"].parse().unwrap();
            let body = String::from_utf8(raw.exactly(length).await.unwrap()).unwrap();
            return Err((head, body));
        }
        assert!(head.headers["cache-control"].contains("no-"), "{head:?}");
        Ok(Self { raw, buffer: Vec::new(), comments: 0 })
    }

    pub async fn next(&mut self) -> Result<Sent, End> {
        let mut sent = Sent::default();
        let mut data: Vec<String> = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                if data.is_empty() && sent == Sent::default() {
                    continue;
                }
                sent.data = data.join("\n");
                return Ok(sent);
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "" => self.comments += 1,
                "event" => sent.event = value,
                "data" => data.push(value),
                "id" => sent.id = Some(value),
                "retry" => sent.retry = Some(value),
                other => panic!("{other:?} in an event stream"),
            }
        }
    }

    /// Waits for one more comment.
    pub async fn comment(&mut self) {
        let before = self.comments;
        while self.comments == before {
            let line = self.line().await.expect("a comment");
            self.comments += usize::from(line.starts_with(':'));
        }
    }

    /// The comment with which it begins.
    pub async fn first_comment(&mut self) -> String {
        let line = self.line().await.expect("a comment");
        line.strip_prefix(": ").unwrap_or_else(|| panic!("{line:?} is no comment")).to_owned()
    }

    async fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(String::from_utf8(line).unwrap().trim_end_matches(['\r', '\n']).to_owned());
            }
            match self.raw.chunk().await {
                Ok(Some(bytes)) => self.buffer.extend(bytes),
                Ok(None) => return Err(End::Clean),
                Err(()) => return Err(End::Cut),
            }
        }
    }
}

/// The code in an error body.
pub fn code_in(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["error"]["code"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

/// A stream of one topic.
pub struct Sse {
    client: Client,
    pub stream: Option<EventStream>,
    consumer: Option<Value>,
}

impl Door for Sse {
    const RESUMES: bool = true;
    const NAME_IN_PATH: bool = true;

    async fn open(client: &Client) -> Self {
        Self { client: client.clone(), stream: None, consumer: None }
    }

    async fn subscribe(&mut self, topic: &str, start: Start, options: &Options) -> Result<(), String> {
        let (mut query, mut resume) = (Vec::new(), String::new());
        match start {
            Start::Live => {}
            Start::Last(count) => query.push(format!("last={count}")),
            Start::After(cursor) => resume = format!("Last-Event-ID: {cursor}\r\n"),
            Start::Since(time) => query.push(format!("since={}", encode(&time))),
            Start::State => query.push("state=true".to_owned()),
        }
        let filter = options.filter.as_ref().map(Value::to_string);
        let named = [
            ("filter", filter.as_deref()),
            ("consumer", options.consumer),
            ("ack", options.ack),
            ("overflow", options.overflow),
        ];
        query.extend(named.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode((*value)?)))));
        let request = format!(
            "GET /topics/{}/messages?{} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n{resume}{}\r\n",
            encode(topic),
            query.join("&"),
            self.client.addr,
            self.client.credential_line()
        );
        self.stream = Some(EventStream::open(&self.client, &request).await.map_err(|(_, body)| code_in(&body))?);
        Ok(())
    }

    async fn event(&mut self) -> Event {
        let stream = self.stream.as_mut().expect("a subscription");
        loop {
            let sent = match stream.next().await {
                Ok(sent) => sent,
                Err(End::Clean) => return Event::Closed(None),
                Err(End::Cut) => return Event::Cut,
            };
            if sent.event == "consumer" {
                let frame: Value = serde_json::from_str(&sent.data).unwrap();
                self.consumer = Some(frame["consumer"].clone());
                continue;
            }
            if sent.event.is_empty() && sent.data.is_empty() {
                // Only `retry` or `id`.
                continue;
            }
            let event = read_frame(&sent.data);
            match &event {
                Event::Message(message) => {
                    assert_eq!((sent.event.as_str(), sent.id.as_deref()), ("message", Some(message.position())));
                }
                Event::Gap(_) => assert_eq!(sent.event, "gap"),
                Event::Deleted(_) => assert_eq!(sent.event, "deleted"),
                Event::State(cursor) => {
                    assert_eq!((sent.event.as_str(), sent.id.as_deref()), ("state", Some(cursor.as_str())));
                }
                _ => assert_eq!(sent.event, "error"),
            }
            return event;
        }
    }

    async fn unsubscribe(&mut self, _: &str) {
        self.stream = None;
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
