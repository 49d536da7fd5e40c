//! From a verified generation to its flip.

use super::{Attempt, Watcher};
use crate::clock::{self, Timestamp};
use crate::push::gate::Gate;
use crate::push::verify::{PushError, Read};
use crate::push::warm::{Warming, planned};
use crate::push::{Event, Faults, Held, flip};
use crate::repo::Generation;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Watcher<'_> {
    /// Checks, warms and flips what is verified.
    pub(super) async fn offer(&mut self, read: Read, attempt: Attempt) -> Result<(), PushError> {
        let (shared, index) = (self.shared, self.index);
        let (watched, start) = (&shared.repos[index], clock::monotonic());
        let Read { mut generation, mut without } = read;
        self.tell_detected(&generation, attempt.detected);
        // Where there is nothing on offer, nothing is gained by waiting.
        let is_checked = attempt.faults == Faults::Hold && shared.current(index).is_some();
        let answered = self.order.number;
        let told = |held: Held| shared.hold_early(index, &held, answered);
        if is_checked {
            self.gate.see(&generation, told).await?;
        }
        let since = self.behind.stop().or(self.left_over).unwrap_or(generation.sequence);
        self.left_over = Some(since);
        let warm = planned(shared, index, &generation, since);
        let mut warming =
            if is_checked { self.gate.warming(warm) } else { Warming::new(shared, index, warm) };
        if is_checked {
            let packages = self.gate.read(&mut warming, generation.id, told).await?;
            if !packages.is_empty() {
                without.push(words(&packages));
                let previous = shared.history(index).current().cloned();
                generation = generation.without(&packages, previous.as_deref());
            }
        }
        self.tell_warmed(&generation, &warming, start);
        for word in &without {
            tracing::warn!(repo = watched.repo.id, "offered without {word}");
        }
        {
            let mut status = watched.status();
            status.without = without;
            status.faults.clear();
        }
        if warming.rest() == 0 {
            warming.tell();
        } else {
            shared.metrics.pushes.with_label_values(&[watched.repo.id.as_str(), "warmed_late"]).inc();
            self.behind.start(warming, since);
        }
        self.left_over = None;
        self.looks.stop();
        if !is_checked {
            self.looks.start(shared, index, &generation);
        }
        flip::flip(shared, index, generation).await;
        self.gate = Gate::new(shared, index);
        Ok(())
    }

    /// Tells that a push is there, once.
    fn tell_detected(&mut self, generation: &Generation, detected: Timestamp) {
        let is_told = |attempt: &mut Attempt| std::mem::replace(&mut attempt.is_told, true);
        if self.attempt.as_mut().is_some_and(is_told) {
            return;
        }
        let (shared, watched) = (self.shared, &self.shared.repos[self.index]);
        {
            let mut status = watched.status();
            (status.detected, status.warmed, status.offered) = (Some(detected), None, None);
        }
        let repo = Arc::clone(&watched.repo);
        flip::mark(shared, &repo.id, "published", generation.published);
        flip::mark(shared, &repo.id, "detected", detected);
        let (generation, files, bytes) = (generation.id, generation.new_files, generation.new_bytes);
        shared.tell(Event::Detected { repo, generation, files, bytes, at: detected });
    }

    fn tell_warmed(&self, generation: &Generation, warming: &Warming, start: std::time::Instant) {
        if generation.sequence > 1 {
            let took = clock::monotonic().saturating_duration_since(start);
            let (repo, generation) = (Arc::clone(&self.shared.repos[self.index].repo), generation.id);
            let (found, rest) = (warming.warmed, warming.rest());
            let (files, bytes, failed) = (found.files, found.bytes, found.failed);
            self.shared.tell(Event::Warmed { repo, generation, files, bytes, failed, rest, took });
        }
    }
}

/// What is left out, in words.
fn words(packages: &BTreeMap<String, String>) -> String {
    let first = packages.iter().next().map(|(path, fault)| format!("{path}: {fault}")).unwrap_or_default();
    match packages.len() {
        0 | 1 => first,
        files => format!("{first} (and {} other files)", files - 1),
    }
}
