//! The load itself.

use anyhow::Context;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Complete responses.
    pub requests: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Responses other than 200 and 302, and broken ones.
    pub failures: u64,
    /// From sending the request to the last byte, in microseconds.
    pub latency_us: Histogram<u64>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    fn empty() -> anyhow::Result<Self> {
        let latency_us = Histogram::new(3)?;
        Ok(Self { requests: 0, body_bytes: 0, failures: 0, latency_us, took: Duration::ZERO })
    }
}

/// Each connection asks again as soon as it has its answer, until `span` is over.
pub async fn closed_loop(
    target: SocketAddr,
    url: &Uri,
    connections: usize,
    span: Duration,
) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let until = begun + span;
    let clients: Vec<_> = (0..connections)
        .map(|number| tokio::spawn(client(target, url.clone(), format!("libdnf (loadtest {number})"), until)))
        .collect();
    let mut total = Outcome::empty()?;
    for client in clients {
        let one = client.await??;
        total.requests += one.requests;
        total.body_bytes += one.body_bytes;
        total.failures += one.failures;
        total.latency_us.add(one.latency_us)?;
    }
    total.took = begun.elapsed();
    Ok(total)
}

async fn client(target: SocketAddr, url: Uri, agent: String, until: Instant) -> anyhow::Result<Outcome> {
    let stream = TcpStream::connect(target).await.with_context(|| format!("connecting to {target}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut outcome = Outcome::empty()?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    while Instant::now() < until {
        let request = Request::get(path)
            .header(HOST, url.authority().map_or("", |authority| authority.as_str()))
            .header(USER_AGENT, &agent)
            .body(Empty::<Bytes>::new())?;
        let asked = Instant::now();
        let mut response = sender.send_request(request).await?;
        let mut body_bytes = 0;
        while let Some(frame) = response.frame().await {
            body_bytes += frame?.data_ref().map_or(0, Bytes::len) as u64;
        }
        outcome.requests += 1;
        outcome.body_bytes += body_bytes;
        outcome.failures += u64::from(!matches!(response.status().as_u16(), 200 | 302));
        outcome.latency_us.record(u64::try_from(asked.elapsed().as_micros())?)?;
    }
    drop(sender);
    // How a connection that is no longer needed ends says nothing.
    let _ = connection.await;
    Ok(outcome)
}
