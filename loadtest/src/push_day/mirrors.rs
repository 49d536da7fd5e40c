//! The mirrors of a push day: each holds the push from its moment on, one of them dies.

use super::tree::Tree;
use anyhow::Context;
use freshet::clock::monotonic;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// All of them, on one runtime. They answer as long as that runs.
pub struct Mirrors {
    pub addrs: Vec<SocketAddr>,
    /// The moment that the times of all of them count from; before it is known they hold what was there before.
    pub start: Arc<OnceLock<Instant>>,
}

#[derive(Clone)]
struct Mirror {
    tree: Arc<Tree>,
    start: Arc<OnceLock<Instant>>,
    /// Seconds after the start.
    holds: f64,
    dies: f64,
}

impl Mirrors {
    /// With these times: when each holds the push, and when it dies, in seconds after the start.
    pub fn start(tree: &Arc<Tree>, times: &[(f64, f64)]) -> anyhow::Result<Self> {
        let start = Arc::new(OnceLock::new());
        let (mut addrs, mut port) = (Vec::new(), 0);
        for (number, (holds, dies)) in times.iter().enumerate() {
            let [.., high, low] = u32::try_from(number)?.to_be_bytes();
            let addr: SocketAddr = (Ipv4Addr::new(127, 10, high, low), port).into();
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(addr).context("a mirror")?;
            let listener = socket.listen(1024)?;
            port = listener.local_addr()?.port();
            addrs.push(listener.local_addr()?);
            let mirror = Mirror { tree: tree.clone(), start: start.clone(), holds: *holds, dies: *dies };
            tokio::spawn(mirror.accepts(listener));
        }
        Ok(Self { addrs, start })
    }
}

impl Mirror {
    fn seconds(&self) -> f64 {
        self.start.get().map_or(f64::NEG_INFINITY, |start| (monotonic() - *start).as_secs_f64())
    }

    async fn accepts(self, listener: tokio::net::TcpListener) {
        loop {
            let Ok((socket, _)) = listener.accept().await else { return };
            let mirror = self.clone();
            tokio::spawn(async move {
                let dies = mirror.dies;
                let (start, serving) = (mirror.start.clone(), mirror);
                let service = service_fn(move |request| {
                    std::future::ready(Ok::<_, std::convert::Infallible>(serving.answer(&request)))
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(socket), service);
                tokio::select! {
                    // How a connection ends says nothing.
                    _ = connection => {}
                    // A dead host's connections end.
                    () = past(&start, dies) => {}
                }
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        let now = self.seconds();
        let holds = now >= self.holds;
        let path = request.uri().path();
        let found = if path == format!("{}/repodata/repomd.xml", self.tree.repo()) {
            Some(self.tree.repomd(holds).clone())
        } else {
            self.tree.file(path).filter(|body| holds || !body.is_new).map(|body| body.bytes.clone())
        };
        let Some(bytes) = found else {
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let size = bytes.len();
        if request.method() == Method::HEAD {
            response.headers_mut().insert(CONTENT_LENGTH, size.into());
            return response;
        }
        let Some((from, to)) = range(request, size) else {
            *response.body_mut() = Full::new(bytes);
            return response;
        };
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = format!("bytes {from}-{}/{size}", to - 1).try_into().expect("ASCII");
        response.headers_mut().insert(CONTENT_RANGE, value);
        *response.body_mut() = Full::new(bytes.slice(from..to));
        response
    }
}

/// Waits for that moment.
async fn past(start: &OnceLock<Instant>, seconds: f64) {
    if seconds.is_infinite() {
        return std::future::pending().await;
    }
    loop {
        let passed = start.get().map_or(f64::NEG_INFINITY, |start| (monotonic() - *start).as_secs_f64());
        if passed >= seconds {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// From where to where, of `bytes=N-` and `bytes=N-M`.
fn range(request: &Request<Incoming>, size: usize) -> Option<(usize, usize)> {
    let text = request.headers().get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (from, to) = text.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = if to.is_empty() { size } else { to.parse::<usize>().ok()?.saturating_add(1).min(size) };
    (from < to).then_some((from, to))
}
