//! A GraphQL-fronted publish/subscribe service. **No silent loss**: a subscriber gets every message of its topic, in order,
//! once; where it could not, the stream says at that position how many it missed and which.
//!
//! # The map
//!
//! ```text
//! main.rs            the command line: settings, log, bind, serve, exit code
//! config.rs          gathers every part's settings; config/keys.rs is the one table of them
//! server.rs          joins the doors, stops in good order
//! listener.rs        accepts connections, serves HTTP over them
//!
//! graphql.rs         /graphql: schema and executor are async-graphql's, the transports are ours
//!   http.rs ws.rs stream.rs single.rs     over HTTP, WebSocket, event streams; one event stream for many operations
//!   request.rs response.rs accept.rs      requests as all transports write them; responses; which form is wanted
//!   document.rs persisted.rs generations.rs    checks a document before async-graphql sees it; documents by hash; caches
//!   execute.rs                            prepares, executes; renders each message once per shape
//!   query.rs mutation.rs subscription.rs types.rs scalars.rs json.rs    the schema
//!   subgraph.rs                           the schema for a router
//! rest.rs            /topics /publish /stats /health, pages and plain event streams
//! ws.rs              /ws: one JSON object a frame
//! metrics.rs         /metrics for Prometheus, gathered from the parts
//! pages.rs           the pages for browsers
//! transfer.rs        `pub-sub export` and `import`: what an engine keeps as lines of JSON, and back into any engine
//!
//! socket.rs          WebSockets for the doors: upgrade, frames, what a door says (protocol.rs), one task each (connection.rs)
//! subscriptions.rs   the subscriptions of one connection, by key and by the client's name
//! streaming.rs       response bodies that are streams; event_stream.rs: how server-sent events are written
//! wire.rs            the JSON that the doors share: writing it; fields.rs, options.rs: reading it
//! headers.rs         headers as RFC 9110 writes them; body.rs: reading request bodies
//! problem.rs         the one table: error -> code -> status, and the error object of all doors
//! telemetry.rs       the log
//!
//! broker.rs          publishing, subscribing, history, limits; no transport
//!   client.rs                             what doors have of it, for one principal
//!   subscribe.rs subscribe_pattern.rs     where a subscription begins
//!   subscription.rs consumer.rs           what it reads, whose position it moves
//!   publish.rs consumers.rs               publishing; consumers from outside a subscription
//!
//! engine.rs          the seam: what survives the process, what instances share
//!   memory.rs        nothing, and nothing
//!   disk.rs          one log of all topics in segments (log.rs), with group commit (commit.rs); read at the start (restore.rs);
//!                    `pub-sub repair` (repair.rs)
//!   nats.rs          streams and buckets that instances share: published to (publish.rs), followed (follow.rs, messages.rs,
//!                    topics.rs, positions.rs), changed on condition (store.rs); publishers' ids (known_ids.rs, same_id.rs)
//!   position.rs      how a consumer's position is stored
//!   conformance.rs   what every engine is asked for
//!
//! channel.rs         a topic on this instance, whatever the engine
//!   ring.rs reader.rs inbox.rs            history and broadcast channel in one; cursors; how a connection learns of news
//!   page.rs recent_ids.rs                 pages of history; ids that outlive their messages
//!   sequencer.rs                          the order that topics share, and positions over all of them
//!   registry.rs events.rs                 all topics, and what happens to them
//!   pattern.rs filter.rs consumer.rs      what a subscriber may ask for
//!   name.rs payload.rs message.rs         types that are checked once, at the border
//! ```
//!
//! # A message's way
//!
//! socket -> door decodes into a topic's name and a new message, both checked by their types -> `Client::publish` -> the engine
//! accepts it, at once or later -> the ring: one lock, offset, push, unlock -> waiting subscriptions are put into their
//! connections' inboxes -> position back to the publisher. Each connection's own task wakes, reads a bounded batch from the
//! ring, writes what was rendered once for all who want the same shape, and flushes once. No forwarding task, no queue
//! between the broker and the socket, no copy of the payload on the way; back-pressure is the cursor standing still.
//!
//! # Architecture invariants
//!
//! - Architecture invariant: `broker` knows `engine`, which knows `channel`, which knows nothing else; none of them knows
//!   HTTP, GraphQL or a socket.
//! - Architecture invariant: subscribers read channels, and nothing but what an engine has stored is in a channel.
//! - Architecture invariant: doors (`graphql`, `rest`, `ws`) have a client of the broker for one principal, never the broker
//!   itself, and know neither each other nor `config`; only `server` knows all.
//! - Architecture invariant: `transfer` knows `engine`, `channel` and `config`, no broker and no door, and only `main`
//!   knows it.
//! - Architecture invariant: only `problem` maps errors to codes and codes to statuses.
//! - Architecture invariant: no lock is held over an await; there is no unbounded queue; no subscriber can make a publisher
//!   wait.
//! - Architecture invariant: replay and live are one path, the ring; a gap is data and goes out at every door.
//! - Architecture invariant: no position passes a gap that was not told. A consumer's moves when what stands before it was
//!   confirmed or acknowledged, gaps too; that of a pattern follows the one order of all its topics.
//!
//! `tests/it/layers.rs` keeps those about who knows whom.

// Each part's `fuzz` shows its private parts to the targets in `fuzz/`, in their builds alone.
#![cfg_attr(fuzzing, allow(missing_docs, reason = "what they show is private, and documented as such"))]

mod body;
pub mod broker;
pub mod channel;
pub mod config;
pub mod engine;
mod event_stream;
pub mod graphql;
mod headers;
pub mod listener;
pub mod metrics;
mod pages;
pub mod problem;
pub mod rest;
pub mod server;
pub mod socket;
mod streaming;
mod subscriptions;
pub mod telemetry;
pub mod transfer;
mod wire;
pub mod ws;

pub use server::serve;
