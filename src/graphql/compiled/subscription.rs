//! The subscription that is opened as compiled: `messages`, where no filter is given. What it selects of a message is
//! compiled also where a filter is given.

use std::sync::{Arc, OnceLock};

use async_graphql::{Pos, ServerError};
use async_graphql_value::Value;

use super::{
    mutation::arguments,
    parts::MessagePart,
    selection::{Chosen, Selection, Selector},
    variables::{Given, Source, Variables, ack, boolean, int, overflow, text, time},
};
use crate::{
    broker::{Error, Subscribe},
    graphql::{
        subscription::{Delivery, MessagesArguments, subscribe_request},
        types,
    },
};

/// A subscription to messages.
pub struct Subscription<S> {
    key: Box<str>,
    pos: Pos,
    arguments: Arguments,
    selection: Arc<Selection<MessagePart>>,
    /// What results of this selection are made with, by how messages are delivered.
    shapes: [OnceLock<S>; 4],
}

struct Arguments {
    topic: Source,
    last: Source,
    after: Source,
    since: Source,
    state: Source,
    filter: Source,
    consumer: Source,
    ack: Source,
    consumer_ttl: Source,
    overflow: Source,
}

impl<S> Subscription<S> {
    /// Compiles the only root field; `None` where it is another one, or has something that cannot be compiled.
    pub fn compile(roots: &[Chosen<'_>], selector: &Selector<'_>, variables: &Variables) -> Option<Self> {
        let [root] = roots else { return None };
        if root.name() != "messages" {
            return None;
        }
        let before = format!(r#"{{"data":{{{}:"#, crate::wire::quoted(root.key()));
        Some(Self {
            key: root.key().into(),
            pos: root.field.pos,
            arguments: Arguments::of(arguments(&root.field.node), variables)?,
            selection: Arc::new(root.inner(selector).compile()?.within(&before, "}}")),
            shapes: Default::default(),
        })
    }

    /// Reads what the client wants to subscribe to, or why it is refused; `None` where an argument has not the usual form.
    pub fn read(&self, given: &Given<'_>) -> Option<Result<Subscribe, Error>> {
        let of = &self.arguments;
        if given.get(&of.filter).optional(|_| Some(()))?.is_some() {
            return None;
        }
        let (topic, after) = (given.get(&of.topic).required(text)?, given.get(&of.after).optional(text)?);
        let consumer = given.get(&of.consumer).optional(text)?;
        let consumer_ttl = given.get(&of.consumer_ttl).optional(text)?;
        let arguments = MessagesArguments {
            last: given.get(&of.last).optional(int)?,
            after: after.as_deref(),
            since: given.get(&of.since).optional(time)?,
            state: given.get(&of.state).optional(boolean)?,
            consumer: consumer.as_deref(),
            ack: given.get(&of.ack).optional(ack)?,
            consumer_ttl: consumer_ttl.as_deref(),
            overflow: given.get(&of.overflow).optional(overflow)?,
        };
        Some(arguments.options().and_then(|options| subscribe_request(&topic, options)))
    }

    /// The error of the field.
    pub fn refused(&self, error: Error) -> ServerError {
        types::refuse_at(error, self.pos, &self.key)
    }

    /// What its results are made with. The first call makes it.
    pub fn shape(&self, delivery: Delivery, make: impl FnOnce(&Arc<Selection<MessagePart>>) -> S) -> &S {
        let Delivery { filtered, through_pattern } = delivery;
        let slot = &self.shapes[usize::from(filtered) + 2 * usize::from(through_pattern)];
        slot.get_or_init(|| make(&self.selection))
    }

    /// The memory that this takes, in bytes.
    pub fn bytes(&self) -> usize {
        let Arguments { topic, last, after, since, state, filter, consumer, ack, consumer_ttl, overflow } =
            &self.arguments;
        let sources = [topic, last, after, since, state, filter, consumer, ack, consumer_ttl, overflow];
        size_of::<Self>() + self.key.len() + self.selection.bytes() + sources.map(Source::bytes).iter().sum::<usize>()
    }
}

impl Arguments {
    fn of<'a>(arguments: impl Iterator<Item = (&'a str, &'a Value)>, variables: &Variables) -> Option<Self> {
        let absent = || Source::Absent;
        let mut found = Self {
            topic: absent(),
            last: absent(),
            after: absent(),
            since: absent(),
            state: absent(),
            filter: absent(),
            consumer: absent(),
            ack: absent(),
            consumer_ttl: absent(),
            overflow: absent(),
        };
        for (name, value) in arguments {
            let place = match name {
                "topic" => &mut found.topic,
                "last" => &mut found.last,
                "after" => &mut found.after,
                "since" => &mut found.since,
                "state" => &mut found.state,
                "filter" => &mut found.filter,
                "consumer" => &mut found.consumer,
                "ack" => &mut found.ack,
                "consumerTtl" => &mut found.consumer_ttl,
                "overflow" => &mut found.overflow,
                _ => return None,
            };
            // A filter with variables within is read by async-graphql, as every filter is.
            *place = match variables.source(value) {
                None if name == "filter" => variables.source(&Value::Boolean(true))?,
                source => source?,
            };
        }
        Some(found)
    }
}
