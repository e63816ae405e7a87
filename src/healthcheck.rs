//! Asks the server on this machine whether it is ready. Container engines run this, so the image needs no curl.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use pub_sub::listener::{Host, Settings, TlsSettings};
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

/// How long the server may take for each step.
const WAIT: Duration = Duration::from_secs(2);

/// The whole of the response is a few hundred bytes.
const MAX_RESPONSE: u64 = 64 << 10;

/// Asks at `PORT`, over TLS if that is what is spoken there.
pub fn run(settings: &Settings) -> Result<(), String> {
    match ask(settings) {
        Ok(response) if response.starts_with("HTTP/1.1 200") => Ok(()),
        Ok(response) => Err(response.lines().next().unwrap_or_default().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn ask(settings: &Settings) -> io::Result<String> {
    let stream = connect(&settings.host, settings.port, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    if !settings.tls.is_on() || settings.tls.port.is_some() {
        return exchange(stream);
    }
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let client = ClientConnection::new(Arc::new(tls(&settings.tls)?), name).map_err(io::Error::other)?;
    exchange(StreamOwned::new(client, stream))
}

fn exchange(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.take(MAX_RESPONSE).read_to_string(&mut response)?;
    Ok(response)
}

/// The server's own certificate is that of the client, too: the server takes it where clients need one.
fn tls(settings: &TlsSettings) -> io::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&fs::read(&settings.cert)?).collect();
    let key = PrivateKeyDer::from_pem_slice(&fs::read(&settings.key)?).map_err(io::Error::other)?;
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyName(provider)))
        .with_client_auth_cert(chain.map_err(io::Error::other)?, key)
        .map_err(io::Error::other)
}

/// Accepts every certificate: the server is on this machine, its certificate has the name under which others reach it, and the
/// request has no secrets.
#[derive(Debug)]
struct AnyName(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn connect(host: &Host, port: u16, wait: Duration) -> std::io::Result<TcpStream> {
    // A server that listens on all addresses can be reached on loopback.
    let address = match host {
        Host::Address(IpAddr::V4(host)) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        Host::Address(IpAddr::V6(host)) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        Host::Address(host) => *host,
        Host::Name(name) => {
            let mut connected = Err(std::io::ErrorKind::NotFound.into());
            for address in (name.as_str(), port).to_socket_addrs()? {
                connected = TcpStream::connect_timeout(&address, wait);
                if connected.is_ok() {
                    break;
                }
            }
            return connected;
        }
    };
    TcpStream::connect_timeout(&SocketAddr::from((address, port)), wait)
}
