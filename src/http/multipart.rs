//! Bodies of type `multipart/byteranges` (RFC 9110 section 14.6), in the shape that zchunk's and librepo's regular
//! expressions expect: parts in the order asked and never merged, a boundary of letters and digits as the last parameter.

use super::range::ByteRange;
use bytes::{Bytes, BytesMut};
use http::HeaderValue;

/// The answer to several ranges: what frames each part, ready to be sent.
#[derive(Clone, Debug)]
pub struct Multipart {
    boundary: String,
    /// The head of each part, and the part.
    parts: Vec<(Bytes, ByteRange)>,
    closing: Bytes,
    content_length: u64,
}

/// The next thing to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Framing, to be sent as it is.
    Bytes(Bytes),
    /// A range of the representation.
    Range(ByteRange),
}

impl Multipart {
    /// Frames `ranges` of a representation of `length` bytes and type `content_type`. The boundary follows from `seed`, which
    /// is random or differs from response to response.
    #[must_use]
    pub fn new(ranges: &[ByteRange], length: u64, content_type: &HeaderValue, seed: u64) -> Self {
        let boundary = boundary(seed);
        let mut frames =
            BytesMut::with_capacity((ranges.len() + 1) * (boundary.len() + content_type.len() + 96));
        let mut content_length = 0_u64;
        let mut parts = Vec::with_capacity(ranges.len());
        for &range in ranges {
            frames.extend_from_slice(b"\r\n--");
            frames.extend_from_slice(boundary.as_bytes());
            frames.extend_from_slice(b"\r\nContent-Type: ");
            frames.extend_from_slice(content_type.as_bytes());
            let numbers =
                format!("\r\nContent-Range: bytes {}-{}/{length}\r\n\r\n", range.start, range.end - 1);
            frames.extend_from_slice(numbers.as_bytes());
            let head = frames.split().freeze();
            content_length = content_length.saturating_add(head.len() as u64).saturating_add(range.len());
            parts.push((head, range));
        }
        frames.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let closing = frames.freeze();
        content_length = content_length.saturating_add(closing.len() as u64);
        Self { boundary, parts, closing, content_length }
    }

    /// `Content-Type` of the response.
    #[must_use]
    pub fn content_type(&self) -> HeaderValue {
        HeaderValue::try_from(format!("multipart/byteranges; boundary={}", self.boundary))
            .expect("letters and digits are a header value")
    }

    /// `Content-Length` of the response, in bytes.
    #[must_use]
    pub fn content_length(&self) -> u64 {
        self.content_length
    }

    /// The body: for each range its head and the range, then the closing line.
    #[must_use]
    pub fn pieces(self) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(2 * self.parts.len() + 1);
        for (head, range) in self.parts {
            pieces.extend([Piece::Bytes(head), Piece::Range(range)]);
        }
        pieces.push(Piece::Bytes(self.closing));
        pieces
    }
}

/// 32 hex digits: too many to stand in a file by chance.
fn boundary(seed: u64) -> String {
    let low = mix(seed);
    format!("{low:016x}{:016x}", mix(low))
}

/// The step of SplitMix64 (Steele, Lea, Flood 2014): neighbouring seeds give unrelated boundaries.
const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const XML: HeaderValue = HeaderValue::from_static("text/xml");

    /// The body that results when the representation is `content`.
    fn body(multipart: Multipart, content: &[u8]) -> Vec<u8> {
        let at = |offset| usize::try_from(offset).unwrap();
        let mut body = Vec::new();
        for piece in multipart.pieces() {
            match piece {
                Piece::Bytes(bytes) => body.extend_from_slice(&bytes),
                Piece::Range(range) => body.extend_from_slice(&content[at(range.start)..at(range.end)]),
            }
        }
        body
    }

    #[test]
    fn as_zchunk_reads_it() {
        let ranges = [ByteRange { start: 6, end: 8 }, ByteRange { start: 0, end: 3 }];
        let multipart = Multipart::new(&ranges, 8, &XML, 7);
        let content_type = multipart.content_type();
        let boundary =
            content_type.to_str().unwrap().strip_prefix("multipart/byteranges; boundary=").unwrap();
        assert!(boundary.len() == 32 && boundary.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let expected = format!(
            "\r\n--{boundary}\r\nContent-Type: text/xml\r\nContent-Range: bytes 6-7/8\r\n\r\ngh\
             \r\n--{boundary}\r\nContent-Type: text/xml\r\nContent-Range: bytes 0-2/8\r\n\r\nabc\
             \r\n--{boundary}--\r\n"
        );
        assert_eq!(String::from_utf8(body(multipart, b"abcdefgh")).unwrap(), expected);
        assert_ne!(Multipart::new(&ranges, 8, &XML, 8).content_type(), content_type);
    }

    proptest! {
        #[test]
        fn content_length_is_exact(spans in prop::collection::vec((0_u64..900, 1_u64..100), 1..300), seed: u64) {
            let ranges: Vec<_> =
                spans.into_iter().map(|(start, len)| ByteRange { start, end: start + len }).collect();
            let multipart = Multipart::new(&ranges, 1000, &XML, seed);
            let asked: Vec<_> = multipart.clone().pieces().into_iter()
                .filter_map(|piece| if let Piece::Range(range) = piece { Some(range) } else { None }).collect();
            prop_assert_eq!(asked, ranges);
            let promised = multipart.content_length();
            prop_assert_eq!(body(multipart, &[b'x'; 1000]).len() as u64, promised);
        }
    }
}
