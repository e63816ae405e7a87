//! The schema as an Apollo Federation subgraph: a router finds a topic by its name, and joins to it what other services know
//! of it.
//!
//! async-graphql makes a subgraph of every schema that has an entity, so the entity has a query root of its own.

use std::{borrow::Cow, pin::Pin, sync::Arc};

use async_graphql::{
    ContainerType, Context, ContextSelectionSet, ObjectType, OutputType, Positioned, Request, Response, Schema,
    SchemaBuilder, ServerError, ServerResult, ValidationResult, Variables,
    async_trait::async_trait,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextParseQuery, NextValidation},
    registry::Registry,
    resolver_utils::resolve_container,
};
use async_graphql_parser::types::{DocumentOperations, ExecutableDocument, Field, Selection, SelectionSet};
use async_graphql_value::{ConstValue, Value};
use parking_lot::Mutex;
use tokio_stream::Stream;

use super::{mutation::Mutation, query::Query, subscription::SubscriptionRoot, types::Topic};
use crate::broker::{Client, TopicName};

/// The query root of a subgraph: that of the plain schema, and the way to a topic by its key.
pub struct SubgraphQuery(pub Query);

impl ContainerType for SubgraphQuery {
    async fn resolve_field(&self, ctx: &Context<'_>) -> ServerResult<Option<ConstValue>> {
        self.0.resolve_field(ctx).await
    }

    async fn find_entity(&self, ctx: &Context<'_>, representation: &ConstValue) -> ServerResult<Option<ConstValue>> {
        let Some(name) = topic_name(representation) else { return Ok(None) };
        let client = ctx.data::<Client>().map_err(|error| error.into_server_error(ctx.item.pos))?;
        // Null where there is none: an error would also take away the other entities of the same request.
        let topic = match TopicName::parse(name) {
            Ok(name) => client.topic(&name).await.ok(),
            Err(_) => None,
        };
        let topic = topic.map(|info| Topic { client: client.clone(), info });
        topic.resolve(&ctx.with_selection_set(&ctx.item.node.selection_set), ctx.item).await.map(Some)
    }
}

/// The key of a topic, as a router writes it.
fn topic_name(representation: &ConstValue) -> Option<&str> {
    let ConstValue::Object(fields) = representation else { return None };
    let text = |name| match fields.get(name) {
        Some(ConstValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if text("__typename") == Some(&Topic::type_name()) { text("name") } else { None }
}

impl OutputType for SubgraphQuery {
    fn type_name() -> Cow<'static, str> {
        Query::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        let root = Query::create_type_info(registry);
        registry.add_keys(&Topic::type_name(), "name");
        root
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<ConstValue> {
        resolve_container(ctx, self).await
    }
}

impl ObjectType for SubgraphQuery {}

/// The schema with its roots.
#[derive(Clone)]
pub enum ApiSchema {
    /// The schema for clients.
    Plain(Schema<Query, Mutation, SubscriptionRoot>),
    /// The schema for a router, and for clients.
    Subgraph(Schema<SubgraphQuery, Mutation, SubscriptionRoot>),
}

impl ApiSchema {
    /// The subgraph of what the builder makes.
    pub fn subgraph(builder: SchemaBuilder<SubgraphQuery, Mutation, SubscriptionRoot>, max_complexity: usize) -> Self {
        let builder = builder.enable_federation().enable_subscription_in_federation();
        Self::Subgraph(if max_complexity > 0 { builder.extension(Weigh { max_complexity }) } else { builder }.finish())
    }

    /// Executes a query or mutation.
    pub async fn execute(&self, request: Request) -> Response {
        match self {
            Self::Plain(schema) => schema.execute(request).await,
            Self::Subgraph(schema) => {
                let mut response = schema.execute(request).await;
                share_page_info(&mut response.data);
                response
            }
        }
    }

    /// Executes a subscription.
    pub fn execute_stream(&self, request: Request) -> Pin<Box<dyn Stream<Item = Response> + Send>> {
        match self {
            Self::Plain(schema) => Box::pin(schema.execute_stream(request)),
            Self::Subgraph(schema) => Box::pin(schema.execute_stream(request)),
        }
    }
}

/// The schema text of a subgraph in which the cursors of `PageInfo` are strings, as the Relay specification has them. Other
/// subgraphs have that type, too, and a router shares a type only if its fields are the same everywhere. Here the cursors are of
/// the type that `after` takes, which is written as a string, so responses fit either text.
pub fn with_shared_page_info(sdl: &str) -> String {
    let Some((before, page_info)) = sdl.split_once("type PageInfo @shareable {") else { return sdl.to_owned() };
    let (fields, after) = page_info.split_once('}').unwrap_or((page_info, ""));
    format!("{before}type PageInfo @shareable {{{}}}{after}", fields.replace("Cursor: Cursor\n", "Cursor: String\n"))
}

/// Rewrites the schema text in the response to `_service { sdl }`, which async-graphql makes itself.
fn share_page_info(data: &mut ConstValue) {
    let ConstValue::Object(fields) = data else { return };
    for value in fields.values_mut() {
        let ConstValue::Object(service) = value else { continue };
        for text in service.values_mut() {
            if let ConstValue::String(text) = text
                && text.contains("\ntype PageInfo @shareable {\n")
            {
                *text = with_shared_page_info(text);
            }
        }
    }
}

/// Multiplies the weight of the fields of entities with the number of entities that are asked for, because async-graphql counts
/// their list as one field.
struct Weigh {
    max_complexity: usize,
}

impl ExtensionFactory for Weigh {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(Weighing { max_complexity: self.max_complexity, entities: Mutex::new(0) })
    }
}

/// The weight of one request.
struct Weighing {
    max_complexity: usize,
    entities: Mutex<usize>,
}

#[async_trait]
impl Extension for Weighing {
    async fn parse_query(
        &self,
        ctx: &ExtensionContext<'_>,
        query: &str,
        variables: &Variables,
        next: NextParseQuery<'_>,
    ) -> ServerResult<ExecutableDocument> {
        let document = next.run(ctx, query, variables).await?;
        *self.entities.lock() = entities(&document, variables);
        Ok(document)
    }

    async fn validation(
        &self,
        ctx: &ExtensionContext<'_>,
        next: NextValidation<'_>,
    ) -> Result<ValidationResult, Vec<ServerError>> {
        let result = next.run(ctx).await?;
        if result.complexity.saturating_mul((*self.entities.lock()).max(1)) > self.max_complexity {
            return Err(vec![ServerError::new("Query is too complex.", None)]);
        }
        Ok(result)
    }
}

/// Entities that a document asks for.
fn entities(document: &ExecutableDocument, variables: &Variables) -> usize {
    fn within(set: &SelectionSet, variables: &Variables) -> usize {
        let of = |selection: &Selection| match selection {
            Selection::Field(field) if field.node.name.node == "_entities" => {
                match field.node.get_argument("representations").map(|argument| &argument.node) {
                    Some(Value::List(list)) => list.len(),
                    Some(Value::Variable(name)) => match variables.get(name) {
                        Some(ConstValue::List(list)) => list.len(),
                        _ => 1,
                    },
                    _ => 1,
                }
            }
            Selection::InlineFragment(fragment) => within(&fragment.node.selection_set.node, variables),
            // Only a root has the field, and fragments are checked by themselves.
            Selection::Field(_) | Selection::FragmentSpread(_) => 0,
        };
        set.items.iter().map(|selection| of(&selection.node)).sum()
    }
    let operations: Vec<_> = match &document.operations {
        DocumentOperations::Single(operation) => vec![operation],
        DocumentOperations::Multiple(operations) => operations.values().collect(),
    };
    let roots = operations.into_iter().map(|operation| &operation.node.selection_set.node);
    let fragments = document.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    roots.chain(fragments).map(|set| within(set, variables)).sum()
}
