//! How messages come from the server.
//!
//! A consumer reads from `/ws`: there, an answer to the server's ping says that messages have arrived, and acknowledgements
//! travel on the same connection. Every other subscription reads from an event stream, which says where it begins, so that
//! it can be resumed from there before the first message has come.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::{
    frame::{ACKNOWLEDGE, Item, SUBSCRIBE, Subscribed},
    request::Request,
};
use crate::client::{EventStream, Failure, Remote, SocketItem, StreamItem, WebSocket};

/// Nothing at all from the server for so long means that the connection is of no use. Servers send something each 30 s unless
/// they are told otherwise, and connecting again loses nothing.
const MAX_SILENCE: Duration = Duration::from_mins(5);

/// A connection over which one subscription comes.
pub enum Connection {
    Stream(EventStream),
    Socket(Box<WebSocket>),
}

impl Connection {
    /// Subscribes after `position`, or where the request says.
    ///
    /// # Errors
    /// Every [`Failure`].
    pub async fn open(remote: &Remote, request: &Request, position: Option<&str>) -> Result<Self, Failure> {
        if request.consumer.is_none() {
            return Ok(Self::Stream(remote.event_stream(&request.path(position)).await?));
        }
        let mut socket = remote.web_socket("/ws", None).await?;
        socket.send(request.frame(position, SUBSCRIBE)).await?;
        Ok(Self::Socket(Box::new(socket)))
    }

    /// The next item.
    ///
    /// # Errors
    /// Every [`Failure`].
    pub async fn next(&mut self) -> Result<Item, Failure> {
        let next = async {
            match self {
                Connection::Stream(stream) => match stream.next().await? {
                    Some(item) => from_stream(item),
                    None => Err(Failure::Connection("the server has ended the stream".to_owned())),
                },
                Connection::Socket(socket) => match socket.next().await? {
                    SocketItem::Text(text) => Item::read(text),
                    SocketItem::Ping => Ok(Item::Confirm),
                },
            }
        };
        let silent = || Failure::Connection(format!("nothing has come for {} min", MAX_SILENCE.as_secs() / 60));
        timeout(MAX_SILENCE, next).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Asks the server to move the consumer's position behind a cursor.
    ///
    /// # Errors
    /// [`Failure::Connection`].
    pub async fn acknowledge(&mut self, request: &Request, cursor: &str) -> Result<(), Failure> {
        let Connection::Socket(socket) = self else { return Ok(()) };
        let frame = json!({
            "type": "ack",
            "topic": request.source,
            "consumer": request.consumer,
            "cursor": cursor,
            "request_id": ACKNOWLEDGE,
        });
        socket.feed(frame.to_string()).await
    }

    /// Sends what waits to be sent: acknowledgements, and the answer to a ping.
    ///
    /// # Errors
    /// [`Failure::Connection`].
    pub async fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Connection::Stream(_) => Ok(()),
            Connection::Socket(socket) => socket.flush().await,
        }
    }
}

fn from_stream(item: StreamItem) -> Result<Item, Failure> {
    match item {
        StreamItem::Comment(comment) => {
            let position = comment.strip_prefix("subscribed ").map(str::to_owned);
            let subscribed = |position| Item::Subscribed(Subscribed { position: Some(position), resumed: None });
            Ok(position.map_or(Item::Other, subscribed))
        }
        StreamItem::Event { data, .. } => Item::read(data),
    }
}
