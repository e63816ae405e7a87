//! Headers as RFC 9110 writes them, for all who read them: lists over several lines, quoted strings, parameters, weights,
//! and headers that may be given only once.

use axum::http::HeaderMap;

use crate::broker::Error;

/// The items of a header that is a list, over all of its lines. Empty items do not count.
pub fn items<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| std::str::from_utf8(line.as_bytes()).ok());
    lines.flat_map(|line| split(line, ',')).filter(|item| !item.is_empty())
}

/// Whether a list has this token, in whatever case.
pub fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    items(headers, name).any(|item| item.eq_ignore_ascii_case(token))
}

/// The value of a header that may be given only once; an empty one is an absent one.
///
/// # Errors
/// [`Error::BadRequest`] that names the header, where it has several lines or is not UTF-8. To take one of several lines
/// would be to guess which of them the client means.
pub fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Error> {
    let mut lines = headers.get_all(name).into_iter();
    let Some(value) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Error::bad_request(name, "may be given only once"));
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Error::bad_request(name, "must be UTF-8"))?;
    Ok(Some(text.trim()).filter(|text| !text.is_empty()))
}

/// An item with its parameters, such as `text/html; charset=utf-8` or `gzip;q=0.5`. Returns the item and the parameters,
/// each with its name and its value without quotes.
pub fn with_parameters(item: &str) -> (&str, impl Iterator<Item = (&str, &str)>) {
    let mut parts = split(item, ';');
    let first = parts.next().unwrap_or_default();
    let parameters = parts.filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim();
        (name.trim(), value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
    });
    (first, parameters)
}

/// A weight from 0 to 1 with up to three decimals, in thousandths.
pub fn weight(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_decimal = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    if !matches!(whole, "0" | "1") || fraction.len() > 3 || !is_decimal(fraction) {
        return None;
    }
    let units = [100, 10, 1].into_iter().zip(fraction.bytes()).map(|(unit, digit)| unit * u16::from(digit - b'0'));
    let thousandths = if whole == "1" { 1_000 } else { 0 } + units.sum::<u16>();
    (thousandths <= 1_000).then_some(thousandths)
}

/// How a client takes a media type, by its `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Acceptance {
    /// In thousandths; 0 says that the client does not take it.
    pub weight: u16,
    /// How exactly the client names the type: 2 the type, 1 its kind (`text/*`), 0 anything (`*/*`, or no `Accept` at all).
    pub specificity: u8,
}

/// How a client takes this type and subtype. Of the ranges that match, the most specific one decides.
pub fn acceptance(headers: &HeaderMap, media_type: (&str, &str)) -> Acceptance {
    let mut ranges = items(headers, "Accept").peekable();
    if ranges.peek().is_none() {
        return Acceptance { weight: 1_000, specificity: 0 };
    }
    let matching = ranges.filter_map(|range| {
        let (range, parameters) = with_parameters(range);
        let mut weight = Some(1_000);
        for (name, value) in parameters {
            if name.eq_ignore_ascii_case("q") {
                weight = self::weight(value);
            } else if name.eq_ignore_ascii_case("charset") && !value.eq_ignore_ascii_case("utf-8") {
                // Everything is UTF-8 here.
                return None;
            }
        }
        Some(Acceptance { weight: weight?, specificity: specificity(range, media_type)? })
    });
    matching.max_by_key(|found| found.specificity).unwrap_or_default()
}

fn specificity(range: &str, (kind, subtype): (&str, &str)) -> Option<u8> {
    match range.split_once('/')? {
        ("*", "*") => Some(0),
        (wanted, "*") if wanted.eq_ignore_ascii_case(kind) => Some(1),
        (wanted, part) if wanted.eq_ignore_ascii_case(kind) && part.eq_ignore_ascii_case(subtype) => Some(2),
        _ => None,
    }
}

/// The trimmed parts between separators that stand outside of quoted strings.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let parts = text.split(move |c| {
        let splits = c == separator && !is_quoted;
        if c == '"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = is_quoted && !is_escaped && c == '\\';
        splits
    });
    parts.map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn lists_go_over_lines_and_around_quotes() {
        let headers = headers(&[("accept", r#"a/b;t="x, \", y", c/d ,"#), ("accept", ""), ("accept", ",e/f")]);
        assert_eq!(items(&headers, "accept").collect::<Vec<_>>(), [r#"a/b;t="x, \", y""#, "c/d", "e/f"]);
        assert!(has_token(&headers, "Accept", "C/D") && !has_token(&headers, "accept", "c"));
        let (item, parameters) = with_parameters(r#"text/html ; Charset="utf-8";; q = 0.5 ;x"#);
        assert_eq!(item, "text/html");
        assert_eq!(parameters.collect::<Vec<_>>(), [("Charset", "utf-8"), ("q", "0.5"), ("x", "")]);
    }

    #[test]
    fn weights_have_three_decimals() {
        for (text, thousandths) in [("0", 0), ("1", 1_000), ("0.5", 500), ("0.001", 1), ("1.000", 1_000), ("0.", 0)] {
            assert_eq!(weight(text), Some(thousandths), "{text}");
        }
        for bad in ["", "1.001", "2", "-0", "0.0001", "nan", ".5", "1e0", "0,5", "00.5", "+1"] {
            assert_eq!(weight(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_most_specific_range_decides() {
        let json = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("accept", *line)).collect();
            let Acceptance { weight, specificity } = acceptance(&headers(&lines), ("application", "json"));
            (weight, specificity)
        };
        for (lines, wanted) in [
            (&[][..], (1_000, 0)),
            (&[""], (1_000, 0)),
            (&["text/html"], (0, 0)),
            (&["*/*;q=0.1", "Application/*;Q=0.2"], (200, 1)),
            (&["*/*", "application/json;q=0"], (0, 2)),
            (&[r#"text/html;x=",application/json", */*;q=0.3"#], (300, 0)),
            (&["application/json;q=7, */*;q=0.3"], (300, 0)),
            (&["application/json;charset=latin1"], (0, 0)),
        ] {
            assert_eq!(json(lines), wanted, "{lines:?}");
        }
    }

    #[test]
    fn what_may_be_given_once() {
        let one = headers(&[("last-event-id", " a ")]);
        assert_eq!(single(&one, "Last-Event-ID"), Ok(Some("a")));
        assert_eq!(single(&headers(&[("last-event-id", "")]), "Last-Event-ID"), Ok(None));
        assert_eq!(single(&one, "Content-Type"), Ok(None));
        let two = headers(&[("last-event-id", "a"), ("last-event-id", "a")]);
        assert_eq!(single(&two, "Last-Event-ID").unwrap_err().to_string(), "Last-Event-ID: may be given only once");
    }
}
