//! Fetches a set of keys.

#[cfg(test)]
mod tests;

use std::{error::Error, net::IpAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, Uri, header};
use rustls::RootCertStore;
use tokio::time::timeout;

use super::{KeySet, jwks};
use crate::https::{self, HttpsClient};

/// Bytes of the largest answer that is read.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// How long an answer may take, from the connection to its last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches the keys at one address. Redirects are not followed: they would let the server of the keys choose any other.
pub(super) struct Fetcher {
    uri: Uri,
    client: HttpsClient,
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
        let is_https = uri.scheme_str() == Some("https");
        let trusted = if is_https { https::system_roots() } else { RootCertStore::empty() };
        if is_https && trusted.is_empty() {
            return Err("this system has no trusted certificates, which https needs".to_owned());
        }
        Self::trusting(uri, trusted)
    }

    fn trusting(uri: Uri, trusted: RootCertStore) -> Result<Self, String> {
        // The next fetch is minutes away.
        let client = https::client(trusted, |builder| _ = builder.pool_max_idle_per_host(0))?;
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
            .body(Full::default())
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
