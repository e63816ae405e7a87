//! The header of the PROXY protocol, in which a proxy that does not speak HTTP says whose connection it passes on. The `ppp`
//! crate reads it; where it ends is decided here, because that crate takes a text header that came in pieces for a wrong one.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use ppp::{v1, v2};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};

/// How a header of version 1 begins.
const TEXT: &[u8] = b"PROXY ";

/// The longest header of version 1, with its end of line.
const TEXT_BYTES: usize = 107;

/// The part of a header of version 2 that says how long the whole is.
const BINARY_HEAD: usize = 16;

/// The longest header of version 2: what proxies append to the addresses, such as names and fingerprints of TLS, takes some hundred
/// bytes.
const BINARY_BYTES: usize = 4 << 10;

/// What is at the beginning of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// No header.
    Nothing,
    /// So much of a header that more is needed.
    Part,
    /// A header of so many bytes. Without an address, it is the proxy's own connection, or one that has none.
    Header(usize, Option<SocketAddr>),
}

/// Reads the header, if there is one. What was read of the bytes behind it is left in `ahead`.
///
/// # Errors
/// When the header is malformed or too long, or does not come in time.
pub(super) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    ahead: &mut Vec<u8>,
    until: Instant,
) -> io::Result<Option<SocketAddr>> {
    let mut piece = [0; 512];
    loop {
        match find(ahead)? {
            Found::Nothing => return Ok(None),
            Found::Header(length, address) => {
                ahead.drain(..length);
                return Ok(address);
            }
            Found::Part => {}
        }
        match timeout_at(until, stream.read(&mut piece)).await?? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            bytes => ahead.extend_from_slice(&piece[..bytes]),
        }
    }
}

fn find(bytes: &[u8]) -> io::Result<Found> {
    let begins = |prefix: &[u8]| bytes.iter().zip(prefix).all(|(one, other)| one == other);
    if begins(TEXT) {
        return find_text(bytes);
    }
    if begins(v2::PROTOCOL_PREFIX) {
        return find_binary(bytes);
    }
    Ok(Found::Nothing)
}

fn find_text(bytes: &[u8]) -> io::Result<Found> {
    let Some(end) = bytes.iter().take(TEXT_BYTES).position(|byte| *byte == b'\n') else {
        return if bytes.len() < TEXT_BYTES { Ok(Found::Part) } else { Err(malformed()) };
    };
    let header = v1::Header::try_from(&bytes[..=end]).map_err(|_| malformed())?;
    let address = match header.addresses {
        v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Unknown => None,
    };
    Ok(Found::Header(end + 1, address))
}

fn find_binary(bytes: &[u8]) -> io::Result<Found> {
    let Some(head) = bytes.get(..BINARY_HEAD) else { return Ok(Found::Part) };
    let length = BINARY_HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > BINARY_BYTES {
        return Err(malformed());
    }
    let Some(header) = bytes.get(..length) else { return Ok(Found::Part) };
    let header = v2::Header::try_from(header).map_err(|_| malformed())?;
    let address = match header.addresses {
        // A proxy's own connection, such as its health check.
        _ if header.command == v2::Command::Local => None,
        v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    };
    Ok(Found::Header(length, address))
}

fn malformed() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the header of the PROXY protocol is malformed or too long")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, addresses].concat()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Headers with the address that each gives.
    fn headers() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let ipv4 = [1, 2, 3, 4, 9, 9, 9, 9, 0x10, 0x00, 0, 80];
        let ipv6: Vec<u8> = [&[0x20, 1, 0xd, 0xb8], &[0; 11][..], &[1], &[0; 16], &[0x10, 0x00, 0, 80]].concat();
        let noted = [&ipv4[..], &[0x04, 0, 2, 0, 0]].concat();
        vec![
            (b"PROXY TCP4 1.2.3.4 9.9.9.9 4096 80\r\n".to_vec(), Some(address("1.2.3.4:4096"))),
            (b"PROXY TCP6 2001:db8::1 ::1 4096 80\r\n".to_vec(), Some(address("[2001:db8::1]:4096"))),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (binary(1, 0x11, &ipv4), Some(address("1.2.3.4:4096"))),
            (binary(1, 0x11, &noted), Some(address("1.2.3.4:4096"))),
            (binary(1, 0x21, &ipv6), Some(address("[2001:db8::1]:4096"))),
            (binary(1, 0x31, &[0; 216]), None),
            (binary(0, 0x11, &ipv4), None),
            (binary(0, 0x00, &[]), None),
        ]
    }

    #[tokio::test(start_paused = true)]
    async fn headers_are_read_whatever_their_pieces() {
        let until = || Instant::now() + Duration::from_secs(10);
        for (header, wanted) in headers() {
            for piece in [1, 7, 1_000] {
                let (mut client, mut server) = duplex(1 << 16);
                let writing = async {
                    for piece in [&header[..], b"GET / HTTP/1.1\r\n"].concat().chunks(piece) {
                        client.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    drop(client);
                };
                let mut ahead = Vec::new();
                let (read, ()) = tokio::join!(super::read(&mut server, &mut ahead, until()), writing);
                assert_eq!(read.unwrap(), wanted, "{header:?}");
                server.read_to_end(&mut ahead).await.unwrap();
                assert_eq!(ahead, b"GET / HTTP/1.1\r\n", "{header:?}");
            }
        }
        for other in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n", b"POST /", b"\x16\x03\x01", b"\r\n\r\nGET /"]
        {
            let (mut client, mut server) = duplex(1 << 16);
            client.write_all(other).await.unwrap();
            let mut ahead = Vec::new();
            assert_eq!(super::read(&mut server, &mut ahead, until()).await.unwrap(), None);
            assert_eq!(ahead, other);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_come_is_not_waited_for() {
        let (mut client, mut server) = duplex(1 << 16);
        client.write_all(b"PROXY TCP4 1.2.3.4 ").await.unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        assert_eq!(read(&mut server, &mut Vec::new(), until).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(Instant::now() >= until);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let too_long = [&binary(1, 0x11, &[])[..14], &[0xff, 0xff]].concat();
        for bad in [
            &b"PROXY TCP4 1.2.3.4\r\n"[..],
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 9.9.9.9 4096 80\n",
            b"PROXY TCP4 1.2.3.4 9.9.9.9 70000 80\r\n",
            b"PROXY UDP4 1.2.3.4 9.9.9.9 1 2\r\n",
            &[b"PROXY TCP4 ", &[b'1'; 200][..]].concat(),
            &binary(1, 0x11, &[1, 2, 3, 4]),
            &binary(7, 0x11, &[0; 12]),
            &too_long,
        ] {
            assert!(find(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// Nothing that a peer sends makes it panic, claim bytes that are not there, or want more than the bound.
        #[test]
        fn any_bytes(which in 0..3, family: u8, rest in proptest::collection::vec(any::<u8>(), 0..5_000)) {
            let start = match which {
                0 => Vec::new(),
                1 => b"PROXY TCP4 ".to_vec(),
                _ => [v2::PROTOCOL_PREFIX, &[0x21, family]].concat(),
            };
            let bytes = [start, rest].concat();
            match find(&bytes) {
                Ok(Found::Header(length, _)) => prop_assert!(length <= bytes.len()),
                Ok(Found::Part) => prop_assert!(bytes.len() < BINARY_BYTES),
                Ok(Found::Nothing) | Err(_) => {}
            }
        }

        /// The text header agrees with what was written, and no prefix of it is taken for the whole or for wrong.
        #[test]
        fn text_headers(address: std::net::Ipv4Addr, port: u16) {
            let header = format!("PROXY TCP4 {address} 9.9.9.9 {port} 80\r\n");
            let found = find(header.as_bytes()).unwrap();
            prop_assert_eq!(found, Found::Header(header.len(), Some((address, port).into())));
            for end in 0..header.len() {
                prop_assert_eq!(find(&header.as_bytes()[..end]).unwrap(), Found::Part);
            }
        }
    }
}
