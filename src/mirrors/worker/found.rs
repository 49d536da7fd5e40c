//! What becomes of the answers: the mirror's state, and when it is asked again.

use super::{Done, MOST_DOUBLINGS, Worker, jittered, now, spread};
use crate::clock;
use crate::http::TreePath;
use crate::mirrors::check::{Compared, Settled, lock};
use crate::mirrors::client::{Failure, Looked};
use crate::mirrors::findings::{Findings, Held};
use crate::mirrors::judge::{self, Lapse, Missed, Next, Seen};
use crate::policy::mirrors::LEAST_BYTES_PER_SECOND;
use crate::policy::{Exceptions, Pair, Reach};
use std::sync::Mutex;
use std::time::Duration;
use tokio::task::JoinError;

/// A file that a client came back for is asked for so often again, while the mirror is too busy to say anything of it.
const MOST_TRIES: u32 = 2;

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
            Ok(Done::Verified { repo, check, result, ranges, settled }) => {
                match settled {
                    Settled::No => {}
                    Settled::Yes => self.slots[repo].doubted = None,
                    Settled::Wrong(doubt) => {
                        // What it was proven to hold before is in doubt as well.
                        let (pair, Missed { path, why, .. }) = (&mut self.state.pairs[repo], doubt.missed());
                        (pair.proof, pair.exceptions) = (None, Exceptions::default());
                        pair.note = format!("{path} {why}").into();
                        self.slots[repo].doubted = Some(doubt);
                    }
                }
                self.state.ranges = ranges.unwrap_or(self.state.ranges);
                self.verified(repo, &check, &result);
                true
            }
            Ok(Done::Sampled { repo, next, result }) => {
                self.sampled(repo, next, &result);
                true
            }
            Ok(Done::Spotted { repo, result, throughput }) => {
                self.measured(throughput);
                self.spotted(repo, result);
                true
            }
            Ok(Done::Bounced { path, tries, result }) => self.bounced(&path, tries, result),
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
            self.liveness.outage = matches!(self.state.reach, Reach::Down { .. });
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
            (Err(failure), _) => {
                self.place.pace.note(Some(&failure));
                (Seen::Unclear(format!("repomd.xml {failure}")), None)
            }
        };
        let is_unclear = matches!(seen, Seen::Unclear(_));
        let is_shown = matches!(seen, Seen::Shows(_));
        let (mut pair, next) = judge::look(&history, pair, seen, clock::now());
        if is_unclear
            && self.slots[repo].awaited
            && self.liveness.outage
            && self.place.pace.resumes().is_none()
        {
            // One broken repo is not to keep out the others: it is proven anew. A busy mirror is waited for.
            pair = judge::refuted(&pair, &pair.note);
        }
        let old = std::mem::replace(&mut self.state.pairs[repo], pair);
        let is_told_later = self.is_told_later(repo, old, &next);
        self.slots[repo].validator = validator;
        self.slots[repo].looked = true;
        let unsampled =
            self.slots[repo].awaited && self.liveness.outage && self.state.pairs[repo].proof.is_some();
        self.slots[repo].awaited = unsampled;
        self.answered(true);
        // It shows another by now: what was found of that one may be gone.
        self.slots[repo]
            .check
            .take_if(|(check, _)| !is_unclear && next != Next::Verify(lock(check).target()));
        match next {
            Next::Verify(_) => {}
            _ if !is_shown => self.count("failed"),
            _ if self.is_current(repo) => self.count("ok"),
            _ => self.count("stale"),
        }
        match next {
            next if unsampled && !is_unclear => self.start_sample(repo, next),
            next => self.start_next(repo, next),
        }
        if is_shown {
            self.postpone_liveness();
        }
        // Where no file can be compared, nothing follows.
        !(is_told_later && self.slots[repo].running)
    }

    /// A look that found nothing new is published together with the spot check that follows.
    fn is_told_later(&self, repo: usize, old: Pair, next: &Next) -> bool {
        let new = &self.state.pairs[repo];
        let is_same = Pair { checked: new.checked, ..old } == *new;
        self.state.reach.is_up() && is_same && matches!(next, Next::Spot(_))
    }

    /// A mirror that has just answered a look need not be asked whether it lives.
    fn postpone_liveness(&mut self) {
        if self.state.reach.is_up() && !self.liveness.running && self.liveness.failures == 0 {
            let due = now() + jittered(self.shared.settings.liveness_every);
            self.liveness.due = self.liveness.due.max(due);
        }
    }

    /// A mirror that is back has some of what it was proven to hold, or hasn't.
    fn sampled(&mut self, repo: usize, next: Next, result: &Result<(), Missed>) {
        if let Err(missed) = result {
            self.doubt(missed);
            if missed.transient {
                // Until it answers for them, it takes nothing.
                return self.rest(repo);
            }
            let note = format!("{} {} after an outage", missed.path, missed.why);
            self.state.pairs[repo] = judge::refuted(&self.state.pairs[repo], &note);
        }
        self.slots[repo].awaited = false;
        self.answered(true);
        match result {
            Ok(()) => self.start_next(repo, next),
            Err(_) => (self.slots[repo].running, self.slots[repo].due) = (false, now()),
        }
    }

    /// How fast it is. Twice in a row it has to be too slow to take clients; then it is measured at each probe.
    fn measured(&mut self, throughput: Option<u64>) {
        let Some(bytes_per_second) = throughput else { return };
        let is_slow = bytes_per_second < LEAST_BYTES_PER_SECOND;
        if is_slow {
            self.measure = now();
        }
        if self.was_slow || !is_slow {
            self.state.throughput = Some(bytes_per_second);
        }
        self.was_slow = is_slow;
    }

    fn verified(&mut self, repo: usize, check: &Mutex<Findings>, result: &Result<Held, Missed>) {
        let judged = {
            let findings = lock(check);
            let known = (findings.target(), findings.base());
            judge::verified(self.history(repo), &self.state.pairs[repo], known, result, clock::now())
        };
        match judged {
            Some(pair) => self.state.pairs[repo] = pair,
            None => self.slots[repo].again = true,
        }
        if result.is_ok() {
            self.liveness.due = self.liveness.due.min(now() + jittered(self.shared.settings.liveness_every));
            self.slots[repo].check = None;
        }
        self.count(match result {
            Ok(_) if self.is_current(repo) => "ok",
            Ok(_) => "stale",
            Err(_) => "failed",
        });
        if let Err(missed) = result {
            self.doubt(missed);
        }
        self.rest(repo);
    }

    fn spotted(&mut self, repo: usize, result: Result<Compared, Lapse>) {
        if let Ok(compared) = &result {
            self.state.ranges = !matches!(compared, Compared::NoRanges);
        }
        let old = &self.state.pairs[repo];
        let pair = match result {
            Ok(Compared::Fits | Compared::Unknown | Compared::NoRanges) => {
                judge::spotted(self.history(repo), old, Ok(()), clock::now())
            }
            Ok(Compared::Differs(doubt)) => {
                let Missed { path, why, .. } = doubt.missed();
                self.slots[repo].doubted = Some(doubt);
                judge::refuted(old, &format!("{path} {why}, though it was proven"))
            }
            Err(lapse) => {
                let pair = judge::spotted(self.history(repo), old, Err(lapse.clone()), clock::now());
                self.doubt(&lapse.missed);
                pair
            }
        };
        self.slots[repo].again |= self.state.pairs[repo].proof.is_some() && pair.proof.is_none();
        self.state.pairs[repo] = pair;
        // Whether it has by now what it lacked.
        match self.state.pairs[repo].proof {
            Some(proof) if proof.sequence == proof.shown && !self.state.pairs[repo].exceptions.is_empty() => {
                self.start_next(repo, Next::Verify(proof.sequence));
            }
            _ => self.rest(repo),
        }
    }

    fn bounced(&mut self, path: &TreePath, tries: u32, result: Result<(), (Failure, Lapse)>) -> bool {
        let Err((failure, lapse)) = result else {
            let disputed = self.dispute.until(clock::now());
            return std::mem::replace(&mut self.state.disputed_until, disputed) != disputed;
        };
        if failure.is_down() {
            return self.down(&failure);
        }
        if failure.is_transient() {
            // Of this file alone?
            self.liveness.due = now();
        }
        if matches!(failure, Failure::Busy { .. }) && tries < MOST_TRIES {
            self.bounces.wait(path.as_str().to_owned(), tries + 1);
            return false;
        }
        let Some(place) = self.repos.locate(path) else { return false };
        let (repo, listed) = (place.index, place.listed);
        // The client was sent there by a proof that has been narrowed since.
        if !listed.is_some_and(|listed| self.state.holds(repo, &listed, place.relative)) {
            return false;
        }
        self.dispute.is_settled();
        self.state.disputed_until = None;
        let note = format!("a client came back: {} {}", place.relative, failure.of_file());
        let pair = judge::lapsed(self.history(repo), &self.state.pairs[repo], &lapse, &note);
        let is_refuted = pair.proof.is_none();
        self.state.pairs[repo] = pair;
        let soon = now() + jittered(self.shared.settings.probe_lagging);
        let slot = &mut self.slots[repo];
        if is_refuted {
            (slot.due, slot.again, slot.validator) = (now(), slot.running, None);
        } else {
            slot.due = slot.due.min(soon);
        }
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
