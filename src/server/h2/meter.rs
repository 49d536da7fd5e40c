//! Frames that have the node work and ask for nothing: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, DATA without data, and
//! frames of unknown types. A client has an account of them: it begins with [`BURST`], and earns with time, with requests, and
//! with what it takes.
//!
//! h2 answers each of them, however many come: 100 MB a second of them over four connections took other clients' median from 0.15
//! to 48 ms. It has bounds of its own for CONTINUATION, resets and the size of heads.

use std::time::{Duration, Instant};

/// Frames that a client may send at once.
const BURST: u64 = 1000;
/// And so many once it has earned them with bodies: it may take 32 MiB from its own buffers in one go.
const MOST: u64 = 16 * BURST;
/// Frames that a client earns in a second: PINGs that measure, or keep alive.
const PER_SECOND: u64 = 10;
/// Frames that a client earns with a request: it may open windows, set priorities, reset it.
const PER_REQUEST: u64 = 10;
/// A frame is earned with so many bytes of bodies. Go's client opens two windows for each 4 KiB that are read.
const BYTES_PER_FRAME: u64 = 2048;
/// What comes before a client's first frame (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// Of a frame: length, type, flags, stream (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// The largest frame that a client may send (RFC 9113, 4.2), and a head of the size that is allowed with its last frame.
const MOST_FRAME_BYTES: u64 = 16 << 10;
const MOST_HEAD_BYTES: u64 = 48 << 10;

/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, 6.8 and 7).
pub const CALM: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0xb];

/// Where one frame ends and the next begins, in bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Heads {
    /// Of the preface or a payload, bytes that are still to come; and whether they are DATA.
    skip: usize,
    is_data: bool,
    /// A frame has begun after the preface; it is part of a request's head; the head goes on after it.
    is_frame: bool,
    is_head: bool,
    goes_on: bool,
    head: [u8; HEAD_BYTES],
    filled: usize,
}

impl Heads {
    /// Of what a client sends.
    #[must_use]
    pub const fn of_client() -> Self {
        let (is_data, is_frame, is_head, goes_on) = (false, false, false, false);
        Self { skip: PREFACE_BYTES, is_data, is_frame, is_head, goes_on, head: [0; HEAD_BYTES], filled: 0 }
    }

    /// Follows `bytes`; of each head that is complete with them, `each` gets the type and the length of its payload. How many of
    /// the bytes are payload of DATA.
    pub fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(u8, usize)) -> u64 {
        let mut data = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            data += if self.is_data { skipped as u64 } else { 0 };
            bytes = &bytes[skipped..];
            let taken = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            (self.filled, bytes) = (self.filled + taken, &bytes[taken..]);
            if self.filled == HEAD_BYTES {
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                (self.filled, self.is_data, self.is_frame) = (0, kind == DATA, true);
                self.is_head = matches!(kind, HEADERS | CONTINUATION);
                self.goes_on = self.is_head && flags & END_HEADERS == 0;
                each(kind, self.skip);
            }
        }
        data
    }

    /// What h2 keeps at most of a head or a frame that hasn't come whole, in bytes.
    #[must_use]
    pub const fn kept_bytes(&self) -> u64 {
        if self.goes_on || self.is_head && self.skip > 0 {
            MOST_HEAD_BYTES
        } else if self.is_frame && self.skip > 0 {
            MOST_FRAME_BYTES
        } else {
            0
        }
    }

    /// No frame has begun that isn't complete.
    #[must_use]
    pub const fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }
}

/// A client's account of frames.
#[derive(Debug)]
pub struct Meter {
    heads: Heads,
    credit: u64,
    since: Instant,
    /// Bytes of bodies that were counted.
    written: u64,
}

impl Meter {
    /// For a connection that begins.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { heads: Heads::of_client(), credit: BURST, since: now, written: 0 }
    }

    /// What h2 keeps of what hasn't come whole ([`Heads::kept_bytes`]).
    #[must_use]
    pub const fn kept_bytes(&self) -> u64 {
        self.heads.kept_bytes()
    }

    /// Whether the client may have sent `bytes`; `written`: bytes of bodies that it was sent, from the connection's start on.
    #[must_use]
    pub fn allows(&mut self, bytes: &[u8], written: u64, now: Instant) -> bool {
        self.earn(written, now);
        let (mut cost, mut earned) = (0, 0);
        self.heads.follow(bytes, |kind, length| match kind {
            HEADERS => earned += PER_REQUEST,
            CONTINUATION => {}
            DATA if length > 0 => {}
            _ => cost += 1,
        });
        let credit = self.rests(earned);
        self.credit = credit.saturating_sub(cost);
        cost <= credit
    }

    fn earn(&mut self, written: u64, now: Instant) {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        self.since += Duration::from_secs(seconds);
        let bytes = written - self.written;
        self.written = written - bytes % BYTES_PER_FRAME;
        let rested = self.rests(seconds.saturating_mul(PER_SECOND));
        self.credit = rested.saturating_add(bytes / BYTES_PER_FRAME).min(MOST.max(rested));
    }

    /// What time and requests earn goes no further than what one begins with.
    fn rests(&self, earned: u64) -> u64 {
        self.credit.max(self.credit.saturating_add(earned).min(BURST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let head = [0, (length >> 8) as u8, length as u8, kind, 0, 0, 0, 0, 1];
        [&head[..], &vec![0xff; length]].concat()
    }

    #[test]
    fn a_flood_is_told_from_clients_of_today() {
        let begun = crate::clock::monotonic();
        // (frames each round, rounds, bytes of bodies and milliseconds for each, allowed)
        let one = |kind, length| frame(kind, length);
        for (name, frames, rounds, bytes, millis, allowed) in [
            ("a flood of PINGs", one(PING, 8), 1001, 0, 0, false),
            ("of windows", one(WINDOW_UPDATE, 4), 1001, 0, 0, false),
            ("of unknown frames", one(0x42, 0), 1001, 0, 0, false),
            ("of DATA without data", one(DATA, 0), 1001, 0, 0, false),
            ("a PING each 100 ms", one(PING, 8), 10_000, 0, 100, true),
            ("Go, that reads a large file", [one(8, 4), one(8, 4)].concat(), 100_000, 4096, 0, true),
            (
                "small requests",
                [one(HEADERS, 50), one(8, 4), one(2, 5), one(3, 4)].concat(),
                10_000,
                0,
                0,
                true,
            ),
            ("a request's long head", one(CONTINUATION, 1000), 2000, 0, 0, true),
            ("a body", one(DATA, 1000), 2000, 0, 0, true),
        ] {
            let mut meter = Meter::new(begun);
            assert!(meter.allows(PREFACE, 0, begun));
            let is_allowed = (1..=rounds).all(|round: u64| {
                let now = begun + Duration::from_millis(millis * round);
                meter.allows(&frames, bytes * round, now)
            });
            assert_eq!(is_allowed, allowed, "{name}");
        }
    }

    #[test]
    fn a_client_that_reads_from_its_own_buffers_opens_many_windows_at_once() {
        let begun = crate::clock::monotonic();
        let mut meter = Meter::new(begun);
        assert!(meter.allows(PREFACE, 0, begun));
        // 4 MiB have come in while it did something else; then it reads them in pieces of 4 KiB.
        assert!(meter.allows(&frame(WINDOW_UPDATE, 4).repeat(2048), 4 << 20, begun));
        assert!(!meter.allows(&frame(WINDOW_UPDATE, 4).repeat(2048), 4 << 20, begun));
    }

    proptest! {
        /// However the bytes are cut, the same frames are seen.
        #[test]
        fn frames_are_found_in_any_pieces(frames in prop::collection::vec((0..12u8, 0..300usize), 0..30), cuts in prop::collection::vec(1..50usize, 1..50)) {
            let bytes: Vec<u8> = PREFACE.iter().copied().chain(frames.iter().flat_map(|(kind, length)| frame(*kind, *length))).collect();
            let (mut heads, mut seen, mut rest) = (Heads::of_client(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                heads.follow(piece, |kind, length| seen.push((kind, length)));
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(heads.is_between_frames());
        }
    }
}
