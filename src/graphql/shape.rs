//! What makes the results of subscriptions out of messages: one for all subscriptions whose results are the same.
//!
//! Most are written: the selection was compiled, and nothing else matters than how messages are delivered, whatever the
//! documents look like. The others are executed by async-graphql, and shared by subscriptions of the same document, operation
//! and variables. There the resolver has subscribed, and the execution waits for an item, which is put into its slot.

use std::{
    collections::HashMap,
    hash::Hash,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use async_graphql::{ErrorExtensions, Pos, Response, ServerError};
use parking_lot::Mutex;
use tokio_stream::Stream;

use super::{
    compiled::{
        parts::{Item, MessagePart},
        selection::Selection,
    },
    json,
    subscription::{Delivery, ItemSlot},
    types::{self, Message, TopicEvent},
};
use crate::{
    broker::{self, Gap, PatternCursor, ShapeId, TopicEventKind},
    problem::{Code, Problem},
};

/// How many times a message was rendered for GraphQL, and how many times it was wanted.
#[derive(Debug, Default)]
pub struct Renderings {
    /// Written as JSON, executed or not.
    pub made: AtomicU64,
    /// Asked for, made or shared.
    pub wanted: AtomicU64,
}

/// All shapes that are in use.
pub struct Shapes {
    known: Mutex<HashMap<ShapeKey, Weak<Shape>>>,
    next: AtomicU64,
    renderings: Arc<Renderings>,
}

/// What makes two subscriptions' renderings the same.
#[derive(Clone, PartialEq, Eq, Hash)]
enum ShapeKey {
    Written(Written),
    Executed(Executed),
}

/// A compiled selection of messages.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Written {
    selection: Arc<Selection<MessagePart>>,
    delivery: Delivery,
}

/// An execution.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Executed {
    pub query: String,
    pub operation: Option<String>,
    /// As text.
    pub variables: String,
    /// Whose it is alone. A topic that comes with an event shows what its reader may see of it; messages are the same for
    /// all who may read them.
    pub principal: Option<usize>,
}

/// What makes the results of equal subscriptions.
pub struct Shape {
    /// The number under which a message keeps its rendering.
    pub id: ShapeId,
    /// `None` where the key says how results are written.
    execution: Option<Mutex<Execution>>,
    key: ShapeKey,
    shapes: Weak<Shapes>,
    renderings: Arc<Renderings>,
}

/// An execution that waits for its next item.
pub struct Execution {
    pub stream: Pin<Box<dyn Stream<Item = Response> + Send>>,
    pub slot: ItemSlot,
}

/// What one result is made of.
#[derive(Clone, Copy)]
pub struct Delivered<'a> {
    pub message: &'a Arc<broker::Message>,
    pub gap: Option<&'a Gap>,
    pub pattern_cursor: Option<&'a PatternCursor>,
}

impl Shapes {
    /// No shapes yet. Their numbers will begin with `first`.
    pub fn new(renderings: Arc<Renderings>, first: u64) -> Arc<Self> {
        Arc::new(Self { known: Mutex::default(), next: AtomicU64::new(first), renderings })
    }

    /// The shape of a compiled selection.
    pub fn written(self: &Arc<Self>, selection: &Arc<Selection<MessagePart>>, delivery: Delivery) -> Arc<Shape> {
        // What the selection does not ask for makes no difference.
        let asks = |part: &MessagePart| selection.fields().any(|field| field == part);
        let delivery = Delivery {
            filtered: delivery.filtered && asks(&MessagePart::Previous),
            through_pattern: delivery.through_pattern && asks(&MessagePart::PatternCursor),
        };
        self.find(ShapeKey::Written(Written { selection: selection.clone(), delivery }), None)
    }

    /// The shape of an execution; the first one of equal ones serves all.
    pub fn executed(self: &Arc<Self>, key: Executed, execution: Execution) -> Arc<Shape> {
        self.find(ShapeKey::Executed(key), Some(execution))
    }

    fn find(self: &Arc<Self>, key: ShapeKey, execution: Option<Execution>) -> Arc<Shape> {
        let mut known = self.known.lock();
        if let Some(shape) = known.get(&key).and_then(Weak::upgrade) {
            return shape;
        }
        let shape = Arc::new(Shape {
            id: ShapeId(self.next.fetch_add(1, Ordering::Relaxed)),
            execution: execution.map(Mutex::new),
            key: key.clone(),
            shapes: Arc::downgrade(self),
            renderings: self.renderings.clone(),
        });
        known.insert(key, Arc::downgrade(&shape));
        shape
    }
}

impl Drop for Shape {
    fn drop(&mut self) {
        if let Some(shapes) = self.shapes.upgrade() {
            let mut known = shapes.known.lock();
            // By now there may be a newer shape of the same key.
            if known.get(&self.key).is_some_and(|known| known.strong_count() == 0) {
                known.remove(&self.key);
            }
        }
    }
}

impl Shape {
    /// Counts a result that is wanted.
    pub fn count_wanted(&self) {
        self.renderings.wanted.fetch_add(1, Ordering::Relaxed);
    }

    /// One result as JSON. Without an item it has null in its place.
    pub fn make(&self, item: Option<Delivered<'_>>) -> String {
        self.renderings.made.fetch_add(1, Ordering::Relaxed);
        if let ShapeKey::Written(written) = &self.key {
            return written.make(item);
        }
        let execution = self.execution.as_ref();
        execution.and_then(|execution| execution.lock().render(item)).unwrap_or_else(|| {
            let mut result = r#"{"data":null,"errors":"#.to_owned();
            json::write_errors(&mut result, &[internal()]);
            result.push('}');
            result
        })
    }
}

impl Written {
    fn make(&self, item: Option<Delivered<'_>>) -> String {
        let Self { selection, delivery: Delivery { filtered, .. } } = self;
        let mut result = String::with_capacity(item.map_or(0, |item| item.message.data.len()) + 256);
        match item {
            Some(Delivered { message, gap, pattern_cursor }) => {
                selection.write(Item { message, gap, pattern_cursor, filtered: *filtered }, &mut result);
            }
            None => selection.write_none(&mut result),
        }
        result
    }
}

impl Execution {
    /// Runs one item through the execution. All resolvers of the output types are ready at once.
    fn render(&mut self, item: Option<Delivered<'_>>) -> Option<String> {
        match &self.slot {
            ItemSlot::Messages { slot, delivery } => {
                slot.put(item.map(|Delivered { message, gap, pattern_cursor }| Message {
                    message: message.clone(),
                    gap: gap.cloned(),
                    pattern_cursor: pattern_cursor.cloned(),
                    filtered: delivery.filtered,
                }));
            }
            ItemSlot::Events(client, slot) => {
                let event = |Delivered { message, .. }: Delivered<'_>| {
                    let kind = TopicEventKind::of(message)?;
                    Some(TopicEvent { client: client.clone(), kind, message: message.clone() })
                };
                slot.put(item.and_then(event));
            }
        }
        match self.stream.as_mut().poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(response)) => Some(json::write_response(&response, true)),
            Poll::Ready(None) | Poll::Pending => None,
        }
    }
}

/// The error of a request that ended in a bug. Only the operator is to see what it was, and finds it in the log by its id.
pub fn internal() -> ServerError {
    let id = uuid::Uuid::new_v4();
    let request = broker::RequestId::current().map(tracing::field::display);
    tracing::error!(%id, request, "an execution ended without a result");
    let problem = Problem::new(Code::Internal, "something went wrong here; the log has it by its id");
    let error = types::problem(&problem).extend_with(|_, extensions| extensions.set("errorId", id.to_string()));
    error.into_server_error(Pos::default())
}
