//! A bounded walk through one XML document, for repodata.
//!
//! Refuses what repodata never needs and parsers were attacked with: document types, entities of their own, deep
//! nesting, endless tags. Names are compared with their prefix, as librepo and createrepo_c compare them.

use super::encoding::Utf8;
use super::error::{Fault, RepodataError};
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;
use std::borrow::Cow;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

/// Deepest nesting; repodata needs 5.
const MAX_DEPTH: usize = 64;

/// Longest name of an element, in bytes; repodata needs 20. The names of open elements are kept.
const MAX_NAME_BYTES: usize = 1 << 10;

/// Most tags, texts, references and comments in one document: what there are of them costs time, however short they are. A
/// primary.xml of 100,000 packages has under 20 million.
const MAX_EVENTS: u64 = 64_000_000;

/// Of a message of the XML parser, which may hold names of any length.
const MAX_MESSAGE_CHARS: usize = 200;

/// Longest single tag, comment or CDATA section, in bytes. Text may be of any length, as clients' parsers have no bound for
/// it either; so much of a stretch of it is looked at, the rest is skipped.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// Text of an element beyond this is dropped: only descriptions are longer, and nothing here reads them.
const MAX_TEXT_BYTES: usize = 4 << 10;

/// What the walk meets. The root has depth 1.
pub(super) enum Step<'a> {
    /// An element begins.
    Open(usize, &'a str, Attributes<'a>),
    /// It ends; with the text since the last tag, trimmed.
    Close(usize, &'a str, &'a str),
}

/// The attributes of an element.
pub(super) struct Attributes<'a>(&'a BytesStart<'a>);

impl Attributes<'_> {
    /// The value of `key`, its references resolved.
    pub(super) fn find(&self, key: &str) -> Result<Option<Cow<'_, str>>, Fault> {
        let Some(found) = self.0.try_get_attribute(key).map_err(malformed)? else { return Ok(None) };
        found.normalized_value(XmlVersion::Implicit1_0).map(Some).map_err(malformed)
    }

    /// Nothing is ever expanded here, but a document that uses entities of its own is refused as a whole.
    fn check_references(&self) -> Result<(), Fault> {
        if !self.0.attributes_raw().contains('&') {
            return Ok(());
        }
        for attribute in self.0.attributes().with_checks(false) {
            attribute.map_err(malformed)?.normalized_value(XmlVersion::Implicit1_0).map_err(malformed)?;
        }
        Ok(())
    }
}

/// Walks through `input`, which must be one document with one of `roots` as its root.
pub(super) fn walk(
    document: &'static str,
    roots: &[&str],
    input: impl BufRead,
    on: impl FnMut(Step<'_>) -> Result<(), Fault>,
) -> Result<(), RepodataError> {
    walk_through(document, roots, input, MAX_EVENTS, on)
}

/// The same with a bound on events.
fn walk_through(
    document: &'static str,
    roots: &[&str],
    input: impl BufRead,
    max_events: u64,
    on: impl FnMut(Step<'_>) -> Result<(), Fault>,
) -> Result<(), RepodataError> {
    let input = Utf8::new(input).map_err(|error| RepodataError { document, at: 0, fault: error.into() })?;
    let mut reader = Reader::from_reader(EventBound::new(input));
    reader.config_mut().expand_empty_elements = true;
    let mut state =
        State { depth: 0, complete: false, text: String::new(), events_left: max_events, roots, on };
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        reader.get_mut().next_event();
        let event = reader.read_event_into(&mut buffer);
        let fault = match event.map_err(Fault::from).and_then(|event| state.take(&event)) {
            Ok(true) => continue,
            Ok(false) => return Ok(()),
            Err(_) if reader.get_ref().exceeded => Fault::Refused("a tag of more than 4 MiB"),
            Err(fault) => fault,
        };
        return Err(RepodataError { document, at: reader.buffer_position(), fault });
    }
}

struct State<'r, F> {
    depth: usize,
    /// The root has been closed.
    complete: bool,
    text: String,
    events_left: u64,
    roots: &'r [&'r str],
    on: F,
}

impl<F: FnMut(Step<'_>) -> Result<(), Fault>> State<'_, F> {
    /// False at the end.
    fn take(&mut self, event: &Event<'_>) -> Result<bool, Fault> {
        const TOO_MANY: Fault = Fault::Refused("more tags and texts than any repo has");
        self.events_left = self.events_left.checked_sub(1).ok_or(TOO_MANY)?;
        match event {
            Event::Start(tag) | Event::Empty(tag) => self.open(tag)?,
            Event::End(tag) => {
                self.complete = self.depth == 1;
                (self.on)(Step::Close(self.depth, tag.name().0, self.text.trim_ascii()))?;
                self.text.clear();
                self.depth -= 1;
            }
            Event::Text(text) => self.text(text)?,
            Event::CData(text) => self.text(text)?,
            Event::GeneralRef(reference) => self.reference(reference)?,
            Event::DocType(_) => return Err(Fault::Refused("a document type")),
            // What the declaration says of the encoding was heeded before.
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            Event::Eof if self.complete => return Ok(false),
            Event::Eof => return Err(Fault::Malformed("the document ends before its root does".into())),
        }
        Ok(true)
    }

    fn open(&mut self, tag: &BytesStart<'_>) -> Result<(), Fault> {
        let name = tag.name().0;
        if self.complete {
            return Err(Fault::Malformed("a second root".into()));
        }
        if self.depth == 0 && !self.roots.contains(&name) {
            return Err(Fault::Refused("the root is not that of this document"));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(Fault::Refused("the name of an element has more than 1024 bytes"));
        }
        if self.depth == MAX_DEPTH {
            return Err(Fault::Refused("elements nested more than 64 deep"));
        }
        self.depth += 1;
        self.text.clear();
        let attributes = Attributes(tag);
        attributes.check_references()?;
        (self.on)(Step::Open(self.depth, name, attributes))
    }

    fn text(&mut self, text: &str) -> Result<(), Fault> {
        if self.depth == 0 && !text.trim_ascii().is_empty() {
            return Err(Fault::Malformed("text outside of the root".into()));
        }
        let room = MAX_TEXT_BYTES.saturating_sub(self.text.len());
        let end = (0..=room.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        self.text.push_str(&text[..end]);
        Ok(())
    }

    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), Fault> {
        if let Some(character) = reference.resolve_char_ref().map_err(malformed)? {
            return self.text(character.encode_utf8(&mut [0; 4]));
        }
        match resolve_predefined_entity(reference) {
            Some(text) => self.text(text),
            None => Err(Fault::Refused("an entity other than the five of XML")),
        }
    }
}

fn malformed(error: impl Into<quick_xml::Error>) -> Fault {
    error.into().into()
}

impl From<quick_xml::Error> for Fault {
    fn from(error: quick_xml::Error) -> Self {
        match error {
            quick_xml::Error::Io(error) => Self::Read(error),
            other => Self::Malformed(other.to_string().chars().take(MAX_MESSAGE_CHARS).collect()),
        }
    }
}

/// Ends the input where a tag gets too long, and leaves out what is too much of a text; quick-xml has no bound of its own.
struct EventBound<R> {
    input: R,
    /// Bytes that the current event may still take.
    left: usize,
    /// Bytes of the last character of a text that it may take beyond that.
    slack: usize,
    kind: EventKind,
    exceeded: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EventKind {
    /// Nothing of it was read yet.
    Unknown,
    Text,
    /// A tag, a comment, a reference.
    Markup,
}

impl<R: BufRead> EventBound<R> {
    const fn new(input: R) -> Self {
        Self { input, left: 0, slack: 0, kind: EventKind::Unknown, exceeded: false }
    }

    const fn next_event(&mut self) {
        (self.left, self.slack, self.kind) = (MAX_EVENT_BYTES, 3, EventKind::Unknown);
    }

    /// What ends a text of which there was enough: the byte that begins what follows, or nothing at the end of the document.
    fn skip_text(&mut self) -> io::Result<&[u8]> {
        loop {
            let available = self.input.fill_buf()?;
            let end = available.iter().position(|byte| matches!(byte, b'<' | b'&'));
            let amount = end.unwrap_or(available.len());
            if amount == 0 {
                break;
            }
            self.input.consume(amount);
        }
        let available = self.input.fill_buf()?;
        Ok(&available[..available.len().min(1)])
    }
}

impl<R: BufRead> BufRead for EventBound<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let available = self.input.fill_buf()?;
        let (Some(first), length) = (available.first().copied(), available.len()) else { return Ok(&[]) };
        let continued =
            available.iter().take(self.slack).take_while(|byte| matches!(byte, 0x80..0xc0)).count();
        if self.kind == EventKind::Unknown {
            let is_text = !matches!(first, b'<' | b'&');
            self.kind = if is_text { EventKind::Text } else { EventKind::Markup };
        }
        match self.kind {
            _ if self.left > 0 => Ok(&self.input.fill_buf()?[..length.min(self.left)]),
            EventKind::Text if continued > 0 => Ok(&self.input.fill_buf()?[..continued]),
            EventKind::Text => self.skip_text(),
            EventKind::Markup | EventKind::Unknown => {
                self.exceeded = true;
                Err(io::ErrorKind::FileTooLarge.into())
            }
        }
    }

    fn consume(&mut self, amount: usize) {
        if self.left == 0 {
            self.slack = self.slack.saturating_sub(amount);
        }
        self.left = self.left.saturating_sub(amount);
        self.input.consume(amount);
    }
}

impl<R: BufRead> Read for EventBound<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let amount = available.len().min(into.len());
        into[..amount].copy_from_slice(&available[..amount]);
        self.consume(amount);
        Ok(amount)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All steps on one line, or the error's text.
    fn steps(xml: &str) -> Result<String, String> {
        steps_of(xml.as_bytes())
    }

    fn steps_of(xml: &[u8]) -> Result<String, String> {
        let mut seen = String::new();
        // In pieces, so that characters lie across them.
        walk("test", &["r"], io::BufReader::with_capacity(4093, xml), |step| {
            match step {
                Step::Open(depth, name, attributes) => {
                    let a = attributes.find("a")?;
                    seen += &format!("{depth}<{name}{} ", a.map(|a| format!("={a}")).unwrap_or_default());
                }
                Step::Close(depth, name, text) => seen += &format!("{depth}{text}>{name} "),
            }
            Ok(())
        })
        .map(|()| seen.trim_end().to_owned())
        .map_err(|error| error.to_string())
    }

    #[test]
    fn steps_carry_depth_text_and_attributes() {
        let cases = [
            ("<r/>", "1<r 1>r"),
            ("\u{feff}<?xml version='1.0' encoding='UTF-8'?>\n<!-- c --><r> x </r>\n", "1<r 1x>r"),
            (
                "<r><b a='1 &amp; &#x41;'/><b>&lt;<![CDATA[&x;]]>&#66;</b></r>",
                "1<r 2<b=1 & A 2>b 2<b 2<&x;B>b 1>r",
            ),
        ];
        for (xml, expected) in cases {
            assert_eq!(steps(xml).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = format!("<r>{}{}</r>", "<d>".repeat(64), "</d>".repeat(64));
        let long_tag = format!("<r {}", "a".repeat(MAX_EVENT_BYTES));
        let long_name = format!("<r><{}/></r>", "n".repeat(MAX_NAME_BYTES + 1));
        let long_comment = format!("<r><!--{}--></r>", " ".repeat(MAX_EVENT_BYTES));
        let cases = [
            ("<!DOCTYPE r><r/>", "document type"),
            ("<!DOCTYPE r [<!ENTITY x 'y'>]><r>&x;</r>", "document type"),
            ("<r>&x;</r>", "entity"),
            ("<r><b c='&x;'/></r>", "x"),
            ("<r>&#0;</r>", "not well-formed"),
            (deep.as_str(), "64 deep"),
            (long_tag.as_str(), "4 MiB"),
            (long_name.as_str(), "1024 bytes"),
            (long_comment.as_str(), "4 MiB"),
            ("<?xml version='1.0' encoding='EUC-JP'?><r/>", "encoding"),
            ("<?xml version='1.0' encoding='us-ascii'?><r>\u{fc}</r>", "US-ASCII"),
            ("<html/>", "root"),
            ("<r/><r/>", "second root"),
            ("x<r/>", "outside"),
            ("<r/>x", "outside"),
            ("<r><b></r>", "not well-formed"),
            ("<r>", "ends before"),
            ("", "ends before"),
            ("<r", "not well-formed"),
        ];
        for (xml, expected) in cases {
            let error = steps(xml).expect_err(&xml[..xml.len().min(40)]);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn messages_are_short_whatever_stands_in_a_document() {
        let long = "n".repeat(1 << 20);
        for xml in [format!("<r><b></{long}></r>"), format!("<r></{long}>"), format!("<r a='&{long};'/>")] {
            let error = steps(&xml).unwrap_err();
            assert!(error.len() < 400 && error.contains("not well-formed"), "{} bytes", error.len());
        }
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let walked = |xml: &str, events| walk_through("test", &["r"], xml.as_bytes(), events, |_| Ok(()));
        // The root, its end and the end of the document are three.
        for (part, events) in [("<b/>", 2), ("x<b></b>", 3), ("&amp;", 1), ("<!---->", 1), ("<?p?>", 1)] {
            let xml = format!("<r>{}</r>", part.repeat(1000));
            assert!(walked(&xml, 1000 * events + 3).is_ok(), "{part}");
            let error = walked(&xml, 1000 * events + 2).unwrap_err().to_string();
            assert!(error.contains("refused: more tags and texts"), "{part}: {error}");
        }
    }

    /// What is read in pieces, or over and over, would take minutes here.
    #[test]
    fn a_tag_of_many_attributes_and_a_text_of_many_references_are_read_once() {
        let attributes: String = (0..300_000).map(|n| format!(" b{n}=''")).collect();
        assert_eq!(steps(&format!("<r{attributes} a='1'/>")).as_deref(), Ok("1<r=1 1>r"));
        let xml = format!("<r>{}</r>", "&#65;".repeat(300_000));
        assert_eq!(steps(&xml).unwrap().len(), "1<r 1>r".len() + MAX_TEXT_BYTES);
        let marks = format!("<r><!--{}--></r>", ">".repeat(2_000_000));
        assert_eq!(steps(&marks).as_deref(), Ok("1<r 1>r"));
        let marks = format!("<r><![CDATA[{}]]></r>", "]>".repeat(1_000_000));
        assert_eq!(steps(&marks).unwrap().len(), "1<r 1>r".len() + MAX_TEXT_BYTES);
    }

    #[test]
    fn a_long_text_is_cut_not_refused() {
        let xml = format!("<r>{}</r>", "ü".repeat(MAX_TEXT_BYTES));
        assert_eq!(steps(&xml).map(|seen| seen.matches('ü').count()), Ok(MAX_TEXT_BYTES / 2));
    }

    #[test]
    fn a_text_of_any_length_is_read_past() {
        // Of characters of 1 to 4 bytes, so that the bound falls on each of their bytes.
        for character in ["x", "\u{fc}", "\u{20ac}", "\u{1f980}"] {
            for offset in 0..character.len() {
                let text = character.repeat(MAX_EVENT_BYTES / character.len() + 100_000);
                let (before, x) = ("y".repeat(offset), "z");
                let xml = format!("<r><b>{before}{text}&amp;{text}</b><c>{x}</c></r>");
                let seen = steps(&xml).unwrap();
                assert!(
                    seen.ends_with(">b 2<c 2z>c 1>r"),
                    "{character} {offset}: {}",
                    &seen[seen.len() - 40..]
                );
            }
        }
        let unended = format!("<r>{}", "x".repeat(MAX_EVENT_BYTES + 10));
        assert!(steps(&unended).unwrap_err().contains("ends before"));
    }

    #[test]
    fn encodings_that_clients_read() {
        let latin: Vec<u8> = b"<?xml version=\"1.0\" encoding='ISO-8859-1' ?><r a='\xe9'>\xfc</r>".to_vec();
        let utf16 = |units: Vec<[u8; 2]>, bom: &[u8]| [bom, units.as_flattened()].concat();
        let text = "<?xml version='1.0' encoding='UTF-16'?><r a='\u{e9}'>\u{fc}\u{1f980}</r>";
        let little = utf16(text.encode_utf16().map(u16::to_le_bytes).collect(), b"\xff\xfe");
        let big = utf16(text.encode_utf16().map(u16::to_be_bytes).collect(), b"\xfe\xff");
        let cases: [(&[u8], &str); 6] = [
            (b"<?xml version='1.0' encoding='us-ascii'?><r a='&#233;'>x</r>", "1<r=\u{e9} 1x>r"),
            (b"<?xml version='1.0' encoding=\"utf-8\" standalone='yes'?><r>\xc3\xbc</r>", "1<r 1\u{fc}>r"),
            (b"\xef\xbb\xbf<r>\xc3\xbc</r>", "1<r 1\u{fc}>r"),
            (&latin, "1<r=\u{e9} 1\u{fc}>r"),
            (&little, "1<r=\u{e9} 1\u{fc}\u{1f980}>r"),
            (&big, "1<r=\u{e9} 1\u{fc}\u{1f980}>r"),
        ];
        for (xml, expected) in cases {
            assert_eq!(steps_of(xml).as_deref(), Ok(expected), "{}", xml.escape_ascii());
        }
        assert!(steps_of(&little[..little.len() - 1]).is_err());
    }
}
