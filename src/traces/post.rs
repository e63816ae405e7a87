//! How spans get to the collector: the client that OpenTelemetry's exporter posts them with.

use std::{fmt, sync::Arc, time::Duration};

use async_graphql::async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{HttpClient, HttpError};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::{runtime::Handle, time::timeout};

/// How long the collector may take for one batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of its largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Posts on the server's runtime, whatever thread asks for it: OpenTelemetry exports from a thread of its own.
pub(super) struct Poster {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
}

impl Poster {
    /// A client that trusts the system's certificates. Called on the runtime that it posts on.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn new() -> Result<Self, String> {
        let mut trusted = RootCertStore::empty();
        trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), runtime: Handle::current() })
    }
}

impl fmt::Debug for Poster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poster")
    }
}

#[async_trait]
impl HttpClient for Poster {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = async move {
            let (parts, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?.to_bytes();
            Ok(Response::from_parts(parts, body))
        };
        // A task that is dropped with the runtime brings nothing.
        self.runtime.spawn(async move { timeout(TIMEOUT, exchange).await? }).await?
    }
}
