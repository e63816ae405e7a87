//! The GraphQL of the ordinary server: async-graphql's schema and async-graphql-axum's own transports.

use async_graphql::{Context, ID, Json, Object, Schema, SimpleObject, Subscription};
use async_graphql_axum::{GraphQL, GraphQLSubscription};
use axum::{Router, routing::post_service};
use futures_util::{Stream, StreamExt as _};
use serde_json::Value;

use crate::ordinary::Broker;

#[derive(SimpleObject)]
struct Message {
    id: ID,
    topic: String,
    data: Json<Value>,
    offset: i64,
    published_at: String,
}

#[derive(SimpleObject)]
struct Publication {
    message_id: ID,
    topic: String,
    offset: i64,
    published_at: String,
}

struct Query;

#[Object]
impl Query {
    async fn health(&self) -> &'static str {
        "ok"
    }
}

struct Mutation;

#[Object]
impl Mutation {
    async fn publish(
        &self,
        context: &Context<'_>,
        topic: String,
        data: Json<Value>,
    ) -> async_graphql::Result<Publication> {
        let event = context.data::<Broker>()?.publish(topic, data.0);
        Ok(Publication {
            message_id: event.id.clone().into(),
            topic: event.topic.clone(),
            offset: event.offset as i64,
            published_at: event.published_at.clone(),
        })
    }
}

struct Subscriptions;

#[Subscription]
impl Subscriptions {
    async fn messages(
        &self,
        context: &Context<'_>,
        topic: String,
    ) -> async_graphql::Result<impl Stream<Item = Message> + use<>> {
        let events = context.data::<Broker>()?.subscribe(&topic);
        Ok(events.map(|event| Message {
            id: event.id.clone().into(),
            topic: event.topic.clone(),
            data: Json(event.data.clone()),
            offset: event.offset as i64,
            published_at: event.published_at.clone(),
        }))
    }
}

/// The route of GraphQL.
pub fn routes(broker: Broker) -> Router<Broker> {
    let schema = Schema::build(Query, Mutation, Subscriptions).data(broker).finish();
    let service = post_service(GraphQL::new(schema.clone())).get_service(GraphQLSubscription::new(schema));
    Router::new().route("/graphql", service)
}
