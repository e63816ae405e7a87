//! The one table of settings: key, meaning, and the field that it sets.

use figment::value::Value;

use super::{Config, Setting};

/// One setting.
pub struct Key {
    /// The key in small letters; the environment variable is the same in capitals.
    pub name: &'static str,
    /// Units, bounds and effect, for the README's table.
    pub meaning: &'static str,
    /// Whether it is kept from listings, and may be read from the file that the variable with `_FILE` behind it names.
    pub secret: bool,
    pub(super) get: fn(&Config) -> String,
    pub(super) set: fn(&mut Config, &Value) -> Result<(), String>,
}

/// Bounds that a type does not know.
fn check<T: Setting + PartialOrd>(value: T, least: &T, what: &str) -> Result<T, String> {
    if value < *least { Err(format!("must be {what} or more, not {}", value.write())) } else { Ok(value) }
}

macro_rules! keys {
    ($($name:ident $($secret:literal)? $(>= $least:literal)? $(in $choices:expr)? => $part:ident $(. $field:ident)+: $meaning:literal;)*) => {
        /// Every setting, in the order of the README's table.
        pub const KEYS: &[Key] = &[$(Key {
            name: stringify!($name),
            meaning: $meaning,
            secret: false $(|| !$secret.is_empty())?,
            get: |config| Setting::write(&config.$part$(.$field)+),
            set: |config, value| {
                let value = Setting::read(value)?;
                $(let value = check(value, &$least, stringify!($least))?;)?
                $(let value = choose(value, $choices)?;)?
                config.$part$(.$field)+ = value;
                Ok(())
            },
        },)*];
    };
}

fn choose(value: String, choices: &[&str]) -> Result<String, String> {
    if choices.contains(&value.as_str()) {
        return Ok(value);
    }
    Err(format!("must be one of {}, not {value:?}", choices.join(", ")))
}

keys! {
    port => server.port: "TCP port to listen on; 0 takes a free one and logs it.";
    host => server.host: "IP address to listen on; `::` for all of IPv6 and IPv4.";
    max_messages_per_topic >= 1 => broker.max_messages_per_topic: "Messages a topic keeps, unless the topic sets its own bound. The oldest goes first.";
    max_publish_rate => broker.max_publish_rate: "Messages a second and topic that may be published, unless the topic sets its own rate; a burst of one second's worth is let through. 0 = no limit.";
    ws_read_buffer_size >= 64 => socket.read_buffer_size: "Bytes asked of a WebSocket at once, and kept for reading by an idle connection.";
    ws_write_buffer_size => socket.write_buffer_size: "Bytes an idle WebSocket keeps for writing; what is pending is gathered beyond it and leaves in one write.";
    auto_create_topics => broker.auto_create_topics: "Whether publishing and subscribing make the topic.";
    consumer_ttl => broker.consumer_ttl: "How long the position of a named consumer is kept while nobody uses it.";
    dedup_window => broker.dedup_window: "How long a publisher's message `id` is remembered after its first publish, even if the message is no longer kept: until then, and for as long as the message is kept, a repeated one is a duplicate.";
    dedup_bytes => broker.dedup_bytes: "Bytes of memory for ids of messages that are not kept any more. When they do not suffice, the oldest are forgotten before the window is over; the log and `pubsub_dedup_forgotten_early_total` say so.";
    engine in &["memory", "disk", "nats"] => engine.engine: "Where topics, messages and consumers' positions live: `memory` loses them with the process; `disk` keeps them in `DATA_DIR`; `nats` shares them with other instances through NATS JetStream.";
    data_dir => engine.data_dir: "The directory of `ENGINE=disk`; made where it is missing. One server at a time.";
    fsync in &["always", "interval", "never"] => engine.fsync: "With `ENGINE=disk`: when a message counts as stored. `always`: after a sync, survives a power cut. `interval`, `never`: after the write, survives a kill of the process; a power cut takes what was written within `FSYNC_INTERVAL`, or what the kernel had not written yet.";
    fsync_interval => engine.fsync_interval: "With `FSYNC=interval`: the time between two syncs.";
    nats_url => engine.nats.url: "With `ENGINE=nats`: the servers, separated by commas; `tls://` in place of `nats://` insists on TLS. nats-server 2.10.26 or newer, with JetStream.";
    nats_prefix => engine.nats.prefix: "What the names of streams, buckets and subjects begin with. Instances with the same prefix are one service.";
    nats_replicas => engine.nats.replicas: "Copies of everything that NATS keeps, when it is made: 1, 3 or 5. 0 = three in a cluster, one on a single server.";
    nats_user => engine.nats.user: "User name for NATS.";
    nats_password "secret" => engine.nats.password: "The user's password. `NATS_PASSWORD_FILE` names a file with it instead.";
    nats_token "secret" => engine.nats.token: "Token for NATS. Or `NATS_TOKEN_FILE`.";
    nats_nkey "secret" => engine.nats.nkey: "Seed of an nkey for NATS. Or `NATS_NKEY_FILE`.";
    nats_credentials => engine.nats.credentials: "File of credentials for NATS, as `nsc` makes them.";
    nats_tls in &["off", "on", "first"] => engine.nats.tls: "`off` leaves TLS to the server and the address; `on` insists on it; `first` begins with it, for servers with `handshake_first`.";
    nats_tls_ca => engine.nats.tls_ca: "PEM file of certificates to trust for NATS, beside the system's.";
    nats_tls_cert => engine.nats.tls_cert: "PEM file of this service's own certificate for NATS.";
    nats_tls_key => engine.nats.tls_key: "PEM file of that certificate's key.";
    drain_seconds => server.drain: "How long a stopping server waits for its connections before it drops them.";
    max_topics => broker.max_topics: "Topics that may exist.";
    max_payload_bytes >= 1 => broker.max_payload_bytes: "Bytes of compact JSON in one message's data.";
    max_messages_limit >= 1 => broker.max_messages_limit: "The largest history, in messages, that a topic may set for itself.";
    max_bytes_per_topic => broker.max_bytes_per_topic: "Bytes one topic's history may take in memory; the oldest message goes first.";
    max_history_bytes => broker.max_history_bytes: "Bytes all histories may take in memory. At the bound a topic pays for a new message with its own oldest; one that has none is refused.";
    max_connections >= 1 => server.max_connections: "Connections that may be open; a further one gets the status 503 and is closed.";
    max_subscriptions_per_connection >= 1 => ws.max_subscriptions: "Subscriptions on one `/ws` connection.";
    max_operations_per_connection >= 1 => graphql.max_operations: "Operations, subscriptions among them, that one GraphQL WebSocket, or one event stream for many operations, may have running.";
    max_frame_bytes >= 1 => socket.max_frame_bytes: "Bytes of one WebSocket message from a client; a larger one closes the connection with 1009.";
    max_body_bytes >= 1 => server.max_body_bytes: "Bytes of one HTTP request body.";
    max_batch >= 1 => broker.max_batch: "Messages in one `POST /publish` array, `publishMany`, or page of history.";
    max_malformed_frames >= 1 => socket.max_malformed_frames: "Malformed messages in a row after which a WebSocket is closed with 1008.";
    max_patterns => broker.max_patterns: "Different patterns that may be subscribed.";
    max_consumers_per_topic => broker.max_consumers_per_topic: "Named consumers of one topic or pattern.";
    max_consumers => broker.max_consumers: "Named consumers in all.";
    max_topics_per_consumer => broker.max_topics_per_consumer: "Topics whose positions one named consumer of a pattern may hold.";
    max_filter_bytes => broker.filter.max_bytes: "Bytes of one filter as JSON.";
    max_filter_conditions => broker.filter.max_conditions: "Conditions in one filter.";
    max_graphql_batch >= 1 => graphql.max_batch: "Requests in one GraphQL batch (a JSON array of requests).";
    max_document_bytes >= 1 => graphql.documents.max_bytes: "Bytes of one GraphQL document.";
    max_document_tokens >= 1 => graphql.documents.max_tokens: "Tokens in one GraphQL document.";
    max_document_depth >= 1 => graphql.documents.max_depth: "Fields within one another in a GraphQL operation.";
    max_document_selections >= 1 => graphql.documents.max_selections: "Selections of a GraphQL document, with fragments counted as often as they are spread.";
    max_document_aliases => graphql.documents.max_aliases: "Aliases in one GraphQL operation.";
    max_document_directives => graphql.documents.max_directives: "Directives in one GraphQL operation.";
    max_complexity => graphql.max_complexity: "Fields that one GraphQL operation may resolve: a page counts with its size, any other list as 20. 0 = no limit.";
    document_cache_bytes => graphql.document_cache_bytes: "Bytes of checked GraphQL documents that are kept for the next request.";
    persisted_documents => graphql.persisted_documents: "A JSON file of GraphQL documents that clients may name by their SHA-256 hash: an object by hash, or an array. Empty = none.";
    persisted_documents_only => graphql.persisted_documents_only: "Whether only the documents of that file are executed.";
    persisted_cache_bytes => graphql.persisted_cache_bytes: "Bytes of documents that clients registered by hash (automatic persisted queries).";
    federation => graphql.federation: "Whether the schema is served as an Apollo Federation 2 subgraph, with topics as entities by their names. `pub-sub schema --federation=true` prints it.";
    introspection => graphql.introspection: "Whether clients may ask GraphQL for its schema, and errors suggest names.";
    ping_interval => socket.ping_interval: "How long the client of a WebSocket may send nothing before it is pinged; when it sends nothing for as long again, it is dropped. Also the time between two comments on an idle event stream.";
    write_timeout => socket.write_timeout: "How long a client may take nothing of what is written to it before it is dropped.";
    request_timeout => server.request_timeout: "How long a client may take to send a request; also how long an idle kept-alive connection stays.";
    connection_init_timeout => graphql.connection_init_timeout: "How long a GraphQL WebSocket may take to send `connection_init` (close code 4408), and a reserved event stream to be connected.";
    log => server.log: "What is logged: a level, or `tracing` directives like `info,pub_sub=debug`.";
    log_format in &["text", "json"] => server.log_format: "`text` or `json`, a line an event, on standard error.";
}
