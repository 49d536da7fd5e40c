//! The run through virtual time.

use super::agenda::Agenda;
use super::cast::{Cast, Who};
use super::hosts::Host;
use super::node::Node;
use super::outcome::Outcome;
use super::recorder::{By, POINTS, Recorder, Standing};
use super::scale::Scale;
use super::sync::Synced;
use super::transaction::{Bundle, Purpose, SLOTS, Transaction};
use super::world::{self, World, time};
use crate::config::Probes;
use crate::config::Scenario;
use crate::policy::load::MirrorLoad;
use crate::policy::{Ask, Decision, Facts, MirrorTable, Orders, client, decide};

/// Hosts that are played if nobody says.
pub const SAMPLE: usize = 50_000;
/// Less than anything takes, more than rounding makes of a time.
pub(super) const A_MOMENT: f64 = 1e-3;

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
pub(super) enum Event {
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
pub(super) struct Transfer {
    transaction: usize,
    slot: usize,
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

pub(super) struct Simulation<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) world: &'a World,
    pub(super) scale: Scale<'a>,
    pub(super) rng: fastrand::Rng,
    pub(super) agenda: Agenda<Event>,
    pub(super) hosts: Vec<(Host, Who)>,
    /// Which of them have what is urgent, where there is a rapid repo.
    pub(super) has_urgent: Vec<bool>,
    pub(super) synced: Vec<Synced>,
    pub(super) table: MirrorTable,
    pub(super) orders: Orders,
    pub(super) recorder: Recorder,
    nodes: Vec<Node>,
    load: MirrorLoad,
    /// Until when each mirror has to do with what lists have sent there.
    busy: Vec<f64>,
    live: Vec<Option<Live<'a>>>,
    free: Vec<usize>,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario, world: &'a World, sample: usize) -> Self {
        let sampled = usize::try_from(scenario.hosts).map_or(sample, |hosts| hosts.min(sample));
        let scale = Scale::new(scenario, sampled);
        let settings = world::mirrors(scenario);
        let Cast { synced, hosts, rng } = Cast::draw(scenario, sampled);
        let donated = settings.iter().map(|mirror| scale.donated(mirror.bandwidth));
        Self {
            nodes: (0..scenario.regions.len()).map(|region| scale.node(region)).collect(),
            load: MirrorLoad::new(donated, Probes::default().ahead),
            table: world::table(&settings, world),
            orders: Orders::new(&settings),
            busy: vec![0.0; settings.len()],
            recorder: Recorder::new(scenario, sampled, scale.weight),
            agenda: Agenda::new(),
            live: Vec::new(),
            free: Vec::new(),
            has_urgent: vec![false; hosts.len()],
            scenario,
            world,
            scale,
            rng,
            hosts,
            synced,
        }
    }

    fn run(&mut self) {
        let push = self.scenario.push.at.as_secs_f64();
        for host in 0..self.hosts.len() {
            let first = self.asks_from(host, push);
            self.agenda.add(first, Event::Asks(host));
            self.notes_mirrors_alone(host);
        }
        for mirror in 0..self.synced.len() {
            let at = self.synced[mirror].proven;
            if at.is_finite() {
                self.agenda.add(at, Event::Proven(mirror));
            }
        }
        for region in 0..self.nodes.len() {
            self.agenda.add(self.nodes[region].step(), Event::Look(region));
        }
        self.agenda.add(self.recorder.step(), Event::Point(1));
        self.next_install(0.0);
        let end = self.scenario.lasts.as_secs_f64();
        loop {
            let ends = self
                .nodes
                .iter()
                .enumerate()
                .filter_map(|(region, node)| Some((node.line.next_end()?, region)));
            let next_end = ends.min_by(|a, b| a.0.total_cmp(&b.0));
            let next = self.agenda.next();
            match next_end.filter(|(at, _)| *at <= next) {
                Some((at, region)) if at <= end => self.line_ends(region, at),
                None if next <= end => {
                    let Some(event) = self.agenda.pop() else { return };
                    self.happens(event, next);
                }
                _ => return,
            }
        }
    }

    fn happens(&mut self, event: Event, now: f64) {
        match event {
            Event::Asks(host) => match &self.world.rapid {
                Some(rapid) => self.asks_both(rapid, host, now),
                None => self.asks(host, now),
            },
            Event::Install => self.installs(now),
            Event::Free(transfer) => self.is_there(transfer, now),
            Event::Proven(mirror) => world::proves(&mut self.table, mirror, self.world),
            Event::Look(region) => {
                self.nodes[region].looks(now);
                self.agenda.add(now + self.nodes[region].step(), Event::Look(region));
            }
            Event::Point(number) => self.point(number, now),
        }
    }

    fn point(&mut self, number: u32, now: f64) {
        let sent: Vec<f64> = self.nodes.iter_mut().map(|node| node.line.sent(now)).collect();
        let (fresh, open) = self.phase(now);
        self.recorder.point(now, &Standing { fresh, open, sent: &sent });
        if number < POINTS {
            self.agenda.add(self.recorder.step() * f64::from(number + 1), Event::Point(number + 1));
        }
    }

    /// At the nodes, or at a mirror, that gives it all.
    pub(super) fn begins(&mut self, transaction: Transaction<'a>, mirror: Option<usize>, now: f64) {
        if let Some(mirror) = mirror {
            return self.at_mirror(&transaction, mirror, now);
        }
        let transaction =
            if self.scale.is_exact() { transaction } else { transaction.bundled(&mut self.rng) };
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
        let (region, bytes) = (transaction.region, transaction.bytes() as f64);
        let wire = bytes * self.scale.wire;
        let alone = wire / (self.scale.alone(region, transaction.link) * SLOTS as f64);
        let donated = self.table.states()[mirror].mirror.bandwidth.bytes_per_second() as f64;
        let takes = wire * self.scale.weight / donated;
        let busy = &mut self.busy[mirror];
        *busy = busy.max(now) + takes;
        // Of those that the sample stands for, the middle one waits for half of its own time.
        let wait = (*busy - now - takes / 2.0 - alone).max(0.0);
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
        let Some(live) = &self.live[transfer.transaction] else { return };
        let (region, link) = (live.transaction.region, live.transaction.link);
        let bytes = bundle.bytes as f64;
        self.recorder.decided(decision.reason(), bytes);
        // Of a transfer from the nodes it shows at its end.
        let mut seconds = 0.0;
        if let Decision::Redirect(_) = decision {
            self.recorder.delivers(region, By::Redirect, bytes);
            // One round trip to the node, one to the mirror.
            let (trips, wire) = (2.0 * self.round_trips(bundle.files), bytes * self.scale.wire);
            let until = now + trips + wire / self.scale.sampled(region, link);
            self.agenda.add(until, Event::Free(transfer));
            seconds = trips + wire / self.scale.alone(region, link);
        } else {
            self.recorder.delivers(region, By::Nodes, bytes);
            let wire = bytes * self.scale.wire * self.scale.weight;
            let number = (transfer.transaction * SLOTS + transfer.slot) as u64;
            let node = &mut self.nodes[region];
            node.takes_on(wire, now);
            node.line.join(link, wire, number, now);
        }
        if let Some(live) = &mut self.live[transfer.transaction] {
            live.waits[transfer.slot] = Wait { since: now, bytes, files: bundle.files, seconds };
        }
    }

    fn round_trips(&self, files: u32) -> f64 {
        self.scenario.clients.round_trip.as_secs_f64() * f64::from(files)
    }

    /// The node's own decision about the request.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of a few hosts")]
    fn decided(&mut self, transfer: Transfer, bundle: Bundle<'a>, now: f64) -> Decision {
        let at = time(now);
        let Some(live) = &mut self.live[transfer.transaction] else { unreachable!("it asks") };
        let Transaction { client: who, trail, region, .. } = &mut live.transaction;
        let who = &*who;
        let (file, connection) = (client::hash(bundle.file.path.as_str()), 1 + transfer.slot as u64);
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
        let paced = self.scale.time(now);
        let decision = decide(&facts, &|mirror| self.load.has_room(mirror, paced));
        if let Decision::Redirect(redirect) = &decision {
            trail.redirected(file, redirect.mirror, bundle.file.size, connection, at);
            self.load.sent(redirect.mirror, (bundle.bytes as f64 * self.scale.weight) as u64, paced);
        }
        decision
    }

    /// What the nodes were asked for is there, but for the time on the way.
    fn line_ends(&mut self, region: usize, now: f64) {
        while let Some(number) = self.nodes[region].line.ended(now) {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            let transfer = Transfer { transaction: number / SLOTS, slot: number % SLOTS };
            let Some(live) = &self.live[transfer.transaction] else { continue };
            let (link, wait) = (live.transaction.link, live.waits[transfer.slot]);
            // What it took beyond what the sample takes unhindered, a host would have waited as well.
            let wire = wait.bytes * self.scale.wire;
            let hindered = ((now - wait.since) - wire / self.scale.sampled(region, link)).max(0.0);
            let seconds = wire / self.scale.alone(region, link) + hindered;
            let trips = self.round_trips(wait.files);
            if let Some(live) = &mut self.live[transfer.transaction] {
                live.waits[transfer.slot].seconds = seconds + trips;
            }
            self.recorder.rate(region, wait.bytes / seconds.max(1e-9));
            if trips > 0.0 {
                self.agenda.add(now + trips, Event::Free(transfer));
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

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
