//! A client's end of `/ws`.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::PUBLISH_DEADLINE;
use crate::harness::Client;

/// A connection to `/ws` that a server may break at any moment.
pub struct Connection(WebSocketStream<TcpStream>);

impl Connection {
    pub async fn open(client: &Client) -> Option<Self> {
        let tcp = TcpStream::connect(client.addr).await.ok()?;
        let opened = timeout(PUBLISH_DEADLINE, client_async(format!("ws://{}/ws", client.addr), tcp)).await;
        Some(Self(opened.expect("a server that takes connections answers").ok()?.0))
    }

    pub async fn send(&mut self, frame: Value) -> Option<()> {
        self.0.send(Message::text(frame.to_string())).await.ok()
    }

    pub async fn next(&mut self) -> Option<Value> {
        loop {
            match self.0.next().await?.ok()? {
                Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }
}
