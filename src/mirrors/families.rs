//! On which address families a mirror takes connections.

use super::client::Failure;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Longest wait for a connection: clients give up on one address soon, too.
const MOST_WAIT: Duration = Duration::from_secs(3);
/// Addresses tried of each family.
const MOST_ADDRESSES: usize = 3;

/// The families that answered, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Families {
    /// IPv4.
    pub(super) ipv4: bool,
    /// IPv6.
    pub(super) ipv6: bool,
}

/// Connects to `host`, a name or a literal address (IPv6 in brackets), on each of its families.
pub(super) async fn families(host: &str, port: u16, wait: Duration) -> Result<Families, Failure> {
    let wait = wait.min(MOST_WAIT);
    let addresses = resolve(host, port, wait).await?;
    let of = |v6: bool| addresses.iter().copied().filter(move |address| address.is_ipv6() == v6);
    let (ipv4, ipv6) = tokio::join!(connect(of(false), wait), connect(of(true), wait));
    match (ipv4, ipv6) {
        (None, None) => Err(Failure::Broken(format!("{host} has no address"))),
        (Some(Err(failure)), None | Some(Err(_))) | (None, Some(Err(failure))) => Err(failure),
        (ipv4, ipv6) => {
            Ok(Families { ipv4: matches!(ipv4, Some(Ok(()))), ipv6: matches!(ipv6, Some(Ok(()))) })
        }
    }
}

async fn resolve(host: &str, port: u16, wait: Duration) -> Result<Vec<SocketAddr>, Failure> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    match timeout(wait, lookup_host((bare, port))).await {
        Err(_) => Err(Failure::Broken(format!("no answer from DNS about {bare}"))),
        Ok(Err(error)) => Err(Failure::Broken(format!("DNS: {error}"))),
        Ok(Ok(addresses)) => Ok(addresses.collect()),
    }
}

/// None without an address.
async fn connect(addresses: impl Iterator<Item = SocketAddr>, wait: Duration) -> Option<Result<(), Failure>> {
    let mut last = None;
    for address in addresses.take(MOST_ADDRESSES) {
        match timeout(wait, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Some(Ok(())),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                last = Some(Failure::Refused);
            }
            Ok(Err(error)) => last = Some(Failure::Broken(error.to_string())),
            Err(_) => last = Some(Failure::Timeout(wait)),
        }
    }
    last.map(Err)
}
