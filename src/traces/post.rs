//! How spans get to the collector: the client that OpenTelemetry's exporter posts them with.

use std::{fmt, time::Duration};

use async_graphql::async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::{runtime::Handle, time::timeout};

use crate::https::{self, HttpsClient};

/// How long the collector may take for one batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of its largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Posts on the server's runtime, whatever thread asks for it: OpenTelemetry exports from a thread of its own.
pub(super) struct Poster {
    client: HttpsClient,
    runtime: Handle,
}

impl Poster {
    /// A client that trusts the system's certificates. Called on the runtime that it posts on.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn new() -> Result<Self, String> {
        Ok(Self { client: https::client(https::system_roots(), |_| {})?, runtime: Handle::current() })
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
