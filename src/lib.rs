//! A GraphQL-fronted publish/subscribe service. **No silent loss**: a subscriber gets every message of its topic, in
//! order, once; where it could not, a gap at that position in the stream says how many it missed and which.
//!
//! # The map
//!
//! ```text
//! main.rs            the process: settings, log, bind, serve, exit code; command_line.rs: commands, flags, help
//! cli.rs             the commands that talk to a server, over public protocols only: pub, sub, topics, bench, health
//!   publish.rs subscribe.rs               lines in, in their order and once; lines out, across connections
//!   topics.rs bench.rs health.rs          managing topics; throughput, latency, losses; whether a server is ready
//!   arguments.rs ending.rs                flags that commands share; what ends a command that would go on
//!   output.rs notes.rs completions.rs     standard output; standard error; completions and manual pages
//! client.rs          how they reach a server: address.rs, remote.rs (HTTP), event_stream.rs, web_socket.rs, tls.rs, failure.rs
//! config.rs          gathers every part's settings; config/keys.rs is the one table of them, config/layers.rs reads file,
//!                    environment and flags
//! server.rs          joins the doors, stops in good order
//! front.rs           what every request passes before any interface sees it
//! listener.rs        serves HTTP over connections
//!   host.rs acceptor.rs                   where to listen; a connection from its arrival to its protocol
//!   arrival.rs proxy_header.rs tls.rs     before the first request: the PROXY protocol, the handshake of TLS
//!   http1.rs http2.rs respond.rs          the two versions of HTTP; what holds for every request
//!   direct.rs head.rs chunks.rs ahead.rs  HTTP/1 without hyper: most requests, their heads, streams; what was read ahead
//!   stream.rs pieces.rs                   errors of hyper in our form, and how connections close; bodies in pieces
//!   deadline.rs refusal.rs addresses.rs   how long connections may be idle; those that are too many; counts by address
//! proxies.rs         the proxies that are trusted, and the client's address behind them
//!
//! graphql.rs         /graphql: schema and executor are async-graphql's, the transports are ours
//!   http.rs ws.rs stream.rs single.rs     over HTTP, WebSocket, event streams; one event stream for many operations
//!   request.rs response.rs accept.rs ids.rs    requests as all transports write them; responses; which form is wanted;
//!                                         ids of operations
//!   document.rs persisted.rs generations.rs    checks a document before async-graphql sees it; documents by hash; caches
//!   execute.rs validator.rs               prepares, validates, executes
//!   compiled.rs      what is executed again and again, without async-graphql: selection.rs: as pieces of text; variables.rs: what
//!                    arguments are taken from; mutation.rs subscription.rs: the operations; parts.rs: the fields
//!   operation.rs shape.rs                 an open subscription; what makes its results, each message once per shape
//!   query.rs mutation.rs subscription.rs types.rs scalars.rs json.rs    the schema
//!   subgraph.rs                           the schema for a router
//! rest.rs            /topics /publish /stats /health, pages and plain event streams
//! ws.rs              /ws: one JSON object a frame
//! metrics.rs         /metrics for Prometheus, gathered from the parts; what the process itself uses (process.rs)
//! browser.rs         which pages may use the server from a browser; browser/origin.rs: whose they are
//! pages.rs           the pages for browsers: console, GraphiQL, index
//! transfer.rs        `pub-sub export` and `import`: what an engine keeps as lines of JSON, and back into any engine
//!
//! socket.rs          WebSockets for the doors: upgrade, frames, what a door says (protocol.rs), one task each (connection.rs),
//!                    and how many of them are told to end (stops.rs)
//! subscriptions.rs   the subscriptions of one connection, by key and by the client's name
//! streaming.rs       response bodies that are streams; event_stream.rs: how server-sent events are written
//! wire.rs            the JSON that the doors share: writing it; fields.rs, options.rs: reading it
//! headers.rs         headers as RFC 9110 writes them; query_string.rs: parameters; body.rs: reading request bodies
//! problem.rs         the one table: error -> code -> status, and the error object of all doors
//! telemetry.rs       the log
//! https.rs           how the server itself sends requests to others
//! traces.rs          traces for an OpenTelemetry collector; traces/post.rs: how they get there
//!
//! access.rs          who may come in: finds the principal of a credential
//!   authority.rs sessions.rs refusals.rs  who is who, and until when; tokens that were verified; refused credentials
//!   found.rs visitor.rs sign_in.rs cookie.rs    where a request's credential stands; who sends it; WebSockets; /auth/cookie
//!   key.rs name.rs file.rs file_fields.rs keys and their hashes; names of principals; the access file
//!   token.rs claims.rs refusal.rs         JSON Web Tokens: verified, their claims checked, why they are refused
//!   key_set.rs signature.rs jwks.rs       the keys of tokens; signatures by ring; sets of keys and PEM files
//!   fetch.rs fetching.rs                  sets of keys from a URL, and when they are fetched
//!   watch.rs settings.rs                  files that are read again; which credentials are accepted
//!
//! broker.rs          publishing, subscribing, history, limits; no transport
//!   client.rs                             what doors have of it, for one principal: a rule before each operation
//!   client_info.rs                        where that one has come in
//!   principal.rs rights.rs                on whose behalf, and what that one may do at the moment; rights as patterns
//!   topics.rs                             the four ways to get a topic
//!   subscribe.rs subscribe_topic.rs subscribe_pattern.rs    where a subscription begins
//!   subscription.rs consumer.rs           what it reads, whose position it moves
//!   publish.rs consumers.rs seek.rs       publishing; consumers from outside a subscription; moving one
//!   state.rs         pages of a topic's state
//!   reclaim.rs       takes messages out of memory that are too old
//!   request_id.rs                         the id of the request that a task responds to
//!   trace.rs                              the context of a trace, and what records it
//!   settings.rs client_rates.rs           the bounds; publish rates of addresses
//!   measures.rs exemplars.rs open.rs      what it counts as it works; the newest trace of each bucket; what is open
//!   metrics.rs family.rs                  its metrics; families of series
//!
//! engine.rs          the trait: what survives the process, what instances share
//!   positions.rs reply.rs health.rs       consumers' positions; an outcome now or later; what an engine says about itself
//!   settings.rs secret.rs                 which engine, and how it stores
//!   memory.rs        stores nothing, shares nothing
//!   disk.rs          one log of all topics in segments (log.rs), with group commit (commit.rs); read at the start (restore.rs);
//!                    `pub-sub repair` (repair.rs)
//!   nats.rs          streams and buckets that instances share: published to (append.rs, publish.rs), followed (follow.rs, messages.rs,
//!                    topics.rs, positions.rs), changed on condition (store.rs); publishers' ids (known_ids.rs, same_id.rs)
//!   position.rs      how a consumer's position is stored
//!   conformance.rs   what every engine is tested for; with the feature `test-support` alone
//!
//! channel.rs         a topic on this instance, whatever the engine: its locks are its own, others use its verbs
//!   append.rs restoring.rs                how messages get in: append, stage and commit, feed; and from a store at the start
//!   attach.rs reader.rs reading.rs        how readers begin and read
//!   info.rs page.rs lag.rs                what can be seen of it; pages of history; its subscriptions, and how far behind they are
//!   ring.rs          the history, which is the broadcast channel; ring/ages.rs: messages that grow too old; ring/keyed.rs: the newest
//!                    message of each key (holes.rs: reading it; compaction.rs: replacing; retention.rs: the setting); ring/state.rs: reading
//!                    the newest of each key
//!   recent_ids.rs    ids that outlive their messages
//!   clock.rs aging.rs                     the time of day and the time that nobody sets; which topics grow old by it
//!   waiter.rs inbox.rs                    a waiting subscription; how a connection learns of news
//!   silence.rs overdue.rs                 topics with expect_every; finding those in which nothing was published for too long
//!   subscriber.rs moment.rs count.rs      who it is; moments, to measure how long something took; counters for many threads
//!   deliveries.rs owner.rs                who delivers news without waking the connections' tasks; a connection as they see it
//!   sequencer.rs patterns.rs              the order that topics share, and positions over all of them; who reads by pattern
//!   registry.rs events.rs                 all topics, and lists of them (registry/listed.rs); what happens to them
//!   config.rs        a topic's settings, from the doors to the stores
//!   pattern.rs filter.rs overflow.rs consumer.rs            what a subscriber may ask for
//!   incarnation.rs                        what an engine knows of one
//!   name.rs payload.rs source.rs age.rs   types that are checked once, at the border
//!   message.rs new_message.rs publication.rs gap.rs cursor.rs timestamp.rs    what goes through a channel
//!   any_cursor.rs    a cursor of either kind
//! ```
//!
//! # A message's way
//!
//! socket -> door decodes into a topic's name and a new message, both checked by their types -> `Client::publish` ->
//! the engine accepts it, at once or later -> the ring: one lock, offset, push, unlock -> the topic is put into a
//! deliverer's queue -> position back to the publisher. The deliverer goes through the topic's subscriptions: for each
//! whose connection is idle it reads a bounded batch from the ring, writes what was rendered once for all who want the same
//! shape, and flushes once. A connection that is busy, that speaks HTTP, or that reads by a pattern finds the news in its
//! inbox, and its own task does the same. No forwarding task, no queue between the broker and the socket, no copy of the
//! payload on the way; back-pressure is the cursor standing still.
//!
//! # Architecture invariants
//!
//! - Architecture invariant: `broker` knows `engine`, which knows `channel`, which knows nothing else; none of them
//!   knows HTTP, GraphQL or a socket.
//! - Architecture invariant: subscribers read channels, and nothing but what an engine has stored is in a channel.
//! - Architecture invariant: doors (`graphql`, `rest`, `ws`) have a client of the broker for one principal, never the broker
//!   itself, and know neither each other nor `config`; only `server` knows all.
//! - Architecture invariant: `access` finds out who somebody is. What that one may do is decided in `broker`, in front of each
//!   operation of its client, and nowhere else.
//! - Architecture invariant: the rendering of a message does not depend on the principal, so that all who read it share it.
//! - Architecture invariant: `transfer` knows `engine`, `channel` and `config`, no broker and no door, and only `main`
//!   knows it.
//! - Architecture invariant: `cli` knows `client`, and neither knows a part of the server: they speak its protocols.
//! - Architecture invariant: only `problem` maps errors to codes and codes to statuses.
//! - Architecture invariant: no lock is held over an await; there is no unbounded queue; no subscriber can make a
//!   publisher wait.
//! - Architecture invariant: replay and live are one path, the ring; a gap is data and goes out at every door.
//! - Architecture invariant: a topic's locks are taken in `channel` alone, in the order that stands at `Channel`.
//! - Architecture invariant: no position passes a gap that was not delivered. A consumer's position moves when what
//!   stands before it was acknowledged, gaps too; that of a pattern follows the one order of all its topics.
//!
//! `tests/it/layers.rs` keeps those about who knows whom, and that no two files need each other.
//!
//! # Glossary
//!
//! - **topic**: a name under which messages are published. **Channel**: one incarnation of a topic on this instance.
//! - **incarnation**: a topic from its creation to its deletion. **epoch**: the random number that names it.
//! - **implicit topic**: one that a publish or a subscribe has made. It goes away when nothing uses it; to **adopt** it
//!   is to make it explicit, to **pin** it is to say that this instance needs it, and to **release** it is to say that
//!   it does not.
//! - **offset**: a message's number in its incarnation; it grows, on some engines by more than one.
//! - **cursor**: a position that clients hold: epoch and offset, or, of a pattern, one position in each log.
//! - **log**: an order that several topics share. **sequence**: a message's number in its log.
//! - **ring**: the bounded history of a channel. **floor**: the newest offset that it no longer keeps.
//! - **age**: how old the messages of a topic may become. **ttl**: the same for one message. A message beyond either is **too
//!   old**, and read by nobody. The **sweep** **reclaims** its memory later. **hollow**: of a message that was too old, or replaced,
//!   in the midst of the ring, the slot that stays.
//! - **removal**: a message that says that its key has no value any more. **retention**: which messages of a topic are kept: its
//!   history, or the newest one of each key. **replaced**: of a message there, that a newer one of its key has come. **hole**: where
//!   messages are missing in the midst of a ring. A removal is **forgotten** after `TOMBSTONE_TTL`.
//!   **key mark**: what the disk's log keeps of the newest message of a key that is not needed any more, as long as older ones may
//!   be there.
//! - **evicted**: left the ring because of a bound, or was too old at its front. **lost range**: offsets of which the engine has lost what there
//!   was.
//! - **gap**: the event that says what a subscriber missed, at that position in its stream.
//! - **new message**: a message to publish. **publication**: what its publisher learns: id, cursor, time.
//! - **append**: number and make readable at once. **stage**: number, while the store takes its time. **commit**: make
//!   what was staged readable. **roll back**: drop what was staged. **feed**: make readable what a store has numbered.
//!   **skip**: say that what was not fed is lost.
//! - **duplicate**: a publish whose id is known within the **dedup window**; it stores nothing and returns the first
//!   publication.
//! - **subscription**: what a client has. **waiter**: a subscription as its topic sees it. **reader**: its position in
//!   one topic.
//! - **inbox**: where a connection learns which of its subscriptions have news. **notifier**: a subscription's end of
//!   it.
//! - **deliverer**: a task that delivers a topic's news to those connections that are idle.
//! - **batch**: what one read returns, within a **batch limit**.
//! - **pattern**: a name with wildcards. **member**: one subscriber of a pattern.
//! - **consumer**: a name under which the server keeps a subscriber's **position**. **lease**: a subscription's hold on
//!   one.
//! - **in flight**: on its way to the client. **acknowledge**: say that it arrived, so that the consumer's position
//!   moves.
//! - **state** of a topic: of each key the newest kept message, unless that is a **removal**. A subscription that begins with it
//!   gets those messages, then the **marker** that says that they are all, then live ones. **superseded**: of a message, that a
//!   newer one of its key is kept.
//! - **overflow**: what a subscription chose for the case that it falls behind.
//! - **lag**: the messages that a subscription has not read, or that lie behind a consumer's position. **seek**: move a
//!   consumer to another position, forward or back.
//! - **origin**: scheme, host and port that a page in a browser comes from. **own origin**: this server's. **foreign**: one
//!   whose pages may not use this server.
//! - **engine**: where messages, topics and positions are stored. **door**: a transport: `graphql`, `rest`, `ws`.
//! - **principal**: on whose behalf something is done. Its name is that of a key, the `sub` of a token, or `anonymous`.
//! - **credential**: what a client sends to say who it is. **key**: random text; the server knows its hash. **token**: a
//!   JSON Web Token.
//! - **right**: publish, subscribe, manage or statistics. **grant**: what a credential allows, which may change and end. To
//!   **withdraw** a credential is to end its grant.
//! - **owner**: the principal whom a consumer belongs to.
//! - **registry**: all topics of an instance. **instance**: one process; with `ENGINE=nats` several share what they
//!   have.

// Each part's `fuzz` shows its private parts to the targets in `fuzz/`, in their builds alone.
#![cfg_attr(
    feature = "test-support",
    allow(missing_docs, reason = "what they show is private, and documented as such")
)]

pub mod access;
mod body;
pub mod broker;
pub mod browser;
pub mod channel;
pub mod config;
pub mod engine;
mod event_stream;
pub mod front;
pub mod graphql;
mod headers;
mod https;
pub mod listener;
pub mod metrics;
mod pages;
pub mod problem;
pub mod proxies;
mod query_string;
pub mod rest;
pub mod server;
pub mod socket;
mod streaming;
mod subscriptions;
pub mod telemetry;
pub mod traces;
pub mod transfer;
mod wire;
pub mod ws;

pub use server::serve;
