//! Mirrors that never were: one thread that answers the node's probes on a thousand addresses of loopback as a thousand
//! hosts with a copy of the tree would.

use super::site::Site;
use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// They answer until this is dropped.
pub struct Mirrors {
    addrs: Vec<SocketAddr>,
    asked: Arc<Asked>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What all mirrors together were asked.
#[derive(Debug, Default)]
struct Asked {
    connections: AtomicU64,
    requests: AtomicU64,
}

/// How many connections and requests the mirrors have had.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub connections: u64,
    pub requests: u64,
}

impl Load {
    /// What came since an earlier look.
    pub const fn since(self, before: Self) -> Self {
        Self { connections: self.connections - before.connections, requests: self.requests - before.requests }
    }
}

/// What each mirror has, by path.
type Files = HashMap<String, Held>;

struct Held {
    path: PathBuf,
    bytes: u64,
    /// A repomd.xml, whole.
    shown: Option<Bytes>,
}

impl Mirrors {
    /// So many, with all repos of the site.
    pub fn start(site: &Site, count: usize) -> anyhow::Result<Self> {
        let files = Arc::new(files(site)?);
        let mut listeners = Vec::with_capacity(count);
        let mut port = 0;
        for number in 0..count {
            let [.., high, low] = u32::try_from(number)?.to_be_bytes();
            let listener =
                TcpListener::bind((Ipv4Addr::new(127, 10, high, low), port)).context("a mirror")?;
            port = listener.local_addr()?.port();
            listener.set_nonblocking(true)?;
            listeners.push(listener);
        }
        let addrs = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let asked = Arc::new(Asked::default());
        let counted = asked.clone();
        let serve = move || {
            runtime.block_on(async move {
                for listener in listeners {
                    if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                        tokio::spawn(accept(listener, files.clone(), counted.clone()));
                    }
                }
                let _ = stopped.await;
            });
        };
        let thread = std::thread::Builder::new().name("mirrors".into()).spawn(serve)?;
        Ok(Self { addrs, asked, stop: Some(stop), thread: Some(thread) })
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.addrs.len()
    }

    /// What they have been asked so far.
    pub fn load(&self) -> Load {
        let Asked { connections, requests } = &*self.asked;
        Load { connections: connections.load(Ordering::Relaxed), requests: requests.load(Ordering::Relaxed) }
    }

    /// Where their trees are.
    pub fn urls(&self) -> impl Iterator<Item = String> {
        self.addrs.iter().map(|addr| format!("http://{addr}/"))
    }
}

impl Drop for Mirrors {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It had nothing to say.
            let _ = thread.join();
        }
    }
}

fn files(site: &Site) -> anyhow::Result<Files> {
    let mut files = Files::new();
    for repo in site.repo_paths() {
        for part in ["Packages", "repodata"] {
            let dir = site.tree().join(&repo).join(part);
            for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
                let entry = entry?;
                let name = entry.file_name().into_string().ok().context("a name in ASCII")?;
                let shown = if name == "repomd.xml" { Some(fs::read(entry.path())?.into()) } else { None };
                let held = Held { path: entry.path(), bytes: entry.metadata()?.len(), shown };
                files.insert(format!("/{repo}/{part}/{name}"), held);
            }
        }
    }
    Ok(files)
}

async fn accept(listener: tokio::net::TcpListener, files: Arc<Files>, asked: Arc<Asked>) {
    while let Ok((socket, _)) = listener.accept().await {
        asked.connections.fetch_add(1, Ordering::Relaxed);
        let (files, asked) = (files.clone(), asked.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                asked.requests.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Ok::<_, Infallible>(answer(&files, &request)))
            });
            // How a probe's connection ends says nothing.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

fn answer(files: &Files, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let Some(held) = files.get(request.uri().path()) else {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    if request.method() == Method::HEAD {
        response.headers_mut().insert(CONTENT_LENGTH, held.bytes.into());
    } else if let Some(shown) = &held.shown {
        *response.body_mut() = Full::new(shown.clone());
    } else if let Some((range, part)) = part(held, request) {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response.headers_mut().insert(CONTENT_RANGE, range);
        *response.body_mut() = Full::new(part);
    } else {
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    }
    response
}

/// The bytes that a request asks for, with their Content-Range.
fn part(held: &Held, request: &Request<Incoming>) -> Option<(HeaderValue, Bytes)> {
    let range = request.headers().get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let bytes = (last + 1).checked_sub(first).filter(|_| last < held.bytes)?;
    let mut part = vec![0; usize::try_from(bytes).ok()?];
    File::open(&held.path).ok()?.read_exact_at(&mut part, first).ok()?;
    Some((format!("bytes {range}/{}", held.bytes).try_into().ok()?, part.into()))
}
