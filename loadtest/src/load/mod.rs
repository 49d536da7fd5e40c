//! The load: one thread, one epoll loop, many kept-alive connections with one request at a time each, as librepo's are.
//!
//! It is made to cost little, so that one core of it can saturate one of the server: bodies over plain HTTP are thrown away in
//! the kernel (`MSG_TRUNC`), TLS is decrypted where it was received, and nothing is allocated for a request. It
//! counts; what the figures mean is for the caller to say.
//!
//! Closed loop: a connection asks again as soon as it has its answer. Open loop: requests are due at fixed moments, whatever
//! the server does, and latency counts from the moment at which a request was due. So one that had to wait because all
//! connections were busy has waited, and a server that stalls can't hide behind the requests that it kept from being sent
//! (coordinated omission).

mod connection;
mod engine;
pub mod http1;
mod http2;
mod schedule;
mod tls;

pub use engine::Engine;
pub use tls::trusting;

use freshet::repo::{Hasher, Sha256};
use hdrhistogram::Histogram;
use rustls::ClientConfig;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What is to be done.
#[derive(Clone)]
pub struct Plan {
    /// The server. Load goes to loopback only; who makes a plan sees to it.
    pub target: SocketAddr,
    /// The Host field, and the name in the certificate.
    pub host: String,
    /// What is asked for, each connection beginning at another of them.
    pub paths: Arc<[String]>,
    /// How many.
    pub connections: usize,
    /// What is spoken.
    pub wire: Wire,
    /// The status that is right.
    pub status: u16,
    /// When to ask.
    pub pace: Pace,
    /// What all bodies have to be, if they are to be looked at.
    pub verify: Option<Sha256>,
    /// Where connection number n comes from; the kernel's choice for an empty list.
    pub sources: Vec<IpAddr>,
    /// Turns true when the run is to be broken off.
    pub stop: Arc<AtomicBool>,
}

/// The protocol of a run.
#[derive(Clone)]
pub enum Wire {
    /// HTTP/1.1.
    Plain,
    /// HTTP/1.1 over TLS 1.3.
    Tls(Arc<ClientConfig>),
    /// HTTP/2 over TLS 1.3.
    Http2(Arc<ClientConfig>),
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Each connection asks again at once.
    Closed,
    /// So many requests a second over all connections, evenly spaced.
    Open {
        /// Requests a second.
        rate: f64,
    },
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Complete responses as they should be.
    pub requests: u64,
    /// Bytes of bodies that arrived within the run, those of responses that weren't complete at its end included.
    pub body_bytes: u64,
    /// Responses with another status, broken off, or with other bytes.
    pub failures: u64,
    /// What the first failure was.
    pub first_failure: Option<String>,
    /// From sending the request (closed loop) or from when it was due (open loop) to the last byte, in microseconds.
    pub latency_us: Histogram<u64>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Nothing yet.
    pub fn empty() -> Self {
        let latency_us = Histogram::new(3).expect("three digits are allowed");
        Self {
            requests: 0,
            body_bytes: 0,
            failures: 0,
            first_failure: None,
            latency_us,
            took: Duration::ZERO,
        }
    }

    fn fails(&mut self, fault: &Fault) {
        self.failures += 1;
        self.first_failure.get_or_insert_with(|| fault.to_string());
    }
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The socket failed.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The server ended the connection.
    #[error("the server closed the connection")]
    Closed,
    /// TLS failed.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The server doesn't speak HTTP, or not as this client needs it.
    #[error("the answer is {0}")]
    Protocol(&'static str),
    /// Another status than the one that is right.
    #[error("status {0}")]
    Status(u16),
    /// Other bytes than expected.
    #[error("the body is not what it should be")]
    Body,
}

/// Where the bytes of bodies go.
#[derive(Default)]
pub struct Sink {
    /// How many came.
    pub bytes: u64,
    hasher: Option<Hasher>,
}

impl Sink {
    fn take(&mut self, body: &[u8]) {
        self.bytes += body.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(body);
        }
    }
}

#[cfg(test)]
mod tests;
