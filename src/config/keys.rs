//! The one table of settings: each key, its meaning, and the field that it sets.

use std::time::Duration;

use figment::value::Value;

use super::{
    Config,
    log::directives,
    suggest::did_you_mean,
    values::{Setting, mask_urls, value_name},
};
use crate::broker::{MAX_METRICS_TOPICS, Secret};

/// One setting.
pub struct Key {
    /// The key in small letters; the environment variable is the same in capitals.
    pub name: &'static str,
    /// Another name of the same setting, which was documented earlier.
    pub alias: Option<&'static str>,
    /// The part of [`Config`] that it belongs to, such as `server`.
    pub part: &'static str,
    /// Units, bounds and effect, for the help and the README's table.
    pub meaning: &'static str,
    /// Whether listings mask it. A secret may also be read from a file, which the variable with `_FILE` appended names.
    pub secret: bool,
    pub(super) get: fn(&Config) -> String,
    pub(super) set: fn(&mut Config, &Value) -> Result<(), String>,
    value_name: fn(&Config) -> String,
}

impl Key {
    /// The name, and the alias if there is one.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.alias)
    }

    /// Whether an empty value is an error instead of no value. For credentials it is: a variable that is empty by mistake
    /// must not open the server.
    #[must_use]
    pub fn refuses_empty(&self) -> bool {
        self.part == "access" && !matches!(self.name, "jwt_leeway" | "jwt_claim" | "auth_query_token")
    }

    /// The default as text; empty if nothing is set.
    #[must_use]
    pub fn default_text(&self) -> String {
        (self.get)(&Config::default()).trim_matches('"').to_owned()
    }

    /// What stands for the value in the help, such as `NUMBER`.
    #[must_use]
    pub fn value_name(&self) -> String {
        if self.name.ends_with("_bytes") || self.name.ends_with("_buffer_size") {
            return "BYTES".to_owned();
        }
        (self.value_name)(&Config::default())
    }
}

/// Checks a lower bound that the type itself does not have.
fn check<T: Setting + PartialOrd>(value: T, least: &T, what: &str) -> Result<T, String> {
    if value < *least { Err(format!("must be {what} or more, not {}", value.write())) } else { Ok(value) }
}

/// Connections that live shorter than this are closed while a client sends its next request.
fn at_least_a_second(value: Duration) -> Result<Duration, String> {
    if value < Duration::from_secs(1) { Err("must be 1s or more".to_owned()) } else { Ok(value) }
}

/// More threads than this are a mistake: no machine has as many cores.
fn threads(value: usize) -> Result<usize, String> {
    if value > 1_024 { Err(format!("must be 1024 or less, not {value}")) } else { Ok(value) }
}

fn percent(value: u32) -> Result<u32, String> {
    if value > 100 { Err(format!("must be 100 or less, not {value}")) } else { Ok(value) }
}

/// Each topic has several series, and whoever stores them pays for each.
fn series(value: usize) -> Result<usize, String> {
    if value > MAX_METRICS_TOPICS {
        Err(format!("must be {MAX_METRICS_TOPICS} or less, not {value}"))
    } else {
        Ok(value)
    }
}

/// What an empty access setting is told.
pub(super) const EMPTY: &str = "must not be empty; leave it out if it is not to be set";

fn not_empty(value: String) -> Result<String, String> {
    if value.trim().is_empty() { Err(EMPTY.to_owned()) } else { Ok(value) }
}

fn not_empty_secret(value: Secret) -> Result<Secret, String> {
    match value.reveal().trim() {
        "" => Err(EMPTY.to_owned()),
        // Everybody knows it.
        "***" => Err("is what `pub-sub config` prints instead of a secret".to_owned()),
        _ => Ok(value),
    }
}

fn api_key(value: Secret) -> Result<Secret, String> {
    let value = not_empty_secret(value)?;
    let text = value.reveal();
    // A header could not carry it.
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err("must not contain control characters, nor begin or end with white space".to_owned());
    }
    Ok(value)
}

macro_rules! keys {
    ($(
        $name:ident $($secret:literal)? $(as $value_name:literal)? $(or $alias:ident)? $(masks $mask:ident)?
        $(>= $least:literal)? $(if $valid:ident)? $(in $choices:expr)? => $part:ident $(. $field:ident)+: $meaning:literal;
    )*) => {
        /// Every setting, in the order of the README's table.
        pub const KEYS: &[Key] = &[$(Key {
            name: stringify!($name),
            alias: optional(&[$(stringify!($alias))?]),
            part: stringify!($part),
            meaning: $meaning,
            secret: false $(|| !$secret.is_empty())?,
            get: |config| {
                let text = Setting::write(&config.$part$(.$field)+);
                $(let text = $mask(&text);)?
                text
            },
            set: |config, value| {
                let value = Setting::read(value)?;
                $(let value = check(value, &$least, stringify!($least))?;)?
                $(let value = $valid(value)?;)?
                $(let value = choose(value, $choices)?;)?
                config.$part$(.$field)+ = value;
                Ok(())
            },
            value_name: |config| {
                let names = [$(Some($value_name.to_owned()),)? $(Some($choices.join("|")),)? None];
                names.into_iter().flatten().next().unwrap_or_else(|| value_name(&config.$part$(.$field)+).to_owned())
            },
        },)*];
    };
}

const fn optional(names: &[&'static str]) -> Option<&'static str> {
    match names {
        [name, ..] => Some(*name),
        [] => None,
    }
}

fn choose(value: String, choices: &[&str]) -> Result<String, String> {
    if choices.contains(&value.as_str()) {
        return Ok(value);
    }
    let hint = did_you_mean(&value, choices.iter().copied());
    Err(format!("must be one of {}, not {value:?}{hint}", choices.join(", ")))
}

keys! {
    port => server.port: "The TCP port to listen on. 0 takes a free port and logs it.";
    host => server.host: "The IP address to listen on, or a host name such as `localhost`. `::` listens on all IPv6 and IPv4 addresses. Of the addresses of a name, the server takes the first that this machine has, IPv4 before IPv6.";
    tls_cert as "FILE" => server.tls.cert: "A PEM file with the server's certificate, followed by those that lead to its authority. The server then speaks TLS on `PORT`, or on `TLS_PORT`, with HTTP/2 and HTTP/1.1. The files of TLS are read again on SIGHUP and when they change.";
    tls_key as "FILE" => server.tls.key: "A PEM file with the key of that certificate.";
    tls_client_ca as "FILE" => server.tls.client_ca: "A PEM file with the authorities of clients' certificates. A client then needs a certificate that one of them has issued.";
    tls_port => server.tls.port: "The TCP port of TLS, beside plain HTTP on `PORT`. 0 takes a free port and logs it. Empty = TLS is spoken on `PORT`, and plain HTTP is not.";
    trusted_proxies => server.trusted_proxies: "IP addresses and networks of proxies, such as `10.0.0.0/8`, separated by commas. They are believed when a PROXY protocol header (version 1 or 2) at the start of a connection, or `X-Forwarded-For` in a request, names the client's address. The rightmost address that is not itself trusted counts.";
    max_messages_per_topic >= 1 => broker.max_messages_per_topic: "The number of messages that a topic keeps, unless the topic sets its own bound. The oldest message is evicted first.";
    max_publish_rate => broker.max_publish_rate: "The number of messages that may be published to a topic per second, unless the topic sets its own rate. A burst of one second's worth is allowed. 0 = no limit.";
    max_publish_rate_per_client => broker.max_publish_rate_per_client: "The number of messages per second that one client may publish to all topics together. A client is a principal or, without credentials, an address; of IPv6, a network of 64 bits. A burst of one second's worth is allowed. A key may have its own rate in `ACCESS_FILE`. 0 = no limit.";
    ws_read_buffer_size >= 64 => socket.read_buffer_size: "Bytes to read from a WebSocket at once at first; up to 65536 while the client sends much. An idle connection keeps no buffer.";
    ws_write_buffer_size => socket.write_buffer_size: "Bytes with which the buffer for writing to a WebSocket begins. Pending data may grow beyond it and is sent in one write. An idle connection keeps no buffer.";
    max_age => broker.max_age: "How old messages may become, unless their topic sets its own `max_age`. An older message is delivered to nobody, and leaves memory within seconds. 0 = no limit.";
    auto_create_topics => broker.auto_create_topics: "Whether publishing and subscribing create a topic that does not exist.";
    consumer_ttl => broker.consumer_ttl: "How long the position of a named consumer is kept while nobody uses it.";
    dedup_window => broker.dedup_window: "How long a publisher's message `id` is remembered after its first publish, even if the message is evicted. A repeated id is a duplicate within this time, and for as long as the message is kept.";
    dedup_bytes => broker.dedup_bytes: "Bytes of memory for ids of messages that are no longer kept. If they do not suffice, the oldest ids are forgotten before the window is over; the log and `pubsub_dedup_forgotten_early_total` report this.";
    engine in &["memory", "disk", "nats"] => engine.engine: "Where topics, messages and consumers' positions are stored. `memory` loses them with the process; `disk` stores them in `DATA_DIR`; `nats` shares them with other instances through NATS JetStream.";
    data_dir as "DIRECTORY" => engine.data_dir: "The directory of `ENGINE=disk`. The server creates it if it does not exist. Only one server may use it at a time.";
    fsync in &["always", "interval", "never"] => engine.fsync: "With `ENGINE=disk`: when a message counts as stored. `always`: after a sync; the message survives a power cut. `interval` and `never`: after the write; the message survives a kill of the process. A power cut loses what was written within `FSYNC_INTERVAL` (`interval`), or what the kernel had not written yet (`never`).";
    fsync_interval => engine.fsync_interval: "With `FSYNC=interval`: the time between two syncs.";
    nats_url as "URLS" masks mask_urls => engine.nats.url: "With `ENGINE=nats`: the servers, separated by commas. `tls://` instead of `nats://` requires TLS. A user and password (`nats://user:password@host`) or a token (`nats://token@host`) in a URL is used if no other setting gives credentials. The servers must be nats-server 2.10.26 or newer, with JetStream.";
    nats_prefix => engine.nats.prefix: "The prefix of the names of streams, buckets and subjects. Instances with the same prefix form one service.";
    nats_replicas => engine.nats.replicas: "How many copies NATS stores of streams and buckets that it creates: 1, 3 or 5. 0 = three in a cluster, one on a single server.";
    nats_user => engine.nats.user: "The user name for NATS.";
    nats_password "secret" => engine.nats.password: "The user's password. `NATS_PASSWORD_FILE` names a file that contains it.";
    nats_token "secret" => engine.nats.token: "The token for NATS. `NATS_TOKEN_FILE` names a file that contains it.";
    nats_nkey "secret" => engine.nats.nkey: "The seed of an nkey for NATS. `NATS_NKEY_FILE` names a file that contains it.";
    nats_credentials as "FILE" => engine.nats.credentials: "A credentials file for NATS, as `nsc` creates it.";
    nats_tls in &["off", "on", "first"] => engine.nats.tls: "Whether to use TLS with NATS. `off` leaves the choice to the server and the address; `on` requires TLS; `first` starts with the TLS handshake, for servers with `handshake_first`.";
    nats_tls_ca as "FILE" => engine.nats.tls_ca: "A PEM file of certificates to trust for NATS, in addition to the system's.";
    nats_tls_cert as "FILE" => engine.nats.tls_cert: "A PEM file with this service's own certificate for NATS.";
    nats_tls_key as "FILE" => engine.nats.tls_key: "A PEM file with the key of that certificate.";
    api_key "secret" if api_key => access.api_key: "A key that may do everything. Clients send it as `Authorization: Bearer KEY`. As soon as this, `ACCESS_FILE` or a key for tokens (`JWT_SECRET`, `JWT_PUBLIC_KEY_FILE`, `JWT_JWKS_URL`, `JWT_JWKS_FILE`) is set, clients need credentials. `API_KEY_FILE` names a file that contains the key.";
    access_file as "FILE" if not_empty => access.access_file: "A TOML file of keys and what each of them may do. The server reads it again when it changes and on SIGHUP. `pub-sub key NAME` creates a key.";
    jwt_secret "secret" if not_empty_secret => access.jwt_secret: "The secret that JSON Web Tokens are signed with (HS256). Use at least 32 random bytes: a shorter one can be guessed, and gives a warning. `JWT_SECRET_FILE` names a file that contains it.";
    jwt_public_key_file as "FILE" if not_empty => access.jwt_public_key_file: "A PEM file with the public key of the issuer of tokens. Its kind says the algorithm: RSA is RS256, P-256 is ES256, Ed25519 is EdDSA. The server reads it again when it changes and on SIGHUP.";
    jwt_jwks_url as "URL" if not_empty => access.jwt_jwks_url: "Where the issuer of tokens publishes its keys (a JSON Web Key Set). The server fetches them at the start, every 10 minutes, and when a token names an unknown key, but then at most once a minute. It must be `https`, or `http` on this machine. While no keys were fetched, tokens are refused; later the last good keys stay.";
    jwt_jwks_file as "FILE" if not_empty => access.jwt_jwks_file: "A file with a JSON Web Key Set. The server reads it again when it changes and on SIGHUP.";
    jwt_issuer if not_empty => access.jwt_issuer: "The issuer (`iss`) that tokens must have. Without it, any issuer counts.";
    jwt_audience if not_empty => access.jwt_audience: "The audience (`aud`) that tokens must have, alone or in a list. Without it, the audience is not checked.";
    jwt_leeway => access.jwt_leeway: "By how much the clocks of the issuer of tokens and of this server may differ, at most 1h. A token counts for this long before `nbf` and after `exp`.";
    jwt_claim if not_empty => access.jwt_claim: "The claim that says what the owner of a token may do: an object with lists of patterns of topics (`publish`, `subscribe`, `manage`) and `stats`. A token without this claim may do nothing.";
    auth_query_token => access.auth_query_token: "Whether credentials may stand in the URL (`?access_token=`), which proxies and browsers write into logs and histories.";
    drain_delay => server.drain_delay: "How long a stopping server stays open before it drains, so that load balancers notice: `/health/ready` responds with 503, and new subscriptions and WebSockets are refused with `UNAVAILABLE`; everything else goes on.";
    drain_timeout or drain_seconds => server.drain: "How long a draining server waits for its connections before it drops them. More than 100 connections are told to end one after the other over three quarters of this time, so that their clients do not come back all at once. `DRAIN_SECONDS` is another name of this setting.";
    max_topics => broker.max_topics: "The number of topics that may exist.";
    max_payload_bytes >= 1 => broker.max_payload_bytes: "Bytes of compact JSON in the data of one message.";
    max_keys >= 1 => broker.max_keys: "How many keys of one topic may have a value where only the newest message of each key is kept (`retention`: `LATEST_PER_KEY`), unless the topic sets fewer with `max_keys`. One key too many is refused.";
    tombstone_ttl => broker.tombstone_ttl: "How long the removal of a key is remembered in such a topic. A subscriber that has been away for longer gets a gap `COMPACTED` in its place. 0 = as long as the topic.";
    max_messages_limit >= 1 => broker.max_messages_limit: "The largest history, in messages, that a topic may set for itself.";
    max_bytes_per_topic => broker.max_bytes_per_topic: "Bytes of memory for the history of one topic. The oldest message is evicted first.";
    max_history_bytes => broker.max_history_bytes: "Bytes of memory for all histories together. At the bound, a topic evicts its own oldest messages to make room for a new one. If it has none, the new message is refused.";
    worker_threads if threads => server.worker_threads: "The number of threads that serve connections, at most 1024. 0 = one for each core that the process may use.";
    max_connections >= 1 => server.max_connections: "The number of connections that may be open. A further one gets a 503 response and is closed.";
    max_connections_per_address => server.max_connections_per_address: "The number of connections that one client's address may have open. A further one gets a 503 response and is closed. Behind trusted proxies, the address in the PROXY protocol header counts, and connections without that header are not counted. 0 = no limit.";
    max_subscriptions_per_connection >= 1 => ws.max_subscriptions: "The number of subscriptions on one `/ws` connection.";
    max_operations_per_connection >= 1 => graphql.max_operations: "The number of operations, including subscriptions, that may run on one GraphQL WebSocket or on one event stream for many operations.";
    max_frame_bytes >= 1 => socket.max_frame_bytes: "Bytes of one WebSocket message from a client. A larger one closes the connection with 1009.";
    max_body_bytes >= 1 => server.max_body_bytes: "Bytes of one HTTP request body.";
    max_batch >= 1 => broker.max_batch: "The number of messages in one `POST /publish` array, one `publishMany`, or one page of history.";
    max_malformed_frames >= 1 => socket.max_malformed_frames: "The number of malformed messages in a row after which a WebSocket is closed with 1008.";
    max_patterns => broker.max_patterns: "The number of different patterns that may have subscriptions.";
    max_consumers_per_topic => broker.max_consumers_per_topic: "The number of named consumers of one topic or pattern.";
    max_consumers => broker.max_consumers: "The number of named consumers of all topics and patterns together.";
    max_topics_per_consumer => broker.max_topics_per_consumer: "The number of topics in which one named consumer of a pattern may have a position.";
    max_filter_bytes => broker.filter.max_bytes: "Bytes of one filter as JSON.";
    max_filter_conditions => broker.filter.max_conditions: "The number of conditions in one filter.";
    max_graphql_batch >= 1 => graphql.max_batch: "The number of requests in one GraphQL batch (a JSON array of requests).";
    max_document_bytes >= 1 => graphql.documents.max_bytes: "Bytes of one GraphQL document.";
    max_document_tokens >= 1 => graphql.documents.max_tokens: "The number of tokens in one GraphQL document.";
    max_document_depth >= 1 => graphql.documents.max_depth: "The depth to which fields may be nested in a GraphQL operation.";
    max_document_selections >= 1 => graphql.documents.max_selections: "The number of selections in a GraphQL document. A fragment counts as often as it is spread.";
    max_document_aliases => graphql.documents.max_aliases: "The number of aliases in one GraphQL operation.";
    max_document_directives => graphql.documents.max_directives: "The number of directives in one GraphQL operation.";
    max_complexity => graphql.max_complexity: "The number of fields that one GraphQL operation may resolve. A page counts with its size, and any other list counts as 20. 0 = no limit.";
    document_cache_bytes => graphql.document_cache_bytes: "Bytes of memory for checked GraphQL documents that are kept for the next request.";
    persisted_documents => graphql.persisted_documents: "A JSON file of GraphQL documents that clients may name by their SHA-256 hash: an object by hash, or an array. Empty = none.";
    persisted_documents_only => graphql.persisted_documents_only: "Whether the server executes only the documents of that file.";
    persisted_cache_bytes => graphql.persisted_cache_bytes: "Bytes of memory for documents that clients registered by hash (automatic persisted queries).";
    federation => graphql.federation: "Whether the schema is served as an Apollo Federation 2 subgraph, with topics as entities by their names. `pub-sub schema --federation=true` prints it.";
    introspection => graphql.introspection: "Whether clients may query the GraphQL schema, and errors suggest names.";
    ping_interval => socket.ping_interval: "How long the client of a WebSocket may send nothing before the server pings it. If the client then sends nothing for as long again, the server closes the connection. This is also the time between two comments on an idle event stream.";
    write_timeout => socket.write_timeout: "How long a client may accept no data before the server drops it.";
    request_timeout => server.request_timeout: "How long a client may take to send a request. On a new connection the time starts at once, later with the first byte of the request.";
    keep_alive_timeout if at_least_a_second => server.keep_alive_timeout: "How long a connection may be idle between two requests. The default is longer than the 60 s after which common load balancers close an idle connection, because the side that reuses a connection must be the one that closes it.";
    allowed_origins => server.allowed_origins: "The origins whose pages may use the server from a browser: a list such as `https://app.example.org,https://example.org`, or `*` for all. Pages of the server's own origin always may. Empty = also pages from every port of `localhost`, `127.0.0.1` and `[::1]`. Pages of other origins cannot read responses, open WebSockets, or send requests that change something.";
    connection_init_timeout => graphql.connection_init_timeout: "How long a GraphQL WebSocket may take to send `connection_init` (close code 4408), how long a reserved event stream may wait to be connected, and how long a WebSocket stays open that needs credentials and has no valid ones (close code 4401 on `/ws`, else 4403).";
    metrics_topics if series => broker.metrics_topics: "The number of topics, at most 1000, that have series of their own in `/metrics`: those with the most messages. 0 = none.";
    log as "DIRECTIVES" if directives => server.log: "What to log: a level, or `tracing` directives such as `info,pub_sub=debug`. A change in the settings file counts on SIGHUP.";
    otlp_endpoint as "URL" => traces.endpoint: "Where traces go: the URL of an OpenTelemetry collector that takes OTLP over HTTP, such as `http://localhost:4318`. Spans are posted to `/v1/traces` below it. Empty = nothing is recorded.";
    otlp_headers "secret" => traces.headers: "Headers for the collector, as `name=value` separated by commas, such as `authorization=Bearer KEY`. `OTLP_HEADERS_FILE` names a file that contains them.";
    otlp_sample_percent if percent => traces.sample_percent: "How many of a hundred traces that begin at this server are recorded. One that a client has begun is recorded if the client records it.";
    otlp_messaging_attributes => traces.messaging_attributes: "Whether spans have the attributes of OpenTelemetry's conventions for messaging (`messaging.system`, `messaging.destination.name` and so on), which are still in development.";
    log_format in &["text", "json"] => server.log_format: "The format of the log on standard error: `text` or `json`, with one line per event.";
}
