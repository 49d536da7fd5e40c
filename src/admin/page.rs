//! The status page for people: the status value as one HTML document, without scripts and without anything from elsewhere.

use super::status::{Egress, Holding, Mirror, Origin, Repo, Status, Window};
use crate::geo::Code;
use crate::listing::escape;
use bytesize::ByteSize;
use std::fmt::Write as _;
use std::time::Duration;

/// Seconds after which a browser asks again.
const REFRESH: u32 = 10;
/// Repos of one mirror that are told one by one.
const TOLD: usize = 20;

/// From so many seconds on it is told that the clocks here and at the origin differ.
const CLOCKS_DIFFER: f64 = 60.0;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;margin:1.5rem auto;padding:0 1rem;max-width:80rem}\
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}\
caption{text-align:left;font-weight:600;font-size:1.2rem}\
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8886}\
dt{font-weight:600;float:left;clear:left;width:9rem}dd{margin-left:9.5rem}\
ul{margin:0;padding-left:1.2rem}\
.good{color:light-dark(#065f2c,#7bd88f)}.bad{color:light-dark(#a3150f,#ff9a92);font-weight:600}\
.scroll{overflow-x:auto}";

/// The page.
pub(super) fn render(status: &Status) -> String {
    let node = escape(&status.node);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n\
         <title>{node}: freshet</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{node}</h1>\n"
    );
    summary(&mut html, status);
    repos(&mut html, &status.repos, status.mirrors.len());
    mirrors(&mut html, &status.mirrors);
    let _ = write!(
        html,
        "</main>\n<footer><p>freshet {}, as of {}. The same as <a href=\"/api/v1/status\">JSON</a> and as \
         <a href=\"/metrics\">metrics</a>.</p></footer>\n</body>\n</html>\n",
        status.version,
        time(&status.now)
    );
    html
}

fn summary(html: &mut String, status: &Status) {
    let state = match &status.not_ready {
        None => "<span class=\"good\">Ready</span>: it takes traffic.".to_owned(),
        Some(why) => format!("<span class=\"bad\">Not ready</span>: {}.", escape(why)),
    };
    let gauge = |name| status.cache.gauges.get(name).copied().unwrap_or_default();
    let event = |name| status.cache.events.get(name).copied().unwrap_or_default();
    let cache = format!(
        "{} objects, {} on disk, {} in memory; {} fetches of {} failed",
        gauge("objects"),
        size(gauge("disk_bytes")),
        size(gauge("memory_bytes")),
        event("fills_failed"),
        event("fills_started"),
    );
    let connections = format!("{} http, {} https", status.connections.http, status.connections.https);
    let rows = [
        ("State", state),
        ("Running since", time(&status.started)),
        ("Origin", origin(&status.origin)),
        ("Egress", egress(&status.egress)),
        ("Cache", cache),
        ("Connections", connections),
        ("Bounces", format!("{} clients came back from a mirror that failed them", status.bounces)),
    ];
    html.push_str("<dl>\n");
    for (term, description) in rows {
        let _ = writeln!(html, "<dt>{term}</dt><dd>{description}</dd>");
    }
    html.push_str("</dl>\n");
}

fn origin(origin: &Origin) -> String {
    let url = escape(&origin.url);
    let skew = origin.clock_skew_seconds.filter(|skew| skew.abs() >= CLOCKS_DIFFER).map(|skew| {
        let side = if skew > 0.0 { "ahead of" } else { "behind" };
        format!("; <span class=\"bad\">this host's clock is {:.0} s {side} the origin's</span>", skew.abs())
    });
    let state = match (origin.state, &origin.since) {
        ("down", Some(since)) => {
            let why = escape(origin.reason.as_deref().unwrap_or_default());
            format!("{url} is <span class=\"bad\">down</span> since {}: {why}", time(since))
        }
        ("up", Some(since)) => format!("{url} is up again since {}", time(since)),
        _ => url,
    };
    state + &skew.unwrap_or_default()
}

fn egress(egress: &Egress) -> String {
    let now = rate(egress.bits_per_second);
    let against = match egress.capacity {
        Some(capacity) => format!("{now} of {} ({:.0} %)", rate(capacity), egress.pressure * 100.0),
        None => format!("{now}, without a bound"),
    };
    let shed = if egress.shed > 0.0 {
        format!("<span class=\"bad\">shedding {:.0} % of what mirrors can take</span>", egress.shed * 100.0)
    } else {
        "shedding nothing".to_owned()
    };
    format!("{against}; {shed}; {} sent since the start", size(egress.sent_bytes))
}

fn repos(html: &mut String, repos: &[Repo], mirrors: usize) {
    if repos.is_empty() {
        html.push_str("<p>No repos: the tree is served as it is.</p>\n");
        return;
    }
    open_table(html, "Repos", &["Repo", "Generation", "Window", "Fresh mirrors", "Push"]);
    for repo in repos {
        let generation = repo.generation.as_ref().map_or_else(
            || "<span class=\"bad\">none yet</span>".to_owned(),
            |generation| {
                let digests = if generation.weak {
                    format!("<br><span class=\"bad\">weak digests ({})</span>", generation.digests.join(", "))
                } else {
                    String::new()
                };
                format!(
                    "{}, offered since {}<br>{} files, {}; new {} files, {}{digests}",
                    generation.sequence,
                    time(&generation.flipped),
                    generation.files,
                    size(generation.bytes),
                    generation.new_files,
                    size(generation.new_bytes),
                )
            },
        );
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}</th><td>{generation}</td><td>{}</td><td>{} of {mirrors}</td><td>{}</td></tr>",
            escape(&repo.id),
            window(repo.delivery, &repo.window),
            repo.fresh_mirrors,
            push(repo) + &faults(repo),
        );
    }
    close_table(html);
}

fn window(delivery: &str, window: &Window) -> String {
    let closes = window.closes.as_deref().map(time).unwrap_or_default();
    match (delivery, window.phase) {
        ("own", _) => "none: the nodes alone deliver it".to_owned(),
        ("offload", _) => "none: mirrors deliver it as far as they are fresh".to_owned(),
        (_, "open") => format!("open for another {}, until {closes}", countdown(window.seconds_left)),
        (_, "extended") => {
            format!(
                "<span class=\"bad\">kept open</span>: it was due at {closes}, but too few mirrors are fresh"
            )
        }
        _ => "closed: fresh mirrors deliver it".to_owned(),
    }
}

fn push(repo: &Repo) -> String {
    let push = &repo.push;
    let progress = push.warmed_files.zip(push.warming_files).or(push.checked_files.zip(push.checking_files));
    let mut text = match progress {
        Some((done, all)) => format!("{}, {done} of {all} files", push.step),
        None => push.step.to_owned(),
    };
    match &push.last_poll {
        Some(at) => text += &format!("; origin seen {}", time(at)),
        None => text += "; origin not seen yet",
    }
    if let Some(why) = &push.unretained_why {
        let files = push.unretained_files;
        text += &format!(
            "<br><span class=\"bad\">{files} files are not kept</span> once a push removes them: {}",
            escape(why)
        );
    }
    if let Some(why) = repo.not_current.as_ref().filter(|_| repo.held.is_none()) {
        text += &format!("<br><span class=\"bad\">not current</span>: {}", escape(why));
    }
    let is_told = repo.held.is_some() || repo.not_current.is_some();
    if let Some(error) = push.last_error.as_ref().filter(|_| !is_told) {
        text += &format!("<br><span class=\"bad\">{}</span>", escape(error));
    }
    text
}

/// What is wrong with a repo's files at the origin.
fn faults(repo: &Repo) -> String {
    let mut text = String::new();
    if let Some(held) = &repo.held {
        let _ = write!(
            text,
            "<br><span class=\"bad\">Push held</span> since {}: {}: {}; wrong files: {}",
            time(&held.since),
            escape(&held.file),
            escape(&held.fault),
            held.files
        );
    }
    for (file, fault) in repo.faults.iter().take(TOLD) {
        let (file, fault) = (escape(file), escape(fault));
        let _ = write!(text, "<br><span class=\"bad\">Wrong at the origin</span>: {file}: {fault}");
    }
    for word in repo.push.without.iter().take(TOLD) {
        let _ = write!(text, "<br>Offered without {}", escape(word));
    }
    text
}

fn mirrors(html: &mut String, mirrors: &[Mirror]) {
    if mirrors.is_empty() {
        html.push_str("<p>No mirrors: the node serves everything itself.</p>\n");
        return;
    }
    open_table(html, "Mirrors", &["Mirror", "Country", "State", "Repos", "Redirects"]);
    for mirror in mirrors {
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\"><a href=\"{}\">{}</a></th><td>{}</td><td>{}</td><td>{}</td><td>{}; ahead: {} of {}</td></tr>",
            escape(&mirror.url),
            escape(&mirror.name),
            mirror.country.as_ref().map_or("unknown", Code::as_str),
            reach(mirror),
            holdings(&mirror.repos),
            mirror.redirects,
            size(mirror.ahead_bytes),
            size(mirror.ahead_limit_bytes),
        );
    }
    close_table(html);
}

fn reach(mirror: &Mirror) -> String {
    let at = |moment: &Option<String>| moment.as_deref().map(time).unwrap_or_default();
    match mirror.state {
        "up" => {
            let disputed = mirror.disputed_until.as_ref();
            let disputed = disputed.map(|until| format!("; no large files until {}", time(until)));
            let seen = at(&mirror.seen);
            format!("<span class=\"good\">up</span>, seen {seen}{}", disputed.unwrap_or_default())
        }
        "down" => {
            let why = escape(mirror.why.as_deref().unwrap_or_default());
            format!("<span class=\"bad\">down</span> since {}: {why}", at(&mirror.since))
        }
        _ => "not asked yet".to_owned(),
    }
}

fn holdings(repos: &[Holding]) -> String {
    let fresh = repos.iter().filter(|repo| repo.fresh).count();
    let mut html = format!("{fresh} of {} fresh", repos.len());
    let lacks = |repo: &&Holding| !repo.fresh || repo.exceptions.is_some();
    let behind: Vec<_> = repos.iter().filter(lacks).collect();
    if behind.is_empty() {
        return html;
    }
    html.push_str("<ul>");
    for repo in behind.iter().take(TOLD) {
        let proven = repo
            .proven_sequence
            .map_or_else(|| "nothing".to_owned(), |sequence| format!("generation {sequence}"));
        let note = if repo.note.is_empty() { String::new() } else { format!("; {}", escape(&repo.note)) };
        let _ = write!(html, "<li>{}: proven {proven}{note}</li>", escape(&repo.id));
    }
    if let more @ 1.. = behind.len().saturating_sub(TOLD) {
        let _ = write!(html, "<li>and {more} more</li>");
    }
    html.push_str("</ul>");
    html
}

fn open_table(html: &mut String, caption: &str, columns: &[&str]) {
    let _ = write!(html, "<div class=\"scroll\"><table>\n<caption>{caption}</caption>\n<thead><tr>");
    for column in columns {
        let _ = write!(html, "<th scope=\"col\">{column}</th>");
    }
    html.push_str("</tr></thead>\n<tbody>\n");
}

fn close_table(html: &mut String) {
    html.push_str("</tbody>\n</table></div>\n");
}

/// RFC 3339 with milliseconds, cut to seconds.
fn time(text: &str) -> String {
    let shown =
        text.get(..19).map_or_else(|| text.to_owned(), |text| format!("{} UTC", text.replace('T', " ")));
    format!("<time datetime=\"{}\">{}</time>", escape(text), escape(&shown))
}

fn countdown(seconds: u64) -> String {
    // From an hour on, seconds only flicker.
    let seconds = if seconds >= 3600 { seconds / 60 * 60 } else { seconds };
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

fn rate(bits_per_second: u64) -> String {
    const UNITS: [(&str, f64); 4] = [("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3), ("bit/s", 1.0)];
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bits = bits_per_second as f64;
    let (unit, factor) = UNITS.into_iter().find(|(_, factor)| bits >= *factor).unwrap_or(("bit/s", 1.0));
    let decimals = usize::from(factor > 1.0);
    format!("{:.decimals$} {unit}", bits / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        for (bits, text) in
            [(0, "0 bit/s"), (999, "999 bit/s"), (1_500, "1.5 kbit/s"), (20_000_000_000, "20.0 Gbit/s")]
        {
            assert_eq!(rate(bits), text);
        }
        assert_eq!(countdown(59), "59s");
        assert_eq!(countdown(86_399), "23h 59m");
        assert_eq!(
            time("2026-01-02T03:04:05.678Z"),
            "<time datetime=\"2026-01-02T03:04:05.678Z\">2026-01-02 03:04:05 UTC</time>"
        );
        assert_eq!(escape("<a href='x'>&\"\n"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
    }
}
