//! `[http]`, `[https]` and `[admin]`: where the node listens.

use super::read::Table;
use super::{Admin, Http, Https, kinds};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// A token that is shorter than this, in characters, can be guessed.
const SHORT_TOKEN: usize = 16;
/// Bits of a file's mode by which users besides its owner and group can read the token, or others than the owner replace it.
const OPEN_MODE: u32 = 0o027;

/// Two thousand hosts behind one address that open 3 connections each in the same second aren't slowed down (8 s at once), and a
/// network that floods takes 4 % to 10 % of a core.
const HANDSHAKES_PER_NETWORK: usize = 500;

/// Reads the three, and finds addresses that two of them claim.
pub(super) fn read(root: &mut Table<'_>) -> (Http, Option<Https>, Admin) {
    let with_https = root.given("https");
    let default_listen = if with_https && !root.given("http") { Vec::new() } else { everywhere(80) };
    let http = root.section("http", |t| {
        let http = http(t, default_listen);
        if http.listen.is_empty() && !with_https && t.place("listen").value.as_deref() == Some("[]") {
            t.mistake("listen", "expected at least one address, since there is no [https]");
        }
        claimed_once(t, "listen", &http.listen, &[]);
        http
    });
    let https = with_https.then(|| {
        root.section("https", |t| {
            let https = https(t);
            claimed_once(t, "listen", &https.listen, &http.listen);
            https
        })
    });
    let mut data = http.listen.clone();
    data.extend(https.iter().flat_map(|https| &https.listen));
    let admin = root.section("admin", |t| {
        let admin = admin(t);
        claimed_once(t, "listen", &[admin.listen], &data);
        admin
    });
    (http, https, admin)
}

fn everywhere(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
}

/// Reports the addresses that are in `mine` twice, or also in `theirs`. Port 0 is any free port, so never the same.
fn claimed_once(t: &Table<'_>, key: &'static str, mine: &[SocketAddr], theirs: &[SocketAddr]) {
    for (at, address) in mine.iter().enumerate().filter(|(_, address)| address.port() != 0) {
        if theirs.contains(address) || mine[..at].contains(address) {
            t.mistake(key, &format!("expected an address that nothing else listens on, not {address} again"));
        }
    }
}

fn http(t: &mut Table<'_>, default_listen: Vec<SocketAddr>) -> Http {
    let default = Http::default();
    let http = Http {
        listen: t.list("listen", &kinds::address()).unwrap_or(default_listen),
        head_timeout: t.or("head_timeout", &kinds::duration("100ms", "10m"), default.head_timeout),
        idle_timeout: t.or("idle_timeout", &kinds::duration("100ms", "1h"), default.idle_timeout),
        write_timeout: t.or("write_timeout", &kinds::duration("100ms", "1h"), default.write_timeout),
        drain_timeout: t.or("drain_timeout", &kinds::duration("0s", "1h"), default.drain_timeout),
        max_connections: t.or("max_connections", &kinds::count(1, 1_000_000), default.max_connections),
        max_connections_per_network: t.or(
            "max_connections_per_network",
            &kinds::count(1, 1_000_000),
            default.max_connections_per_network,
        ),
        memory: t.or("memory", &kinds::size("16 MiB", "1 TiB"), default.memory),
        trusted_proxies: t.list("trusted_proxies", &kinds::network()).unwrap_or_default(),
        proxy_protocol: t.or("proxy_protocol", &kinds::truth(), default.proxy_protocol),
    };
    if http.proxy_protocol && http.trusted_proxies.is_empty() {
        t.mistake(
            "proxy_protocol",
            "expected the networks that such connections come from in http.trusted_proxies",
        );
    }
    http
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: everywhere(80),
            head_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            max_connections: 20_000,
            max_connections_per_network: 2000,
            memory: 1 << 30,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
        }
    }
}

fn https(t: &mut Table<'_>) -> Https {
    let folder = kinds::file(t.source.folder());
    let listen = t.list("listen", &kinds::address()).unwrap_or_else(|| everywhere(443));
    if listen.is_empty() && t.place("listen").value.as_deref() == Some("[]") {
        t.mistake("listen", "expected at least one address");
    }
    let certificate = t.required("certificate", &folder).unwrap_or_default();
    let key = t.required("key", &folder).unwrap_or_default();
    readable(t, "certificate", &certificate);
    readable(t, "key", &key);
    let handshakes_per_network =
        t.or("handshakes_per_network", &kinds::count(1, 1_000_000), HANDSHAKES_PER_NETWORK);
    Https { listen, certificate, key, handshakes_per_network }
}

/// Reports `path` if it was given and can't be opened.
pub(super) fn readable(t: &Table<'_>, key: &'static str, path: &Path) {
    if path.as_os_str().is_empty() {
        return; // reported already
    }
    t.report.source(path);
    let opened = path.metadata().and_then(|found| {
        if found.is_file() {
            std::fs::File::open(path).map(drop)
        } else {
            Err(std::io::Error::other("not a file"))
        }
    });
    if let Err(error) = opened {
        t.mistake(key, &format!("expected a file that can be read, but {}: {error}", path.display()));
    }
}

fn admin(t: &mut Table<'_>) -> Admin {
    let listen = t.or("listen", &kinds::address(), Admin::default().listen);
    let file = t.optional("token_file", &kinds::file(t.source.folder()));
    let token = file.and_then(|path| token(t, &path));
    if !listen.ip().is_loopback() && !t.given("token_file") {
        t.mistake("listen", "expected a loopback address such as \"127.0.0.1:9180\", or admin.token_file");
    }
    Admin { listen, token, hosts: t.list("hosts", &kinds::host()).unwrap_or_default() }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 9180).into(), token: None, hosts: Vec::new() }
    }
}

/// The token in the file at `path`; None, and reported, if there is none.
fn token(t: &Table<'_>, path: &Path) -> Option<String> {
    let key = "token_file";
    t.report.source(path);
    let text = match super::load::text_of(path) {
        Ok(text) => text,
        Err(error) => {
            t.mistake(key, &format!("expected a file that can be read, but {}: {error}", path.display()));
            return None;
        }
    };
    let token = text.trim();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        t.mistake(key, "expected a file with one word of visible ASCII characters in it");
        return None;
    }
    let mode = match path.metadata() {
        Ok(found) => found.permissions().mode() & 0o7777,
        Err(error) => {
            t.mistake(
                key,
                &format!("expected a file whose mode can be read, but {}: {error}", path.display()),
            );
            return None;
        }
    };
    if mode & OPEN_MODE != 0 {
        t.mistake(
            key,
            &format!(
                "expected a file that its owner alone can write, and users outside of its group can't read, but {} has mode {mode:04o}; chmod 600",
                path.display()
            ),
        );
    }
    if token.len() < SHORT_TOKEN {
        t.mistake(
            key,
            &format!(
                "expected a token of at least {SHORT_TOKEN} characters, but the one in {} (mode {mode:04o}) has {} and can be guessed",
                path.display(),
                token.len()
            ),
        );
    }
    Some(token.to_owned())
}
