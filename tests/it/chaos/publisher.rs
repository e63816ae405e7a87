//! Publishers, and the ledger of what they were told.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, atomic::Ordering},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{LOGS, PUBLISH_DEADLINE, SHORT, Site, connection::Connection};
use crate::harness::Random;

/// What publishers were told.
#[derive(Default)]
pub struct Ledger {
    /// Topic and offset of each acknowledged message.
    pub acked: HashMap<String, (String, u64)>,
    /// Messages whose publishers were told that they are not stored, and did not try again.
    pub refused: Vec<String>,
    /// Responses by their code.
    pub responses: BTreeMap<String, u64>,
}

impl Ledger {
    fn count(&mut self, code: &str) {
        *self.responses.entry(code.to_owned()).or_default() += 1;
    }

    fn ack(&mut self, id: &str, response: &Value) {
        let position = (response["topic"].as_str().unwrap().to_owned(), response["offset"].as_u64().unwrap());
        if let Some(before) = self.acked.insert(id.to_owned(), position.clone()) {
            assert_eq!(before, position, "{id} has two positions");
        }
    }
}

/// A message that is to be published.
#[derive(Clone)]
struct Post {
    topic: &'static str,
    id: String,
    number: u64,
    /// Whether some try may have been stored.
    perhaps: bool,
}

impl Post {
    fn frame(&self) -> Value {
        json!({"type": "publish", "topic": self.topic, "id": self.id, "data": self.number, "request_id": self.id})
    }
}

pub struct Publisher {
    name: usize,
    numbered: u64,
    random: Random,
    pending: VecDeque<Post>,
}

impl Publisher {
    pub fn new(name: usize) -> Self {
        Self { name, numbered: 0, random: Random::new(name as u64 + 1), pending: VecDeque::new() }
    }

    /// The next few messages: first those that are to be tried again.
    fn window(&mut self, site: &Site, size: usize) -> Vec<Post> {
        let mut window: Vec<_> = (0..size).map_while(|_| self.pending.pop_front()).collect();
        while window.len() < size && !site.finish.load(Ordering::Relaxed) {
            self.numbered += 1;
            let topic = if self.numbered.is_multiple_of(4) { SHORT } else { LOGS[self.random.below(3) as usize] };
            let id = format!("p{}-{}", self.name, self.numbered);
            window.push(Post { topic, id, number: self.numbered, perhaps: false });
        }
        window
    }

    /// Takes the response to one message. A publisher that is told that nothing was stored may leave it at that.
    fn responded(&mut self, ledger: &mut Ledger, mut post: Post, response: &Value) {
        let code = response["error"]["code"].as_str();
        ledger.count(code.unwrap_or("acknowledged"));
        match code {
            None => ledger.ack(&post.id, response),
            Some("UNAVAILABLE") if !post.perhaps && self.random.below(2) == 0 => ledger.refused.push(post.id),
            Some("UNAVAILABLE") => self.pending.push_back(post),
            Some("UNKNOWN") => {
                post.perhaps = true;
                self.pending.push_back(post);
            }
            Some(_) => panic!("{response}"),
        }
    }

    fn no_response(&mut self, ledger: &mut Ledger, mut post: Post) {
        ledger.count("none");
        post.perhaps = true;
        self.pending.push_back(post);
    }

    /// Publishes over `/ws`, several at a time, at one instance after the other.
    pub async fn over_sockets(mut self, site: &Site, ledger: &Mutex<Ledger>) {
        for round in self.name.. {
            let Some(mut connection) = Connection::open(&site.client(round)).await else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            let windows = 10 + self.random.below(40);
            for _ in 0..windows {
                let window = self.window(site, 8);
                if window.is_empty() {
                    return;
                }
                let mut unanswered: HashMap<_, _> = window.iter().map(|post| (post.id.clone(), post.clone())).collect();
                for post in &window {
                    let _ = connection.send(post.frame()).await;
                }
                while !unanswered.is_empty() {
                    let response =
                        timeout(PUBLISH_DEADLINE, connection.next()).await.expect("a publish has its response in time");
                    let Some(response) = response else { break };
                    let post = unanswered.remove(response["request_id"].as_str().unwrap()).unwrap();
                    self.responded(&mut ledger.lock().unwrap(), post, &response);
                }
                if !unanswered.is_empty() {
                    for post in window.into_iter().filter(|post| unanswered.contains_key(&post.id)) {
                        self.no_response(&mut ledger.lock().unwrap(), post);
                    }
                    break;
                }
                // So that the logs do not become too long to compare.
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Publishes over REST, one at a time.
    pub async fn over_rest(mut self, site: &Site, ledger: &Mutex<Ledger>) {
        let http = reqwest::Client::builder().no_proxy().timeout(PUBLISH_DEADLINE).build().unwrap();
        for round in self.name.. {
            let window = self.window(site, 1);
            let Some(post) = window.into_iter().next() else { return };
            let url = site.client(round).url("/publish");
            let body = json!({"topic": post.topic, "id": post.id, "data": post.number});
            let response: Option<Value> = match http.post(url).body(body.to_string()).send().await {
                Ok(response) => response.json().await.ok(),
                Err(error) => {
                    assert!(!error.is_timeout(), "a publish has its response in time");
                    None
                }
            };
            match response {
                Some(response) => self.responded(&mut ledger.lock().unwrap(), post, &response),
                None => self.no_response(&mut ledger.lock().unwrap(), post),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}
