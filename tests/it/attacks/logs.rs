//! What the log, the settings, errors and metrics say: no secret, and no line that somebody else has written.

use serde_json::{Value, json};

use super::{ADMIN_KEY, TOKEN_SECRET, graphql_socket, key_of, rule, token};
use crate::{
    doors::{Door, RawWs, raw_ws::Socket},
    harness::{Client, encode, eventually},
    process::{Process, command},
    raw::Raw,
};

/// What an attacker would like to see at the beginning of a line.
const FORGED: &str = "2031-01-01T00:00:00.000000Z  INFO pub_sub::audit: audit principal=\"forged\"";

/// Ways to begin another line, or to confuse a terminal.
const BREAKS: [&str; 8] = ["\n", "\r\n", "\r", "\u{85}", "\u{2028}", "\u{b}", "\u{1b}[2K\u{1b}[1G", "\u{0}"];

struct Files {
    _directory: tempfile::TempDir,
    access: String,
}

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = directory.path().join("access.toml");
        let all = "subscribe = [\">\"]\npublish = [\">\"]\nmanage = [\">\"]\nstats = true";
        std::fs::write(&path, rule("mallory", all)).unwrap();
        Self { access: path.to_str().unwrap().to_owned(), _directory: directory }
    }

    fn process(&self, format: &str, level: &str) -> Process {
        Process::start(&[
            ("API_KEY", ADMIN_KEY),
            ("ACCESS_FILE", &self.access),
            ("JWT_SECRET", TOKEN_SECRET),
            ("AUTH_QUERY_TOKEN", "true"),
            ("LOG", level),
            ("LOG_FORMAT", format),
        ])
    }
}

/// Puts a text wherever a client's text can go.
async fn inject(client: &Client, text: &str) {
    let segment = encode(text);
    for path in [
        format!("/topics/{segment}"),
        format!("/topics/{segment}/messages?after={segment}"),
        format!("/topics/news/consumers/{segment}"),
        format!("/topics/news/consumers/tab?owner={segment}"),
        format!("/{segment}?{segment}={segment}"),
    ] {
        client.get(&path).await;
        client.delete(&path).await;
    }
    for (path, body) in [
        ("/topics", json!({"name": text})),
        ("/publish", json!({"topic": text, "data": text, "key": text, "id": text})),
        ("/publish", json!({"topic": "news", "data": text, "key": text, "id": text, (text): text})),
        ("/topics/news/consumers/tab/ack", json!({"cursor": text, "owner": text})),
    ] {
        client.post(path, &body).await;
    }
    for operation in [
        "createTopic(name: $t) { name }",
        "deleteTopic(name: $t) { name }",
        "deleteConsumer(topic: $t, consumer: $t, owner: $t)",
        "deleteConsumer(topic: \"news\", consumer: $t, owner: $t)",
    ] {
        client.graphql_raw(&format!("mutation($t: String!) {{ {operation} }}"), json!({"t": text})).await;
    }
    let mut door = RawWs::open(client).await;
    for frame in [
        json!({"type": text}),
        json!({"type": "subscribe", "topic": text, "consumer": text}),
        json!({"type": "auth", "token": text}),
    ] {
        door.ask(frame).await;
    }
    for protocol in ["graphql-transport-ws", text] {
        let mut socket = Raw::connect(client.addr).await;
        let protocol: String = protocol.chars().filter(|letter| letter.is_ascii_graphic()).collect();
        socket.write(format!(
            "GET /graphql HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        )).await;
        socket.head().await;
    }
    // In each header, as far as a header can have it, and in the first line.
    let in_header = text.replace(['\r', '\n', '\0'], "\t");
    for name in
        ["Origin", "Host", "User-Agent", "X-Forwarded-For", "Authorization", "X-API-Key", "Cookie", "Last-Event-ID"]
    {
        for text in [text, &in_header] {
            let mut raw = Raw::connect(client.addr).await;
            raw.write(format!("POST /topics HTTP/1.1\r\nHost: x\r\n{name}: {text}\r\nContent-Length: 0\r\n\r\n")).await;
            raw.head().await;
        }
    }
    let mut raw = Raw::connect(client.addr).await;
    raw.write(format!("GET /{text} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    raw.head().await;
    // As the name of a principal.
    let subject = client.signed_in(&token(text, &json!({"pubsub": {"manage": [">"]}})));
    subject.post("/topics", &json!({"name": "of-the-subject"})).await;
    subject.delete("/topics/of-the-subject").await;
}

/// The text in quotes with which these fields begin, and what follows it.
fn quoted(fields: &str) -> (&str, &str) {
    let text = fields.strip_prefix('"').unwrap_or_else(|| panic!("{fields}"));
    let mut escaped = false;
    let end = text.find(|letter| {
        let ends = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends
    });
    let end = end.unwrap_or_else(|| panic!("{fields}"));
    (&text[..end], &text[end + 1..])
}

/// Waits until the log has said what was done last.
async fn said(process: &Process, topic: &str) -> Vec<String> {
    process.client.signed_in(ADMIN_KEY).create(topic).await;
    let has_it = |line: &String| line.contains("createTopic") && line.contains(topic);
    eventually("the last line", || async { process.log().iter().any(has_it).then_some(()) }).await;
    process.log()
}

#[tokio::test]
async fn names_begin_no_line() {
    let files = Files::new();
    for format in ["text", "json"] {
        let process = files.process(format, "debug");
        let mallory = process.client.signed_in(&key_of("mallory"));
        for line_break in BREAKS {
            inject(&mallory, &format!("x{line_break}{FORGED}")).await;
            // Also where only the breaks are left out.
            inject(&mallory, &format!("{FORGED}{line_break}")).await;
        }
        let log = said(&process, "the-end").await;
        assert!(
            log.iter().any(|line| line.contains("forged")),
            "nothing of it is logged, so this shows nothing: {log:?}"
        );
        for line in &log {
            assert!(
                !line.starts_with("2031") && !line.contains(['\r', '\u{1b}', '\u{85}', '\u{2028}', '\0', '\u{b}']),
                "{line:?}"
            );
            if format == "json" {
                let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
                assert!(line["timestamp"].as_str().is_some_and(|time| time.starts_with("20")), "{line}");
                assert_ne!(line["fields"]["principal"], "forged");
                continue;
            }
            let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            assert!(time.parse::<jiff::Timestamp>().is_ok(), "{line:?}");
            assert!(
                ["INFO", "WARN", "DEBUG", "ERROR"].contains(&rest.trim_start().split(' ').next().unwrap()),
                "{line:?}"
            );
            // The fields of an audit line are the server's: what looks like others stands within quotes.
            if line.contains("pub_sub::audit: ") && !line.contains("authenticate") {
                let fields = line.split_once(": audit principal=").unwrap().1;
                let (principal, rest) = quoted(fields);
                let own = principal == "mallory" || principal == "api_key" || principal.contains("forged");
                assert!(own && rest.starts_with(" operation=\""), "{line:?}");
            }
        }
    }
}

/// Uses every kind of secret rightly and wrongly at every door.
async fn use_secrets(process: &Process, good: &[&str], wrong: &[&str]) {
    for secret in good.iter().chain(wrong) {
        let client = process.client.signed_in(secret);
        for path in ["/topics", "/stats", "/topics/no-such-topic", &format!("/topics?access_token={secret}")] {
            let response = client.get(path).await;
            assert!(!response.text.contains(*secret), "{response:?}");
        }
        client.graphql_raw("{ no such field", json!({})).await;
        client.post("/auth/cookie", &json!({})).await;
        let by_key = client.request(reqwest::Method::GET, "/topics").header("x-api-key", *secret);
        client.send(by_key).await;
        // In forms that are malformed.
        for value in [format!("Basic {secret}"), format!("Bearer\t{secret}"), (*secret).to_owned()] {
            let mut raw = Raw::connect(process.addr).await;
            raw.write(format!(
                "GET /topics HTTP/1.1\r\nHost: x\r\nAuthorization: {value}\r\nCookie: pubsub_auth={secret}\r\n\r\n"
            ))
            .await;
            let (_, body) = raw.response().await.unwrap();
            assert!(!body.contains(*secret), "{body}");
        }
        for payload in [json!({"token": secret}), json!({"Authorization": secret}), json!({"apiKey": [secret]})] {
            for protocol in ["graphql-transport-ws", "graphql-ws"] {
                let mut socket = graphql_socket(&process.client, protocol, &payload).await;
                let answer = format!("{:?}", socket.frame().await);
                assert!(!answer.contains(*secret), "{answer}");
            }
        }
        for frame in [
            json!({"type": "auth", "token": secret}),
            json!({"type": "auth", "token": [secret]}),
            json!({"type": "auth", "password": secret}),
        ] {
            let mut socket = Socket::connect(&process.client, "/ws", None).await;
            socket.send(frame.to_string()).await;
            let answer = socket.text().await;
            assert!(!answer.contains(*secret), "{answer}");
        }
        let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let _ = http2.get(client.url("/topics")).bearer_auth(secret).send().await;
    }
}

#[tokio::test]
async fn secrets_are_nowhere() {
    let files = Files::new();
    let good = token("alice", &json!({"pubsub": {"publish": [">"], "subscribe": [">"]}}));
    let expired = token("alice", &json!({"exp": 1}));
    let tampered = format!("{good}AA");
    let key = key_of("mallory");
    for format in ["text", "json"] {
        let process = files.process(format, "trace");
        let (known, unknown) = ([ADMIN_KEY, &key, &good], [&expired, &tampered, "psk_a_key_that_nobody_has"]);
        use_secrets(&process, &known, &unknown).await;
        // Files that are read again, also broken ones with a key in them.
        let rules = std::fs::read_to_string(&files.access).unwrap();
        let admin = process.client.signed_in(ADMIN_KEY);
        for broken in [format!("[[key]]\nname = \"a\"\nhash = \"{key}\"\n"), format!("{key} = = {key}\n")] {
            let before = super::metric(&admin, "pubsub_access_reload_failures_total").await;
            std::fs::write(&files.access, broken).unwrap();
            process.signal("HUP");
            eventually("the broken file is seen", || async {
                (super::metric(&admin, "pubsub_access_reload_failures_total").await > before).then_some(())
            })
            .await;
        }
        std::fs::write(&files.access, rules).unwrap();
        process.signal("HUP");
        let log = said(&process, "the-end").await.join("\n");
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "the level is not what it was to be");
        let metrics = admin.get("/metrics").await.text;
        assert!(metrics.contains("pubsub_auth_refused_total"));
        let signature = good.rsplit('.').next().unwrap();
        let value = data_encoding::BASE64URL_NOPAD.encode(key.as_bytes());
        for secret in known.iter().chain(&unknown).chain(&[TOKEN_SECRET, signature, &value]) {
            for (where_, text) in [("log", &log), ("metrics", &metrics)] {
                let line = text.lines().find(|line| line.contains(*secret));
                assert!(line.is_none(), "{secret:?} stands in the {where_}: {line:?}");
            }
        }
    }
    // `pub-sub config` masks them, and a setting that is refused does not repeat them.
    let settings = [("API_KEY", ADMIN_KEY), ("JWT_SECRET", TOKEN_SECRET), ("ACCESS_FILE", files.access.as_str())];
    let output = command(&settings).arg("config").output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(text.contains("api_key = ") && text.contains("jwt_secret = "), "{text}");
    assert!(!text.contains(ADMIN_KEY) && !text.contains(TOKEN_SECRET), "{text}");
    let twice =
        [("API_KEY", ADMIN_KEY), ("API_KEY_FILE", "/dev/null"), ("JWT_SECRET", TOKEN_SECRET), ("JWT_JWKS_URL", "x")];
    let output = command(&twice).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && !text.contains(ADMIN_KEY) && !text.contains(TOKEN_SECRET), "{text}");
}
