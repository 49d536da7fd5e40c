//! Follows the windows: tells when one opens, is kept open, or closes.
//!
//! It decides nothing: each request looks at the window itself.

use super::{Event, Shared, stopped};
use crate::clock::{self, Timestamp};
use crate::policy::{Phase, RepoView};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The longest time after which a phase that depends on the mirrors is looked at again.
const TICK: Duration = Duration::from_secs(1);
/// The shortest wait: a window's last millisecond has to pass.
const SHORTEST: Duration = Duration::from_millis(1);

/// The phase of each repo as it was last told.
pub(super) struct Phases(Vec<Phase>);

impl Phases {
    pub(super) fn new(repos: usize) -> Self {
        Self(vec![Phase::Closed; repos])
    }
}

/// Follows all windows until `shutdown`.
pub(super) async fn follow(shared: Arc<Shared>, shutdown: watch::Receiver<bool>) {
    let ticks = async {
        loop {
            let pause = look(&shared);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shared.reviewed.notified() => {}
            }
        }
    };
    tokio::select! {
        () = ticks => {}
        () = stopped(shutdown) => {}
    }
}

/// Looks at all windows; until when that is enough.
fn look(shared: &Shared) -> Duration {
    let now = clock::now();
    let mut pause = TICK;
    let mut phases = shared.phases();
    for index in 0..shared.repos.len() {
        if let Phase::Open { closes } = observe(shared, &mut phases, index, now) {
            pause = pause.min(closes.since(now)).max(SHORTEST);
        }
    }
    pause
}

/// Tells of a change of the phase of repo `index`, and sets its metrics.
pub(super) fn observe(shared: &Shared, phases: &mut Phases, index: usize, now: Timestamp) -> Phase {
    let view = shared.view(index);
    let phase = phase(shared, index, &view, now);
    let repo = Arc::clone(&view.repo);
    let id = [view.repo.id.as_str()];
    shared.metrics.generation.with_label_values(&id).set(view.sequence().into());
    let closes = view.window.map_or(0.0, |window| seconds(window.closes));
    shared.metrics.window_closes.with_label_values(&id).set(closes);
    shared.metrics.window_phase.with_label_values(&id).set(match phase {
        Phase::Closed => 0,
        Phase::Open { .. } => 1,
        Phase::Extended { .. } => 2,
    });
    let before = std::mem::replace(&mut phases.0[index], phase);
    if phase != before {
        match phase {
            Phase::Open { closes } => shared.tell(Event::WindowOpened { repo, until: closes }),
            Phase::Extended { .. } => shared.tell(Event::WindowExtended { repo }),
            Phase::Closed => shared.tell(Event::WindowClosed { repo, at: now }),
        }
    }
    phase
}

fn phase(shared: &Shared, index: usize, view: &RepoView, now: Timestamp) -> Phase {
    // Mirrors count only once the window's time is over; until then they need not be counted.
    let due = view.window.is_some_and(|window| now >= window.closes);
    let fresh = if due { shared.published.mirrors.load().fresh(index, view.sequence()) } else { 0 };
    view.phase(fresh, now)
}

/// As Prometheus has it.
pub(super) fn seconds(time: Timestamp) -> f64 {
    Duration::from_millis(clock::ahead().date_of(time).as_millis()).as_secs_f64()
}
