//! Reads typed values out of TOML tables and collects every mistake on the way, each with its line.
//!
//! A [`Table`] hands out keys by name and remembers which were asked for; what is left in the end is unknown. A value that
//! can't be read is reported at once and then treated as absent, so that one run shows all the mistakes of a file.
//! Placeholders that stand in for such values never leave the module: [`Report::into_result`] drops the result.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// Something in the configuration that keeps it from being used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {text}", file.display())]
pub struct Mistake {
    /// The file it is in.
    pub file: PathBuf,
    /// The line it is on, from 1.
    pub line: usize,
    /// `key.path = value: what is expected`.
    pub text: String,
}

/// Something in the configuration that is allowed, but seldom meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The file it is in.
    pub file: PathBuf,
    /// The line it is on, from 1.
    pub line: usize,
    /// `key.path = value: what is odd`.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.text)
    }
}

/// Where a value stands, for messages about it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) line: usize,
    pub(super) key: String,
    /// As written, shortened; None for what is absent.
    pub(super) value: Option<String>,
}

impl Place {
    fn says(&self, what: &str) -> String {
        match &self.value {
            Some(value) => format!("{} = {value}: {what}", self.key),
            None if self.key.is_empty() => what.to_owned(),
            None => format!("{}: {what}", self.key),
        }
    }
}

/// All that was found wrong or odd so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<Warning>>,
    sources: RefCell<Vec<PathBuf>>,
}

impl Report {
    pub(super) fn mistake(&self, place: &Place, what: &str) {
        let mistake = Mistake { file: place.file.clone(), line: place.line, text: place.says(what) };
        self.mistakes.borrow_mut().push(mistake);
    }

    pub(super) fn warn(&self, place: &Place, what: &str) {
        let warning = Warning { file: place.file.clone(), line: place.line, text: place.says(what) };
        self.warnings.borrow_mut().push(warning);
    }

    /// Notes that `path` is read, or looked at, whenever the configuration is.
    pub(super) fn source(&self, path: &Path) {
        self.sources.borrow_mut().push(path.to_owned());
    }

    /// What was noted since this was last asked.
    pub(super) fn take_sources(&self) -> Vec<PathBuf> {
        std::mem::take(&mut *self.sources.borrow_mut())
    }

    /// `value` with the warnings, or the mistakes if there are any; by line, `main`'s before those of other files.
    pub(super) fn into_result<T>(self, value: T, main: &Path) -> Result<(T, Vec<Warning>), Vec<Mistake>> {
        let (mut mistakes, mut warnings) = (self.mistakes.into_inner(), self.warnings.into_inner());
        mistakes.sort_by(|a, b| order(main, (&a.file, a.line), (&b.file, b.line)));
        warnings.sort_by(|a, b| order(main, (&a.file, a.line), (&b.file, b.line)));
        if mistakes.is_empty() { Ok((value, warnings)) } else { Err(mistakes) }
    }
}

fn order(main: &Path, a: (&PathBuf, usize), b: (&PathBuf, usize)) -> std::cmp::Ordering {
    (a.0 != main, a).cmp(&(b.0 != main, b))
}

/// A file's text, and where its lines start.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    newlines: Vec<usize>,
}

impl Source {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let newlines =
            text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { path: path.to_owned(), newlines }
    }

    /// The folder that relative paths in this file start from.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    fn line(&self, offset: usize) -> usize {
        self.newlines.partition_point(|newline| *newline < offset) + 1
    }

    /// A place in this file that no key names.
    pub(super) fn place(&self, offset: usize) -> Place {
        Place { file: self.path.clone(), line: self.line(offset), key: String::new(), value: None }
    }
}

type Reader<T> = Box<dyn Fn(&DeValue<'_>) -> Option<T>>;

/// How to read one kind of value, and what to ask for where it can't be read.
pub(super) struct Kind<T> {
    /// Follows "expected".
    pub(super) what: String,
    pub(super) read: Reader<T>,
}

impl<T: 'static> Kind<T> {
    pub(super) fn new(what: impl Into<String>, read: impl Fn(&DeValue<'_>) -> Option<T> + 'static) -> Self {
        Self { what: what.into(), read: Box::new(read) }
    }

    /// Out of text.
    pub(super) fn text(what: impl Into<String>, read: impl Fn(&str) -> Option<T> + 'static) -> Self {
        Self::new(what, move |value| value.as_str().and_then(&read))
    }
}

/// One TOML table while it is read.
pub(super) struct Table<'a> {
    pub(super) report: &'a Report,
    pub(super) source: &'a Source,
    place: Place,
    unread: BTreeMap<String, (Place, DeValue<'a>)>,
    /// Keys asked for; with the place of those that were there.
    known: BTreeMap<&'static str, Option<Place>>,
}

impl<'a> Table<'a> {
    /// The top level of a file.
    pub(super) fn root(report: &'a Report, source: &'a Source, entries: DeTable<'a>) -> Self {
        Self::new(report, source, source.place(0), entries)
    }

    fn new(report: &'a Report, source: &'a Source, place: Place, entries: DeTable<'a>) -> Self {
        let prefix = if place.key.is_empty() { String::new() } else { format!("{}.", place.key) };
        let entry = |(key, value): (Spanned<_>, Spanned<DeValue<'a>>)| {
            let line = source.line(key.span().start);
            let key: std::borrow::Cow<'_, str> = key.into_inner();
            let shown = shown(value.get_ref());
            let place =
                Place { file: source.path.clone(), line, key: format!("{prefix}{key}"), value: Some(shown) };
            (key.into_owned(), (place, value.into_inner()))
        };
        let unread = entries.into_iter().map(entry).collect();
        Self { report, source, place, unread, known: BTreeMap::new() }
    }

    fn take(&mut self, key: &'static str) -> Option<(Place, DeValue<'a>)> {
        let found = self.unread.remove(key);
        let place = found.as_ref().map(|(place, _)| place.clone());
        self.known.entry(key).or_insert(place);
        found
    }

    /// The value of `key`; None if it is absent or wrong.
    pub(super) fn optional<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<T> {
        let (place, value) = self.take(key)?;
        let read = (kind.read)(&value);
        if read.is_none() {
            self.report.mistake(&place, &format!("expected {}", kind.what));
        }
        read
    }

    /// The value of `key`, or `default`.
    pub(super) fn or<T>(&mut self, key: &'static str, kind: &Kind<T>, default: T) -> T {
        self.optional(key, kind).unwrap_or(default)
    }

    /// The value of `key`, whose absence is a mistake.
    pub(super) fn required<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<T> {
        let value = self.optional(key, kind);
        if !self.given(key) {
            self.mistake(key, &format!("missing, expected {}", kind.what));
        }
        value
    }

    /// The elements of the list at `key`, without those that are wrong; None if it is absent.
    pub(super) fn list<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<Vec<T>> {
        let (place, value) = self.take(key)?;
        let DeValue::Array(elements) = value else {
            self.report.mistake(&place, &format!("expected a list, each {}", kind.what));
            return None;
        };
        Some(self.elements(&place, elements, kind))
    }

    /// The same for a list that may also be written as its one element; empty if it is absent.
    pub(super) fn one_or_more<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Vec<T> {
        if self.unread.get(key).is_some_and(|(_, value)| matches!(value, DeValue::Array(_))) {
            self.list(key, kind).unwrap_or_default()
        } else {
            self.optional(key, kind).into_iter().collect()
        }
    }

    fn elements<T>(&self, place: &Place, elements: DeArray<'a>, kind: &Kind<T>) -> Vec<T> {
        let read = |element: Spanned<DeValue<'_>>| {
            let read = (kind.read)(element.get_ref());
            if read.is_none() {
                let line = self.source.line(element.span().start);
                let at = Place { line, value: Some(shown(element.get_ref())), ..place.clone() };
                self.report.mistake(&at, &format!("expected {}", kind.what));
            }
            read
        };
        elements.into_iter().filter_map(read).collect()
    }

    /// The table at `key`, read by `read`; an empty one if it is absent.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Table<'a>) -> T) -> T {
        let (place, entries) = match self.take(key) {
            Some((place, DeValue::Table(entries))) => (Place { value: None, ..place }, entries),
            Some((place, _)) => {
                self.report.mistake(&place, &format!("expected a table, [{key}]"));
                (place, DeTable::new())
            }
            None => (self.place(key), DeTable::new()),
        };
        Table::new(self.report, self.source, place, entries).read_by(read)
    }

    /// The tables of the list at `key`, each read by `read`.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Table<'a>) -> T,
    ) -> Vec<T> {
        let Some((place, value)) = self.take(key) else { return Vec::new() };
        let expected = format!("expected a list of tables, [[{key}]]");
        let DeValue::Array(elements) = value else {
            self.report.mistake(&place, &expected);
            return Vec::new();
        };
        let mut all = Vec::new();
        for element in elements {
            let line = self.source.line(element.span().start);
            if let DeValue::Table(entries) = element.into_inner() {
                let at = Place { line, value: None, ..place.clone() };
                all.push(Table::new(self.report, self.source, at, entries).read_by(&mut read));
            } else {
                self.report.mistake(&place, &expected);
            }
        }
        all
    }

    fn read_by<T>(mut self, read: impl FnOnce(&mut Table<'a>) -> T) -> T {
        let value = read(&mut self);
        self.finish();
        value
    }

    /// Reports `key` as something that can't be used here, if it was given; `why` follows its value. It is never offered in
    /// place of an unknown key.
    pub(super) fn refuse(&mut self, key: &'static str, why: &str) {
        if let Some((place, _)) = self.unread.remove(key) {
            self.report.mistake(&place, why);
        }
    }

    /// Whether the file has `key`, rightly or wrongly written.
    pub(super) fn given(&self, key: &'static str) -> bool {
        self.unread.contains_key(key) || self.known.get(key).is_some_and(Option::is_some)
    }

    /// Where `key` stands, or would.
    pub(super) fn place(&self, key: &'static str) -> Place {
        let given =
            self.unread.get(key).map(|(place, _)| place).or(self.known.get(key).and_then(Option::as_ref));
        given.cloned().unwrap_or_else(|| {
            let key =
                if self.place.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place.key) };
            Place { key, value: None, ..self.place.clone() }
        })
    }

    pub(super) fn mistake(&self, key: &'static str, what: &str) {
        self.report.mistake(&self.place(key), what);
    }

    pub(super) fn warn(&self, key: &'static str, what: &str) {
        self.report.warn(&self.place(key), what);
    }

    /// Reports all keys that nobody asked for.
    pub(super) fn finish(&mut self) {
        for (key, (place, _)) in std::mem::take(&mut self.unread) {
            let what = match closest(&key, self.known.keys().copied()) {
                Some(known) => format!("unknown key, expected perhaps {known:?}"),
                None => {
                    let known: Vec<_> = self.known.keys().copied().collect();
                    format!("unknown key, expected one of {}", known.join(", "))
                }
            };
            self.report.mistake(&place, &what);
        }
    }
}

/// A value as it is quoted in a message: short, on one line.
fn shown(value: &DeValue<'_>) -> String {
    const LONGEST: usize = 60;
    let all = match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(elements) if elements.is_empty() => "[]".to_owned(),
        DeValue::Array(_) => "[...]".to_owned(),
        DeValue::Table(_) => "{...}".to_owned(),
    };
    if all.chars().count() <= LONGEST {
        all
    } else {
        all.chars().take(LONGEST).chain("...".chars()).collect()
    }
}

/// The candidate that `word` is most likely a slip of: at most a third of its letters differ.
fn closest(word: &str, candidates: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let word: Vec<char> = word.chars().take(40).collect();
    let measured = candidates.map(|known| (distance(&word, &known.chars().collect::<Vec<_>>()), known));
    measured.min().filter(|(distance, known)| *distance <= (known.len() / 3).max(1)).map(|(_, known)| known)
}

/// Levenshtein distance.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
