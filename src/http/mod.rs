//! What HTTP itself says: paths (and which are not for clients), hosts, ranges, multipart bodies, conditional requests, freshness, stored fields, types, dates.
//!
//! Pure: no IO, no clock, no runtime. Everything here reads bytes that a stranger sent, so nothing may panic, and all work
//! is bounded by the size of its input.

pub mod conditional;
pub mod content_type;
pub mod date;
pub mod fields;
pub mod forwarded;
pub mod freshness;
pub mod hidden;
pub mod host;
pub mod multipart;
pub mod path;
pub mod range;

pub use fields::Fields;
pub use forwarded::Forwarded;
pub use multipart::{Multipart, Piece};
pub use path::{PathError, TreePath};
pub use range::{ByteRange, Requested};
