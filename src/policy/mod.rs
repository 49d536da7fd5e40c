//! What becomes of a request: the decision and everything that it rests on.
//!
//! Pure: no IO, no clock, no randomness. Facts and `now` come in as arguments, so the live node, `explain`, the
//! tests and simulations all run this very code. Two snapshots feed it: [`Repos`] (published by `push`) and
//! [`MirrorTable`] (published by `mirrors`), both immutable once published.

pub mod bounce;
pub mod budget;
pub mod client;
pub mod confirm;
mod crowd;
pub mod decide;
pub mod doubts;
pub mod egress;
pub mod exceptions;
pub mod fair;
pub mod lines;
pub mod lists;
pub mod load;
pub mod mirrors;
mod note;
pub mod order;
pub mod reason;
pub mod repos;
pub mod select;
pub mod sightings;
pub mod table;
pub mod window;

pub use bounce::{Ask, BounceReport, Failed, Past, Standing, Trail};
pub use client::Client;
pub use confirm::{Confirmed, Currency};
pub use decide::{Decision, Facts, Redirect, decide, last_resort};
pub use doubts::Doubts;
pub use exceptions::{Exceptions, Fault, Group};
pub use lines::Lines;
pub use mirrors::{Covered, MirrorState, Pair, Proof, Reach};
pub use note::Note;
pub use order::Orders;
pub use reason::Reason;
pub use repos::{Place, Published, RepoView, Repos};
pub use sightings::{Look, Sightings, Spot};
pub use table::MirrorTable;
pub use window::{Phase, Window};
