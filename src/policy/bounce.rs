//! Bounces: a client that comes back for what it was redirected for was failed by the mirror.
//!
//! librepo ends a transaction at the fourth failed transfer, and retries at the node's URL at once. So a node may never
//! have more redirects of one client in the air that are not known to have worked than failures are left to it: three
//! less those of the last hour. It must stop at the first sign of failure, and never name the mirror that failed the
//! client again, since a firewall or an MTU between the two is invisible to the prober. A client proves success only by
//! silence: it goes on to other files.
//!
//! One client or many? A key is an address and a User-Agent. librepo has at most three transfers, so three connections,
//! for each URL entry, whatever `max_parallel_downloads` is, and its budget is for each URL entry as well. A dnf whose
//! list names the node once has three at a time and about six with those of the batch before: up to eight connections
//! are one client, and a retry counts on whichever of them it arrives. A dnf with ten transfers in parallel needs four
//! URL entries for them, so it has four budgets; it may be taken for a crowd, and that is harmless. Nine or more are a
//! crowd, where a repeat on another connection is most likely another host's, and says nothing of the mirror. It is
//! served by the node all the same, since it may be a retry; the connection that was redirected then gets no more
//! redirects. Each connection of a crowd has at most one redirect in the air and confirms only its own, so each host's
//! three connections have three: its budget.

use super::crowd::Connections;
use crate::clock::Timestamp;
use std::time::Duration;

/// Redirects and failures are remembered for this long: a resume may come that late, and a mirror that failed a client
/// stays out of its sight so long.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// A repeat from the start within this time after a redirect is a bounce. Longer than librepo's timeouts (30 s to
/// connect, 30 s below 1000 B/s) take to show.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same for a large file: as long as it takes over a slow line.
const SLOW_BYTES_PER_SECOND: u64 = 32_000;
/// No redirects for this long after a certain bounce: the mirror failed this very client.
const COOL_OFF_CERTAIN: Duration = Duration::from_secs(600);
/// The same after a mere suspicion (a repeat on another connection, which another host behind the same address may have
/// sent), if it is the only one. Long enough for the probe that the bounce sets off to take a bad mirror out.
const COOL_OFF_SUSPECTED: Duration = Duration::from_secs(60);
/// A client's failure budget, and so the redirects in the air that it may have at most.
const MOST_FAILURES: usize = 3;
/// Other files that a client must have asked for until a redirect counts as having worked: it has three transfers in
/// parallel, so by then one of its places was free again, and a failure would have come back first.
const CONFIRMED_AFTER: u8 = 3;
/// Redirects that are remembered for each client.
const REMEMBERED: usize = 64;
/// Failures that are remembered for each client.
const FAILURES: usize = 4;

/// How a file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// From its start; or a part that is a file of its own to its client (zchunk).
    Whole,
    /// From where an earlier transfer broke off: `Range: bytes=N-` with N > 0.
    Resume,
}

impl Ask {
    /// What the value of a Range field asks for.
    #[must_use]
    pub fn from_range(range: Option<&[u8]>) -> Self {
        let first = range
            .and_then(|range| range.strip_prefix(b"bytes=".as_slice()))
            .and_then(|range| range.strip_suffix(b"-".as_slice()));
        let resumes =
            |first: &[u8]| first.iter().all(u8::is_ascii_digit) && first.iter().any(|&digit| digit != b'0');
        if first.is_some_and(resumes) { Self::Resume } else { Self::Whole }
    }
}

/// What a client's past says of redirecting it now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It may be redirected.
    #[default]
    Clear,
    /// Its earlier redirects aren't known to have worked.
    SlowStart,
    /// It was failed lately.
    CoolingOff,
    /// One of many hosts behind the address was redirected for this file lately: this may be its return, or another
    /// host's request. Nobody is to suffer from it, but it is not redirected.
    Repeated {
        /// The number of the mirror.
        mirror: usize,
    },
    /// This very request is the return from a mirror that failed it.
    Bounced {
        /// The number of that mirror.
        mirror: usize,
        /// On the connection that was redirected: no other host can have sent it.
        certain: bool,
    },
}

/// What is remembered of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Whether it may be redirected.
    pub standing: Standing,
    /// The mirrors that it is not to be sent to.
    pub failed: Failed,
}

/// The mirrors that failed a client within the last hour, at most four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failed([Option<usize>; FAILURES]);

impl Failed {
    /// Mirror number `mirror` is one of them.
    #[must_use]
    pub fn contains(&self, mirror: usize) -> bool {
        self.0.contains(&Some(mirror))
    }
}

impl FromIterator<usize> for Failed {
    /// The first four.
    fn from_iter<I: IntoIterator<Item = usize>>(mirrors: I) -> Self {
        let mut failed = Self::default();
        for (place, mirror) in failed.0.iter_mut().zip(mirrors) {
            *place = Some(mirror);
        }
        failed
    }
}

/// A bounce as the server tells it to the prober, which then looks at that mirror at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BounceReport {
    /// The mirror's number.
    pub mirror: usize,
    /// The path that the client was redirected for, below the mirror's URL.
    pub path: String,
}

/// The redirects of one client.
///
/// Times are by the wall clock. Where it steps back, all that would lie in the future has happened now.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// In order of time.
    redirects: Vec<Redirected>,
    /// In order of time.
    failures: Vec<Failure>,
    connections: Connections,
}

#[derive(Clone, Debug)]
struct Redirected {
    file: u64,
    connection: u64,
    at: Timestamp,
    mirror: usize,
    patience_secs: u16,
    others_since: u8,
    /// Asked for again by what may be another host.
    repeated: bool,
}

#[derive(Clone, Debug)]
struct Failure {
    mirror: usize,
    connection: u64,
    at: Timestamp,
    rest: Duration,
    /// As in [`Standing::Bounced`].
    certain: bool,
}

impl Redirected {
    const fn is_confirmed(&self) -> bool {
        self.others_since >= CONFIRMED_AFTER
    }

    /// The time until which it counts as in the air.
    fn ends(&self) -> Timestamp {
        self.at.plus(Duration::from_secs(self.patience_secs.into()))
    }

    fn is_in_the_air(&self, now: Timestamp) -> bool {
        self.repeated || (!self.is_confirmed() && now < self.ends())
    }
}

impl Trail {
    /// Takes note of a request for `file` (path and, where a client fetches one file in parts, the part; as a hash) on
    /// `connection`, and says how the client stands.
    pub fn asks(&mut self, file: u64, ask: Ask, connection: u64, now: Timestamp) -> Past {
        self.forget(now);
        self.connections.sees(connection, now);
        let standing = match self.returns(file, ask, connection, now) {
            Some(returned) => returned,
            None => self.goes_on(connection, now),
        };
        Past { standing, failed: self.failed() }
    }

    /// Takes note that the request was redirected to mirror number `mirror` for a file of `size` bytes.
    pub fn redirected(&mut self, file: u64, mirror: usize, size: u64, connection: u64, now: Timestamp) {
        if self.redirects.len() == REMEMBERED {
            let first = (0..REMEMBERED).min_by_key(|&index| self.redirects[index].ends());
            self.redirects.remove(first.unwrap_or_default());
        }
        let patience = (size / SLOW_BYTES_PER_SECOND).clamp(PATIENCE.as_secs(), REMEMBERED_FOR.as_secs());
        self.redirects.push(Redirected {
            file,
            connection,
            at: now,
            mirror,
            patience_secs: u16::try_from(patience).unwrap_or(u16::MAX),
            others_since: 0,
            repeated: false,
        });
    }

    fn forget(&mut self, now: Timestamp) {
        for at in self.redirects.iter_mut().map(|redirect| &mut redirect.at) {
            *at = (*at).min(now);
        }
        for at in self.failures.iter_mut().map(|failure| &mut failure.at) {
            *at = (*at).min(now);
        }
        self.redirects.retain(|redirect| now.since(redirect.at) < REMEMBERED_FOR);
        self.failures.retain(|failure| now.since(failure.at) < REMEMBERED_FOR);
    }

    /// Whether the request is the return from a mirror, or may be one.
    fn returns(&mut self, file: u64, ask: Ask, connection: u64, now: Timestamp) -> Option<Standing> {
        let is_return =
            |redirect: &Redirected| redirect.file == file && (ask == Ask::Resume || now < redirect.ends());
        let index = self.redirects.iter().rposition(is_return)?;
        let Redirected { mirror, connection: redirected_on, .. } = self.redirects[index];
        let certain = redirected_on == connection;
        if !certain && self.connections.is_crowd() {
            self.redirects[index].repeated = true;
            return Some(Standing::Repeated { mirror });
        }
        self.redirects.remove(index);
        // A retry mostly arrives on another connection. Once that may be chance, twice it isn't.
        let rest = if certain || !self.failures.is_empty() { COOL_OFF_CERTAIN } else { COOL_OFF_SUSPECTED };
        if self.failures.len() == FAILURES {
            self.failures.remove(0);
        }
        self.failures.push(Failure { mirror, connection, at: now, rest, certain });
        Some(Standing::Bounced { mirror, certain })
    }

    /// How the client stands that asks for another file: in a crowd, only what happened on its own connection counts.
    fn goes_on(&mut self, connection: u64, now: Timestamp) -> Standing {
        let crowd = self.connections.is_crowd();
        let is_own = |of: u64| !crowd || of == connection;
        for redirect in self.redirects.iter_mut().filter(|redirect| is_own(redirect.connection)) {
            redirect.others_since = redirect.others_since.saturating_add(1);
        }
        let own_failures = || self.failures.iter().filter(|failure| is_own(failure.connection));
        let left = MOST_FAILURES.saturating_sub(own_failures().count());
        if left == 0 || own_failures().any(|failure| now < failure.at.plus(failure.rest)) {
            return Standing::CoolingOff;
        }
        let own = || self.redirects.iter().filter(|redirect| is_own(redirect.connection));
        let in_the_air = own().filter(|redirect| redirect.is_in_the_air(now)).count();
        let failed_at = own_failures().next_back().map(|failure| failure.at);
        let earned = own()
            .filter(|redirect| redirect.is_confirmed() && failed_at.is_none_or(|at| at < redirect.at))
            .count();
        let most = if crowd { 1 } else { (earned + 1).min(left) };
        if in_the_air < most { Standing::Clear } else { Standing::SlowStart }
    }

    /// In a crowd a suspicion says nothing of the mirror.
    fn failed(&self) -> Failed {
        let crowd = self.connections.is_crowd();
        self.failures
            .iter()
            .filter(|failure| failure.certain || !crowd)
            .map(|failure| failure.mirror)
            .collect()
    }
}

#[cfg(test)]
#[path = "bounce_tests.rs"]
mod tests;
