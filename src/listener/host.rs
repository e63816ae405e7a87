//! The address to listen on: an IP address, or a name that is resolved when the listener is bound.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use tokio::net::{TcpListener, TcpStream, lookup_host};

use super::Settings;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An IP address.
    Address(IpAddr),
    /// A host name such as `localhost`.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => address.fmt(f),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// The text is neither an IP address nor a host name.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAHost;

impl FromStr for Host {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Host::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let is_label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(allowed);
        // A name whose last label is a number is an IP address with a mistake, such as 127.0.0.256.
        let is_number = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
        if name.len() > 253 || is_number || !name.split('.').all(is_label) {
            return Err(NotAHost);
        }
        Ok(Host::Name(text.to_owned()))
    }
}

impl Host {
    async fn resolve(&self, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Host::Address(address) => Ok(vec![(*address, port).into()]),
            Host::Name(name) => {
                let mut addresses: Vec<_> = lookup_host((name.as_str(), port)).await?.collect();
                // `localhost` has both, and clients that know only IPv4 are more common than those that know only IPv6.
                addresses.sort_by_key(SocketAddr::is_ipv6);
                Ok(addresses)
            }
        }
    }
}

/// The sockets on which a server listens.
pub struct Listeners {
    main: TcpListener,
    /// Where there is one, the other speaks plain HTTP.
    tls: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    fn from(main: TcpListener) -> Self {
        Self { main, tls: None }
    }
}

impl Listeners {
    /// Their addresses, each with whether TLS is spoken there by a server that has a certificate.
    ///
    /// # Errors
    /// When a socket cannot be used.
    pub fn addresses(&self) -> io::Result<Vec<(SocketAddr, bool)>> {
        let tls = self.tls.as_ref().map(|listener| Ok((listener.local_addr()?, true)));
        std::iter::once(Ok((self.main.local_addr()?, self.tls.is_none()))).chain(tls).collect()
    }

    /// The next connection, with its other end, and whether TLS is spoken over it by a server that has a certificate. Nothing is
    /// lost when the future is dropped.
    ///
    /// # Errors
    /// Most often, the process has no more file descriptors.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr, bool)> {
        let Some(tls) = &self.tls else {
            return self.main.accept().await.map(|(stream, peer)| (stream, peer, true));
        };
        tokio::select! {
            accepted = self.main.accept() => accepted.map(|(stream, peer)| (stream, peer, false)),
            accepted = tls.accept() => accepted.map(|(stream, peer)| (stream, peer, true)),
        }
    }
}

/// Listens where the settings say, on the first address of the host that this machine has.
///
/// # Errors
/// One line that names the setting.
pub async fn bind(settings: &Settings) -> Result<Listeners, String> {
    let main = listen(&settings.host, settings.port, "PORT").await?;
    let tls = match settings.tls.port.filter(|_| settings.tls.is_on()) {
        Some(port) => Some(listen(&settings.host, port, "TLS_PORT").await?),
        None => None,
    };
    Ok(Listeners { main, tls })
}

async fn listen(host: &Host, port: u16, setting: &str) -> Result<TcpListener, String> {
    let addresses = host.resolve(port).await.map_err(|error| format!("HOST: cannot resolve {host}: {error}"))?;
    let mut wrong = format!("HOST: {host} has no address");
    for address in addresses {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) => {
                // Not the next address: whoever uses this one would get the clients of this server.
                return Err(format!("{setting}: cannot listen on {address}: {error}"));
            }
            Err(error) => wrong = format!("HOST: cannot listen on {address}: {error}"),
        }
    }
    Err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names() {
        for (text, shown) in [("127.0.0.1", "127.0.0.1"), ("::", "::"), ("[::1]", "::1"), ("fd00::1", "fd00::1")] {
            let host: Host = text.parse().unwrap();
            assert!(matches!(host, Host::Address(_)));
            assert_eq!(host.to_string(), shown);
        }
        for text in ["localhost", "db-1.example.org", "a_b", "example.org."] {
            assert_eq!(text.parse(), Ok(Host::Name(text.to_owned())));
        }
        for text in ["", "not an address", "127.0.0.256", "1.2.3", "http://a", "a:80", "a..b", "[a]", "ä"] {
            assert_eq!(text.parse::<Host>(), Err(NotAHost), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_is_resolved_when_it_is_bound() {
        let listener = listen(&Host::Name("localhost".to_owned()), 0, "PORT").await.unwrap();
        assert!(listener.local_addr().unwrap().ip().is_loopback());
        let error = listen(&Host::Name("no-such-host.invalid".to_owned()), 0, "PORT").await.unwrap_err();
        assert!(error.starts_with("HOST: cannot resolve no-such-host.invalid"), "{error}");
    }
}
