//! A connection before its first request: what a proxy says of it, and the handshake of TLS.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{ahead::Ahead, proxy_header, stream::HttpStream, tls};
use crate::problem::{Code, Problem};

/// A socket, and what was read of it before its turn.
pub(super) type Socket = Ahead<TcpStream>;

impl Socket {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, read: Bytes::new() }
    }

    /// Writes at once or not at all.
    pub fn try_write(&self, bytes: &[u8]) {
        let _ = self.stream.try_write(bytes);
    }

    /// Reads the first bytes if none were read yet, and returns the very first. They stay to be read.
    async fn first_byte(&mut self) -> io::Result<u8> {
        if self.read.is_empty() {
            let mut piece = [0; 1 << 10];
            let bytes = self.stream.read(&mut piece).await?;
            self.read = Bytes::copy_from_slice(&piece[..bytes]);
        }
        self.read.first().copied().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// A connection that was accepted, and nothing more.
pub(super) struct Arrival {
    pub socket: Socket,
    /// The client's address: at first that of the socket's other end.
    pub peer: SocketAddr,
    /// Whether a header of the PROXY protocol may come. It may only from a trusted proxy, and only once.
    pub may_be_proxied: bool,
    /// Whether TLS is spoken at the port to which it came.
    pub is_tls: bool,
    /// When it must have come to its first request.
    pub until: Instant,
}

/// A connection that is ready for HTTP.
pub(super) enum Opened {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Arrival {
    /// Reads what a trusted proxy says of the connection. Without a header, or where the proxy speaks for itself, nothing changes.
    pub async fn read_proxy_header(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.may_be_proxied) {
            let Socket { stream, read } = &mut self.socket;
            let mut ahead = Vec::new();
            self.peer = proxy_header::read(stream, &mut ahead, self.until).await?.unwrap_or(self.peer);
            *read = ahead.into();
        }
        Ok(())
    }

    /// Does the handshake, if there is one to do.
    pub async fn open(mut self, acceptor: Option<TlsAcceptor>) -> io::Result<Opened> {
        let Some(acceptor) = acceptor.filter(|_| self.is_tls) else { return Ok(Opened::Plain(self.socket)) };
        let until = self.until;
        let handshake = async {
            // Every request of plain HTTP begins with the capital letter of a method, and no handshake does.
            if self.socket.first_byte().await?.is_ascii_uppercase() {
                refuse_plain_http(self.socket).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP where TLS is spoken"));
            }
            acceptor.accept(self.socket).await
        };
        timeout_at(until, handshake).await?.map(|stream| Opened::Tls(Box::new(stream)))
    }
}

/// Tells a client in plain HTTP that this port speaks TLS.
async fn refuse_plain_http(socket: Socket) {
    let problem =
        Problem::new(Code::BadRequest, "this port speaks TLS: the address must begin with https:// or wss://");
    let body = serde_json::to_string(&problem.body()).unwrap_or_default();
    let response = format!(
        "HTTP/1.1 {}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        problem.status(),
        body.len()
    );
    // The request was not read to its end, and the client is to read the response all the same.
    let mut stream = HttpStream::new(socket, Arc::new(AtomicBool::new(true)));
    if stream.write_all(response.as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

impl Opened {
    /// The subject of the client's certificate.
    pub fn subject(&self) -> Option<Arc<str>> {
        match self {
            Opened::Plain(_) => None,
            Opened::Tls(stream) => tls::subject(stream.get_ref().1.peer_certificates()?.first()?),
        }
    }

    /// Whether the client has chosen HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self, Opened::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(tls::HTTP_2))
    }
}
