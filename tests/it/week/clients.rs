//! Clients as dnf is one: three transfers at a time, a retry at the node's URL after each failure, the fourth of which ends the
//! transaction.

use super::tree::ROOT;
use super::{Event, HOUR, Week};
use freshet::config::{Bandwidth, Probes};
use freshet::geo::Whereabouts;
use freshet::http::TreePath;
use freshet::mirrors::judge::File;
use freshet::policy::client::{self, Agent};
use freshet::policy::decide::{self, Facts, Redirect};
use freshet::policy::load::MirrorLoad;
use freshet::policy::{Ask, Client, Decision, Past, Place, Reason, Standing, Trail};
use std::net::Ipv4Addr;
use std::time::Duration;

/// A client's line.
const BYTES_PER_SECOND: u64 = 5_000_000;
const SLOTS: u8 = 3;

/// One of a client's three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transfer {
    client: usize,
    slot: u8,
}

struct Host {
    client: Client,
    trail: Trail,
    /// What is still to be fetched.
    files: Vec<TreePath>,
    /// What failed, by slot.
    failed: [Option<TreePath>; SLOTS as usize],
    failures: u32,
}

pub struct Clients {
    hosts: Vec<Host>,
    load: MirrorLoad,
}

impl Clients {
    pub fn new(mirrors: usize) -> Self {
        let donated = (0..mirrors).map(|_| Bandwidth::from_bits_per_second(10_000_000_000));
        Self { hosts: Vec::new(), load: MirrorLoad::new(donated, Probes::default().ahead) }
    }
}

/// What comes of a redirect.
enum Outcome {
    Fetched,
    /// The client comes back after so long.
    Failed(Duration),
}

impl Week {
    pub fn arrive(&mut self) {
        let is_rush = self.now.since(self.origin.pushed) < HOUR;
        let rate = if is_rush { 600.0 } else { 60.0 };
        let pause = HOUR.mul_f64(-self.rng.f64().max(1e-9).ln() / rate);
        self.agenda.add(self.now.plus(pause), Event::Arrive);

        // Half of what is fetched is what was just pushed, half is installed anew.
        let (mut new, mut old) = (Vec::new(), Vec::new());
        // One in three still has the metadata of the day before.
        let before = usize::from(self.rng.u32(..3) == 0);
        for (path, is_new) in self.origin.offered(before) {
            if is_new { new.push(path) } else { old.push(path) }
        }
        let count = 5 + self.rng.usize(..50);
        let mut files = self.rng.choose_multiple(new, count / 2);
        files.extend(self.rng.choose_multiple(old, count - count / 2));
        self.rng.shuffle(&mut files);

        let client = self.clients.hosts.len();
        let addr = Ipv4Addr::from(0x0100_0000 + self.rng.u32(..0xd000_0000));
        let agent = Agent::new(addr.into(), Whereabouts::default(), b"libdnf");
        let host = Host {
            client: Client::new(agent, false, None),
            trail: Trail::default(),
            files,
            failed: Default::default(),
            failures: 0,
        };
        self.clients.hosts.push(host);
        self.figures.transactions += 1;
        for slot in 0..SLOTS {
            self.agenda.add(self.now, Event::Next(Transfer { client, slot }));
        }
    }

    pub fn next(&mut self, transfer: Transfer) {
        let host = &mut self.clients.hosts[transfer.client];
        let failed = host.failed[usize::from(transfer.slot)].take();
        let Some(path) = failed.or_else(|| host.files.pop()) else { return };
        let (repos, now) = (self.origin.repos.clone(), self.now);
        let place = repos.locate(&path).unwrap();
        let listed = place.listed.expect("it is kept for two days");
        let file = client::hash(path.as_str());
        // Three connections, which take turns.
        let connection = (transfer.client as u64) * 4 + 1 + u64::from(transfer.slot);
        let past = self.clients.hosts[transfer.client].trail.asks(file, Ask::Whole, connection, now);
        if let Standing::Bounced { mirror, .. } = past.standing {
            let below = File {
                path: place.relative.to_owned(),
                size: listed.entry.size,
                digest: listed.entry.digest,
            };
            self.bounced(mirror, &below);
        }
        let decision = self.decided(transfer, &place, past);
        self.counted(&place, past, &decision);
        let mut pause = Duration::from_millis(listed.entry.size * 1000 / BYTES_PER_SECOND);
        if let Decision::Redirect(redirect) = decision {
            let host = &mut self.clients.hosts[transfer.client];
            host.trail.redirected(file, redirect.mirror, redirect.size, connection, now);
            self.clients.load.sent(redirect.mirror, redirect.size, now);
            if let Outcome::Failed(after) = self.followed(&place, &redirect) {
                let host = &mut self.clients.hosts[transfer.client];
                host.failures += 1;
                self.figures.most_failures = self.figures.most_failures.max(host.failures);
                host.failed[usize::from(transfer.slot)] = Some(path.clone());
                pause = after;
            }
        }
        self.agenda.add(now.plus(pause), Event::Next(transfer));
    }

    fn decided(&self, transfer: Transfer, place: &Place<'_>, past: Past) -> Decision {
        let facts = Facts {
            repos: &self.origin.repos,
            mirrors: &self.table,
            orders: &self.orders,
            place: Some(place),
            is_cached: &|| true,
            client: &self.clients.hosts[transfer.client].client,
            past,
            shed: 0.0,
            now: self.now,
        };
        decide::decide(&facts, &|mirror| self.clients.load.has_room(mirror, self.now))
    }

    /// The client follows a redirect.
    fn followed(&mut self, place: &Place<'_>, redirect: &Redirect) -> Outcome {
        self.figures.redirects += 1;
        let disk = &self.mirrors[redirect.mirror];
        let below = redirect.path.as_str().strip_prefix(ROOT).unwrap().trim_start_matches('/');
        let wanted = place.listed.unwrap().entry;
        let whole = Duration::from_millis(wanted.size * 1000 / BYTES_PER_SECOND);
        match disk.files.get(below) {
            _ if !disk.alive => self.figures.failed += 1,
            None => self.figures.absent += 1,
            Some(found) if found.size != wanted.size => self.figures.other_size += 1,
            Some(found) if Some(found.sha256.into()) != wanted.digest => {
                self.figures.failed += 1;
                return Outcome::Failed(whole);
            }
            Some(_) => return Outcome::Fetched,
        }
        Outcome::Failed(Duration::from_millis(50))
    }

    /// Against somebody who knows every mirror's disk, but keeps the same rules: what the window holds on the nodes stays there, and
    /// so does who doesn't stand clear.
    fn counted(&mut self, place: &Place<'_>, past: Past, decision: &Decision) {
        if self.now.since(self.origin.pushed) >= HOUR {
            return;
        }
        let listed = place.listed.unwrap();
        let held = matches!(decision, Decision::Serve(Reason::Window | Reason::Superseded));
        let has = |disk: &&super::disks::Disk| {
            let found = disk.files.get(place.relative);
            disk.alive && found.is_some_and(|found| Some(found.sha256.into()) == listed.entry.digest)
        };
        if held || !self.mirrors.iter().any(|disk| has(&disk)) {
            return;
        }
        self.figures.any += listed.entry.size;
        if past.standing == Standing::Clear {
            self.figures.best += listed.entry.size;
        }
        if matches!(decision, Decision::Redirect(_)) {
            self.figures.taken += listed.entry.size;
        }
    }
}
