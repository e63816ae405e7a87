//! In which of the forms that a client accepts a response is written.

use axum::http::{HeaderMap, header};

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

/// One item of `Accept`.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: u16,
}

impl<'a> Range<'a> {
    fn parse(item: &'a str) -> Option<Self> {
        let mut parts = item.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut quality = 1_000;
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if name.trim().eq_ignore_ascii_case("q") {
                quality = thousandths(value.trim())?;
            }
            if name.trim().eq_ignore_ascii_case("charset")
                && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            {
                // Everything is UTF-8 here.
                return None;
            }
        }
        Some(Self { kind, subtype, quality })
    }

    /// How exactly the range names the type: 2 the type, 1 its kind, 0 anything.
    fn specificity(&self, (kind, subtype): (&str, &str)) -> Option<u8> {
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (wanted, "*") if wanted.eq_ignore_ascii_case(kind) => Some(1),
            (wanted, part) if wanted.eq_ignore_ascii_case(kind) && part.eq_ignore_ascii_case(subtype) => Some(2),
            _ => None,
        }
    }
}

fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let quality = whole.parse::<u16>().ok()?.checked_mul(1_000)? + format!("{fraction:0<3}").parse::<u16>().ok()?;
    (quality <= 1_000).then_some(quality)
}

/// The best of `offers` for the client, the earlier the better among equals; `None` when it accepts none. Without `Accept`
/// it is the first.
pub fn best(headers: &HeaderMap, offers: &[Form]) -> Option<Form> {
    let mut values = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    if values.all(|value| value.trim().is_empty()) {
        return offers.first().copied();
    }
    choose(headers, offers, 0)
}

/// The best of those `offers` that the client names: `*/*` and a missing `Accept` express no wish.
pub fn named(headers: &HeaderMap, offers: &[Form]) -> Option<Form> {
    choose(headers, offers, 2)
}

/// The best of `offers`, among those that `Accept` names at least so exactly.
fn choose(headers: &HeaderMap, offers: &[Form], least_specificity: u8) -> Option<Form> {
    let values: Vec<&str> =
        headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok()).collect();
    let ranges: Vec<Range<'_>> =
        values.iter().flat_map(|value| value.split(',')).filter_map(|item| Range::parse(item.trim())).collect();
    let quality = |offer: Form| {
        // The most specific range decides.
        let matching = ranges.iter().filter_map(|range| Some((range.specificity(offer.media_type())?, range.quality)));
        let decisive = matching.max_by_key(|(specificity, _)| *specificity);
        decisive.filter(|(specificity, _)| *specificity >= least_specificity).map_or(0, |(_, quality)| quality)
    };
    let mut found: Option<(Form, u16)> = None;
    for offer in offers {
        let quality = quality(*offer);
        if quality > found.map_or(0, |(_, best)| best) {
            found = Some((*offer, quality));
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
