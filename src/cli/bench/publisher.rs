//! One connection that publishes.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::Method;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Counts, Plan,
    door::{self, Door, Reply},
};
use crate::client::{Failure, Refusal, Remote, SocketItem, WebSocket};

/// Refusals one after the other that end the work, where the server says that waiting helps.
const MAX_REFUSALS: u32 = 1_000;

enum Connection {
    Ws(Box<WebSocket>),
    /// Its replies come with its requests.
    Rest(Box<Remote>, VecDeque<Reply>),
    GraphQl(Box<WebSocket>),
}

/// One connection that publishes its part of the messages.
pub struct Publisher {
    connection: Connection,
    topic: String,
    index: u64,
    messages: u64,
    size: usize,
    window: usize,
    /// From one message to the next.
    step: Option<Duration>,
    counts: Arc<Counts>,
    /// Of the newest message.
    number: u64,
    in_flight: usize,
    refusals: u32,
}

impl Publisher {
    /// # Errors
    /// Every [`Failure`].
    pub async fn open(plan: &Plan, index: u64, counts: Arc<Counts>) -> Result<Self, Failure> {
        let connection = match plan.door {
            Door::Ws => Connection::Ws(Box::new(plan.remote.web_socket("/ws", None).await?)),
            Door::Rest => Connection::Rest(Box::new(plan.remote.clone()), VecDeque::new()),
            Door::GraphQl => Connection::GraphQl(Box::new(door::graphql_socket(&plan.remote).await?)),
        };
        let (share, rest) = (plan.messages / plan.publishers, plan.messages % plan.publishers);
        let publishers = u32::try_from(plan.publishers).unwrap_or(u32::MAX);
        Ok(Self {
            connection,
            topic: plan.topic.clone(),
            index,
            messages: share + u64::from(index < rest),
            size: usize::try_from(plan.size).unwrap_or(usize::MAX),
            window: if plan.door == Door::Rest { 1 } else { plan.window },
            step: plan.rate.map(|rate| Duration::from_secs(1) / rate * publishers),
            counts,
            number: 0,
            in_flight: 0,
            refusals: 0,
        })
    }

    /// Publishes until the server has accepted its part.
    ///
    /// # Errors
    /// Every [`Failure`].
    pub async fn run(mut self) -> Result<(), Failure> {
        let mut due = Instant::now();
        let mut accepted = 0;
        while accepted < self.messages {
            while self.in_flight < self.window && accepted + (self.in_flight as u64) < self.messages {
                if let Some(step) = self.step {
                    if self.in_flight > 0 && due > Instant::now() {
                        // What was sent is answered while there is time.
                        break;
                    }
                    sleep_until(due).await;
                    due += step;
                }
                self.send().await?;
            }
            self.flush().await?;
            match self.reply().await? {
                Ok(()) => {
                    accepted += 1;
                    self.refusals = 0;
                    self.counts.published.fetch_add(1, Ordering::Relaxed);
                }
                Err(refusal) => self.refused(refusal).await?,
            }
        }
        Ok(())
    }

    /// A refused message is not sent again; another one takes its place.
    async fn refused(&mut self, refusal: Refusal) -> Result<(), Failure> {
        self.refusals += 1;
        if !refusal.may_pass() || self.refusals > MAX_REFUSALS {
            return Err(Failure::Refused(refusal));
        }
        sleep(refusal.retry_after.unwrap_or(Duration::from_millis(100))).await;
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Failure> {
        self.number += 1;
        self.in_flight += 1;
        let data = self.data();
        match &mut self.connection {
            Connection::Ws(socket) => socket.feed(door::publish_frame(&self.topic, &data)).await,
            Connection::GraphQl(socket) => socket.feed(door::publish_operation(self.number, &self.topic, &data)).await,
            Connection::Rest(remote, replies) => {
                let body = door::publish_body(&self.topic, &data);
                let answered = remote.exchange(Method::POST, "/publish", Some(body)).await?;
                replies.push_back(door::reply(&answered.text)?);
                Ok(())
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        match &mut self.connection {
            Connection::Ws(socket) | Connection::GraphQl(socket) => socket.flush().await,
            Connection::Rest(..) => Ok(()),
        }
    }

    async fn reply(&mut self) -> Result<Reply, Failure> {
        let reply = loop {
            match &mut self.connection {
                Connection::Rest(_, replies) => match replies.pop_front() {
                    Some(reply) => break reply,
                    None => return Err(Failure::Answer("a reply is missing".to_owned())),
                },
                Connection::Ws(socket) => {
                    if let SocketItem::Text(text) = socket.next().await? {
                        break door::reply(&text)?;
                    }
                }
                Connection::GraphQl(socket) => {
                    if let SocketItem::Text(text) = socket.next().await?
                        && let Some(reply) = door::graphql_reply(&text)?
                    {
                        break reply;
                    }
                }
            }
        };
        self.in_flight -= 1;
        Ok(reply)
    }

    /// Who, which one, when in nanoseconds, and what fills it up to its size.
    fn data(&self) -> String {
        let at = self.counts.started.elapsed().as_nanos();
        let mut data = format!(r#"{{"p":{},"n":{},"at":{at},"fill":""#, self.index, self.number);
        let fill = self.size.saturating_sub(data.len() + 2);
        data.extend(std::iter::repeat_n('x', fill));
        data.push_str("\"}");
        data
    }
}
