//! The run through virtual time.

use super::cast::{Cast, Who, drawn};
use super::hosts::Host;
use super::node::Node;
use super::outcome::Outcome;
use super::recorder::{By, POINTS, Recorder, Standing};
use super::sync::Synced;
use super::transaction::{BUNDLES, Bundle, Purpose, SLOTS, Transaction, installs, updates};
use super::world::{self, World, time};
use crate::clock::Timestamp;
use crate::config::Scenario;
use crate::listing::Order;
use crate::policy::lists::{self, Listing};
use crate::policy::load::MirrorLoad;
use crate::policy::{Ask, Client, Decision, Facts, MirrorTable, Orders, client, decide};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Hosts that are played if nobody says.
pub const SAMPLE: usize = 50_000;
/// One of the sample takes at most this part of a region's capacity.
const PART: f64 = 40.0;
/// And this part of a second of it at a time, in the time of the policy.
const AT_ONCE: f64 = 0.1;
/// Less than anything takes, more than rounding makes of a time.
const A_MOMENT: f64 = 1e-3;
/// Bytes that Ethernet adds to each packet.
const ETHERNET: f64 = 14.0;
/// Bytes of the heads of IP and TCP in each packet, with timestamps.
const TCP_IP: f64 = 52.0;

/// Plays the scenario with at most `sample` hosts.
#[must_use]
pub fn simulate(scenario: &Scenario, sample: usize) -> Outcome {
    let world = World::new(scenario);
    let mut simulation = Simulation::new(scenario, &world, sample.max(1));
    simulation.run();
    simulation.recorder.outcome(scenario)
}

/// What happens at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A host asks for metadata.
    Asks(usize),
    /// Somebody installs something.
    Install,
    /// What a slot of a transaction asked for is there.
    Free(Transfer),
    /// A mirror is proven to hold the push.
    Proven(usize),
    /// A region's nodes look at their pressure.
    Look(usize),
    /// A point of the plot is over.
    Point(u32),
}

/// One slot of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Transfer {
    transaction: usize,
    slot: usize,
}

/// Seconds, ordered.
#[derive(Clone, Copy, Debug, PartialEq)]
struct At(f64);

impl Eq for At {}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for At {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// A transaction, and what its slots wait for.
struct Live<'a> {
    transaction: Transaction<'a>,
    waits: [Wait; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    /// Seconds after the start.
    since: f64,
    /// That are asked for.
    bytes: f64,
    /// How many files they are.
    files: u32,
    /// That it takes a host.
    seconds: f64,
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    world: &'a World,
    rng: fastrand::Rng,
    agenda: BinaryHeap<Reverse<(At, u64, Event)>>,
    events: u64,
    hosts: Vec<(Host, Who)>,
    /// Hosts that one of the sample stands for.
    weight: f64,
    /// Seconds for one of the policy's.
    pace: f64,
    /// Bytes on the wire for one of a file.
    wire: f64,
    nodes: Vec<Node>,
    /// [`shared_rate`] of each region.
    rates: Vec<f64>,
    synced: Vec<Synced>,
    table: MirrorTable,
    orders: Orders,
    load: MirrorLoad,
    /// Until when each mirror has to do with what lists have sent there.
    busy: Vec<f64>,
    live: Vec<Option<Live<'a>>>,
    free: Vec<usize>,
    recorder: Recorder,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario, world: &'a World, sample: usize) -> Self {
        let sampled = usize::try_from(scenario.hosts).map_or(sample, |hosts| hosts.min(sample));
        let weight = scenario.hosts as f64 / sampled as f64;
        let mtu = scenario.clients.mtu as f64;
        let wire = (mtu + ETHERNET) / (mtu - TCP_IP);
        let pace = pace(scenario, weight * wire);
        let settings = world::mirrors(scenario);
        let donated = settings.iter().map(|mirror| {
            let bits = mirror.bandwidth.bits_per_second() as f64 * pace;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bits per second")]
            let bits = bits as u64;
            crate::config::Bandwidth::from_bits_per_second(bits)
        });
        let Cast { synced, hosts, rng } = Cast::draw(scenario, sampled);
        Self {
            nodes: (0..scenario.regions.len()).map(|region| node(scenario, region, weight, pace)).collect(),
            rates: (0..scenario.regions.len()).map(|region| shared_rate(scenario, region, weight)).collect(),
            table: world::table(&settings, world),
            orders: Orders::new(&settings),
            busy: vec![0.0; settings.len()],
            load: MirrorLoad::new(donated),
            recorder: Recorder::new(scenario, sampled, weight),
            agenda: BinaryHeap::new(),
            events: 0,
            live: Vec::new(),
            free: Vec::new(),
            scenario,
            world,
            rng,
            hosts,
            weight,
            pace,
            wire,
            synced,
        }
    }

    fn run(&mut self) {
        let push = self.scenario.push.at.as_secs_f64();
        for host in 0..self.hosts.len() {
            let first = self.hosts[host].0.ask_from(push).at;
            self.add(first, Event::Asks(host));
            self.notes_mirrors_alone(host);
        }
        for mirror in 0..self.synced.len() {
            let at = self.synced[mirror].proven;
            if at.is_finite() {
                self.add(at, Event::Proven(mirror));
            }
        }
        for region in 0..self.nodes.len() {
            self.add(self.nodes[region].step(), Event::Look(region));
        }
        self.add(self.recorder.step(), Event::Point(1));
        self.next_install(0.0);
        let end = self.scenario.lasts.as_secs_f64();
        loop {
            let ends = self
                .nodes
                .iter()
                .enumerate()
                .filter_map(|(region, node)| Some((node.line.next_end()?, region)));
            let next_end = ends.min_by(|a, b| a.0.total_cmp(&b.0));
            let next = self.agenda.peek().map_or(f64::INFINITY, |Reverse((at, ..))| at.0);
            match next_end.filter(|(at, _)| *at <= next) {
                Some((at, region)) if at <= end => self.line_ends(region, at),
                None if next <= end => {
                    let Some(Reverse((_, _, event))) = self.agenda.pop() else { return };
                    self.happens(event, next);
                }
                _ => return,
            }
        }
    }

    fn add(&mut self, at: f64, event: Event) {
        self.events += 1;
        self.agenda.push(Reverse((At(at), self.events, event)));
    }

    fn happens(&mut self, event: Event, now: f64) {
        match event {
            Event::Asks(host) => self.asks(host, now),
            Event::Install => self.installs(now),
            Event::Free(transfer) => self.is_there(transfer, now),
            Event::Proven(mirror) => world::proves(&mut self.table, mirror, self.world),
            Event::Look(region) => {
                self.nodes[region].looks(now);
                self.add(now + self.nodes[region].step(), Event::Look(region));
            }
            Event::Point(number) => self.point(number, now),
        }
    }

    fn point(&mut self, number: u32, now: f64) {
        let sent: Vec<f64> = self.nodes.iter_mut().map(|node| node.line.sent(now)).collect();
        let (fresh, open) = self.phase(now);
        self.recorder.point(now, &Standing { fresh, open, sent: &sent });
        if number < POINTS {
            self.add(self.recorder.step() * f64::from(number + 1), Event::Point(number + 1));
        }
    }

    /// Mirrors that hold what is offered, and whether the window is open.
    fn phase(&self, now: f64) -> (usize, bool) {
        let view = &self.world.repos(now).views()[0];
        let fresh = self.table.fresh(0, view.sequence());
        (fresh, view.phase(fresh, time(now)).is_open())
    }

    /// When the host would have the push if its nearest mirror were all it ever asked.
    fn notes_mirrors_alone(&mut self, host: usize) {
        let (habits, who) = &self.hosts[host];
        let Some(mirror) = self.orders.best(&self.table, &who.client()).first().copied() else { return };
        let holds = self.synced[mirror as usize].holds;
        if holds.is_finite() {
            self.recorder.would_update(habits.ask_from(holds).at);
        }
    }

    /// A host asks; it learns of the push from whomever its list names first, if they have it.
    fn asks(&mut self, host: usize, now: f64) {
        let (habits, who) = self.hosts[host];
        let flips = (self.scenario.push.at + self.scenario.push.flip).as_secs_f64();
        let ask = habits.ask_from(now - A_MOMENT);
        let client = who.client();
        let mirror = self.named_first(&client, ask.listed.min(now), now);
        let knows = mirror.map_or(now >= flips, |mirror| now >= self.synced[mirror].holds);
        if !knows {
            let later = habits.ask_from(now + A_MOMENT).at;
            return self.add(later, Event::Asks(host));
        }
        let files = updates(self.world, &habits, &mut self.rng);
        let place = (Purpose::Update, habits.region, habits.link);
        let parts = (&self.world.root, &*self.world.metadata[1]);
        let transaction = Transaction::new(place, client, parts, files, now);
        self.begins(transaction, mirror, now);
    }

    /// The mirror that stands first in a list of the time `listed`; None if the nodes do.
    fn named_first(&self, client: &Client, listed: f64, now: f64) -> Option<usize> {
        let policy = &self.scenario.policy;
        let view = &self.world.repos(listed).views()[0];
        // Lists that are older than the push were made outside of any window.
        let open = self.world.is_pushed(listed) && self.phase(now).1;
        if Order::of(policy.delivery, open, policy.outside_window) != Order::MirrorsFirst {
            return None;
        }
        if !self.world.is_pushed(listed) {
            return self.orders.best(&self.table, client).first().map(|mirror| *mirror as usize);
        }
        let current = view.history.current()?;
        let listing = Listing { repo: 0, current, https: None, countries: &[], client };
        lists::nearest(&self.table, &self.orders, &listing, 1).first().copied()
    }

    fn next_install(&mut self, now: f64) {
        let per_second = self.scenario.installs.per_hour as f64 / 3600.0 / self.weight;
        if per_second > 0.0 {
            let pause = -(1.0 - self.rng.f64()).ln() / per_second;
            self.add(now + pause, Event::Install);
        }
    }

    fn installs(&mut self, now: f64) {
        let (host, who) = drawn(self.scenario, &mut self.rng);
        let files = installs(self.world, self.scenario.installs.packages, &mut self.rng);
        let client = who.client();
        let mirror = self.named_first(&client, now, now);
        let place = (Purpose::Install, host.region, host.link);
        let parts = (&self.world.root, self.world.metadata(now));
        self.begins(Transaction::new(place, client, parts, files, now), mirror, now);
        self.next_install(now);
    }

    /// At the nodes, or at a mirror, that gives it all.
    fn begins(&mut self, transaction: Transaction<'a>, mirror: Option<usize>, now: f64) {
        if let Some(mirror) = mirror {
            return self.at_mirror(&transaction, mirror, now);
        }
        let transaction = if self.weight > 1.0 { transaction.bundled(&mut self.rng) } else { transaction };
        let live = Some(Live { transaction, waits: Default::default() });
        let number = self.free.pop().unwrap_or(self.live.len());
        if number == self.live.len() {
            self.live.push(live);
        } else {
            self.live[number] = live;
        }
        self.goes_on(number, now);
    }

    /// A mirror can't refuse those whom a list sends: where it is asked for more than it donates, they come one after the other.
    fn at_mirror(&mut self, transaction: &Transaction<'a>, mirror: usize, now: f64) {
        let bytes = transaction.bytes() as f64;
        let link = self.scenario.regions[transaction.region].links[transaction.link];
        let alone = bytes * self.wire / link.bytes_per_second() as f64;
        let donated = self.table.states()[mirror].mirror.bandwidth.bytes_per_second() as f64;
        let busy = &mut self.busy[mirror];
        *busy = busy.max(now) + bytes * self.wire * self.weight / donated;
        // Of those that the sample stands for, the middle one waits for half of its own time.
        let wait = (*busy - now - bytes * self.wire * self.weight / donated / 2.0 - alone).max(0.0);
        self.recorder.delivers(transaction.region, By::Mirror, bytes);
        self.recorder.waits_at_mirror(wait);
        if transaction.purpose == Purpose::Update {
            self.recorder.updates(now + alone + wait);
        }
    }

    /// Every slot that can asks for its next file; a transaction that is over is noted.
    fn goes_on(&mut self, number: usize, now: f64) {
        let Some(live) = &mut self.live[number] else { return };
        if live.transaction.is_over() {
            let seconds = live.transaction.seconds();
            self.recorder.took(seconds);
            if live.transaction.purpose == Purpose::Update {
                self.recorder.updates(live.transaction.began + seconds);
            }
            self.live[number] = None;
            self.free.push(number);
            return;
        }
        for slot in 0..SLOTS {
            let Some(live) = &mut self.live[number] else { return };
            if let Some(bundle) = live.transaction.next(slot) {
                self.requests(Transfer { transaction: number, slot }, bundle, now);
            }
        }
    }

    fn requests(&mut self, transfer: Transfer, bundle: Bundle<'a>, now: f64) {
        let decision = self.decided(transfer, bundle, now);
        let Some(live) = &mut self.live[transfer.transaction] else { return };
        let (region, link) = (live.transaction.region, live.transaction.link);
        let bytes = bundle.bytes as f64;
        self.recorder.decided(decision.reason(), bytes);
        let wait = &mut live.waits[transfer.slot];
        *wait = Wait { since: now, bytes, files: bundle.files, seconds: 0.0 };
        if let Decision::Redirect(_) = decision {
            self.recorder.delivers(region, By::Redirect, bytes);
            // One round trip to the node, one to the mirror.
            let trips = 2.0 * round_trips(self.scenario, bundle.files);
            let (alone, shared) = (slot_rate(self.scenario, region, link), self.rates[region]);
            wait.seconds = trips + bytes * self.wire / alone;
            self.add(now + trips + bytes * self.wire / alone.min(shared), Event::Free(transfer));
        } else {
            self.recorder.delivers(region, By::Nodes, bytes);
            let wire = bytes * self.wire * self.weight;
            let number = (transfer.transaction * SLOTS + transfer.slot) as u64;
            let node = &mut self.nodes[region];
            node.takes_on(wire, now);
            node.line.join(link, wire, number, now);
        }
    }

    /// The node's own decision about the request.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of a few hosts")]
    fn decided(&mut self, transfer: Transfer, bundle: Bundle<'a>, now: f64) -> Decision {
        let at = time(now);
        let Some(live) = &mut self.live[transfer.transaction] else { unreachable!("it asks") };
        let Transaction { client: who, trail, region, .. } = &mut live.transaction;
        let who = &*who;
        let (file, connection) = (client::hash(bundle.file.path.as_str()), transfer.slot as u64);
        let past = trail.asks(file, Ask::Whole, connection, at);
        let repos = self.world.repos(now);
        let place = repos.locate(&bundle.file.path);
        let facts = Facts {
            repos,
            mirrors: &self.table,
            orders: &self.orders,
            place: place.as_ref(),
            is_cached: &|| true,
            client: who,
            past,
            shed: self.nodes[*region].shed(now),
            now: at,
        };
        let paced = Timestamp::from_millis((now / self.pace * 1000.0) as u64);
        let decision = decide(&facts, &|mirror| self.load.has_room(mirror, paced));
        if let Decision::Redirect(redirect) = &decision {
            trail.redirected(file, redirect.mirror, bundle.file.size, connection, at);
            self.load.sent(redirect.mirror, (bundle.bytes as f64 * self.weight) as u64, paced);
        }
        decision
    }

    /// What the nodes were asked for is there, but for the time on the way.
    fn line_ends(&mut self, region: usize, now: f64) {
        while let Some(number) = self.nodes[region].line.ended(now) {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            let transfer = Transfer { transaction: number / SLOTS, slot: number % SLOTS };
            let Some(live) = &mut self.live[transfer.transaction] else { continue };
            let link = live.transaction.link;
            let wait = &mut live.waits[transfer.slot];
            // What it took beyond what the sample takes unhindered, a host would have waited as well.
            let wire = wait.bytes * self.wire;
            let (alone, shared) = (slot_rate(self.scenario, region, link), self.rates[region]);
            let hindered = ((now - wait.since) - wire / alone.min(shared)).max(0.0);
            let seconds = wire / alone + hindered;
            let trips = round_trips(self.scenario, wait.files);
            wait.seconds = seconds + trips;
            self.recorder.rate(region, wait.bytes / seconds.max(1e-9));
            if trips > 0.0 {
                self.add(now + trips, Event::Free(transfer));
            } else {
                self.is_there(transfer, now);
            }
        }
    }

    fn is_there(&mut self, transfer: Transfer, now: f64) {
        let Some(live) = &mut self.live[transfer.transaction] else { return };
        live.transaction.has(transfer.slot, live.waits[transfer.slot].seconds);
        self.goes_on(transfer.transaction, now);
    }
}

/// Bytes per second on the wire that one of three transfers of a host gets.
fn slot_rate(scenario: &Scenario, region: usize, link: usize) -> f64 {
    scenario.regions[region].links[link].bytes_per_second() as f64 / SLOTS as f64
}

fn round_trips(scenario: &Scenario, files: u32) -> f64 {
    scenario.clients.round_trip.as_secs_f64() * f64::from(files)
}

/// The same as [`slot_rate`] that a transfer of the sample gets at most, for each host that it stands for: they come one after
/// the other.
fn shared_rate(scenario: &Scenario, region: usize, weight: f64) -> f64 {
    let capacity = scenario.regions[region].capacity.bytes_per_second() as f64;
    if weight > 1.0 { capacity / (PART * SLOTS as f64 * weight) } else { f64::INFINITY }
}

/// The region's nodes, for transfers that each stand for `weight` hosts.
fn node(scenario: &Scenario, region: usize, weight: f64, pace: f64) -> Node {
    let settings = &scenario.regions[region];
    let shared = shared_rate(scenario, region, weight);
    let link = |link| slot_rate(scenario, region, link).min(shared) * weight;
    let links: Vec<f64> = (0..settings.links.len()).map(link).collect();
    let thresholds = (scenario.policy.shed_from, scenario.policy.shed_all);
    Node::new(settings.capacity.bytes_per_second() as f64, &links, thresholds, pace)
}

/// Seconds of the plan for one of the policy's, so that nobody takes much of one at once. `weight`: bytes on the wire for one of a
/// host's.
fn pace(scenario: &Scenario, weight: f64) -> f64 {
    if weight <= 2.0 {
        return 1.0;
    }
    let files = || scenario.push.files.iter().map(|file| file.size);
    let bundle = (files().sum::<u64>() / BUNDLES as u64 * 2).max(files().max().unwrap_or(0));
    let bytes = bundle.max(scenario.push.metadata) as f64 * weight;
    let capacity = scenario.regions.iter().map(|region| region.capacity.bytes_per_second()).min();
    (bytes / (capacity.unwrap_or(1) as f64 * AT_ONCE)).max(1.0)
}

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
