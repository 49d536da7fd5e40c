//! A client in HTTP/2 that asks for one thing at a time and throws the body away. Pure.
//!
//! hyper's client would allocate and schedule for each frame, and so measure itself. This one knows the frames that
//! an answer consists of (RFC 9113) and the one field that it looks at (RFC 7541). Its windows are as large as can be: the
//! server is never made to wait for them.

use super::{Fault, Sink};

/// Frame types (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const FRAME_HEAD: usize = 9;
/// The largest window there is.
const WINDOW: u32 = 0x7fff_ffff;
/// What a connection has from the start.
const FIRST_WINDOW: u32 = 65_535;
/// The connection's window is filled up when so much of it is used.
const REFILL: u32 = 1 << 30;

/// Where a connection stands.
#[derive(Debug, Default)]
pub struct Http2 {
    stream: u32,
    /// The head of a frame, and the payload of one that isn't DATA, as far as they came.
    frame: Vec<u8>,
    /// Bytes of the present DATA frame to come, and whether it is the last.
    data: Option<(usize, bool)>,
    used: u32,
    status: u16,
}

impl Http2 {
    /// What a connection begins with.
    pub fn preface(out: &mut Vec<u8>) {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        head(out, 18, SETTINGS, 0, 0);
        // HEADER_TABLE_SIZE 0: what the server's encoder remembers needn't be followed. ENABLE_PUSH 0.
        // INITIAL_WINDOW_SIZE.
        for (name, value) in [(1_u16, 0_u32), (2, 0), (4, WINDOW)] {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        refill(out, WINDOW - FIRST_WINDOW);
    }

    /// A request, as bytes.
    pub fn request(&mut self, out: &mut Vec<u8>, path: &str, host: &str, agent: &str) {
        self.stream = if self.stream == 0 { 1 } else { self.stream + 2 };
        self.status = 0;
        let mut block = vec![0x82, 0x87]; // :method GET, :scheme https
        // Literals without indexing, by their names' index in the static table (RFC 7541, appendix A).
        for (index, value) in [(4, path), (1, host), (58, agent)] {
            literal(&mut block, index, value.as_bytes());
        }
        head(out, block.len(), HEADERS, END_STREAM | END_HEADERS, self.stream);
        out.extend_from_slice(&block);
    }

    /// Takes what was received; what has to be answered goes to `out`. Returns the status once the answer is complete.
    pub fn take(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut Sink,
    ) -> Result<Option<u16>, Fault> {
        let mut ended = None;
        while !bytes.is_empty() {
            if let Some((left, last)) = self.data {
                let (now, rest) = bytes.split_at(left.min(bytes.len()));
                sink.take(now);
                bytes = rest;
                self.data = (now.len() < left).then_some((left - now.len(), last));
                if self.data.is_none() && last {
                    ended = Some(self.status);
                }
                continue;
            }
            let wanted = self.wanted();
            let (now, rest) = bytes.split_at((wanted - self.frame.len()).min(bytes.len()));
            self.frame.extend_from_slice(now);
            bytes = rest;
            if self.frame.len() == self.wanted() && self.frame.len() >= FRAME_HEAD {
                ended = ended.or(self.whole_frame(out)?);
            }
        }
        Ok(ended)
    }

    /// Bytes of the frame at hand that are to be collected: its head, and unless it is DATA its payload.
    fn wanted(&self) -> usize {
        match self.frame.get(..FRAME_HEAD) {
            Some(head) if head[3] != DATA => FRAME_HEAD + length(head),
            _ => FRAME_HEAD,
        }
    }

    fn whole_frame(&mut self, out: &mut Vec<u8>) -> Result<Option<u16>, Fault> {
        let (kind, flags, length) = (self.frame[3], self.frame[4], length(&self.frame));
        if matches!(kind, DATA | HEADERS) && flags & PADDED != 0 {
            return Err(Fault::Protocol("padded"));
        }
        let mut ended = None;
        match kind {
            DATA => {
                let last = flags & END_STREAM != 0;
                self.account(u32::try_from(length).expect("24 bits"), out);
                self.data = (length > 0).then_some((length, last));
                ended = (length == 0 && last).then_some(self.status);
            }
            HEADERS => {
                let skip = if flags & PRIORITY == 0 { 0 } else { 5 };
                self.status = status(self.frame.get(FRAME_HEAD + skip..).unwrap_or_default())?;
                ended = (flags & END_STREAM != 0).then_some(self.status);
            }
            SETTINGS if flags & ACK == 0 => head(out, 0, SETTINGS, ACK, 0),
            PING if flags & ACK == 0 => {
                head(out, length, PING, ACK, 0);
                out.extend_from_slice(&self.frame[FRAME_HEAD..]);
            }
            GOAWAY | RST_STREAM => return Err(Fault::Closed),
            CONTINUATION => return Err(Fault::Protocol("in continuations")),
            _ => {}
        }
        self.frame.clear();
        Ok(ended)
    }

    fn account(&mut self, bytes: u32, out: &mut Vec<u8>) {
        self.used += bytes;
        if self.used >= REFILL {
            refill(out, self.used);
            self.used = 0;
        }
    }
}

fn length(head: &[u8]) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let length = u32::try_from(length).expect("frames of this client are short").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn refill(out: &mut Vec<u8>, by: u32) {
    head(out, 4, WINDOW_UPDATE, 0, 0);
    out.extend_from_slice(&by.to_be_bytes());
}

fn literal(block: &mut Vec<u8>, name_index: u8, value: &[u8]) {
    integer(block, 4, name_index.into());
    integer(block, 7, value.len());
    block.extend_from_slice(value);
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1), the bits before it zero.
fn integer(block: &mut Vec<u8>, bits: u8, value: usize) {
    let most = (1_usize << bits) - 1;
    let byte = |value: usize| u8::try_from(value).expect("below 256");
    if value < most {
        return block.push(byte(value));
    }
    block.push(byte(most));
    let mut rest = value - most;
    while rest >= 128 {
        block.push(byte(rest % 128 + 128));
        rest /= 128;
    }
    block.push(byte(rest));
}

/// The status, which comes first in every answer (RFC 9113, section 8.3). Of those that the static table doesn't have, only
/// plain digits are understood.
fn status(mut block: &[u8]) -> Result<u16, Fault> {
    // An encoder may say first how large its table is (RFC 7541, section 6.3).
    while let [0x20..=0x3f, rest @ ..] = block {
        block = rest;
    }
    match block {
        [0x88, ..] => Ok(200),
        [0x89, ..] => Ok(204),
        [0x8a, ..] => Ok(206),
        [0x8b, ..] => Ok(304),
        [0x8c, ..] => Ok(400),
        [0x8d, ..] => Ok(404),
        [0x8e, ..] => Ok(500),
        [0x08 | 0x18 | 0x48, 3, digits @ ..] if digits.len() >= 3 => std::str::from_utf8(&digits[..3])
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or(Fault::Protocol("without a status")),
        _ => Err(Fault::Protocol("of a status that isn't understood")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        head(&mut out, payload.len(), kind, flags, stream);
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn an_answer_is_the_same_however_it_is_cut() {
        let answer = [
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 128]),
            frame(SETTINGS, ACK, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, &[0x20, 0x88, 0x5c, 1, b'9']),
            frame(DATA, 0, 1, b"hello"),
            frame(PING, 0, 0, b"12345678"),
            frame(DATA, END_STREAM, 1, b", you"),
        ]
        .concat();
        for cut in 1..answer.len() {
            let (mut http, mut sink, mut out) = (Http2::default(), Sink::default(), Vec::new());
            http.request(&mut Vec::new(), "/", "h", "a");
            let first = http.take(&answer[..cut], &mut out, &mut sink).unwrap();
            let second = http.take(&answer[cut..], &mut out, &mut sink).unwrap();
            assert_eq!((first, second, sink.bytes), (None, Some(200), 10), "cut at {cut}");
            assert_eq!(out, [frame(SETTINGS, ACK, 0, &[]), frame(PING, ACK, 0, b"12345678")].concat());
        }
    }

    #[test]
    fn requests_are_numbered_and_their_lengths_are_coded() {
        let mut http = Http2::default();
        let mut out = Vec::new();
        let path = "/".repeat(200);
        http.request(&mut out, &path, "h", "a");
        assert_eq!(out[5..9], 1_u32.to_be_bytes());
        assert_eq!(out[9..14], [0x82, 0x87, 0x04, 127, 73], "200 is 127 and 73 more");
        assert_eq!(out[14..214], *path.as_bytes());
        assert_eq!(out[214..], [0x01, 1, b'h', 0x0f, 58 - 15, 1, b'a']);
        out.clear();
        http.request(&mut out, "/", "h", "a");
        assert_eq!(out[5..9], 3_u32.to_be_bytes());
    }

    #[test]
    fn the_window_is_filled_up_before_it_is_used_up() {
        let mut http = Http2::default();
        let mut out = Vec::new();
        for _ in 0..=REFILL / 16_384 {
            http.account(16_384, &mut out);
        }
        assert_eq!(out, frame(WINDOW_UPDATE, 0, 0, &REFILL.to_be_bytes()));
    }

    #[test]
    fn resets_and_what_is_not_understood_are_faults() {
        let take = |frame: &[u8]| Http2::default().take(frame, &mut Vec::new(), &mut Sink::default());
        assert!(take(&frame(GOAWAY, 0, 0, &[0; 8])).is_err());
        assert!(take(&frame(RST_STREAM, 0, 1, &[0; 4])).is_err());
        assert!(take(&frame(HEADERS, END_HEADERS, 1, &[0x7f])).is_err());
        assert_eq!(status(&[0x48, 3, b'3', b'0', b'2']).unwrap(), 302);
    }
}
