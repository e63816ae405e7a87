//! The OpenAPI document of the REST routes, generated from the handlers' own types.

use utoipa::OpenApi;

use super::{consumers, messages, publish, status, topics};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "pub-sub",
        description = "Topics, publish, subscribe, with bounded history and no silent loss. The REST side of a GraphQL-fronted service."
    ),
    paths(
        topics::list_topics,
        topics::create_topic,
        topics::get_topic,
        topics::update_topic,
        topics::delete_topic,
        messages::messages,
        consumers::list_consumers,
        consumers::delete_consumer,
        consumers::acknowledge,
        publish::publish,
        status::stats,
        status::health,
        status::live,
        status::ready,
    )
)]
struct Document;

/// The document as JSON text.
#[must_use]
pub fn text() -> String {
    // A document of static parts can be written; nothing in it comes from outside.
    Document::openapi().to_pretty_json().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every route of the door is described, and nothing else.
    #[test]
    fn the_document_names_the_routes() {
        let source = include_str!("../rest.rs");
        let mut routes: Vec<&str> =
            source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        routes.retain(|route| *route != "/openapi.json");
        routes.sort_unstable();
        let document = Document::openapi();
        let mut described: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(described, routes);
    }
}
