//! The data plane: from a socket to a decision to bytes on the socket.
//!
//! One current-thread runtime per core accepts on its own `SO_REUSEPORT` sockets. A connection stays on the core that
//! accepted it, so nothing here is locked or shared but the snapshots ([`crate::policy::Published`]), the store's
//! indexes, and counters. `handle` is the whole way of a request.

pub mod access_log;
mod account;
mod answer;
mod asked;
mod body;
mod buffers;
pub mod cache_status;
mod choices;
mod clients;
mod connection;
pub mod consider;
mod cork;
mod edge;
pub mod egress;
pub mod explain;
pub(crate) mod h1;
mod h2;
mod handle;
mod handshakes;
mod head;
mod linger;
pub mod listen;
mod listings;
pub mod memory;
pub mod pacer;
mod peer;
pub(crate) mod proxied;
mod redirect;
mod reply;
mod residency;
mod respond;
pub mod seats;
mod serve;
mod socket;
mod taken;
mod tls;
mod waits;
pub mod worker;

pub use clients::Seen;
pub use edge::{Edge, Parts};
pub use tls::acceptor;
