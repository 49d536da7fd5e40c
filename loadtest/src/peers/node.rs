//! freshet as in production: all that it decides, measures and logs.

use super::child::{Running, command, free_address};
use super::mirrors::Mirrors;
use super::server::Server;
use super::site::{OFFLOADED, OWN, Site};
use super::work::Name;
use super::{Credentials, Setup};
use anyhow::{Context, bail, ensure};
use freshet::clock::monotonic;
use serde::Deserialize;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// For all mirrors to be proven.
const PROVEN_WITHIN: Duration = Duration::from_secs(300);
/// A status of all pairs of mirror and repo has some megabytes, which the node makes on the core that it proves mirrors on:
/// between two looks at it are so many times what the first took, within these bounds.
const LOOKS_REST: u32 = 20;
const LOOK: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Countries in which the mirrors are, in turn.
const COUNTRIES: [&str; 8] = ["DE", "US", "FR", "JP", "BR", "IN", "ZA", "AU"];

/// The binary beside this program's own, unless another one is named.
pub fn binary(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("freshet"),
    };
    ensure!(
        path.is_file(),
        "no {}: build it by `cargo build --release -p freshet`, or name one by --freshet",
        path.display()
    );
    Ok(path)
}

/// Starts it, and waits until every mirror is proven for every repo.
pub fn start(
    binary: &Path,
    site: &Site,
    mirrors: Option<&Mirrors>,
    credentials: &Credentials,
    setup: &Setup,
    stop: &AtomicBool,
) -> anyhow::Result<Server> {
    let dir = setup.directory(site, "freshet")?;
    let [plain, tls, admin] = [free_address()?, free_address()?, free_address()?];
    let config = dir.join("freshet.toml");
    let mut text = configuration(site, credentials, setup, &dir, [plain, tls, admin]);
    for (number, url) in mirrors.iter().flat_map(|mirrors| mirrors.urls()).enumerate() {
        mirror(&mut text, number, &url);
    }
    fs::write(&config, text)?;
    let mut serve = command(binary.to_str().context("a path in UTF-8")?);
    serve.args(["serve", "--config"]).arg(&config);
    let mut running = Running::start("freshet", &mut serve, setup.cores, &dir)?;
    running.wait_listening(plain)?;
    running.wait_until("ready", || Ok(get(admin, "/readyz").is_ok_and(|(status, _)| status == 200)))?;
    wait_proven(admin, mirrors.map_or(0, Mirrors::count), stop)?;
    let version = command(binary.to_str().context("a path in UTF-8")?).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).trim().replace("freshet ", "");
    Ok(Server::new(Name::Freshet, version, plain, vec![running])
        .with_tls(tls)
        .with_log(dir.join("access.log")))
}

fn configuration(
    site: &Site,
    credentials: &Credentials,
    setup: &Setup,
    dir: &Path,
    [plain, tls, admin]: [SocketAddr; 3],
) -> String {
    let (tree, workers) = (site.tree(), setup.cores.len());
    // Proofs of mirrors outlive a restart, so that the next node needn't prove them all again.
    let state = if setup.mirrors { site.dir().join("state") } else { dir.join("state") };
    let (dir, state) = (dir.display(), state.display());
    let (probe, live) = (600_000 / setup.hasten, 20_000 / setup.hasten);
    let cadence = format!("mirrors.probe_every = \"{probe}ms\"\nmirrors.liveness_every = \"{live}ms\"");
    let mut text = format!(
        r#"
node.name = "node"
node.self_url = "http://{plain}/"
node.state = "{state}"
node.workers = {workers}
http.listen = ["{plain}"]
http.idle_timeout = "5m"
http.max_connections_per_network = 20000
https.listen = ["{tls}"]
https.certificate = "{}"
https.key = "{}"
admin.listen = "{admin}"
origin.path = "{}"
# So much that no redirect of a served file is due to load.
egress.capacity = "10000 Gbit/s"
# Of some files only: a thousand mirrors are one process here.
mirrors.sample = 2
mirrors.contact = "http://{plain}/"
{cadence}
log.access = "{dir}/access.log"

[[repo]]
name = "own"
path = "{OWN}"
delivery = "window"
"#,
        credentials.certificate.display(),
        credentials.key.display(),
        tree.display(),
    );
    // Clients' networks, among many others.
    for (network, country) in (0..4000).zip(COUNTRIES.iter().cycle()) {
        let addresses = format!("127.{}.{}.0/24", network / 256, network % 256);
        let _ = writeln!(text, "\n[[network]]\naddresses = [\"{addresses}\"]\ncountry = \"{country}\"");
    }
    for repo in 0..site.repos() {
        // The push was long ago: its window is over.
        let _ = write!(
            text,
            "\n[[repo]]\nname = \"{OFFLOADED}-{repo}\"\npath = \"{OFFLOADED}/{repo}\"\nwindow = \"1h\"\n"
        );
    }
    text
}

/// A mirror somewhere; every tenth is nearest to a network of clients.
fn mirror(text: &mut String, number: usize, url: &str) {
    let country = COUNTRIES[number % COUNTRIES.len()];
    let _ = write!(
        text,
        "\n[[mirror]]\nname = \"m{number}\"\nurl = \"{url}\"\ncountry = \"{country}\"\nbandwidth = \"100 Gbit/s\"\n"
    );
    if number.is_multiple_of(10) {
        let _ = writeln!(text, "networks = [\"127.100.{}.0/24\"]", number / 10 % 256);
    }
}

/// What is read of the node's status. All of it, with each pair of mirror and repo, would take longer to read than to make.
#[derive(Deserialize)]
struct Status {
    repos: Vec<Proven>,
}

#[derive(Deserialize)]
struct Proven {
    fresh_mirrors: usize,
}

/// Waits until so many mirrors are proven for each repo.
pub fn wait_proven(admin: SocketAddr, mirrors: usize, stop: &AtomicBool) -> anyhow::Result<()> {
    let begun = monotonic();
    loop {
        let looked = monotonic();
        let (status, body) = get(admin, "/api/v1/status")?;
        let rest = (looked.elapsed() * LOOKS_REST).clamp(LOOK[0], LOOK[1]);
        ensure!(status == 200, "the status answers {status}");
        let repos = serde_json::from_slice::<Status>(&body)?.repos;
        let fewest = repos.iter().map(|repo| repo.fresh_mirrors).min().unwrap_or(0);
        if fewest >= mirrors {
            return Ok(());
        }
        if monotonic() > begun + PROVEN_WITHIN {
            let status: serde_json::Value = serde_json::from_slice(&body)?;
            bail!("only {fewest} of {mirrors} mirrors are proven for some repo: {}", status["mirrors"][0]);
        }
        ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        std::thread::sleep(rest);
    }
}

/// A GET of the admin listener.
pub fn get(addr: SocketAddr, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut socket = TcpStream::connect(addr)?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no head")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    ensure!(!head.contains("transfer-encoding"), "an answer in chunks");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, answer.split_off(end + 4)))
}
