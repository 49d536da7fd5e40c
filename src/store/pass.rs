//! A body that goes from the origin to one client past the cache.
//!
//! A task on the background runtime reads the origin (whose connections belong there) and hands pieces over, so that
//! the reader may live on any runtime. The end is a message of its own: a task that dies never reads as a clean end.

use super::FillError;
use super::gate::Gate;
use super::object::Identity;
use super::places::Place;
use crate::origin::OriginBody;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Pieces under way: the reader's pace is the origin's.
const QUEUED_PIECES: usize = 4;

enum Piece {
    Data(Bytes),
    End,
}

/// A stream of an object's bytes, or of a range of them. Dropping it ends the request to the origin.
pub struct PassBody {
    pieces: Receiver<Result<Piece, Arc<FillError>>>,
    ended: bool,
}

impl fmt::Debug for PassBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassBody").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl PassBody {
    /// Starts to read, through the gate if there is one. With an identity the last piece is held back until its digest has matched.
    pub(super) fn start(
        body: OriginBody,
        identity: Option<Identity>,
        place: Place,
        gate: Option<Arc<Gate>>,
        runtime: &Handle,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(QUEUED_PIECES);
        runtime.spawn(async move {
            let _place = place;
            let last = match pump(body, identity, &sender, gate.as_deref()).await {
                Ok(true) => Ok(Piece::End),
                Ok(false) => return,
                Err(error) => Err(Arc::new(error)),
            };
            // A reader that left needs no end.
            let _ = sender.send(last).await;
        });
        Self { pieces, ended: false }
    }

    /// The next piece; `None` only after the proper end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Arc<FillError>>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = match std::task::ready!(self.pieces.poll_recv(cx)) {
            Some(Ok(Piece::Data(bytes))) => return Poll::Ready(Some(Ok(bytes))),
            Some(Ok(Piece::End)) => None,
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(Arc::new(FillError::Abandoned))),
        };
        self.ended = true;
        Poll::Ready(piece)
    }

    /// The same, to await.
    pub async fn next(&mut self) -> Option<Result<Bytes, Arc<FillError>>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}

/// Whether the body was handed over to its end; `false` when the reader left.
async fn pump(
    mut body: OriginBody,
    identity: Option<Identity>,
    sender: &Sender<Result<Piece, Arc<FillError>>>,
    gate: Option<&Gate>,
) -> Result<bool, FillError> {
    let mut checked = identity.map(|identity| (identity, identity.digester()));
    let mut held: Option<Bytes> = None;
    loop {
        let reading = async {
            match gate {
                Some(gate) => gate.pass(body.next()).await,
                None => body.next().await,
            }
        };
        let next = tokio::select! {
            next = reading => next.map_err(FillError::Origin)?,
            () = sender.closed() => return Ok(false),
        };
        let ready = match (&mut checked, next) {
            (None, None) => return Ok(true),
            (None, Some(piece)) => piece,
            (Some((_, digester)), Some(piece)) => {
                digester.update(&piece);
                let Some(ready) = held.replace(piece) else { continue };
                ready
            }
            (Some(_), None) => {
                if let Some((identity, digester)) = checked.take() {
                    identity.check(digester.finish())?;
                }
                let Some(last) = held.take() else { return Ok(true) };
                last
            }
        };
        if sender.send(Ok(Piece::Data(ready))).await.is_err() {
            return Ok(false);
        }
    }
}
