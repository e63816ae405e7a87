//! The ways in which a subscriber leaves.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::{
    feed::{Feed, Item},
    leg::{Door, End, Leg},
    net::{Fill, call, encode},
    reader::{Reader, Visit},
    websocket,
};

/// How long a connection whose consumer was taken over may take to say so.
const NOTICE: Duration = Duration::from_secs(20);

/// How a subscriber leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Reset,
    Drop,
    HalfClose,
    Orderly,
    Unsubscribe,
    TakeOver,
}

impl Reader<'_> {
    /// Leaves a subscription that still goes on.
    pub async fn leave(&mut self, mut feed: Feed, index: usize, leave: Leave) {
        let door = self.round.chains[self.index].lock().unwrap()[index].door;
        let name = match leave {
            Leave::Reset => "with a reset",
            Leave::Drop => "by closing the connection",
            Leave::HalfClose => "by closing one half",
            Leave::Orderly => "in good order",
            Leave::Unsubscribe => "by unsubscribing",
            Leave::TakeOver => "to take over",
        };
        self.round.note(&self.name, format!("leaves {name}"));
        match leave {
            Leave::TakeOver => {
                self.round.chains[self.index].lock().unwrap()[index].taken_over = true;
                self.round.model.lock().unwrap().counts.takeovers += 1;
                self.old = Some((feed, index));
                return;
            }
            Leave::Unsubscribe => {
                let frame = match door {
                    Door::GraphqlSocket => json!({"id": "sub", "type": "complete"}),
                    _ => json!({"type": "unsubscribe", "topic": self.ask.target.name, "request_id": "0"}),
                };
                let _ = feed.line.write(&websocket::text(&frame.to_string())).await;
                // It is out of the server's hands before this connection breaks.
                let _ =
                    timeout(Duration::from_millis(20), async { while feed.line.fill().await == Fill::More {} }).await;
            }
            Leave::Orderly if door.is_socket() => {
                let _ = feed.line.write(&websocket::close()).await;
                let _ =
                    timeout(Duration::from_millis(200), async { while feed.line.fill().await == Fill::More {} }).await;
            }
            Leave::HalfClose => {
                feed.line.half_close().await;
                let _ =
                    timeout(Duration::from_millis(100), async { while feed.line.fill().await == Fill::More {} }).await;
            }
            Leave::Reset => {
                self.round.model.lock().unwrap().counts.cuts += 1;
                feed.line.reset();
            }
            Leave::Drop | Leave::Orderly => {}
        }
        self.end(index, End::Left(name));
    }

    /// Has its consumer deleted.
    pub async fn forget(&mut self) {
        let Some(named) = &self.ask.consumer else { return };
        let (_, addr) = self.round.instance(&mut self.random);
        let path = format!("/topics/{}/consumers/{}", encode(&self.ask.target.name), named.name);
        let answer = call(addr, "DELETE", &path, None).await;
        self.round.note(&self.name, format!("has its consumer deleted: {:?}", answer.as_ref().map(|one| one.status)));
        let fine = answer.as_ref().is_some_and(|answer| answer.status == 200);
        let mut model = self.round.model.lock().unwrap();
        if !fine && !model.hurt && answer.as_ref().is_none_or(|answer| answer.status != 404) {
            model.violation(&[&self.name], format!("deleting a consumer is answered by {answer:?}"));
        }
        drop(model);
        if let Some(leg) = self.round.chains[self.index].lock().unwrap().last_mut() {
            leg.forgotten = Some(fine && leg.told.is_some());
        }
    }

    /// The connection whose consumer was taken over is told so.
    pub async fn finish_old(&mut self, accepted: bool) {
        let Some((mut feed, index)) = self.old.take() else { return };
        let stands = {
            let chain = self.round.chains[self.index].lock().unwrap();
            // One that was never accepted may still wait for the cluster, longer than this waits.
            accepted && chain[index].stood.is_some() && chain.last().is_some_and(|leg| leg.stood.is_some())
        };
        let visit = Visit { until: None, stalls: 0, answers_pings: false, leave: Leave::Drop };
        let notice = async {
            loop {
                let ended = match feed.next().await {
                    // What still comes here is the next connection's to tell of.
                    Item::Message { .. } | Item::Gap(_) | Item::Stands | Item::Told(_) => continue,
                    Item::Deleted(_) if self.ask.target.is_pattern => continue,
                    Item::Deleted(_) => Some(End::Deleted),
                    Item::Failed(code) if code == "TOPIC_DELETED" => Some(End::Deleted),
                    item => self.take(&mut feed, index, item, &visit).await,
                };
                if let Some(end) = ended {
                    return end;
                }
            }
        };
        let end = timeout(if stands { NOTICE } else { Duration::ZERO }, notice).await;
        if end.is_err() && stands {
            let legs = self.round.chains[self.index].lock().unwrap().clone();
            let summaries: Vec<_> = legs[index..].iter().map(Leg::summary).collect();
            let text = format!(
                "{}: the connection {index} whose consumer was taken over is not told\n  {}",
                self.name,
                summaries.join("\n  ")
            );
            self.round.model.lock().unwrap().violation(&[&self.name], text);
        }
        self.end(index, end.unwrap_or(End::Left("unheard")));
    }
}
