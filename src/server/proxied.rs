//! The PROXY header, versions 1 and 2: for whom a load balancer has opened a connection.

use ppp::v2::Command;
use ppp::{HeaderResult, v1, v2};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What both versions begin with can be told from so much.
const FIRST_BYTES: usize = 12;
const SIGNATURE: &[u8; FIRST_BYTES] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its CRLF.
const LINE_BYTES: usize = 107;
/// The longest header of version 2 that is taken; the longest there can be has 64 KiB.
const MOST_BYTES: usize = 4096;
/// In the first byte of the TLS field: the client speaks TLS.
const CLIENT_SSL: u8 = 1;

/// Whom a connection is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proxied {
    /// The client's address; `None`: the load balancer speaks for itself, or can't name it.
    pub addr: Option<IpAddr>,
    /// It is for a client that the load balancer can't name. What such a client says of itself counts for nothing.
    pub nameless: bool,
    /// The client speaks TLS to the load balancer.
    pub https: bool,
}

/// Reads the header, and not a byte more.
///
/// # Errors
/// There is none, or the connection failed.
pub async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Proxied> {
    let mut header = vec![0; FIRST_BYTES];
    io.read_exact(&mut header).await?;
    if header == SIGNATURE {
        let mut rest = [0; 4];
        io.read_exact(&mut rest).await?;
        header.extend_from_slice(&rest);
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if length > MOST_BYTES {
            return Err(bad("a PROXY header of more than 4096 bytes"));
        }
        header.resize(header.len() + length, 0);
        let from = header.len() - length;
        io.read_exact(&mut header[from..]).await?;
    } else {
        if !header.starts_with(b"PROXY ") {
            return Err(bad("no PROXY header, though http.proxy_protocol says so"));
        }
        while !header.ends_with(b"\r\n") {
            if header.len() == LINE_BYTES {
                return Err(bad("a PROXY line of more than 107 bytes"));
            }
            header.push(io.read_u8().await?);
        }
    }
    match HeaderResult::parse(&header) {
        HeaderResult::V1(Ok(header)) => Ok(of_line(&header)),
        HeaderResult::V2(Ok(header)) => Ok(of_header(&header)),
        HeaderResult::V1(Err(error)) => Err(bad(&format!("PROXY header: {error}"))),
        HeaderResult::V2(Err(error)) => Err(bad(&format!("PROXY header: {error}"))),
    }
}

fn of_line(header: &v1::Header<'_>) -> Proxied {
    let addr = match header.addresses {
        v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Unknown => None,
    };
    Proxied { addr, nameless: addr.is_none(), https: false }
}

fn of_header(header: &v2::Header<'_>) -> Proxied {
    let addr = match (header.command, header.addresses) {
        (Command::Proxy, v2::Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
        (Command::Proxy, v2::Addresses::IPv6(addresses)) => Some(addresses.source_address.into()),
        // Also a health check.
        (Command::Local, _) | (Command::Proxy, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => None,
    };
    let is_ssl = |field: v2::TypeLengthValue<'_>| {
        field.kind == u8::from(v2::Type::SSL)
            && field.value.first().is_some_and(|flags| flags & CLIENT_SSL != 0)
    };
    let nameless = addr.is_none() && header.command == Command::Proxy;
    Proxied { addr, nameless, https: header.tlvs().flatten().any(is_ssl) }
}

fn bad(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of `sent`, and what is left of it.
    async fn of(sent: &[u8]) -> (Option<Proxied>, usize) {
        let mut rest = sent;
        let read = read(&mut rest).await.ok();
        (read, rest.len())
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, rest, b"GET /"].concat()
    }

    #[tokio::test]
    async fn lines() {
        let from = |addr: &str| Some(Proxied { addr: Some(addr.parse().unwrap()), ..Proxied::default() });
        let nameless = Proxied { nameless: true, ..Proxied::default() };
        for (sent, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /", from("192.0.2.1")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\nGET /", from("2001:db8::1")),
            ("PROXY UNKNOWN\r\nGET /", Some(nameless)),
        ] {
            assert_eq!(of(sent.as_bytes()).await, (expected, "GET /".len()), "{sent:?}");
        }
        let long = format!("PROXY TCP4 {}", "1".repeat(200));
        let alien = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        for sent in [long.as_str(), alien, "PROXY TCP4 a b c d\r\n", "PROXY TCP4 192.0.2.1", "PROXY\r\n"] {
            assert_eq!(of(sent.as_bytes()).await.0, None, "{sent:?}");
        }
    }

    #[tokio::test]
    async fn binary_headers() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0, 1, 0, 2];
        let expected = Proxied { addr: Some("192.0.2.1".parse().unwrap()), ..Proxied::default() };
        assert_eq!(of(&binary(1, 0x11, &four)).await, (Some(expected), 5));
        let with_tls = [&four[..], &[0x20, 0, 5, CLIENT_SSL, 0, 0, 0, 0]].concat();
        assert_eq!(of(&binary(1, 0x11, &with_tls)).await, (Some(Proxied { https: true, ..expected }), 5));
        assert_eq!(of(&binary(0, 0x00, &[])).await, (Some(Proxied::default()), 5));
        let nameless = Proxied { nameless: true, ..Proxied::default() };
        assert_eq!(of(&binary(1, 0x00, &[])).await, (Some(nameless), 5));
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        let addr = Some("2001:db8::".parse().unwrap());
        assert_eq!(of(&binary(1, 0x21, &six)).await, (Some(Proxied { addr, ..Proxied::default() }), 5));
        for sent in [binary(1, 0x11, &four[..4]), binary(1, 0x11, &[0; 5000]), SIGNATURE.to_vec()] {
            assert_eq!(of(&sent).await.0, None, "{sent:?}");
        }
    }
}
