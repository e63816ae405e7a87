//! What happens to a connection after it was accepted: it is counted, opened, and served or refused.

use std::{future::Future, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use slab::Slab;
use tokio::{net::TcpStream, task::AbortHandle, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    ConnectionGuard, Connections, Served, Settings, Times,
    addresses::{AddressGuard, Addresses},
    arrival::{Arrival, Opened, Socket},
    http1, http2,
    refusal::{Bound, Refusals},
    tls::{self, Tls},
    tune,
};
use crate::{
    access::Reload,
    front::Front,
    socket::{ConnectionInfo, Sockets},
};

/// What the connections of a server share.
pub struct Shared {
    /// What responds to requests.
    pub front: Front,
    /// Bounds, times, TLS and proxies.
    pub settings: Settings,
    /// Counts the connections.
    pub connections: Connections,
    /// Runs WebSockets. Connections are tasks there, too, and finish what they are at after its signal to stop.
    pub sockets: Sockets,
    /// Asks for the files of TLS to be read again.
    pub reload: Reload,
}

/// Takes connections and serves HTTP over them.
#[derive(Clone)]
pub struct Acceptor(Arc<Inner>);

struct Inner {
    shared: Shared,
    /// The tasks of the connections that are open. A signal to drop them would be looked at whenever one of them wakes.
    running: Arc<Mutex<Slab<AbortHandle>>>,
    times: Times,
    addresses: Addresses,
    refusals: Refusals,
    tls: Option<Tls>,
}

/// Removes a connection's task from those that are running, when it is dropped.
struct Running {
    all: Arc<Mutex<Slab<AbortHandle>>>,
    key: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.lock().try_remove(self.key);
    }
}

impl Acceptor {
    /// Reads the files of TLS, and follows them in a task that ends with the signal to stop.
    ///
    /// # Errors
    /// One line that names the setting.
    pub fn new(shared: Shared) -> Result<Self, String> {
        let Shared { settings, sockets, .. } = &shared;
        let tls = tls::load(&settings.tls)?.map(|(tls, seen)| {
            let (watching, stop) =
                (tls::watch(settings.tls.clone(), tls.clone(), seen, shared.reload.clone()), sockets.stop.clone());
            sockets.tasks.spawn(async move { stop.run_until_cancelled(watching).await });
            tls
        });
        let times = Times {
            request: settings.request_timeout,
            keep_alive: settings.keep_alive_timeout,
            ping: sockets.settings.ping_interval,
            write: sockets.settings.write_timeout,
        };
        let addresses = Addresses::new(settings.max_connections_per_address);
        let refusals = Refusals::new(sockets.clone());
        Ok(Self(Arc::new(Inner { shared, running: Arc::default(), times, addresses, refusals, tls })))
    }

    /// Drops all connections.
    pub fn drop_all(&self) {
        self.0.running.lock().iter().for_each(|(_, task)| task.abort());
    }

    /// Whether the server has a certificate.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.0.tls.is_some()
    }

    /// Serves a connection, or refuses it. `is_tls`: whether TLS is spoken at its port by a server that has a certificate.
    pub fn accept(&self, stream: TcpStream, peer: SocketAddr, is_tls: bool) {
        let inner = &self.0;
        let Shared { settings, connections, .. } = &inner.shared;
        tune(&stream, inner.times.write);
        let arrival = Arrival {
            socket: Socket::new(stream),
            peer,
            may_be_proxied: settings.trusted_proxies.contains(peer.ip()),
            is_tls: is_tls && self.has_tls(),
            until: Instant::now() + inner.times.request,
        };
        if connections.open() >= settings.max_connections {
            return inner.refuse(arrival, Bound::Connections);
        }
        let guard = connections.enter();
        if arrival.is_tls || arrival.may_be_proxied {
            return inner.spawn(inner.clone().open(arrival, guard));
        }
        match inner.addresses.enter(peer.ip()) {
            Ok(address) => {
                let info = inner.info(peer, None, guard, address);
                inner.spawn(inner.http1(arrival.socket, info));
            }
            Err(_) => inner.refuse(arrival, Bound::PerAddress),
        }
    }
}

impl Inner {
    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock();
        let vacant = running.vacant_entry();
        let entry = Running { all: self.running.clone(), key: vacant.key() };
        // It cannot end before it is entered, because it leaves under the same lock.
        let task = self.tasks().spawn(async move {
            let _entry = entry;
            connection.await;
        });
        vacant.insert(task.abort_handle());
    }

    fn tasks(&self) -> &TaskTracker {
        &self.shared.sockets.tasks
    }

    fn refuse(&self, arrival: Arrival, bound: Bound) {
        self.refusals.refuse(arrival, self.tls.as_ref().map(Tls::refusing_acceptor), bound);
    }

    /// A connection that has to say something before its first request.
    async fn open(self: Arc<Self>, mut arrival: Arrival, guard: ConnectionGuard) {
        let peer = arrival.peer;
        let failed = |error: std::io::Error| tracing::debug!(%peer, %error, "a connection was not opened");
        if let Err(error) = arrival.read_proxy_header().await {
            return failed(error);
        }
        let client = arrival.peer;
        // Over a proxy's own connections come the requests of many clients.
        let is_proxy = self.shared.settings.trusted_proxies.contains(client.ip());
        let Ok(address) = (if is_proxy { Ok(None) } else { self.addresses.enter(client.ip()) }) else {
            return self.refuse(arrival, Bound::PerAddress);
        };
        let opened = match arrival.open(self.tls.as_ref().map(Tls::acceptor)).await {
            Ok(opened) => opened,
            Err(error) => return failed(error),
        };
        let info = self.info(client, opened.subject(), guard, address);
        let is_http2 = opened.is_http2();
        match opened {
            // Each is large, and only one is used.
            Opened::Plain(socket) => Box::pin(self.http1(socket, info)).await,
            Opened::Tls(stream) if is_http2 => {
                let Shared { front, sockets, .. } = &self.shared;
                let (front, stop, tasks) = (front.clone(), sockets.stop.clone(), sockets.tasks.clone());
                Box::pin(http2::serve(stream, info, front, self.times, stop, tasks)).await;
            }
            Opened::Tls(stream) => Box::pin(self.http1(stream, info)).await,
        }
    }

    fn info(
        &self,
        peer: SocketAddr,
        certificate: Option<Arc<str>>,
        connection: ConnectionGuard,
        address: Option<AddressGuard>,
    ) -> ConnectionInfo {
        let proxies = &self.shared.settings.trusted_proxies;
        let proxies = proxies.contains(peer.ip()).then(|| proxies.clone());
        ConnectionInfo { peer, certificate, proxies, guard: Arc::new((connection, address)) }
    }

    fn http1<S>(&self, stream: S, info: ConnectionInfo) -> impl Future<Output = ()> + use<S>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let Shared { front, sockets, .. } = &self.shared;
        let (front, stop) = (front.clone(), sockets.stop.clone());
        http1::serve(stream, Served { info, front, times: self.times, stop })
    }
}
