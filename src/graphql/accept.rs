//! In which of the forms that a client accepts a response is written.

use axum::http::{HeaderMap, header};

use crate::headers::{self, Acceptance};

/// A form of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/graphql-response+json`: statuses say what happened.
    GraphqlResponse,
    /// `application/json`, with the same statuses.
    Json,
    /// `text/event-stream`: a stream of results.
    EventStream,
    /// `multipart/mixed`: a stream of results as Apollo's clients read it.
    Multipart,
    /// `text/html`: a page.
    Html,
}

impl Form {
    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Form::GraphqlResponse => ("application", "graphql-response+json"),
            Form::Json => ("application", "json"),
            Form::EventStream => ("text", "event-stream"),
            Form::Multipart => ("multipart", "mixed"),
            Form::Html => ("text", "html"),
        }
    }

    /// The content type of a response in this form.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            Form::Json => "application/json; charset=utf-8",
            Form::EventStream => "text/event-stream; charset=utf-8",
            Form::Multipart => r#"multipart/mixed; boundary="graphql"; subscriptionSpec="1.0""#,
            Form::Html => "text/html; charset=utf-8",
        }
    }
}

/// Forms of a single result, best first. Clients that say nothing get what they all read.
pub const SINGLE: [Form; 2] = [Form::Json, Form::GraphqlResponse];
/// Forms of a stream.
pub const STREAMS: [Form; 2] = [Form::EventStream, Form::Multipart];
/// All forms of results.
pub const ALL: [Form; 4] = [Form::Json, Form::GraphqlResponse, Form::EventStream, Form::Multipart];

/// The best of `offers` for the client, the earlier the better among equals; `None` when it accepts none. Without `Accept`
/// it is the first.
pub fn best(headers: &HeaderMap, offers: &[Form]) -> Option<Form> {
    choose(headers, offers, 0)
}

/// The best of those `offers` that the client names: `*/*` and a missing `Accept` express no wish.
pub fn named(headers: &HeaderMap, offers: &[Form]) -> Option<Form> {
    choose(headers, offers, 2)
}

/// The best of `offers`, among those that `Accept` names at least so exactly.
fn choose(headers: &HeaderMap, offers: &[Form], least_specificity: u8) -> Option<Form> {
    let mut lines = headers.get_all(header::ACCEPT).iter();
    if lines.next().is_none_or(|line| line == "*/*") && lines.next().is_none() {
        // As most clients have it: anything.
        return if least_specificity == 0 { offers.first().copied() } else { None };
    }
    let mut found: Option<(Form, u16)> = None;
    for offer in offers {
        let Acceptance { weight, specificity } = headers::acceptance(headers, offer.media_type());
        if specificity >= least_specificity && weight > found.map_or(0, |(_, best)| best) {
            found = Some((*offer, weight));
        }
    }
    found.map(|(form, _)| form)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn best_of(accept: &str, offers: &[Form]) -> Option<Form> {
        best(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_str(accept).unwrap())]), offers)
    }

    #[test]
    fn the_client_chooses() {
        let offers = [Form::Json, Form::GraphqlResponse];
        assert_eq!(best(&HeaderMap::new(), &offers), Some(Form::Json));
        for (accept, form) in [
            ("*/*", Some(Form::Json)),
            ("application/*", Some(Form::Json)),
            ("application/graphql-response+json", Some(Form::GraphqlResponse)),
            ("application/json;q=0.5, application/graphql-response+json", Some(Form::GraphqlResponse)),
            ("application/graphql-response+json;q=0.1, */*;q=0.9", Some(Form::Json)),
            ("application/json;q=0, */*", Some(Form::GraphqlResponse)),
            ("Application/JSON; charset=UTF-8", Some(Form::Json)),
            ("application/json; charset=latin1", None),
            ("text/html", None),
            ("nonsense", None),
            ("", Some(Form::Json)),
        ] {
            assert_eq!(best_of(accept, &offers), form, "{accept}");
        }
    }

    #[test]
    fn a_wildcard_is_no_wish() {
        let offers = [Form::Json, Form::GraphqlResponse];
        assert_eq!(named(&HeaderMap::new(), &offers), None);
        for (accept, form) in [
            ("*/*", None),
            ("application/*", None),
            ("text/event-stream", None),
            ("application/json;q=0, */*", None),
            ("application/json;q=0.1, */*", Some(Form::Json)),
            ("*/*, application/graphql-response+json", Some(Form::GraphqlResponse)),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(named(&headers, &offers), form, "{accept}");
        }
    }
}
