//! How much each mirror is being sent, against what it donates.
//!
//! A redirect is an expectation: the node never learns whether its client follows it. Each mirror has an account, a leaky bucket
//! that redirects fill by what is expected of them and that time drains by the donated bandwidth. While clients follow, that is
//! what the mirror is sent. A client that asks for large files and follows no redirect would fill the account for all others, so:
//!
//! - **What no line can take is not expected.** Of what an address is redirected for beyond what it could be fetching, nothing
//!   is charged ([`super::Lines`]). An address that isn't following is soon found out, and costs others nothing.
//! - **Networks share the account.** What is charged drains from all networks that have something there in even parts. One
//!   that has its even share of the account finds it full at half, the others at its end: where they meet, the next file is
//!   another network's.
//! - **What is small doesn't wait for what is large.** One image may fill the account for a minute. So there are classes: little
//!   (a network's part, with the file, is a 128th of the account or its even share), middle (the file is a 16th of it, of a
//!   network below its even share), and all else. Each is as large as the account, and only its own and smaller ones count.
//! - **A network alone is sent no more than the mirror donates**, whatever of it is expected: many hosts may share an address
//!   with a fast line, and all go to one mirror.
//! - **A bounce gives back** what its redirect was charged with, as far as it isn't drained.
//!
//! The worst case, for clients that follow: the donated bandwidth in the long run; at once three times `mirrors.ahead` of it and
//! one file, where each class is full. Beyond this goes what addresses really fetch faster than [`super::lines::LINE`]: each of
//! their networks may be sent the donated bandwidth once more.
//!
//! What is left to an attack: files larger than a 16th of the account, by a hundred networks that each ask for what one line
//! might take. They can't be told from clients that follow. The node serves these files to others then.
//!
//! Considered and left: a redirect to the least loaded mirror needs no account, but dnf runs would jump between mirrors. To
//! redirect no more a client that doesn't follow would make the node serve the hosts behind a fast address. To charge nothing
//! until a client has followed would let a release through uncharged: most of its clients are new.

use crate::clock::Timestamp;
use crate::config::Bandwidth;
use std::cell::Cell;
use std::sync::Mutex;
use std::time::Duration;

/// Requests overtake each other, so `now` may go back a little. Beyond this the wall clock was set back, and the bucket
/// drains from there on; else it would stay as full as it is until the clock has caught up.
pub(super) const OVERTAKEN: Duration = Duration::from_secs(60);
/// Networks that have something in an account, at most: 24 bytes each. Beyond it the one is forgotten that has least.
const MOST_NETWORKS: usize = 256;
/// What a network may have in an account, the file that it asks for included, to be of the first class: its even share, and no
/// more than one part in so many. A hundred networks that all come at once so leave room for others.
const LITTLE: f64 = 128.0;
/// What a file may take of the account to be of the second class, if its network has less than its even share: one part in so
/// many.
const MIDDLE: f64 = 16.0;
/// Little, middle, and all else.
const CLASSES: usize = 3;
/// The class of what is neither little nor middle.
const LARGE: usize = CLASSES - 1;
/// Accounts that are looked into for a network's part, at most, in one request. It is asked of mirrors in the order of their
/// nearness, and for all of a thousand it would take a tenth of a millisecond.
const MOST_LOOKS: u32 = 32;
/// Part of the bandwidth by which the networks' parts drain. It is less than all, so that networks that take their even shares
/// again and again leave the account some room: else it would be full for one that has nothing there yet.
const SHARED: f64 = 0.5;
/// The networks' parts drain in steps of so much at least: it is much work for each request, and a small part of what is ahead.
const STEP: Duration = Duration::from_millis(50);
/// Up to this part of an account all is expected: it fits, and there is nothing to look up.
const CALM: f64 = 0.25;
/// Rounds in which what networks with little leave of an even part goes to the others.
const ROUNDS: usize = 4;

/// An account for each mirror.
#[derive(Debug)]
pub struct MirrorLoad {
    /// Seconds of its bandwidth that a mirror may be sent ahead: evens out bursts, and lets one large file through.
    ahead_seconds: f64,
    accounts: Vec<Mutex<Account>>,
}

/// Who asks for room, for one request.
#[derive(Debug)]
pub struct Asker {
    network: u64,
    bytes: f64,
    looks: Cell<u32>,
}

impl Asker {
    /// A client of `network` ([`super::client::network`]) that asks for a file of `bytes`.
    #[must_use]
    pub fn new(network: u64, bytes: u64) -> Self {
        Self { network, bytes: rate(bytes), looks: Cell::new(MOST_LOOKS) }
    }

    /// Whether one more account may be looked into.
    fn may_look(&self) -> bool {
        let left = self.looks.get();
        self.looks.set(left.saturating_sub(1));
        left > 0
    }
}

/// Bytes, each drained by the donated bandwidth since `at`.
#[derive(Debug)]
struct Account {
    bytes_per_second: f64,
    /// What is expected to be fetched, of each class and those before it.
    levels: [f64; CLASSES],
    /// What redirects were for.
    asked: f64,
    at: Timestamp,
    networks: Vec<Held>,
    /// Of these, those with a part that isn't drained.
    holders: usize,
    /// As of when the networks' parts are.
    shared_at: Timestamp,
}

/// A network's part of an account.
#[derive(Clone, Copy, Debug)]
struct Held {
    network: u64,
    /// Drained in even parts with the other networks, by [`SHARED`] of the bandwidth.
    charged: f64,
    /// Drained as if it were alone.
    asked: f64,
}

impl Account {
    /// Bytes that have drained since `at`.
    fn drained(&mut self, now: Timestamp) -> f64 {
        if self.at > now.plus(OVERTAKEN) {
            self.at = now;
        }
        self.bytes_per_second * now.since(self.at).as_secs_f64()
    }

    /// Adds to a class what was asked for and what of it is expected.
    fn add(&mut self, class: usize, asked: f64, expected: f64, now: Timestamp) {
        let drained = self.drained(now);
        self.asked = (self.asked - drained).max(0.0) + asked;
        for (of, level) in self.levels.iter_mut().enumerate() {
            *level = (*level - drained).max(0.0) + if of >= class { expected } else { 0.0 };
        }
        self.at = self.at.max(now);
    }

    /// Drains the networks' parts.
    fn share(&mut self, now: Timestamp) {
        if self.shared_at > now.plus(OVERTAKEN) {
            self.shared_at = now;
        }
        let time = now.since(self.shared_at);
        if time < STEP {
            return;
        }
        self.shared_at = now;
        let drained = self.bytes_per_second * time.as_secs_f64();
        for held in &mut self.networks {
            held.asked = (held.asked - drained).max(0.0);
        }
        let mut left = drained * SHARED;
        for _ in 0..ROUNDS {
            let each = left / rate(self.holders as u64).max(1.0);
            (left, self.holders) = (0.0, 0);
            for held in self.networks.iter_mut().filter(|held| held.charged > 0.0) {
                left += (each - held.charged).max(0.0);
                held.charged = (held.charged - each).max(0.0);
                self.holders += usize::from(held.charged > 0.0);
            }
            if left < 1.0 {
                break;
            }
        }
        self.networks.retain(|held| held.charged > 0.0 || held.asked > 0.0);
    }

    fn held(&self, network: u64) -> Held {
        let known = self.networks.iter().find(|held| held.network == network);
        known.copied().unwrap_or(Held { network, charged: 0.0, asked: 0.0 })
    }

    /// Replaces a network's part. Room is made for a new one.
    fn hold(&mut self, part: Held) {
        let known = self.networks.iter().position(|held| held.network == part.network);
        let index = known.or_else(|| {
            let size = |held: &Held| held.charged.max(held.asked);
            let by_size =
                |a: &usize, b: &usize| size(&self.networks[*a]).total_cmp(&size(&self.networks[*b]));
            let is_full = self.networks.len() >= MOST_NETWORKS;
            (0..self.networks.len()).min_by(by_size).filter(|_| is_full)
        });
        let before = match index {
            Some(index) => std::mem::replace(&mut self.networks[index], part),
            None => {
                self.networks.push(part);
                Held { charged: 0.0, ..part }
            }
        };
        self.holders -= usize::from(before.charged > 0.0);
        self.holders += usize::from(part.charged > 0.0);
    }

    /// The even share of an account of `depth` bytes for a network with this part.
    fn even_share(&self, held: &Held, depth: f64) -> f64 {
        let holders = self.holders + usize::from(held.charged <= 0.0);
        depth / rate(holders as u64)
    }
}

/// The class of a file of `bytes` for a network with this part, in an account of `depth` of which `even` is its even share.
fn class(held: &Held, bytes: f64, depth: f64, even: f64) -> usize {
    if held.charged + bytes <= even.min(depth / LITTLE) {
        0
    } else if held.charged < even && bytes <= depth / MIDDLE {
        1
    } else {
        LARGE
    }
}

impl MirrorLoad {
    /// One account for each donated bandwidth, of which a mirror may be sent so much ahead (`mirrors.ahead`).
    pub fn new(donated: impl IntoIterator<Item = Bandwidth>, ahead: Duration) -> Self {
        let account = |bandwidth: Bandwidth| Account {
            bytes_per_second: rate(bandwidth.bytes_per_second()),
            levels: [0.0; CLASSES],
            asked: 0.0,
            at: Timestamp::EPOCH,
            networks: Vec::new(),
            holders: 0,
            shared_at: Timestamp::EPOCH,
        };
        let accounts = donated.into_iter().map(|bandwidth| Mutex::new(account(bandwidth))).collect();
        Self { ahead_seconds: ahead.as_secs_f64(), accounts }
    }

    /// Whether mirror number `mirror` may be sent more now, whatever the network.
    #[must_use]
    pub fn has_room(&self, mirror: usize, now: Timestamp) -> bool {
        let mut account = self.lock(mirror);
        let drained = account.drained(now);
        account.levels[LARGE] - drained < account.bytes_per_second * self.ahead_seconds
    }

    /// Whether mirror number `mirror` may be sent what this client asks for.
    #[must_use]
    pub fn has_room_for(&self, mirror: usize, asker: &Asker, now: Timestamp) -> bool {
        let mut account = self.lock(mirror);
        let depth = account.bytes_per_second * self.ahead_seconds;
        let drained = account.drained(now);
        // No network can have more than all of them.
        if account.asked - drained < depth / 2.0 {
            return true;
        }
        if !asker.may_look() {
            return account.asked - drained < depth;
        }
        account.share(now);
        let held = account.held(asker.network);
        let even = account.even_share(&held, depth);
        let class = class(&held, asker.bytes, depth, even);
        let end = if class < LARGE || held.charged < even { depth } else { depth / 2.0 };
        held.asked < depth && account.levels[class] - drained < end
    }

    /// Bytes that mirror number `mirror` is expected to have been sent ahead, and that it may be.
    #[must_use]
    pub fn ahead(&self, mirror: usize, now: Timestamp) -> (u64, u64) {
        let mut account = self.lock(mirror);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes, none below 0")]
        let bytes = |bytes: f64| bytes as u64;
        let drained = account.drained(now);
        let level = (account.levels[LARGE] - drained).max(0.0);
        (bytes(level), bytes(account.bytes_per_second * self.ahead_seconds))
    }

    /// Counts a redirect of `bytes` to mirror number `mirror`, all of which is expected to be fetched, of no network.
    pub fn sent(&self, mirror: usize, bytes: u64, now: Timestamp) {
        self.lock(mirror).add(LARGE, rate(bytes), rate(bytes), now);
    }

    /// Counts a redirect of a client of `network` for `asked` bytes to mirror number `mirror`. `expected` says how many of them
    /// it is expected to fetch ([`super::Lines::expected`]), where that makes a difference.
    pub fn charge(
        &self,
        mirror: usize,
        network: u64,
        asked: u64,
        expected: impl FnOnce() -> u64,
        now: Timestamp,
    ) {
        if asked == 0 {
            return;
        }
        let mut account = self.lock(mirror);
        let depth = account.bytes_per_second * self.ahead_seconds;
        account.share(now);
        let before = (account.asked - account.drained(now)).max(0.0);
        let is_calm = before + rate(asked) < depth * CALM;
        let (asked, expected) = (rate(asked), rate(if is_calm { asked } else { expected() }));
        let held = account.held(network);
        let class = class(&held, asked, depth, account.even_share(&held, depth));
        account.add(class, asked, expected, now);
        account.hold(Held { network, charged: held.charged + expected, asked: held.asked + asked });
    }

    /// Gives back what a redirect to mirror number `mirror` was charged with, of which the client came back for `bytes`: at most
    /// what its network still has there.
    pub fn give_back(&self, mirror: usize, network: u64, bytes: u64, now: Timestamp) {
        let mut account = self.lock(mirror);
        account.share(now);
        let held = account.held(network);
        let (charged, asked) = (held.charged.min(rate(bytes)), held.asked.min(rate(bytes)));
        if asked <= 0.0 && charged <= 0.0 {
            return;
        }
        account.add(LARGE, 0.0, 0.0, now);
        account.asked = (account.asked - asked).max(0.0);
        account.levels[LARGE] = (account.levels[LARGE] - charged).max(0.0);
        // Of which class it was isn't known any more: the others drain.
        for class in (0..LARGE).rev() {
            account.levels[class] = account.levels[class].min(account.levels[class + 1]);
        }
        account.hold(Held { network, charged: held.charged - charged, asked: held.asked - asked });
    }

    fn lock(&self, mirror: usize) -> std::sync::MutexGuard<'_, Account> {
        self.accounts[mirror].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A rate or a number of bytes to reckon with.
#[expect(clippy::cast_precision_loss, reason = "a rate, not an account")]
const fn rate(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
