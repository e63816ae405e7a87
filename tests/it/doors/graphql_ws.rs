//! GraphQL subscriptions over WebSocket: `graphql-transport-ws` by hand.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Door, Event, Options, Start, code_of,
    raw_ws::{Frame, Socket},
    read_result, subscription,
};
use crate::harness::Client;

/// A connection that has been acknowledged.
pub struct GraphqlWs {
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

impl GraphqlWs {
    /// Takes a frame apart; answers its type and operation.
    fn take(&mut self, text: &str) -> (String, Option<String>) {
        let envelope: Envelope<'_> = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let topic = envelope.id.as_ref().and_then(|id| self.operations.get(id)).cloned();
        let payload = envelope.payload.map_or("null", RawValue::get);
        match envelope.r#type.as_str() {
            "next" => {
                let topic = topic.unwrap_or_else(|| panic!("for no operation: {text}"));
                self.queue.extend(read_result(payload, &mut self.consumer).into_iter().map(|event| match event {
                    Event::Deleted(name) if name.is_empty() => Event::Deleted(topic.clone()),
                    event => event,
                }));
            }
            "error" => {
                let errors: Vec<Value> = serde_json::from_str(payload).unwrap();
                self.operations.remove(envelope.id.as_ref().unwrap());
                self.queue.push_back(match code_of(&errors[0]).as_str() {
                    "TOPIC_DELETED" => Event::Deleted(topic.unwrap_or_default()),
                    code => Event::Error(code.to_owned()),
                });
            }
            "complete" => {
                self.operations.remove(envelope.id.as_ref().unwrap());
            }
            "pong" | "connection_ack" => {}
            other => panic!("{other}: {text}"),
        }
        (envelope.r#type, envelope.id)
    }

    /// An answered ping means that what was sent before is done.
    async fn settle(&mut self) {
        self.socket.send(r#"{"type":"ping"}"#).await;
        loop {
            let text = self.socket.text().await;
            if self.take(&text).0 == "pong" {
                return;
            }
        }
    }
}

impl Door for GraphqlWs {
    const SHARES: bool = true;
    const TELLS_OF_TOPICS: bool = false;

    async fn open(client: &Client) -> Self {
        let mut socket = Socket::connect(client, "/graphql", Some("graphql-transport-ws")).await;
        socket.send(r#"{"type":"connection_init"}"#).await;
        assert_eq!(socket.json().await["type"], "connection_ack");
        Self { socket, queue: VecDeque::new(), consumer: None, operations: HashMap::new(), next: 0 }
    }

    async fn subscribe(&mut self, topic: &str, start: Start, options: &Options) -> Result<(), String> {
        self.next += 1;
        let id = format!("op{}", self.next);
        self.operations.insert(id.clone(), topic.to_owned());
        let query = subscription(topic, &start, options);
        self.socket.send(json!({"id": id, "type": "subscribe", "payload": {"query": query}}).to_string()).await;
        // The first pong may overtake a refusal, the second does not.
        self.settle().await;
        self.settle().await;
        if !self.operations.contains_key(&id)
            && let Some(place) = self.queue.iter().position(|event| matches!(event, Event::Error(_)))
            && let Some(Event::Error(code)) = self.queue.remove(place)
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
        self.socket.send(json!({"id": ids[0], "type": "complete"}).to_string()).await;
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
