//! The OpenAPI document of the REST routes, generated from the handlers' own types.

use utoipa::{
    Modify, OpenApi,
    openapi::{
        Components, Content, OpenApi as Description, Ref, ResponseBuilder,
        path::Operation,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::{consumers, messages, publish, state, status, subscriptions, topics};
use crate::access::cookie;

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
        state::state,
        publish::remove_key,
        consumers::list_consumers,
        consumers::delete_consumer,
        consumers::acknowledge,
        consumers::seek,
        subscriptions::list_subscriptions,
        subscriptions::disconnect,
        publish::publish,
        status::stats,
        status::health,
        status::live,
        status::ready,
        cookie::sign_in,
        cookie::sign_out,
    ),
    modifiers(&Credentials)
)]
struct Document;

/// The names of the ways to send a credential, any of which will do.
const SCHEMES: [&str; 3] = ["bearer", "key", "cookie"];

/// The routes that need no credentials.
const OPEN: [&str; 3] = ["/health", "/health/live", "/health/ready"];

/// How a request is refused that needs credentials.
const REFUSED: [(&str, &str); 2] = [
    ("401", "`UNAUTHENTICATED`: without valid credentials, where some are needed"),
    ("403", "`FORBIDDEN`: the principal may not do this, or a web page of this origin may not"),
];

/// The errors of every route that uses the broker.
const ANYWHERE: [(&str, &str); 2] = [
    ("500", "`INTERNAL`: a fault of the server; its log has the cause, with the request's id"),
    (
        "503",
        "`UNAVAILABLE`: the server is stopping, or its engine is out of reach; `Retry-After` says when to try again",
    ),
];

/// The errors of every route that reads a body.
const OF_BODIES: [(&str, &str); 3] = [
    ("408", "`BAD_REQUEST`: the body took too long to arrive"),
    ("413", "`PAYLOAD_TOO_LARGE`: the body is larger than the server takes"),
    ("415", "`BAD_REQUEST`: the body is not JSON in UTF-8, or is compressed"),
];

/// Adds to the document what holds for all routes: how credentials are sent, and which errors any of them may have.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut Description) {
        let components = document.components.get_or_insert_with(Components::default);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A key or a JSON Web Token."));
        let header = ApiKeyValue::with_description("X-API-Key", "A key or a JSON Web Token.");
        let cookie = ApiKeyValue::with_description(
            cookie::NAME,
            "Set by `POST /auth/cookie`. It counts for requests of the server's own pages alone.",
        );
        let schemes = [
            SecurityScheme::Http(bearer.build()),
            SecurityScheme::ApiKey(ApiKey::Header(header)),
            SecurityScheme::ApiKey(ApiKey::Cookie(cookie)),
        ];
        for (name, scheme) in SCHEMES.into_iter().zip(schemes) {
            components.add_security_scheme(name, scheme);
        }
        // A server without access rules asks for none, and anonymous clients may have rights.
        let optional = std::iter::once(SecurityRequirement::default());
        let one_of = SCHEMES.into_iter().map(|name| SecurityRequirement::new::<_, [&str; 0], &str>(name, []));
        document.security = Some(one_of.chain(optional).collect());
        for (path, item) in &mut document.paths.paths {
            let methods = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
            for operation in methods.into_iter().flatten() {
                if OPEN.contains(&path.as_str()) {
                    operation.security = Some(Vec::new());
                } else if path != cookie::PATH {
                    add_errors(operation, &REFUSED);
                    add_errors(operation, &ANYWHERE);
                }
                if operation.request_body.is_some() {
                    add_errors(operation, &OF_BODIES);
                }
            }
        }
    }
}

/// Adds errors that the operation does not describe itself.
fn add_errors(operation: &mut Operation, errors: &[(&str, &str)]) {
    for (status, description) in errors {
        let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
        let response = ResponseBuilder::new().description(*description).content("application/json", body).build();
        operation.responses.responses.entry((*status).to_owned()).or_insert_with(|| response.into());
    }
}

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
        routes.push(cookie::PATH);
        routes.sort_unstable();
        let document = Document::openapi();
        let mut described: Vec<&str> = document.paths.paths.keys().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(described, routes);
    }

    /// Whoever generates a client learns of every status that may come.
    #[test]
    fn the_document_names_the_errors_of_bodies() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let mut bodies = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let has_body = operation["requestBody"].is_object();
                bodies += usize::from(has_body);
                for status in ["408", "413", "415"] {
                    assert_eq!(operation["responses"][status].is_object(), has_body, "{status} {method} {path}");
                }
            }
        }
        assert!(bodies >= 5, "{bodies}");
    }

    /// Every operation says how credentials are sent and refused, but for those that need none.
    #[test]
    fn the_document_says_how_to_sign_in() {
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let schemes = &document["components"]["securitySchemes"];
        assert_eq!(schemes["bearer"]["scheme"], "bearer");
        assert_eq!((&schemes["key"]["in"], &schemes["key"]["name"]), (&"header".into(), &"X-API-Key".into()));
        assert_eq!((&schemes["cookie"]["in"], &schemes["cookie"]["name"]), (&"cookie".into(), &"pubsub_auth".into()));
        assert_eq!(document["security"].as_array().map(Vec::len), Some(SCHEMES.len() + 1));
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let is_open = OPEN.contains(&path.as_str());
                assert_eq!(operation["security"].as_array().is_some_and(Vec::is_empty), is_open, "{method} {path}");
                let refused = operation["responses"]["403"]["content"]["application/json"]["schema"]["$ref"].as_str();
                assert_eq!(refused.is_some(), !is_open, "{method} {path}");
                let refused = operation["responses"]["401"]["content"]["application/json"]["schema"]["$ref"].as_str();
                // Signing out needs no credentials.
                let signs_out = path == cookie::PATH && method == "delete";
                assert_eq!(refused.is_some(), !is_open && !signs_out, "{method} {path}");
            }
        }
    }
}
