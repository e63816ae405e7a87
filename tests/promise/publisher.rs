//! A publisher: one by one, in batches and pipelined, through every door, with ids that come back, conditions, and
//! connections that are cut before the answer.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    filter::Subject,
    model::{Answer, Publish, now, wall},
    net::{self, Cut, PATIENCE, request},
    random::Random,
    round::Round,
    websocket::{self, Frame},
};

/// One publisher.
pub struct Publisher<'a> {
    pub round: &'a Round<'a>,
    pub random: Random,
    lanes: u64,
    index: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Rest,
    RestBatch,
    Graphql,
    GraphqlMany,
    Pipelined,
}

const DOORS: [Door; 6] =
    [Door::Rest, Door::RestBatch, Door::Graphql, Door::GraphqlMany, Door::Pipelined, Door::Pipelined];

impl<'a> Publisher<'a> {
    pub fn new(round: &'a Round<'a>, index: u64) -> Self {
        Self { round, random: round.random(100 + index), lanes: 0, index }
    }

    pub async fn run(mut self) {
        // Bursts with pauses between them, so that readers catch up now and then.
        while self.round.is_busy() {
            for _ in 0..self.random.between(1, 6) {
                if self.round.is_busy() {
                    self.publish().await;
                }
            }
            sleep(Duration::from_millis(*self.random.pick(&[1, 5, 20, 60, 150]))).await;
        }
    }

    async fn publish(&mut self) {
        let door = *self.random.pick(&DOORS);
        let (instance, addr) = self.round.instance(&mut self.random);
        let count = match door {
            Door::Rest | Door::Graphql => 1,
            _ => self.random.between(1, 40),
        };
        let same = self.random.chance(60).then(|| self.random.pick(&self.round.topics).clone());
        let lane = (door == Door::Pipelined).then(|| self.lane());
        let topic = |random: &mut Random| same.clone().unwrap_or_else(|| random.pick(&self.round.topics).clone());
        let topics: Vec<_> = (0..count).map(|_| topic(&mut self.random)).collect();
        let many = self.attempts(&topics, instance, lane);
        match door {
            Door::Pipelined => self.pipeline(addr, &many).await,
            _ => self.request(addr, door, &many).await,
        }
    }

    /// The number of a connection on which answers come in order.
    pub fn lane(&mut self) -> u64 {
        self.lanes += 1;
        self.index * 1_000_000 + self.lanes
    }

    /// Attempts that are about to be sent, with their numbers.
    pub fn attempts(&mut self, topics: &[String], instance: usize, lane: Option<u64>) -> Vec<(u64, Publish)> {
        let many = topics.iter().map(|topic| {
            let publish = self.make(topic, instance, lane);
            (self.round.model.lock().unwrap().sent(publish.clone()), publish)
        });
        let many: Vec<_> = many.collect();
        many.into_iter().map(|(n, publish)| self.number(n, publish)).collect()
    }

    fn make(&mut self, topic: &str, instance: usize, lane: Option<u64>) -> Publish {
        let random = &mut self.random;
        let id = random.chance(45).then(|| {
            let mut model = self.round.model.lock().unwrap();
            let made = model.publishes.len();
            let known = model.ids.entry(topic.to_owned()).or_default();
            if !known.is_empty() && random.chance(40) {
                // Old ones and young ones alike.
                return random.pick(known).clone();
            }
            let id = format!("id-{}-{made}", self.index);
            known.push(id.clone());
            id
        });
        let expected = random.chance(6).then(|| {
            let model = self.round.model.lock().unwrap();
            let incarnations = model.topics.get(topic).into_iter().flatten();
            incarnations
                .filter_map(|epoch| model.incarnations.get(epoch))
                .map(|incarnation| incarnation.newest)
                .next_back()
                .unwrap_or(0)
        });
        let subject = Subject {
            key: random.chance(70).then(|| format!("k{}", random.below(4))),
            v: random.below(10) as i64,
            s: (*random.pick(&["a", "b", "ab", "", "ü\u{1f980}\"\\\n"])).to_owned(),
        };
        Publish {
            topic: topic.to_owned(),
            id,
            data: Value::Null,
            subject,
            expected,
            instance,
            lane,
            sent: now(),
            sent_wall: wall(),
            answered: None,
        }
    }

    /// Gives an attempt its data, with its number in it, and notes when it is sent.
    fn number(&mut self, n: u64, mut publish: Publish) -> (u64, Publish) {
        let odd: [Value; 5] = [
            json!(null),
            json!([1, {"deep": [true, {}]}]),
            serde_json::from_str("12345678901234567890.5e400").unwrap_or_default(),
            "x".repeat(self.random.below(600) as usize).into(),
            json!({"": "", "b": -0.0}),
        ];
        // Now and then one that fills a socket's buffers.
        let odd = if self.random.chance(2) { "y".repeat(20_000).into() } else { self.random.pick(&odd).clone() };
        publish.data = json!({"n": n.to_string(), "v": publish.subject.v, "s": publish.subject.s, "odd": odd});
        let mut model = self.round.model.lock().unwrap();
        (publish.sent, publish.sent_wall) = (now(), wall());
        model.publishes[n as usize] = publish.clone();
        (n, publish)
    }

    // ---- HTTP

    async fn request(&mut self, addr: SocketAddr, door: Door, many: &[(u64, Publish)]) {
        let id = self.round.dialect.message_id;
        let bytes = match door {
            Door::Rest => request("POST", "/publish", "", Some(&snake(&many[0].1, self.random.chance(30)))),
            Door::RestBatch => {
                let items: Vec<_> = many.iter().map(|(_, publish)| snake(publish, self.random.chance(30))).collect();
                request("POST", "/publish", "", Some(&items.into()))
            }
            Door::Graphql => {
                let fields = format!("{id} offset cursor duplicate");
                let query = format!(
                    "mutation($topic: String!, $data: JSON, $id: ID, $key: String, $expectedOffset: Long) {{ \
                     publish(topic: $topic, data: $data, {id}: $id, key: $key, expectedOffset: $expectedOffset) \
                     {{ {fields} }} }}"
                );
                let variables = camel(&many[0].1, "id");
                request("POST", "/graphql", "", Some(&json!({"query": query, "variables": variables})))
            }
            _ => {
                let query = format!(
                    "mutation($m: [PublishInput!]!) {{ publishMany(messages: $m) {{ publication {{ {id} offset cursor \
                     duplicate }} error {{ code currentOffset }} }} }}"
                );
                let messages: Vec<_> = many.iter().map(|(_, publish)| camel(publish, id)).collect();
                request("POST", "/graphql", "", Some(&json!({"query": query, "variables": {"m": messages}})))
            }
        };
        let cut = match self.random.below(20) {
            0 => Cut::Sending(self.random.below(bytes.len() as u64) as usize),
            1 => Cut::Sent,
            _ => Cut::Never,
        };
        if cut != Cut::Never {
            self.round.model.lock().unwrap().counts.cuts += 1;
        }
        let begun = tokio::time::Instant::now();
        let Some(answer) = net::send(addr, &bytes, cut).await else {
            if begun.elapsed() >= PATIENCE {
                self.round.model.lock().unwrap().violation(&["server"], "a publish is not answered");
            }
            return;
        };
        let body = &answer.body;
        let results: Vec<Value> = match door {
            Door::Rest => vec![body.clone()],
            Door::RestBatch => body["results"].as_array().cloned().unwrap_or_default(),
            Door::Graphql if body["data"]["publish"].is_object() => vec![body["data"]["publish"].clone()],
            Door::Graphql => vec![json!({"error": body["errors"][0]["extensions"]})],
            _ => {
                let results = body["data"]["publishMany"].as_array().cloned().unwrap_or_default();
                let one = |result: Value| {
                    if result["error"].is_object() {
                        json!({"error": result["error"]})
                    } else {
                        result["publication"].clone()
                    }
                };
                results.into_iter().map(one).collect()
            }
        };
        let refused = answer.code().or(body["errors"][0]["extensions"]["code"].as_str());
        if results.len() == many.len() {
            for ((n, publish), result) in many.iter().zip(&results) {
                self.answered(*n, publish, result);
            }
        } else if let Some(code) = refused {
            for (n, publish) in many {
                self.answered(*n, publish, &json!({"error": {"code": code}}));
            }
        } else {
            let text = format!("{} publishes are answered by {answer:?}", many.len());
            self.round.model.lock().unwrap().violation(&[], text);
        }
    }

    // ---- pipelined

    async fn pipeline(&mut self, addr: SocketAddr, many: &[(u64, Publish)]) {
        let Some(mut line) = websocket::open(addr, "/ws", None).await else { return };
        let mut bytes = Vec::new();
        for (n, publish) in many {
            let mut frame = snake(publish, false);
            frame["type"] = "publish".into();
            frame["request_id"] = n.to_string().into();
            bytes.extend(websocket::text(&frame.to_string()));
        }
        let cut = self.random.chance(12);
        if cut {
            line.budget = self.random.below(6000) as usize;
            self.round.model.lock().unwrap().counts.cuts += 1;
            if self.random.chance(50) {
                let most = self.random.below(bytes.len() as u64) as usize;
                let _ = line.write(&bytes[..most]).await;
                line.reset();
                return;
            }
        }
        if line.write(&bytes).await.is_err() {
            return;
        }
        for (n, publish) in many {
            let frame = loop {
                match websocket::take(&mut line) {
                    Some(Frame::Text(text)) => break serde_json::from_str::<Value>(&text).unwrap_or_default(),
                    Some(Frame::Close(_)) => return,
                    Some(_) => {}
                    None => match timeout(PATIENCE, line.fill()).await {
                        Ok(net::Fill::More) => {}
                        Ok(net::Fill::Spent) => return line.reset(),
                        Ok(_) => return,
                        Err(_) => {
                            let text = "a pipelined publish is not answered";
                            return self.round.model.lock().unwrap().violation(&[&publish.topic], text);
                        }
                    },
                }
            };
            if frame["request_id"].as_str() != Some(&n.to_string()) {
                let text = format!("publish {n} should be answered next, and is {frame}");
                return self.round.model.lock().unwrap().violation(&[&publish.topic], text);
            }
            self.answered(*n, publish, &frame);
        }
    }

    // ---- answers

    /// An attempt was answered.
    pub fn answered(&mut self, n: u64, publish: &Publish, result: &Value) {
        let dialect = &self.round.dialect;
        let mut model = self.round.model.lock().unwrap();
        let topic = publish.topic.as_str();
        if let Some(code) = result["error"]["code"].as_str() {
            let fits = match code {
                "CONFLICT" => publish.expected.is_some(),
                "UNAVAILABLE" | "UNKNOWN" => model.hurt,
                _ => false,
            };
            if !fits {
                model.violation(&[topic], format!("publish {n} is refused with {result}"));
            }
            return model.answered(n, Answer::Refused(code.to_owned()));
        }
        let cursor = result["cursor"].as_str().unwrap_or_default();
        let place = dialect.place(cursor).filter(|place| Some(place.offset) == result["offset"].as_u64());
        let id = result["id"].as_str().or(result[dialect.message_id].as_str());
        let (Some(place), Some(id)) = (place, id) else {
            return model.violation(&[topic], format!("publish {n} is answered by {result}"));
        };
        if publish.id.as_ref().is_some_and(|given| given != id) {
            model.violation(&[topic], format!("publish {n} with the id {:?} is answered by {result}", publish.id));
        }
        model.cursors.entry(topic.to_owned()).or_default().push((cursor.to_owned(), place.clone()));
        let duplicate = result["duplicate"] == true;
        model.answered(n, Answer::Stored { place, duplicate, id: id.to_owned() });
    }
}

/// A publish as REST and `/ws` take it.
pub fn snake(publish: &Publish, nested: bool) -> Value {
    let mut item = json!({"topic": publish.topic});
    if nested {
        item["message"] = json!({"payload": publish.data});
        if let Some(id) = &publish.id {
            item["message"]["id"] = id.as_str().into();
        }
    } else {
        item["data"] = publish.data.clone();
        if let Some(id) = &publish.id {
            item["id"] = id.as_str().into();
        }
    }
    if let Some(key) = &publish.subject.key {
        item["key"] = key.as_str().into();
    }
    if let Some(expected) = publish.expected {
        item["expected_offset"] = expected.into();
    }
    item
}

/// A publish as GraphQL takes it.
fn camel(publish: &Publish, id: &str) -> Value {
    let mut item = json!({"topic": publish.topic, "data": publish.data});
    if let Some(given) = &publish.id {
        item[id] = given.as_str().into();
    }
    if let Some(key) = &publish.subject.key {
        item["key"] = key.as_str().into();
    }
    if let Some(expected) = publish.expected {
        item["expectedOffset"] = expected.into();
    }
    item
}
