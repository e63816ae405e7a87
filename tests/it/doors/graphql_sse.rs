//! GraphQL subscriptions as server-sent events: one request, one operation.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{
    Door, Event, Options, Start, code_of, read_result,
    sse::{End, EventStream},
    subscription,
};
use crate::harness::Client;

/// A stream of one subscription.
pub struct GraphqlSse {
    client: Client,
    stream: Option<EventStream>,
    topic: String,
    queue: VecDeque<Event>,
    consumer: Option<Value>,
}

impl Door for GraphqlSse {
    const RESUMES: bool = true;
    const TELLS_OF_TOPICS: bool = false;

    async fn open(client: &Client) -> Self {
        Self { client: client.clone(), stream: None, topic: String::new(), queue: VecDeque::new(), consumer: None }
    }

    async fn subscribe(&mut self, topic: &str, start: Start, options: &Options) -> Result<(), String> {
        topic.clone_into(&mut self.topic);
        // A client that comes back says where it was as `EventSource` does.
        let (start, resume) = match start {
            Start::After(cursor) if options.consumer.is_some() => (Start::Live, format!("Last-Event-ID: {cursor}\r\n")),
            start => (start, String::new()),
        };
        let body = json!({"query": subscription(topic, &start, options)}).to_string();
        let request = format!(
            "POST /graphql HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n\
             {resume}{}Content-Length: {}\r\n\r\n{body}",
            self.client.addr,
            self.client.credential_line(),
            body.len()
        );
        let stream = EventStream::open(&self.client, &request).await.map_err(|(head, body)| {
            // A client that accepts only streams is refused in a short one.
            let result = body.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&body);
            let result: Value = serde_json::from_str(result).unwrap_or_else(|error| panic!("{error}: {head:?} {body}"));
            code_of(&result["errors"][0])
        })?;
        self.stream = Some(stream);
        Ok(())
    }

    async fn event(&mut self) -> Event {
        let stream = self.stream.as_mut().expect("a subscription");
        loop {
            if let Some(event) = self.queue.pop_front() {
                return event;
            }
            let sent = match stream.next().await {
                Ok(sent) => sent,
                Err(End::Clean) => return Event::Closed(None),
                Err(End::Cut) => return Event::Cut,
            };
            match sent.event.as_str() {
                "next" => {
                    let events = read_result(&sent.data, &self.topic, &mut self.consumer);
                    // The newest position that the result says.
                    let position = events.iter().rev().find_map(|event| match event {
                        Event::State(cursor) => Some(cursor.as_str()),
                        Event::Message(message) => Some(message.position()),
                        _ => None,
                    });
                    assert_eq!(sent.id.as_deref(), position);
                    self.queue.extend(events);
                }
                "complete" | "" => {}
                other => panic!("{other}: {sent:?}"),
            }
        }
    }

    async fn unsubscribe(&mut self, _: &str) {
        self.stream = None;
    }

    async fn assert_open(&mut self) {
        self.client.assert_alive().await;
    }

    async fn close(self) {}

    fn consumer(&self) -> Option<Value> {
        self.consumer.clone()
    }
}
