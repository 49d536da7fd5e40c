//! The end of a connection whose last response is out.
//!
//! To close a socket on which unread bytes lie, or on which bytes arrive later, resets it, and what the client hasn't taken yet is
//! lost. A client of HTTP/2 sends frames all the while that it reads, and one of HTTP/1 may have sent its next request. So the
//! node closes its own end, and reads on until the client has closed, which it does once it has all (RFC 9112, section 9.6).

use super::peer::Peer;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The least that the client's end is waited for, and all of it over HTTP/1: its clients send nothing while they read.
pub const LEAST: Duration = Duration::from_secs(2);
/// A client that takes less per second than this, of what the kernel holds for it, isn't waited for to the end: as much as the
/// pacer leaves to each transfer.
const SLOW_BYTES_PER_SECOND: usize = 32_000;
/// What it may send meanwhile.
const MOST_BYTES: usize = 256 << 10;

/// How long the client's end is waited for over HTTP/2, where the kernel may hold so many bytes for it, the last of which it got
/// so long ago.
pub fn patience(queue_bytes: usize, quiet: Duration, write_timeout: Duration) -> Duration {
    let taking = Duration::from_secs((queue_bytes / SLOW_BYTES_PER_SECOND) as u64);
    taking.saturating_sub(quiet).min(write_timeout).max(LEAST)
}

/// Reads, and throws away, until the client has closed its end; for so long at most. The node's own end is closed already.
pub async fn linger(io: &mut (impl AsyncRead + Unpin), peer: &Peer, patience: Duration) {
    peer.lingers();
    let until_end = async {
        let (mut left, mut buffer) = (MOST_BYTES, [0; 1024]);
        while left > 0 {
            match io.read(&mut buffer).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    // Whatever happens, this is its end.
    let _ = tokio::time::timeout(patience, until_end).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_long_as_a_slow_client_takes_for_what_is_queued() {
        for (queue, quiet, secs) in [
            (0, 0, 2),
            (16 << 10, 0, 2),
            (1_000_000, 0, 31),
            (1_000_000, 20, 11),
            (1_000_000, 40, 2),
            (6 << 20, 0, 60),
        ] {
            let (quiet, minute) = (Duration::from_secs(quiet), Duration::from_secs(60));
            assert_eq!(patience(queue, quiet, minute), Duration::from_secs(secs), "{queue} bytes, {quiet:?}");
        }
        assert_eq!(patience(6 << 20, Duration::ZERO, Duration::from_millis(100)), LEAST);
    }
}
