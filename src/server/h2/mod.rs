//! HTTP/2: what a connection may hold in memory, and what its client may make it do.
//!
//! hyper takes a frame of a body before its client has asked for a byte of it, for each stream. So the account of what it holds is
//! kept here ([`outgoing`]), bodies are cut by it ([`frames`]), and frames that ask for work without asking for a file are
//! counted ([`meter`]).

pub mod frames;
pub mod meter;
pub mod outgoing;
