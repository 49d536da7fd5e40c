//! What the mirror is asked, each as a task of its own.

use super::{BOUNCE_PAUSE, CHECK_LASTS, Done, Worker, now};
use crate::http::TreePath;
use crate::mirrors::check::{self, Asker, Compared, Doubt, Settled, Transfer};
use crate::mirrors::client::{Failure, MirrorClient};
use crate::mirrors::findings::{Base, Findings, Held};
use crate::mirrors::judge::{self, File, Lapse, Missed, Next};
use crate::policy::Pair;
use crate::repo::History;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Repos that a liveness check may ask for.
const LIVENESS_REPOS: usize = 2;
/// Between two measurements of how fast the mirror is: a mebibyte an hour costs its admin nothing.
const MEASURE_EVERY: Duration = Duration::from_secs(3600);

/// Files that a mirror which is back from an outage is asked for.
const RETURN_SAMPLE: usize = 8;
/// New files of which parts are compared before a mirror is proven for a push.
const COMPARED_NEW: usize = 4;
/// Files that are tried where the one that was wrong is gone: the node has few of them at hand.
const COMPARED_INSTEAD: usize = 64;

impl Worker {
    pub(super) fn start_liveness(&mut self) {
        self.liveness.running = true;
        let (shared, family, urls) = (self.shared.clone(), self.place.family, self.liveness_urls());
        self.tasks.spawn(async move { Done::Alive(alive(shared.client(family), &urls).await) });
    }

    /// Where it is asked whether it lives: at the repomd.xml of two repos that answered when they were last looked at,
    /// proven ones before others, and at its root. The next counts only if one has an error: a repo may be broken alone.
    pub(super) fn liveness_urls(&self) -> Vec<String> {
        let pairs = &self.state.pairs[..self.state.pairs.len().min(self.repos.views().len())];
        let mut answered: Vec<_> = (0..pairs.len()).filter(|repo| pairs[*repo].seen.is_some()).collect();
        answered.sort_by_key(|repo| pairs[*repo].proof.is_none());
        let repomds = answered.into_iter().take(LIVENESS_REPOS).map(|repo| self.root_url(repo));
        repomds.chain(std::iter::once(self.state.mirror.url.clone())).collect()
    }

    pub(super) fn start_look(&mut self, repo: usize) {
        let url = self.root_url(repo);
        let (shared, place) = (self.shared.clone(), self.place.clone());
        let slot = &mut self.slots[repo];
        (slot.running, slot.again) = (true, false);
        // Where all is well only: a validator may stand for two versions of one second, and a mirror that seems to lag
        // must not be held there by it.
        let known = slot.validator.clone().filter(|_| self.is_current(repo));
        self.tasks.spawn(async move {
            let timed = async {
                let begun = now();
                let result = Box::pin(shared.client(place.family).look(&url, known)).await;
                (result, begun.elapsed())
            };
            let (result, took) = place.lanes.run(timed).await;
            Done::Looked { repo, result, took }
        });
    }

    pub(super) fn start_next(&mut self, repo: usize, next: Next) {
        match next {
            Next::Rest => self.rest(repo),
            Next::Spot(_) => self.start_spot(repo),
            Next::Verify(target) => self.start_check(repo, target),
        }
    }

    /// Compares a part of a file that the proof covers.
    fn start_spot(&mut self, repo: usize) {
        let (history, pair, mut rng) =
            (self.history(repo).clone(), self.state.pairs[repo].clone(), fastrand::Rng::new());
        let Some(file) = judge::spot(&history, &pair, &mut rng) else { return self.rest(repo) };
        let is_long = self.measure <= now() && file.size >= judge::LONG_SAMPLE_BYTES;
        let bytes = if is_long { judge::LONG_SAMPLE_BYTES } else { judge::SAMPLE_BYTES };
        let part = judge::sample(&file, bytes, &mut rng);
        if is_long {
            self.measure = now() + MEASURE_EVERY;
        }
        let asker = self.asker(repo);
        self.tasks.spawn(async move {
            let (result, transfer) = Box::pin(asker.compare(file.clone(), part)).await;
            // One that was broken off by the timeout tells how slow the mirror is, and nothing else.
            let is_told = is_long && transfer.bytes > 0;
            let throughput = is_told.then(|| per_second(transfer));
            let result = match result {
                Err(missed) if missed.transient && is_told => Ok(Compared::Unknown),
                Ok(compared) => Ok(compared),
                Err(missed) => Err(Box::pin(lapse(&asker, (&history, &pair), missed, &file)).await),
            };
            Done::Spotted { repo, result, throughput }
        });
    }

    /// Asks a mirror that is back from an outage for some of what it was proven to hold, before `next`.
    pub(super) fn start_sample(&mut self, repo: usize, next: Next) {
        let (history, pair) = (self.history(repo).clone(), self.state.pairs[repo].clone());
        let mut rng = fastrand::Rng::new();
        let files: Vec<File> =
            (0..RETURN_SAMPLE).filter_map(|_| judge::spot(&history, &pair, &mut rng)).collect();
        let asker = self.asker(repo);
        self.tasks.spawn(async move {
            for file in files {
                if let Err(failure) = asker.sampled(&file).await {
                    let (path, transient) = (file.path, failure.is_transient());
                    let missed = Missed { path, why: failure.of_file(), transient };
                    return Done::Sampled { repo, next, result: Err(missed) };
                }
            }
            Done::Sampled { repo, next, result: Ok(()) }
        });
    }

    /// Checks the files of generation `target`, or goes on with that.
    fn start_check(&mut self, repo: usize, target: u32) {
        let history = self.history(repo).clone();
        let check = self.check(repo, target);
        let doubted = self.slots[repo].doubted.clone();
        // Another generation may not list what was wrong: then others have to be right, whatever was pushed meanwhile.
        let others = match &doubted {
            Some(doubt) if !judge::lists(&history, target, &doubt.file) => {
                let rng = &mut fastrand::Rng::new();
                let now_there = judge::listed(&history, target, &doubt.file.path);
                now_there
                    .into_iter()
                    .chain(judge::comparable(&history, target, COMPARED_INSTEAD, rng))
                    .collect()
            }
            _ => Vec::new(),
        };
        let asker = self.asker(repo);
        self.tasks.spawn(async move {
            let Checked { result, ranges, settled } = checked(&asker, &check, doubted.as_ref(), others).await;
            Done::Verified { repo, check, result, ranges, settled }
        });
    }

    /// The check of that generation: the one that was broken off, if nothing has changed since it began.
    fn check(&mut self, repo: usize, target: u32) -> Arc<Mutex<Findings>> {
        let (pair, now) = (&self.state.pairs[repo], now());
        if let Some((check, begun)) = &self.slots[repo].check {
            let mut findings = check::lock(check);
            let is_same = findings.target() == target && findings.base().is_of(pair);
            if is_same && now.saturating_duration_since(*begun) < CHECK_LASTS {
                findings.resume();
                return check.clone();
            }
        }
        let (most, mut rng) = (self.shared.settings.sample, fastrand::Rng::new());
        let findings = Findings::begin(self.history(repo), Base::of(pair), target, most, &mut rng);
        let check = Arc::new(Mutex::new(findings));
        self.slots[repo].check = Some((check.clone(), now));
        check
    }

    /// Asks for the file that a client came back for.
    pub(super) fn start_bounce(&mut self, path: &str, tries: u32) {
        let Ok(path) = TreePath::new(path) else { return };
        let Some(place) = self.repos.locate(&path) else { return };
        let Some(listed) = place.listed else { return };
        let (repo, entry) = (place.index, listed.entry);
        let file = File { path: place.relative.to_owned(), size: entry.size, digest: entry.digest };
        self.bounces.after = now() + BOUNCE_PAUSE;
        self.place.hosts.forget();
        let (history, pair, asker) =
            (self.history(repo).clone(), self.state.pairs[repo].clone(), self.asker(repo));
        self.tasks.spawn(async move {
            let result = match asker.bounced(&file).await {
                Ok(()) => Ok(()),
                Err(failure) => {
                    let missed = Missed {
                        path: file.path.clone(),
                        why: failure.of_file(),
                        transient: failure.is_down(),
                    };
                    Err((failure, lapse(&asker, (&history, &pair), missed, &file).await))
                }
            };
            Done::Bounced { path, tries, result }
        });
    }

    pub(super) fn asker(&self, repo: usize) -> Asker {
        Asker {
            shared: self.shared.clone(),
            place: self.place.clone(),
            base: self.state.mirror.url.clone(),
            repo: Arc::clone(&self.repos.views()[repo].repo),
        }
    }
}

/// Whether a file that is missing is missing alone.
async fn lapse(asker: &Asker, (history, pair): (&History, &Pair), missed: Missed, file: &File) -> Lapse {
    let witnesses = judge::witnesses(history, pair, &missed.path, &mut fastrand::Rng::new());
    asker.lapse(missed, file, &witnesses).await
}

/// What a check finds.
pub(super) struct Checked {
    result: Result<Held, Missed>,
    /// Whether the mirror answers ranges, where that was seen.
    ranges: Option<bool>,
    settled: Settled,
}

/// Checks a generation. A start of a node with many mirrors has tens of thousands of these: what asks is made only where it is
/// needed, and what waits is small.
pub(super) async fn checked(
    asker: &Asker,
    check: &Mutex<Findings>,
    doubted: Option<&Doubt>,
    others: Vec<File>,
) -> Checked {
    let failed = |missed| Checked { result: Err(missed), ranges: None, settled: Settled::No };
    if let Some(doubt) = doubted
        && let Err(missed) = Box::pin(asker.settle(doubt, others)).await
    {
        return failed(missed);
    }
    if let Err(missed) = asker.all(check).await {
        return failed(missed);
    }
    let (result, compared) = {
        let findings = check::lock(check);
        (findings.result(), compared_of(asker, &findings))
    };
    if result.is_err() {
        return Checked { result, ranges: None, settled: Settled::No };
    }
    // What a HEAD can't see: some of the new files are compared, as far as the node has them at hand.
    let mut ranges = None;
    for file in compared {
        match Box::pin(asker.compare_some(file)).await {
            Ok(Compared::Fits | Compared::Unknown) => ranges = Some(true),
            Ok(Compared::NoRanges) => ranges = Some(false),
            Ok(Compared::Differs(doubt)) => {
                return Checked { result: Err(doubt.missed()), ranges, settled: Settled::Wrong(doubt) };
            }
            Err(missed) if missed.transient => break,
            Err(missed) => return failed(missed),
        }
    }
    let settled = if doubted.is_some() { Settled::Yes } else { Settled::No };
    Checked { result, ranges, settled }
}

/// The files of which parts are compared: new ones at random, or any where none is new.
///
/// At a first proof all files are new, and so they are in all repos of a mirror: it is one for each, and more within the
/// mirror's allowance.
fn compared_of(asker: &Asker, findings: &Findings) -> Vec<File> {
    let most = match findings.base().proof {
        Some(_) => COMPARED_NEW,
        None => 1 + asker.place.allowance.take(COMPARED_NEW - 1, now()),
    };
    let new = findings.new_files().filter(|file| file.size > 0).cloned();
    let mut compared = fastrand::choose_multiple(new, most);
    if compared.is_empty() {
        compared.extend(findings.ranged().cloned());
    }
    compared
}

/// Whether one of `urls` answers without an error of the server; all are on one host. If none does, what the first said.
async fn alive(client: &MirrorClient, urls: &[String]) -> Result<(), Failure> {
    let mut answer = client.alive(urls.first().map_or("", String::as_str)).await;
    for url in urls.iter().skip(1) {
        let Err(Failure::Status(_)) = answer else { break };
        match client.alive(url).await {
            Err(Failure::Status(_)) => {}
            other => answer = other,
        }
    }
    answer
}

fn per_second(Transfer { bytes, took }: Transfer) -> u64 {
    let nanos = took.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}
