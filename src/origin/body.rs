//! The body of an origin's response, counted and timed while it streams.

use super::{OriginError, Wait, chain};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::time::Duration;

/// The rest of a response's body. It ends cleanly only at its promised length, where one is promised.
#[derive(Debug)]
pub struct OriginBody {
    incoming: Incoming,
    expected: Option<u64>,
    received: u64,
    stall_timeout: Duration,
}

impl OriginBody {
    pub(super) const fn new(incoming: Incoming, expected: Option<u64>, stall_timeout: Duration) -> Self {
        Self { incoming, expected, received: 0, stall_timeout }
    }

    /// Bytes that came so far.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// The next piece, or `None` at the proper end. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        loop {
            let frame = match tokio::time::timeout(self.stall_timeout, self.incoming.frame()).await {
                Err(_) => {
                    return Err(OriginError::Silent { wait: Wait::NextBytes, after: self.stall_timeout });
                }
                Ok(None) => return self.end(),
                Ok(Some(Err(error))) => {
                    return Err(OriginError::Cut { received: self.received, reason: chain(&error) });
                }
                Ok(Some(Ok(frame))) => frame,
            };
            // Trailers say nothing that is used.
            let Ok(data) = frame.into_data() else { continue };
            if data.is_empty() {
                continue;
            }
            self.received += data.len() as u64;
            return match self.expected {
                Some(expected) if self.received > expected => Err(OriginError::TooLong { expected }),
                _ => Ok(Some(data)),
            };
        }
    }

    /// All of it, if it is at most `max_bytes`.
    pub async fn collect(mut self, max_bytes: u64) -> Result<Bytes, OriginError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            if self.received > max_bytes {
                return Err(OriginError::TooLong { expected: max_bytes });
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }

    fn end(&self) -> Result<Option<Bytes>, OriginError> {
        match self.expected {
            Some(expected) if self.received < expected => {
                Err(OriginError::Truncated { received: self.received, expected })
            }
            _ => Ok(None),
        }
    }
}
