//! Who may import whom (`src/lib.rs` shows the picture), read from the `crate::` paths of the sources.

mod circles;

use std::{collections::BTreeSet, fs, path::Path};

const DOORS: [&str; 4] = ["graphql", "rest", "ws", "metrics"];
const TRANSPORTS: [&str; 7] = ["axum", "hyper", "hyper_util", "http", "async_graphql", "tungstenite", "tower"];

/// Every source with its part (the first name of its path) and its text without comments.
fn sources() -> Vec<(String, String, String)> {
    fn walk(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let read = |path: std::path::PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let part = name.split(['/', '.']).next().unwrap().to_owned();
        let text = fs::read_to_string(path).unwrap();
        let code: Vec<_> = text.lines().map(|line| line.split("//").next().unwrap()).collect();
        (name, part, code.join("\n"))
    };
    paths.into_iter().map(read).collect()
}

/// The parts of this crate that the code names: what follows `crate::`, one by one where it is a list.
fn parts_named(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with("$")) {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            named.insert(word(rest));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    named.insert(word(item.trim()));
                    item.clear();
                    continue;
                }
                _ => {}
            }
            item.push(c);
        }
        named.insert(word(item.trim()));
    }
    named.remove("");
    named
}

#[test]
fn imports_point_inwards() {
    let sources = sources();
    assert!(sources.len() > 20, "the sources were not found");
    for (name, part, code) in &sources {
        let named = parts_named(code);
        let may_not = |forbidden: &[&str]| {
            for other in forbidden.iter().filter(|other| **other != part) {
                assert!(!named.contains(*other), "{name} names crate::{other}");
            }
        };
        match part.as_str() {
            "channel" | "engine" | "broker" => {
                // Each knows itself and those before it.
                let layers = ["channel", "engine", "broker"];
                let beneath = layers.iter().position(|layer| layer == part).map_or(0, |place| place + 1);
                let outside: Vec<_> =
                    named.iter().filter(|other| !layers[..beneath].contains(&other.as_str())).collect();
                assert!(outside.is_empty(), "{name} names {outside:?}");
                for transport in TRANSPORTS {
                    assert!(!code.contains(&format!("{transport}::")), "{name} names {transport}");
                }
            }
            "main" | "lib" => {}
            // The commands that talk to a server know its public protocols alone: no part of it is theirs.
            "cli" | "client" => {
                let known = &["client", "cli"][..if part == "cli" { 2 } else { 1 }];
                let outside: Vec<_> = named.iter().filter(|other| !known.contains(&other.as_str())).collect();
                assert!(outside.is_empty(), "{name} names {outside:?}");
                assert!(!code.contains("pub_sub::"), "{name} names a part of the server");
            }
            "server" => may_not(&["transfer"]),
            "transfer" => {
                let known = ["transfer", "config", "engine", "channel"];
                let outside: Vec<_> = named.iter().filter(|other| !known.contains(&other.as_str())).collect();
                assert!(outside.is_empty(), "{name} names {outside:?}");
            }
            "config" => may_not(&["problem", "transfer"]),
            "problem" => {
                may_not(&[&DOORS[..], &["server", "config", "socket", "channel", "engine", "transfer"]].concat())
            }
            // The doors, and what they share.
            _ => may_not(&[&DOORS[..], &["server", "config", "channel", "engine", "transfer"]].concat()),
        }
    }
}

/// What anybody may use, whoever they are: it says nothing about topics, or its rules stand in what it calls.
const WITHOUT_RULE: [&str; 15] = [
    "in_memory",
    "principal",
    "acting_for",
    "info",
    "watch",
    "connect",
    "settings",
    "status",
    "check_ready",
    "traced",
    "untraced",
    "is_leaving",
    "is_draining",
    // They pass the principal on.
    "subscribe",
    "subscribe_events",
];

/// Every operation that the doors have begins with its access rule.
#[test]
fn every_operation_has_a_rule() {
    let (_, _, code) = sources().into_iter().find(|(name, ..)| name == "broker/client.rs").unwrap();
    let operations = code.split("\n    pub ").filter(|part| part.split('(').next().unwrap().contains("fn "));
    let operations: Vec<&str> = operations.skip(1).collect();
    assert!(operations.len() > 20, "the operations were not found");
    let mut found = BTreeSet::new();
    for operation in operations {
        let signature = operation.split('(').next().unwrap();
        let name = signature.rsplit(' ').next().unwrap();
        let rules = ["self.principal.check", "self.principal.shown_list", "self.check_publish", "self.find_consumer"];
        let has_rule = rules.iter().any(|rule| operation.contains(rule));
        assert!(has_rule != WITHOUT_RULE.contains(&name), "the operation {name} has no rule, or needs none");
        found.insert(name);
    }
    assert!(WITHOUT_RULE.iter().all(|name| found.contains(name)), "{found:?}");
}

/// Messages are rendered once for all who ask for the same, so what is rendered must not depend on who asks. What does has a
/// client of the broker, and is a topic's.
#[test]
fn renderings_are_the_same_for_everybody() {
    for file in ["graphql/types/message.rs", "graphql/compiled/parts.rs"] {
        let (_, _, code) = sources().into_iter().find(|(name, ..)| name == file).unwrap();
        for word in ["Client", "Principal", "Context", "ctx"] {
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            assert!(words.all(|found| found != word), "{file}, where the fields of a message are, names {word}");
        }
    }
}

/// The locks of a topic are the channel's own: others use its verbs, which take them in their order.
#[test]
fn only_the_channel_takes_a_topics_locks() {
    for (name, part, code) in sources() {
        let code: String = code.split_whitespace().collect();
        for lock in ["ring.lock(", "waiters.lock("] {
            // Not `rendering.lock(`.
            let mut taken = code.match_indices(lock).filter(|(at, _)| !code[..*at].ends_with(char::is_alphanumeric));
            assert!(part == "channel" || taken.next().is_none(), "{name} has {lock}");
        }
    }
}

/// Words that the project has given up for those of the field, and where they must not come back.
#[test]
fn old_words_stay_away() {
    const WORDS: [&str; 11] = [
        "Bell",
        "Draft",
        "Turn",
        "Figure",
        "Spec",
        "TopicSettings",
        "Place",
        "anew",
        "farewell",
        "converse",
        "find_or_make",
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (name, _, _) in sources() {
        let text = fs::read_to_string(root.join(&name)).unwrap();
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        for (number, word) in words.enumerate() {
            assert!(!WORDS.contains(&word), "{name} has {word:?} again, as its word {number}");
        }
    }
}

/// Which status an error has stands in one table.
#[test]
fn only_the_table_knows_statuses_of_errors() {
    for (name, part, code) in sources() {
        let statuses = [
            "BAD_REQUEST",
            "NOT_FOUND",
            "CONFLICT",
            "TOO_MANY_REQUESTS",
            "SERVICE_UNAVAILABLE",
            "INTERNAL_SERVER_ERROR",
        ];
        for status in statuses.map(|status| format!("StatusCode::{status}")) {
            let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            assert!(part == "problem" || !code.contains(&status), "{name} names {status}");
        }
    }
}

/// Doors, and what they share, have a client of the broker that acts for a principal, and never the broker itself: access
/// rules have one place.
#[test]
fn doors_have_a_client_of_the_broker() {
    let inside = ["main", "lib", "server", "front", "config", "transfer", "broker", "engine", "channel"];
    let doors = sources().into_iter().filter(|(_, part, _)| !inside.contains(&part.as_str()));
    let mut clients = 0;
    for (name, _, code) in doors.filter(|(name, ..)| !name.contains("tests")) {
        let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(words.clone().all(|word| word != "Broker"), "{name} names the broker");
        clients += usize::from(words.any(|word| word == "Client"));
    }
    assert!(clients >= 3, "the doors were not found");
}

#[test]
fn files_stay_short() {
    for (name, _, code) in sources() {
        let lines = code.lines().count();
        assert!(lines <= 500 || name.contains("tests"), "{name} has {lines} lines");
    }
}
