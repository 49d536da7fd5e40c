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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// Lines that may wait for the writer.
const QUEUE: usize = 16_384;
/// How long the writer lets lines gather between two batches.
const GATHER: Duration = Duration::from_millis(20);

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
    sender: Option<Arc<Sender>>,
    metrics: Arc<Metrics>,
}

/// Closes the queue when the last clone of the log is dropped.
#[derive(Debug)]
struct Sender {
    queue: Arc<Queue>,
    writer: Thread,
}

#[derive(Debug, Default)]
struct Queue {
    lines: Mutex<Vec<Record>>,
    closed: AtomicBool,
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
            config::AccessLog::Off => return Ok((Self { sender: None, metrics }, None)),
            config::AccessLog::Stdout => Box::new(io::stdout()),
            config::AccessLog::File(path) => {
                Box::new(OpenOptions::new().create(true).append(true).open(path)?)
            }
        };
        let queue = Arc::new(Queue::default());
        let lines = queue.clone();
        let writer =
            std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&lines, sink))?;
        let sender = Arc::new(Sender { queue, writer: writer.thread().clone() });
        Ok((Self { sender: Some(sender), metrics }, Some(writer)))
    }

    /// Whether requests are written at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.sender.is_some()
    }

    /// Hands over one line; never waits for the sink.
    pub fn write(&self, record: Record) {
        let Some(sender) = &self.sender else { return };
        let mut lines = sender.queue.lock();
        if lines.len() == QUEUE {
            self.metrics.log_dropped.inc();
            return;
        }
        lines.push(record);
        // Only the first line of a batch wakes the writer: a wake-up for each would cost more than the request.
        if lines.len() == 1 {
            drop(lines);
            sender.writer.unpark();
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.queue.closed.store(true, Ordering::Release);
        self.writer.unpark();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Vec<Record>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_all(queue: &Queue, sink: Box<dyn Write + Send>) {
    let mut sink = BufWriter::with_capacity(64 << 10, sink);
    let mut batch = Vec::new();
    let mut failed = false;
    loop {
        let closed = queue.closed.load(Ordering::Acquire);
        std::mem::swap(&mut batch, &mut *queue.lock());
        if batch.is_empty() {
            if closed {
                return;
            }
            std::thread::park();
            continue;
        }
        let written = batch.drain(..).map(|record| line(&mut sink, &record)).fold(Ok(()), Result::and);
        match written.and_then(|()| sink.flush()) {
            Ok(()) => failed = false,
            Err(error) if !failed => {
                failed = true;
                tracing::error!(%error, "the access log can't be written");
            }
            Err(_) => {}
        }
        // Not parked: the first line of the next batch would end that at once.
        std::thread::sleep(GATHER);
    }
}

fn line(sink: &mut impl Write, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut *sink, record)?;
    sink.write_all(b"\n")
}
