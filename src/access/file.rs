//! What `ACCESS_FILE` says: which keys there are, and what each of them may do.

use std::collections::{HashMap, hash_map::Entry};

use toml_edit::{ArrayOfTables, ImDocument, Item, TableLike, Value};

use super::{
    KeyHash, Rights, check_name,
    file_fields::{Fields, line_at},
};
use crate::broker::Timestamp;

/// The fields of `[[key]]`.
const KEY_FIELDS: [&str; 10] = [
    "name",
    "hash",
    "subject",
    "publish",
    "subscribe",
    "manage",
    "stats",
    "expires",
    "max_publish_rate",
    "max_connections",
];

/// The fields of `anonymous`.
const RIGHTS_FIELDS: [&str; 4] = ["publish", "subscribe", "manage", "stats"];

/// The content of an access file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRules {
    /// What a client without credentials may do; nothing if this is not there.
    pub anonymous: Option<Rights>,
    /// The keys, in the order of the file. Names, hashes and subjects do not repeat.
    pub keys: Vec<KeyRule>,
}

/// One key: who it is and what it may do. It has a hash or a subject, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRule {
    /// The name of the principal.
    pub name: String,
    /// The hash of the key.
    pub hash: Option<KeyHash>,
    /// The subject of the client certificate that is the same principal.
    pub subject: Option<String>,
    /// What it may do.
    pub rights: Rights,
    /// When it stops being valid.
    pub expires: Option<Timestamp>,
    /// Messages per second that it may publish to all topics together. It is 1 or more.
    pub max_publish_rate: Option<u32>,
    /// Connections that it may have open. It is 1 or more.
    pub max_connections: Option<usize>,
}

impl AccessRules {
    /// Reads the text of an access file.
    ///
    /// # Errors
    /// What is wrong, in one line that names the line, the key and the field. It contains no key and no hash.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document = ImDocument::parse(text).map_err(|error| {
            let line = line_at(text, error.span().map_or(0, |span| span.start));
            // The parser's `Display` would also show the line, which may contain a key.
            format!("line {line}: {}", error.message().split_whitespace().collect::<Vec<_>>().join(" "))
        })?;
        let top = Fields::new(text, document.as_table(), String::new());
        top.only(&["anonymous", "key"])?;
        let anonymous = match top.get("anonymous") {
            Some(item) => {
                let table = item.as_table_like().ok_or_else(|| top.wrong("anonymous", "must be a table"))?;
                let fields = Fields::new(text, table, "anonymous: ".to_owned());
                fields.only(&RIGHTS_FIELDS)?;
                Some(rights(&fields)?)
            }
            None => None,
        };
        let mut rules = Self { anonymous, keys: Vec::new() };
        let mut known = Known::default();
        for (table, line) in tables(&top, text)? {
            let key = key(text, table, line)?;
            known.add(&key, line)?;
            rules.keys.push(key);
        }
        Ok(rules)
    }
}

/// The entry of an access file for a key that may do nothing yet. The name is checked.
#[must_use]
pub fn entry(name: &str, hash: KeyHash) -> String {
    // Names have no control characters, so that nothing else needs an escape.
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("[[key]]\nname = \"{name}\"\nhash = \"{hash}\"\npublish = []\nsubscribe = []\nmanage = []\nstats = false\n")
}

/// The tables of the keys, with the line that each begins at.
fn tables<'a>(top: &Fields<'a>, text: &str) -> Result<Vec<(&'a dyn TableLike, usize)>, String> {
    let line = |span: Option<std::ops::Range<usize>>| line_at(text, span.map_or(0, |span| span.start));
    let of_tables = |tables: &'a ArrayOfTables| {
        tables.iter().map(|table| (table as &dyn TableLike, line(table.span()))).collect::<Vec<_>>()
    };
    match top.get("key") {
        None => Ok(Vec::new()),
        Some(Item::ArrayOfTables(tables)) => Ok(of_tables(tables)),
        // The same, written as `key = [{ … }]`.
        Some(Item::Value(Value::Array(values))) => {
            let tables = values.iter().map(|value| {
                let table = value.as_inline_table().ok_or_else(|| top.wrong("key", "must be a list of tables"))?;
                Ok((table as &dyn TableLike, line(value.span())))
            });
            tables.collect()
        }
        Some(_) => Err(top.wrong("key", "must be a list of tables; write [[key]] before each of them")),
    }
}

fn key(text: &str, table: &dyn TableLike, line: usize) -> Result<KeyRule, String> {
    let unnamed = Fields::new(text, table, "key: ".to_owned());
    let name = unnamed.text("name")?.ok_or_else(|| format!("line {line}: key: must have a name"))?;
    check_name(name).map_err(|wrong| unnamed.wrong("name", wrong))?;
    let fields = Fields::new(text, table, format!("key {name:?}: "));
    fields.only(&KEY_FIELDS)?;
    let hash = fields.text("hash")?.map(str::parse).transpose().map_err(|wrong| fields.wrong("hash", wrong))?;
    let subject = fields.text("subject")?.map(str::to_owned);
    if subject.as_ref().is_some_and(|subject| subject.is_empty() || subject.chars().any(char::is_control)) {
        return Err(fields.wrong("subject", "must not be empty, and must not contain control characters"));
    }
    if hash.is_none() && subject.is_none() {
        return Err(format!("line {line}: key {name:?}: must have a hash, or the subject of a client certificate"));
    }
    Ok(KeyRule {
        name: name.to_owned(),
        hash,
        subject,
        rights: rights(&fields)?,
        expires: fields.time("expires")?,
        max_publish_rate: fields.number("max_publish_rate")?,
        max_connections: fields.number("max_connections")?,
    })
}

fn rights(fields: &Fields) -> Result<Rights, String> {
    Ok(Rights {
        publish: fields.patterns("publish")?,
        subscribe: fields.patterns("subscribe")?,
        manage: fields.patterns("manage")?,
        stats: fields.flag("stats")?,
    })
}

/// What may not repeat, with the lines of the keys.
#[derive(Default)]
struct Known {
    names: HashMap<String, usize>,
    hashes: HashMap<KeyHash, usize>,
    subjects: HashMap<String, usize>,
}

impl Known {
    fn add(&mut self, key: &KeyRule, line: usize) -> Result<(), String> {
        let repeated = |what, first: usize| {
            Err(format!("line {line}: key {:?}: has the same {what} as the key at line {first}", key.name))
        };
        if let Some(first) = add(&mut self.names, key.name.clone(), line) {
            return repeated("name", first);
        }
        if let Some(first) = key.hash.and_then(|hash| add(&mut self.hashes, hash, line)) {
            return repeated("hash", first);
        }
        if let Some(first) = key.subject.clone().and_then(|subject| add(&mut self.subjects, subject, line)) {
            return repeated("subject", first);
        }
        Ok(())
    }
}

/// Adds what is not there yet. Returns the line of what is there.
fn add<T: std::hash::Hash + Eq>(known: &mut HashMap<T, usize>, value: T, line: usize) -> Option<usize> {
    match known.entry(value) {
        Entry::Occupied(first) => Some(*first.get()),
        Entry::Vacant(free) => {
            free.insert(line);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "sha256:f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7";

    fn error(text: &str) -> String {
        let error = AccessRules::parse(text).unwrap_err();
        assert!(!error.contains('\n'), "{error}");
        error
    }

    fn key(fields: &str) -> String {
        format!("[[key]]\nname = \"a\"\nhash = \"{HASH}\"\n{fields}\n")
    }

    #[test]
    fn the_documented_file_is_read() {
        let text = format!(
            "anonymous = {{ subscribe = [\"public.>\"] }}\n\n[[key]]\nname = \"billing\"\nhash = \"{HASH}\"\n\
             publish = [\"orders.>\", \"invoices.*\"]\nsubscribe = [\"orders.>\"]\nmanage = []\nstats = false\n\
             expires = 2027-01-01T00:00:00Z\nmax_publish_rate = 1000\nmax_connections = 100\n\n\
             [[key]]\nname = \"gateway\"\nsubject = \"CN=gateway\"\nstats = true\nexpires = \"2027-01-01T01:00:00+01:00\"\n"
        );
        let rules = AccessRules::parse(&text).unwrap();
        let patterns = |patterns: &[crate::broker::Pattern]| -> Vec<String> {
            patterns.iter().map(|pattern| pattern.as_str().to_owned()).collect()
        };
        assert_eq!(patterns(&rules.anonymous.as_ref().unwrap().subscribe), ["public.>"]);
        let billing = &rules.keys[0];
        assert_eq!((billing.name.as_str(), billing.hash), ("billing", Some(KeyHash::of("hunter2"))));
        assert_eq!(patterns(&billing.rights.publish), ["orders.>", "invoices.*"]);
        assert_eq!(billing.expires.unwrap().to_string(), "2027-01-01T00:00:00.000Z");
        assert_eq!((billing.max_publish_rate, billing.max_connections), (Some(1000), Some(100)));
        let gateway = &rules.keys[1];
        assert_eq!((gateway.hash, gateway.subject.as_deref()), (None, Some("CN=gateway")));
        assert_eq!(gateway.rights, Rights { stats: true, ..Rights::default() });
        assert_eq!((gateway.expires, gateway.max_connections), (billing.expires, None));
    }

    #[test]
    fn an_empty_file_grants_nothing_to_nobody() {
        assert_eq!(AccessRules::parse("").unwrap(), AccessRules::default());
        let rules = AccessRules::parse("[anonymous]\n").unwrap();
        assert_eq!(rules.anonymous, Some(Rights::default()));
        let inline = format!("key = [{{ name = \"a\", hash = \"{HASH}\" }}]");
        assert_eq!(AccessRules::parse(&inline).unwrap(), AccessRules::parse(&key("")).unwrap());
    }

    #[test]
    fn errors_name_line_key_and_field() {
        for (fields, wanted) in [
            ("publish = [\"a.>.b\"]", "line 4: key \"a\": publish: \"a.>.b\" "),
            ("publish = [\n\"a\",\n\"b*\"]", "line 6: key \"a\": publish: \"b*\" "),
            ("publish = \"a\"", "line 4: key \"a\": publish: must be a list of patterns"),
            ("publish = [1]", "line 4: key \"a\": publish: must be a list of patterns"),
            ("pubish = [\"a\"]", "line 4: key \"a\": pubish: there is no such field; did you mean publish?"),
            ("colour = 1", "line 4: key \"a\": colour: there is no such field (name, hash, subject, "),
            ("stats = \"yes\"", "line 4: key \"a\": stats: must be true or false"),
            ("expires = 2027-01-01", "line 4: key \"a\": expires: must be a time like"),
            ("expires = 2027-01-01T00:00:00", "line 4: key \"a\": expires: must be a time like"),
            ("expires = \"soon\"", "line 4: key \"a\": expires: must be a time like"),
            ("expires = 1", "line 4: key \"a\": expires: must be a time like"),
            ("max_publish_rate = 0", "line 4: key \"a\": max_publish_rate: must be a whole number from 1"),
            ("max_publish_rate = -1", "line 4: key \"a\": max_publish_rate: must be a whole number from 1"),
            ("max_publish_rate = 4294967296", "line 4: key \"a\": max_publish_rate: must be a whole number from 1"),
            ("max_connections = 1.5", "line 4: key \"a\": max_connections: must be a whole number from 1"),
            ("subject = \"\"", "line 4: key \"a\": subject: must not be empty"),
        ] {
            let error = error(&key(fields));
            assert!(error.starts_with(wanted), "{fields}: {error}");
        }
    }

    #[test]
    fn every_key_has_a_name_and_a_credential() {
        for (text, wanted) in [
            (format!("[[key]]\nhash = \"{HASH}\""), "line 1: key: must have a name"),
            (format!("\n[[key]]\nname = \"\"\nhash = \"{HASH}\""), "line 3: key: name: must not be empty"),
            ("[[key]]\nname = \"api_key\"".to_owned(), "line 2: key: name: must not be \"anonymous\""),
            ("[[key]]\nname = \"anonymous\"".to_owned(), "line 2: key: name: must not be \"anonymous\""),
            ("[[key]]\nname = \"a\\nb\"".to_owned(), "line 2: key: name: must not contain control"),
            (format!("[[key]]\nname = \"{}\"", "x".repeat(256)), "line 2: key: name: must be at most 255 bytes"),
            ("[[key]]\nname = 1".to_owned(), "line 2: key: name: must be text"),
            ("\n[[key]]\nname = \"a\"".to_owned(), "line 2: key \"a\": must have a hash, or the subject"),
            ("[key]\nname = \"a\"".to_owned(), "line 1: key: must be a list of tables; write [[key]]"),
            ("key = [1]".to_owned(), "line 1: key: must be a list of tables"),
            ("anonymous = true".to_owned(), "line 1: anonymous: must be a table"),
            ("anonymous = { name = \"a\" }".to_owned(), "line 1: anonymous: name: there is no such field"),
            ("[[keys]]\nname = \"a\"".to_owned(), "line 1: keys: there is no such field; did you mean key?"),
        ] {
            let error = error(&text);
            assert!(error.starts_with(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn entries_can_be_read() {
        for name in ["billing", "a \"quoted\\ n\u{e4}me\u{200b}'#"] {
            let rules = AccessRules::parse(&entry(name, KeyHash::of("hunter2"))).unwrap();
            assert_eq!((rules.keys[0].name.as_str(), rules.keys[0].hash), (name, Some(KeyHash::of("hunter2"))));
            assert_eq!(rules.keys[0].rights, Rights::default());
        }
    }

    #[test]
    fn nothing_repeats() {
        let other = KeyHash::of("other");
        let second = |fields: &str| error(&format!("{}[[key]]\n{fields}", key("subject = \"CN=x\"")));
        assert_eq!(
            second(&format!("name = \"a\"\nhash = \"{other}\"")),
            "line 5: key \"a\": has the same name as the key at line 1"
        );
        assert_eq!(
            second(&format!("name = \"b\"\nhash = \"{HASH}\"")),
            "line 5: key \"b\": has the same hash as the key at line 1"
        );
        assert_eq!(
            second("name = \"b\"\nsubject = \"CN=x\""),
            "line 5: key \"b\": has the same subject as the key at line 1"
        );
    }

    #[test]
    fn errors_do_not_show_keys() {
        let plain = error("[[key]]\nname = \"a\"\nhash = \"psk_0123456789\"");
        assert!(plain.starts_with("line 3: key \"a\": hash: must be") && plain.contains("pub-sub key NAME"), "{plain}");
        for text in [
            "[[key]]\nhash = \"psk_0123456789",
            "[[key]]\nname = \"a\"\nhash = psk_0123456789",
            "[[key]]\nname = \"a\"\nhash = [\"psk_0123456789\"]",
            "[[key]]\nname = \"a\"\nhash = \"x\"\nhash = \"psk_0123456789\"",
        ] {
            let error = error(text);
            assert!(error.starts_with("line ") && !error.contains("0123456789"), "{error}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let deep = format!("anonymous = {}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(error(&deep).starts_with("line 1: "));
    }
}
