//! Metrics that mirror a snapshot: set when they are scraped.

use super::Admin;
use super::status::Cache;
use crate::clock::{self, Timestamp};
use crate::policy::Phase;
use std::sync::PoisonError;
use std::time::Duration;

/// Sets them as things stand at `now`.
pub(super) fn set(admin: &Admin, now: Timestamp) {
    let _scrape = admin.scrape.lock().unwrap_or_else(PoisonError::into_inner);
    let edge = &*admin.edge;
    let metrics = &*edge.metrics;
    metrics.connections_memory.set(i64::try_from(edge.memory.held()).unwrap_or(i64::MAX));
    let (repos, mirrors) = (edge.published.repos.load(), edge.published.mirrors.load());
    for (index, view) in repos.views().iter().enumerate() {
        let id = [view.repo.id.as_str()];
        let phase = match view.phase(mirrors.fresh(index, view.sequence()), now) {
            Phase::Closed => 0,
            Phase::Open { .. } => 1,
            Phase::Extended { .. } => 2,
        };
        let closes = view.window.map_or(0.0, |window| seconds(window.closes));
        metrics.window_phase.with_label_values(&id).set(phase);
        metrics.window_closes.with_label_values(&id).set(closes);
        metrics.repo_confirmed.with_label_values(&id).set(seconds(view.confirmed.at()));
        metrics.generation.with_label_values(&id).set(view.sequence().into());
        for mirror in mirrors.states() {
            let is_fresh = mirror.is_current(index, view.sequence());
            let labels = [&mirror.mirror.name, &view.repo.id];
            metrics.mirror_fresh.with_label_values(&labels).set(is_fresh.into());
            let lacks = mirror.pairs.get(index).map_or(0, |pair| pair.exceptions.len());
            metrics
                .mirror_exceptions
                .with_label_values(&labels)
                .set(i64::try_from(lacks).unwrap_or(i64::MAX));
        }
    }
    for repo in admin.pushes.currencies(now) {
        metrics.repo_current.with_label_values(&[repo.id]).set(repo.not_current.is_none().into());
    }
    for mirror in mirrors.states() {
        let name = [&mirror.mirror.name];
        metrics.mirror_up.with_label_values(&name).set(mirror.reach.is_up().into());
        if let Some(bytes) = mirror.throughput {
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            metrics.mirror_throughput.with_label_values(&name).set(bytes as f64 * 8.0);
        }
        if let Some(latency) = mirror.latency {
            metrics.mirror_latency.with_label_values(&name).set(latency.as_secs_f64());
        }
    }
    let cache = Cache::of(&edge.store.stats(), None);
    for (name, value) in &cache.gauges {
        metrics.store.with_label_values(&[name]).set(i64::try_from(*value).unwrap_or(i64::MAX));
    }
    for (name, total) in &cache.events {
        let counted = metrics.store_events.with_label_values(&[name]);
        counted.inc_by(total.saturating_sub(counted.get()));
    }
    let (_, health) = edge.store.origin();
    metrics.origin_up.set(health.as_ref().is_none_or(|health| health.is_up).into());
    if let Some(skew) = health.as_ref().and_then(|health| health.clock_skew) {
        metrics.origin_clock_skew.set(skew);
    }
    for (outcome, total) in health.into_iter().flat_map(|health| health.requests) {
        let counted = metrics.origin_requests.with_label_values(&[outcome]);
        counted.inc_by(total.saturating_sub(counted.get()));
    }
    metrics.ready.set(admin.readiness().is_ok().into());
}

/// The date of a time of the node, which Prometheus compares to its own.
fn seconds(time: Timestamp) -> f64 {
    Duration::from_millis(clock::ahead().date_of(time).as_millis()).as_secs_f64()
}
