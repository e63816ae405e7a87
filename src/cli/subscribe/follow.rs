//! Follows a subscription across connections, and prints what comes.

use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::Method;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{
    super::{
        Problem,
        ending::{Ending, LastHeard},
        notes::note,
        output::{self, Output},
    },
    connection::Connection,
    frame::{Item, Message, Subscribed},
    request::Request,
    seen::Seen,
    unacknowledged::Unacknowledged,
};
use crate::client::{Backoff, Failure, Remote, encode};

/// A connection that has lasted so long was a good one: the next attempts begin with short waits.
const GOOD_CONNECTION: Duration = Duration::from_secs(5);

/// How long the last acknowledgements may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How messages are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Their data alone.
    Data,
    /// The whole object, and gaps and notices as well.
    Whole,
}

/// How a subscription has ended.
#[derive(Debug)]
pub enum Ended {
    /// As many messages as were wanted were printed.
    Count,
    /// Something was missed, and that ends the command.
    Missed,
    /// The topic was deleted.
    Deleted(String),
    /// From outside.
    Outside(Ending),
}

/// Why reading has stopped.
enum Stop {
    Ended(Ended),
    /// The connection is of no use any more.
    Lost(Failure),
    /// Nothing helps.
    Failed(Problem),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Lost(failure)
    }
}

/// A subscription that is followed.
pub struct Follow {
    remote: Remote,
    request: Request,
    form: Form,
    heard: LastHeard,
    output: Output,
    connection: Option<Connection>,
    /// After this the subscription goes on.
    position: Option<String>,
    /// Messages that are still wanted, if their number is given.
    pub left: Option<u64>,
    /// Whether a gap ends the command.
    pub fail_on_gap: bool,
    /// How long attempts to reach the server go on.
    pub retry_for: Option<Duration>,
    /// Whether there was a connection before.
    was_connected: bool,
    seen: Seen,
    unacknowledged: Unacknowledged,
}

impl Follow {
    pub fn new(remote: Remote, request: Request, form: Form, heard: LastHeard) -> Self {
        Self {
            remote,
            request,
            form,
            heard,
            output: Output::new(),
            connection: None,
            position: None,
            left: None,
            fail_on_gap: false,
            retry_for: None,
            was_connected: false,
            seen: Seen::default(),
            unacknowledged: Unacknowledged::default(),
        }
    }

    /// Prints until it ends by itself.
    ///
    /// # Errors
    /// What no further attempt can help.
    pub async fn run(&mut self) -> Result<Ended, Problem> {
        let mut backoff = Backoff::default();
        // When the server was there for the last time, or the command began.
        let mut reached = Instant::now();
        let mut is_told = false;
        loop {
            let opened = Instant::now();
            let stop = match Connection::open(&self.remote, &self.request, self.position.as_deref()).await {
                Ok(connection) => {
                    self.connection = Some(connection);
                    let stop = self.read(&mut is_told).await;
                    if opened.elapsed() >= GOOD_CONNECTION {
                        backoff.reset();
                    }
                    reached = Instant::now();
                    stop
                }
                Err(failure) => Stop::Lost(failure),
            };
            let failure = match stop {
                Stop::Ended(ended) => return Ok(ended),
                Stop::Failed(problem) => return Err(problem),
                Stop::Lost(failure) => failure,
            };
            self.connection = None;
            // The connection may have been lost with lines that were not written yet.
            match self.write_lines().await {
                Err(Stop::Ended(ended)) => return Ok(ended),
                Err(Stop::Failed(problem)) => return Err(problem),
                Err(Stop::Lost(_)) | Ok(()) => {}
            }
            self.unacknowledged.lost();
            let wait = backoff.next(failure.retry_after());
            if !self.may_try_again(&failure, reached.elapsed() + wait) {
                return Err(failure.into());
            }
            if !std::mem::replace(&mut is_told, true) {
                note(&format!("{failure}; trying again"));
            }
            sleep(wait).await;
        }
    }

    fn may_try_again(&self, failure: &Failure, waited: Duration) -> bool {
        let may_pass = match failure {
            Failure::Connection(_) => self.was_connected || self.retry_for.is_some(),
            // A server that is starting again may have too many clients at first. One that has fallen behind, and wanted to be
            // told so, goes on from where it was.
            Failure::Refused(refusal) => {
                refusal.may_pass()
                    || refusal.code == "SLOW_CONSUMER"
                    || (self.was_connected && refusal.code == "LIMIT_REACHED")
            }
            Failure::Answer(_) => false,
        };
        may_pass && self.retry_for.is_none_or(|limit| waited < limit)
    }

    /// Reads from the connection until that ends.
    async fn read(&mut self, is_told: &mut bool) -> Stop {
        loop {
            let Some(connection) = &mut self.connection else {
                return Stop::Lost(Failure::Connection("there is no connection".to_owned()));
            };
            // What has come is written together, and at once when nothing more is there.
            let next = match connection.next().now_or_never() {
                Some(next) if !self.output.is_full() => next,
                Some(next) => match self.write().await {
                    Ok(()) => next,
                    Err(stop) => return stop,
                },
                None => {
                    if let Err(stop) = self.write().await {
                        return stop;
                    }
                    match &mut self.connection {
                        Some(connection) => connection.next().await,
                        None => continue,
                    }
                }
            };
            let took = match next {
                Ok(Item::Subscribed(begun)) => self.subscribed(begun, is_told).await,
                Ok(item) => self.take(item).await,
                Err(failure) => Err(failure.into()),
            };
            if let Err(stop) = took {
                return stop;
            }
        }
    }

    async fn subscribed(&mut self, begun: Subscribed, is_told: &mut bool) -> Result<(), Stop> {
        if std::mem::take(is_told) {
            note("connected again");
        }
        let was_connected = std::mem::replace(&mut self.was_connected, true);
        if !was_connected {
            // Before that, no message could come.
            self.heard.set();
        }
        self.seen.reconnected();
        // Without a position, nothing else tells what the server has forgotten.
        if was_connected && begun.resumed == Some(false) && self.position.is_none() {
            note("the server does not know this consumer any more: what was published meanwhile may be missed");
            self.missed().await?;
        }
        // The state is read again as a whole as long as nothing of it has come.
        if self.position.is_none() && !(self.request.awaits_state() && self.request.consumer.is_none()) {
            self.position = begun.position;
        }
        Ok(())
    }

    async fn take(&mut self, item: Item) -> Result<(), Stop> {
        match item {
            Item::Message(message) => self.message(message).await,
            Item::Gap(gap, text) => {
                self.whole(&text);
                note(&gap.to_string());
                self.missed().await
            }
            Item::Deleted(topic, text) => {
                self.whole(&text);
                if self.request.is_pattern() {
                    note(&format!("the topic {topic:?} was deleted"));
                    return Ok(());
                }
                self.write_lines().await?;
                Err(Stop::Ended(Ended::Deleted(topic)))
            }
            Item::StateComplete(position, text) => {
                if self.form == Form::Data {
                    // Whoever reads both sees that the lines before it are the state.
                    self.write().await?;
                    note("the state is complete; what follows is live");
                }
                self.whole(&text);
                self.position = Some(position);
                self.request.state_has_come();
                Ok(())
            }
            Item::Confirm => {
                // The answer says that everything before it has arrived, so that is written first.
                self.write().await?;
                if let Some(connection) = &mut self.connection {
                    connection.flush().await?;
                }
                self.unacknowledged.confirm();
                Ok(())
            }
            Item::Acknowledged(replied) => {
                self.unacknowledged.replied();
                if let Err(refusal) = replied {
                    note(&format!("an acknowledgement was refused: {refusal}"));
                }
                Ok(())
            }
            Item::Ended(refusal) => Err(Failure::Refused(refusal).into()),
            Item::Subscribed(_) | Item::Other => Ok(()),
        }
    }

    /// Takes a line that only those see who want everything.
    fn whole(&mut self, text: &str) {
        if self.form == Form::Whole {
            self.output.line(text);
        }
    }

    async fn message(&mut self, message: Message) -> Result<(), Stop> {
        self.heard.set();
        let is_new = self.request.consumer.is_none() || self.seen.insert(&message.cursor);
        if is_new {
            self.output.line(if self.form == Form::Whole { &message.text } else { &message.data });
            if let (Form::Data, Some(key)) = (self.form, &message.removed_key) {
                // Data that are null may have been published, too.
                note(&format!("the key {key:?} of the topic {:?} was removed", message.topic));
            }
        }
        if self.request.consumer.is_some() {
            self.unacknowledged.take(message.topic, message.cursor);
        }
        self.position = Some(message.position);
        if is_new && let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                self.write_lines().await?;
                return Err(Stop::Ended(Ended::Count));
            }
        }
        Ok(())
    }

    async fn missed(&mut self) -> Result<(), Stop> {
        if !self.fail_on_gap {
            return Ok(());
        }
        self.write_lines().await?;
        Err(Stop::Ended(Ended::Missed))
    }

    /// Writes the lines that were taken, and acknowledges them if that is this program's to do.
    async fn write(&mut self) -> Result<(), Stop> {
        self.write_lines().await?;
        if self.request.is_explicit() {
            self.acknowledge().await?;
        }
        Ok(())
    }

    /// Writes the lines that were taken. Where nothing follows, [`Follow::finish`] acknowledges them.
    async fn write_lines(&mut self) -> Result<(), Stop> {
        match self.output.flush().await {
            Ok(Ok(())) => {}
            Ok(Err(output::Closed)) => return Err(Stop::Ended(Ended::Outside(Ending::OutputClosed))),
            Err(error) => return Err(Stop::Failed(output::failed(&error))),
        }
        self.unacknowledged.wrote();
        Ok(())
    }

    async fn acknowledge(&mut self) -> Result<(), Failure> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let cursors = self.unacknowledged.send();
        for cursor in &cursors {
            connection.acknowledge(&self.request, cursor).await?;
        }
        if cursors.is_empty() { Ok(()) } else { connection.flush().await }
    }

    /// Acknowledges what was written.
    ///
    /// The connection is dropped before that, and nothing is read from it any more: it may hold messages that will not be
    /// printed, and a ping behind them that must not be answered.
    pub async fn finish(&mut self) {
        self.connection = None;
        let Some(consumer) = self.request.consumer.as_deref() else { return };
        let path = format!("/topics/{}/consumers/{}/ack", encode(&self.request.source), encode(consumer));
        for cursor in self.unacknowledged.last() {
            let body = json!({"cursor": cursor}).to_string();
            let acknowledged = timeout(LAST_WORDS, self.remote.send(Method::POST, &path, Some(body))).await;
            let acknowledged =
                acknowledged.unwrap_or_else(|_| Err(Failure::timeout(self.remote.address(), LAST_WORDS)));
            if let Err(failure) = acknowledged {
                note(&format!("the last messages may come again, because they could not be acknowledged: {failure}"));
                return;
            }
        }
    }
}
