//! Varnish with all of the tree in memory, filled from nginx, and varnishncsa writing its access log, which counts as its work.

use super::Setup;
use super::child::{Running, command, free_address};
use super::server::Server;
use super::site::{OFFLOADED, Site};
use super::work::Name;
use anyhow::Context;
use std::fs;
use std::net::SocketAddr;

/// More than all that is asked for.
const STORAGE: &str = "malloc,3G";

/// Starts it before a server that has the tree.
pub fn start(site: &Site, backend: SocketAddr, setup: &Setup) -> anyhow::Result<Server> {
    let dir = setup.directory(site, "varnish")?;
    let plain = free_address()?;
    let vcl = dir.join("default.vcl");
    fs::write(&vcl, configuration(backend))?;
    let instance = dir.join("instance");
    let mut daemon = command("varnishd");
    daemon.args(["-F", "-j", "none", "-n"]).arg(&instance).args(["-a", &plain.to_string(), "-f"]).arg(&vcl);
    daemon.args(["-s", STORAGE, "-p", "timeout_idle=300"]);
    let mut varnishd = Running::start("varnishd", &mut daemon, setup.cores, &dir)?;
    varnishd.wait_listening(plain)?;
    let log = dir.join("access.log");
    let mut logger = command("varnishncsa");
    logger.arg("-n").arg(&instance).arg("-a").arg("-w").arg(&log);
    let mut varnishncsa = Running::start("varnishncsa", &mut logger, setup.cores, &dir)?;
    varnishncsa.wait_until("writing", || Ok(log.exists()))?;
    let version = command("varnishd").arg("-V").output().context("varnishd -V")?;
    let text = [version.stdout, version.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let version = text.split_once("varnish-").and_then(|(_, rest)| rest.split_whitespace().next());
    let version = version.unwrap_or("of unknown version").to_owned();
    // In the order in which they have to end.
    let running = vec![varnishncsa, varnishd];
    Ok(Server::new(Name::Varnish, version, plain, running).with_log(log))
}

fn configuration(backend: SocketAddr) -> String {
    let (host, port) = (backend.ip(), backend.port());
    format!(
        r#"vcl 4.1;
backend default {{ .host = "{host}"; .port = "{port}"; }}
sub vcl_recv {{
    if (req.url ~ "^/{OFFLOADED}/") {{ return (synth(302)); }}
    return (hash);
}}
sub vcl_synth {{
    set resp.http.Location = "http://mirror.example.org/pub/distribution/package.rpm";
    set resp.body = "";
    return (deliver);
}}
sub vcl_backend_response {{
    set beresp.ttl = 1d;
    set beresp.do_stream = false;
}}
"#
    )
}
