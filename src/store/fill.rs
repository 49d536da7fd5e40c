//! The pump of a fill: from the origin's body to a draft on disk, with readers close behind.
//!
//! Frames are gathered while the disk writes; a write and its hashing happen on the blocking pool, then the watermark
//! moves. Of a listed object the last [`HELD_BACK_BYTES`] reach readers only once the SHA-256 has matched. A body that
//! breaks off is resumed where it stopped, of the same version or not at all.

use super::FillError;
use super::disk::Written;
use super::evict::{Evictor, Reservation};
use super::object::Object;
use super::tail::{End, Progress};
use crate::http::ByteRange;
use crate::origin::Version;
use crate::origin::http::{Answer, Ask};
use crate::origin::{HttpOrigin, OriginBody, OriginError};
use crate::repo::{Hasher, Sha256};
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The end of a listed object that waits for its SHA-256.
pub const HELD_BACK_BYTES: u64 = 16 * 1024;
/// A write is at least this large unless the body pauses.
const BATCH_BYTES: usize = 256 * 1024;
/// Gathered while a write is under way; then the body has to wait.
const GATHERED_BYTES: usize = 1024 * 1024;
/// Room is reserved in such steps where the origin promised no length.
pub(super) const STEP_BYTES: u64 = 8 * 1024 * 1024;
/// How often one fill resumes a body that broke off.
const RESUMES: u32 = 3;

/// What a fill writes, from where to where.
pub(super) struct Pump<'a> {
    pub(super) object: &'a Object,
    pub(super) origin: &'a HttpOrigin,
    pub(super) evictor: &'a Evictor,
    pub(super) pool: &'a Handle,
    pub(super) length: Option<u64>,
    /// The version that is being filled, if the origin names it.
    pub(super) version: Option<Version>,
    pub(super) file: Arc<File>,
    pub(super) written: Arc<Written>,
    pub(super) progress: &'a watch::Sender<Progress>,
}

/// A body that is all there.
pub(super) struct Pumped {
    pub(super) length: u64,
    pub(super) sha256: Sha256,
}

type Writing = JoinHandle<(Hasher, io::Result<()>)>;

impl Pump<'_> {
    /// Runs to the end of the body. On success readers have been told that it is complete; on failure nothing: that
    /// is for the caller, once it has noted the failure.
    pub(super) async fn run(
        &self,
        mut body: OriginBody,
        reservation: &mut Reservation,
    ) -> Result<Pumped, FillError> {
        let mut hasher = Some(Hasher::default());
        let (mut batch, mut batched) = (Vec::new(), 0_usize);
        let (mut received, mut issued) = (0_u64, 0_u64);
        let (mut ended, mut resumes) = (false, RESUMES);
        let mut writing: Option<Writing> = None;
        while !(ended && batch.is_empty() && writing.is_none()) {
            let wanted = if writing.is_some() { GATHERED_BYTES } else { BATCH_BYTES };
            tokio::select! {
                biased;
                frame = body.next(), if !ended && batched < wanted => match frame {
                    Ok(Some(bytes)) => {
                        batched += bytes.len();
                        received += bytes.len() as u64;
                        batch.push(bytes);
                    }
                    Ok(None) => ended = true,
                    Err(broken) if resumes > 0 && broken.is_interruption() => {
                        resumes -= 1;
                        body = self.resume(received, broken).await?;
                    }
                    Err(error) => return Err(FillError::Origin(error)),
                },
                wrote = written(&mut writing), if writing.is_some() => {
                    writing = None;
                    hasher = Some(wrote?);
                    self.publish(issued, End::NotYet);
                },
                // The body pauses, has gathered enough, or is at its end.
                () = std::future::ready(()), if writing.is_none() && !batch.is_empty() => {
                    let end = issued + batched as u64;
                    self.extend(reservation, end).await?;
                    let hasher = hasher.take().unwrap_or_default();
                    writing = Some(self.write(std::mem::take(&mut batch), issued, hasher));
                    (issued, batched) = (end, 0);
                }
            }
        }
        let sha256 = hasher.unwrap_or_default().finish();
        if let Some(listed) = self.object.identity
            && listed.sha256 != sha256
        {
            return Err(FillError::Mismatch { expected: listed.sha256, received: sha256 });
        }
        self.publish(issued, End::Complete);
        Ok(Pumped { length: issued, sha256 })
    }

    fn write(&self, batch: Vec<Bytes>, offset: u64, mut hasher: Hasher) -> Writing {
        let (file, evictor) = (Arc::clone(&self.file), self.evictor.clone());
        let written = Arc::clone(&self.written);
        self.pool.spawn_blocking(move || {
            let mut at = offset;
            for bytes in batch {
                hasher.update(&bytes);
                let writing = || file.write_all_at(&bytes, at);
                if let Err(error) = evictor.with_space(bytes.len() as u64, writing) {
                    return (hasher, Err(error));
                }
                written.note(at, &bytes);
                at += bytes.len() as u64;
            }
            (hasher, Ok(()))
        })
    }

    fn publish(&self, written: u64, end: End) {
        let held_back = matches!((&end, self.object.identity), (End::NotYet, Some(_)));
        let watermark = match self.length {
            Some(length) if held_back => written.min(length.saturating_sub(HELD_BACK_BYTES)),
            _ => written,
        };
        self.progress.send_if_modified(|progress| {
            let modified = watermark > progress.watermark || !matches!(end, End::NotYet);
            progress.watermark = watermark;
            progress.end = end;
            modified
        });
    }

    async fn extend(&self, reservation: &mut Reservation, end: u64) -> Result<(), FillError> {
        if end > reservation.bytes && !self.evictor.extend(reservation, STEP_BYTES).await {
            return Err(FillError::NoRoom);
        }
        Ok(())
    }

    /// The rest of a body that broke off after `received` bytes. Whatever hinders that, the break is what failed.
    async fn resume(&self, received: u64, broken: OriginError) -> Result<OriginBody, FillError> {
        let (listed, version) = (self.object.identity.is_some(), self.version.as_ref());
        let versions_mix = !listed && version.is_none();
        let Some(length) = self.length.filter(|length| *length > received && received > 0 && !versions_mix)
        else {
            return Err(FillError::Origin(broken));
        };
        let range = ByteRange { start: received, end: length };
        let ask = Ask::Range { range, if_range: version.map(Version::if_range) };
        match self.origin.get(&self.object.path, ask, self.object.size()).await {
            Ok(Answer::Body(rest))
                if rest.total.is_none_or(|total| total == length)
                    // Of a listed object the SHA-256 decides.
                    && (listed || version.is_some_and(|version| version.is_in(&rest.headers))) =>
            {
                Ok(rest.body)
            }
            _ => Err(FillError::Origin(broken)),
        }
    }
}

/// The end of the write under way.
async fn written(writing: &mut Option<Writing>) -> Result<Hasher, FillError> {
    let Some(writing) = writing else { return std::future::pending().await };
    match writing.await {
        Ok((hasher, Ok(()))) => Ok(hasher),
        Ok((_, Err(error))) => Err(FillError::Disk(error)),
        Err(_) => Err(FillError::Abandoned),
    }
}
