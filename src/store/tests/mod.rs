//! The store over real sockets and a real disk. Callers run on a runtime without IO and timers: whatever needs these
//! must happen on the background runtime.

mod cache;
mod compare;
mod digests;
mod eviction;
mod faults;
mod hostile;
mod parts;
mod suspects;
mod tree;

use super::disk::{Look, Trust};
use super::*;
use crate::clock::Timestamp;
use crate::origin::stub::{Stub, response, send};
use crate::origin::{DirectoryOrigin, HttpOrigin, Wait, http};
use crate::repo::Sha256;
use crate::shares::Owner;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex, mpsc};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

const MIB: u64 = 1024 * 1024;
/// A client's demand.
const ANY: Demand = of_network(1, false);

const fn of_network(network: u64, is_listed: bool) -> Demand {
    Demand::of_client(Owner::new(network, 1), is_listed)
}

struct Bench {
    callers: Runtime,
    background: Runtime,
    dir: TempDir,
    stall_timeout: Duration,
}

impl Bench {
    fn new() -> Self {
        Self {
            callers: Builder::new_current_thread().enable_time().build().unwrap(),
            background: Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
            dir: TempDir::new().unwrap(),
            stall_timeout: Duration::from_millis(300),
        }
    }

    fn settings(&self) -> Settings {
        Settings { memory_object_bytes: 1024, ..Settings::new(self.dir.path().to_owned(), 64 * MIB) }
    }

    fn over(&self, url: &str) -> Arc<Store> {
        self.with(url, &self.settings())
    }

    fn with(&self, url: &str, settings: &Settings) -> Arc<Store> {
        let mut timers = http::Settings::new(url, "node");
        timers.stall_timeout = self.stall_timeout;
        let origin = Origin::Http(Arc::new(HttpOrigin::new(timers).unwrap()));
        loop {
            match Store::open(origin.clone(), settings, self.background.handle()) {
                // The one before was dropped, but its last task still holds it.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    fn run<F: Future>(&self, work: F) -> F::Output {
        self.callers.block_on(work)
    }

    fn drained(&self, store: &Store, object: &Object) -> Result<Vec<u8>, String> {
        self.run(async { drain(store.fetch(object, ANY).await.map_err(|e| e.to_string())?).await })
    }

    fn files(&self, below: &str) -> usize {
        count(&self.dir.path().join(below))
    }
}

fn cache(store: &Store) -> &Cache {
    let Backing::Cache(cache) = &store.backing else { panic!("a tree") };
    cache
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| if p.is_dir() { count(&p) } else { 1 })
        .sum()
}

/// The bytes of a range, as a client gets them that asks for no more.
async fn read_range(content: Content, range: ByteRange) -> Result<Vec<u8>, String> {
    let Source::Growing(mut tail) = content.source else {
        let all = drain(content).await?;
        return Ok(all[range.start as usize..range.end as usize].to_vec());
    };
    tail.want(&[range], Owner::NODE);
    let mut got = Vec::new();
    while (got.len() as u64) < range.len() {
        let rest = ByteRange { start: range.start + got.len() as u64, end: range.end };
        let there = std::future::poll_fn(|cx| tail.poll_past(cx, rest)).await.map_err(|e| e.to_string())?;
        assert!(there > rest.start, "no end before the end");
        let mut piece = vec![0; (there.min(range.end) - rest.start) as usize];
        tail.file().read_exact_at(&mut piece, rest.start).unwrap();
        got.extend(piece);
    }
    Ok(got)
}

/// The answer to a request for one range of `bytes`, with these lines in its head.
fn answer_range(head: &str, lines: &[&str], bytes: &[u8]) -> Vec<u8> {
    let range = head.split("range: bytes=").nth(1).unwrap().lines().next().unwrap();
    let (from, last) = range.split_once('-').unwrap();
    let (from, last): (usize, usize) = (from.parse().unwrap(), last.parse().unwrap());
    let of = format!("content-range: bytes {from}-{last}/{}", bytes.len());
    let lines: Vec<&str> = lines.iter().copied().chain([&*of]).collect();
    response("206 Partial Content", &lines, &bytes[from..=last])
}

/// All bytes as a client gets them.
async fn drain(content: Content) -> Result<Vec<u8>, String> {
    let read = |file: &File, from: u64, to: u64| {
        let mut bytes = vec![0; (to - from) as usize];
        file.read_exact_at(&mut bytes, from).unwrap();
        bytes
    };
    match content.source {
        Source::Memory(bytes) => Ok(bytes.to_vec()),
        Source::File(file) => Ok(read(&file, 0, content.meta.length.unwrap())),
        Source::Growing(mut tail) => {
            let mut all = Vec::new();
            loop {
                let had = all.len() as u64;
                let watermark = tail.past(had).await.map_err(|e| e.to_string())?;
                if watermark == had {
                    return Ok(all);
                }
                all.extend(read(tail.file(), had, watermark));
            }
        }
        Source::Apart(_) => Err("apart".to_owned()),
        Source::Pass(mut body) => {
            let mut all = Vec::new();
            while let Some(piece) = body.next().await {
                all.extend_from_slice(&piece.map_err(|e| e.to_string())?);
            }
            Ok(all)
        }
    }
}

/// Waits for a counter of the store.
fn until(store: &Store, holds: impl Fn(&StoreStats) -> bool) {
    while !holds(&store.stats()) {
        std::thread::yield_now();
    }
}

fn body(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(bytes as u64);
    (0..bytes).map(|_| random.u8(..)).collect()
}

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn listed(name: &str, bytes: &[u8]) -> Object {
    Object::listed(path(name), Sha256::of(bytes), bytes.len() as u64)
}

fn unlisted(name: &str) -> Object {
    Object::unlisted(path(name))
}

/// A clock tick later.
fn tick() {
    let now = clock::now();
    while clock::now() == now {
        std::hint::spin_loop();
    }
}
