//! Other servers that can be installed: how each is started, and its protocol.

use std::{
    env, fs, io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use benchmark::{frame, message};

use crate::{
    load::{
        connection::Opening,
        fleet::{Publish, Wire},
    },
    process::Server,
    targets::{publish_frame, subscribe_operation, topic_name},
};

/// A server of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Redis,
    Nats,
    Mosquitto,
    Ws,
    SocketIo,
    Yoga,
    Apollo,
    Mercurius,
}

/// All of them.
pub const ALL: [Peer; 8] =
    [Peer::Redis, Peer::Nats, Peer::Mosquitto, Peer::Ws, Peer::SocketIo, Peer::Mercurius, Peer::Apollo, Peer::Yoga];

/// The publisher's connection: its stream, how it is read, what an acknowledgement contains, and how messages are written.
pub type Publisher = ((TcpStream, Vec<u8>), Wire, &'static [u8], Publish);

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis pub/sub (TCP)",
            Self::Nats => "nats-server (TCP)",
            Self::Mosquitto => "mosquitto (MQTT, TCP)",
            Self::Ws => "npm ws",
            Self::SocketIo => "socket.io",
            Self::Yoga => "GraphQL Yoga + graphql-ws",
            Self::Apollo => "Apollo Server + graphql-ws",
            Self::Mercurius => "Mercurius",
        }
    }

    /// Whether its subscribers use GraphQL.
    pub fn is_graphql(self) -> bool {
        matches!(self, Self::Yoga | Self::Apollo | Self::Mercurius)
    }

    /// Whether it is installed.
    pub fn is_installed(self) -> bool {
        match self.script() {
            Some(script) => peers().join("node_modules").is_dir() && peers().join(script).is_file(),
            None => self.binary().is_some(),
        }
    }

    /// The Node.js program.
    fn script(self) -> Option<&'static str> {
        match self {
            Self::Ws => Some("ws.js"),
            Self::SocketIo => Some("socketio.js"),
            Self::Yoga => Some("yoga.js"),
            Self::Apollo => Some("apollo.js"),
            Self::Mercurius => Some("mercurius.js"),
            Self::Redis | Self::Nats | Self::Mosquitto => None,
        }
    }

    /// Where its binary is.
    pub fn binary(self) -> Option<PathBuf> {
        match self {
            Self::Redis => found("REDIS_SERVER", "redis-server"),
            Self::Nats => found("NATS_SERVER", "nats-server"),
            Self::Mosquitto => found("MOSQUITTO", "mosquitto"),
            _ => None,
        }
    }

    pub fn start(self) -> io::Result<Server> {
        if let Some(script) = self.script() {
            let mut command = Command::new("node");
            command.arg(peers().join(script)).env("NODE_ENV", "production");
            return Server::start(command);
        }
        let binary = self.binary().ok_or_else(|| io::Error::other("it is not installed"))?;
        let address = free_address()?;
        let port = address.port().to_string();
        let mut command = Command::new(binary);
        match self {
            Self::Redis => {
                command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
                command.args(["--maxclients", "15000"]);
            }
            Self::Nats => {
                command.args(["--addr", "127.0.0.1", "--port", &port]);
            }
            _ => {
                let file = scratch("mosquitto.conf")?;
                let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n");
                fs::write(&file, text)?;
                command.arg("-c").arg(file);
            }
        }
        Server::start_at(command, address)
    }

    /// Opens a subscriber of these topics.
    pub fn subscribe(self, address: SocketAddr, topics: &[usize]) -> io::Result<((TcpStream, Vec<u8>), Wire)> {
        let mut opening = self.open(address)?;
        for topic in topics {
            let name = topic_name(*topic);
            match self {
                Self::Redis => {
                    opening.send(format!("SUBSCRIBE {name}\r\n").as_bytes())?;
                    opening.skip_past(b":1\r\n")?;
                }
                Self::Nats => {
                    opening.send(format!("SUB {name} {}\r\nPING\r\n", topic + 1).as_bytes())?;
                    opening.skip_past(b"PONG\r\n")?;
                }
                Self::Mosquitto => {
                    opening.send(&mqtt_subscribe(&name))?;
                    // SUBACK of the one topic, at the best service that was asked for.
                    opening.skip_past(&[0x90, 3, 0, 1, 0])?;
                }
                Self::Ws => {
                    opening.send_text(&format!(r#"{{"type":"subscribe","topic":"{name}"}}"#))?;
                    opening.expect(r#""status":"ok""#)?;
                }
                Self::SocketIo => {
                    opening.send_text(&format!(r#"42["subscribe","{name}"]"#))?;
                    opening.expect("subscribed")?;
                }
                Self::Yoga | Self::Apollo | Self::Mercurius => opening.send_text(&subscribe_operation(*topic))?,
            }
        }
        Ok((opening.finish()?, self.wire()))
    }

    fn wire(self) -> Wire {
        if matches!(self, Self::Redis | Self::Nats | Self::Mosquitto) { Wire::Stream } else { Wire::WebSocket }
    }

    /// Opens a connection up to its first subscription.
    fn open(self, address: SocketAddr) -> io::Result<Opening> {
        let mut opening = Opening::connect(address)?;
        match self {
            Self::Redis => {}
            Self::Nats => {
                opening.send(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n")?;
                opening.skip_past(b"PONG\r\n")?;
            }
            Self::Mosquitto => {
                opening.send(&mqtt_connect())?;
                // CONNACK: accepted.
                opening.skip_past(&[0x20, 2, 0, 0])?;
            }
            Self::Ws => opening.upgrade("/ws", None)?,
            Self::SocketIo => {
                opening.upgrade("/socket.io/?EIO=4&transport=websocket", None)?;
                opening.expect("sid")?;
                opening.send_text("40")?;
                opening.expect("sid")?;
            }
            Self::Yoga | Self::Apollo | Self::Mercurius => {
                opening.upgrade("/graphql", Some("graphql-transport-ws"))?;
                opening.send_text(r#"{"type":"connection_init"}"#)?;
                opening.expect("connection_ack")?;
            }
        }
        Ok(opening)
    }

    /// Opens the connection that publishes.
    pub fn publisher(self, address: SocketAddr) -> io::Result<Publisher> {
        let opening = match self {
            Self::Yoga | Self::Apollo | Self::Mercurius => {
                let mut opening = Opening::connect(address)?;
                opening.upgrade("/ws", None)?;
                opening
            }
            _ => self.open(address)?,
        };
        let mark: &[u8] = if self == Self::Redis { b"\n" } else { b"" };
        Ok((opening.finish()?, self.wire(), mark, self.publish()))
    }

    fn publish(self) -> Publish {
        match self {
            Self::Redis => Box::new(|out, number, topic| {
                let (topic, data) = (topic_name(topic), message::data(number));
                let command =
                    format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{topic}\r\n${}\r\n{data}\r\n", topic.len(), data.len());
                out.extend_from_slice(command.as_bytes());
            }),
            Self::Nats => Box::new(|out, number, topic| {
                let data = message::data(number);
                out.extend_from_slice(format!("PUB {} {}\r\n{data}\r\n", topic_name(topic), data.len()).as_bytes());
            }),
            Self::Mosquitto => Box::new(|out, number, topic| {
                out.extend_from_slice(&mqtt_publish(&topic_name(topic), &message::data(number)));
            }),
            Self::SocketIo => Box::new(|out, number, topic| {
                let text = format!(r#"42["publish","{}",{}]"#, topic_name(topic), message::data(number));
                frame::push_masked(out, frame::TEXT, text.as_bytes());
            }),
            Self::Ws | Self::Yoga | Self::Apollo | Self::Mercurius => Box::new(publish_frame),
        }
    }
}

/// The directory of the Node.js servers.
fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// A binary that a variable names, or that is in the path.
fn found(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(PathBuf::from(path)).filter(|path| path.is_file());
    }
    let path = env::var_os("PATH")?;
    let system = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    env::split_paths(&path).chain(system).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// A free port. Somebody else may take it before the server does; then the server does not start, and says so.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// A file for settings, of this process alone.
pub fn scratch(name: &str) -> io::Result<PathBuf> {
    let directory = env::temp_dir().join(format!("pub-sub-benchmark-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    Ok(directory.join(name))
}

/// A packet of MQTT 3.1.1: its type and flags, then its length, then the rest.
fn mqtt_packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut length = body.len();
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        packet.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn mqtt_text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A clean session without a name and without keep-alive.
fn mqtt_connect() -> Vec<u8> {
    let mut body = mqtt_text("MQTT");
    body.extend_from_slice(&[4, 2, 0, 0]);
    body.extend_from_slice(&mqtt_text(""));
    mqtt_packet(0x10, &body)
}

fn mqtt_subscribe(topic: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend_from_slice(&mqtt_text(topic));
    body.push(0);
    mqtt_packet(0x82, &body)
}

fn mqtt_publish(topic: &str, data: &str) -> Vec<u8> {
    let mut body = mqtt_text(topic);
    body.extend_from_slice(data.as_bytes());
    mqtt_packet(0x30, &body)
}
