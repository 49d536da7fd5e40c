//! Mirrors that never were: one thread that answers the node's probes on a thousand addresses of loopback as a thousand
//! hosts with a copy of the tree would.

use super::site::Site;
use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// They answer until this is dropped.
pub struct Mirrors {
    addrs: Vec<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What each has, by path: the size, and the bytes of a repomd.xml.
type Files = HashMap<String, (u64, Option<Bytes>)>;

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
        let serve = move || {
            runtime.block_on(async move {
                for listener in listeners {
                    if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                        tokio::spawn(accept(listener, files.clone()));
                    }
                }
                let _ = stopped.await;
            });
        };
        let thread = std::thread::Builder::new().name("mirrors".into()).spawn(serve)?;
        Ok(Self { addrs, stop: Some(stop), thread: Some(thread) })
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.addrs.len()
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
                files.insert(format!("/{repo}/{part}/{name}"), (entry.metadata()?.len(), shown));
            }
        }
    }
    Ok(files)
}

async fn accept(listener: tokio::net::TcpListener, files: Arc<Files>) {
    while let Ok((socket, _)) = listener.accept().await {
        let files = files.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(answer(&files, &request)));
            // How a probe's connection ends says nothing.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

fn answer(files: &Files, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    let Some((size, shown)) = files.get(request.uri().path()) else {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    };
    if request.method() == Method::HEAD {
        response.headers_mut().insert(CONTENT_LENGTH, (*size).into());
    } else if let Some(shown) = shown {
        *response.body_mut() = Full::new(shown.clone());
    } else if request.headers().contains_key(RANGE) {
        // The prober asks for the first byte.
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes 0-0/{size}").try_into().expect("ASCII");
        response.headers_mut().insert(CONTENT_RANGE, range);
        *response.body_mut() = Full::new(Bytes::from_static(b"x"));
    } else {
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    }
    Ok(response)
}
