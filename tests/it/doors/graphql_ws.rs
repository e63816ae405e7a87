//! GraphQL subscriptions over WebSocket by hand: `graphql-transport-ws`, and the legacy `graphql-ws`.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Door, Endpoint, Event, Options, Start, code_of,
    raw_ws::{Frame, Socket},
    read_result, subscription,
};
use crate::harness::Client;

/// The subprotocol `graphql-transport-ws`.
pub type GraphqlWs = Connection<false>;
/// The legacy subprotocol `graphql-ws`.
pub type LegacyWs = Connection<true>;

/// A connection that has been acknowledged.
pub struct Connection<const LEGACY: bool> {
    pub socket: Socket,
    queue: VecDeque<Event>,
    consumer: Option<Value>,
    /// Topics by operation.
    operations: HashMap<String, String>,
    next: u32,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    r#type: String,
    id: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl<const LEGACY: bool> Connection<LEGACY> {
    const PROTOCOL: &'static str = if LEGACY { "graphql-ws" } else { "graphql-transport-ws" };
    /// The types of the messages that begin an operation, carry a result and end an operation.
    const START: &'static str = if LEGACY { "start" } else { "subscribe" };
    const DATA: &'static str = if LEGACY { "data" } else { "next" };
    const STOP: &'static str = if LEGACY { "stop" } else { "complete" };

    /// Takes a frame apart; returns its type and operation.
    fn take(&mut self, text: &str) -> (String, Option<String>) {
        let envelope: Envelope<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let topic = envelope.id.as_ref().and_then(|id| self.operations.get(id)).cloned();
        let payload = envelope.payload.map_or("null", RawValue::get);
        match envelope.r#type.as_str() {
            kind if kind == Self::DATA => {
                // The query of `settle` has no topic.
                let Some(topic) = topic else {
                    assert_eq!(envelope.id.as_deref(), Some(SETTLE), "for no operation: {text}");
                    return (envelope.r#type, envelope.id);
                };
                self.queue.extend(read_result(payload, &topic, &mut self.consumer));
            }
            "error" => {
                let errors: Value = serde_json::from_str(payload).unwrap();
                // The legacy protocol has one error, the other a list.
                let error = if LEGACY { &errors } else { &errors[0] };
                self.operations.remove(envelope.id.as_ref().unwrap());
                self.queue.push_back(match code_of(error).as_str() {
                    "TOPIC_DELETED" => Event::Deleted(topic.unwrap_or_default()),
                    code => Event::Error(code.to_owned()),
                });
            }
            "complete" => {
                self.operations.remove(envelope.id.as_ref().unwrap());
            }
            "pong" | "connection_ack" if !LEGACY => {}
            "ka" if LEGACY => {}
            other => panic!("{other}: {text}"),
        }
        (envelope.r#type, envelope.id)
    }

    /// Waits until what was sent before is done: a ping has its pong, or where there are none, a query its end.
    async fn settle(&mut self) {
        let frame = if LEGACY {
            json!({"id": SETTLE, "type": "start", "payload": {"query": "{ __typename }"}})
        } else {
            json!({"type": "ping"})
        };
        self.socket.send(frame.to_string()).await;
        loop {
            let text = self.socket.text().await;
            let (kind, id) = self.take(&text);
            if kind == "pong" || (kind == "complete" && id.as_deref() == Some(SETTLE)) {
                return;
            }
        }
    }
}

/// The id of the query with which the legacy protocol settles.
const SETTLE: &str = "settle";

impl<const LEGACY: bool> Door for Connection<LEGACY> {
    const SHARES: bool = true;
    const SOCKET: Option<Endpoint> = Some(Endpoint { path: "/graphql", protocol: Some(Self::PROTOCOL) });
    const TELLS_OF_TOPICS: bool = false;

    async fn open(client: &Client) -> Self {
        let mut socket = Socket::connect(client, "/graphql", Some(Self::PROTOCOL)).await;
        socket.send(r#"{"type":"connection_init"}"#).await;
        assert_eq!(socket.json().await["type"], "connection_ack");
        Self { socket, queue: VecDeque::new(), consumer: None, operations: HashMap::new(), next: 0 }
    }

    async fn subscribe(&mut self, topic: &str, start: Start, options: &Options) -> Result<(), String> {
        self.next += 1;
        let id = format!("op{}", self.next);
        self.operations.insert(id.clone(), topic.to_owned());
        let query = subscription(topic, &start, options);
        self.socket.send(json!({"id": id, "type": Self::START, "payload": {"query": query}}).to_string()).await;
        // The first pong may overtake a refusal, the second does not.
        self.settle().await;
        self.settle().await;
        if !self.operations.contains_key(&id)
            && let Some(index) = self.queue.iter().position(|event| matches!(event, Event::Error(_)))
            && let Some(Event::Error(code)) = self.queue.remove(index)
        {
            return Err(code);
        }
        Ok(())
    }

    async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return event;
            }
            match self.socket.frame().await {
                Frame::Text(text) => {
                    self.take(&text);
                }
                Frame::Closed(code) => return Event::Closed(code),
                Frame::Cut => return Event::Cut,
            }
        }
    }

    async fn unsubscribe(&mut self, topic: &str) {
        let ids: Vec<_> =
            self.operations.iter().filter(|(_, known)| *known == topic).map(|(id, _)| id.clone()).collect();
        assert_eq!(ids.len(), 1);
        self.socket.send(json!({"id": ids[0], "type": Self::STOP}).to_string()).await;
        self.settle().await;
        self.operations.remove(&ids[0]);
    }

    async fn assert_open(&mut self) {
        self.settle().await;
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
