//! TLS, HTTP/2 and proxies: the connection below the doors, on the real binary.

mod attacks;
mod command_line;
mod http2;
mod principals;
mod proxies;
mod tls;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use crate::{
    doors::{Door, RawWs, Start},
    harness::{Client, within},
    process::Process,
};

/// An authority, and the files of a server whose certificate it has issued.
struct Files {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    authority: String,
}

/// A certificate and its key as PEM.
struct Pair {
    cert: String,
    key: String,
}

impl Files {
    /// Writes `ca.pem`, `cert.pem` and `key.pem`.
    fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority");
        let authority = params.self_signed(&key).unwrap().pem();
        let files = Self { directory, issuer: Issuer::new(params, key), authority };
        files.write("ca.pem", &files.authority);
        files.renew();
        files
    }

    fn issue(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }

    /// Gives the server another certificate.
    fn renew(&self) -> CertificateDer<'static> {
        let pair = self.issue("server");
        self.write("key.pem", &pair.key);
        self.write("cert.pem", &pair.cert);
        CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text_path(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        // A reader sees the old or the new text, never half of it.
        let beside = self.path("beside");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.path(name)).unwrap();
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// A client of TLS that offers these protocols.
    fn connector(&self, protocols: &[&str], client: Option<&Pair>) -> TlsConnector {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(Pair { cert, key }) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![cert], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config).into()
    }
}

/// A server with plain HTTP and TLS side by side.
struct Secure {
    /// Its `client` speaks plain HTTP.
    process: Process,
    /// Where it speaks TLS.
    addr: SocketAddr,
    files: Files,
}

impl Secure {
    fn start() -> Self {
        Self::with(&[])
    }

    fn with(more: &[(&str, &str)]) -> Self {
        Self::of(Files::new(), more)
    }

    fn of(files: Files, more: &[(&str, &str)]) -> Self {
        let (cert, key) = (files.text_path("cert.pem"), files.text_path("key.pem"));
        let own = [("TLS_CERT", cert.as_str()), ("TLS_KEY", &key), ("TLS_PORT", "0"), ("MAX_PUBLISH_RATE", "0")];
        let process = Process::start(&[&own, more].concat());
        let addr = tls_address(&process);
        Self { process, addr, files }
    }

    /// A client of HTTP that trusts the authority and takes HTTP/2 if it is offered.
    fn client(&self) -> reqwest::ClientBuilder {
        let authority = reqwest::Certificate::from_pem(self.files.authority.as_bytes()).unwrap();
        reqwest::Client::builder().no_proxy().tls_built_in_root_certs(false).add_root_certificate(authority)
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.addr)
    }

    /// A connection with the handshake done.
    async fn connect(&self, protocols: &[&str]) -> TlsStream<TcpStream> {
        self.try_connect(protocols, None).await.unwrap()
    }

    async fn try_connect(&self, protocols: &[&str], client: Option<&Pair>) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = crate::raw::connect(self.addr).await;
        self.handshake(tcp, protocols, client).await
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        protocols: &[&str],
        client: Option<&Pair>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        within("handshake", self.files.connector(protocols, client).connect(name, tcp)).await
    }
}

/// The address of TLS, which is logged after that of plain HTTP.
fn tls_address(process: &Process) -> SocketAddr {
    let begun = std::time::Instant::now();
    loop {
        let log = process.log();
        let mut lines = log.iter().filter(|line| line.contains("listening") && line.contains("tls=true"));
        if let Some(line) = lines.next() {
            return line.split_once("addr=").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
        }
        assert!(begun.elapsed() < crate::harness::DEADLINE, "{log:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A plain event stream of a topic.
struct Events {
    response: reqwest::Response,
    buffer: String,
}

impl Events {
    async fn open(client: &reqwest::Client, url: String) -> Self {
        let response =
            within("event stream", client.get(url).header("accept", "text/event-stream").send()).await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, buffer: String::new() }
    }

    /// The data of the next event that has any; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data:")).map(|data| data.trim().to_owned());
                self.buffer = rest.to_owned();
                if let Some(data) = data {
                    return Some(serde_json::from_str(&data).unwrap());
                }
            }
            let chunk = within("event", self.response.chunk()).await.ok()??;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

/// A subscriber that must receive whatever others do.
struct Innocent {
    door: RawWs,
    client: Client,
    sent: u64,
}

impl Innocent {
    async fn of(process: &Process) -> Self {
        let client = process.client.clone();
        Self { door: RawWs::to(&client, "innocent", Start::Live).await, client, sent: 0 }
    }

    /// Publishes and receives one message. That this comes to its end in time is the assertion.
    async fn receives(&mut self) {
        self.sent += 1;
        self.client.publish("innocent", self.sent.into()).await;
        assert_eq!(self.door.event().await.message().data, self.sent);
    }
}
