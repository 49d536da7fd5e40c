//! How fast a mirror takes requests: one that answers 408, 429 or 503 is asked more slowly, and says nothing of its files.

use super::client::Failure;
use crate::clock;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// After the first refusal, where the mirror doesn't say for how long; it doubles with each in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A check waits for so long at most. What has to wait longer ends it, and it is taken up again later.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Longer than that no mirror is left alone, whatever its Retry-After says.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(600);
/// Refusals in a row, without an answer in between, that a check puts up with.
const MOST_REFUSALS: u32 = 6;

/// One mirror's pace, over all its repos and both families.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// No request before.
    resumes: Option<Instant>,
    /// In a row; those that were under way together count once.
    refusals: u32,
}

impl Pace {
    /// Waits until the mirror may be asked.
    pub(super) async fn ready(&self) {
        loop {
            let resumes = self.lock().resumes.filter(|resumes| *resumes > now());
            let Some(resumes) = resumes else { return };
            sleep_until(resumes).await;
        }
    }

    /// When that is, if not now.
    pub(super) fn resumes(&self) -> Option<Instant> {
        self.lock().resumes.filter(|resumes| *resumes > now())
    }

    /// Takes note of an answer: `failure`, or what was asked for.
    pub(super) fn note(&self, failure: Option<&Failure>) {
        match failure {
            Some(failure) => drop(self.goes_on(failure)),
            None => self.lock().refusals = 0,
        }
    }

    /// Takes note of a failure; whether it is one that a check waits out.
    pub(super) fn goes_on(&self, failure: &Failure) -> bool {
        let Failure::Busy { after, .. } = failure else { return false };
        let mut state = self.lock();
        let now = now();
        if state.resumes.is_none_or(|resumes| resumes <= now) {
            state.refusals += 1;
        }
        let own = FIRST_PAUSE.saturating_mul(1 << state.refusals.saturating_sub(1).min(MOST_REFUSALS));
        let pause = after.map_or(own, |after| after.min(MOST_RETRY_AFTER));
        state.resumes = state.resumes.max(Some(now + pause));
        let goes_on = pause <= LONGEST_PAUSE && state.refusals < MOST_REFUSALS;
        if !goes_on {
            state.refusals = 0;
        }
        goes_on
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Instant {
    clock::monotonic().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(after: Option<u64>) -> Failure {
        Failure::Busy { status: 429, after: after.map(Duration::from_secs) }
    }

    fn left(pace: &Pace) -> u64 {
        pace.resumes().map_or(0, |at| at.saturating_duration_since(now()).as_secs_f64().ceil() as u64)
    }

    #[test]
    fn a_busy_mirror_is_asked_ever_more_slowly_and_as_it_says() {
        let pace = Pace::default();
        assert_eq!(left(&pace), 0);
        // Four lanes are refused together: once.
        assert!((0..4).all(|_| pace.goes_on(&busy(None))));
        assert_eq!(left(&pace), 1);
        for (after, goes_on, seconds) in [(Some(7), true, 7), (Some(30), true, 30), (Some(61), false, 61)] {
            assert_eq!((pace.goes_on(&busy(after)), left(&pace)), (goes_on, seconds), "{after:?}");
        }
        pace.goes_on(&busy(Some(1_000_000)));
        assert_eq!(left(&pace), 600, "not for days");
        assert!(!pace.goes_on(&Failure::Refused), "that is no answer");
    }

    #[test]
    fn a_mirror_that_only_refuses_ends_a_check() {
        let pace = Pace::default();
        let mut pauses = Vec::new();
        loop {
            pace.lock().resumes = None;
            let goes_on = pace.goes_on(&busy(None));
            if !goes_on {
                break;
            }
            pauses.push(left(&pace));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16]);
        pace.note(None);
        pace.lock().resumes = None;
        assert!(pace.goes_on(&busy(None)));
        assert_eq!(left(&pace), 1, "from the start again");
    }
}
