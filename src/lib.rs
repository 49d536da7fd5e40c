//! freshet: the edge server of a Linux distribution's own download nodes.

#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
pub mod http;
pub mod listing;
pub mod metrics;
pub mod policy;
pub mod repo;
