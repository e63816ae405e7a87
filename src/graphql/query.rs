//! Queries.

use async_graphql::{Context, Description, Object, Result};
use tokio::time::Instant;

use super::{
    scalars::{Cursor, Long},
    types::{Consumer, Health, Stats, Topic, TopicConnection, UNPAGED, limit, list_weight, page_weight, refuse},
};
use crate::broker::{Client, Error, Source, TopicName};

/// Reading. Nothing here changes anything.
#[derive(Description)]
pub struct Query {
    pub started: Instant,
}

#[Object(use_type_description)]
impl Query {
    /// The topic of this name; null when there is none.
    async fn topic(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 255 bytes of UTF-8 without `*`, `>` and control characters.")] name: String,
    ) -> Result<Option<Topic>> {
        let name = TopicName::parse(&name).map_err(refuse)?;
        let client = ctx.data::<Client>()?;
        match client.topic(&name).await {
            Ok(info) => Ok(Some(Topic { client: client.clone(), info })),
            Err(Error::TopicNotFound(_)) => Ok(None),
            Err(error) => Err(refuse(error)),
        }
    }

    /// Topics in the order of their names.
    #[graphql(complexity = "page_weight(first, child_complexity)")]
    async fn topics(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only those whose names begin with this.")] prefix: Option<String>,
        #[graphql(desc = "At most so many; 100 unless given, 1 to 1,000 unless the server sets otherwise.")]
        first: Option<i32>,
        #[graphql(desc = "Only those after this name, or after a page's `endCursor`.")] after: Option<Cursor>,
    ) -> Result<TopicConnection> {
        let client = ctx.data::<Client>()?;
        let limit = limit("first", first, client.settings().max_batch)?;
        TopicConnection::new(
            client,
            prefix.as_deref().unwrap_or_default(),
            after.as_ref().map(|after| after.0.as_str()),
            limit,
        )
    }

    /// The named consumers of a topic or pattern, by name.
    #[graphql(complexity = "list_weight(UNPAGED, child_complexity)")]
    async fn consumers(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A topic's name, or a pattern as it was subscribed.")] topic: String,
    ) -> Result<Vec<Consumer>> {
        let source = Source::parse(&topic).map_err(refuse)?;
        let consumers = ctx.data::<Client>()?.consumers(&source).await.map_err(refuse)?;
        Ok(consumers.into_iter().map(Consumer::from).collect())
    }

    /// Numbers about the whole server.
    async fn stats(&self, ctx: &Context<'_>) -> Result<Stats> {
        Ok(Stats(ctx.data::<Client>()?.totals().map_err(refuse)?))
    }

    /// How the server is.
    async fn health(&self, ctx: &Context<'_>) -> Result<Health> {
        Ok(Health { status: ctx.data::<Client>()?.status(), uptime_seconds: Long(self.started.elapsed().as_secs()) })
    }
}
