//! From a stream into the file, with readers close behind.
//!
//! Pieces are gathered while the disk writes; a write and its hashing happen on the blocking pool, then readers are told.

use super::stream::Stream;
use super::{Fill, FillError};
use crate::http::ByteRange;
use crate::origin::OriginError;
use crate::store::demand::Class;
use crate::store::sums::Sums;
use bytes::Bytes;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A write is at least this large unless the body pauses.
const BATCH_BYTES: usize = 256 * 1024;
/// Gathered while a write is under way; then the body has to wait.
const GATHERED_BYTES: usize = 1024 * 1024;
/// Read at once where bytes that are there already are hashed.
const READ_BYTES: u64 = 1024 * 1024;

type Writing = JoinHandle<(Option<Sums>, io::Result<()>)>;

/// What goes into the file, in order from some offset on.
pub(super) struct Writer<'a> {
    fill: &'a Fill,
    /// What is written, or read back, is hashed; absent while a write has it.
    sums: Option<Sums>,
    batch: Vec<Bytes>,
    batched: usize,
    /// The end of what was handed to the disk.
    issued: u64,
    writing: Option<(ByteRange, Writing)>,
}

impl<'a> Writer<'a> {
    /// From `at` on; with sums for what is hashed in order.
    pub(super) fn new(fill: &'a Fill, at: u64, sums: Option<Sums>) -> Self {
        Self { fill, sums, batch: Vec::new(), batched: 0, issued: at, writing: None }
    }

    /// The end of what was taken.
    pub(super) fn at(&self) -> u64 {
        self.issued + self.batched as u64
    }

    /// Of what was hashed.
    pub(super) fn into_sums(self) -> Option<Sums> {
        self.sums
    }

    /// Takes the bytes from here to `to`, or to the stream's end, and returns once they are in the file; whether the stream
    /// ended.
    pub(super) async fn pump(&mut self, stream: &mut Stream<'_>, to: Option<u64>) -> Result<bool, FillError> {
        let mut ended = false;
        loop {
            // At the very end the body has to say that it ends there.
            let left = to.map_or(u64::MAX, |to| to - self.at());
            let takes = !ended && (left > 0 || stream.end() == to);
            if !takes && self.batch.is_empty() && self.writing.is_none() {
                return Ok(ended);
            }
            let wanted = if self.writing.is_some() { GATHERED_BYTES } else { BATCH_BYTES };
            tokio::select! {
                biased;
                piece = next(self.fill, stream, left.max(1)), if takes && self.batched < wanted => match piece {
                    Ok(Some(bytes)) => {
                        self.batched += bytes.len();
                        self.batch.push(bytes);
                    }
                    Ok(None) => ended = true,
                    Err(broken) => {
                        self.flush().await?;
                        stream.resume(broken).await?;
                    }
                },
                wrote = written(&mut self.writing), if self.writing.is_some() => self.finish(wrote)?,
                // The body pauses, has given enough, or is at its end.
                () = std::future::ready(()), if self.writing.is_none() && !self.batch.is_empty() => {
                    self.start().await?;
                }
            }
        }
    }

    /// Hashes the bytes from here to `to`, which are in the file.
    pub(super) async fn pass_over(&mut self, to: u64) -> Result<(), FillError> {
        let (file, written) = (Arc::clone(&self.fill.file), Arc::clone(&self.fill.written));
        let (mut sums, from) = (self.sums.take().ok_or(FillError::Abandoned)?, self.issued);
        let reading = move || {
            let mut buffer = vec![0; usize::try_from(READ_BYTES.min(to - from)).map_err(io::Error::other)?];
            let mut at = from;
            while at < to {
                let part =
                    &mut buffer[..usize::try_from(READ_BYTES.min(to - at)).map_err(io::Error::other)?];
                file.read_exact_at(part, at)?;
                sums.update(part);
                written.note(at, part);
                at += part.len() as u64;
            }
            Ok(sums)
        };
        let read = self.fill.cache.runtime.spawn_blocking(reading).await;
        self.sums = Some(read.map_err(|_| FillError::Abandoned)?.map_err(FillError::Disk)?);
        self.issued = to;
        Ok(())
    }

    /// Returns once all that was taken is in the file.
    async fn flush(&mut self) -> Result<(), FillError> {
        while self.writing.is_some() || !self.batch.is_empty() {
            if self.writing.is_none() {
                self.start().await?;
            }
            let wrote = written(&mut self.writing).await;
            self.finish(wrote)?;
        }
        Ok(())
    }

    async fn start(&mut self) -> Result<(), FillError> {
        let range = ByteRange { start: self.issued, end: self.at() };
        if self.fill.length.is_none() {
            self.fill.make_room_to(range.end).await?;
        }
        let (batch, mut sums) = (std::mem::take(&mut self.batch), self.sums.take());
        let under_way = Arc::clone(&self.fill.writing).read_owned().await;
        let (file, evictor) = (Arc::clone(&self.fill.file), self.fill.cache.evictor.clone());
        let written = Arc::clone(&self.fill.written);
        let writing = self.fill.cache.runtime.spawn_blocking(move || {
            let _under_way = under_way;
            let mut at = range.start;
            for bytes in batch {
                if let Some(sums) = &mut sums {
                    sums.update(&bytes);
                }
                let writing = || file.write_all_at(&bytes, at);
                if let Err(error) = evictor.with_space(bytes.len() as u64, writing) {
                    return (sums, Err(error));
                }
                if sums.is_some() {
                    written.note(at, &bytes);
                }
                at += bytes.len() as u64;
            }
            (sums, Ok(()))
        });
        (self.issued, self.batched) = (range.end, 0);
        self.writing = Some((range, writing));
        Ok(())
    }

    fn finish(&mut self, wrote: Wrote) -> Result<(), FillError> {
        let Wrote { range, sums, result } = wrote;
        self.sums = sums;
        result?;
        self.fill.arrived(range);
        Ok(())
    }
}

/// The stream's next bytes; a client's, in turn while a push fetches.
async fn next(fill: &Fill, stream: &mut Stream<'_>, max: u64) -> Result<Option<Bytes>, OriginError> {
    let gate = &fill.cache.gate;
    let is_push = || fill.demand.borrow().class == Class::Push || fill.wants.is_pushed();
    if !gate.is_pushing() || is_push() {
        return stream.next(max).await;
    }
    gate.pass(stream.next(max)).await
}

struct Wrote {
    range: ByteRange,
    sums: Option<Sums>,
    result: Result<(), FillError>,
}

/// The end of the write under way, of which there is one.
async fn written(writing: &mut Option<(ByteRange, Writing)>) -> Wrote {
    let Some((range, task)) = writing else { return std::future::pending().await };
    let (range, ended) = (*range, task.await);
    *writing = None;
    match ended {
        Ok((sums, result)) => Wrote { range, sums, result: result.map_err(FillError::Disk) },
        Err(_) => Wrote { range, sums: None, result: Err(FillError::Abandoned) },
    }
}
