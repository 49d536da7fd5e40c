//! Bounces: a client that comes back for what it was redirected for was failed by the mirror.
//!
//! librepo ends a transaction at the fourth failed transfer, and retries at the node's URL at once. So a node may never
//! have more redirects of one client in the air that are not known to have worked than failures are left to it: three
//! less those of the last hour. It must stop at the first sign of failure, and never name the mirror that failed the
//! client again, since a firewall or an MTU between the two is invisible to the prober. A client proves success only by
//! silence: it goes on to other files.
//!
//! How many may be in the air? A client has as many transfers as connections: librepo has three for each URL entry by default,
//! up to 20 where it is configured so. Where that is no more than the failures left, no rule is needed to stay within them. A
//! client with more could lose all of its transfers to a mirror that hangs, so that not more of its redirects may be young
//! enough to fail yet than failures are left, whatever it has asked for since. The same holds of a client whose transfers can't be
//! counted: behind a proxy, or at the beginning of a burst of connections. And where failures come at once, as they mostly do,
//! a client with n transfers has asked for n other files before a failed one's place is known to have been free again.
//!
//! One client or many? A key is an address and a User-Agent. Connections that appear together are one client's, up to 20; one
//! client has two such bursts, for metadata and for packages, and its budget is for both. More bursts and more than eight connections are a
//! crowd, where each burst stands for a host, with a budget of its own. A repeat from another burst is most likely another host's,
//! and says nothing of the mirror. It is served by the node all the same, since it may be a retry; the host that was redirected
//! then has one redirect in the air for good. Hosts whose connections appear together share a budget.

pub use super::crowd::Link;
use super::crowd::{Connections, TOGETHER};
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
/// Other files that a client must have asked for, at least, until a redirect counts as having worked: with three transfers in
/// parallel one of its places was free again by then, and a failure that comes at once would have come back first.
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

/// A bounce as the server tells it to the prober.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BounceReport {
    /// The mirror's number.
    pub mirror: usize,
    /// The path that the client was redirected for, below the mirror's URL, if the mirror is to be looked at for it: none where
    /// it was just now.
    pub path: Option<String>,
    /// The client's network, unless it may have been another host behind the same address that was redirected.
    pub network: Option<u64>,
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
    /// Files of which it was said that the client may be redirected, and which isn't decided yet, with the bursts that asked.
    promises: Vec<(u64, u32)>,
}

#[derive(Clone, Debug)]
struct Redirected {
    file: u64,
    link: Link,
    burst: u32,
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
    burst: u32,
    at: Timestamp,
    rest: Duration,
    /// As in [`Standing::Bounced`].
    certain: bool,
}

impl Redirected {
    /// So many others were asked for since.
    fn is_confirmed(&self, after: u8) -> bool {
        self.others_since >= after
    }

    /// The time until which it may still fail.
    fn ends(&self) -> Timestamp {
        self.at.plus(Duration::from_secs(self.patience_secs.into()))
    }

    /// It may still fail, as far as time tells.
    fn is_young(&self, now: Timestamp) -> bool {
        self.repeated || now < self.ends()
    }

    /// It is neither confirmed nor too old to fail.
    fn is_in_the_air(&self, after: u8, now: Timestamp) -> bool {
        self.repeated || (!self.is_confirmed(after) && now < self.ends())
    }
}

/// Where a request comes from, as far as the client's connections tell.
#[derive(Clone, Copy)]
struct Origin {
    link: Link,
    burst: u32,
    /// Of a crowd.
    crowd: bool,
    /// Transfers that its client may have at a time, as far as they were seen.
    parallel: usize,
    /// It can't have more.
    is_counted: bool,
}

impl Origin {
    /// Whether what happened to a connection of burst `of` is the same client's.
    const fn is_own(self, of: u32) -> bool {
        !self.crowd || of == self.burst
    }
}

impl Trail {
    /// Takes note of a request for `file` (path and, where a client fetches one file in parts, the part; as a hash) over
    /// `link`, and says how the client stands.
    pub fn asks(&mut self, file: u64, ask: Ask, link: impl Into<Link>, now: Timestamp) -> Past {
        self.forget(now);
        let origin = self.origin(link.into(), now);
        let standing = match self.returns(file, ask, origin, now) {
            Some(returned) => returned,
            None => self.goes_on(origin, now),
        };
        Past { standing, failed: self.failed(origin.crowd) }
    }

    /// [`asks`](Self::asks), where requests of one client are decided at the same time: a request that may be redirected counts as
    /// redirected until [`decided`](Self::decided). Else two of them would take the one place that is left.
    pub fn asks_beside_others(&mut self, file: u64, ask: Ask, link: impl Into<Link>, now: Timestamp) -> Past {
        let link = link.into();
        let past = self.asks(file, ask, link, now);
        if past.standing == Standing::Clear {
            let burst = self.connections.sees(link, now);
            self.promises.push((file, burst));
        }
        past
    }

    /// It is decided, and noted if it is so, whether the client is redirected for `file`.
    pub fn decided(&mut self, file: u64) {
        if let Some(index) = self.promises.iter().position(|(promised, _)| *promised == file) {
            self.promises.swap_remove(index);
        }
    }

    /// Takes note that the request was redirected to mirror number `mirror` for a file of `size` bytes.
    pub fn redirected(&mut self, file: u64, mirror: usize, size: u64, link: impl Into<Link>, now: Timestamp) {
        let link = link.into();
        let burst = self.connections.sees(link, now);
        if self.redirects.len() == REMEMBERED {
            let first = (0..REMEMBERED).min_by_key(|&index| self.redirects[index].ends());
            self.redirects.remove(first.unwrap_or_default());
        }
        let patience = (size / SLOW_BYTES_PER_SECOND).clamp(PATIENCE.as_secs(), REMEMBERED_FOR.as_secs());
        self.redirects.push(Redirected {
            file,
            link,
            burst,
            at: now,
            mirror,
            patience_secs: u16::try_from(patience).unwrap_or(u16::MAX),
            others_since: 0,
            repeated: false,
        });
    }

    /// What [`asks`](Self::asks) would say of a request on the connection that was last asked on.
    #[must_use]
    pub fn would_say(mut self, file: u64, ask: Ask, now: Timestamp) -> Past {
        let link = self.connections.latest();
        self.asks(file, ask, link, now)
    }

    /// Takes note that `connection` has ended.
    pub fn closes(&mut self, connection: u64) {
        self.connections.closes(connection);
    }

    fn origin(&mut self, link: Link, now: Timestamp) -> Origin {
        let burst = self.connections.sees(link, now);
        let crowd = self.connections.is_crowd(now);
        let parallel = if crowd { self.connections.parallel_in(burst) } else { self.connections.parallel() };
        // A new burst of a crowd is another host's.
        let is_counted =
            if crowd { self.connections.is_counted_in(burst, now) } else { self.connections.is_counted(now) };
        Origin { link, burst, crowd, parallel, is_counted: is_counted && !link.is_unknown() }
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
    fn returns(&mut self, file: u64, ask: Ask, origin: Origin, now: Timestamp) -> Option<Standing> {
        let is_return =
            |redirect: &Redirected| redirect.file == file && (ask == Ask::Resume || now < redirect.ends());
        let index = self.redirects.iter().rposition(is_return)?;
        let Redirected { mirror, link, burst, .. } = self.redirects[index];
        let certain = link.is_same(origin.link);
        if !certain && !origin.is_own(burst) {
            self.redirects[index].repeated = true;
            return Some(Standing::Repeated { mirror });
        }
        self.redirects.remove(index);
        // A retry mostly arrives on another connection. Once that may be chance, twice it isn't.
        let rest = if certain || !self.failures.is_empty() { COOL_OFF_CERTAIN } else { COOL_OFF_SUSPECTED };
        if self.failures.len() == FAILURES {
            self.failures.remove(0);
        }
        self.failures.push(Failure { mirror, burst: origin.burst, at: now, rest, certain });
        Some(Standing::Bounced { mirror, certain })
    }

    /// How the client stands that asks for another file: in a crowd, only what happened on its own connections counts.
    fn goes_on(&mut self, origin: Origin, now: Timestamp) -> Standing {
        let after = u8::try_from(origin.parallel).unwrap_or(u8::MAX).max(CONFIRMED_AFTER);
        // Of an unknown number of transfers over one connection, those that come together may be a burst.
        let is_later =
            |at: Timestamp| origin.is_counted || !origin.link.is_shared() || now.since(at) >= TOGETHER;
        for redirect in self.redirects.iter_mut().filter(|redirect| origin.is_own(redirect.burst)) {
            redirect.others_since = redirect.others_since.saturating_add(u8::from(is_later(redirect.at)));
        }
        let own_failures = || self.failures.iter().filter(|failure| origin.is_own(failure.burst));
        let left = MOST_FAILURES.saturating_sub(own_failures().count());
        if left == 0 || own_failures().any(|failure| now < failure.at.plus(failure.rest)) {
            return Standing::CoolingOff;
        }
        let own = || self.redirects.iter().filter(|redirect| origin.is_own(redirect.burst));
        let promised = self.promises.iter().filter(|(_, burst)| origin.is_own(*burst)).count();
        let in_the_air = promised + own().filter(|redirect| redirect.is_in_the_air(after, now)).count();
        // What may hang: no more than the transfers that the client has beside this one, where they are known.
        let young = promised + own().filter(|redirect| redirect.is_young(now)).count();
        let others = if origin.is_counted { origin.parallel.saturating_sub(1) } else { usize::MAX };
        let may_hang = young.min(others);
        let failed_at = own_failures().next_back().map(|failure| failure.at);
        let earned = own()
            .filter(|redirect| redirect.is_confirmed(after) && failed_at.is_none_or(|at| at < redirect.at))
            .count();
        // A host that has one connection has one transfer; outside of a crowd it may be a proxy's.
        let most = (earned + 1).min(left).min(if origin.crowd { origin.parallel } else { left });
        if in_the_air < most && may_hang < left { Standing::Clear } else { Standing::SlowStart }
    }

    /// In a crowd a suspicion says nothing of the mirror.
    fn failed(&self, crowd: bool) -> Failed {
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
