//! `freshet push`: has the node look for pushes, and waits for what comes of it.

use super::ask;
use crate::admin::query;
use crate::clock;
use crate::config::Config;
use crate::push::Faults;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

/// Between two looks at how a push stands.
const EVERY: Duration = Duration::from_millis(200);

/// Whether to wait for what comes of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Only have it looked for.
    No,
    /// Until it is offered or fails, for so long at most.
    UpTo(Duration),
}

/// The answer to `POST /api/v1/push`.
#[derive(Deserialize)]
struct Ordered {
    polled: usize,
    /// By repo.
    #[serde(default)]
    orders: BTreeMap<String, u64>,
}

/// A repo in the answer to `GET /api/v1/push`.
#[derive(Deserialize)]
struct State {
    id: String,
    push: Push,
}

#[derive(Deserialize)]
struct Push {
    step: String,
    last_error: Option<String>,
    unfinished: bool,
    answered: u64,
}

/// What has come of an order.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing yet.
    Open,
    /// What the origin shows is on offer.
    Offered,
    /// It isn't, and why.
    Failed(String),
}

impl State {
    fn outcome(&self, order: u64) -> Outcome {
        if self.push.answered < order || self.push.unfinished {
            return Outcome::Open;
        }
        // Of a push that is held it says so; an earlier hold may stand beside a later error.
        match &self.push.last_error {
            Some(error) => Outcome::Failed(error.clone()),
            None => Outcome::Offered,
        }
    }

    /// How it stands, for those who don't wait any longer.
    fn standing(&self) -> String {
        let why = self.push.last_error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        format!("{}{why}", self.push.step)
    }
}

/// Has the node look for a push of `repo`, or of all repos, at once.
///
/// # Errors
/// The node can't be reached, or has no such repo. If it is waited for: what the origin shows isn't offered.
pub fn push(config: &Config, repo: Option<&str>, faults: Faults, wait: Wait) -> Result<String> {
    let query = query::ordering(repo, faults);
    let mark = if query.is_empty() { "" } else { "?" };
    let answer = ask(config, "POST", &format!("/api/v1/push{mark}{query}"))?;
    let ordered: Ordered = serde_json::from_str(&answer).context(FOREIGN)?;
    match (wait, repo) {
        (Wait::UpTo(bound), _) => wait_for(config, repo, ordered.orders, bound),
        (Wait::No, Some(repo)) => Ok(format!("{repo}: the node looks for a push now\n")),
        (Wait::No, None) => Ok(format!("the node looks for pushes now, repos: {}\n", ordered.polled)),
    }
}

const FOREIGN: &str = "the node's answer can't be read: is it of another version?";

/// Waits until each of these orders is carried out.
fn wait_for(
    config: &Config,
    repo: Option<&str>,
    mut orders: BTreeMap<String, u64>,
    bound: Duration,
) -> Result<String> {
    let query = repo.map(|repo| format!("?repo={}", query::encode(repo))).unwrap_or_default();
    let until = clock::monotonic() + bound;
    let (mut offered, mut failed) = (String::new(), Vec::new());
    loop {
        let answer = ask(config, "GET", &format!("/api/v1/push{query}"))?;
        let states: Vec<State> = serde_json::from_str(&answer).context(FOREIGN)?;
        for state in &states {
            let Some(order) = orders.get(&state.id) else { continue };
            match state.outcome(*order) {
                Outcome::Open => continue,
                Outcome::Offered => _ = writeln!(offered, "{}: what the origin shows is offered", state.id),
                Outcome::Failed(why) => failed.push(format!("{}: {why}", state.id)),
            }
            orders.remove(&state.id);
        }
        if orders.is_empty() {
            break;
        }
        if clock::monotonic() >= until {
            let open = states.iter().filter(|state| orders.contains_key(&state.id));
            let after = humantime::format_duration(bound);
            failed.extend(
                open.map(|open| format!("{}: not offered after {after}: {}", open.id, open.standing())),
            );
            break;
        }
        thread::sleep(EVERY);
    }
    if failed.is_empty() {
        return Ok(offered);
    }
    bail!("{}", failed.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_open_until_it_is_answered() {
        let state = |answered, unfinished, error: Option<&str>| State {
            id: "updates".into(),
            push: Push { step: "idle".into(), last_error: error.map(str::to_owned), unfinished, answered },
        };
        let failed = |why: &str| Outcome::Failed(why.to_owned());
        let cases = [
            (state(1, false, Some("held: a.rpm: absent")), Outcome::Open),
            (state(2, true, Some("no signature yet")), Outcome::Open),
            (state(2, false, None), Outcome::Offered),
            (state(3, false, None), Outcome::Offered),
            (state(2, false, Some("held: a.rpm: absent")), failed("held: a.rpm: absent")),
            (state(2, false, Some("the origin can't be reached")), failed("the origin can't be reached")),
        ];
        for (state, expected) in cases {
            assert_eq!(state.outcome(2), expected);
        }
        let waiting = state(1, true, Some("no signature yet"));
        assert_eq!(waiting.standing(), "idle: no signature yet");
    }

    #[test]
    fn a_newer_error_is_told_instead_of_the_hold_beside_it() {
        let state = r#"{
            "id": "updates",
            "held": {"file": "a.rpm", "fault": "absent", "files": 1},
            "push": {"step": "idle", "last_error": "the origin is down", "unfinished": false, "answered": 2}
        }"#;
        let state: State = serde_json::from_str(state).unwrap();
        assert_eq!(state.outcome(2), Outcome::Failed("the origin is down".to_owned()));
    }
}
