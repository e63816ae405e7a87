//! GraphQL over SSE in its single-connection mode: one event stream, operations by requests of their own.

use std::collections::{HashMap, VecDeque};

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Door, Event, Options, Start, code_of, read_result,
    sse::{End, EventStream},
    subscription,
};
use crate::harness::{Client, Response, encode};

/// The header that names the stream.
const TOKEN: &str = "x-graphql-event-stream-token";

/// A reserved stream with its connection.
pub struct GraphqlSingle {
    client: Client,
    stream: EventStream,
    token: String,
    queue: VecDeque<Event>,
    consumer: Option<Value>,
    /// Topics by operation.
    operations: HashMap<String, String>,
    next: u32,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    id: String,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

/// The id of the query that settles.
const SETTLE: &str = "settle";

impl GraphqlSingle {
    /// Sends an operation, whose results come over the stream.
    async fn operate(&self, id: &str, query: &str) -> Response {
        let body = json!({"query": query, "extensions": {"operationId": id}});
        let request = self.client.request(Method::POST, "/graphql").header(TOKEN, &self.token);
        self.client.send(request.header("accept", "application/json").json(&body)).await
    }

    /// Reads one event of the stream; returns the operation that it ends, if it ends one.
    async fn read(&mut self) -> Result<Option<String>, End> {
        let sent = self.stream.next().await?;
        assert_eq!(sent.id, None, "positions are of one operation, and the stream has many: {sent:?}");
        let envelope: Envelope<'_> =
            serde_json::from_str(&sent.data).unwrap_or_else(|error| panic!("{error}: {sent:?}"));
        let topic = self.operations.get(&envelope.id).cloned();
        match (sent.event.as_str(), envelope.payload) {
            // The query of `settle` has no topic.
            ("next", Some(_)) if envelope.id == SETTLE => Ok(None),
            ("next", Some(payload)) => {
                let topic = topic.unwrap_or_else(|| panic!("for no operation: {sent:?}"));
                self.queue.extend(read_result(payload.get(), &topic, &mut self.consumer));
                Ok(None)
            }
            ("complete", None) => {
                self.operations.remove(&envelope.id);
                Ok(Some(envelope.id))
            }
            _ => panic!("{sent:?}"),
        }
    }

    /// Reads on to the end of an operation.
    async fn read_to_end_of(&mut self, id: &str) {
        while self.read().await.expect("an open stream").as_deref() != Some(id) {}
    }
}

impl Door for GraphqlSingle {
    const SHARES: bool = true;
    const TELLS_OF_TOPICS: bool = false;

    async fn open(client: &Client) -> Self {
        let reserved = client.send(client.request(Method::PUT, "/graphql")).await;
        assert_eq!(reserved.status, 201, "{reserved:?}");
        let token = reserved.text;
        let request = format!(
            "GET /graphql HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n{TOKEN}: {token}\r\n{}\r\n",
            client.addr,
            client.credential_line()
        );
        let stream = EventStream::open(client, &request).await.unwrap_or_else(|refused| panic!("{refused:?}"));
        let (queue, operations) = (VecDeque::new(), HashMap::new());
        Self { client: client.clone(), stream, token, queue, consumer: None, operations, next: 0 }
    }

    async fn subscribe(&mut self, topic: &str, start: Start, options: &Options) -> Result<(), String> {
        self.next += 1;
        let id = format!("op{}", self.next);
        self.operations.insert(id.clone(), topic.to_owned());
        let response = self.operate(&id, &subscription(topic, &start, options)).await;
        if response.status == 202 {
            return Ok(());
        }
        self.operations.remove(&id);
        Err(code_of(&response.json()["errors"][0]))
    }

    async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return event;
            }
            match self.read().await {
                Ok(_) => {}
                Err(End::Clean) => return Event::Closed(None),
                Err(End::Cut) => return Event::Cut,
            }
        }
    }

    async fn unsubscribe(&mut self, topic: &str) {
        let ids: Vec<_> =
            self.operations.iter().filter(|(_, known)| *known == topic).map(|(id, _)| id.clone()).collect();
        let [id] = ids.as_slice() else { panic!("{} operations of {topic}", ids.len()) };
        let request = self.client.request(Method::DELETE, &format!("/graphql?operationId={}", encode(id)));
        let response = self.client.send(request.header(TOKEN, &self.token)).await;
        assert_eq!(response.status, 200, "{response:?}");
        self.read_to_end_of(id).await;
    }

    async fn assert_open(&mut self) {
        let response = self.operate(SETTLE, "{ __typename }").await;
        assert_eq!(response.status, 202, "{response:?}");
        self.read_to_end_of(SETTLE).await;
    }

    async fn close(self) {}

    fn consumer(&self) -> Option<Value> {
        self.consumer.clone()
    }

    fn received(&mut self) -> Vec<Event> {
        self.queue.drain(..).collect()
    }
}
