//! A server, as its clients reach it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, Uri, body::Incoming, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::time::timeout;
use tower::{Service as _, ServiceExt as _};

use super::{Address, Answered, EventStream, Failure, Trust, WebSocket, web_socket::Stream};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a response may take. A server waits for its engine, at the most for about half of that.
const RESPONSE_TIMEOUT: Duration = Duration::from_mins(1);
/// Bytes of the largest response that is read. A page of messages has at most a few MiB.
const MAX_RESPONSE_BYTES: usize = 256 << 20;
/// A connection on which nothing arrives for this long is probed by the kernel, so that one that is dead is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Probes without an answer after which the connection is dead.
const KEEP_ALIVE_PROBES: u32 = 3;

/// What a client needs to reach a server.
#[derive(Clone, Debug)]
pub struct Access {
    /// Where it is.
    pub address: Address,
    /// A key or a token.
    pub token: Option<String>,
    /// Certificates.
    pub trust: Trust,
}

/// A server, as its clients reach it. Requests share connections.
#[derive(Clone)]
pub struct Remote {
    address: Address,
    authorization: Option<header::HeaderValue>,
    connector: HttpsConnector<HttpConnector>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Remote {
    /// Prepares to reach a server, and does not connect.
    ///
    /// # Errors
    /// A token that no header can have, or a certificate that cannot be read.
    pub fn new(access: &Access) -> Result<Self, String> {
        let bearer = |token: &String| {
            let value = header::HeaderValue::from_str(&format!("Bearer {}", token.trim()));
            value.map_err(|_| "--token: has characters that no key or token has".to_owned())
        };
        let mut authorization = access.token.as_ref().map(bearer).transpose()?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_keepalive(Some(KEEP_ALIVE));
        http.set_keepalive_interval(Some(KEEP_ALIVE));
        http.set_keepalive_retries(Some(KEEP_ALIVE_PROBES));
        let tls = access.trust.config(access.address.is_tls())?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new()).build(connector.clone());
        Ok(Self { address: access.address.clone(), authorization, connector, client })
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request with a JSON body, if it has one, and returns the text of the response.
    ///
    /// # Errors
    /// Every [`Failure`]; a status of 400 and more is one.
    pub async fn send(&self, method: Method, path: &str, body: Option<String>) -> Result<String, Failure> {
        let answered = self.exchange(method, path, body).await?;
        if answered.status.is_success() {
            Ok(answered.text)
        } else {
            Err(Failure::of_response(&answered, &self.address))
        }
    }

    /// Sends a request and returns the response, whatever its status is.
    ///
    /// # Errors
    /// [`Failure::Connection`], and a response that is too large.
    pub async fn exchange(&self, method: Method, path: &str, body: Option<String>) -> Result<Answered, Failure> {
        let exchange = async {
            let response = self.request(method, path, "application/json", body).await?;
            self.answered(response).await
        };
        timeout(RESPONSE_TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| Err(Failure::timeout(&self.address, RESPONSE_TIMEOUT)))
    }

    /// Opens an event stream.
    ///
    /// # Errors
    /// Every [`Failure`].
    pub async fn event_stream(&self, path: &str) -> Result<EventStream, Failure> {
        let opened = timeout(RESPONSE_TIMEOUT, self.request(Method::GET, path, "text/event-stream", None)).await;
        let response = opened.map_err(|_| Failure::timeout(&self.address, RESPONSE_TIMEOUT))??;
        if !response.status().is_success() {
            return Err(Failure::of_response(&self.answered(response).await?, &self.address));
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Err(Failure::Answer(format!("what {} sends is no event stream", self.address)));
        }
        Ok(EventStream::new(response.into_body(), self.address.clone()))
    }

    /// Opens a WebSocket, with a subprotocol if one is named.
    ///
    /// # Errors
    /// Every [`Failure`].
    pub async fn web_socket(&self, path: &str, protocol: Option<&'static str>) -> Result<WebSocket, Failure> {
        let opened = async {
            let stream = self.connect(self.uri(path)?).await?;
            let uri = self.address.web_socket(path).map_err(Failure::Answer)?;
            WebSocket::open(stream, uri, protocol, self.authorization.as_ref(), &self.address).await
        };
        timeout(RESPONSE_TIMEOUT, opened)
            .await
            .unwrap_or_else(|_| Err(Failure::timeout(&self.address, RESPONSE_TIMEOUT)))
    }

    async fn connect(&self, uri: Uri) -> Result<Stream, Failure> {
        let mut connector = self.connector.clone();
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| Failure::of(&*error, &self.address);
        let ready = connector.ready().await.map_err(failed)?;
        Ok(TokioIo::new(ready.call(uri).await.map_err(failed)?))
    }

    fn uri(&self, path: &str) -> Result<Uri, Failure> {
        self.address.http(path).map_err(Failure::Answer)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
        body: Option<String>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.uri(path)?)
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, concat!("pub-sub/", env!("CARGO_PKG_VERSION")));
        if let Some(value) = &self.authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body.unwrap_or_default()));
        let request = request.map_err(|error| Failure::Answer(error.to_string()))?;
        self.client.request(request).await.map_err(|error| Failure::of(&error, &self.address))
    }

    async fn answered(&self, response: Response<Incoming>) -> Result<Answered, Failure> {
        let status = response.status();
        let wait = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let read = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await;
        let bytes = read.map_err(|error| Failure::of(&*error, &self.address))?.to_bytes();
        let text = String::from_utf8(bytes.into())
            .map_err(|_| Failure::Answer(format!("the response of {} is not UTF-8", self.address)))?;
        Ok(Answered { status, retry_after: wait.map(Duration::from_secs), text })
    }
}
