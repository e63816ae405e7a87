//! A subscriber of a named consumer acknowledges, now and then, at any door.

use serde_json::json;

use crate::{
    feed::Feed,
    leg::{Acknowledged, Door, Seen},
    net::{call, encode},
    reader::Reader,
    websocket,
};

impl Reader<'_> {
    /// Acknowledges the newest message, at any door.
    pub async fn acknowledge(&mut self, feed: &mut Feed, index: usize) {
        let Some(named) = self.ask.consumer.clone().filter(|named| named.explicit) else { return };
        if !self.random.chance(25) {
            return;
        }
        let (number, door, cursor) = {
            let leg = &mut self.round.chains[self.index].lock().unwrap()[index];
            let Some((_, Seen::Message { topic, place, cursor, .. })) = leg.events.last() else { return };
            let (topic, place, cursor) = (topic.clone(), place.clone(), cursor.clone());
            let events = leg.events.len();
            leg.acknowledged.push(Acknowledged { topic, place, events, answered: false });
            (leg.acknowledged.len() - 1, leg.door, cursor)
        };
        let (topic, name) = (&self.ask.target.name, &named.name);
        let way = self.random.below(3);
        if door == Door::Socket && way < 2 {
            let frame = json!({"type": "ack", "topic": topic, "consumer": name, "cursor": cursor,
                "request_id": number.to_string()});
            let _ = feed.line.write(&websocket::text(&frame.to_string())).await;
            return;
        }
        let (_, addr) = self.round.instance(&mut self.random);
        let (path, body) = if way == 0 {
            let query =
                "mutation($t: String!, $n: String!, $c: Cursor!) { acknowledge(topic: $t, consumer: $n, cursor: $c) }";
            ("/graphql".to_owned(), json!({"query": query, "variables": {"t": topic, "n": name, "c": cursor}}))
        } else {
            (format!("/topics/{}/consumers/{name}/ack", encode(topic)), json!({"cursor": cursor}))
        };
        if let Some(answer) = call(addr, "POST", &path, Some(&body)).await {
            let code = answer.code().or(answer.body["errors"][0]["extensions"]["code"].as_str());
            self.acknowledged(index, number, code.map(ToOwned::to_owned).as_deref());
        }
    }

    /// An acknowledgement was answered; with a code where it was refused.
    pub fn acknowledged(&self, index: usize, number: usize, code: Option<&str>) {
        let mut model = self.round.model.lock().unwrap();
        match code {
            None => {
                model.counts.acknowledged += 1;
                drop(model);
                let leg = &mut self.round.chains[self.index].lock().unwrap()[index];
                if let Some(done) = leg.acknowledged.get_mut(number) {
                    done.answered = true;
                }
            }
            // Its topic may be gone, and its servers in trouble.
            Some("NOT_FOUND" | "TOPIC_NOT_FOUND" | "BAD_REQUEST") if self.round.deletes => {}
            Some("UNAVAILABLE" | "UNKNOWN") if model.hurt => {}
            Some(code) => {
                model.violation(&[&self.name], format!("{}: an acknowledgement was refused: {code}", self.name))
            }
        }
    }
}
