//! Names in requests that the request does not have: which of them are refused, and which name was probably meant. A condition
//! with a misspelt name must not be dropped in silence, because what happens then is not what the client asked for.

use crate::broker::Error;

/// Characters of a client's name that an error repeats.
const SHOWN: usize = 64;

/// Names by which other doors and other services call what a request has: the name in one word of small letters, and ours.
const OTHER_NAMES: [(&str, &str); 6] = [
    ("aftercursor", "after"),
    ("afterid", "after"),
    ("cursor", "after"),
    ("evslasteventid", "after"),
    ("lasteventid", "after"),
    ("messageid", "id"),
];

/// More of them, for suggestions alone: they are also common names of things that a client may keep in its own frames.
const LOOSE_NAMES: [(&str, &str); 8] = [
    ("count", "limit"),
    ("first", "limit"),
    ("size", "limit"),
    ("name", "topic"),
    ("topic", "name"),
    ("payload", "data"),
    ("rate", "max_publish_rate"),
    ("value", "data"),
];

/// Refuses a name that the request does not have. `what` says where it stands, `kind` what it is.
///
/// # Errors
/// [`Error::BadRequest`] that suggests the name that was probably meant.
pub fn refuse_unknown(what: &'static str, kind: &str, name: &str, known: &[&'static str]) -> Result<(), Error> {
    if known.contains(&name) {
        return Ok(());
    }
    let meant = same_name(name, known)
        .or_else(|| other_name(&LOOSE_NAMES, &one_word(name), known))
        .or_else(|| similar_name(name, known));
    Err(unknown(what, kind, name, meant))
}

/// Refuses a name that is a known one in another spelling or another door's name for it, or one typing error away from it.
/// Every other name is ignored, as `/ws` promises. Names of `ignored` are not looked at.
///
/// # Errors
/// As [`refuse_unknown`].
pub fn refuse_misspelt(
    what: &'static str,
    name: &str,
    known: &[&'static str],
    ignored: &[&'static str],
) -> Result<(), Error> {
    if known.contains(&name) || ignored.contains(&name) {
        return Ok(());
    }
    // One letter more or less makes another word of a short one: `date` is not `data`.
    let typing_error = || similar_name(name, known).filter(|meant| meant.len() >= 5 && distance(name, meant) <= 2);
    match same_name(name, known).or_else(typing_error) {
        Some(meant) => Err(unknown(what, "field", name, Some(meant))),
        None => Ok(()),
    }
}

fn unknown(what: &'static str, kind: &str, name: &str, meant: Option<&'static str>) -> Error {
    let mut shown: String = name.chars().take(SHOWN).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    let suggestion = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    Error::bad_request(what, format!("has an unknown {kind} `{}`{suggestion}", shown.escape_debug()))
}

/// The known name that differs from `name` in its spelling alone, like `expectedOffset`, or that means the same.
fn same_name(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let word = one_word(name);
    let spelled = known.iter().copied().find(|known| one_word(known) == word);
    spelled.or_else(|| other_name(&OTHER_NAMES, &word, known))
}

fn other_name(names: &[(&str, &'static str)], word: &str, known: &[&'static str]) -> Option<&'static str> {
    names.iter().find(|(other, ours)| *other == word && known.contains(ours)).map(|(_, ours)| *ours)
}

/// The known name that is nearest to `name`, if a third of its letters at most differ.
fn similar_name(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let nearest = known.iter().copied().min_by_key(|known| distance(name, known))?;
    (distance(name, nearest) <= nearest.len().div_ceil(3).min(3)).then_some(nearest)
}

/// How many letters have to be added, taken away, replaced or swapped with the next one.
fn distance(name: &str, known: &str) -> usize {
    // A longer name cannot be near to a known one, and need not be compared.
    if name.len() > 2 * SHOWN { usize::MAX } else { strsim::osa_distance(&one_word(name), &one_word(known)) }
}

fn one_word(name: &str) -> String {
    name.chars().take(2 * SHOWN).filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 8] = ["topic", "data", "id", "key", "expected_offset", "last", "last_n", "after"];

    fn error(name: &str) -> String {
        refuse_unknown("body", "field", name, &KNOWN).unwrap_err().to_string()
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest_one() {
        for known in KNOWN {
            assert_eq!(refuse_unknown("body", "field", known, &KNOWN), Ok(()));
        }
        for (name, meant) in [
            ("expectedOffset", "expected_offset"),
            ("Expected-Offset", "expected_offset"),
            ("expected_ofset", "expected_offset"),
            ("lastN", "last_n"),
            ("lsat", "last"),
            ("after_id", "after"),
            ("Last-Event-ID", "after"),
            ("messageId", "id"),
            ("Topic", "topic"),
            ("payload", "data"),
            ("date", "data"),
        ] {
            assert_eq!(error(name), format!("body: has an unknown field `{name}`; did you mean `{meant}`?"));
        }
        assert_eq!(error("colour"), "body: has an unknown field `colour`");
        assert_eq!(error(""), "body: has an unknown field ``");
        assert!(error(&"x".repeat(100_000)).len() < 200);
        assert_eq!(error("a\n`ü"), "body: has an unknown field `a\\n`ü`");
    }

    #[test]
    fn other_names_are_ignored_where_unknown_ones_are() {
        let check = |name| refuse_misspelt("frame", name, &KNOWN, &["client_id", "cursors"]);
        for ignored in ["client_id", "colour", "date", "name", "payload", "cursors", "ts", "x", ""] {
            assert_eq!(check(ignored), Ok(()), "{ignored}");
        }
        for refused in
            ["expectedOffset", "expected_ofset", "lastN", "LAST_N", "after_id", "cursor", "messageId", "aftre"]
        {
            assert!(check(refused).is_err(), "{refused}");
        }
    }
}
