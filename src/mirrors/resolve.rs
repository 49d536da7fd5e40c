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

/// Asks the system's resolver.
#[derive(Clone, Copy)]
pub(super) struct Resolver(pub(super) Family);

impl Resolver {
    /// A host that is an address itself isn't resolved: whether it is one of the other family.
    pub(super) fn excludes(self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok_and(|addr| !self.0.has(addr))
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let family = self.0;
        Box::pin(async move {
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

    #[tokio::test]
    async fn only_addresses_of_the_family() {
        for family in Family::ALL {
            let name: Name = "localhost".parse().unwrap();
            let found = Resolver(family).call(name).await;
            match found {
                Ok(mut addresses) => assert!(addresses.all(|addr| family.has(addr.ip()))),
                Err(error) => assert_eq!(error.to_string(), family.lacks()),
            }
        }
        assert!(Resolver(Family::V6).excludes("127.0.0.1") && !Resolver(Family::V4).excludes("127.0.0.1"));
        assert!(Resolver(Family::V4).excludes("[::1]") && !Resolver(Family::V6).excludes("[::1]"));
        assert!(!Resolver(Family::V6).excludes("m.example"));
    }
}
