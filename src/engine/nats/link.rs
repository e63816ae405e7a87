//! The connection to the cluster, and its state.

use std::{
    borrow::Cow,
    error::Error as _,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerAddr,
    connection::State,
    jetstream::{self, context::ContextBuilder},
};
use percent_encoding::percent_decode_str;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::Settings;

/// The oldest server that the engine can rely on. Earlier ones refuse a retried id as a duplicate although it was
/// never stored, or lose streams in a crash.
const MIN_SERVER_VERSION: [u64; 3] = [2, 10, 26];

/// How long the start waits for the first connection, so that a permanent error stops the start.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How often an idle connection is pinged. It is given up when two pings were not answered.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// How long one attempt to publish waits for the cluster's reply before the message is sent again.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The limit for publishes in flight. It is several times the limit of the engine's own queue, because the client
/// also counts those whose response nobody waits for any more.
const MAX_IN_FLIGHT: usize = 64 << 10;

/// How many messages may wait for one of the engine's live feeds. The client drops what does not fit, and it is read
/// again from the store.
const FEED_CAPACITY: usize = 64 << 10;

/// The connection.
#[derive(Clone)]
pub(super) struct Link {
    pub client: Client,
    pub jetstream: jetstream::Context,
    state: Arc<LinkState>,
}

struct LinkState {
    /// Increases with every event after which messages may have been missed.
    disturbances: watch::Sender<u64>,
    /// Since when there is no connection, in milliseconds after `began`, or 0 while there is one.
    down_since: AtomicU64,
    reconnects: AtomicU64,
    /// Whether there was ever a connection to a server.
    was_connected: AtomicBool,
    began: Instant,
}

impl LinkState {
    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn handle_event(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.down_since.store(0, Ordering::Release);
                if self.was_connected.swap(true, Ordering::AcqRel) {
                    self.reconnects.fetch_add(1, Ordering::Relaxed);
                    tracing::info!("connected to NATS again");
                } else {
                    tracing::info!("connected to NATS");
                }
            }
            Event::Disconnected => {
                self.down_since.store(self.millis(), Ordering::Release);
                tracing::warn!("the connection to NATS is lost");
            }
            Event::SlowConsumer(_) => tracing::warn!("a feed from NATS overflowed; the missed messages are read again"),
            Event::LameDuckMode => {
                tracing::info!("the NATS server is shutting down; the client connects to another one");
            }
            Event::Draining | Event::Closed => return,
            Event::ServerError(error) => tracing::warn!(%error, "NATS reports an error"),
            Event::ClientError(error) => tracing::debug!(%error, "the connection to NATS fails"),
        }
        self.disturbances.send_modify(|count| *count += 1);
    }
}

impl Link {
    /// Connects. If no server can be reached yet, the client keeps trying.
    ///
    /// # Errors
    /// Returns one line that names the setting, for errors that waiting does not solve.
    pub async fn open(settings: &Settings) -> Result<Self, String> {
        let state = Arc::new(LinkState {
            disturbances: watch::Sender::new(0),
            down_since: AtomicU64::new(1),
            reconnects: AtomicU64::new(0),
            was_connected: AtomicBool::new(false),
            began: Instant::now(),
        });
        let options = || -> Result<ConnectOptions, String> {
            let listener = state.clone();
            let options = options(settings)?.event_callback(move |event| {
                listener.handle_event(&event);
                std::future::ready(())
            });
            Ok(options)
        };
        let urls = settings.servers()?;
        // The first attempt is made in the foreground, so that wrong credentials and certificates are reported at the
        // start and not retried for ever.
        let client = match timeout(CONNECT_TIMEOUT, options()?.connect(&urls[..])).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) if is_final(&error) => return Err(format!("NATS_URL: {error}")),
            unreachable => {
                let reason = match unreachable {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no response within {CONNECT_TIMEOUT:?}"),
                };
                tracing::warn!(reason, "NATS cannot be reached yet; the client keeps trying");
                let connecting = options()?.retry_on_initial_connect().connect(&urls[..]).await;
                connecting.map_err(|error| format!("NATS_URL: {error}"))?
            }
        };
        let jetstream = ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            .ack_timeout(ATTEMPT_TIMEOUT)
            .max_ack_inflight(MAX_IN_FLIGHT)
            .backpressure_on_inflight(false)
            .build(client.clone());
        let link = Self { client, jetstream, state };
        link.check_version().map(|_| link)
    }

    /// Returns whether the connected server is new enough, or `false` without a connection.
    ///
    /// # Errors
    /// Returns one line about a server that is too old.
    pub fn check_version(&self) -> Result<bool, String> {
        if !self.is_up() {
            return Ok(false);
        }
        let version = self.client.server_info().version;
        let number = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().ok();
        let mut parts = version.split('.').map(|part| number(part).unwrap_or(0));
        let found = [(); 3].map(|()| parts.next().unwrap_or(0));
        if found < MIN_SERVER_VERSION {
            let [major, minor, patch] = MIN_SERVER_VERSION;
            return Err(format!(
                "NATS_URL: nats-server {version} is too old: {major}.{minor}.{patch} or newer is needed"
            ));
        }
        Ok(true)
    }

    pub fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Returns how long there has been no connection.
    pub fn down_for(&self) -> Duration {
        match self.state.down_since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.state.millis().saturating_sub(since)),
        }
    }

    pub fn reconnects(&self) -> u64 {
        self.state.reconnects.load(Ordering::Relaxed)
    }

    /// Returns a receiver that changes with every event after which messages may have been missed.
    pub fn disturbances(&self) -> watch::Receiver<u64> {
        self.state.disturbances.subscribe()
    }

    /// Returns the size of the largest message, headers included, that the server accepts, or `None` before the first
    /// connection.
    pub fn max_payload(&self) -> Option<usize> {
        let most = self.client.server_info().max_payload;
        (most > 0).then_some(most)
    }
}

/// Returns whether the error is one that a retry does not solve.
fn is_final(error: &ConnectError) -> bool {
    match error.kind() {
        ConnectErrorKind::ServerParse
        | ConnectErrorKind::Authentication
        | ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::Tls => true,
        // The TLS library reports problems with either side's certificate like this.
        ConnectErrorKind::Io => {
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            source.is_some_and(|source| source.kind() == io::ErrorKind::InvalidData)
        }
        _ => false,
    }
}

/// What the servers' URLs say of who connects: a user with a password, or a token. The client library does not read it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct UrlLogin {
    user: String,
    password: Option<String>,
}

/// # Errors
/// One line that names the setting, if the URLs disagree: the client library logs in everywhere in the same way.
pub(super) fn url_login(servers: &[ServerAddr]) -> Result<Option<UrlLogin>, String> {
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(Cow::into_owned).map_err(|_| "NATS_URL: the user or the password is not UTF-8 text".to_owned())
    };
    let mut found: Option<UrlLogin> = None;
    for server in servers {
        let Some(user) = server.username() else { continue };
        let login = UrlLogin { user: decoded(user)?, password: server.password().map(decoded).transpose()? };
        if found.as_ref().is_some_and(|found| *found != login) {
            return Err("NATS_URL: all servers must have the same user and password".to_owned());
        }
        found = Some(login);
    }
    Ok(found)
}

fn options(settings: &Settings) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions::new()
        .name("pub-sub")
        .ping_interval(PING_INTERVAL)
        .connection_timeout(Duration::from_secs(3))
        .request_timeout(Some(Duration::from_secs(5)))
        .subscription_capacity(FEED_CAPACITY)
        // The client reconnects soon, and a random part keeps the instances from reconnecting all at once.
        .reconnect_delay_callback(|attempts| {
            let step = Duration::from_millis(50 << attempts.min(5));
            step + Duration::from_millis(uuid::Uuid::new_v4().as_u64_pair().0 % 100)
        });
    options = with_login(options, settings)?;
    let file = |name: &str, path: &str| -> Result<std::path::PathBuf, String> {
        // The file is read here, so that an error names the setting.
        std::fs::read(path).map_err(|error| format!("{name}: {path}: {error}"))?;
        Ok(path.into())
    };
    if !settings.tls_ca.is_empty() {
        options = options.add_root_certificates(file("NATS_TLS_CA", &settings.tls_ca)?);
    }
    match (settings.tls_cert.as_str(), settings.tls_key.as_str()) {
        ("", "") => {}
        ("", _) => return Err("NATS_TLS_KEY: needs NATS_TLS_CERT beside it".to_owned()),
        (_, "") => return Err("NATS_TLS_CERT: needs NATS_TLS_KEY beside it".to_owned()),
        (cert, key) => {
            options = options.add_client_certificate(file("NATS_TLS_CERT", cert)?, file("NATS_TLS_KEY", key)?);
        }
    }
    Ok(match settings.tls.as_str() {
        "first" => options.require_tls(true).tls_first(),
        "on" => options.require_tls(true),
        _ => options,
    })
}

/// Adds the credentials: those of the settings, else those of the URLs.
fn with_login(mut options: ConnectOptions, settings: &Settings) -> Result<ConnectOptions, String> {
    let Settings { user, password, token, nkey, credentials, .. } = settings;
    if !user.is_empty() {
        options = options.user_and_password(user.clone(), password.reveal().to_owned());
    }
    if !token.is_empty() {
        options = options.token(token.reveal().to_owned());
    }
    if !nkey.is_empty() {
        options = options.nkey(nkey.reveal().to_owned());
    }
    if !credentials.is_empty() {
        let path = credentials;
        let text = std::fs::read_to_string(path).map_err(|error| format!("NATS_CREDENTIALS: {path}: {error}"))?;
        options = options.credentials(&text).map_err(|error| format!("NATS_CREDENTIALS: {path}: {error}"))?;
    }
    if !user.is_empty() || !token.is_empty() || !nkey.is_empty() || !credentials.is_empty() {
        return Ok(options);
    }
    Ok(match url_login(&settings.servers()?)? {
        Some(UrlLogin { user, password: Some(password) }) => options.user_and_password(user, password),
        Some(UrlLogin { user: token, password: None }) => options.token(token),
        None => options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_who_connects() {
        let login = |urls: &str| {
            let servers: Vec<ServerAddr> = urls.split(',').map(|url| url.parse().unwrap()).collect();
            url_login(&servers).map(|login| login.map(|login| (login.user, login.password)))
        };
        let user = |user: &str, password: Option<&str>| Ok(Some((user.to_owned(), password.map(str::to_owned))));
        assert_eq!(login("nats://a:4222,b"), Ok(None));
        assert_eq!(login("nats://user:pass%3Aword@a,nats://user:pass%3Aword@b,c"), user("user", Some("pass:word")));
        assert_eq!(login("nats://token@a"), user("token", None));
        for wrong in ["nats://user:one@a,nats://user:two@b", "nats://user@a,nats://user:one@b", "nats://user:%ff@a"] {
            assert!(login(wrong).unwrap_err().starts_with("NATS_URL: "), "{wrong}");
        }
    }
}
