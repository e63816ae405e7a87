//! TLS: the certificate and its key, who may come with what certificate, and how files that change are read again.

mod own;
mod reload;
mod subject;

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};

use parking_lot::RwLock;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};

pub(super) use reload::watch;
pub(super) use subject::subject;

/// Where certificates and keys are, and where TLS is spoken.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// A PEM file with the certificate, and those that lead from it to the authority. Empty = no TLS.
    pub cert: String,
    /// A PEM file with its key.
    pub key: String,
    /// A PEM file with the authorities of clients' certificates. Empty = clients need none.
    pub client_ca: String,
    /// The port of TLS. `None` = the port of the server, which then speaks nothing else.
    pub port: Option<u16>,
}

impl Settings {
    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.cert.is_empty()
    }

    /// Checks how the settings go together.
    ///
    /// # Errors
    /// One line that begins with a setting's name.
    pub fn validate(&self) -> Result<(), String> {
        let needs = |name: &str, other: &str| Err(format!("{name}: also needs {other}"));
        match (self.cert.is_empty(), self.key.is_empty()) {
            (false, true) => needs("TLS_CERT", "TLS_KEY"),
            (true, false) => needs("TLS_KEY", "TLS_CERT"),
            (true, true) if !self.client_ca.is_empty() => needs("TLS_CLIENT_CA", "TLS_CERT and TLS_KEY"),
            (true, true) if self.port.is_some() => needs("TLS_PORT", "TLS_CERT and TLS_KEY"),
            _ => Ok(()),
        }
    }

    /// Checks the files.
    ///
    /// # Errors
    /// One line that begins with a setting's name.
    pub fn check(&self) -> Result<(), String> {
        load(self).map(drop)
    }
}

/// The protocols over TLS, in the server's order.
const PROTOCOLS: [&[u8]; 2] = [HTTP_2, b"http/1.1"];

/// The name of HTTP/2 in the handshake.
pub(super) const HTTP_2: &[u8] = b"h2";

/// Bytes of one file. Chains and bundles of authorities take some hundred kilobytes at most.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What the files contain, to see whether they have changed.
#[derive(PartialEq, Eq)]
pub(super) struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    fn read(settings: &Settings) -> Result<Self, String> {
        let client_ca = Some(&settings.client_ca).filter(|path| !path.is_empty());
        Ok(Self {
            cert: read_file("TLS_CERT", &settings.cert)?,
            key: read_file("TLS_KEY", &settings.key)?,
            client_ca: client_ca.map(|path| read_file("TLS_CLIENT_CA", path)).transpose()?,
        })
    }
}

fn read_file(name: &str, path: &str) -> Result<Vec<u8>, String> {
    let wrong = |error: io::Error| format!("{name}: cannot read {path}: {error}");
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(wrong)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{name}: {path} has more than {MAX_FILE_BYTES} bytes"));
    }
    Ok(bytes)
}

/// What new handshakes use. It is replaced as a whole, so that no handshake sees a certificate with the key of another.
struct Current {
    serving: Arc<ServerConfig>,
    refusing: Arc<ServerConfig>,
}

/// The TLS of a server; clones share the certificate.
#[derive(Clone)]
pub(super) struct Tls(Arc<RwLock<Current>>);

impl Tls {
    /// Handshakes of connections that are served.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.0.read().serving.clone().into()
    }

    /// Handshakes of connections that are refused. They get HTTP/1.1 alone, in which a refusal is one response.
    pub fn refusing_acceptor(&self) -> TlsAcceptor {
        self.0.read().refusing.clone().into()
    }
}

/// Reads the files. `None` where TLS is not set.
///
/// # Errors
/// One line that begins with a setting's name.
pub(super) fn load(settings: &Settings) -> Result<Option<(Tls, reload::Seen)>, String> {
    settings.validate()?;
    if !settings.is_on() {
        return Ok(None);
    }
    let files = Files::read(settings)?;
    let current = current(settings, &files)?;
    Ok(Some((Tls(Arc::new(RwLock::new(current))), reload::Seen::new(files))))
}

fn current(settings: &Settings, files: &Files) -> Result<Current, String> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates("TLS_CERT", &settings.cert, &files.cert)?;
    // The parser's own words may contain parts of the key.
    let key = PrivateKeyDer::from_pem_slice(&files.key)
        .map_err(|_| format!("TLS_KEY: {} contains no private key in PEM that can be read", settings.key))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS_CERT: {error}"))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let verifier = client_verifier(&settings.client_ca, authorities, provider)?;
            builder.with_client_cert_verifier(Arc::new(own::OrOwn { own: chain.first().cloned(), verifier }))
        }
    };
    let mut serving = builder.with_single_cert(chain, key).map_err(|error| pair_error(settings, &error))?;
    serving.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    let mut refusing = serving.clone();
    refusing.alpn_protocols.retain(|protocol| protocol != HTTP_2);
    Ok(Current { serving: Arc::new(serving), refusing: Arc::new(refusing) })
}

fn pair_error(settings: &Settings, error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("TLS_KEY: {} is not the key of the certificate in {}", settings.key, settings.cert)
        }
        rustls::Error::InvalidCertificate(_) => format!("TLS_CERT: {}: {error}", settings.cert),
        _ => format!("TLS_KEY: {}: {error}", settings.key),
    }
}

fn certificates(name: &str, path: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!("{name}: {path} contains no certificate in PEM")),
        Ok(found) => Ok(found),
        Err(_) => Err(format!("{name}: {path} is not PEM that can be read")),
    }
}

fn client_verifier(
    path: &str,
    pem: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("TLS_CLIENT_CA: {path}: {error}");
    let mut roots = RootCertStore::empty();
    for authority in certificates("TLS_CLIENT_CA", path, pem)? {
        roots.add(authority).map_err(|error| wrong(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    verifier.build().map_err(|error| wrong(&error))
}
