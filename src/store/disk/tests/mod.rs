//! The disk tier over a file system that forgets.

mod crash;
mod model;
