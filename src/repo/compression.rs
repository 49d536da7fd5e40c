//! Decompression of repodata, by what the bytes are and not by what the name says.

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use std::io::{self, BufRead, BufReader, Cursor, Read};

/// Memory that an xz dictionary may take: xz -9 needs 65 MiB to decompress.
const XZ_MEMORY_BYTES: u64 = 128 << 20;

/// Window that a zstd frame may ask for, as a power of two: 128 MiB, what zstd itself takes unasked.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Longest magic number below.
const MAGIC_BYTES: usize = 6;

/// Plain bytes of `input`: gzip and bzip2 (also of several members), xz, lzma, zstd, or plain already: all that clients
/// read. Reading more than `max_bytes` of them fails with [`io::ErrorKind::FileTooLarge`]; damaged and truncated data fail
/// too. zchunk, which has the same list in another compression beside it, is [`io::ErrorKind::Unsupported`].
///
/// # Errors
///
/// Those of reading the first bytes.
pub fn decompress<'a, R: BufRead + 'a>(mut input: R, max_bytes: u64) -> io::Result<Box<dyn BufRead + 'a>> {
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    input.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut magic)?;
    let whole = Cursor::new(magic.clone()).chain(input);
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
    Ok(Box::new(BufReader::with_capacity(64 << 10, Bounded { plain, left: max_bytes })))
}

fn unsupported(format: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("{format} is not a compression that is read here"))
}

/// Fails where `left` is exceeded, so that a bomb is not taken for a short document.
struct Bounded<R> {
    plain: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let amount = self.plain.read(into)?;
        self.left = self.left.checked_sub(amount as u64).ok_or(io::ErrorKind::FileTooLarge)?;
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
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
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
