//! DNS for probes over one address family: addresses of the other are left out, so that nothing connects over it.

use super::families::Family;
use hyper_util::client::legacy::connect::dns::Name;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::lookup_host;
use tower_service::Service;

/// A host has no address of the family.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{}", .0.lacks())]
pub(super) struct NoAddress(pub(super) Family);

/// Addresses of one name that are asked one by one; of more, as many at random.
const MOST_ADDRESSES: usize = 8;

/// Asks the system's resolver.
#[derive(Clone, Copy)]
pub(super) struct Resolver {
    pub(super) family: Family,
    /// Only this one of a name's addresses.
    pub(super) only: Option<IpAddr>,
}

impl Resolver {
    /// A host that is an address itself isn't resolved: whether it is one of the other family.
    pub(super) fn excludes(self, host: &str) -> bool {
        bare(host).parse::<IpAddr>().is_ok_and(|addr| !self.family.has(addr))
    }

    /// The addresses of a name. None of a host that is one itself, and of a name that can't be resolved: who connects to that
    /// is told why.
    pub(super) async fn addresses(self, host: &str) -> Vec<IpAddr> {
        if bare(host).parse::<IpAddr>().is_ok() {
            return Vec::new();
        }
        let found = lookup_host((host, 0)).await.into_iter().flatten().map(|addr| addr.ip());
        let mut addresses: Vec<IpAddr> = found.filter(|addr| self.family.has(*addr)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        fastrand::choose_multiple(addresses, MOST_ADDRESSES)
    }
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { family, only } = *self;
        Box::pin(async move {
            if let Some(only) = only {
                return Ok(vec![SocketAddr::new(only, 0)].into_iter());
            }
            let found = lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.filter(|addr| family.has(addr.ip())).collect();
            if addresses.is_empty() {
                return Err(io::Error::other(NoAddress(family)));
            }
            Ok(addresses.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn of(family: Family) -> Resolver {
        Resolver { family, only: None }
    }

    #[tokio::test]
    async fn only_addresses_of_the_family() {
        for family in Family::ALL {
            let name: Name = "localhost".parse().unwrap();
            let found = of(family).call(name).await;
            match found {
                Ok(mut addresses) => assert!(addresses.all(|addr| family.has(addr.ip()))),
                Err(error) => assert_eq!(error.to_string(), family.lacks()),
            }
        }
        assert!(of(Family::V6).excludes("127.0.0.1") && !of(Family::V4).excludes("127.0.0.1"));
        assert!(of(Family::V4).excludes("[::1]") && !of(Family::V6).excludes("[::1]"));
        assert!(!of(Family::V6).excludes("m.example"));
        assert_eq!(of(Family::V4).addresses("127.0.0.1").await, [] as [IpAddr; 0]);
        assert_eq!(of(Family::V4).addresses("localhost").await, [IpAddr::from([127, 0, 0, 1])]);
        let only =
            Resolver { only: Some([127, 0, 0, 9].into()), ..of(Family::V4) }.call("x".parse().unwrap());
        assert_eq!(only.await.unwrap().next(), Some("127.0.0.9:0".parse().unwrap()));
    }
}
