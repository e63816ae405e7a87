//! A proxy in front of a server, which can be cut: for an instance whose network breaks while the others' does not.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::sleep,
};

/// Takes connections on a port of its own and brings them to the server.
pub struct Proxy {
    pub port: u16,
    inner: Arc<Inner>,
    taking: JoinHandle<()>,
}

struct Inner {
    server: SocketAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cut: bool,
    open: Vec<JoinHandle<()>>,
}

impl Proxy {
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let inner = Arc::new(Inner { server, state: Mutex::default() });
        let shared = inner.clone();
        let taking = tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    sleep(Duration::from_millis(1)).await;
                    continue;
                };
                let mut state = shared.state.lock().unwrap();
                // While it is cut, whoever comes is sent away.
                if !state.cut {
                    state.open.retain(|open| !open.is_finished());
                    state.open.push(tokio::spawn(carry(client, shared.server)));
                }
            }
        });
        Self { port: own, inner, taking }
    }

    /// Breaks all connections, and takes no other.
    pub fn cut(&self) {
        let mut state = self.inner.state.lock().unwrap();
        state.cut = true;
        for open in state.open.drain(..) {
            open.abort();
        }
    }

    /// Breaks all connections; the next ones are taken.
    pub fn shake(&self) {
        self.cut();
        self.heal();
    }

    /// Whether connections are taken.
    pub fn is_open(&self) -> bool {
        !self.inner.state.lock().unwrap().cut
    }

    pub fn heal(&self) {
        self.inner.state.lock().unwrap().cut = false;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.taking.abort();
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
