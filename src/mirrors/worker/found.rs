//! What becomes of the answers: the mirror's state, and when it is asked again.

use super::{Done, MOST_DOUBLINGS, Worker, jittered, now, spread};
use crate::clock;
use crate::http::TreePath;
use crate::mirrors::check::Compared;
use crate::mirrors::client::{Failure, Looked};
use crate::mirrors::judge::{self, Missed, Next, Seen};
use crate::policy::{Proof, Reach};
use std::time::Duration;
use tokio::task::JoinError;

/// Each answer counts an eighth, as in TCP's estimate of a round trip (RFC 6298).
fn smoothed(before: Option<Duration>, took: Duration) -> Duration {
    before.map_or(took, |before| (before * 7 + took) / 8)
}

impl Worker {
    /// Whether there is something to tell.
    pub(super) fn finish(&mut self, done: Result<Done, JoinError>) -> bool {
        match done {
            Ok(Done::Alive(result)) => self.alive(result),
            Ok(Done::Looked { repo, result, took }) => {
                if result.is_ok() {
                    self.state.latency = Some(smoothed(self.state.latency, took));
                }
                self.looked(repo, result)
            }
            Ok(Done::Verified { repo, target, base, result, ranges, settled }) => {
                if settled {
                    self.slots[repo].doubted = None;
                }
                self.verified(repo, (target, base), result, ranges);
                true
            }
            Ok(Done::Spotted { repo, result, throughput }) => {
                self.state.throughput = throughput.or(self.state.throughput);
                self.spotted(repo, result);
                true
            }
            Ok(Done::Bounced { path, result }) => self.bounced(&path, result),
            Err(error) => {
                tracing::error!(mirror = %self.state.mirror.name, %error, "a probe died");
                self.stop_tasks();
                false
            }
        }
    }

    fn alive(&mut self, result: Result<(), Failure>) -> bool {
        self.liveness.running = false;
        if let Err(failure) = result {
            return self.down(&failure);
        }
        // An answer to this alone is not much: what repeatedly fails at the first look is still asked ever more slowly.
        if self.state.reach.is_up() && self.slots.iter().all(|slot| slot.looked) {
            self.liveness.failures = 0;
        }
        let settings = &self.shared.settings;
        let proven = self.state.pairs.iter().any(|pair| pair.proof.is_some());
        self.liveness.due =
            now() + jittered(if proven { settings.liveness_every } else { settings.probe_every });
        if !self.is_asked() {
            self.liveness.returning = true;
            let now = now();
            for (slot, pair) in self.slots.iter_mut().zip(&self.state.pairs) {
                slot.awaited = pair.proof.is_some();
                slot.due = if slot.awaited { now } else { now + spread(settings.probe_lagging) };
            }
        }
        self.answered(self.slots.is_empty());
        true
    }

    /// The mirror answered; `shown`: with a repomd.xml, if it has any.
    fn answered(&mut self, shown: bool) {
        let back = self.liveness.returning && shown && self.slots.iter().all(|slot| !slot.awaited);
        if back || self.state.reach.is_up() {
            self.liveness.returning = false;
            self.state.reach = Reach::Up { seen: clock::now() };
        }
    }

    fn looked(&mut self, repo: usize, result: Result<Looked, Failure>) -> bool {
        let history = self.history(repo).clone();
        let pair = &self.state.pairs[repo];
        let (seen, validator) = match (result, pair.seen) {
            (Ok(Looked::New(seen, validator)), _) => (seen, validator),
            (Ok(Looked::Same), Some(seen)) => (Seen::Shows(seen), self.slots[repo].validator.clone()),
            // What it stood for was refuted meanwhile.
            (Ok(Looked::Same), None) => {
                (self.slots[repo].running, self.slots[repo].due) = (false, now());
                return false;
            }
            (Err(failure), _) if failure.is_down() => return self.down(&failure),
            (Err(failure), _) => (Seen::Unclear(format!("repomd.xml {failure}")), None),
        };
        let is_shown = matches!(seen, Seen::Shows(_));
        let (pair, next) = judge::look(&history, pair, seen, clock::now());
        self.state.pairs[repo] = pair;
        self.slots[repo].validator = validator;
        (self.slots[repo].awaited, self.slots[repo].looked) = (false, true);
        self.answered(true);
        match next {
            Next::Verify(_) => {}
            _ if !is_shown => self.count("failed"),
            _ if self.is_current(repo) => self.count("ok"),
            _ => self.count("stale"),
        }
        self.start_next(repo, next);
        true
    }

    fn verified(
        &mut self,
        repo: usize,
        (target, base): (u32, Option<Proof>),
        result: Result<usize, Missed>,
        ranges: Option<bool>,
    ) {
        self.state.ranges = ranges.unwrap_or(self.state.ranges);
        let known = (target, base);
        let judged =
            judge::verified(self.history(repo), &self.state.pairs[repo], known, &result, clock::now());
        match judged {
            Some(pair) => self.state.pairs[repo] = pair,
            None => self.slots[repo].again = true,
        }
        if result.is_ok() {
            self.liveness.due = self.liveness.due.min(now() + jittered(self.shared.settings.liveness_every));
        }
        self.count(match &result {
            Ok(_) if self.is_current(repo) => "ok",
            Ok(_) => "stale",
            Err(_) => "failed",
        });
        self.slots[repo].first = result.err().map(|missed| {
            self.doubt(&missed);
            missed.path
        });
        self.rest(repo);
    }

    fn spotted(&mut self, repo: usize, result: Result<Compared, Missed>) {
        if let Ok(compared) = &result {
            self.state.ranges = !matches!(compared, Compared::NoRanges);
        }
        let result = match result {
            Ok(Compared::Fits | Compared::NoRanges) => Ok(()),
            Ok(Compared::Differs(doubt)) => {
                let missed = doubt.missed();
                self.slots[repo].doubted = Some(doubt);
                Err(missed)
            }
            Err(missed) => Err(missed),
        };
        if let Err(missed) = &result {
            self.doubt(missed);
            self.slots[repo].first = Some(missed.path.clone());
            self.slots[repo].again |= !missed.transient;
        }
        self.state.pairs[repo] = judge::spotted(&self.state.pairs[repo], result, clock::now());
        self.rest(repo);
    }

    fn bounced(&mut self, path: &TreePath, result: Result<(), Failure>) -> bool {
        let Err(failure) = result else { return false };
        if failure.is_down() {
            return self.down(&failure);
        }
        let Some(place) = self.repos.locate(path) else { return false };
        let (repo, file) = (place.index, place.relative.to_owned());
        // The client was sent there by a proof that has been narrowed since.
        if !place.listed.is_some_and(|listed| self.state.holds(repo, &listed)) {
            return false;
        }
        if failure.is_transient() {
            // Of this file alone? Its proof is gone either way.
            self.liveness.due = now();
        }
        let note = format!("a client came back: {file} {}", failure.of_file());
        self.state.pairs[repo] = judge::refuted(&self.state.pairs[repo], &note);
        let slot = &mut self.slots[repo];
        (slot.due, slot.again, slot.first, slot.validator) = (now(), slot.running, Some(file), None);
        self.count("failed");
        true
    }

    /// A file could not be asked for: is the mirror still there?
    fn doubt(&mut self, missed: &Missed) {
        if missed.transient {
            self.liveness.due = now();
        }
    }

    fn down(&mut self, failure: &Failure) -> bool {
        // To have one family is nothing bad.
        if !matches!(failure, Failure::NoAddress(_)) {
            self.count("down");
        }
        self.stop_tasks();
        let settings = &self.shared.settings;
        let doublings = self.liveness.failures.min(MOST_DOUBLINGS);
        let pause = settings.liveness_every.saturating_mul(1 << doublings).min(settings.probe_every);
        self.liveness.due = now() + jittered(pause);
        self.liveness.failures += 1;
        self.liveness.returning = false;
        for slot in &mut self.slots {
            slot.looked = false;
        }
        let since = match self.state.reach {
            Reach::Down { since, .. } => since,
            Reach::Untried | Reach::Up { .. } => clock::now(),
        };
        self.state.reach = Reach::Down { since, why: failure.to_string() };
        true
    }
}

#[cfg(test)]
#[path = "found_tests.rs"]
mod tests;
