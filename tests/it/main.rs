//! Integration tests: the real binary over real sockets, with real dnf, zypper, createrepo_c and rpm.

#![allow(clippy::unwrap_used, reason = "a test ends where it can't go on")]

mod architecture;
mod caching;
mod cli;
mod clock;
mod connections;
mod demo;
mod digests;
mod directory;
mod disks;
mod dnf;
mod draining;
mod families;
mod fills;
mod held;
mod hidden;
mod http1;
mod http2;
mod https_mirrors;
mod images;
mod lists;
mod observed;
mod origins;
mod pairs;
mod plan;
mod pressure;
mod proofs;
mod purge;
mod push_torture;
mod rapid;
mod recovery;
mod refusals;
mod reload;
mod repodata;
mod requests;
mod restarts;
mod retained;
mod selection;
mod sendfile;
mod support;
mod syncing;
mod tls;
mod torture;
mod unlisted;
mod week;
