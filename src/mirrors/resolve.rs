//! DNS for probes over one address family: addresses of the other are left out, so that nothing connects over it, and those
//! that the mirror may not lead to ([`internal`]). What is checked here is what is connected to: nothing is looked up between.

use super::families::Family;
use super::internal::{self, Scope};
use hyper_util::client::legacy::connect::dns::Name;
use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::net::lookup_host;
use tower_service::Service;

/// A host has no address of the family.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{}", .0.lacks())]
pub(super) struct NoAddress(pub(super) Family);

/// A name has addresses, but none that a probe may go to.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0} is not a public address")]
pub(super) struct Forbidden(pub(super) IpAddr);

/// Names that have had a public address since the node's start: as many as mirrors at most, since redirects keep their host.
pub(super) type SeenPublic = Arc<Mutex<HashSet<String>>>;

/// Addresses of one name that are asked one by one; of more, as many at random.
const MOST_ADDRESSES: usize = 8;

/// Asks the system's resolver.
#[derive(Clone)]
pub(super) struct Resolver {
    pub(super) family: Family,
    /// Only this one of a name's addresses.
    pub(super) only: Option<IpAddr>,
    pub(super) seen: SeenPublic,
}

impl Resolver {
    /// A host that is an address itself isn't resolved: whether it is one of the other family.
    pub(super) fn excludes(&self, host: &str) -> bool {
        bare(host).parse::<IpAddr>().is_ok_and(|addr| !self.family.has(addr))
    }

    /// The addresses of a name. None of a host that is one itself, and of a name that can't be resolved: who connects to that
    /// is told why.
    pub(super) async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        if is_address(host) {
            return Vec::new();
        }
        let mut addresses = self.look_up(host).await.unwrap_or_default();
        addresses.sort_unstable();
        addresses.dedup();
        fastrand::choose_multiple(addresses, MOST_ADDRESSES)
    }

    /// The addresses of a name that a probe may go to over this family. What is public over one family counts for both.
    async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let all: Vec<IpAddr> = lookup_host((name, 0)).await?.map(|addr| addr.ip()).collect();
        let allowed = internal::allowed(&all, self.was_public(name, &all));
        let of_family = |all: &[IpAddr]| all.iter().copied().filter(|addr| self.family.has(*addr)).collect();
        let addresses: Vec<IpAddr> = of_family(&allowed);
        match (addresses.is_empty(), of_family(&all).first()) {
            (false, _) => Ok(addresses),
            (true, Some(addr)) => Err(io::Error::other(Forbidden(*addr))),
            (true, None) => Err(io::Error::other(NoAddress(self.family))),
        }
    }

    /// Whether the name has a public address now, or had one before.
    fn was_public(&self, name: &str, now: &[IpAddr]) -> bool {
        let is_public = now.iter().any(|addr| Scope::of(*addr) == Scope::Public);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name.to_ascii_lowercase();
        if is_public {
            seen.insert(name);
            return true;
        }
        seen.contains(&name)
    }
}

/// Whether a URL's host is an address: that is the operator's word, and isn't looked up.
pub(super) fn is_address(host: &str) -> bool {
    bare(host).parse::<IpAddr>().is_ok()
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
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = match resolver.only {
                Some(only) => vec![only],
                None => resolver.look_up(name.as_str()).await?,
            };
            let sockets: Vec<_> = addresses.into_iter().map(|addr| SocketAddr::new(addr, 0)).collect();
            Ok(sockets.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(family: Family) -> Resolver {
        Resolver { family, only: None, seen: Arc::default() }
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

    #[tokio::test]
    async fn a_name_that_was_public_leads_nowhere_inside() {
        let mut resolver = of(Family::V4);
        assert!(resolver.call("localhost".parse().unwrap()).await.is_ok(), "it never was");
        assert!(resolver.was_public("LOCALHOST", &["192.0.2.1".parse().unwrap()]));
        let error = resolver.call("localhost".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "127.0.0.1 is not a public address");
        assert_eq!(resolver.addresses("localhost").await, [] as [IpAddr; 0]);
        let mut over_v6 = Resolver { family: Family::V6, ..resolver.clone() };
        assert!(over_v6.call("localhost".parse().unwrap()).await.is_err(), "over both families");
    }
}
