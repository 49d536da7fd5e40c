//! A week of daily pushes and 200 mirrors that sync every 4 to 6 hours, in virtual time: the policy and what the prober makes
//! of answers are the node's own code, the mirrors' disks are models.
//!
//! Mirrors sync as real ones do: packages first or metadata first, in one stage in any order, deleting before or after, by
//! halves, a third of them from other mirrors and so from what is half-synced itself; a few have flipped bytes, a few die for
//! hours. They sync from the origin, whose tree changes before the node flips. Clients have three transfers at a time and
//! librepo's failure budget.

mod clients;
mod disks;
mod prober;
mod tree;

use clients::{Clients, Transfer};
use disks::Disk;
use freshet::clock::Timestamp;
use freshet::policy::{MirrorTable, Orders};
use prober::Prober;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;
use tree::Origin;

const MIRRORS: usize = 200;
const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);
/// When the mirrors are first looked at; the first push comes later.
const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// From the publication of a push until the node has read its metadata.
const READ: Duration = Duration::from_secs(5);
/// And to the flip: warming may take long.
const FLIP: Duration = Duration::from_secs(600);

/// What happens at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The origin publishes a new generation.
    Push,
    /// The node has noticed it, and verified its metadata.
    Verify,
    /// It has warmed it, and flips to it.
    Flip,
    /// A mirror begins to sync.
    Sync(usize),
    /// It does the next thing.
    Step(usize),
    /// It dies, or comes back.
    Turn(usize),
    /// The prober looks at its repomd.xml.
    Look(usize),
    /// It gets an answer to a HEAD of a check of this number.
    Head(usize, u32),
    /// It sees whether it lives.
    Liveness(usize),
    /// A client comes.
    Arrive,
    /// One of a client's transfers is over.
    Next(Transfer),
}

/// What is to come.
#[derive(Default)]
struct Agenda {
    queue: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    count: u64,
}

impl Agenda {
    fn add(&mut self, at: Timestamp, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((at, self.count, event)));
    }
}

/// What came of it.
#[derive(Debug, Default)]
struct Figures {
    redirects: u64,
    /// To a file that the mirror doesn't have.
    absent: u64,
    /// To one of another size.
    other_size: u64,
    /// To flipped bytes, or to a mirror that has just died: the client comes back.
    failed: u64,
    /// Of one client, at most.
    most_failures: u32,
    transactions: u64,
    /// Bytes of the first hour after a push: what mirrors took, and what they could have.
    taken: u64,
    best: u64,
    /// The same whether or not the client stood clear.
    any: u64,
}

struct Week {
    now: Timestamp,
    rng: fastrand::Rng,
    agenda: Agenda,
    origin: Origin,
    mirrors: Vec<Disk>,
    prober: Prober,
    table: MirrorTable,
    orders: Orders,
    clients: Clients,
    figures: Figures,
}

impl Week {
    fn new(seed: u64, mirrors: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let origin = Origin::new(&mut rng, START);
        let (prober, table, orders) = Prober::new(mirrors);
        let mirrors = disks::disks(&mut rng, mirrors, &origin);
        let clients = Clients::new(mirrors.len());
        Self {
            now: START,
            rng,
            agenda: Agenda::default(),
            origin,
            mirrors,
            prober,
            table,
            orders,
            clients,
            figures: Figures::default(),
        }
    }

    fn run(&mut self, pushes: u32) {
        for mirror in 0..self.mirrors.len() {
            self.agenda.add(START, Event::Look(mirror));
            let first = START.plus(HOUR.mul_f64(6.0 * self.rng.f64()));
            self.agenda.add(first, Event::Sync(mirror));
            // Those that don't die need nobody to see whether they live.
            if mirror % 10 == 3 {
                self.agenda.add(START, Event::Liveness(mirror));
                self.agenda.add(START.plus(DAY.mul_f64(self.rng.f64())), Event::Turn(mirror));
            }
        }
        self.agenda.add(START.plus(HOUR), Event::Arrive);
        for day in 0..pushes {
            self.agenda.add(START.plus(HOUR * 2 + DAY * day), Event::Push);
        }
        let end = START.plus(HOUR * 2 + DAY * pushes);
        while let Some(Reverse((at, _, event))) = self.agenda.queue.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.happens(event);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Push => self.push(),
            Event::Verify => self.origin.verified(self.now),
            Event::Flip => self.flip(),
            Event::Sync(mirror) => self.sync(mirror),
            Event::Step(mirror) => self.step(mirror),
            Event::Turn(mirror) => self.turn(mirror),
            Event::Look(mirror) => self.look(mirror),
            Event::Head(mirror, check) => self.head(mirror, check),
            Event::Liveness(mirror) => self.liveness(mirror),
            Event::Arrive => self.arrive(),
            Event::Next(transfer) => self.next(transfer),
        }
    }

    fn push(&mut self) {
        self.origin.push(&mut self.rng, self.now);
        self.agenda.add(self.now.plus(READ), Event::Verify);
        self.agenda.add(self.now.plus(FLIP), Event::Flip);
    }

    fn flip(&mut self) {
        self.origin.flip(self.now);
        self.flipped();
    }
}

#[test]
fn no_redirect_leads_to_what_is_not_there() {
    let full = std::env::var_os("FRESHET_FULL").is_some();
    let seed = std::env::var("FRESHET_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = if full { 1..6 } else { 1..2 };
    for seed in seed.map_or(seeds, |seed: u64| seed..seed + 1) {
        let mut week = Week::new(seed, MIRRORS);
        week.run(7);
        let Figures { redirects, absent, other_size, failed, most_failures, transactions, taken, best, any } =
            week.figures;
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = |of: u64| taken as f64 / of as f64;
        println!(
            "seed {seed}: {transactions} transactions, {redirects} redirects, {absent} to absent files, {other_size} to other \
             sizes, {failed} failed ones, at most {most_failures} of one client; in the first hours after pushes mirrors took \
             {:.3} of the best possible, {:.3} of all bytes that any mirror had",
            share(best),
            share(any)
        );
        assert!(redirects > 10_000 && failed > 0, "something was tried");
        assert_eq!((absent, other_size), (0, 0));
        assert!(most_failures <= 3, "the fourth failure would end the transaction");
        assert!(share(best) >= 0.8);
    }
}
