//! One connection that subscribes.

use std::{collections::HashMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    door::{self, Door, GraphQlFrame, read},
    report::Delivered,
};
use crate::client::{EventStream, Failure, Remote, SocketItem, StreamItem, WebSocket, encode};

/// One connection that subscribes.
pub struct Subscriber {
    connection: Connection,
    delivered: Delivered,
    /// The newest message of each publisher.
    newest: HashMap<u64, u64>,
}

enum Connection {
    Ws(Box<WebSocket>),
    Stream(Box<EventStream>),
    GraphQl(Box<WebSocket>),
}

/// What concerns a subscriber.
enum Item {
    Open,
    Message(Data),
    /// How many were missed, if that is known, and the message behind them if it comes with that.
    Gap(Option<u64>, Option<Data>),
    Other,
}

/// The data of a message that was published here. Others may publish to the topic, too.
#[derive(Deserialize)]
struct Data {
    p: u64,
    n: u64,
    at: u64,
}

#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
    missed: Option<u64>,
    error: Option<crate::client::ErrorObject>,
}

impl Subscriber {
    /// Subscribes, and waits until that is open.
    ///
    /// # Errors
    /// Every [`Failure`].
    pub async fn open(remote: &Remote, door: Door, topic: &str) -> Result<Self, Failure> {
        let connection = match door {
            Door::Ws => {
                let mut socket = remote.web_socket("/ws", None).await?;
                let topic = serde_json::json!(topic);
                socket.send(format!(r#"{{"type":"subscribe","topic":{topic}}}"#)).await?;
                Connection::Ws(Box::new(socket))
            }
            Door::Rest => {
                let path = format!("/topics/{}/messages", encode(topic));
                Connection::Stream(Box::new(remote.event_stream(&path).await?))
            }
            Door::GraphQl => {
                let mut socket = door::graphql_socket(remote).await?;
                socket.send(door::subscribe_operation(topic)).await?;
                Connection::GraphQl(Box::new(socket))
            }
        };
        let mut subscriber = Self { connection, delivered: Delivered::default(), newest: HashMap::new() };
        while !matches!(subscriber.next().await?, Item::Open) {}
        Ok(subscriber)
    }

    /// Counts what arrives until it is told to stop.
    ///
    /// # Errors
    /// Every [`Failure`]: a subscription that ends before that.
    pub async fn run(
        mut self,
        started: Instant,
        settled: impl Fn(u64),
        stop: CancellationToken,
    ) -> Result<Delivered, Failure> {
        loop {
            let item = tokio::select! {
                item = self.next() => item?,
                () = stop.cancelled() => return Ok(self.delivered),
            };
            match item {
                Item::Message(data) => settled(self.arrived(&data, started)),
                Item::Gap(missed, message) => {
                    let missed = missed.unwrap_or_default();
                    self.delivered.gaps += 1;
                    self.delivered.missed += missed;
                    settled(missed + message.map_or(0, |data| self.arrived(&data, started)));
                }
                Item::Open | Item::Other => {}
            }
        }
    }

    /// Counts a message; returns how many more have arrived: none if it came again.
    fn arrived(&mut self, data: &Data, started: Instant) -> u64 {
        let now = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let newest = self.newest.entry(data.p).or_default();
        if data.n <= *newest {
            self.delivered.repeated += 1;
            return 0;
        }
        *newest = data.n;
        self.delivered.arrived(Duration::from_nanos(now.saturating_sub(data.at)));
        1
    }

    async fn next(&mut self) -> Result<Item, Failure> {
        match &mut self.connection {
            Connection::Ws(socket) => match socket.next().await? {
                SocketItem::Text(text) => frame(&text),
                SocketItem::Ping => Ok(Item::Other),
            },
            Connection::Stream(stream) => match stream.next().await? {
                Some(StreamItem::Comment(comment)) if comment.starts_with("subscribed") => Ok(Item::Open),
                Some(StreamItem::Comment(_)) => Ok(Item::Other),
                Some(StreamItem::Event { data, .. }) => frame(&data),
                None => Err(Failure::Connection("the server has ended a stream".to_owned())),
            },
            Connection::GraphQl(socket) => match socket.next().await? {
                SocketItem::Ping => Ok(Item::Other),
                SocketItem::Text(text) => {
                    let frame: GraphQlFrame = read(&text)?;
                    if frame.kind == "ping" {
                        socket.send(r#"{"type":"pong"}"#).await?;
                    }
                    graphql(&frame)
                }
            },
        }
    }
}

fn frame(text: &str) -> Result<Item, Failure> {
    let frame: Frame = read(text)?;
    match (frame.kind.as_str(), frame.error) {
        (_, Some(error)) => Err(Failure::Refused(error.into())),
        ("event", _) => Ok(serde_json::from_value(frame.data).map_or(Item::Other, Item::Message)),
        ("gap", _) => Ok(Item::Gap(frame.missed, None)),
        ("ack", _) => Ok(Item::Open),
        ("info", _) => Err(Failure::Answer("the topic was deleted".to_owned())),
        _ => Ok(Item::Other),
    }
}

fn graphql(frame: &GraphQlFrame) -> Result<Item, Failure> {
    match frame.kind.as_str() {
        "ping" if frame.payload.get("ack").is_some() => Ok(Item::Open),
        "next" => {
            if let Some(errors) = frame.payload.get("errors") {
                return Err(Failure::Answer(format!("a subscription has ended: {errors}")));
            }
            let data = frame.payload.pointer("/data/messages/data").cloned().unwrap_or_default();
            let message = serde_json::from_value(data).ok();
            Ok(match (frame.payload.pointer("/extensions/gap"), message) {
                (Some(gap), message) => Item::Gap(gap["missed"].as_u64(), message),
                (None, Some(message)) => Item::Message(message),
                (None, None) => Item::Other,
            })
        }
        "error" | "complete" => Err(Failure::Answer(format!("a subscription has ended: {}", frame.payload))),
        _ => Ok(Item::Other),
    }
}
