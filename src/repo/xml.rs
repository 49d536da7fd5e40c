//! A bounded walk through one XML document, for repodata.
//!
//! Refuses what repodata never needs and parsers were attacked with: document types, entities of their own, deep
//! nesting, endless tags. Names are compared with their prefix, as librepo and createrepo_c compare them.

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

/// Longest single tag, comment or stretch of text, in bytes. Descriptions are the longest that occur, some 100 KiB.
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
    let mut reader = Reader::from_reader(EventBound { input, left: 0, exceeded: false });
    reader.config_mut().expand_empty_elements = true;
    let mut state = State { depth: 0, complete: false, text: String::new(), roots, on };
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        reader.get_mut().left = MAX_EVENT_BYTES;
        let event = reader.read_event_into(&mut buffer);
        let fault = match event.map_err(Fault::from).and_then(|event| state.take(&event)) {
            Ok(true) => continue,
            Ok(false) => return Ok(()),
            Err(_) if reader.get_ref().exceeded => Fault::Refused("a tag or text of more than 4 MiB"),
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
    roots: &'r [&'r str],
    on: F,
}

impl<F: FnMut(Step<'_>) -> Result<(), Fault>> State<'_, F> {
    /// False at the end.
    fn take(&mut self, event: &Event<'_>) -> Result<bool, Fault> {
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
            Event::Decl(declaration) => {
                let encoding = declaration.encoding().transpose().map_err(malformed)?;
                if encoding.is_some_and(|name| !name.eq_ignore_ascii_case("utf-8")) {
                    return Err(Fault::Refused("an encoding other than UTF-8"));
                }
            }
            Event::DocType(_) => return Err(Fault::Refused("a document type")),
            Event::Comment(_) | Event::PI(_) => {}
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
            other => Self::Malformed(other.to_string()),
        }
    }
}

/// Ends the input where one event gets too long; quick-xml has no bound of its own.
struct EventBound<R> {
    input: R,
    /// Bytes that the current event may still take.
    left: usize,
    exceeded: bool,
}

impl<R: BufRead> BufRead for EventBound<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let available = self.input.fill_buf()?;
        if self.left == 0 && !available.is_empty() {
            self.exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(&available[..available.len().min(self.left)])
    }

    fn consume(&mut self, amount: usize) {
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
        let mut seen = String::new();
        walk("test", &["r"], xml.as_bytes(), |step| {
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
        let long_text = format!("<r>{}</r>", " ".repeat(MAX_EVENT_BYTES + 10));
        let cases = [
            ("<!DOCTYPE r><r/>", "document type"),
            ("<!DOCTYPE r [<!ENTITY x 'y'>]><r>&x;</r>", "document type"),
            ("<r>&x;</r>", "entity"),
            ("<r><b c='&x;'/></r>", "x"),
            ("<r>&#0;</r>", "not well-formed"),
            (deep.as_str(), "64 deep"),
            (long_tag.as_str(), "4 MiB"),
            (long_text.as_str(), "4 MiB"),
            ("<?xml version='1.0' encoding='ISO-8859-1'?><r/>", "UTF-8"),
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
    fn a_long_text_is_cut_not_refused() {
        let xml = format!("<r>{}</r>", "ü".repeat(MAX_TEXT_BYTES));
        assert_eq!(steps(&xml).map(|seen| seen.matches('ü').count()), Ok(MAX_TEXT_BYTES / 2));
    }
}
