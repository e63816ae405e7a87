//! A subscription's connection at any of the four doors: bytes in, items out.

use std::{collections::VecDeque, net::SocketAddr};

use serde_json::{Value, json};

use crate::{
    leg::{Ask, Door, Gap, Start, Told},
    model::{Place, Shown, parse_time},
    net::{Fill, Head, Line, encode},
    schema::Dialect,
    websocket::{self, Frame},
};

/// The name of a subscription that shares the socket and is not looked at.
const MATE: &str = "mate";

/// One thing that a connection brought.
#[derive(Clone, Debug)]
pub enum Item {
    /// The subscription stands.
    Stands,
    Told(Told),
    Message {
        shown: Shown,
        cursor: String,
        pattern_cursor: Option<String>,
    },
    Gap(Gap),
    Deleted(String),
    /// A ping that asks whether all before it has arrived.
    Ping(Vec<u8>),
    /// An acknowledgement by frame was answered; with a code where it was refused.
    Acknowledged(String, Option<String>),
    Failed(String),
    Complete,
    Closed(Option<u16>),
    Ended,
    Broken,
    Spent,
    /// Something that the contract does not have.
    Invalid(String),
}

/// A connection with one subscription.
pub struct Feed {
    pub line: Line,
    door: Door,
    dialect: Dialect,
    mate: Option<String>,
    items: VecDeque<Item>,
    head: Option<Head>,
    /// What is left of the chunk that is being read.
    chunk: usize,
    text: Vec<u8>,
    event: Event,
    over: bool,
}

/// An event of an event stream, as far as it has come.
#[derive(Default)]
struct Event {
    name: String,
    id: Option<String>,
    data: String,
}

impl Feed {
    /// Connects and asks; `None` when the connection breaks before that.
    pub async fn open(addr: SocketAddr, door: Door, dialect: &Dialect, ask: &Ask) -> Option<Self> {
        let line = match door {
            Door::Socket => {
                let mut line = websocket::open(addr, "/ws", None).await?;
                let mut bytes = websocket::text(&socket_frame(ask).to_string());
                if let Some(mate) = &ask.mate {
                    let frame = json!({"type": "subscribe", "topic": mate, "request_id": MATE, "last_n": 50});
                    bytes.splice(0..0, websocket::text(&frame.to_string()));
                }
                line.write(&bytes).await.ok()?;
                line
            }
            Door::GraphqlSocket => {
                let mut line = websocket::open(addr, "/graphql", Some("graphql-transport-ws")).await?;
                let payload = dialect.subscription(ask);
                let subscribe = json!({"id": "sub", "type": "subscribe", "payload": payload});
                let init = websocket::text(r#"{"type":"connection_init"}"#);
                let mut frames = vec![init, websocket::text(&subscribe.to_string())];
                if let Some(mate) = &ask.mate {
                    let query = format!("subscription {{ messages(topic: {mate:?}, last: 50) {{ offset data }} }}");
                    let frame = json!({"id": MATE, "type": "subscribe", "payload": {"query": query}});
                    frames.push(websocket::text(&frame.to_string()));
                }
                line.write(&frames.concat()).await.ok()?;
                line
            }
            Door::Events => {
                let mut line = Line::connect(addr).await.ok()?;
                line.write(&events_request(ask)).await.ok()?;
                line
            }
            Door::GraphqlEvents => {
                let mut line = Line::connect(addr).await.ok()?;
                let headers = format!("accept: text/event-stream\r\n{}", resume_header(ask));
                let body = dialect.subscription(ask);
                line.write(&crate::net::request("POST", "/graphql", &headers, Some(&body))).await.ok()?;
                line
            }
        };
        Some(Self {
            line,
            door,
            dialect: dialect.clone(),
            mate: ask.mate.clone(),
            items: VecDeque::new(),
            head: None,
            chunk: 0,
            text: Vec::new(),
            event: Event::default(),
            over: false,
        })
    }

    /// The next item. Nothing is lost when this is dropped before it is done.
    pub async fn next(&mut self) -> Item {
        loop {
            if let Some(item) = self.items.pop_front() {
                return item;
            }
            let before = self.line.buffer.len();
            if !self.over {
                if self.door.is_socket() { self.read_frame() } else { self.read_stream() }
            }
            // Not everything that comes is an item.
            if !self.items.is_empty() || self.line.buffer.len() < before {
                continue;
            }
            match self.line.fill().await {
                Fill::More => {}
                Fill::Ended => return Item::Ended,
                Fill::Broken => return Item::Broken,
                Fill::Spent => return Item::Spent,
            }
        }
    }

    // ---- WebSockets

    fn read_frame(&mut self) {
        let item = match websocket::take(&mut self.line) {
            None | Some(Frame::Pong) => return,
            Some(Frame::Text(text)) => match serde_json::from_str::<Value>(&text) {
                Ok(frame) if self.door == Door::Socket => return self.socket_item(&frame),
                Ok(frame) => return self.graphql_frame(&frame),
                Err(error) => Item::Invalid(format!("{error} in {text}")),
            },
            Some(Frame::Ping(payload)) => Item::Ping(payload),
            Some(Frame::Close(code)) => Item::Closed(code),
            Some(Frame::Bad(what)) => Item::Invalid(what),
        };
        self.items.push_back(item);
    }

    fn socket_item(&mut self, frame: &Value) {
        let request = frame["request_id"].as_str();
        let of_mate = self.mate.as_ref().is_some_and(|mate| frame["topic"] == mate.as_str());
        if request == Some(MATE) || (of_mate && request.is_none()) {
            return;
        }
        let code = frame["error"]["code"].as_str().map(ToOwned::to_owned);
        match (frame["type"].as_str().unwrap_or_default(), request) {
            ("ack", Some("sub")) => {
                self.items.push_back(Item::Stands);
                if let Some(told) = told(&self.dialect, &frame["consumer"]) {
                    self.items.push_back(Item::Told(told));
                }
            }
            ("ack" | "error", Some(id)) if id != "sub" => {
                self.items.push_back(Item::Acknowledged(id.to_owned(), code));
            }
            ("error", _) => self.items.push_back(Item::Failed(code.unwrap_or_default())),
            _ => self.plain_item(frame),
        }
    }

    /// The frames that `/ws` and event streams share.
    fn plain_item(&mut self, frame: &Value) {
        let item = match frame["type"].as_str().unwrap_or_default() {
            "event" => message(&self.dialect, frame, "id"),
            "gap" => gap(frame, ["from_offset", "to_offset"]),
            "info" if frame["msg"] == "topic_deleted" => frame["topic"].as_str().map(|t| Item::Deleted(t.to_owned())),
            _ => None,
        };
        self.items.push_back(item.unwrap_or_else(|| Item::Invalid(format!("an unknown frame: {frame}"))));
    }

    fn graphql_frame(&mut self, frame: &Value) {
        if frame["id"] == MATE {
            return;
        }
        match frame["type"].as_str().unwrap_or_default() {
            "connection_ack" | "pong" => {}
            "ping" if frame["payload"]["ack"] == "sub" => {
                self.items.push_back(Item::Stands);
                if let Some(told) = told(&self.dialect, &frame["payload"]["consumer"]) {
                    self.items.push_back(Item::Told(told));
                }
            }
            "ping" => {}
            "next" => self.result(&frame["payload"]),
            "error" => {
                let code = frame["payload"][0]["extensions"]["code"].as_str().unwrap_or_default();
                self.items.push_back(Item::Failed(code.to_owned()));
            }
            "complete" => self.items.push_back(Item::Complete),
            _ => self.items.push_back(Item::Invalid(format!("an unknown message: {frame}"))),
        }
    }

    /// A result of a GraphQL subscription.
    fn result(&mut self, result: &Value) {
        self.items.push_back(Item::Stands);
        if let Some(told) = told(&self.dialect, &result["extensions"]["consumer"]) {
            self.items.push_back(Item::Told(told));
        }
        let extension = &result["extensions"]["gap"];
        if let Some(gap) = gap(extension, ["fromOffset", "toOffset"]) {
            self.items.push_back(gap);
        }
        if let Some(topic) = result["extensions"]["deleted"]["topic"].as_str() {
            self.items.push_back(Item::Deleted(topic.to_owned()));
        }
        let (data, errors) = (&result["data"], &result["errors"]);
        if let Some(code) = errors[0]["extensions"]["code"].as_str() {
            self.items.push_back(Item::Failed(code.to_owned()));
        } else if !data.is_object() {
            self.items.push_back(Item::Invalid(format!("a result without data and without errors: {result}")));
        } else if data["messages"].is_object() {
            let mut beside = extension.clone();
            if let Some(fields) = beside.as_object_mut() {
                fields.shift_remove("topic");
            }
            if beside != data["messages"]["gap"] {
                self.items.push_back(Item::Invalid(format!("two tales of one gap: {result}")));
            }
            let item = message(&self.dialect, &data["messages"], self.dialect.message_id);
            self.items.push_back(item.unwrap_or_else(|| Item::Invalid(format!("no message: {result}"))));
        } else if extension.is_null() && result["extensions"].as_object().is_none_or(serde_json::Map::is_empty) {
            self.items.push_back(Item::Invalid(format!("a result of nothing: {result}")));
        }
    }

    // ---- event streams

    fn read_stream(&mut self) {
        if self.head.is_none() {
            self.head = Head::take(&mut self.line);
        }
        let Some(head) = self.head.clone() else { return };
        if let Some(length) = head.length.filter(|_| head.status != 200) {
            if let Some(body) = self.line.take(length) {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let code = body["error"]["code"].as_str().or(body["errors"][0]["extensions"]["code"].as_str());
                self.items.push_back(Item::Failed(code.unwrap_or_default().to_owned()));
                self.over = true;
            }
            return;
        }
        match head.length {
            // A stream that only says why there is none.
            Some(length) => {
                let Some(body) = self.line.take(length) else { return };
                self.text.extend_from_slice(&body);
                self.over = true;
            }
            None => self.unchunk(),
        }
        while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.text.drain(..=end).collect();
            self.stream_line(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']));
        }
        if self.over {
            self.items.push_back(Item::Closed(None));
        }
    }

    fn unchunk(&mut self) {
        while !self.over {
            if self.chunk > 0 {
                // The chunk and the line's end behind it.
                let count = self.line.buffer.len().min(self.chunk);
                let Some(bytes) = self.line.take(count).filter(|bytes| !bytes.is_empty()) else { return };
                let data = count.min(self.chunk.saturating_sub(2));
                self.chunk -= count;
                self.text.extend_from_slice(&bytes[..data]);
                continue;
            }
            let Some(size) = self.line.take_line() else { return };
            match usize::from_str_radix(&size, 16) {
                Ok(0) => self.over = true,
                Ok(size) => self.chunk = size + 2,
                Err(_) => {
                    self.items.push_back(Item::Invalid(format!("no chunk: {size}")));
                    self.over = true;
                }
            }
        }
    }

    fn stream_line(&mut self, line: &str) {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if !event.name.is_empty() {
                self.stream_event(&event);
            }
            return;
        }
        match line.split_once(':') {
            Some(("", _)) => self.items.push_back(Item::Stands),
            Some(("event", name)) => name.trim().clone_into(&mut self.event.name),
            Some(("id", id)) => self.event.id = Some(id.trim().to_owned()),
            Some(("data", data)) => self.event.data += data.strip_prefix(' ').unwrap_or(data),
            _ => {}
        }
    }

    fn stream_event(&mut self, event: &Event) {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        match event.name.as_str() {
            "consumer" => self.items.extend(told(&self.dialect, &data["consumer"]).map(Item::Told)),
            "error" => {
                let code = data["error"]["code"].as_str().unwrap_or_default();
                self.items.push_back(Item::Failed(code.to_owned()));
            }
            "next" => self.result(&data),
            "complete" => self.items.push_back(Item::Complete),
            _ => self.plain_item(&data),
        }
        // The position that a browser would send is the one beside the message.
        if let Some(Item::Message { cursor, pattern_cursor, .. }) = self.items.back() {
            let position = pattern_cursor.as_ref().unwrap_or(cursor);
            if event.id.as_ref() != Some(position) {
                let text = format!("the event's id is {:?}, the message's position {position}", event.id);
                self.items.push_back(Item::Invalid(text));
            }
        }
    }
}

fn socket_frame(ask: &Ask) -> Value {
    let mut frame = json!({"type": "subscribe", "topic": ask.target.name, "request_id": "sub"});
    match &ask.start {
        Start::Live => {}
        Start::Last(count) => frame["last_n"] = (*count).into(),
        Start::After { cursor, .. } | Start::Resume { cursor, .. } => frame["after"] = cursor.as_str().into(),
        Start::Since { text, .. } => frame["since"] = text.as_str().into(),
    }
    if let Some(filter) = &ask.filter {
        frame["filter"] = filter.0.clone();
    }
    if let Some(named) = &ask.consumer {
        frame["consumer"] = named.name.as_str().into();
        frame["ack"] = if named.explicit { "EXPLICIT" } else { "AUTO" }.into();
    }
    frame["overflow"] = ask.overflow.code().into();
    frame
}

fn events_request(ask: &Ask) -> Vec<u8> {
    let mut query = format!("overflow={}", ask.overflow.code());
    match &ask.start {
        Start::Live => {}
        Start::Last(count) => query += &format!("&last={count}"),
        Start::After { cursor, .. } | Start::Resume { cursor, .. } if !ask.by_header => {
            query += &format!("&{}={}", ask.by_parameter, encode(cursor));
        }
        Start::After { .. } | Start::Resume { .. } => {}
        Start::Since { text, .. } => query += &format!("&since={}", encode(text)),
    }
    if let Some(filter) = &ask.filter {
        query += &format!("&filter={}", encode(&filter.0.to_string()));
    }
    if let Some(named) = &ask.consumer {
        query += &format!("&consumer={}&ack={}", named.name, if named.explicit { "EXPLICIT" } else { "AUTO" });
    }
    let path = format!("/topics/{}/messages?{query}", encode(&ask.target.name));
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n{}\r\n", resume_header(ask))
        .into_bytes()
}

fn resume_header(ask: &Ask) -> String {
    match &ask.start {
        Start::After { cursor, .. } | Start::Resume { cursor, .. } if ask.by_header => {
            format!("last-event-id: {cursor}\r\n")
        }
        _ => String::new(),
    }
}

fn told(dialect: &Dialect, consumer: &Value) -> Option<Told> {
    let resumed = consumer["resumed"].as_bool()?;
    let place = consumer["cursor"].as_str().and_then(|cursor| dialect.place(cursor));
    Some(Told { resumed, place })
}

fn gap(gap: &Value, [from, to]: [&str; 2]) -> Option<Item> {
    let missed = gap["missed"].as_u64();
    Some(Item::Gap(Gap {
        topic: gap["topic"].as_str()?.to_owned(),
        missed: if gap["missed"].is_null() { None } else { Some(missed?) },
        from: gap[from].as_u64()?,
        to: gap[to].as_u64()?,
        reason: gap["reason"].as_str()?.to_owned(),
    }))
}

fn message(dialect: &Dialect, message: &Value, id: &str) -> Option<Item> {
    let cursor = message["cursor"].as_str()?.to_owned();
    let pattern = message["pattern_cursor"].as_str().or(message["patternCursor"].as_str());
    Some(Item::Message { shown: shown(dialect, message, id)?, cursor, pattern_cursor: pattern.map(ToOwned::to_owned) })
}

/// A message as every door shows it, but for the name of its id.
pub fn shown(dialect: &Dialect, message: &Value, id: &str) -> Option<Shown> {
    let epoch = dialect.place(message["cursor"].as_str()?)?.epoch;
    Some(Shown {
        topic: message["topic"].as_str()?.to_owned(),
        place: Place { epoch, offset: message["offset"].as_u64()? },
        id: message[id].as_str()?.to_owned(),
        key: message["key"].as_str().map(ToOwned::to_owned),
        data: message["data"].clone(),
        previous: message.get("previous").map(|previous| previous.as_str().and_then(|text| dialect.place(text))),
        time: parse_time(message.get("ts").unwrap_or(&message["publishedAt"])),
    })
}
