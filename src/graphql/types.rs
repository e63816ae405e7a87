//! Output types. Each knows the broker or a piece of what it said; none holds a rule.

mod message;
mod publication;
mod state;
mod subscription_status;
mod topic;

use async_graphql::{
    Context, Description, Error, ErrorExtensions, Object, PathSegment, Pos, Result, ServerError, Value,
};

pub use message::{Message, MessageConnection, PageInfo};
pub use publication::{Publication, PublishError, PublishResult};
pub use state::StateConnection;
pub use subscription_status::Overflow;
pub use topic::{AckMode, Consumer, Retention, Topic, TopicConnection, TopicEvent, limit};

use super::scalars::Long;
use crate::{
    broker::{self, Client},
    problem::Problem,
    wire,
};

/// The broker's error as GraphQL says it.
pub fn refuse(error: broker::Error) -> Error {
    problem(&refusal(error))
}

/// The broker's error as the error of a root field, which stands there in the document and has this key in the response.
pub fn refuse_at(error: broker::Error, pos: Pos, key: &str) -> ServerError {
    refuse(error).into_server_error(pos).with_path(vec![PathSegment::Field(key.to_owned())])
}

/// The broker's error with the wrong input in GraphQL's spelling.
pub fn refusal(error: broker::Error) -> Problem {
    Problem::from(error).spelled(own_name)
}

/// A problem as GraphQL says it: whatever its object has beside the message is in the error's extensions, under names in
/// GraphQL's spelling.
pub fn problem(problem: &Problem) -> Error {
    let fields = match serde_json::to_value(problem.object()) {
        Ok(serde_json::Value::Object(fields)) => fields,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    Error::new(problem.message.clone()).extend_with(|_, extensions| {
        for (name, value) in fields.into_iter().filter(|(name, _)| name != "message") {
            // A JSON value is always one of async-graphql's.
            extensions.set(own_name(&name), Value::from_json(value).unwrap_or_default());
        }
    })
}

/// GraphQL's name for what REST calls `name`. The publisher's id of a message is `messageId`, because `id` is the cache key of
/// GraphQL's clients.
fn own_name(name: &str) -> String {
    if name == "id" { "messageId".to_owned() } else { camel_case(name) }
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(usize::from(!word.is_empty()));
        camel.push_str(&first.to_ascii_uppercase());
        camel.push_str(rest);
    }
    camel
}

/// A number that fits GraphQL's Int; what is larger is shown as the largest.
fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// What a list weighs in an operation: the field itself, and each item's fields.
pub fn list_weight(items: usize, each: usize) -> usize {
    // Far over any sensible limit, and yet products and sums with it stay within 64 bits, where async-graphql's would wrap.
    const MOST: usize = 1 << 40;
    items.saturating_mul(each).min(MOST) + 1
}

/// What a page weighs: 100 items unless the client says how many.
pub fn page_weight(size: Option<i32>, each: usize) -> usize {
    list_weight(size.map_or(100, |count| usize::try_from(count).unwrap_or(1)).max(1), each)
}

/// Items that a list without a page size is assumed to have. It is a guess; what it is for is that lists within lists
/// multiply in the weight, too.
pub const UNPAGED: usize = 20;

/// Numbers about the whole server at one moment.
#[derive(Description)]
pub struct Stats(pub broker::Totals);

#[Object(use_type_description)]
impl Stats {
    /// Topics that exist.
    async fn topics(&self) -> i32 {
        int(self.0.topics)
    }

    /// Messages that all histories keep.
    async fn messages(&self) -> Long {
        Long(self.0.messages as u64)
    }

    /// Messages accepted since the server started.
    async fn published(&self) -> Long {
        Long(self.0.published)
    }

    /// Live subscriptions.
    async fn subscribers(&self) -> i32 {
        int(self.0.subscriptions)
    }

    /// Bytes that all histories take in memory.
    async fn history_bytes(&self) -> Long {
        Long(self.0.history_bytes as u64)
    }

    /// Different patterns that are subscribed.
    async fn patterns(&self) -> i32 {
        int(self.0.patterns)
    }
}

/// How the server is.
#[derive(Description)]
pub struct Health {
    pub status: &'static str,
    pub uptime_seconds: Long,
}

#[Object(use_type_description)]
impl Health {
    /// `ok`; `draining` while the server stops; `starting` while it has not read yet what exists; `read_only` while it
    /// cannot store.
    async fn status(&self) -> &'static str {
        self.status
    }

    /// Seconds since the server started.
    async fn uptime_seconds(&self, ctx: &Context<'_>) -> Result<Long> {
        check_known(ctx)?;
        Ok(Long(self.uptime_seconds.0))
    }

    /// The server's version.
    async fn version(&self, ctx: &Context<'_>) -> Result<&'static str> {
        check_known(ctx)?;
        Ok(env!("CARGO_PKG_VERSION"))
    }
}

/// Strangers learn of a server with access rules how it is, and nothing else.
fn check_known(ctx: &Context<'_>) -> Result<()> {
    let principal = ctx.data::<Client>()?.principal();
    if principal.is_anonymous() { Err(refuse(principal.has_to_sign_in())) } else { Ok(()) }
}

/// The filter as the broker's language says it.
pub fn filter_json(payload: &str, client: &Client) -> Result<broker::Filter> {
    wire::parse_filter(payload, &client.settings().filter).map_err(refuse)
}
