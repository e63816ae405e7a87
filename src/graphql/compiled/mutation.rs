//! Mutations that are executed as compiled: `publish`, `publishMany` and `acknowledge`. They call what the resolvers call.

use async_graphql::{Pos, ServerError};
use async_graphql_parser::{Positioned, types::Field};
use async_graphql_value::{Name, Value};
use serde_json::value::RawValue;

use super::{
    parts::{PublicationPart, ResultPart},
    selection::{Chosen, Selection, Selector, TYPE_NAME},
    variables::{Given, Got, Source, Variables, id, long, object, text},
};
use crate::{
    broker::{Client, Error, NewMessage, TopicName},
    graphql::{
        document::MUTATION_ROOT,
        json,
        mutation::{self, Acknowledgement, BatchCounts, Input},
        types::{self, PublishResult},
    },
    wire::{self, BesideData, Fields},
};

/// A mutation.
pub struct Mutation(Vec<Root>);

/// One root field.
struct Root {
    key: Box<str>,
    /// The key as JSON, with a colon.
    entry: Box<str>,
    pos: Pos,
    action: Action,
}

enum Action {
    TypeName,
    Publish(Message, Selection<PublicationPart>),
    PublishMany(Messages, Selection<ResultPart>),
    Acknowledge(Acknowledge),
}

/// One message to publish.
struct Message {
    topic: Source,
    data: Source,
    id: Source,
    key: Source,
    expected_offset: Source,
    headers: Source,
    ttl: Source,
    expected_key_offset: Source,
}

enum Messages {
    /// A variable.
    Given(Source),
    /// Written in the document, perhaps with variables within.
    Listed(Vec<Message>),
}

struct Acknowledge {
    topic: Source,
    consumer: Source,
    cursor: Source,
    owner: Source,
}

/// One root field with the values of its arguments.
pub enum Step {
    TypeName,
    Publish(NewItem),
    PublishMany(Vec<NewItem>),
    Acknowledge(Acknowledgement<String>),
}

/// A message to publish with its topic, or why it is refused.
type NewItem = Result<(TopicName, NewMessage), Error>;

impl Mutation {
    /// Compiles the merged root fields; `None` where one of them cannot be compiled.
    pub fn compile(roots: &[Chosen<'_>], selector: &Selector<'_>, variables: &Variables) -> Option<Self> {
        let one = |chosen: &Chosen<'_>| {
            let field = &chosen.field.node;
            let action = match chosen.name() {
                TYPE_NAME => Action::TypeName,
                "publish" => Action::Publish(Message::of_field(field, variables)?, chosen.inner(selector).compile()?),
                "publishMany" => {
                    Action::PublishMany(Messages::of_field(field, variables)?, chosen.inner(selector).compile()?)
                }
                "acknowledge" => Action::Acknowledge(Acknowledge::of_field(field, variables)?),
                _ => return None,
            };
            let key: Box<str> = chosen.key().into();
            Some(Root { entry: format!("{}:", wire::quoted(&key)).into(), key, pos: chosen.field.pos, action })
        };
        roots.iter().map(one).collect::<Option<_>>().map(Self)
    }

    /// Reads the values of all arguments, before anything is done; `None` where one has not the usual form.
    pub fn read(&self, given: &Given<'_>, client: &Client) -> Option<Vec<Step>> {
        let one = |root: &Root| {
            Some(match &root.action {
                Action::TypeName => Step::TypeName,
                Action::Publish(message, _) => Step::Publish(message.read(given, client)?),
                Action::PublishMany(messages, _) => Step::PublishMany(messages.read(given, client)?),
                Action::Acknowledge(arguments) => Step::Acknowledge(arguments.read(given)?),
            })
        };
        self.0.iter().map(one).collect()
    }

    /// Executes the root fields one after the other. Returns the result as JSON, and whether it has errors.
    pub async fn execute(&self, steps: Vec<Step>, client: &Client) -> (String, bool) {
        let counts = BatchCounts::default();
        let mut errors = Vec::new();
        let mut out = String::with_capacity(256);
        out.push_str(r#"{"data":"#);
        let begin = out.len();
        for (root, step) in self.0.iter().zip(steps) {
            let before = out.len();
            out.push(if before == begin { '{' } else { ',' });
            out.push_str(&root.entry);
            if let Err(error) = root.execute(step, client, &counts, &mut out).await {
                // As async-graphql has it, the field is missing.
                out.truncate(before);
                errors.push(error);
            }
        }
        out.push_str(if out.len() == begin { "null" } else { "}" });
        json::finish_response(&mut out, &errors, &counts.extension().into_iter().collect());
        (out, !errors.is_empty())
    }

    /// The memory that this takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Root::bytes).sum()
    }
}

impl Root {
    async fn execute(
        &self,
        step: Step,
        client: &Client,
        counts: &BatchCounts,
        out: &mut String,
    ) -> Result<(), ServerError> {
        let refused = |error| types::refuse_at(error, self.pos, &self.key);
        match (&self.action, step) {
            (Action::Publish(_, selection), Step::Publish(item)) => {
                let published = mutation::publish(client, item).await.map_err(refused)?;
                selection.write(&published, out);
            }
            (Action::PublishMany(_, selection), Step::PublishMany(items)) => {
                let results = mutation::publish_many(client, items.into_iter(), counts).await.map_err(refused)?;
                write_list(selection, &results, out);
            }
            (Action::Acknowledge(_), Step::Acknowledge(arguments)) => {
                let acknowledged = mutation::acknowledge(client, &arguments).await.map_err(refused)?;
                out.push_str(if acknowledged { "true" } else { "false" });
            }
            // The steps are made of the same actions.
            (Action::TypeName | Action::Publish(..) | Action::PublishMany(..) | Action::Acknowledge(_), _) => {
                json::write_text(out, MUTATION_ROOT);
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let action = match &self.action {
            Action::TypeName => 0,
            Action::Publish(message, selection) => message.bytes() + selection.bytes(),
            Action::PublishMany(messages, selection) => messages.bytes() + selection.bytes() + 1_024,
            Action::Acknowledge(Acknowledge { topic, consumer, cursor, owner }) => {
                [topic, consumer, cursor, owner].map(Source::bytes).iter().sum()
            }
        };
        size_of::<Self>() + 2 * self.key.len() + 3 + action
    }
}

fn write_list(selection: &Selection<ResultPart>, results: &[PublishResult], out: &mut String) {
    out.push('[');
    for (index, result) in results.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        selection.write(result, out);
    }
    out.push(']');
}

impl Message {
    fn of<'a>(arguments: impl Iterator<Item = (&'a str, &'a Value)>, variables: &Variables) -> Option<Self> {
        let absent = || Source::Absent;
        let mut message = Self {
            topic: absent(),
            data: absent(),
            id: absent(),
            key: absent(),
            expected_offset: absent(),
            headers: absent(),
            ttl: absent(),
            expected_key_offset: absent(),
        };
        for (name, value) in arguments {
            let place = match name {
                "topic" => &mut message.topic,
                "data" => &mut message.data,
                "messageId" => &mut message.id,
                "key" => &mut message.key,
                "expectedOffset" => &mut message.expected_offset,
                "headers" => &mut message.headers,
                "ttl" => &mut message.ttl,
                "expectedKeyOffset" => &mut message.expected_key_offset,
                _ => return None,
            };
            *place = variables.source(value)?;
        }
        Some(message)
    }

    fn of_field(field: &Field, variables: &Variables) -> Option<Self> {
        Self::of(arguments(field), variables)
    }

    fn read(&self, given: &Given<'_>, client: &Client) -> Option<NewItem> {
        read_message(
            client,
            given.get(&self.topic),
            given.get(&self.data),
            [&self.id, &self.key, &self.expected_offset, &self.headers, &self.ttl, &self.expected_key_offset]
                .map(|source| given.get(source)),
        )
    }

    fn bytes(&self) -> usize {
        let Self { topic, data, id, key, expected_offset, headers, ttl, expected_key_offset } = self;
        let sources = [topic, data, id, key, expected_offset, headers, ttl, expected_key_offset];
        size_of::<Self>() + sources.map(Source::bytes).iter().sum::<usize>()
    }
}

/// Reads a message to publish: its topic, its data, and its id, key, conditions, headers and ttl, which may be missing.
fn read_message(
    client: &Client,
    topic: Got<'_>,
    data: Got<'_>,
    [given_id, key, offset, headers, ttl, key_offset]: [Got<'_>; 6],
) -> Option<NewItem> {
    let (topic, data) = (topic.required(text)?, data.data()?);
    let (given_id, key) = (given_id.optional(id)?, key.optional(text)?);
    let (expected_offset, headers, ttl) = (offset.optional(long)?, headers.optional(object)?, ttl.optional(text)?);
    let beside = BesideData {
        id: given_id.as_deref(),
        key: key.as_deref(),
        expected_offset,
        headers,
        ttl: ttl.as_deref(),
        expected_key_offset: key_offset.optional(long)?,
        remove: false,
    };
    let input = Input { topic: &topic, data: Some(data), beside };
    Some(mutation::new_message(client, input))
}

impl Messages {
    fn of_field(field: &Field, variables: &Variables) -> Option<Self> {
        let (_, value) = arguments(field).find(|(name, _)| *name == "messages")?;
        match value {
            Value::Variable(_) => variables.source(value).map(Self::Given),
            Value::List(items) => {
                let one = |item: &Value| match item {
                    Value::Object(fields) => {
                        Message::of(fields.iter().map(|(name, value): (&Name, _)| (name.as_str(), value)), variables)
                    }
                    _ => None,
                };
                items.iter().map(one).collect::<Option<_>>().map(Self::Listed)
            }
            _ => None,
        }
    }

    fn read(&self, given: &Given<'_>, client: &Client) -> Option<Vec<NewItem>> {
        match self {
            Self::Listed(messages) => messages.iter().map(|message| message.read(given, client)).collect(),
            Self::Given(source) => {
                let items: Vec<&RawValue> = given.get(source).required(|list| serde_json::from_str(list.get()).ok())?;
                items.into_iter().map(|item| read_given(item, client)).collect()
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Given(source) => source.bytes(),
            Self::Listed(messages) => messages.iter().map(Message::bytes).sum(),
        }
    }
}

/// Reads one message of a list that a client gave as a variable.
fn read_given(item: &RawValue, client: &Client) -> Option<NewItem> {
    let fields: Fields<'_> = serde_json::from_str(item.get()).ok()?;
    let (mut topic, mut data, mut further) = (None, None, [None; 6]);
    for (name, value) in fields.values() {
        let place = match name {
            "topic" => &mut topic,
            "data" => &mut data,
            "messageId" => &mut further[0],
            "key" => &mut further[1],
            "expectedOffset" => &mut further[2],
            "headers" => &mut further[3],
            "ttl" => &mut further[4],
            "expectedKeyOffset" => &mut further[5],
            _ => return None,
        };
        if place.replace(value).is_some() {
            return None;
        }
    }
    read_message(client, Got::of(topic), Got::of(data), further.map(Got::of))
}

impl Acknowledge {
    fn of_field(field: &Field, variables: &Variables) -> Option<Self> {
        let absent = || Source::Absent;
        let mut found = Self { topic: absent(), consumer: absent(), cursor: absent(), owner: absent() };
        for (name, value) in arguments(field) {
            let place = match name {
                "topic" => &mut found.topic,
                "consumer" => &mut found.consumer,
                "cursor" => &mut found.cursor,
                "owner" => &mut found.owner,
                _ => return None,
            };
            *place = variables.source(value)?;
        }
        Some(found)
    }

    fn read(&self, given: &Given<'_>) -> Option<Acknowledgement<String>> {
        let owned = |value| text(value).map(std::borrow::Cow::into_owned);
        Some(Acknowledgement {
            topic: given.get(&self.topic).required(owned)?,
            consumer: given.get(&self.consumer).required(owned)?,
            cursor: given.get(&self.cursor).required(owned)?,
            owner: given.get(&self.owner).optional(owned)?,
        })
    }
}

/// The arguments of a field.
pub fn arguments(field: &Field) -> impl Iterator<Item = (&str, &Value)> {
    let arguments = field.arguments.iter();
    arguments.map(|(name, value): &(Positioned<Name>, Positioned<Value>)| (name.node.as_str(), &value.node))
}
