//! What is attacked: the node, or nginx as an operator sets it up for the same.

use super::kinds::Kind;
use super::origin::{Origin, REPO};
use super::party::Scene;
use crate::cpu::{Memory, Used, family};
use crate::node::Node;
use crate::peers::child::{self, Running, command, free_address};
use crate::peers::nginx::Frame;
use anyhow::Context;
use freshet::clock::monotonic;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Seats, so few that an attack from ten networks can take all.
const FEW_SEATS: [usize; 2] = [500, 50];
/// And so many that other attacks never wait for one.
const MANY_SEATS: [usize; 2] = [10_000, 2000];
/// The ceiling of connections' memory; far below the default, so that attacks come to it.
pub const HTTP_MEMORY: u64 = 64 << 20;
const LOOK: Duration = Duration::from_millis(10);

/// A server that is attacked. It ends when this is dropped.
pub struct Subject {
    plain: SocketAddr,
    tls: SocketAddr,
    server: Server,
}

enum Server {
    Freshet(Node),
    Nginx(Running),
}

impl Subject {
    /// Starts a node for this attack.
    pub fn freshet(
        binary: &Path,
        dir: &Path,
        kind: &Kind,
        scene: &Scene,
        served: Served<'_>,
        stop: &AtomicBool,
    ) -> anyhow::Result<Self> {
        let tls = free_address()?;
        let [seats, of_network] = if kind.is_for_seats { FEW_SEATS } else { MANY_SEATS };
        let (certificate, key) = (scene.certificate.display(), scene.key.display());
        let more = format!(
            r#"
http.max_connections = {seats}
http.max_connections_per_network = {of_network}
http.memory = "{} MiB"
https.listen = ["{tls}"]
https.certificate = "{certificate}"
https.key = "{key}"
egress.capacity = "{}"
{}
"#,
            HTTP_MEMORY >> 20,
            kind.capacity,
            served.of_node(dir)
        );
        let node = Node::start(binary, &served.origin(), dir, &more, 0, stop)?;
        Ok(Self { plain: node.address(), tls, server: Server::Freshet(node) })
    }

    /// Starts nginx for the same.
    pub fn nginx(dir: &Path, scene: &Scene, served: Served<'_>) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let (plain, tls) = (free_address()?, free_address()?);
        let config = dir.join("nginx.conf");
        fs::write(&config, nginx(dir, scene, [plain, tls], served))?;
        let mut nginx = command("nginx");
        nginx.arg("-e").arg(dir.join("error.log")).arg("-p").arg(dir).arg("-c").arg(&config);
        let mut running = Running::start("nginx", &mut nginx, child::ONE, dir)?;
        running.wait_listening(plain)?;
        Ok(Self { plain, tls, server: Server::Nginx(running) })
    }

    pub fn name(&self) -> &'static str {
        match self.server {
            Server::Freshet(_) => "freshet",
            Server::Nginx(_) => "nginx",
        }
    }

    /// Where it listens, in the clear and for TLS.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        [self.plain, self.tls]
    }

    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        match &self.server {
            Server::Freshet(node) => Ok(vec![node.pid()]),
            Server::Nginx(running) => family(running.pid()),
        }
    }

    /// CPU time that it has used.
    pub fn used(&self) -> anyhow::Result<Used> {
        Used::by(&self.pids()?)
    }

    /// What it holds of memory, in bytes. Its peak counts from here.
    pub fn rests(&self) -> anyhow::Result<u64> {
        let pids = self.pids()?;
        pids.iter().for_each(|pid| Memory::forget_peak(*pid));
        Ok(Memory::of(&pids)?.rss)
    }

    /// The most that it has held since, in bytes.
    pub fn peak(&self) -> anyhow::Result<u64> {
        Memory::peak(&self.pids()?)
    }

    /// How long a push takes until the node offers it, or `longest`. None of nginx, which knows none.
    pub fn push(&self, origin: &Origin, longest: Duration) -> anyhow::Result<Option<Duration>> {
        let Server::Freshet(node) = &self.server else { return Ok(None) };
        let before = generation(node)?;
        origin.push()?;
        let begun = monotonic();
        while generation(node)? <= before {
            if begun.elapsed() > longest {
                return Ok(Some(longest));
            }
            std::thread::sleep(LOOK);
        }
        Ok(Some(begun.elapsed()))
    }
}

/// Where the files are: here, or at an origin.
#[derive(Clone, Copy)]
pub enum Served<'a> {
    Tree(&'a Origin),
    Fetched(&'a Origin),
}

impl Served<'_> {
    /// Lines of a node's config.
    fn origin(&self) -> String {
        match self {
            Self::Tree(origin) => Node::in_place(origin.tree()),
            Self::Fetched(origin) => format!("origin.url = \"http://{}/\"", origin.address()),
        }
    }

    fn of_node(&self, dir: &Path) -> String {
        let cache = match self {
            Self::Tree(_) => String::new(),
            Self::Fetched(_) => {
                let dir = dir.display();
                format!(
                    "cache.disk = \"{dir}/cache\"\ncache.disk_size = \"4 GiB\"\ncache.memory = \"32 MiB\""
                )
            }
        };
        format!(
            r#"
{cache}
push.poll = "200ms"

[[repo]]
name = "repo"
path = "{REPO}"
delivery = "own"
"#
        )
    }

    fn of_nginx(&self, dir: &Path) -> [String; 2] {
        match self {
            Self::Tree(origin) => [String::new(), format!("root {};", origin.tree().display())],
            Self::Fetched(origin) => [
                format!(
                    "proxy_cache_path {}/cache levels=1:2 keys_zone=files:10m max_size=4g;
    upstream origin {{ server {}; keepalive 64; }}",
                    dir.display(),
                    origin.address()
                ),
                "location / {
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_cache files;
            proxy_cache_valid 200 60s;
            proxy_cache_lock on;
        }"
                .to_owned(),
            ],
        }
    }
}

fn nginx(dir: &Path, scene: &Scene, [plain, tls]: [SocketAddr; 2], served: Served<'_>) -> String {
    let [http, server] = served.of_nginx(dir);
    let server = format!("listen {plain};\n        listen {tls} ssl http2;\n        {server}");
    Frame { dir, certificate: &scene.certificate, key: &scene.key, workers: 1 }.around(&http, &server)
}

/// The sequence of its first repo's generation.
fn generation(node: &Node) -> anyhow::Result<u64> {
    let status = node.status()?;
    let sequence = &status["repos"][0]["generation"]["sequence"];
    sequence.as_u64().with_context(|| format!("no generation: {sequence}"))
}
