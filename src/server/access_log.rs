//! The access log: one JSON line for each request, at its completion.
//!
//! A worker renders its line where the request's facts are still at hand, and adds it to a queue; one thread writes what
//! has gathered. The queue is bounded: where the sink is too slow, lines are dropped and counted rather than clients held up.

mod file;

use crate::clock::Timestamp;
use crate::config;
use crate::metrics::Metrics;
use crate::shown;
use file::LogFile;
use serde::Serialize;
use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// Bytes of lines that may wait for the writer: some 16,000 of them. As many again are being written.
const QUEUE_BYTES: usize = 4 << 20;
/// How long the writer lets lines gather between two batches.
const GATHER: Duration = Duration::from_millis(20);

thread_local! {
    /// What a worker renders its next line with.
    static PEN: RefCell<Pen> = const { RefCell::new(Pen { line: Vec::new(), second: u64::MAX, text: String::new() }) };
}

/// The line that is rendered, and the second that the last one was of, as text.
struct Pen {
    line: Vec<u8>,
    second: u64,
    text: String,
}

/// One request.
#[derive(Debug)]
pub struct Record<'a> {
    /// When it was complete.
    pub time: Timestamp,
    /// Who asked: an address.
    pub client: &'a str,
    /// The method; `other` where it is none that HTTP names.
    pub method: &'static str,
    /// The path and query as they came.
    pub path: &'a str,
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
    pub mirror: Option<&'a str>,
    /// The Range field.
    pub range: Option<&'a str>,
    /// The User-Agent field.
    pub user_agent: &'a str,
    /// From head to last byte.
    pub took: Duration,
}

impl Record<'_> {
    /// As a line of JSON. By hand as far as the names of the fields go: a serializer looks at each letter of them for
    /// what it has to escape, for each request.
    fn render(&self, pen: &mut Pen) -> io::Result<()> {
        let line = &mut pen.line;
        line.clear();
        let (second, millis) = (self.time.as_secs(), self.time.as_millis() % 1000);
        if second != pen.second {
            (pen.second, pen.text) = (second, self.time.to_string());
        }
        // To the dot.
        text(line, r#"{"time":""#, pen.text.rsplit_once('.').map_or("", |(second, _)| second));
        line.extend([b'.', digit(millis / 100), digit(millis / 10 % 10), digit(millis % 10), b'Z']);
        text(line, r#"","client":""#, self.client);
        text(line, r#"","method":""#, self.method);
        string(line, r#"","path":"#, self.path)?;
        text(line, r#","protocol":""#, self.protocol);
        field(line, r#"","https":"#, self.https)?;
        field(line, r#","status":"#, self.status)?;
        field(line, r#","bytes":"#, self.bytes)?;
        field(line, r#","complete":"#, self.complete)?;
        text(line, r#","decision":""#, self.decision);
        text(line, r#"","reason":""#, self.reason);
        text(line, r#"","cache":""#, self.cache);
        line.push(b'"');
        if let Some(mirror) = self.mirror {
            string(line, r#","mirror":"#, mirror)?;
        }
        if let Some(range) = self.range {
            string(line, r#","range":"#, range)?;
        }
        string(line, r#","user_agent":"#, self.user_agent)?;
        field(line, r#","seconds":"#, self.took.as_secs_f64())?;
        line.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// What precedes a value, and the value.
fn field<T: Serialize>(line: &mut Vec<u8>, before: &str, value: T) -> io::Result<()> {
    line.extend_from_slice(before.as_bytes());
    serde_json::to_writer(line, &value).map_err(Into::into)
}

/// Of a number from 0 to 9.
const fn digit(of: u64) -> u8 {
    b'0' + of as u8
}

/// A string that may need escapes, and rarely does.
fn string(line: &mut Vec<u8>, before: &str, value: &str) -> io::Result<()> {
    line.extend_from_slice(before.as_bytes());
    // Without a branch for each byte, so that many are looked at in one instruction.
    let odd = value.bytes().fold(0, |odd, byte| {
        odd | u8::from(byte.wrapping_sub(b' ') > b'~' - b' ')
            | u8::from(byte == b'"')
            | u8::from(byte == b'\\')
    });
    if odd != 0 {
        // serde_json leaves DEL, the controls of Latin-1 and marks of direction as they are.
        let json = serde_json::to_string(value)?;
        line.extend_from_slice(shown::line(&json).as_bytes());
        return Ok(());
    }
    line.push(b'"');
    line.extend_from_slice(value.as_bytes());
    line.push(b'"');
    Ok(())
}

/// A word that has nothing to escape.
fn text(line: &mut Vec<u8>, before: &str, word: &str) {
    line.extend_from_slice(before.as_bytes());
    line.extend_from_slice(word.as_bytes());
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
    lines: Mutex<Vec<u8>>,
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
        let sink = match sink {
            config::AccessLog::Off => return Ok((Self { sender: None, metrics }, None)),
            config::AccessLog::Stdout => Sink::Stdout,
            config::AccessLog::File(path) => Sink::File(LogFile::open(path)?),
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
    pub fn write(&self, record: &Record<'_>) {
        let Some(sender) = &self.sender else { return };
        PEN.with_borrow_mut(|pen| {
            // Memory takes everything, and what is written has no form that JSON lacks.
            let _ = record.render(pen);
            let line = &pen.line;
            let mut lines = sender.queue.lock();
            if lines.len() + line.len() > QUEUE_BYTES {
                self.metrics.log_dropped.inc();
                return;
            }
            let is_first = lines.is_empty();
            lines.extend_from_slice(line);
            // Only the first line of a batch wakes the writer: a wake-up for each would cost more than the request.
            if is_first {
                drop(lines);
                sender.writer.unpark();
            }
        });
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.queue.closed.store(true, Ordering::Release);
        self.writer.unpark();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where lines go.
enum Sink {
    Stdout,
    File(LogFile),
}

impl Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::File(file) => file.write(lines),
        }
    }
}

fn write_all(queue: &Queue, mut sink: Sink) {
    let mut batch = Vec::new();
    let mut failed = false;
    loop {
        let closed = queue.closed.load(Ordering::Acquire);
        batch.clear();
        std::mem::swap(&mut batch, &mut *queue.lock());
        if batch.is_empty() {
            if closed {
                return;
            }
            std::thread::park();
            continue;
        }
        match sink.write(&batch) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_a_client_sends() {
        let record = |path, mirror, range, user_agent| Record {
            time: Timestamp::from_millis(1_700_000_000_123),
            client: "2001:db8::1",
            method: "GET",
            path,
            protocol: "1.1",
            https: false,
            status: 206,
            bytes: u64::MAX,
            complete: true,
            decision: "serve",
            reason: "own",
            cache: "hit",
            mirror,
            range,
            user_agent,
            took: Duration::from_micros(1500),
        };
        let read = |record: &Record<'_>| -> serde_json::Value {
            let mut pen = Pen { line: Vec::new(), second: 0, text: String::new() };
            record.render(&mut pen).unwrap();
            assert_eq!(pen.line.iter().filter(|byte| **byte == b'\n').count(), 1);
            serde_json::from_slice(&pen.line).unwrap()
        };
        let odd = "a\"b\\c\u{1}\u{7f}\u{e4}\n";
        assert_eq!(
            read(&record(odd, Some(odd), Some(odd), odd)),
            serde_json::json!({
                "time": "2023-11-14T22:13:20.123Z", "client": "2001:db8::1", "method": "GET", "path": odd,
                "protocol": "1.1", "https": false, "status": 206, "bytes": u64::MAX, "complete": true,
                "decision": "serve", "reason": "own", "cache": "hit", "mirror": odd, "range": odd,
                "user_agent": odd, "seconds": 0.0015,
            })
        );
        let plain = read(&record("/x", None, None, ""));
        assert!(plain.get("mirror").is_none() && plain.get("range").is_none() && plain["user_agent"] == "");
    }
}
