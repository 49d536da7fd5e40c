//! Asking the running node: `freshet explain`, `freshet push` and `freshet purge`, by its admin listener.
//!
//! One request on one connection, with the address and token of the node's own config.

mod push;

use crate::admin::query;
use crate::config::Config;
use crate::server::explain::{Candidate, Explanation};
use anyhow::{Context, Result, bail};
use bytesize::ByteSize;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

pub use crate::admin::query::Typed;
pub use crate::push::Faults;
pub use crate::server::explain::Supposed as Question;
pub use crate::store::Mode;
pub use push::{Wait, push};

/// For the connection, and for each step of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An explanation with a thousand mirrors has some 200 kB.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// What the node would do with a request and why: as lines for people, or as the node's JSON.
///
/// # Errors
/// The node can't be reached, or refuses the question.
pub fn explain(config: &Config, question: &Question, json: bool) -> Result<String> {
    let answer = ask(config, "GET", &format!("/api/v1/explain?{}", query::explain(question)))?;
    if json {
        return Ok(answer);
    }
    let explanation = serde_json::from_str(&answer)
        .context("the node's answer is no explanation: is it of another version?")?;
    Ok(lines(&explanation))
}

/// Purges paths from the node's cache.
///
/// # Errors
/// The node can't be reached, or refuses.
pub fn purge(config: &Config, typed: &Typed, mode: Mode) -> Result<String> {
    let answer = ask(config, "POST", &format!("/api/v1/purge?{}", query::purging(typed, mode)))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("the node's answer is no JSON")?;
    let meant = answer["path"].as_str().map(str::to_owned);
    let meant = meant.or_else(|| Some(format!("{}*", answer["prefix"].as_str()?))).unwrap_or_default();
    if answer["served_in_place"] == true {
        return Ok(format!(
            "{meant}: the tree is served in place; open files let go of: {}\n",
            answer["memory"]
        ));
    }
    let mut text = format!(
        "{meant}: purged; removed {}, to be revalidated {}, verified {}",
        answer["removed"], answer["marked"], answer["verified"]
    );
    if answer["complete"] != true {
        text += " so far; in force already, the disk is being swept";
    }
    if answer["persisted"] != true {
        text += "; not written to disk: a restart before the sweep's end would lose it";
    }
    Ok(text + "\n")
}

/// The node's status, as its admin listener gives it.
///
/// # Errors
/// The node can't be reached.
pub fn status(config: &Config) -> Result<serde_json::Value> {
    serde_json::from_str(&ask(config, "GET", "/api/v1/status")?).context("the node's answer is no JSON")
}

/// The body of the node's answer to one request.
fn ask(config: &Config, method: &str, target: &str) -> Result<String> {
    let addr = reachable(config.admin.listen);
    let token = config.admin.token.as_deref();
    let (status, body) = exchange(addr, token, method, target)
        .with_context(|| format!("asking the node at {addr} (admin.listen): is it running?"))?;
    if !(200..300).contains(&status) {
        let said = serde_json::from_str::<serde_json::Value>(&body).ok();
        let why = said.as_ref().and_then(|said| said["error"].as_str()).unwrap_or(body.trim());
        bail!("the node at {addr} says {status}: {why}");
    }
    Ok(body)
}

/// Where a listener of this host is reached: one of all addresses, by loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let loopback: IpAddr =
        if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    if listen.ip().is_unspecified() { (loopback, listen.port()).into() } else { listen }
}

fn exchange(addr: SocketAddr, token: Option<&str>, method: &str, target: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    if method == "POST" {
        request += "Content-Length: 0\r\n";
    }
    if let Some(token) = token {
        let _ = write!(request, "Authorization: Bearer {token}\r\n");
    }
    request += "\r\n";
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    read(&String::from_utf8(answer).context("the answer is not UTF-8")?)
}

/// Status and body of a whole response, which freshet sends with a Content-Length.
fn read(answer: &str) -> Result<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer broke off, or is no HTTP")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.context("the answer is no HTTP/1.1")?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: Option<usize> = length.and_then(|(_, value)| value.trim().parse().ok());
    if length != Some(body.len()) {
        bail!("the answer is not whole: {} bytes of {length:?}", body.len());
    }
    Ok((status, body.to_owned()))
}

/// The explanation as aligned lines.
#[must_use]
pub fn lines(explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    let e = explanation;
    line("path", format!("/{}", e.path));
    if e.canonical != e.path {
        line("canonical", format!("/{}", e.canonical));
    }
    match (&e.repo, e.generation) {
        (Some(repo), Some(sequence @ 1..)) => line("repo", format!("{repo}, generation {sequence}")),
        (Some(repo), _) => line("repo", format!("{repo}, no generation yet")),
        (None, _) => line("repo", "none".to_owned()),
    }
    line("listed", listed(e));
    if let Some(window) = &e.window {
        line(
            "window",
            match (window.phase.as_str(), &window.closes) {
                ("open", Some(closes)) => format!("open until {closes}"),
                ("extended", Some(due)) => format!("kept open, was due at {due}"),
                (phase, _) => phase.to_owned(),
            },
        );
    }
    line("client", client(e));
    line("cached", if e.cached { "yes" } else { "no" }.to_owned());
    line("egress", format!("pressure {:.2}, shedding {:.0} %", e.egress.pressure, e.egress.shed * 100.0));
    line("decision", format!("{} ({})", e.decision, e.reason));
    line("because", e.because.clone());
    if let Some(location) = &e.location {
        line("location", location.clone());
    }
    if let Some(resort) = &e.last_resort {
        line("else", format!("{resort} if the origin fails"));
    }
    let width = e.mirrors.iter().map(|mirror| mirror.name.chars().count()).max().unwrap_or_default();
    for (at, Candidate { name, rank, chosen, why, .. }) in e.mirrors.iter().enumerate() {
        let verdict = if *chosen { "chosen" } else { why };
        line(if at == 0 { "mirrors" } else { "" }, format!("{rank:>2}. {name:<width$}  {verdict}"));
    }
    text
}

fn listed(e: &Explanation) -> String {
    let Some(listed) = &e.listed else { return "no".to_owned() };
    // A node of an older version gives no `digest`.
    let digest = listed.digest.as_deref().and_then(|digest| digest.split_once(':'));
    let digest = digest.or_else(|| Some(("sha256", listed.sha256.as_deref()?)));
    let digest = digest.and_then(|(algorithm, hex)| Some(format!("{algorithm} {}...", hex.get(..12)?)));
    let digest = digest.unwrap_or_else(|| "no digest".to_owned());
    let size = ByteSize::b(listed.size).display().iec();
    let removed =
        listed.removed_after.map(|last| format!(", removed after generation {last}")).unwrap_or_default();
    format!("{}, {size}, {digest}, since generation {}{removed}", listed.kind, listed.since)
}

fn client(e: &Explanation) -> String {
    let client = &e.client;
    let mut words = vec![client.addr.to_string(), format!("network {}", client.network)];
    words.extend(client.country.or(client.continent).map(|code| code.to_string()));
    words.extend(client.asn.map(|asn| format!("AS{asn}")));
    let facts = [
        (client.https, "https"),
        (client.ranged, "asks for a range"),
        (client.fragile, "not known to recover from a bad redirect"),
    ];
    words.extend(facts.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word.to_owned()));
    words.push(format!("standing {}", client.standing));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::explain::{Asker, ListedFile, Load, WindowPhase};

    #[test]
    fn an_explanation_reads_well() {
        let candidate = |name: &str, rank, chosen, why: &str| Candidate {
            name: name.into(),
            rank,
            fit: why == "fits",
            chosen,
            why: why.into(),
        };
        let explanation = Explanation {
            path: "7/updates/x.rpm".into(),
            canonical: "7.9/updates/x.rpm".into(),
            repo: Some("updates/7".into()),
            generation: Some(4),
            listed: Some(ListedFile {
                size: 3 << 20,
                sha256: Some("0123456789abcdef".into()),
                digest: None,
                kind: "package".into(),
                since: 2,
                removed_after: Some(3),
            }),
            window: Some(WindowPhase { phase: "closed".into(), closes: None }),
            client: Asker {
                addr: "192.0.2.7".parse().unwrap(),
                country: None,
                continent: None,
                asn: None,
                network: "192.0.2.0/24".into(),
                https: true,
                ranged: false,
                fragile: true,
                standing: "clear".into(),
            },
            cached: false,
            egress: Load { pressure: 0.5, shed: 0.25 },
            decision: "redirect".into(),
            reason: "offload".into(),
            because: "no window is open".into(),
            location: Some("https://m/x.rpm".into()),
            last_resort: None,
            mirrors: vec![
                candidate("near", 1, true, "fits"),
                candidate("further", 2, false, "it doesn't answer"),
            ],
        };
        let expected = "\
path       /7/updates/x.rpm
canonical  /7.9/updates/x.rpm
repo       updates/7, generation 4
listed     package, 3.0 MiB, sha256 0123456789ab..., since generation 2, removed after generation 3
window     closed
client     192.0.2.7, network 192.0.2.0/24, https, not known to recover from a bad redirect, standing clear
cached     no
egress     pressure 0.50, shedding 25 %
decision   redirect (offload)
because    no window is open
location   https://m/x.rpm
mirrors     1. near     chosen
            2. further  it doesn't answer
";
        assert_eq!(lines(&explanation), expected);
    }

    #[test]
    fn an_answer_that_is_not_whole_is_none() {
        let whole = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(read(whole).unwrap(), (202, "{}".to_owned()));
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "{:?}", &whole[..cut]);
        }
        assert!(read("SSH-2.0-OpenSSH\r\n\r\n").is_err());
    }

    #[test]
    fn a_listener_of_all_addresses_is_reached_by_loopback() {
        for (listen, addr) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("192.0.2.1:1", "192.0.2.1:1")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), addr.parse().unwrap());
        }
    }
}
