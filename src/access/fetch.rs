//! Fetches a set of keys.

#[cfg(test)]
mod tests;

use std::{error::Error, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::time::timeout;

use super::{KeySet, jwks};

/// Bytes of the largest answer that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// How long an answer may take, from the connection to its last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches the keys at one address. Redirects are not followed: they would let the server of the keys choose any other.
pub(super) struct Fetcher {
    uri: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// Checks the address of a set of keys: `https`, or `http` on this machine alone, because whoever can change the answer on
/// its way can make tokens.
///
/// # Errors
/// What is wrong, without the address.
pub(super) fn check_url(url: &str) -> Result<Uri, &'static str> {
    let uri: Uri = url.parse().map_err(|_| "must be a URL like https://example.com/.well-known/jwks.json")?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("must be a URL like https://example.com/.well-known/jwks.json");
    };
    if authority.as_str().contains('@') {
        return Err("must not contain a user or a password");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.parse().map_or(host == "localhost", |address: IpAddr| address.is_loopback());
    match scheme {
        "https" => Ok(uri),
        "http" if is_loopback => Ok(uri),
        "http" => Err("must be https; http is only for localhost, 127.0.0.1 and [::1]"),
        _ => Err("must begin with https://"),
    }
}

impl Fetcher {
    /// Prepares to fetch from an address, with the certificates that the system trusts.
    ///
    /// # Errors
    /// What is wrong, without the address.
    pub fn new(url: &str) -> Result<Self, String> {
        let uri = check_url(url)?;
        let mut trusted = RootCertStore::empty();
        if uri.scheme_str() == Some("https") {
            let system = rustls_native_certs::load_native_certs();
            trusted.add_parsable_certificates(system.certs);
            if trusted.is_empty() {
                return Err("this system has no trusted certificates, which https needs".to_owned());
            }
        }
        Self::trusting(uri, trusted)
    }

    fn trusting(uri: Uri, trusted: RootCertStore) -> Result<Self, String> {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        // The next fetch is minutes away.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { uri, client })
    }

    /// Fetches the keys.
    ///
    /// # Errors
    /// What went wrong, in one line. It contains nothing of the answer.
    pub async fn fetch(&self) -> Result<KeySet, String> {
        let fetched = timeout(FETCH_TIMEOUT, self.answer()).await;
        let answer = fetched.map_err(|_| format!("no complete answer within {} s", FETCH_TIMEOUT.as_secs()))??;
        jwks::parse(&answer).map_err(|wrong| format!("the answer {wrong}"))
    }

    async fn answer(&self) -> Result<Bytes, String> {
        let request = Request::get(self.uri.clone())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, concat!("pub-sub/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| causes(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("the answer has the status {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| {
            let too_large = error.is::<http_body_util::LengthLimitError>();
            if too_large { "the answer is larger than 1 MiB".to_owned() } else { causes(&*error) }
        })
    }
}

/// An error with its causes: the outermost one alone says little.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
