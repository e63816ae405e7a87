//! The servers under test: how each is started, and what is said to it.

use std::{
    env, io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    load::{
        connection::Opening,
        fleet::Wire,
        requests::{Request, Responses},
    },
    peers::{Peer, Publisher},
    plan::Plan,
    process::Server,
};
use benchmark::{frame, message};

/// A server under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    PubSub,
    /// Another build of it, which the user names.
    Base,
    BareTokio,
    BareEpoll,
    Ordinary,
    /// A server of others.
    Peer(Peer),
}

/// The interface at which a subscriber listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    Raw,
    GraphQl,
    EventStream,
}

/// How messages are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publishing {
    Raw,
    Post,
    Mutation,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Self::PubSub => "pub-sub",
            Self::Base => "base",
            Self::BareTokio => "bare tokio",
            Self::BareEpoll => "bare epoll, coalesced",
            Self::Ordinary => "ordinary Rust",
            Self::Peer(peer) => peer.name(),
        }
    }

    /// Starts the server.
    pub fn start(self, plan: &Plan, settings: &[(&str, &str)]) -> io::Result<Server> {
        Server::start(match self {
            Self::PubSub => pub_sub_command(&plan.pub_sub, settings),
            Self::Base => pub_sub_command(plan.against.as_deref().unwrap_or(&plan.pub_sub), settings),
            Self::BareTokio => own_server("bare-tokio")?,
            Self::BareEpoll => own_server("bare-epoll")?,
            Self::Ordinary => own_server("ordinary")?,
            Self::Peer(peer) => return peer.start(),
        })
    }

    /// Opens a subscriber of these topics, until the server has acknowledged as much as its protocol acknowledges.
    pub fn subscribe(
        self,
        address: SocketAddr,
        interface: Interface,
        topics: &[usize],
    ) -> io::Result<((TcpStream, Vec<u8>), Wire)> {
        if let Self::Peer(peer) = self {
            return peer.subscribe(address, topics);
        }
        let mut opening = Opening::connect(address)?;
        let wire = match interface {
            Interface::Raw => {
                opening.upgrade("/ws", None)?;
                for topic in topics {
                    opening.send_text(&format!(r#"{{"type":"subscribe","topic":"{}"}}"#, topic_name(*topic)))?;
                    opening.expect(r#""status":"ok""#)?;
                }
                Wire::WebSocket
            }
            Interface::GraphQl => {
                opening.upgrade("/graphql", Some("graphql-transport-ws"))?;
                opening.send_text(r#"{"type":"connection_init"}"#)?;
                opening.expect("connection_ack")?;
                for topic in topics {
                    opening.send_text(&subscribe_operation(*topic))?;
                }
                Wire::WebSocket
            }
            Interface::EventStream => {
                let topic = topic_name(*topics.first().unwrap_or(&0));
                let request = format!(
                    "GET /topics/{topic}/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
                );
                opening.request(request.as_bytes(), 200)?;
                Wire::Stream
            }
        };
        Ok((opening.finish()?, wire))
    }

    /// Opens the connection that publishes to subscribers.
    pub fn publisher(self, address: SocketAddr) -> io::Result<Publisher> {
        if let Self::Peer(peer) = self {
            return peer.publisher(address);
        }
        let mut opening = Opening::connect(address)?;
        opening.upgrade("/ws", None)?;
        let mark: &[u8] = if self.acknowledges() { br#""offset":"# } else { b"" };
        Ok((opening.finish()?, Wire::WebSocket, mark, Box::new(publish_frame)))
    }

    /// Whether publishes over its WebSocket are acknowledged.
    pub fn acknowledges(self) -> bool {
        matches!(self, Self::PubSub | Self::Base | Self::Ordinary)
    }

    /// Opens a connection that publishes.
    pub fn open_publishing(self, address: SocketAddr, publishing: Publishing) -> io::Result<Opening> {
        let mut opening = Opening::connect(address)?;
        if publishing == Publishing::Raw {
            opening.upgrade("/ws", None)?;
        }
        Ok(opening)
    }
}

impl Publishing {
    pub fn responses(self) -> Responses {
        if self == Self::Raw { Responses::WebSocket } else { Responses::Http }
    }

    /// The requests that publish messages to `topics` topics in turn.
    pub fn request(self, topics: usize) -> Request {
        Box::new(move |out, number| {
            let topic = number as usize % topics;
            match self {
                Self::Raw => publish_frame(out, number, topic),
                Self::Post => {
                    let body = format!(r#"{{"topic":"{}","data":{}}}"#, topic_name(topic), message::data(number));
                    push_post(out, "/publish", &body);
                }
                Self::Mutation => {
                    let query = "mutation Publish($topic: String!, $data: JSON!) { publish(topic: $topic, data: $data) \
                                 { messageId offset } }";
                    let body = format!(
                        r#"{{"query":"{query}","variables":{{"topic":"{}","data":{}}}}}"#,
                        topic_name(topic),
                        message::data(number)
                    );
                    push_post(out, "/graphql", &body);
                }
            }
        })
    }
}

/// The name of a topic.
pub fn topic_name(topic: usize) -> String {
    format!("t{topic}")
}

/// The GraphQL subscription to a topic, with the topic as its id.
pub fn subscribe_operation(topic: usize) -> String {
    let query = "subscription Messages($topic: String!) { messages(topic: $topic) { data offset } }";
    format!(
        r#"{{"id":"{topic}","type":"subscribe","payload":{{"query":"{query}","variables":{{"topic":"{}"}}}}}}"#,
        topic_name(topic)
    )
}

/// Appends the frame that publishes message `number`.
pub fn publish_frame(out: &mut Vec<u8>, number: u64, topic: usize) {
    let text = format!(r#"{{"type":"publish","topic":"{}","data":{}}}"#, topic_name(topic), message::data(number));
    frame::push_masked(out, frame::TEXT, text.as_bytes());
}

fn push_post(out: &mut Vec<u8>, path: &str, body: &str) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body.as_bytes());
}

fn pub_sub_command(binary: &Path, settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary);
    // None of the caller's settings counts, and no limit is met.
    command.env_clear().envs([
        ("HOST", "127.0.0.1"),
        ("PORT", "0"),
        ("LOG", "info"),
        ("MAX_PUBLISH_RATE", "0"),
        ("MAX_CONNECTIONS", "200000"),
        ("MAX_TOPICS", "1000000"),
    ]);
    command.envs(settings.iter().copied());
    command
}

/// One of the servers that are written to compare with.
pub fn own_server(kind: &str) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?.with_file_name("benchmark-servers"));
    command.arg(kind);
    Ok(command)
}

/// Where the server's release build is.
pub fn default_pub_sub() -> PathBuf {
    env::var_os("PUB_SUB_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/pub-sub"), PathBuf::from)
}
