//! Pages of history, asked for one after the other: what is live to a client that cannot hold a connection.

use std::{collections::VecDeque, time::Duration};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Door, Event, Gap, MessageFields, Options, Start};
use crate::harness::{Client, encode, within};

/// A position in a topic and what was read up to it.
pub struct RestPages {
    client: Client,
    topic: String,
    next: String,
    queue: VecDeque<Event>,
    ended: bool,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
    gap: Option<Gap>,
    next: String,
}

/// What was missed before a message in the midst of a page.
#[derive(Deserialize)]
struct Before {
    gap: Option<Gap>,
}

impl RestPages {
    async fn page(&mut self, query: &str) -> Result<(), String> {
        let response = self.client.get(&format!("/topics/{}/messages?limit=100&{query}", encode(&self.topic))).await;
        if response.status != 200 {
            return Err(response.code());
        }
        let page: Page<'_> =
            serde_json::from_str(&response.text).unwrap_or_else(|error| panic!("{error}: {response:?}"));
        assert!(page.messages.len() <= 100, "{response:?}");
        self.next = page.next;
        self.queue.extend(page.gap.map(Event::Gap));
        for message in page.messages {
            let before: Before = serde_json::from_str(message.get()).unwrap();
            self.queue.extend(before.gap.map(Event::Gap));
            self.queue
                .push_back(Event::Message(serde_json::from_str::<MessageFields<'_>>(message.get()).unwrap().read()));
        }
        Ok(())
    }
}

impl Door for RestPages {
    const PUSHES: bool = false;
    const NAME_IN_PATH: bool = true;
    const SLOW: &'static str = "EXPIRED";

    async fn open(client: &Client) -> Self {
        Self { client: client.clone(), topic: String::new(), next: String::new(), queue: VecDeque::new(), ended: false }
    }

    async fn subscribe(&mut self, topic: &str, start: Start, options: &Options) -> Result<(), String> {
        assert!(options.filter.is_none() && options.consumer.is_none() && options.overflow.is_none());
        topic.clone_into(&mut self.topic);
        self.ended = false;
        self.queue.clear();
        match start {
            // The newest page says where to go on.
            Start::Live => {
                self.page("last=1").await?;
                self.queue.clear();
                Ok(())
            }
            Start::Last(count) => self.page(&format!("last={count}")).await,
            Start::After(cursor) => self.page(&format!("after={cursor}")).await,
            Start::Since(time) => self.page(&format!("since={}", encode(&time))).await,
            Start::State => panic!("pages of the history have no state"),
        }
    }

    async fn event(&mut self) -> Event {
        within("event", async {
            loop {
                if let Some(event) = self.queue.pop_front() {
                    return event;
                }
                if self.ended {
                    return Event::Closed(None);
                }
                match self.page(&format!("after={}", self.next)).await {
                    Ok(()) => {}
                    Err(code) if code == "TOPIC_NOT_FOUND" => {
                        self.ended = true;
                        return Event::Deleted(self.topic.clone());
                    }
                    Err(code) => return Event::Error(code),
                }
                if self.queue.is_empty() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        })
        .await
    }

    async fn unsubscribe(&mut self, _: &str) {
        self.ended = true;
    }

    async fn assert_open(&mut self) {
        self.client.assert_alive().await;
    }

    async fn close(self) {}
}
