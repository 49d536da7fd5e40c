//! The demo's places: a temporary directory, the origin and the mirrors with their trees, and the node's config.

use super::lines::{Lines, size};
use super::repository::{PackageSpec, Repository};
use super::site::Site;
use crate::clock::{self, Timestamp};
use anyhow::Context;
use socket2::{Domain, Socket, Type};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Where the repo lies in the tree.
pub const REPO_PATH: &str = "9/updates/x86_64";
/// The query of its mirrorlist and metalink.
pub const REPO_QUERY: &str = "release=9&arch=x86_64&repo=updates";
/// The mirrors, in the order of the config.
pub const MIRRORS: [&str; 2] = ["quick", "stale"];
/// The number of the mirror that syncs.
pub const QUICK: usize = 0;
/// The number of the mirror that doesn't.
pub const STALE: usize = 1;
/// How long the node delivers after a push; as the config has it.
const WINDOW: &str = "6s";
/// How old the first state is: its window is over when the demo starts.
const AGE: Duration = Duration::from_secs(3600);
/// Packages that a push changes.
const CHANGED: usize = 3;
/// Makes every run's packages the same.
const SEED: u64 = 1;

/// Names of packages and bytes of their payload. Some go through the node's memory, some from its disk.
const PACKAGES: [(&str, usize); 24] = [
    ("openssl-libs", 1_100_000),
    ("kernel-core", 900_000),
    ("sudo", 60_000),
    ("glibc", 1_000_000),
    ("bash", 500_000),
    ("curl", 40_000),
    ("systemd", 800_000),
    ("openssh-server", 250_000),
    ("tzdata", 200_000),
    ("python3", 600_000),
    ("sqlite-libs", 300_000),
    ("ca-certificates", 30_000),
    ("firefox", 1_200_000),
    ("nss", 350_000),
    ("zlib", 20_000),
    ("bind-utils", 150_000),
    ("httpd", 450_000),
    ("grub2-tools", 380_000),
    ("dnf", 90_000),
    ("libxml2", 280_000),
    ("expat", 25_000),
    ("gnutls", 320_000),
    ("rsync", 110_000),
    ("less", 45_000),
];

/// Who may serve the clients.
#[derive(Clone, Debug)]
pub struct Servers {
    /// The node's base URL; ends in '/'.
    pub node: String,
    /// The mirrors' base URLs, in the order of the config; each ends in '/'.
    pub mirrors: Vec<String>,
}

/// What a push changed.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// Packages.
    pub packages: usize,
}

/// All places of the demo.
pub struct Scene {
    dir: TempDir,
    origin: Site,
    mirrors: Vec<Site>,
    state: Repository,
    before: Option<Repository>,
    releases: [u32; PACKAGES.len()],
    pushes: usize,
    http: Port,
    admin: Port,
}

impl Scene {
    /// Makes the first state of the repo, which all sites have. Within a tokio runtime.
    ///
    /// # Errors
    /// No temporary directory, no free port.
    pub fn set() -> anyhow::Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("freshet-demo-").tempdir().context("a temporary directory")?;
        let releases = [1; PACKAGES.len()];
        let published = Timestamp::from_millis(
            clock::now().as_millis().saturating_sub(u64::try_from(AGE.as_millis()).unwrap_or(0)),
        );
        let root = state_root(dir.path(), 0);
        let state = Repository::create(&root.join(REPO_PATH), &specs(&releases), SEED, published)?;
        let origin = Site::start(&root, any_port())?;
        let mut mirrors = Vec::new();
        for name in MIRRORS {
            let root = dir.path().join(name);
            for file in state.files() {
                state.sync_file(file, &root.join(REPO_PATH))?;
            }
            mirrors.push(Site::start(&root, any_port())?);
        }
        let (http, admin) = (Port::reserve()?, Port::reserve()?);
        Ok(Self { dir, origin, mirrors, state, before: None, releases, pushes: 0, http, admin })
    }

    /// The node has bound its ports.
    pub fn ports_are_taken(&mut self) {
        (self.http.held, self.admin.held) = (None, None);
    }

    /// Writes the node's config; where it is.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_config(&self) -> anyhow::Result<PathBuf> {
        let (http, admin) = (self.http.addr, self.admin.addr);
        let mut text = format!(
            r#"# The node of `freshet demo`. config/freshet.toml explains every key; times are shortened to watch.
[node]
name = "demo"
self_url = "http://{http}/"

[http]
listen = ["{http}"]
drain_timeout = "2s"
max_connections = 1000

[admin]
listen = "{admin}"

[origin]
url = "{origin}"

[cache]
memory = "64 MiB"
disk = "cache"
disk_size = "512 MiB"

[egress]
capacity = "10 Gbit/s"

[[repo]]
name = "updates"
path = "{{release}}/updates/{{arch}}"
releases = ["9"]
arches = ["x86_64"]
delivery = "window"
window = "{WINDOW}"

[push]
poll = "250ms"
keep = "5m"

[mirrors]
probe_every = "500ms"
probe_lagging = "250ms"
liveness_every = "250ms"
"#,
            origin = self.origin.url()
        );
        for (name, site) in MIRRORS.iter().zip(&self.mirrors) {
            let _ =
                write!(text, "\n[[mirror]]\nname = \"{name}\"\nurl = \"{}\"\ncountry = \"US\"\n", site.url());
        }
        text.push_str("\n[log]\naccess = \"access.log\"\n");
        let path = self.config_path();
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Who may serve the clients.
    #[must_use]
    pub fn servers(&self) -> Arc<Servers> {
        let mirrors = self.mirrors.iter().map(Site::url).collect();
        Arc::new(Servers { node: format!("http://{}/", self.http.addr), mirrors })
    }

    /// Changes some packages at the origin, in one step.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn push(&mut self) -> anyhow::Result<Change> {
        for index in 0..CHANGED {
            self.releases[(self.pushes * CHANGED + index) % PACKAGES.len()] += 1;
        }
        self.pushes += 1;
        let root = state_root(self.dir.path(), self.pushes);
        let next = self.state.publish(&root.join(REPO_PATH), &specs(&self.releases), clock::now())?;
        self.origin.switch(&root);
        let at = clock::now();
        self.before = Some(std::mem::replace(&mut self.state, next));
        if let Some(old) = self.pushes.checked_sub(2) {
            fs::remove_dir_all(state_root(self.dir.path(), old))?;
        }
        Ok(Change { at, packages: CHANGED })
    }

    /// The quick mirror copies the metadata, repomd.xml last.
    ///
    /// # Errors
    /// A file can't be linked.
    pub fn sync_metadata(&self) -> anyhow::Result<()> {
        self.sync(|file| file.starts_with("repodata/"))
    }

    /// The quick mirror copies the packages, and deletes what neither this state nor the one before lists.
    ///
    /// # Errors
    /// A file can't be linked or deleted.
    pub fn sync_packages(&self) -> anyhow::Result<()> {
        self.sync(|file| !file.starts_with("repodata/"))?;
        let states = self.before.iter().chain([&self.state]);
        let kept: HashSet<&str> = states.flat_map(Repository::files).map(String::as_str).collect();
        let repo = self.quick();
        for folder in ["Packages", "repodata"] {
            for entry in fs::read_dir(repo.join(folder))? {
                let name = entry?.file_name();
                let file = format!("{folder}/{}", name.to_string_lossy());
                if !kept.contains(file.as_str()) {
                    fs::remove_file(repo.join(file))?;
                }
            }
        }
        Ok(())
    }

    /// Leaves the directory on disk; where it is.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    /// Says what there is before the node starts.
    pub fn describe(&self, lines: &Lines) {
        let bytes: u64 = self.state.files().iter().filter_map(|file| self.length(file)).sum();
        lines.say(
            "origin",
            format_args!("{}  {} packages, {}", self.origin.url(), PACKAGES.len(), size(bytes)),
        );
        for (index, (name, site)) in MIRRORS.iter().zip(&self.mirrors).enumerate() {
            let habit = if index == QUICK { "syncs 3 s after a push" } else { "never syncs" };
            lines.say(&format!("mirror {name}"), format_args!("{}  {habit}", site.url()));
        }
        lines.say("node", format_args!("http://{}/", self.http.addr));
    }

    /// Says what there is to look at.
    pub fn links(&self, lines: &Lines) {
        let (node, admin, dir) = (self.servers().node.clone(), self.admin.addr, self.dir.path().display());
        let (config, first) = (self.config_path(), specs(&self.releases)[0].file_name());
        lines.plain(format_args!(
            "
  look at
    tree        {node}{REPO_PATH}/
    mirrorlist  {node}mirrorlist?{REPO_QUERY}
    metalink    {node}metalink?{REPO_QUERY}
    status      http://{admin}/
    metrics     http://{admin}/metrics
    access log  {dir}/access.log
    config      {config}
    decisions   freshet explain --config {config} --client 127.0.0.1 /{REPO_PATH}/Packages/{first}

  /etc/yum.repos.d/freshet-demo.repo
    [freshet-demo]
    name=freshet demo
    mirrorlist={node}mirrorlist?{REPO_QUERY}
    gpgcheck=0
    metadata_expire=1
",
            config = config.display(),
        ));
    }

    fn sync(&self, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        for file in self.state.files().iter().filter(|file| wanted(file)) {
            self.state.sync_file(file, &self.quick())?;
        }
        Ok(())
    }

    fn quick(&self) -> PathBuf {
        self.dir.path().join(MIRRORS[QUICK]).join(REPO_PATH)
    }

    fn length(&self, file: &str) -> Option<u64> {
        fs::metadata(self.state.dir().join(file)).ok().map(|facts| facts.len())
    }

    fn config_path(&self) -> PathBuf {
        self.dir.path().join("freshet.toml")
    }
}

/// A free port of 127.0.0.1: bound but not listening, so that nobody else gets it before the node (which binds with
/// `SO_REUSEPORT`, too) listens. The config has to name it beforehand, since mirrorlists name it.
struct Port {
    addr: SocketAddr,
    held: Option<Socket>,
}

impl Port {
    fn reserve() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&any_port().into())?;
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { addr, held: Some(socket) })
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// The root of the tree that the origin serves after so many pushes.
fn state_root(dir: &Path, pushes: usize) -> PathBuf {
    dir.join("origin").join(pushes.to_string())
}

fn specs(releases: &[u32; PACKAGES.len()]) -> Vec<PackageSpec> {
    let spec = |((name, payload_bytes), release): (&(&str, usize), &u32)| PackageSpec {
        name: (*name).to_owned(),
        version: "1.0".to_owned(),
        release: release.to_string(),
        payload_bytes: *payload_bytes,
    };
    PACKAGES.iter().zip(releases).map(spec).collect()
}
