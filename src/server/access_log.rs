//! The access log: one JSON line for each request, at its completion.
//!
//! Lines are rendered and written in batches by one thread. Its queue is bounded: where the sink is too slow, lines are
//! dropped and counted rather than clients held up.

use crate::clock::Timestamp;
use crate::config;
use crate::metrics::Metrics;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines that may wait for the writer.
const QUEUE: usize = 16_384;

/// One request.
#[derive(Debug, Serialize)]
pub struct Record {
    /// When it was complete.
    #[serde(serialize_with = "as_text")]
    pub time: Timestamp,
    /// Who asked.
    pub client: IpAddr,
    /// The method; `-` where the request was too malformed to tell.
    pub method: &'static str,
    /// The path and query as they came.
    pub path: String,
    /// `1.1`, `2`.
    pub protocol: &'static str,
    /// Over TLS.
    pub https: bool,
    /// The status code.
    pub status: u16,
    /// Body bytes sent.
    pub bytes: u64,
    /// The whole body was sent.
    pub complete: bool,
    /// serve, redirect or answer.
    pub decision: &'static str,
    /// Why.
    pub reason: &'static str,
    /// What the cache had: hit, stale, fill, pass, none.
    pub cache: &'static str,
    /// The mirror that the client was sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// The Range field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// The User-Agent field.
    pub user_agent: String,
    /// From head to last byte.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub took: Duration,
}

fn as_text<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn as_seconds<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(took.as_secs_f64())
}

/// The sending end of the log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: Option<SyncSender<Record>>,
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// Opens the sink and starts the writer. The writer ends once all clones of the log are dropped; join it then.
    ///
    /// # Errors
    /// The file can't be opened for appending.
    pub fn open(
        sink: &config::AccessLog,
        metrics: Arc<Metrics>,
    ) -> io::Result<(Self, Option<JoinHandle<()>>)> {
        let sink: Box<dyn Write + Send> = match sink {
            config::AccessLog::Off => return Ok((Self { lines: None, metrics }, None)),
            config::AccessLog::Stdout => Box::new(io::stdout()),
            config::AccessLog::File(path) => {
                Box::new(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        let (lines, queue) = sync_channel(QUEUE);
        let writer =
            std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&queue, sink))?;
        Ok((Self { lines: Some(lines), metrics }, Some(writer)))
    }

    /// Whether requests are written at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Hands over one line; never waits.
    pub fn write(&self, record: Record) {
        if let Some(lines) = &self.lines
            && let Err(TrySendError::Full(_)) = lines.try_send(record)
        {
            self.metrics.log_dropped.inc();
        }
    }
}

fn write_all(queue: &Receiver<Record>, sink: Box<dyn Write + Send>) {
    let mut sink = BufWriter::with_capacity(64 << 10, sink);
    let mut failed = false;
    while let Ok(first) = queue.recv() {
        let batch = std::iter::once(first).chain(queue.try_iter().take(QUEUE));
        let written = batch.map(|record| line(&mut sink, &record)).fold(Ok(()), Result::and);
        match written.and_then(|()| sink.flush()) {
            Ok(()) => failed = false,
            Err(error) if !failed => {
                failed = true;
                tracing::error!(%error, "the access log can't be written");
            }
            Err(_) => {}
        }
    }
}

fn line(sink: &mut impl Write, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut *sink, record)?;
    sink.write_all(b"\n")
}
