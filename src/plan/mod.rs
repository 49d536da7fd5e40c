//! The planner: a push, played in virtual time by the node's own policy.
//!
//! [`simulate`] takes a [`Scenario`](crate::config::Scenario) and gives an [`Outcome`]. Who is asked, what is redirected and where to, when a window
//! closes, what a mirrorlist names, how redirects are held back and what is shed is decided by `policy` and `listing`, as on a
//! node; hosts' habits ([`hosts`]), mirrors' syncs ([`sync`]) and lines ([`mod@line`]) are models.
//!
//! Of many hosts a sample is played, each of which stands for as many that come one after the other: so one of them takes
//! longer than a host, and its time is reckoned back. Pure: no IO, no clock; one scenario and seed always give one outcome.

mod agenda;
mod asking;
mod cast;
pub mod hosts;
pub mod line;
mod node;
mod outcome;
mod rapid;
mod recorder;
pub mod report;
mod scale;
mod simulation;
pub mod sweep;
pub mod sync;
mod transaction;
pub mod world;

pub use cast::{Cast, Who, drawn};
pub use outcome::{Outcome, Point, RegionOutcome, RegionPoint, Spread};
pub use simulation::{SAMPLE, simulate};
pub use transaction::{installs, updates};
