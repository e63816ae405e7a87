//! `/ws`, through another implementation of WebSocket than the server's.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use super::{Door, Endpoint, Event, Options, Start, read_frame};
use crate::harness::{Client, within};

/// A WebSocket that counts on nothing but text frames.
pub struct Socket {
    pub stream: WebSocketStream<TcpStream>,
    /// Pongs seen.
    pub pongs: usize,
}

/// What came from the server.
#[derive(Debug)]
pub enum Frame {
    Text(String),
    Closed(Option<u16>),
    Cut,
}

impl Socket {
    pub async fn connect(client: &Client, path: &str, protocol: Option<&str>) -> Self {
        Self::try_connect(client, path, protocol).await.unwrap()
    }

    pub async fn try_connect(client: &Client, path: &str, protocol: Option<&str>) -> Result<Self, tungstenite::Error> {
        let mut request = format!("ws://{}{path}", client.addr).into_client_request()?;
        if let Some(name) = protocol {
            request.headers_mut().insert("sec-websocket-protocol", name.parse().unwrap());
        }
        if let Some(value) = client.authorization() {
            request.headers_mut().insert("authorization", value.parse().unwrap());
        }
        let tcp = crate::raw::connect(client.addr).await;
        let (stream, response) = within("WebSocket", client_async(request, tcp)).await?;
        assert_eq!(response.headers().get("sec-websocket-protocol").map(|name| name.to_str().unwrap()), protocol);
        Ok(Self { stream, pongs: 0 })
    }

    pub async fn send(&mut self, text: impl Into<String>) {
        // Fails when the server has closed: the next frame tells.
        let _ = within("room to send", self.stream.send(Message::text(text.into()))).await;
    }

    /// Sends with what follows: a `flush` or `send` moves it on.
    pub async fn feed(&mut self, text: impl Into<String>) {
        let _ = within("room to send", self.stream.feed(Message::text(text.into()))).await;
    }

    pub async fn flush(&mut self) {
        let _ = within("room to send", self.stream.flush()).await;
    }

    /// Whether the server took it.
    pub async fn try_flush(&mut self) -> bool {
        within("room to send", self.stream.flush()).await.is_ok()
    }

    pub async fn frame(&mut self) -> Frame {
        loop {
            match within("frame", self.stream.next()).await {
                Some(Ok(Message::Text(text))) => return Frame::Text(text.to_string()),
                Some(Ok(Message::Pong(_))) => self.pongs += 1,
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(bytes))) => panic!("binary frame {bytes:?}"),
                Some(Ok(Message::Close(close))) => {
                    return Frame::Closed(close.map(|close| close.code.into()));
                }
                Some(Err(_)) | None => return Frame::Cut,
            }
        }
    }

    pub async fn text(&mut self) -> String {
        match self.frame().await {
            Frame::Text(text) => text,
            other => panic!("a text frame was due, not {other:?}"),
        }
    }

    pub async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).unwrap()
    }

    /// Reads on to the end and returns the close code, if there was one.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.frame().await {
                Frame::Text(_) => {}
                Frame::Closed(code) => return code,
                Frame::Cut => return None,
            }
        }
    }

    /// Goes through the close handshake.
    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
        while !matches!(self.frame().await, Frame::Cut) {}
    }
}

/// A connection to `/ws`.
pub struct RawWs {
    pub socket: Socket,
    queue: VecDeque<Event>,
    consumer: Option<Value>,
    requests: u64,
}

impl RawWs {
    /// Sends a frame and returns the reply to it; events that come before it are kept.
    pub async fn ask(&mut self, mut frame: Value) -> Value {
        self.requests += 1;
        let request_id = format!("r{}", self.requests);
        frame["request_id"] = request_id.clone().into();
        self.socket.send(frame.to_string()).await;
        loop {
            let text = self.socket.text().await;
            let reply: Value = serde_json::from_str(&text).unwrap();
            if reply["request_id"] == request_id.as_str() {
                return reply;
            }
            self.queue.push_back(read_frame(&text));
        }
    }
}

impl Door for RawWs {
    const SHARES: bool = true;
    const SOCKET: Option<Endpoint> = Some(Endpoint { path: "/ws", protocol: None });

    async fn open(client: &Client) -> Self {
        let socket = Socket::connect(client, "/ws", None).await;
        Self { socket, queue: VecDeque::new(), consumer: None, requests: 0 }
    }

    async fn subscribe(&mut self, topic: &str, start: Start, options: &Options) -> Result<(), String> {
        let mut frame = json!({"type": "subscribe", "topic": topic});
        match start {
            Start::Live => {}
            Start::Last(count) => frame["last_n"] = count.into(),
            Start::After(cursor) => frame["after"] = cursor.into(),
            Start::Since(time) => frame["since"] = time.into(),
            Start::State => frame["state"] = true.into(),
        }
        for (name, value) in [("consumer", options.consumer), ("ack", options.ack), ("overflow", options.overflow)] {
            if let Some(value) = value {
                frame[name] = value.into();
            }
        }
        if let Some(filter) = &options.filter {
            frame["filter"] = filter.clone();
        }
        let reply = self.ask(frame).await;
        match reply["type"].as_str() {
            Some("ack") => {
                assert_eq!((&reply["status"], &reply["topic"]), (&"ok".into(), &topic.into()), "{reply}");
                self.consumer = reply.get("consumer").cloned();
                Ok(())
            }
            _ => Err(reply["error"]["code"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()),
        }
    }

    async fn event(&mut self) -> Event {
        if let Some(event) = self.queue.pop_front() {
            return event;
        }
        match self.socket.frame().await {
            Frame::Text(text) => read_frame(&text),
            Frame::Closed(code) => Event::Closed(code),
            Frame::Cut => Event::Cut,
        }
    }

    async fn unsubscribe(&mut self, topic: &str) {
        let reply = self.ask(json!({"type": "unsubscribe", "topic": topic})).await;
        assert_eq!(reply["type"], "ack", "{reply}");
    }

    async fn assert_open(&mut self) {
        assert_eq!(self.ask(json!({"type": "ping"})).await["type"], "pong");
    }

    async fn close(self) {
        self.socket.close().await;
    }

    fn consumer(&self) -> Option<Value> {
        self.consumer.clone()
    }

    fn received(&mut self) -> Vec<Event> {
        self.queue.drain(..).collect()
    }
}
