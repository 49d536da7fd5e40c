//! Putting a node together: build, start, reload, drain, in that order.

mod confined;
mod reload;

pub use confined::confinement;

use crate::admin::{self, Admin};
use crate::clock;
use crate::config::{self, Config, Mistake};
use crate::geo::{Database, Geo, Networks};
use crate::metrics::Metrics;
use crate::mirrors::{Known, Lacking, Ours, Prober, Signals};
use crate::origin::{DirectoryOrigin, HttpOrigin, Origin, OriginError};
use crate::policy::{BounceReport, Published, Sightings};
use crate::push::{PushHandle, Pushes};
use crate::server::access_log::AccessLog;
use crate::server::egress::Egress;
use crate::server::worker::{self, Listener, Shared};
use crate::server::{Edge, Parts, acceptor, listen};
use crate::store::{Demand, FetchError, Object, Store};
use crate::{origin, store};
use anyhow::Context;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};

/// Threads of the background runtime: fills, prober, pushes, admin. They wait for sockets most of the time.
const BACKGROUND_THREADS: usize = 2;
/// Threads that may wait for the disk at once on behalf of fills and pushes.
const DISK_THREADS: usize = 64;
/// Bounces that may wait for the prober; more tell it nothing new.
const BOUNCES: usize = 256;
/// Files that no list names, and that mirrors are to be looked at for; more wait for their next client.
const LOOKS: usize = 64;
/// HEADs of the prober that the origin is asked at once: clients' must not wait for all of them.
const LACKING: usize = 4;
/// How long background tasks get to end once the last client is gone.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A running node.
pub struct Running {
    background: Runtime,
    workers: Vec<JoinHandle<()>>,
    log_writer: Option<JoinHandle<()>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    drain: watch::Sender<bool>,
    shutdown: watch::Sender<bool>,
    edge: Arc<Edge>,
    pushes: PushHandle,
    mirror_changes: watch::Receiver<u64>,
    bound: Bound,
    /// The process was confined to what it was given at the start.
    is_confined: bool,
    /// As it is in force: what a reload can't change is as it was at the start.
    config: Config,
}

/// The addresses that a node listens on, with the ports that it got.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Plaintext.
    pub http: Vec<SocketAddr>,
    /// TLS.
    pub https: Vec<SocketAddr>,
    /// Admin.
    pub admin: SocketAddr,
}

impl Running {
    /// Starts a node.
    ///
    /// # Errors
    /// An address can't be bound, a certificate or the origin's settings can't be used, a directory can't be made.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        Self::start_by(config, |_| false)
    }

    /// The same, in a process that is the node's alone and has no other thread: it gives up what the node doesn't need, for ever,
    /// unless `node.confine` is false.
    ///
    /// # Errors
    /// Likewise.
    pub fn start_confined(config: Config) -> anyhow::Result<Self> {
        Self::start_by(config, confined::confine)
    }

    /// `confine` is called once the sockets are bound, before there is any other thread.
    fn start_by(config: Config, confine: impl FnOnce(&Config) -> bool) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        raise_open_files(&config);
        let (bound, admin_socket, sockets) = bind(&config)?;
        let is_confined = confine(&config);
        let background = Builder::new_multi_thread()
            .worker_threads(BACKGROUND_THREADS)
            .max_blocking_threads(DISK_THREADS)
            .thread_name("background")
            .enable_all()
            .build()?;
        let (drain, draining) = watch::channel(false);
        let (shutdown, down) = watch::channel(false);
        let metrics = Arc::new(Metrics::new());
        let (log, log_writer) = AccessLog::open(&config.log.access, metrics.clone()).context("log.access")?;
        let store = open_store(&config, open_origin(&config)?, &background)?;
        let published = Arc::new(Published::default());
        let (bounced, bounces) = mpsc::channel::<BounceReport>(BOUNCES);
        let (looks, wanted) = mpsc::channel(LOOKS);
        let sightings = Arc::<Sightings>::default();
        let state = config.node.state.clone();
        let mut prober = Prober::new(
            config.probes.clone(),
            &config.mirrors,
            published.clone(),
            metrics.clone(),
            state.clone(),
            Signals { bounces, looks: wanted },
            Known {
                ours: ours(store.clone()),
                lacking: lacking(store.clone()),
                sightings: sightings.clone(),
            },
        )
        .context("mirrors")?;
        let pushes = Pushes::new(
            config.clone(),
            published.clone(),
            store.clone(),
            metrics.clone(),
            state.as_deref(),
            prober.flipped(),
        );
        // What was known before the restart comes first: clients are served from it at once.
        background.block_on(pushes.restore());
        prober.restore();

        let egress = Arc::new(Egress::new(config.egress.clone(), metrics.clone()));

        let parts = Parts {
            published,
            store,
            metrics: metrics.clone(),
            log,
            egress: egress.clone(),
            geo: open_geo(&config)?,
            bounces: bounced,
            sightings,
            looks,
        };
        let edge = Arc::new(Edge::new(config.clone(), parts));

        let (handle, mirror_changes) = (pushes.handle(), prober.changes());
        let admin = Arc::new(Admin::new(edge.clone(), handle.clone(), draining.clone()));
        let (meter, pacer, memory) = (
            {
                let (egress, down) = (egress.clone(), down.clone());
                async move { egress.measure(down).await }
            },
            {
                let down = down.clone();
                async move { egress.pacer.run(down).await }
            },
            {
                let (memory, down) = (edge.memory.clone(), down.clone());
                async move { memory.watch(down).await }
            },
        );
        listen::start(&admin_socket).with_context(|| format!("listening on {}", bound.admin))?;
        for listener in sockets.iter().flatten() {
            listen::start(&listener.socket).context("listening")?;
        }
        let tasks = vec![
            background.spawn(pushes.run(down.clone())),
            background.spawn(prober.run(down.clone())),
            background.spawn(meter),
            background.spawn(pacer),
            background.spawn(memory),
            background.spawn(admin::serve(admin_socket, admin, down)),
        ];
        let shared = Shared { edge: edge.clone(), drain: draining };
        let workers = sockets
            .into_iter()
            .enumerate()
            .map(|(number, listeners)| worker::start(number, listeners, shared.clone()))
            .collect::<Result<_, _>>()?;
        announce(&bound);
        Ok(Self {
            background,
            workers,
            log_writer,
            tasks,
            drain,
            shutdown,
            edge,
            pushes: handle,
            mirror_changes,
            bound,
            is_confined,
            config: Config::clone(&config),
        })
    }

    /// The addresses that it listens on.
    #[must_use]
    pub const fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Its pushes: state, events, polling at once.
    #[must_use]
    pub const fn pushes(&self) -> &PushHandle {
        &self.pushes
    }

    /// Changes whenever something new is known of a mirror.
    #[must_use]
    pub fn mirror_changes(&self) -> watch::Receiver<u64> {
        self.mirror_changes.clone()
    }

    /// The node as its data plane sees it.
    #[must_use]
    pub const fn edge(&self) -> &Arc<Edge> {
        &self.edge
    }

    /// Runs until SIGTERM or SIGINT, then drains. At a SIGHUP the configuration is `read` again.
    ///
    /// # Errors
    /// Signals can't be caught.
    pub fn until_signal(mut self, read: impl Fn() -> Result<Config, Vec<Mistake>>) -> anyhow::Result<()> {
        let _entered = self.background.handle().clone().enter();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hup = signal(SignalKind::hangup())?;
        loop {
            let signalled = self.background.block_on(async {
                tokio::select! {
                    _ = term.recv() => Some("SIGTERM"),
                    _ = int.recv() => Some("SIGINT"),
                    _ = hup.recv() => None,
                }
            });
            match signalled {
                None => match read() {
                    Ok(config) => self.reload(&config),
                    Err(mistakes) => self.refuses(&mistakes),
                },
                Some(signal) => {
                    tracing::info!(signal, "draining");
                    self.drain();
                    return Ok(());
                }
            }
        }
    }

    /// Stops accepting, lets transfers finish until `http.drain_timeout`, and ends everything else.
    pub fn drain(self) {
        self.drain.send_replace(true);
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        self.shutdown.send_replace(true);
        self.background.block_on(async {
            self.edge.store.shutdown().await;
            for task in self.tasks {
                let _ = tokio::time::timeout(SHUTDOWN, task).await;
            }
        });
        self.background.shutdown_timeout(SHUTDOWN);
        // The writer ends with the last sender, after all lines are written.
        drop(self.edge);
        // Not joined: a pipe that nobody reads any more must not hold up the exit.
        let given_up = clock::monotonic() + SHUTDOWN;
        while self.log_writer.as_ref().is_some_and(|writer| !writer.is_finished())
            && clock::monotonic() < given_up
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        tracing::info!("drained");
    }
}

/// What the bytes of mirrors are compared with: the node's own, as far as they are at hand.
fn ours(store: Arc<Store>) -> Ours {
    Arc::new(move |path, digest, size, part, theirs| {
        let store = store.clone();
        Box::pin(async move { store.compare(&Object::listed(path, digest, size), part, theirs).await })
    })
}

/// Whether the origin lacks a listed file, by its answer to a HEAD. What the node still has in its cache isn't asked for.
fn lacking(store: Arc<Store>) -> Lacking {
    let turns = Arc::new(Semaphore::new(LACKING));
    Arc::new(move |path, digest, size| {
        let (store, turns) = (store.clone(), Arc::clone(&turns));
        Box::pin(async move {
            let _turn = turns.acquire().await;
            match store.head(&Object::listed(path, digest, size), Demand::NODE).await {
                Err(FetchError::Absent | FetchError::IsDirectory) => true,
                Err(FetchError::Origin(error)) => matches!(*error, OriginError::Length { .. }),
                _ => false,
            }
        })
    })
}

/// What is known of clients' addresses.
fn open_geo(config: &Config) -> anyhow::Result<Geo> {
    let open = |path: &PathBuf| {
        let database = Database::new(fs::read(path)?)?;
        tracing::info!(path = %path.display(), kind = database.kind(), "GeoIP database");
        anyhow::Ok(database)
    };
    let databases = config
        .geoip
        .iter()
        .map(|path| open(path).with_context(|| format!("mirrors.geoip: {}", path.display())));
    Ok(Geo::new(Networks::new(config.networks.iter().cloned()), databases.collect::<Result<_, _>>()?))
}

/// What can't work on this machine though the config is sound, in words; none is fatal.
#[must_use]
pub fn preflight(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(interface) = &config.egress.interface
        && !Path::new("/sys/class/net").join(interface).exists()
    {
        warnings.push(format!(
            "egress.interface: there is no interface {interface:?}; egress is counted by freshet"
        ));
    }
    if let Some(why) = unlinkable(config) {
        warnings.push(format!(
            "origin.retain: {why}: files are copied there instead, the newest first, up to origin.retain_size; others that a push \
             removes from the tree are lost to clients that still hold the old metadata"
        ));
    }
    warnings
}

/// Why files of the tree can't be kept by links. Leaves nothing behind.
fn unlinkable(config: &Config) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let config::Origin::Directory { path, retain: Some(retain), .. } = &config.origin else { return None };
    // Where it isn't there yet, its directory stands for it.
    if let Some(dir) = [Some(&**retain), retain.parent()].into_iter().flatten().find(|dir| dir.is_dir()) {
        return match DirectoryOrigin::open(path, Some(dir)) {
            Ok(origin) => origin.can_link().err(),
            Err(error) => Some(error.to_string()),
        };
    }
    let device = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.dev());
    let beneath = retain.ancestors().find_map(device);
    (device(path).is_some() && device(path) != beneath)
        .then(|| format!("{} is not on the file system of {}", retain.display(), path.display()))
}

fn open_origin(config: &Config) -> anyhow::Result<Origin> {
    Ok(match &config.origin {
        config::Origin::Directory { path, retain, retain_size } => {
            let origin = DirectoryOrigin::open(path, retain.as_deref())?.copying(*retain_size);
            Origin::Directory(Arc::new(origin))
        }
        config::Origin::Http { url, ca, connect_timeout, first_byte_timeout, stall_timeout, patience } => {
            let settings = origin::http::Settings {
                ca: ca.clone(),
                connect_timeout: *connect_timeout,
                first_byte_timeout: *first_byte_timeout,
                stall_timeout: *stall_timeout,
                backoff_cap: backoff_cap(*patience),
                ..origin::http::Settings::new(url, &config.node.name)
            };
            Origin::Http(Arc::new(HttpOrigin::new(settings)?))
        }
    })
}

/// A client that waits for the origin must meet a probe or two before its patience ends.
fn backoff_cap(patience: Duration) -> Duration {
    (patience / 3).clamp(Duration::from_secs(1), Duration::from_secs(5))
}

fn open_store(config: &Config, origin: Origin, background: &Runtime) -> anyhow::Result<Arc<Store>> {
    let disk = config.cache.disk.as_ref();
    let (path, size) = disk.map_or_else(Default::default, |disk| (disk.path.clone(), disk.size));
    let settings = store::Settings {
        memory_bytes: config.cache.memory,
        memory_object_bytes: config.cache.memory_object,
        revalidate: config.cache.revalidate,
        stale_while_revalidate: config.cache.stale_while_revalidate,
        stale_if_error: config.cache.stale_if_error,
        absent_for: config.cache.absent,
        part_from: config.cache.parts_from,
        linger: config.cache.linger,
        abandon_bytes: config.cache.finish_within,
        resume_for: match config.origin {
            config::Origin::Http { patience, .. } => patience,
            config::Origin::Directory { .. } => Duration::ZERO,
        },
        ..store::Settings::new(path, size)
    };
    let disk =
        || disk.map_or_else(|| "cache".to_owned(), |disk| format!("cache.disk {}", disk.path.display()));
    Store::open(origin, &settings, background.handle()).with_context(disk)
}

type Sockets = Vec<Vec<Listener>>;

/// Binds all addresses before anything runs: each worker gets a socket for each.
fn bind(config: &Config) -> anyhow::Result<(Bound, TcpListener, Sockets)> {
    let workers = config.node.workers;
    let mut sockets: Sockets = (0..workers).map(|_| Vec::new()).collect();
    let mut bind_all = |addrs: &[SocketAddr], tls: Option<&tokio_rustls::TlsAcceptor>| {
        let mut bound = Vec::new();
        for addr in addrs {
            let (addr, listeners) =
                listen::bind(*addr, workers).with_context(|| format!("listening on {addr}"))?;
            bound.push(addr);
            for (worker, socket) in sockets.iter_mut().zip(listeners) {
                worker.push(Listener { socket, tls: tls.cloned() });
            }
        }
        anyhow::Ok(bound)
    };
    let http = bind_all(&config.http.listen, None)?;
    let https = match &config.https {
        Some(https) => bind_all(&https.listen, Some(&acceptor(https).context("https")?))?,
        None => Vec::new(),
    };
    let (admin, mut admin_sockets) = listen::bind(config.admin.listen, 1)
        .with_context(|| format!("listening on {}", config.admin.listen))?;
    let admin_socket = admin_sockets.pop().context("no admin socket")?;
    Ok((Bound { http, https, admin }, admin_socket, sockets))
}

fn announce(bound: &Bound) {
    for addr in &bound.http {
        tracing::info!(%addr, "listening for http");
    }
    for addr in &bound.https {
        tracing::info!(%addr, "listening for https");
    }
    tracing::info!(addr = %bound.admin, "listening for admin");
}

/// Each connection takes a descriptor, and each file on its way another one.
fn raise_open_files(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Refused only if the hard limit changed in between; the check below then tells.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let limit = getrlimit(Resource::Nofile).current;
    let needed = config.http.max_connections as u64 * 2;
    if limit.is_some_and(|limit| limit < needed) {
        tracing::warn!(?limit, needed, "fewer open files are allowed than http.max_connections may need");
    }
    tracing::debug!(started = %clock::now(), ?limit, "open files");
}
