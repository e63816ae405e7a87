//! A WebSocket of the server.

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::{Uri, header::HeaderValue};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        error::ProtocolError,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{Address, Answered, Failure, Refusal};

/// The bytes of a connection, encrypted or not.
pub(super) type Stream = TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>;

/// What a WebSocket carries.
#[derive(Debug)]
pub enum SocketItem {
    /// One JSON object.
    Text(String),
    /// The server asks whether what it has sent has arrived. The next call of [`WebSocket::next`] answers.
    Ping,
}

/// An open WebSocket.
pub struct WebSocket {
    stream: WebSocketStream<Stream>,
    address: Address,
}

impl WebSocket {
    pub(super) async fn open(
        stream: Stream,
        uri: Uri,
        protocol: Option<&'static str>,
        authorization: Option<&HeaderValue>,
        address: &Address,
    ) -> Result<Self, Failure> {
        let mut request = uri.into_client_request().map_err(|error| failure(error, address))?;
        let headers = request.headers_mut();
        if let Some(value) = authorization {
            headers.insert("authorization", value.clone());
        }
        if let Some(protocol) = protocol {
            headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
        }
        let (stream, _) = client_async(request, stream).await.map_err(|error| failure(error, address))?;
        Ok(Self { stream, address: address.clone() })
    }

    /// Sends one text.
    ///
    /// # Errors
    /// [`Failure::Connection`].
    pub async fn send(&mut self, text: impl Into<String>) -> Result<(), Failure> {
        let sent = self.stream.send(Message::text(text.into())).await;
        sent.map_err(|error| failure(error, &self.address))
    }

    /// Takes one text, which a later [`WebSocket::flush`] sends.
    ///
    /// # Errors
    /// [`Failure::Connection`].
    pub async fn feed(&mut self, text: impl Into<String>) -> Result<(), Failure> {
        let taken = self.stream.feed(Message::text(text.into())).await;
        taken.map_err(|error| failure(error, &self.address))
    }

    /// Sends what was taken, and answers a ping.
    ///
    /// # Errors
    /// [`Failure::Connection`].
    pub async fn flush(&mut self) -> Result<(), Failure> {
        self.stream.flush().await.map_err(|error| failure(error, &self.address))
    }

    /// The next item.
    ///
    /// # Errors
    /// [`Failure::Connection`] when the connection has ended; [`Failure::Refused`] if the server has ended it because it
    /// knows no valid credential.
    pub async fn next(&mut self) -> Result<SocketItem, Failure> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(SocketItem::Text(text.as_str().to_owned())),
                Some(Ok(Message::Ping(_))) => return Ok(SocketItem::Ping),
                Some(Ok(Message::Close(close))) => return Err(self.closed(close)),
                Some(Ok(Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Err(failure(error, &self.address)),
                None => return Err(self.closed(None)),
            }
        }
    }

    fn closed(&self, close: Option<CloseFrame>) -> Failure {
        let Some(CloseFrame { code, reason }) = close else { return ended(&self.address) };
        let message = format!("{} closed the connection with {}: {reason}", self.address, u16::from(code));
        match code {
            // Nobody has signed in, or the credential is not valid any more.
            CloseCode::Library(4401 | 4403) => {
                Failure::Refused(Refusal { code: "UNAUTHENTICATED".to_owned(), message, retry_after: None })
            }
            _ => Failure::Connection(message),
        }
    }
}

fn ended(address: &Address) -> Failure {
    Failure::Connection(format!("{address} closed the connection"))
}

fn failure(error: Error, address: &Address) -> Failure {
    match error {
        Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let text = String::from_utf8_lossy(body).into_owned();
            Failure::of_response(&Answered { status: response.status(), retry_after: None, text }, address)
        }
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing) => {
            ended(address)
        }
        error => Failure::of(&error, address),
    }
}
