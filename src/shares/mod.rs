//! Shares: who gets what there isn't enough of, who waits for it, and who gives it back.
//!
//! What is bounded is shared between networks, and within a network between its clients. A network that is alone has everything.
//! As soon as another one wants something, the next free place is that one's, however many the first has waiting. Time and
//! sockets are the callers' ([`crate::permits`] has the wakers): all here is pure.

pub mod pool;
mod queue;
mod ranks;
pub mod slowest;
pub mod table;
pub mod turns;

pub use pool::{Answer, Limits, Pool, Use};
pub use slowest::{Holding, Slowest};
pub use table::{Bounds, Sharded, Table};

/// Whose use counts: a client and its network. Mirrors and repos may be owners, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The network, as a number ([`crate::policy::client::network`]).
    pub network: u64,
    /// The client within it.
    pub client: u64,
    /// It stands for many networks, as a load balancer does: the bound of one network doesn't hold.
    pub is_many: bool,
}

impl Owner {
    /// The node itself: what it does for all.
    pub const NODE: Self = Self { network: u64::MAX, client: 0, is_many: true };

    /// A client of a network.
    #[must_use]
    pub const fn new(network: u64, client: u64) -> Self {
        Self { network, client, is_many: false }
    }

    /// One that stands for many networks, and is none of its own network's others.
    #[must_use]
    pub const fn many(self) -> Self {
        Self { network: self.client, is_many: true, ..self }
    }
}
