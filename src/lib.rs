//! freshet: the edge server of a Linux distribution's own download nodes.
//!
//! # The life of a request
//!
//! ```text
//! accept -> parse -> look up -> decide -> serve from memory | sendfile from disk | join a fill | redirect | answer -> account
//! ```
//!
//! [`server`] accepts, and its `handle` is the whole way on one screen. It looks the path up in the snapshots that
//! [`push`] (repos, generations, windows) and [`mirrors`] (what each mirror is proven to hold) publish, asks the
//! [`store`] what it has, and lets [`policy`] decide. The store gets what it lacks from the [`origin`].
//!
//! # The map
//!
//! Pure, without IO and clock: [`http`], [`repo`], [`shares`], [`policy`], [`listing`], and [`plan`], that plays pushes in virtual time. With IO: [`store`], [`origin`], [`mirrors`],
//! [`push`], [`server`], [`admin`]. [`app`] puts them together; [`demo`] shows them at work.
//!
//! # Invariants
//!
//! - No redirect without proof: a mirror is named for a file only if it was seen to have that file, in the generation that
//!   lists it; or, where the operator lets that do for files that no list names, lately and with the same size and time.
//! - A body that isn't whole never ends cleanly, and a wrong byte is never committed.
//! - A repo's repomd.xml, its window, its mirrorlist and metalink change in one atomic swap.
//! - Nothing on the request path takes a lock that IO is done under.

#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod ask;
pub mod clock;
pub mod config;
pub mod confine;
pub mod demo;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
pub mod geo;
pub mod http;
pub mod listing;
pub mod metrics;
pub mod mirrors;
pub mod origin;
pub mod permits;
pub mod plan;
pub mod planner;
pub mod policy;
pub mod push;
pub mod repo;
pub mod server;
pub mod shares;
pub mod shown;
pub mod store;
