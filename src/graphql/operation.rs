//! An open subscription: reads messages and writes each as a result.

use std::{
    borrow::{Borrow, BorrowMut},
    iter::Peekable,
    sync::Arc,
};

use async_graphql::{Pos, ServerError};
use bytes::Bytes;

use super::{
    json,
    shape::{Delivered, Shape},
    types,
};
use crate::{
    broker::{self, AnyCursor, BatchLimit, Event, Gap, PatternCursor, Progress},
    subscriptions::BATCH_LIMIT,
    wire::{self, Spelling},
};

/// An open subscription, read by its connection.
pub struct Operation {
    subscription: broker::Subscription,
    shape: Arc<Shape>,
    /// The first result says how the consumer was resumed.
    greeting: Option<String>,
    /// The position behind the last result, where every result carries it.
    cursor: Option<String>,
    batch: BatchLimit,
}

impl Operation {
    /// A subscription whose results are made like this, `with_cursors` if every result is to carry a position.
    pub fn new(subscription: broker::Subscription, shape: Arc<Shape>, with_cursors: bool) -> Self {
        let greeting = subscription.consumer().map(|info| format!(r#""consumer":{}"#, wire::consumer_object(info)));
        let cursor = with_cursors.then(|| subscription.begins_at().to_string());
        Self { subscription, shape, greeting, cursor, batch: BATCH_LIMIT }
    }

    /// Bounds a batch by what the connection adds to every result, such as a long id.
    #[must_use]
    pub fn with_overhead(mut self, bytes: usize) -> Self {
        let messages = BATCH_LIMIT.bytes / bytes.max(1);
        self.batch.messages = messages.clamp(1, BATCH_LIMIT.messages);
        self
    }

    /// Reads one batch; `each` gets every result as JSON, with the position of its message. `Some` is how the stream
    /// ended: a last result with the error. `events` is a buffer that a connection lends to each of its operations,
    /// empty before and after.
    pub fn deliver(
        &mut self,
        events: &mut Vec<Event>,
        mut each: impl FnMut(&[u8], Option<AnyCursor>),
    ) -> Option<Bytes> {
        let progress = self.subscription.read(self.batch, events);
        let mut events = events.drain(..).peekable();
        while let Some(event) = events.next() {
            match event {
                Event::Message(message, position) => {
                    let told = Told { gap: None, state: state_behind(&mut events) };
                    self.message(&message, position, told, &mut each);
                }
                Event::Gap(gap) => {
                    // The next message says what was missed before it. Where none follows, a result without one does.
                    let follows =
                        |event: &Event| matches!(event, Event::Message(message, _) if message.topic == gap.topic);
                    let next = events.next_if(follows);
                    let told = Told { gap: Some(&gap), state: state_behind(&mut events) };
                    if let Some(Event::Message(message, position)) = next {
                        self.message(&message, position, told, &mut each);
                    } else {
                        self.no_message(told, &mut each);
                    }
                }
                Event::StateComplete(at) => self.no_message(Told { gap: None, state: Some(at) }, &mut each),
                // The topic was deleted with messages that were not read, and how many is not known any more.
                Event::Deleted { topic, unread: true } => {
                    let extension = format!(r#""deleted":{{"topic":{}}}"#, wire::quoted(topic.as_str()));
                    let result = self.shape.make(None);
                    each(&self.extended(result.into(), &[Some(extension)]), None);
                }
                // The stream of a pattern goes on; clients learn of deleted topics by `topicEvents`.
                Event::Deleted { unread: false, .. } => {}
            }
        }
        let Progress::Ended(error) = progress else { return None };
        let error = types::refuse(error).into_server_error(Pos::default());
        let mut last = r#"{"data":null,"errors":"#.to_owned();
        json::write_errors(&mut last, &[ServerError { locations: Vec::new(), ..error }]);
        last.push('}');
        Some(last.into())
    }

    /// Makes the result of a message.
    fn message(
        &mut self,
        message: &Arc<broker::Message>,
        position: Option<PatternCursor>,
        told: Told<'_>,
        each: &mut impl FnMut(&[u8], Option<AnyCursor>),
    ) {
        let result = self.render(message, told.gap, position.as_ref());
        let extensions = told.extensions();
        let behind = told.state.unwrap_or_else(|| position_of(message, position));
        if let Some(cursor) = &mut self.cursor {
            *cursor = behind.to_string();
        }
        each(&self.extended(result, &extensions), Some(behind));
    }

    /// Makes a result that has null instead of a message.
    fn no_message(&mut self, told: Told<'_>, each: &mut impl FnMut(&[u8], Option<AnyCursor>)) {
        if let (Some(cursor), Some(at)) = (&mut self.cursor, &told.state) {
            *cursor = at.to_string();
        }
        let result = self.shape.make(None);
        each(&self.extended(result.into(), &told.extensions()), told.state);
    }

    fn render(&self, message: &Arc<broker::Message>, gap: Option<&Gap>, position: Option<&PatternCursor>) -> Bytes {
        let shape = &self.shape;
        shape.count_wanted();
        let make = || Bytes::from(shape.make(Some(Delivered { message, gap, pattern_cursor: position })));
        // A gap is this subscriber's alone, and so is a position over several logs.
        let own = gap.is_some() || position.is_some_and(|cursor| cursor.logs.len() > 1);
        if own { make() } else { message.rendering(shape.id, |_| make()) }
    }

    /// A result with what is said beside it.
    fn extended(&mut self, result: Bytes, told: &[Option<String>]) -> Bytes {
        let greeting = self.greeting.take();
        let cursor = self.cursor.as_ref().map(|cursor| format!(r#""cursor":"{cursor}""#));
        let extensions: Vec<_> = told.iter().chain([&greeting, &cursor]).flatten().map(String::as_str).collect();
        if extensions.is_empty() { result } else { with_extensions(&result, &extensions.join(",")) }
    }

    /// See [`broker::Subscription::begins_at`].
    #[must_use]
    pub fn begins_at(&self) -> &AnyCursor {
        self.subscription.begins_at()
    }

    /// No acknowledgement comes back on an HTTP stream: what the connection took counts as delivered.
    pub fn delivered(&mut self) {
        if self.subscription.mark_in_flight() {
            self.subscription.acknowledge_in_flight();
        }
    }

    /// The consumer of the subscription, as JSON.
    pub fn consumer(&self) -> Option<String> {
        self.subscription.consumer().map(wire::consumer_object)
    }
}

impl Borrow<broker::Subscription> for Operation {
    fn borrow(&self) -> &broker::Subscription {
        &self.subscription
    }
}

impl BorrowMut<broker::Subscription> for Operation {
    fn borrow_mut(&mut self) -> &mut broker::Subscription {
        &mut self.subscription
    }
}

/// The position that a client resumes after: over all topics, if the message came through a pattern.
fn position_of(message: &broker::Message, pattern_cursor: Option<PatternCursor>) -> AnyCursor {
    pattern_cursor.map_or(AnyCursor::Topic(message.cursor), AnyCursor::Pattern)
}

/// What is said beside a message.
struct Told<'a> {
    /// What was missed before it.
    gap: Option<&'a Gap>,
    /// Where the state is complete behind it.
    state: Option<AnyCursor>,
}

impl Told<'_> {
    fn extensions(&self) -> [Option<String>; 2] {
        let gap = self.gap.map(|gap| format!(r#""gap":{}"#, wire::gap_object(gap, Spelling::CamelCase)));
        let state = self.state.as_ref().map(|at| format!(r#""state":{{"complete":true,"cursor":"{at}"}}"#));
        [gap, state]
    }
}

/// Where the state is complete, if that is what comes next.
fn state_behind(events: &mut Peekable<impl Iterator<Item = Event>>) -> Option<AnyCursor> {
    match events.next_if(|event| matches!(event, Event::StateComplete(_))) {
        Some(Event::StateComplete(at)) => Some(at),
        _ => None,
    }
}

/// Adds extensions to a result that has none.
fn with_extensions(result: &[u8], extensions: &str) -> Bytes {
    let body = result.strip_suffix(b"}").unwrap_or(result);
    [body, br#","extensions":{"#, extensions.as_bytes(), b"}}"].concat().into()
}
