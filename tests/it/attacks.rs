//! Who is let in and who is not, and what those try who should not be: attacks on a running server, each by its name. Under
//! each one that costs something, an innocent subscriber receives.

mod bombs;
mod consumers;
mod cookies;
mod expiry;
mod guessing;
mod key_sets;
mod limits;
mod logs;
mod open;
mod sign_in;
mod tokens;
mod withdrawal;

use pub_sub::{
    access::KeyHash,
    broker::{Secret, Timestamp},
    config::Config,
};
use serde_json::{Value, json};

use crate::{
    doors::{Door, RawWs, Start, raw_ws::Socket},
    harness::{Client, Response, TestServer},
    signer::Signer,
};

/// The key that may do everything.
const ADMIN_KEY: &str = "psk_the_key_of_the_administrator";
/// The secret of tokens.
const TOKEN_SECRET: &str = "the secret of tokens, which is longer than 32 bytes";

/// The key of a name in an access file of these tests.
fn key_of(name: &str) -> String {
    format!("psk_the_key_of_{name}")
}

/// The entry of a key in an access file, with these lines.
fn rule(name: &str, lines: &str) -> String {
    let hash = KeyHash::of(&key_of(name));
    format!("[[key]]\nname = \"{name}\"\nhash = \"{hash}\"\n{lines}\n")
}

/// Seconds since 1970.
fn now() -> i64 {
    Timestamp::now().0 / 1_000
}

/// Claims that are right, with `others` over them.
fn claims(subject: &str, others: &Value) -> Value {
    let mut claims = json!({"sub": subject, "exp": now() + 600, "pubsub": {"publish": [">"], "subscribe": [">"]}});
    for (name, value) in others.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// A token of this secret, with `others` over the usual claims.
fn token(subject: &str, others: &Value) -> String {
    Signer::Secret(TOKEN_SECRET.into()).token(&claims(subject, others))
}

/// A server with an administrator's key, an access file, and tokens of a secret.
struct Restricted {
    server: TestServer,
    /// A client that may do everything.
    admin: Client,
    directory: tempfile::TempDir,
}

impl Restricted {
    fn start(rules: &str) -> Self {
        Self::with(rules, |_| {})
    }

    fn with(rules: &str, edit: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = directory.path().join("access.toml");
        std::fs::write(&path, rules).unwrap();
        let server = TestServer::with(|config| {
            config.access.api_key = Secret::new(ADMIN_KEY.to_owned());
            config.access.access_file = path.to_str().unwrap().to_owned();
            config.access.jwt_secret = Secret::new(TOKEN_SECRET.to_owned());
            edit(config);
        });
        let admin = server.client.signed_in(ADMIN_KEY);
        Self { server, admin, directory }
    }

    /// A client with the key of this name.
    fn key(&self, name: &str) -> Client {
        self.server.client.signed_in(&key_of(name))
    }

    /// A client that does not say who it is.
    fn nobody(&self) -> &Client {
        &self.server.client
    }

    /// Replaces the access file. It counts within 5 s.
    fn write_rules(&self, rules: &str) {
        // A reader sees the old or the new text, never half of it.
        let beside = self.directory.path().join("beside");
        std::fs::write(&beside, rules).unwrap();
        std::fs::rename(beside, self.directory.path().join("access.toml")).unwrap();
    }

    /// A number of `/metrics`.
    async fn metric(&self, name: &str) -> u64 {
        metric(&self.admin, name).await
    }
}

/// A number of `/metrics`, for a client that may read it.
async fn metric(client: &Client, name: &str) -> u64 {
    let text = client.get("/metrics").await.text;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// A subscriber that must receive whatever others do.
struct Innocent {
    door: RawWs,
    client: Client,
    sent: u64,
}

impl Innocent {
    async fn of(client: &Client) -> Self {
        Self { door: RawWs::to(client, "innocent", Start::Live).await, client: client.clone(), sent: 0 }
    }

    /// Publishes and receives one message. That this comes to its end in time is the assertion.
    async fn receives(&mut self) {
        self.sent += 1;
        self.client.publish("innocent", self.sent.into()).await;
        assert_eq!(self.door.event().await.message().data, self.sent);
    }
}

/// The code with which a response of any door refuses.
fn code(response: &Response) -> String {
    let body = response.json();
    let code = body["error"]["code"].as_str().or_else(|| body["errors"][0]["extensions"]["code"].as_str());
    code.unwrap_or_else(|| panic!("{response:?}")).to_owned()
}

/// A GraphQL connection that has sent its `connection_init` with this payload.
async fn graphql_socket(client: &Client, protocol: &str, payload: &Value) -> Socket {
    let mut socket = Socket::connect(client, "/graphql", Some(protocol)).await;
    socket.send(json!({"type": "connection_init", "payload": payload}).to_string()).await;
    socket
}
