//! Sends messages in their order, and sends again what may have been lost.
//!
//! One request is on its way at a time, with what was read while the one before it was. So the order of the lines is the order
//! in which they are stored, and a fast input still needs few requests.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use hyper::Method;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{
    super::{
        Outcome, Problem,
        notes::note,
        output::{self, Output},
    },
    batch::{Answer, Done, publish},
    input::{Input, Line, Read},
    pace::{Pace, TopicRate},
};
use crate::client::{Backoff, Failure, Refusal, Remote, encode};

/// Messages of one request. A server takes 1,000 unless it is told otherwise.
const MAX_BATCH: usize = 500;

/// Bytes of data in one request, unless one message has more. A server takes 4 MiB unless it is told otherwise.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// How long a server that was there is waited for.
const RETRY_FOR: Duration = Duration::from_secs(30);

/// Topics whose rates are remembered.
const MAX_TOPICS: usize = 10_000;

/// Sends messages to a server.
pub struct Sender {
    remote: Remote,
    output: Output,
    /// Whether results are printed.
    prints: bool,
    /// A rate that the user wants.
    pub pace: Option<Pace>,
    /// How long a server is waited for, also at the start.
    pub retry_for: Option<Duration>,
    /// Read, and not answered yet.
    waiting: VecDeque<Line>,
    rates: HashMap<String, TopicRate>,
    /// Messages of one request.
    most: usize,
    backoff: Backoff,
    /// When the server has accepted or refused a message last, or the work began.
    moved: Instant,
    /// Whether the server has answered at all.
    was_reached: bool,
    refused: u64,
}

#[derive(Deserialize)]
struct Topic {
    max_publish_rate: u32,
}

impl Sender {
    /// `prints` says whether the results are printed.
    pub fn new(remote: Remote, prints: bool) -> Self {
        Self {
            remote,
            output: Output::new(),
            prints,
            pace: None,
            retry_for: None,
            waiting: VecDeque::new(),
            rates: HashMap::new(),
            most: MAX_BATCH,
            backoff: Backoff::default(),
            moved: Instant::now(),
            was_reached: false,
            refused: 0,
        }
    }

    /// Publishes everything.
    ///
    /// # Errors
    /// What ends the work before its end.
    pub async fn run(mut self, mut input: Input) -> Result<Outcome, Problem> {
        while self.fill(&mut input).await? {
            let count = self.due().await;
            let batch: Vec<Line> = self.waiting.drain(..count).collect();
            let answer = publish(&self.remote, &batch).await;
            let wait = match answer {
                Answer::Each(results) => self.each(batch, results, input.what)?,
                Answer::Whole(failure) => self.whole(batch, &failure, input.what)?,
            };
            if self.output.flush().await.map_err(|error| output::failed(&error))?.is_err() {
                // Nobody reads the results, and the messages are to be published all the same.
                self.prints = false;
            }
            if let Some(wait) = wait {
                sleep(wait).await;
            }
        }
        Ok(if self.refused == 0 { Outcome::Done } else { Outcome::Failed })
    }

    /// Takes what was read. Returns whether there is anything to send.
    async fn fill(&mut self, input: &mut Input) -> Result<bool, Problem> {
        while self.waiting.is_empty() {
            let Some(read) = input.next().await else { return Ok(false) };
            self.read(read, input.what)?;
        }
        while self.waiting.len() < self.most
            && let Some(read) = input.next_now()
        {
            self.read(read, input.what)?;
        }
        Ok(true)
    }

    fn read(&mut self, read: Read, what: &str) -> Result<(), Problem> {
        match read {
            Ok(Ok(line)) => self.waiting.push_back(line),
            Ok(Err((number, wrong))) => {
                self.refused += 1;
                note(&format!("{what} {number}: {wrong}"));
            }
            Err(error) => return Err(Problem::Failed(format!("cannot read the messages: {error}"))),
        }
        Ok(())
    }

    /// How many of the waiting messages may be sent now; waits until it is at least one.
    async fn due(&mut self) -> usize {
        loop {
            match self.due_now().await {
                Ok(count) => return count,
                Err(wait) => sleep(wait).await,
            }
        }
    }

    async fn due_now(&mut self) -> Result<usize, Duration> {
        let mut most = self.most;
        if let Some(pace) = &mut self.pace {
            most = most.min(pace.due()?);
        }
        let (mut count, mut bytes) = (0, 0);
        while count < most
            && let Some(line) = self.waiting.get(count)
        {
            bytes += line.data.len();
            if count > 0 && bytes > MAX_BATCH_BYTES {
                break;
            }
            let topic = line.topic.clone();
            let known = self.rate_of(&topic).await;
            let taken = match self.rates.get_mut(&topic).filter(|_| known) {
                Some(rate) => rate.take(),
                None if count == 0 => Ok(()),
                // A topic that does not exist yet: its first message makes it, and then its rate is known.
                None => break,
            };
            match taken {
                Ok(()) => count += 1,
                Err(_) if count > 0 => break,
                Err(wait) => return Err(wait),
            }
            if !known {
                break;
            }
        }
        if let Some(pace) = &mut self.pace {
            pace.sent(count);
        }
        Ok(count)
    }

    /// Whether the topic's publish rate is known: the server is asked for it once. Publishing above the rate would store a
    /// message before one that was refused.
    async fn rate_of(&mut self, topic: &str) -> bool {
        if self.rates.contains_key(topic) {
            return true;
        }
        let path = format!("/topics/{}", encode(topic));
        let per_second = match self.remote.send(Method::GET, &path, None).await {
            Ok(text) => serde_json::from_str::<Topic>(&text).ok().map(|topic| topic.max_publish_rate),
            Err(Failure::Refused(refusal)) if refusal.code == "TOPIC_NOT_FOUND" => None,
            // Whoever may publish sees the topic. What is wrong, the publish itself will say.
            Err(_) => None,
        };
        let Some(per_second) = per_second else { return false };
        if self.rates.len() >= MAX_TOPICS {
            self.rates.clear();
        }
        self.rates.insert(topic.to_owned(), TopicRate::new(per_second));
        true
    }

    /// Takes the results of a batch. Returns how long to wait before the next one.
    fn each(&mut self, batch: Vec<Line>, results: Vec<Done>, what: &str) -> Result<Option<Duration>, Problem> {
        self.was_reached = true;
        let mut again: Vec<(Line, Refusal)> = Vec::new();
        for (line, result) in batch.into_iter().zip(results) {
            match result {
                Ok(published) => {
                    self.moved = Instant::now();
                    self.backoff.reset();
                    if let Some((earlier, _)) = again.iter().find(|(earlier, _)| earlier.topic == line.topic) {
                        note(&format!(
                            "{what} {} was stored before {what} {}, which the server had refused for the moment",
                            line.number, earlier.number
                        ));
                    }
                    if self.prints {
                        self.output.line(published.get());
                    }
                }
                Err(refusal) if refusal.may_pass() => again.push((line, refusal)),
                Err(refusal) => self.refuse(&line, &refusal, what),
            }
        }
        let Some((line, first)) = again.first() else { return Ok(None) };
        let wait = if first.code == "RATE_LIMITED" {
            // Others publish, too, or the client itself has a rate: one message at a time keeps the order.
            self.most = 1;
            first.retry_after.unwrap_or_default()
        } else {
            self.wait(&Failure::Refused(first.clone()), line.number, what)?
        };
        for (line, refusal) in again.into_iter().rev() {
            if let (Some(rate), Some(wait)) = (self.rates.get_mut(&line.topic), refusal.retry_after) {
                rate.refused(wait);
            }
            self.waiting.push_front(line);
        }
        Ok(Some(wait))
    }

    fn refuse(&mut self, line: &Line, refusal: &Refusal, what: &str) {
        self.moved = Instant::now();
        self.refused += 1;
        note(&format!("{what} {}: {refusal}", line.number));
    }

    /// Takes the failure of a whole request. Returns how long to wait before the next attempt.
    fn whole(&mut self, batch: Vec<Line>, failure: &Failure, what: &str) -> Result<Option<Duration>, Problem> {
        let first = batch.first().map_or(0, |line| line.number);
        let wait = match (failure, batch.as_slice()) {
            (Failure::Refused(refusal), lines) if !refusal.may_pass() && refusal.code != "UNAUTHENTICATED" => {
                self.was_reached = true;
                if let [line] = lines {
                    self.refuse(line, refusal, what);
                    return Ok(None);
                }
                // The server takes less at once than others do.
                self.most = (lines.len() / 2).max(1);
                None
            }
            _ => Some(self.wait(failure, first, what)?),
        };
        for line in batch.into_iter().rev() {
            self.waiting.push_front(line);
        }
        Ok(wait)
    }

    /// How long to wait before the next attempt.
    ///
    /// # Errors
    /// No further attempt would help, or there were enough.
    fn wait(&mut self, failure: &Failure, number: u64, what: &str) -> Result<Duration, Problem> {
        let wait = self.backoff.next(failure.retry_after());
        // The first attempt decides whether there is a server at all.
        let is_absent = !self.was_reached && matches!(failure, Failure::Connection(_));
        let limit = self.retry_for.unwrap_or(if is_absent { Duration::ZERO } else { RETRY_FOR });
        if failure.may_pass() && self.moved.elapsed() + wait < limit {
            return Ok(wait);
        }
        let place =
            if number > 1 { format!("; {what} {number} is the first that is not published") } else { String::new() };
        Err(Problem::Failed(format!("{failure}{place}")))
    }
}
