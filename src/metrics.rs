//! Every metric: name, help, unit and labels, declared once.
//!
//! Labels come only from enums and configured names, never from requests. Handles that the request path uses are resolved
//! here once. Gauges that mirror a snapshot (windows, mirrors, cache) are set when they are scraped, by `admin`.

use crate::policy::Reason;
use prometheus::core::Collector;
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// What became of a request, as the `decision` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node sent the bytes.
    Serve,
    /// A mirror was named.
    Redirect,
    /// Anything else: not modified, listings, errors.
    Answer,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Serve, Self::Redirect, Self::Answer];

    /// The label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Redirect => "redirect",
            Self::Answer => "answer",
        }
    }
}

/// The way that body bytes took to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// From memory.
    Memory,
    /// By sendfile(2), from page cache to socket.
    Sendfile,
    /// Read from a file into a buffer (TLS, HTTP/2).
    Copy,
    /// Straight from the origin, uncached.
    Pass,
}

impl Path {
    const ALL: [Self; 4] = [Self::Memory, Self::Sendfile, Self::Copy, Self::Pass];

    const fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sendfile => "sendfile",
            Self::Copy => "copy",
            Self::Pass => "pass",
        }
    }
}

/// Status codes that freshet sends; any other counts as `other`.
const CODES: [u16; 14] = [200, 206, 301, 302, 304, 400, 403, 404, 405, 412, 416, 500, 502, 503];

/// All metrics of one node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Vec<IntCounter>,
    responses: Vec<IntCounter>,
    body_bytes: Vec<IntCounter>,
    /// Bytes written to client sockets, heads and TLS included.
    pub egress_bytes: IntCounter,
    /// The same with the heads of TCP, IP and Ethernet.
    pub egress_wire_bytes: IntCounter,
    /// Transfers that wait for their turn.
    pub egress_waiting: IntGauge,
    /// Bytes sent beyond the capacity.
    pub egress_yielded_bytes: IntCounter,
    /// Responses whose body broke off before its end.
    pub responses_cut: IntCounter,
    /// From the request's head to the last byte of the response.
    pub request_seconds: Histogram,
    /// Open client connections by listener.
    pub connections: IntGaugeVec,
    /// Connections that wait since too many of their network are open.
    pub connections_waiting: IntGauge,
    /// Connections that were refused since too many wait.
    pub connections_refused: IntCounter,
    /// What connections hold of memory; set when it is scraped.
    pub connections_memory: IntGauge,
    /// Connections that were ended since they held memory and were slow.
    pub connections_ended_for_memory: IntCounter,
    /// Flights of TLS handshakes that wait.
    pub handshakes_waiting: IntGauge,
    /// Flights of TLS handshakes that had to wait since their network was beyond its rate.
    pub handshakes_delayed: IntCounter,
    /// HTTP/2 connections that were ended since their clients sent too many frames that ask for nothing.
    pub http2_floods: IntCounter,
    /// Egress over capacity.
    pub pressure: prometheus::Gauge,
    /// What [`Metrics::pressure`] is measured against.
    pub capacity: IntGauge,
    /// Share of redirectable requests being shed.
    pub shed_share: prometheus::Gauge,
    /// Access-log lines that were dropped because the disk or pipe was too slow.
    pub log_dropped: IntCounter,
    /// Clients that came back from a mirror, by mirror.
    pub bounces: IntCounterVec,
    /// Installations that had themselves counted, by repo and age.
    pub countme: IntCounterVec,
    /// Redirects by mirror.
    pub mirror_redirects: IntCounterVec,
    /// Bytes of the files that clients were redirected for, by mirror.
    pub mirror_redirected_bytes: IntCounterVec,
    /// Probes by mirror and outcome.
    pub probes: IntCounterVec,
    /// Mirror answers (1) or not (0).
    pub mirror_up: IntGaugeVec,
    /// How long a repomd.xml takes from a mirror.
    pub mirror_latency: GaugeVec,
    /// How fast a mebibyte came from a mirror.
    pub mirror_throughput: GaugeVec,
    /// Mirror is proven to hold the current generation.
    pub mirror_fresh: IntGaugeVec,
    /// Files that a mirror lacks of what it is proven for.
    pub mirror_exceptions: IntGaugeVec,
    /// Steps of pushes: counted by repo and outcome.
    pub pushes: IntCounterVec,
    /// A push of the repo is held, since a file of it is wrong at the origin.
    pub push_held: IntGaugeVec,
    /// Time stamps of the newest push's steps.
    pub push_step: GaugeVec,
    /// Sequence of the current generation.
    pub generation: IntGaugeVec,
    /// By repo: files that would be lost to clients at once if the next push removed them from a local tree.
    pub unretained: IntGaugeVec,
    /// By repo: 1 while what is on offer is the origin's newest state.
    pub repo_current: IntGaugeVec,
    /// When the origin last answered for the repo.
    pub repo_confirmed: GaugeVec,
    /// Window phase: 0 closed, 1 open, 2 extended.
    pub window_phase: IntGaugeVec,
    /// When the window ends.
    pub window_closes: GaugeVec,
    /// Gauges of the store, by name.
    pub store: IntGaugeVec,
    /// Events of the store since the start, by name.
    pub store_events: IntCounterVec,
    /// 1 while the origin is asked, 0 while it is only probed.
    pub origin_up: IntGauge,
    /// Set when it is scraped.
    pub origin_clock_skew: prometheus::Gauge,
    /// Requests to the origin by what became of them.
    pub origin_requests: IntCounterVec,
    /// 1 while the node takes traffic.
    pub ready: IntGauge,
    /// Configurations read again, by outcome.
    pub config_reloads: IntCounterVec,
}

impl Metrics {
    /// A registry with all of them.
    #[must_use]
    pub fn new() -> Self {
        let r = Registry::new();
        let requests = counters(
            &r,
            "freshet_requests_total",
            "Requests by what became of them and why.",
            &["decision", "reason"],
        );
        let responses = counters(&r, "freshet_responses_total", "Responses by status code.", &["code"]);
        let body = counters(
            &r,
            "freshet_response_body_bytes_total",
            "Body bytes sent, by the way they took.",
            &["path"],
        );
        let build = gauges(&r, "freshet_build_info", "Always 1; the version is a label.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            requests: Outcome::ALL
                .iter()
                .flat_map(|outcome| Reason::ALL.iter().map(move |reason| (outcome.word(), reason.word())))
                .map(|(outcome, reason)| requests.with_label_values(&[outcome, reason]))
                .collect(),
            responses: CODES
                .iter()
                .map(u16::to_string)
                .chain(["other".to_owned()])
                .map(|code| responses.with_label_values(&[&code]))
                .collect(),
            body_bytes: Path::ALL.iter().map(|path| body.with_label_values(&[path.word()])).collect(),
            egress_bytes: counter(
                &r,
                "freshet_egress_bytes_total",
                "Bytes written to client sockets, heads and TLS included.",
            ),
            egress_wire_bytes: counter(
                &r,
                "freshet_egress_wire_bytes_total",
                "Bytes written to client sockets, with the heads of TCP, IP and Ethernet.",
            ),
            egress_waiting: gauge(
                &r,
                "freshet_egress_waiting_transfers",
                "Transfers that wait for their turn, since the capacity is used up.",
            ),
            egress_yielded_bytes: counter(
                &r,
                "freshet_egress_yielded_bytes_total",
                "Bytes sent beyond the capacity, since clients would have fallen under 32 kB/s, or transfers under 1.1 kB/s.",
            ),
            responses_cut: counter(
                &r,
                "freshet_responses_cut_total",
                "Responses whose body broke off before its end.",
            ),
            connections_waiting: gauge(
                &r,
                "freshet_connections_waiting",
                "Connections that wait for a seat, since too many of their network are open.",
            ),
            connections_refused: counter(
                &r,
                "freshet_connections_refused_total",
                "Connections refused since too many wait already.",
            ),
            connections_memory: gauge(
                &r,
                "freshet_connections_memory_bytes",
                "Memory that connections hold for clients: buffers of TLS and HTTP/2, bodies in memory, heads of requests. Its ceiling is http.memory.",
            ),
            connections_ended_for_memory: counter(
                &r,
                "freshet_connections_ended_for_memory_total",
                "Connections ended since http.memory was nearly used up and they were the slowest.",
            ),
            handshakes_waiting: gauge(
                &r,
                "freshet_tls_handshakes_waiting",
                "Connections that wait for their turn with a TLS handshake.",
            ),
            handshakes_delayed: counter(
                &r,
                "freshet_tls_handshakes_delayed_total",
                "Flights of TLS handshakes that had to wait since their network was beyond https.handshakes_per_network.",
            ),
            http2_floods: counter(
                &r,
                "freshet_http2_floods_total",
                "HTTP/2 connections ended since their clients sent too many frames that ask for nothing.",
            ),
            request_seconds: histogram(&r),
            connections: gauges(&r, "freshet_connections", "Open client connections.", &["listener"]),
            capacity: gauge(
                &r,
                "freshet_egress_capacity_bits_per_second",
                "What the node may send; 0 without a limit.",
            ),
            pressure: float_gauge(
                &r,
                "freshet_egress_pressure_ratio",
                "Egress over the last second divided by capacity.",
            ),
            shed_share: float_gauge(
                &r,
                "freshet_egress_shed_ratio",
                "Share of redirectable requests being shed to mirrors.",
            ),
            log_dropped: counter(
                &r,
                "freshet_access_log_dropped_total",
                "Access-log lines dropped because their sink was too slow.",
            ),
            countme: counters(
                &r,
                "freshet_countme_total",
                "Installations that dnf counts about weekly (countme), by repo and age: 1 first week, 2 first month, 3 first half year, 4 older.",
                &["repo", "age"],
            ),
            bounces: counters(
                &r,
                "freshet_bounces_total",
                "Clients that came back from a mirror that failed them.",
                &["mirror"],
            ),
            mirror_redirects: counters(
                &r,
                "freshet_mirror_redirects_total",
                "Redirects to a mirror.",
                &["mirror"],
            ),
            mirror_redirected_bytes: counters(
                &r,
                "freshet_mirror_redirected_bytes_total",
                "Sizes of the files that clients were redirected for.",
                &["mirror"],
            ),
            probes: counters(&r, "freshet_probes_total", "Probes of mirrors.", &["mirror", "outcome"]),
            mirror_up: gauges(&r, "freshet_mirror_up", "1 while the mirror answers.", &["mirror"]),
            mirror_throughput: float_gauges(
                &r,
                "freshet_mirror_throughput_bits_per_second",
                "How fast a mebibyte came from the mirror, about once an hour.",
                &["mirror"],
            ),
            mirror_latency: float_gauges(
                &r,
                "freshet_mirror_latency_seconds",
                "How long a repomd.xml takes from the mirror, smoothed.",
                &["mirror"],
            ),
            mirror_fresh: gauges(
                &r,
                "freshet_mirror_fresh",
                "1 while the mirror is proven to hold the repo's current generation, but for a few files at most.",
                &["mirror", "repo"],
            ),
            mirror_exceptions: gauges(
                &r,
                "freshet_mirror_exceptions",
                "Files, and groups of files such as drpms, that the mirror lacks of a generation that it holds otherwise.",
                &["mirror", "repo"],
            ),
            pushes: counters(&r, "freshet_pushes_total", "Pushes by outcome.", &["repo", "outcome"]),
            push_held: gauges(
                &r,
                "freshet_push_held",
                "1 while a push is held because a file of it is absent or wrong at the origin.",
                &["repo"],
            ),
            push_step: float_gauges(
                &r,
                "freshet_push_timestamp_seconds",
                "When the newest push reached a step (published, detected, warmed, offered), Unix time.",
                &["repo", "step"],
            ),
            generation: gauges(
                &r,
                "freshet_generation_sequence",
                "Sequence of the generation on offer; 0 for none.",
                &["repo"],
            ),
            unretained: gauges(
                &r,
                "freshet_unretained_files",
                "Files on offer from a local tree that could be neither linked nor copied: lost to clients at once if a push removes them.",
                &["repo"],
            ),
            repo_current: gauges(
                &r,
                "freshet_repo_current",
                "1 while the repo offers the newest state that the origin shows; 0 while it can't, or the origin is silent.",
                &["repo"],
            ),
            repo_confirmed: float_gauges(
                &r,
                "freshet_repo_confirmed_timestamp_seconds",
                "When the origin last answered a look at the repo's repomd.xml, Unix time; 0 for never.",
                &["repo"],
            ),
            window_phase: gauges(
                &r,
                "freshet_window_phase",
                "0 closed, 1 open, 2 kept open for lack of fresh mirrors.",
                &["repo"],
            ),
            window_closes: float_gauges(
                &r,
                "freshet_window_closes_timestamp_seconds",
                "When the window ends, Unix time; 0 for none.",
                &["repo"],
            ),
            store: gauges(
                &r,
                "freshet_store",
                "State of the cache: objects, disk_bytes, reserved_bytes (room that fills hold), disk_trouble (1 while the disk refuses writes), bans (purges whose sweep is under way), memory_bytes, open_files, flights.",
                &["what"],
            ),
            store_events: counters(
                &r,
                "freshet_store_events_total",
                "Events of the cache since the start.",
                &["event"],
            ),
            origin_up: gauge(
                &r,
                "freshet_origin_up",
                "1 while the origin is asked, 0 while it is only probed.",
            ),
            origin_clock_skew: float_gauge(
                &r,
                "freshet_origin_clock_skew_seconds",
                "How far this host's clock is ahead of the Date that the origin last sent, to about a second; 0 for a local tree.",
            ),
            origin_requests: counters(
                &r,
                "freshet_origin_requests_total",
                "Requests to the origin by what became of them; withheld ones were not sent.",
                &["outcome"],
            ),
            ready: gauge(&r, "freshet_ready", "1 while the node takes traffic."),
            config_reloads: counters(
                &r,
                "freshet_config_reloads_total",
                "Configurations read again at a SIGHUP: applied, or refused for their mistakes.",
                &["outcome"],
            ),
            registry: r,
        }
    }

    /// The counter of requests that ended so.
    #[must_use]
    pub fn requests(&self, outcome: Outcome, reason: Reason) -> &IntCounter {
        &self.requests[outcome as usize * Reason::ALL.len() + reason as usize]
    }

    /// The counter of responses with `code`.
    #[must_use]
    pub fn responses(&self, code: u16) -> &IntCounter {
        &self.responses[CODES.iter().position(|known| *known == code).unwrap_or(CODES.len())]
    }

    /// The counter of body bytes that took `path`.
    #[must_use]
    pub fn body_bytes(&self, path: Path) -> &IntCounter {
        &self.body_bytes[path as usize]
    }

    /// The exposition in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn exposition(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory can't fail");
        String::from_utf8(text).expect("the text format is UTF-8")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("names and labels above are well-formed");
    registry.register(Box::new(metric.clone())).expect("each name above is declared once");
    metric
}

fn counter(r: &Registry, name: &str, help: &str) -> IntCounter {
    register(r, IntCounter::new(name, help))
}

fn counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(r, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(r: &Registry, name: &str, help: &str) -> IntGauge {
    register(r, IntGauge::new(name, help))
}

fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    register(r, IntGaugeVec::new(Opts::new(name, help), labels))
}

fn float_gauge(r: &Registry, name: &str, help: &str) -> prometheus::Gauge {
    register(r, prometheus::Gauge::new(name, help))
}

fn float_gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    register(r, GaugeVec::new(Opts::new(name, help), labels))
}

fn histogram(r: &Registry) -> Histogram {
    let options = HistogramOpts::new(
        "freshet_request_duration_seconds",
        "From the request's head to the last byte of the response.",
    )
    .buckets(vec![0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0]);
    register(r, Histogram::with_opts(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_count_under_their_own_labels() {
        let metrics = Metrics::new();
        metrics.requests(Outcome::Redirect, Reason::Offload).inc();
        metrics.responses(206).inc();
        metrics.responses(418).inc();
        metrics.body_bytes(Path::Sendfile).inc_by(7);
        let text = metrics.exposition();
        for line in [
            r#"freshet_requests_total{decision="redirect",reason="offload"} 1"#,
            r#"freshet_responses_total{code="206"} 1"#,
            r#"freshet_responses_total{code="other"} 1"#,
            r#"freshet_response_body_bytes_total{path="sendfile"} 7"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
