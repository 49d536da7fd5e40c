//! Clients beside an attack: what they get of the server, and when it is as before.

use super::kinds::Kind;
use super::origin::Origin;
use super::party::{Scene, yields};
use super::subject::Subject;
use crate::load::{Engine, Outcome, Pace, Plan, Wire};
use freshet::clock::monotonic;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Requests of honest clients a second, for a repomd.xml of 4 KiB, and for files that have to be fetched.
const RATE: f64 = 50.0;
/// As many as dnf opens; not more than a network's share of few seats among a hundred.
const CONNECTIONS: usize = 3;
const COLD_RATE: f64 = 10.0;
const COLD_CONNECTIONS: usize = 4;
/// Connections that ask as fast as they are answered: as many as a flood of requests has.
pub const CLOSED: usize = 40;
/// Server and clients are as before once so many spans in a row are.
const SPAN: Duration = Duration::from_millis(200);
const SPANS: u32 = 3;
/// Beyond it there is no more to learn.
const LONGEST: Duration = Duration::from_secs(15);

/// What honest clients got.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    pub p50_us: u64,
    pub p99_us: u64,
    /// Of connecting, with TLS's handshake; the mean.
    pub connect_us: u64,
    pub requests: u64,
    pub failures: u64,
    pub first_failure: Option<String>,
    /// Of files that had to be fetched.
    pub cold: Option<Cold>,
    /// Seconds from a push at the origin to its offer.
    pub push_seconds: Option<f64>,
    pub closed: Option<Closed>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cold {
    pub p50_us: u64,
    pub p99_us: u64,
    pub requests: u64,
}

/// Of clients that ask as fast as they are answered.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Closed {
    pub requests_per_second: f64,
    /// All CPU seconds of the server, for each of these requests.
    pub cpu_seconds_each: f64,
}

/// Honest clients of a subject.
pub struct Honest<'a> {
    pub subject: &'a Subject,
    pub kind: &'a Kind,
    pub scene: &'a Scene,
    pub origin: Option<&'a Origin>,
    /// For a push to be offered; without it there is none.
    pub offered_within: Option<Duration>,
    pub stop: &'a Arc<AtomicBool>,
}

impl Honest<'_> {
    /// The same as [`ask`](Self::ask) beside a thread that computes as attackers do: what that costs honest clients, which share a
    /// core with it, is not the server's doing.
    pub fn ask_in_calm(&self, span: Duration, closed: Duration, cold: &[String]) -> anyhow::Result<Seen> {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                yields();
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let seen = self.ask(span, closed, cold);
            ended.store(true, Ordering::Relaxed);
            seen
        })
    }

    /// Asks for `span`, and of CPU as long again as `closed`. `cold` are files that the server doesn't have yet.
    pub fn ask(&self, span: Duration, closed: Duration, cold: &[String]) -> anyhow::Result<Seen> {
        let mut seen = std::thread::scope(|scope| {
            let fetched = self.origin.map(|_| scope.spawn(|| self.fetch(cold, span)));
            let push = self.origin.zip(self.offered_within);
            let pushed =
                push.map(|(origin, longest)| scope.spawn(move || self.subject.push(origin, longest)));
            let mut seen = self.steady(span);
            if let Some(fetched) = fetched {
                let outcome = fetched.join().expect("it doesn't panic");
                let [p50_us, p99_us] = quantiles(&outcome);
                seen.cold = Some(Cold { p50_us, p99_us, requests: outcome.requests });
                seen.failures += outcome.failures;
                seen.first_failure = seen.first_failure.or(outcome.first_failure);
            }
            if let Some(pushed) = pushed {
                let took = pushed.join().expect("it doesn't panic")?;
                seen.push_seconds = took.map(|took| took.as_secs_f64());
            }
            anyhow::Ok(seen)
        })?;
        if self.kind.is_cpu {
            let (outcome, closed) = self.closed(closed)?;
            seen.closed = Some(closed);
            seen.failures += outcome.failures;
            seen.first_failure = seen.first_failure.or(outcome.first_failure);
        }
        Ok(seen)
    }

    /// How long it takes until they wait no longer than `bounds`, p50 and p99 in microseconds.
    pub fn recovers(&self, bounds: [u64; 2]) -> Duration {
        let begun = monotonic();
        let (mut good, mut since) = (0, Duration::ZERO);
        let mut engine = self.engine().ok();
        while good < SPANS && begun.elapsed() < LONGEST {
            if good == 0 {
                since = begun.elapsed();
            }
            let outcome = engine.as_mut().and_then(|engine| engine.run(SPAN).ok());
            let is_good = outcome.as_ref().is_some_and(|outcome| {
                let [p50, p99] = quantiles(outcome);
                outcome.failures == 0 && outcome.requests > 0 && p50 <= bounds[0] && p99 <= bounds[1]
            });
            if outcome.is_none() {
                engine = self.engine().ok();
            }
            good = if is_good { good + 1 } else { 0 };
        }
        if good < SPANS { LONGEST } else { since }
    }

    fn steady(&self, span: Duration) -> Seen {
        let begun = monotonic();
        let connected = self.engine();
        let connecting = begun.elapsed() / u32::try_from(CONNECTIONS).unwrap_or(1);
        // That none of them is answered is what an attack may come to.
        let outcome =
            connected.and_then(|mut engine| engine.run(span)).unwrap_or_else(|error| failed(&error));
        let [p50_us, p99_us] = quantiles(&outcome);
        Seen {
            p50_us,
            p99_us,
            connect_us: u64::try_from(connecting.as_micros()).unwrap_or(u64::MAX),
            requests: outcome.requests,
            failures: outcome.failures,
            first_failure: outcome.first_failure,
            cold: None,
            push_seconds: None,
            closed: None,
        }
    }

    fn closed(&self, span: Duration) -> anyhow::Result<(Outcome, Closed)> {
        let plan = Plan { connections: CLOSED, pace: Pace::Closed, ..self.plan() };
        let connected = Engine::connect(plan);
        let before = self.subject.used()?;
        let outcome =
            connected.and_then(|mut engine| engine.run(span)).unwrap_or_else(|error| failed(&error));
        let cpu = self.subject.used()?.since(&before);
        let closed = Closed {
            requests_per_second: outcome.requests as f64 / span.as_secs_f64(),
            cpu_seconds_each: cpu / outcome.requests.max(1) as f64,
        };
        Ok((outcome, closed))
    }

    fn fetch(&self, paths: &[String], span: Duration) -> Outcome {
        let plan = Plan {
            paths: paths.into(),
            connections: COLD_CONNECTIONS,
            pace: Pace::Open { rate: COLD_RATE },
            ..self.plan()
        };
        Engine::connect(plan).and_then(|mut engine| engine.run(span)).unwrap_or_else(|error| failed(&error))
    }

    fn engine(&self) -> anyhow::Result<Engine> {
        Engine::connect(self.plan())
    }

    fn plan(&self) -> Plan {
        let [plain, tls] = self.subject.addresses();
        let (target, host, wire) = if self.kind.is_tls {
            (tls, "localhost".to_owned(), Wire::Tls(self.scene.http1.clone()))
        } else {
            (plain, plain.to_string(), Wire::Plain)
        };
        Plan {
            target,
            host,
            paths: [self.scene.small.clone()].into(),
            connections: CONNECTIONS,
            wire,
            status: 200,
            pace: Pace::Open { rate: RATE },
            verify: None,
            sources: vec![IpAddr::V4(Ipv4Addr::new(127, 250, 0, 1))],
            stop: self.stop.clone(),
        }
    }
}

/// Cold files that are enough for so long: each connection may come to ask all of its part.
pub fn cold_files(span: Duration) -> usize {
    (COLD_RATE as usize * COLD_CONNECTIONS) * usize::try_from(span.as_secs().max(1)).unwrap_or(1)
}

fn quantiles(outcome: &Outcome) -> [u64; 2] {
    [0.5, 0.99].map(|quantile| outcome.latency_us.value_at_quantile(quantile))
}

fn failed(error: &anyhow::Error) -> Outcome {
    Outcome { failures: 1, first_failure: Some(format!("{error:#}")), ..Outcome::empty() }
}
