//! What reads bytes from outside, each with what must hold whatever the bytes are. The programs in `fuzz/targets` call these
//! with bytes that libFuzzer makes.

use crate::clock::Timestamp;
use crate::config::{Config, Mirror, Root};
use crate::http::conditional::{self, Validators};
use crate::http::range::{self, Requested};
use crate::http::{TreePath, date, hidden};
use crate::listing::Query;
use crate::listing::query::{MAX_COUNTRIES, MAX_VALUE};
use crate::mirrors::proofs::Document;
use crate::policy::{MirrorState, RepoView, Repos};
use crate::push::state::KeptWindow;
use crate::repo::{self, Generation, History, ListedFile, Parsed as Counted, RepodataError, Repomd, Sha256};
use crate::repo::{checksums, compression, prestodelta, primary, repomd};
use crate::server::h1::parse::{self, Parsed};
use crate::server::proxied;
use crate::store::disk::entry;
use crate::store::purge::Bans;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use std::io::BufRead;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

/// Plain bytes of a list, at most: few, so that a run stays short.
const MOST_PLAIN: u64 = 8 << 20;

/// The head of an HTTP/1 request is read the same whatever follows it, and not before it is whole.
pub fn http1_head(bytes: &[u8]) {
    let Parsed::Whole(request, length) = parse::parse(bytes) else { return };
    assert!(parse::is_ended(&bytes[..length], 0), "a head is whole before its end");
    assert!(!parse::is_alien(bytes));
    assert!(!matches!(parse::parse(&bytes[..length - 1]), Parsed::Whole(..)), "a head ends twice");
    let Parsed::Whole(alone, same) = parse::parse(&bytes[..length]) else {
        panic!("a head needs what follows it")
    };
    assert_eq!((same, alone.head.target.as_str()), (length, request.head.target.as_str()));
    path(request.head.target.path().as_bytes());
    if let Some(query) = request.head.target.query() {
        mirrorlist_query(query.as_bytes());
    }
}

/// A path of the tree leads nowhere else, and is asked for by one name.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(path) = TreePath::from_uri(text) {
        let plain = path.as_str();
        assert!(!plain.starts_with('/') && !plain.contains("//") && !plain.contains('\\'), "{plain:?}");
        assert!(!plain.split('/').any(|segment| matches!(segment, "." | "..")), "{plain:?}");
        assert!(!plain.chars().any(char::is_control), "{plain:?}");
        assert_eq!(TreePath::new(plain).as_ref(), Ok(&path));
        let _ = hidden::is_hidden(&path, &[]);
        HeaderValue::try_from(format!("/{}", path.encoded())).expect("an encoded path stands in a field");
    }
}

/// Ranges lie within what they are of, and ask for little more than the whole.
pub fn range(bytes: &[u8]) {
    let Some((length, field)) = bytes.split_first_chunk::<8>() else { return };
    let length = u64::from_le_bytes(*length) >> (length[0] % 64);
    let Ok(field) = HeaderValue::from_bytes(field) else { return };
    let Requested::Ranges(ranges) = range::requested(Some(&field), length) else { return };
    assert!(!ranges.is_empty() && ranges.len() <= range::MAX_RANGES);
    assert!(ranges.iter().all(|range| range.start < range.end && range.end <= length));
    let total: u128 = ranges.iter().map(|range| u128::from(range.len())).sum();
    assert!(ranges.len() < 3 || total <= u128::from(length), "{total} bytes of {length}");
    for range in ranges {
        let _ = range::content_range(range, length);
    }
}

/// Conditions are evaluated, whatever stands in them; a date that is read is written the same.
pub fn conditions(bytes: &[u8]) {
    const FIELDS: [HeaderName; 5] =
        [IF_MATCH, IF_NONE_MATCH, IF_RANGE, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];
    let mut fields = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some((which, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        if let Some(time) = date::parse(&value) {
            assert_eq!(date::parse(&date::format(time)), Some(time), "{value:?}");
        }
        fields.append(&FIELDS[usize::from(*which) % FIELDS.len()], value);
    }
    for etag in [None, Some("\"a\""), Some("W/\"a\"")] {
        for last_modified in [None, Some(Timestamp::from_secs(784_111_777))] {
            let validators = Validators { etag, last_modified };
            let _ = conditional::evaluate(&fields, &validators);
            let _ = conditional::if_range_holds(&fields, &validators);
        }
    }
}

/// What a repomd.xml names lies in the tree.
pub fn repomd(bytes: &[u8]) {
    let Ok(repomd) = repomd::parse(bytes, &root()) else { return };
    for record in &repomd.records {
        assert!(repomd::is_kind(&record.kind), "{:?}", record.kind);
        lies_in_the_tree(&record.path);
    }
}

/// So do the packages of a primary.xml, in any compression; and they are counted.
pub fn primary(bytes: &[u8]) {
    list(bytes, |plain, root, each| primary::parse(plain, root, each));
}

/// And the drpms of a prestodelta.xml.
pub fn prestodelta(bytes: &[u8]) {
    list(bytes, |plain, root, each| prestodelta::parse(plain, root, each));
}

fn list<P>(bytes: &[u8], parse: P)
where
    P: Fn(Box<dyn BufRead + '_>, &Root, &mut dyn FnMut(ListedFile)) -> Result<Counted, RepodataError>,
{
    let Ok(plain) = compression::decompress(bytes, MOST_PLAIN) else { return };
    let (mut files, mut memory_bytes) = (0, 0);
    let parsed = parse(plain, &root(), &mut |file| {
        lies_in_the_tree(&file.path);
        files += 1;
        memory_bytes += file.memory_bytes();
    });
    if let Ok(parsed) = parsed {
        assert_eq!((parsed.packages, parsed.memory_bytes), (files, memory_bytes));
    }
}

/// A list of checksums names each file once, below its directory.
pub fn checksum_list(bytes: &[u8]) {
    let (files, _) = checksums::parse(bytes);
    let mut paths: Vec<&str> = files.iter().map(|file| &*file.path).collect();
    paths.iter().for_each(|path| lies_in_the_tree(path));
    paths.sort_unstable();
    assert!(paths.windows(2).all(|two| two[0] != two[1]), "a file is named twice");
}

/// A config is read, or its mistakes have their places.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // What a config includes lies beside it: nothing is there.
    let path = Path::new("/none/freshet.toml");
    if let Err(mistakes) = Config::parse(text, path) {
        let lines = text.lines().count().max(1);
        assert!(!mistakes.is_empty());
        for mistake in mistakes.iter().filter(|mistake| mistake.file == path) {
            assert!((1..=lines + 1).contains(&mistake.line), "line {} of {lines}", mistake.line);
        }
    }
}

/// Of a PROXY header no byte is read that follows it.
pub fn proxy_header(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let mut rest = bytes;
        let proxied = {
            let future = pin!(proxied::read(&mut rest));
            match future.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(read) => read.ok(),
                Poll::Pending => panic!("bytes in memory are there"),
            }
        };
        proxied.map(|proxied| (proxied, bytes.len() - rest.len()))
    };
    if let Some((proxied, length)) = read(bytes) {
        assert_eq!(read(&bytes[..length]), Some((proxied, length)), "it needs what follows it");
        assert_eq!(read(&bytes[..length - 1]), None, "it ends twice");
    }
}

/// What is asked of a mirrorlist is bounded.
pub fn mirrorlist_query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(query) = Query::parse(text) else { return };
    assert!(query.text.len() <= MAX_VALUE && query.arch.len() <= MAX_VALUE);
    assert!(query.countries.len() <= MAX_COUNTRIES);
    for id in query.repo_ids() {
        assert!(!id.is_empty() && !id.chars().any(char::is_control), "{id:?}");
    }
}

/// The trailer of a cache entry whose digest is right describes an object, or none.
pub fn cache_entry(bytes: &[u8]) {
    for magic in entry::MAGICS {
        let Some(record) = entry::decode(magic, bytes) else { continue };
        record.object();
        if let Some((_, spans)) = record.parts() {
            assert!(spans.iter().all(|span| span.start < span.end), "{spans:?}");
        }
        entry::meta(record);
    }
}

/// What the node keeps of repos, windows, purges and proofs is read, or refused.
pub fn state(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => {
            let sealed = [bytes, Sha256::of(bytes).as_bytes()].concat();
            let Ok(stored) = repo::decode(&sealed) else { return };
            if let Ok(generation) = stored.complete(|_| None) {
                generation
                    .catalogue
                    .iter()
                    .for_each(|(path, _)| assert!(generation.catalogue.find(path).is_some()));
            }
        }
        1 => {
            let Ok(kept) = serde_json::from_slice::<KeptWindow>(bytes) else { return };
            kept.dated();
        }
        2 => {
            let Ok(bans) = serde_json::from_slice::<Bans>(bytes) else { return };
            bans.verdict(&TreePath::root(), Timestamp::EPOCH, bans.newest());
        }
        _ => {
            let Ok(document) = serde_json::from_slice::<Document>(bytes) else { return };
            static REPOS: LazyLock<Repos> = LazyLock::new(repos);
            let mirror = Arc::new(MirrorState::untried(Arc::new(Mirror::new("m", "http://m/")), 1));
            document.restore(&mut [[mirror.clone(), mirror]], &REPOS);
        }
    }
}

/// Of a repo at the tree's root.
fn root() -> Root {
    Root::default()
}

/// A repo with one generation, of no packages.
fn repos() -> Repos {
    const CONFIG: &str =
        "[origin]\npath = \"/o\"\n[node]\nstate = \"/s\"\n[[repo]]\nname = \"r\"\npath = \"r\"\n";
    let (config, _) = Config::parse(CONFIG, Path::new("freshet.toml")).expect("it is right");
    let (root, now) = (Bytes::from_static(b"<repomd/>"), Timestamp::EPOCH);
    let generation = Generation::assemble(&root, &Repomd::default(), vec![], vec![], vec![], None, now, now);
    let history = History::new([Arc::new(generation)]);
    Repos::new(vec![Arc::new(RepoView::new(Arc::new(config.repos[0].clone()), history, None))])
}

fn lies_in_the_tree(path: &str) {
    let path = path.trim_start_matches('/');
    let found = TreePath::new(path);
    assert!(found.is_ok_and(|found| found.as_str() == path), "{path:?}");
}
