//! Frames act in their order: on one socket, in one packet, something is published, subscribed, published, unsubscribed
//! and published again.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    begin::{Begin, Positions, Span},
    feed::shown,
    judge::Judge,
    leg::{Ask, Door, Gap, Leg, Seen, Start},
    model::{Publish, now},
    net::{Fill, Line, PATIENCE},
    publisher::{Publisher, snake},
    websocket::{self, Frame},
};

impl Publisher<'_> {
    /// Mixes while the round is busy.
    pub async fn mix(mut self) {
        while self.round.is_busy() {
            sleep(Duration::from_millis(self.random.between(40, 400))).await;
            // Where an incarnation ends in between, nothing can be said of it.
            if self.round.is_busy() && !self.round.deletes {
                self.packet().await;
            }
        }
    }

    async fn packet(&mut self) {
        let (instance, addr) = self.round.instance(&mut self.random);
        let topic = self.random.pick(&self.round.topics).clone();
        let Some(mut line) = websocket::open(addr, "/ws", None).await else { return };
        let lane = self.lane();
        let counts = [self.random.between(1, 5), self.random.between(1, 20), self.random.below(4)];
        let unsubscribes = self.random.chance(70);
        let sent = now();
        let mut parts = Vec::new();
        let mut bytes = Vec::new();
        for (part, count) in counts.into_iter().enumerate() {
            let many = self.attempts(&vec![topic.clone(); count as usize], instance, Some(lane));
            for (n, publish) in &many {
                let mut frame = snake(publish, false);
                (frame["type"], frame["request_id"]) = ("publish".into(), n.to_string().into());
                bytes.extend(websocket::text(&frame.to_string()));
            }
            parts.push(many);
            let kind = [Some("subscribe"), unsubscribes.then_some("unsubscribe"), None][part];
            if let Some(kind) = kind {
                let frame = json!({"type": kind, "topic": topic, "request_id": kind});
                bytes.extend(websocket::text(&frame.to_string()));
            }
        }
        if line.write(&bytes).await.is_err() {
            return;
        }
        let ask = Ask::plain(topic, Start::Live);
        let mut leg = Leg::new("mixer", Door::Socket, ask, instance, sent);
        if self.read_packet(&mut line, &mut leg, &parts, unsubscribes).await.is_some() {
            self.check_packet(&leg, &parts);
        }
    }

    /// Reads all answers, and what was delivered while the subscription stood; nothing when the connection breaks.
    async fn read_packet(
        &mut self,
        line: &mut Line,
        leg: &mut Leg,
        parts: &[Vec<(u64, Publish)>],
        unsubscribes: bool,
    ) -> Option<()> {
        let mut waiting: Vec<&(u64, Publish)> = parts.iter().flatten().rev().collect();
        let mut over = false;
        loop {
            let told = leg.events.last().map_or(0, |(_, seen)| match seen {
                Seen::Message { place, .. } => place.offset,
                Seen::Gap(gap) => gap.to,
                Seen::Deleted(_) => 0,
            });
            let wanted = self.stored(&parts[1]).map(|(_, offset)| offset).max().unwrap_or(0);
            if waiting.is_empty() && (over || (!unsubscribes && told >= wanted)) {
                return Some(());
            }
            let frame = loop {
                match websocket::take(line) {
                    Some(Frame::Text(text)) => break serde_json::from_str::<Value>(&text).unwrap_or_default(),
                    Some(Frame::Close(_)) => return None,
                    Some(_) => {}
                    None => match timeout(PATIENCE, line.fill()).await {
                        Ok(Fill::More) => {}
                        Ok(_) => return None,
                        Err(_) => {
                            let text = format!("a packet is not answered to its end\n  {}", leg.summary());
                            self.round.model.lock().unwrap().violation(&[&leg.ask.target.name], text);
                            return None;
                        }
                    },
                }
            };
            match (frame["type"].as_str(), frame["request_id"].as_str()) {
                (Some("ack"), Some("subscribe")) => leg.stood = Some(now()),
                (Some("ack"), Some("unsubscribe")) => over = true,
                (Some("error"), Some("subscribe" | "unsubscribe")) => return None,
                (Some("event" | "gap"), _) if over => {
                    let text = format!("delivered behind the answer to unsubscribe: {frame}\n  {}", leg.summary());
                    self.round.model.lock().unwrap().violation(&[&leg.ask.target.name], text);
                    return None;
                }
                (Some("event" | "gap"), _) => self.deliver(leg, &frame)?,
                (_, Some(id)) if waiting.last().is_some_and(|(n, _)| n.to_string() == id) => {
                    let (n, publish) = waiting.pop()?;
                    self.answered(*n, publish, &frame);
                }
                _ => {
                    let text = format!("an answer out of its order: {frame}\n  {}", leg.summary());
                    self.round.model.lock().unwrap().violation(&[&leg.ask.target.name], text);
                    return None;
                }
            }
        }
    }

    fn deliver(&self, leg: &mut Leg, frame: &Value) -> Option<()> {
        let mut model = self.round.model.lock().unwrap();
        let seen = if frame["type"] == "gap" {
            model.counts.gaps += 1;
            Seen::Gap(Gap {
                topic: leg.ask.target.name.clone(),
                missed: frame["missed"].as_u64(),
                from: frame["from_offset"].as_u64()?,
                to: frame["to_offset"].as_u64()?,
                reason: frame["reason"].as_str()?.to_owned(),
            })
        } else {
            let shown = shown(&self.round.dialect, frame, "id")?;
            model.counts.deliveries += 1;
            model.seen(&shown, "mixer");
            let cursor = frame["cursor"].as_str()?.to_owned();
            Seen::Message { topic: shown.topic, place: shown.place, cursor, pattern_cursor: None, time: shown.time }
        };
        leg.events.push((now(), seen));
        Some(())
    }

    /// Where attempts were stored that were not repetitions.
    fn stored(&self, many: &[(u64, Publish)]) -> impl Iterator<Item = (String, u64)> {
        let model = self.round.model.lock().unwrap();
        let stored = many.iter().filter_map(|(n, _)| model.publishes[*n as usize].stored());
        let fresh = stored.filter(|(_, duplicate)| !duplicate);
        fresh.map(|(place, _)| (place.epoch.clone(), place.offset)).collect::<Vec<_>>().into_iter()
    }

    fn check_packet(&self, leg: &Leg, parts: &[Vec<(u64, Publish)>]) {
        let before = self.stored(&parts[0]).map(|(_, offset)| offset).max().unwrap_or(0);
        let within: Vec<_> = self.stored(&parts[1]).collect();
        let (Some((epoch, first)), Some((_, last))) = (within.first(), within.last()) else { return };
        let topic = leg.ask.target.name.as_str();
        let mut model = self.round.model.lock().unwrap();
        let begin: Positions = [(epoch.clone(), Span { lo: before, hi: first - 1 })].into();
        let begin = Begin::Resumed(begin);
        let judge = Judge { model: &model, leg, begin: &begin, until: None };
        let judged = judge.walk(&leg.events).and_then(|positions| match positions.get(epoch) {
            Some(span) if span.hi >= *last && span.hi != u64::MAX => Ok(()),
            span => Err(format!("{first} to {last} were published while it was subscribed; it ends at {span:?}")),
        });
        if let Err(why) = judged {
            let text = format!("{topic}: in one packet, behind {before}: {why}\n  {}", leg.summary());
            model.violation(&[topic], text);
        }
    }
}
