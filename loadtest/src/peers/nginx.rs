//! nginx as an operator sets it up for a mirror: sendfile, open_file_cache, an access log, HTTP/2.

use super::child::{Running, command, free_address};
use super::server::Server;
use super::site::{OFFLOADED, Site};
use super::work::Name;
use super::{Credentials, Setup};
use anyhow::Context;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

/// Starts it.
pub fn start(site: &Site, credentials: &Credentials, setup: &Setup) -> anyhow::Result<Server> {
    let dir = setup.directory(site, "nginx")?;
    let (plain, tls) = (free_address()?, free_address()?);
    let config = dir.join("nginx.conf");
    fs::write(&config, configuration(site, credentials, setup, &dir, [plain, tls]))?;
    let mut nginx = command("nginx");
    nginx.arg("-e").arg(dir.join("error.log")).arg("-p").arg(&dir).arg("-c").arg(&config);
    let mut running = Running::start("nginx", &mut nginx, setup.cores, &dir)?;
    running.wait_listening(plain)?;
    let version = command("nginx").arg("-v").output().context("nginx -v")?;
    let version = String::from_utf8_lossy(&version.stderr);
    let version = version.trim().rsplit('/').next().unwrap_or_default().to_owned();
    Ok(Server::new(Name::Nginx, version, plain, vec![running]).with_tls(tls).with_log(dir.join("access.log")))
}

fn configuration(
    site: &Site,
    credentials: &Credentials,
    setup: &Setup,
    dir: &Path,
    [plain, tls]: [SocketAddr; 2],
) -> String {
    let workers = setup.cores.len();
    // As freshet has it: a socket for each worker, so that connections spread evenly.
    let reuseport = if workers > 1 { " reuseport" } else { "" };
    // What an operator adds whose files don't all lie in the page cache.
    let aio = if setup.cold { "aio threads;" } else { "" };
    let tree = site.tree();
    let http = format!(
        "{aio}
    types {{ application/x-rpm rpm; text/xml xml; }}
    default_type application/octet-stream;
    keepalive_timeout 300s;
    open_file_cache_valid 60s;"
    );
    let server = format!(
        "listen {plain}{reuseport};
        listen {tls} ssl http2{reuseport};
        root {};
        location ^~ /{OFFLOADED}/ {{
            return 302 http://mirror.example.org/pub/distribution/package.rpm;
        }}",
        tree.display()
    );
    Frame { dir, certificate: &credentials.certificate, key: &credentials.key, workers }
        .around(&http, &server)
}

/// What each configuration of nginx has here.
pub struct Frame<'a> {
    /// Where its own files lie.
    pub dir: &'a Path,
    /// The certificate's file.
    pub certificate: &'a Path,
    /// Its key's.
    pub key: &'a Path,
    /// Worker processes.
    pub workers: usize,
}

impl Frame<'_> {
    /// The configuration, with these directives in `http` and `server`.
    pub fn around(&self, http: &str, server: &str) -> String {
        let (dir, workers) = (self.dir.display(), self.workers);
        let (certificate, key) = (self.certificate.display(), self.key.display());
        format!(
            r#"
daemon off;
user root;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{ worker_connections 16384; }}
http {{
    access_log {dir}/access.log combined buffer=64k flush=1s;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    open_file_cache max=10000 inactive=300s;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    scgi_temp_path {dir}/scgi;
    uwsgi_temp_path {dir}/uwsgi;
    ssl_protocols TLSv1.3;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    {http}
    server {{
        {server}
    }}
}}
"#
        )
    }
}
