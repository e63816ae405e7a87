//! The page at `/`: the console for browsers, or what this is and where its interfaces are, if the console was not built; for
//! others the same as text.

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::{CONSOLE, OWN_POLICY, add_document_headers};
use crate::headers::acceptance;

/// What this is.
const TITLE: &str = concat!("pub-sub ", env!("CARGO_PKG_VERSION"));
const ABOUT: &str = "A publish/subscribe service that never loses a message silently.";

/// How to get the console, for whoever sees the index in its place.
const BUILD: &str = "A server that is built after <code>make web</code> shows the console at this address; until then, \
                     <a href=\"/graphql\">a small page</a> publishes and subscribes.";

/// The addresses, and what is there.
const INTERFACES: [(&str, &str); 8] = [
    ("/graphql", "GraphQL over HTTP, WebSocket and server-sent events; in a browser, a page to try it"),
    ("/ws", "raw WebSocket with one JSON object per frame"),
    ("/publish", "POST {\"topic\": \"news\", \"data\": 1} publishes a message"),
    ("/topics", "lists topics; /topics/NAME/messages is a topic's history or, as text/event-stream, a stream"),
    ("/health", "whether the server is up; /health/ready says whether it can serve"),
    ("/stats", "counts of topics, messages and subscribers"),
    ("/metrics", "metrics for Prometheus"),
    ("/openapi.json", "the description of the REST routes"),
];

/// `GET /`.
pub(super) async fn index(headers: HeaderMap) -> Response {
    // Whoever accepts anything, as curl does, reads text in a terminal.
    let (html, text) = (acceptance(&headers, ("text", "html")), acceptance(&headers, ("text", "plain")));
    let is_browser = html.weight > 0 && html.specificity == 2 && html.weight >= text.weight;
    if let Some(console) = CONSOLE.as_ref().filter(|_| is_browser) {
        return console.response(&headers, OWN_POLICY);
    }
    let (kind, body) =
        if is_browser { ("text/html; charset=utf-8", html_page()) } else { ("text/plain; charset=utf-8", text_page()) };
    let mut response = body.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::VARY, "accept"),
        // The page loads nothing and runs nothing.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        // Nothing in it is anybody's own.
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    add_document_headers(response.headers_mut());
    response
}

fn text_page() -> String {
    let lines: Vec<_> = INTERFACES.iter().map(|(path, what)| format!("  {path:14} {what}\n")).collect();
    format!("{TITLE}\n{ABOUT}\n\n{}", lines.concat())
}

fn html_page() -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let items: Vec<_> = INTERFACES
        .iter()
        .map(|(path, what)| format!("<li><a href=\"{path}\">{path}</a>: {}</li>\n", escape(what)))
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{TITLE}</title>\n</head>\n<body>\n<h1>{TITLE}</h1>\n<p>{ABOUT}</p>\n<p>{BUILD}</p>\n<ul>\n{}</ul>\n</body>\n</html>\n",
        items.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_says_how_to_get_the_console() {
        let page = html_page();
        assert!(page.contains("make web") && page.contains("<a href=\"/graphql\">a small page</a>"), "{page}");
    }
}
