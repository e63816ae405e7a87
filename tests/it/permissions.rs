//! The table of docs/security.md that says what needs which permission names every operation of every interface, and says the
//! truth: a real server is asked by a principal of each combination of permissions.

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use pub_sub::access::KeyHash;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{doors::raw_ws::Socket, harness::TestServer};

const RIGHTS: [&str; 4] = ["publish", "subscribe", "manage", "stats"];

/// One line of the table.
#[derive(Debug)]
struct Row {
    rest: Vec<String>,
    graphql: Vec<String>,
    ws: Vec<String>,
    needs: String,
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn table() -> Vec<Row> {
    let page = read("docs/security.md");
    let (_, table) = page.split_once("<!-- permissions -->").unwrap();
    let (table, _) = table.split_once("<!-- /permissions -->").unwrap();
    let rows = table.trim().lines().skip(2).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, rest, graphql, ws, needs] = cells[..] else { panic!("{line}") };
        Row { rest: quoted(rest), graphql: quoted(graphql), ws: quoted(ws), needs: needs.to_owned() }
    });
    // `the same with owner` names a parameter, and repeats operations of other rows.
    rows.filter(|row| row.rest != ["owner"]).collect()
}

impl Row {
    /// Whether somebody with these rights to the topic may do it, as the table has it.
    fn allows(&self, rights: &[&str]) -> bool {
        let has = |name: &String| rights.contains(&name.as_str());
        let sees = rights.iter().any(|right| *right != "stats");
        let named = quoted(&self.needs);
        match self.needs.as_str() {
            needs if needs.contains(" or ") => named.iter().any(has),
            needs => named.iter().all(has) && (!needs.contains("to see the topic") || sees),
        }
    }
}

/// The names of the fields of a type in the schema.
fn fields(schema: &str, of: &str) -> Vec<String> {
    let (_, rest) = schema.split_once(&format!("\ntype {of} {{\n")).unwrap();
    let (body, _) = rest.split_once("\n}\n").unwrap();
    let mut is_text = false;
    let mut fields = Vec::new();
    for line in body.lines() {
        let name: String = line.trim().chars().take_while(|c| c.is_alphanumeric()).collect();
        if line.trim() == "\"\"\"" {
            is_text = !is_text;
        } else if !is_text && line.starts_with('\t') && !line.starts_with("\t\t") && !name.is_empty() {
            fields.push(name);
        }
    }
    fields
}

#[test]
fn the_table_names_every_operation() {
    let rows = table();
    let named = |of: fn(&Row) -> &Vec<String>| rows.iter().flat_map(of).cloned().collect::<BTreeSet<_>>();

    let source = read("src/rest.rs");
    let mut routes: BTreeSet<String> =
        ["GET /metrics", "POST /auth/cookie", "DELETE /auth/cookie"].map(str::to_owned).into();
    for route in source.split(".route(\"").skip(1) {
        let (path, rest) = route.split_once('"').unwrap();
        let handlers = rest.split_once(")\n").unwrap().0;
        for method in ["get", "post", "put", "patch", "delete"] {
            if handlers.contains(&format!(" {method}(")) || handlers.contains(&format!(".{method}(")) {
                routes.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    assert_eq!(named(|row| &row.rest), routes);

    let schema = read("schema.graphql");
    let roots = ["Query", "Mutation", "Subscription"].into_iter().flat_map(|root| fields(&schema, root));
    // What a topic shows of itself needs no more than the topic.
    let of_topic = ["messages", "state", "subscriptions", "consumers"];
    let topic = fields(&schema, "Topic");
    assert!(of_topic.iter().all(|field| topic.iter().any(|known| known == field)), "{topic:?}");
    let of_topic = of_topic.map(|field| format!("Topic.{field}"));
    let graphql = roots.chain(of_topic).chain(["connection_init".to_owned()]).collect();
    assert_eq!(named(|row| &row.graphql), graphql);

    let source = read("src/ws/protocol.rs");
    let (_, types) = source.split_once("const TYPES: &str = \"").unwrap();
    let (types, _) = types.split_once('"').unwrap();
    let types = types.replace(" or ", ", ").split(", ").map(str::to_owned).collect();
    assert_eq!(named(|row| &row.ws), types);
}

/// A server with a key for each combination of rights to the topic `t`. The key is the names of the rights.
fn server() -> (TestServer, tempfile::TempDir, Vec<Vec<&'static str>>) {
    let combinations: Vec<Vec<_>> = (0..1 << RIGHTS.len())
        .map(|bits| {
            RIGHTS.into_iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, name)| name).collect()
        })
        .collect();
    let mut file = String::new();
    for rights in &combinations {
        let key = key(rights);
        write!(file, "[[key]]\nname = \"{key}\"\nhash = \"{}\"\n", KeyHash::of(&key)).unwrap();
        for right in rights {
            writeln!(file, "{right} = {}", if *right == "stats" { "true" } else { "[\"t\"]" }).unwrap();
        }
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("access.toml");
    fs::write(&path, file).unwrap();
    let server = TestServer::with(|config| config.access.access_file = path.to_str().unwrap().to_owned());
    (server, directory, combinations)
}

fn key(rights: &[&str]) -> String {
    if rights.is_empty() { "with nothing".to_owned() } else { format!("with {}", rights.join("+")) }
}

/// The code of the first error, if there is one.
fn code(text: &str) -> Option<String> {
    let start = text.find("\"code\":\"")? + 8;
    Some(text[start..].split('"').next().unwrap().to_owned())
}

const CURSOR: &str = "00aa00aa00aa00aa-01";

async fn over_rest(server: &TestServer, key: &str, operation: &str) -> Option<String> {
    let (method, path) = operation.split_once(' ').unwrap();
    let path = path
        .replace("{name}", "t")
        .replace("{consumer}", "c")
        .replace("{id}", "0000000000000000")
        .replace("{key}", "k");
    let body = match operation {
        "POST /publish" => json!({"topic": "t", "data": 1}),
        "POST /topics" => json!({"name": "t"}),
        "POST /topics/{name}/consumers/{consumer}/ack" => json!({"cursor": CURSOR}),
        "POST /topics/{name}/consumers/{consumer}/seek" => json!({"last": 1}),
        _ => json!({}),
    };
    let request = server.request(Method::from_bytes(method.as_bytes()).unwrap(), &path).bearer_auth(key);
    let response = server.send(if method == "GET" { request } else { request.body(body.to_string()) }).await;
    assert!(response.status < 500, "{operation}: {response:?}");
    code(&response.text)
}

async fn over_graphql(server: &TestServer, key: &str, operation: &str) -> Option<String> {
    let document = match operation {
        "publish" => "mutation { publish(topic: \"t\", data: 1) { id } }",
        "publishMany" => "mutation { publishMany(messages: [{topic: \"t\", data: 1}]) { error { code } } }",
        "removeKey" => "mutation { removeKey(topic: \"t\", key: \"k\") { id } }",
        "messages" => "subscription { messages(topic: \"t\") { id } }",
        "topicEvents" => "subscription { topicEvents { name } }",
        "Topic.messages" => "{ topic(name: \"t\") { messages { nodes { id } } } }",
        "Topic.state" => "{ topic(name: \"t\") { state { nodes { id } } } }",
        "Topic.consumers" => "{ topic(name: \"t\") { consumers { name } } }",
        "Topic.subscriptions" => "{ topic(name: \"t\") { subscriptions { lag } } }",
        "topic" => "{ topic(name: \"t\") { name } }",
        "topics" => "{ topics { totalCount } }",
        "createTopic" => "mutation { createTopic(name: \"t\") { name } }",
        "updateTopic" => "mutation { updateTopic(name: \"t\", maxMessages: 5) { name } }",
        "deleteTopic" => "mutation { deleteTopic(name: \"t\") { name } }",
        "acknowledge" => "mutation { acknowledge(topic: \"t\", consumer: \"c\", cursor: \"00aa00aa00aa00aa-01\") }",
        "seekConsumer" => "mutation { seekConsumer(topic: \"t\", consumer: \"c\", to: {last: 1}) }",
        "disconnect" => "mutation { disconnect(subscription: \"0000000000000000\") }",
        "deleteConsumer" => "mutation { deleteConsumer(topic: \"t\", consumer: \"c\") }",
        "consumers" => "{ consumers(topic: \"t\") { name } }",
        "stats" => "{ stats { topics } }",
        "health" => "{ health { status } }",
        "connection_init" => "{ __typename }",
        other => panic!("how is {other} asked for?"),
    };
    let mut socket = Socket::connect(&server.client, "/graphql", Some("graphql-transport-ws")).await;
    socket.send(json!({"type": "connection_init", "payload": {"apiKey": key}}).to_string()).await;
    assert_eq!(socket.json().await["type"], "connection_ack");
    socket
        .send(
            json!({"id": "1", "type": "subscribe", "payload": {"query": document, "extensions": {"ack": "a"}}})
                .to_string(),
        )
        .await;
    let result = socket.json().await;
    socket.close().await;
    code(&result.to_string())
}

async fn over_ws(server: &TestServer, key: &str, operation: &str) -> Option<String> {
    let frame = match operation {
        "publish" => json!({"type": "publish", "topic": "t", "data": 1}),
        "ack" => json!({"type": "ack", "topic": "t", "consumer": "c", "cursor": CURSOR}),
        "auth" => json!({"type": "auth", "token": key}),
        other => json!({"type": other, "topic": "t"}),
    };
    let mut socket = Socket::connect(&server.client, "/ws", None).await;
    socket.send(json!({"type": "auth", "token": key}).to_string()).await;
    assert_eq!(socket.json().await["type"], "ack");
    socket.send(frame.to_string()).await;
    let reply: Value = socket.json().await;
    socket.close().await;
    code(&reply.to_string())
}

#[tokio::test]
async fn the_table_is_true() {
    let (server, _directory, combinations) = server();
    for rights in &combinations {
        let key = key(rights);
        for row in table() {
            // It exists, so that what concerns a topic does not end for want of one.
            let mut seen = Vec::new();
            for operation in &row.rest {
                seen.push((operation, over_rest(&server, &key, operation).await));
            }
            for operation in &row.graphql {
                over_rest(&server, "with manage", "POST /topics").await;
                seen.push((operation, over_graphql(&server, &key, operation).await));
            }
            for operation in &row.ws {
                seen.push((operation, over_ws(&server, &key, operation).await));
            }
            for (operation, code) in seen {
                assert_ne!(code.as_deref(), Some("BAD_REQUEST"), "{operation}");
                let is_allowed = !matches!(code.as_deref(), Some("FORBIDDEN" | "UNAUTHENTICATED"));
                assert_eq!(is_allowed, row.allows(rights), "{operation} of {key:?}: {code:?}, but {:?}", row.needs);
            }
        }
    }
}
