//! Decompression of repodata, by what the bytes are and not by what the name says.

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;

/// Memory that an xz dictionary may take: xz -9 needs 65 MiB to decompress.
const XZ_MEMORY_BYTES: u64 = 128 << 20;

/// Window that a zstd frame may ask for, as a power of two: 128 MiB, what zstd itself takes unasked.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Bytes that a document may be unpacked to however short it is.
const FREE_BYTES: u64 = 32 << 20;
/// Bytes that each byte of it may be unpacked to beyond these, so that what it costs to read is bounded by what its origin sends.
/// Real primary.xml are unpacked to 7 to 25 times their length: each package has a checksum, which no compression shortens.
const MAX_RATIO: u64 = 200;

/// Longest magic number below.
const MAGIC_BYTES: usize = 6;

/// Plain bytes of `input`: gzip and bzip2 (also of several members), xz, lzma, zstd, or plain already: all that clients
/// read. Reading more than `max_bytes` of them fails with [`io::ErrorKind::FileTooLarge`], and so does reading more than
/// 32 MiB and 200 bytes for each packed one; damaged and truncated data fail too, and what takes more than 128 MiB of memory to
/// unpack. zchunk, which has the same list in another compression beside it, is [`io::ErrorKind::Unsupported`].
///
/// # Errors
///
/// Those of reading the first bytes.
pub fn decompress<'a, R: BufRead + 'a>(input: R, max_bytes: u64) -> io::Result<Box<dyn BufRead + 'a>> {
    unpacked(input, max_bytes, FREE_BYTES)
}

/// The same, with so many bytes that any document may be unpacked to.
fn unpacked<'a, R: BufRead + 'a>(
    mut input: R,
    max_bytes: u64,
    free_bytes: u64,
) -> io::Result<Box<dyn BufRead + 'a>> {
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    input.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic)?;
    let packed = Rc::default();
    let whole = Counted { input: Cursor::new(magic.clone()).chain(input), bytes: Rc::clone(&packed) };
    let plain: Box<dyn Read + 'a> = match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(whole)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            Box::new(XzDecoder::new_stream(whole, Stream::new_stream_decoder(XZ_MEMORY_BYTES, CONCATENATED)?))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Box::new(MultiBzDecoder::new(whole)),
        // The .lzma of before xz has no magic number: so it begins with the properties that all its tools write.
        [0x5d, 0, 0, ..] => {
            Box::new(XzDecoder::new_stream(whole, Stream::new_lzma_decoder(XZ_MEMORY_BYTES)?))
        }
        [0, b'Z', b'C', b'K', b'1', ..] => return Err(unsupported("zchunk")),
        _ => Box::new(whole),
    };
    Ok(Box::new(BufReader::with_capacity(
        64 << 10,
        Bounded { plain, packed, bytes: 0, max_bytes, free_bytes },
    )))
}

fn unsupported(format: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{format} is not a compression that is read here"))
}

/// Counts the bytes that were taken of `input`.
struct Counted<R> {
    input: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.bytes.set(self.bytes.get() + amount as u64);
        self.input.consume(amount);
    }
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let amount = self.fill_buf()?.read(into)?;
        self.consume(amount);
        Ok(amount)
    }
}

/// Fails where there is more than there may be, so that a bomb is not taken for a short document.
struct Bounded<R> {
    plain: R,
    /// Taken of what is packed.
    packed: Rc<Cell<u64>>,
    /// Handed on.
    bytes: u64,
    max_bytes: u64,
    free_bytes: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let amount = self.plain.read(into)?;
        self.bytes += amount as u64;
        let too_large = |why: String| Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        if self.bytes > self.max_bytes {
            return too_large(format!("it is unpacked to more than {} bytes", self.max_bytes));
        }
        if self.bytes > self.free_bytes.saturating_add(self.packed.get().saturating_mul(MAX_RATIO)) {
            return too_large(format!("it is unpacked to more than {MAX_RATIO} times its length"));
        }
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// The name of a format, and `plain` in it.
    fn packed(plain: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let xz = liblzma::encode_all(plain, 1).unwrap();
        let (a, b) = plain.split_at(plain.len() / 2);
        vec![
            ("plain", plain.to_vec()),
            ("gzip", gzip(plain)),
            ("gzip, two members", [gzip(a), gzip(b)].concat()),
            ("xz", xz),
            ("lzma", lzma(plain)),
            ("zstd", zstd::encode_all(plain, 1).unwrap()),
            ("bzip2", bzip2(plain)),
            ("bzip2, two members", [bzip2(a), bzip2(b)].concat()),
        ]
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn lzma(bytes: &[u8]) -> Vec<u8> {
        let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
        let stream = Stream::new_lzma_encoder(&options).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(bytes: &[u8], max_bytes: u64) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        // One byte at a time first: the magic number must be found however the input arrives.
        let (start, rest) = bytes.split_at(bytes.len().min(2 * MAGIC_BYTES));
        decompress(BufReader::with_capacity(1, start).chain(rest), max_bytes)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn a_bomb_ends_by_its_own_length_in_every_format() {
        let (free, plain) = (1 << 20, vec![b' '; 4 << 20]);
        for (format, bytes) in packed(&plain).into_iter().filter(|(format, _)| *format != "plain") {
            let mut unpacked = 0_u64;
            let mut input = super::unpacked(&bytes[..], u64::MAX, free).unwrap();
            let error = loop {
                match input.fill_buf() {
                    Ok(some) => {
                        assert!(!some.is_empty(), "{format} is read to its end");
                        let length = some.len();
                        unpacked += length as u64;
                        input.consume(length);
                    }
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{format}");
            assert!(error.to_string().contains("200 times"), "{format}: {error}");
            assert!(unpacked <= free + MAX_RATIO * bytes.len() as u64, "{format}: {unpacked}");
        }
    }

    #[test]
    fn a_dictionary_or_window_beyond_the_bound_is_refused_before_it_is_made() {
        // The encoder would need the memory itself: so the sizes are written over those of small files.
        let mut small = liblzma::encode_all(&b"<r/>"[..], 0).unwrap();
        let properties = 12 + 2 + 2; // after the stream's header: the block's size and flags, the filter's number and length
        assert_eq!(small[14..16], [0x21, 1], "LZMA2 and the length of its properties");
        small[properties] = 39; // 3 GiB
        let checksum = crc32fast::hash(&small[12..12 + 8]).to_le_bytes();
        small[20..24].copy_from_slice(&checksum);
        assert!(unpack(&small, 100).unwrap_err().to_string().contains("memory"));
        let mut old = lzma(b"<r/>");
        old[1..5].copy_from_slice(&(3_u32 << 30).to_le_bytes());
        assert!(unpack(&old, 100).is_err());
        // Without content size, checksum and dictionary; then the window's descriptor, of 2 GiB; then a last block of 4 bytes.
        let window = 21 << 3;
        let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0, window, 0x21, 0, 0][..], b"<r/>"].concat();
        assert!(unpack(&frame, 100).unwrap_err().to_string().contains("memory"));
        let mut small_window = frame;
        small_window[5] = 0;
        assert_eq!(unpack(&small_window, 100).unwrap(), b"<r/>");
    }

    #[test]
    fn every_format_yields_the_same_within_its_bound() {
        let plain: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let length = plain.len() as u64;
        for (format, bytes) in packed(&plain) {
            assert!(unpack(&bytes, length).unwrap() == plain, "{format}");
            let error = unpack(&bytes, length - 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{format}");
            for cut in [7, bytes.len() / 2, bytes.len() - 1] {
                assert!(format == "plain" || unpack(&bytes[..cut], length).is_err(), "{format} cut at {cut}");
            }
        }
        assert_eq!(unpack(b"", 0).unwrap(), b"");
        assert_eq!(unpack(b"<r/>", 4).unwrap(), b"<r/>");
        assert_eq!(unpack(b"\0ZCK1.....", 100).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
