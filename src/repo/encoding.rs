//! Repodata in the encodings that clients' parsers know by themselves (expat: UTF-8, UTF-16, ISO-8859-1, US-ASCII), as UTF-8.

use std::io::{self, BufRead, Chain, Cursor, Read};

/// So much of a document is looked at for its declaration; real ones have under 100 bytes.
const DECLARATION_BYTES: usize = 256;

/// A document as UTF-8. A byte order mark of UTF-8 stays.
pub(super) struct Utf8<R> {
    input: Chain<Cursor<Vec<u8>>, R>,
    encoding: Encoding,
    /// What is decoded, from `at` on not yet taken.
    decoded: Vec<u8>,
    at: usize,
    /// The beginning of a character, in UTF-16.
    pending: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Ascii,
    Latin1,
    Utf16 { big_endian: bool },
}

impl<R: BufRead> Utf8<R> {
    /// Of `input`, by its byte order mark or its declaration.
    ///
    /// # Errors
    ///
    /// The input fails, or names another encoding.
    pub(super) fn new(mut input: R) -> io::Result<Self> {
        let mut start = Vec::with_capacity(DECLARATION_BYTES);
        input.by_ref().take(DECLARATION_BYTES as u64).read_to_end(&mut start)?;
        let encoding = encoding(&start)?;
        let input = Cursor::new(start).chain(input);
        Ok(Self { input, encoding, decoded: Vec::new(), at: 0, pending: Vec::new() })
    }

    /// Decodes what the input has at hand, until something comes out of it.
    fn decode(&mut self) -> io::Result<()> {
        self.at = 0;
        self.decoded.clear();
        while self.decoded.is_empty() {
            let available = self.input.fill_buf()?;
            let length = available.len();
            if length == 0 {
                let is_cut = !self.pending.is_empty();
                return if is_cut { Err(invalid("it ends within a character of UTF-16")) } else { Ok(()) };
            }
            match self.encoding {
                Encoding::Ascii if !available.is_ascii() => {
                    return Err(invalid("a character that US-ASCII doesn't have"));
                }
                Encoding::Utf8 | Encoding::Ascii => self.decoded.extend_from_slice(available),
                Encoding::Latin1 => self.decoded.extend(latin1(available).bytes()),
                Encoding::Utf16 { big_endian } => {
                    self.pending.extend_from_slice(available);
                    utf16(&mut self.pending, big_endian, &mut self.decoded)?;
                }
            }
            self.input.consume(length);
        }
        Ok(())
    }
}

impl<R: BufRead> BufRead for Utf8<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.encoding == Encoding::Utf8 {
            return self.input.fill_buf();
        }
        if self.at == self.decoded.len() {
            self.decode()?;
        }
        Ok(&self.decoded[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        if self.encoding == Encoding::Utf8 {
            self.input.consume(amount);
        } else {
            self.at = (self.at + amount).min(self.decoded.len());
        }
    }
}

impl<R: BufRead> Read for Utf8<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let amount = self.fill_buf()?.read(into)?;
        self.consume(amount);
        Ok(amount)
    }
}

/// Each byte is the character of its number.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Decodes the whole characters of `pending`, which keeps the rest.
fn utf16(pending: &mut Vec<u8>, big_endian: bool, into: &mut Vec<u8>) -> io::Result<()> {
    let unit = |pair: &[u8]| {
        let pair = [pair[0], pair[1]];
        if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
    };
    let mut units: Vec<u16> = pending.chunks_exact(2).map(unit).collect();
    // The first half of a pair of surrogates.
    if units.last().is_some_and(|last| (0xd800..0xdc00).contains(last)) {
        units.pop();
    }
    pending.drain(..2 * units.len());
    for character in char::decode_utf16(units) {
        let character = character.map_err(|_| invalid("half of a character of UTF-16"))?;
        into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(())
}

/// What a document is encoded in that starts so (XML 1.0, appendix F).
fn encoding(start: &[u8]) -> io::Result<Encoding> {
    match start {
        [0xfe, 0xff, ..] | [0, b'<', 0, b'?', ..] => return Ok(Encoding::Utf16 { big_endian: true }),
        [0xff, 0xfe, ..] | [b'<', 0, b'?', 0, ..] => return Ok(Encoding::Utf16 { big_endian: false }),
        // The mark counts for more than the declaration.
        [0xef, 0xbb, 0xbf, ..] => return Ok(Encoding::Utf8),
        _ => {}
    }
    let Some(name) = declared(start) else { return Ok(Encoding::Utf8) };
    match name.to_ascii_lowercase().as_slice() {
        b"utf-8" | b"utf8" => Ok(Encoding::Utf8),
        b"us-ascii" | b"ascii" => Ok(Encoding::Ascii),
        b"iso-8859-1" | b"iso_8859-1" | b"latin1" | b"latin-1" => Ok(Encoding::Latin1),
        _ => Err(invalid("an encoding other than UTF-8, UTF-16, ISO-8859-1 and US-ASCII")),
    }
}

/// The encoding that an XML declaration names.
fn declared(start: &[u8]) -> Option<&[u8]> {
    let rest = start.strip_prefix(b"<?xml")?;
    let rest = &rest[..rest.windows(2).position(|pair| pair == b"?>")?];
    let at = rest.windows(8).position(|word| word == b"encoding")?;
    let value = rest[at + 8..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let quote = value.first().filter(|quote| matches!(quote, b'"' | b'\''))?;
    value[1..].split(|byte| byte == quote).next()
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_mark_then_by_declaration() {
        let (big, little) = (Encoding::Utf16 { big_endian: true }, Encoding::Utf16 { big_endian: false });
        let cases: [(&[u8], Option<Encoding>); 14] = [
            (b"", Some(Encoding::Utf8)),
            (b"<r/>", Some(Encoding::Utf8)),
            (b"<?xml version='1.0'?><r encoding='EUC-JP'/>", Some(Encoding::Utf8)),
            (b"<?xml version='1.0' encoding='UTF-8'?>", Some(Encoding::Utf8)),
            (b"<?xml version='1.0' encoding = \"us-ASCII\"?>", Some(Encoding::Ascii)),
            (b"<?xml version='1.0' encoding='iso-8859-1'?>", Some(Encoding::Latin1)),
            (b"<?xml version='1.0' encoding='iso-8859-15'?>", None),
            (b"<?xml version='1.0' encoding='windows-1252'?>", None),
            (b"\xef\xbb\xbf<?xml version='1.0' encoding='iso-8859-1'?>", Some(Encoding::Utf8)),
            (b"\xfe\xff\0<", Some(big)),
            (b"\0<\0?", Some(big)),
            (b"\xff\xfe<\0", Some(little)),
            (b"<\0?\0", Some(little)),
            (b"\x1f\x8b", Some(Encoding::Utf8)),
        ];
        for (start, expected) in cases {
            assert_eq!(encoding(start).ok(), expected, "{}", start.escape_ascii());
        }
    }
}
