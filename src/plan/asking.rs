//! Whom hosts ask, and whether that knows of the push.

use super::cast::drawn;
use super::simulation::{A_MOMENT, Event, Simulation};
use super::transaction::{Purpose, Transaction, installs, updates};
use super::world::time;
use crate::listing::Order;
use crate::policy::Client;
use crate::policy::lists::{self, Listing};

impl Simulation<'_> {
    /// When the host would have the push if its nearest mirror were all that it ever asked.
    pub(super) fn notes_mirrors_alone(&mut self, host: usize) {
        let (habits, who) = &self.hosts[host];
        let Some(mirror) = self.orders.best(&self.table, &who.client()).first().copied() else { return };
        let holds = self.synced[mirror as usize].holds;
        if holds.is_finite() {
            self.recorder.would_update(habits.ask_from(holds).at);
        }
    }

    /// A host asks; it learns of the push from whomever its list names first, if they have it.
    pub(super) fn asks(&mut self, host: usize, now: f64) {
        let (habits, who) = self.hosts[host];
        let ask = habits.ask_from(now - A_MOMENT);
        let client = who.client();
        let mirror = self.named_first(&client, ask.listed.min(now), now);
        let knows = mirror.map_or(self.world.is_pushed(now), |mirror| now >= self.synced[mirror].holds);
        if !knows {
            let later = habits.ask_from(now + A_MOMENT).at;
            return self.agenda.add(later, Event::Asks(host));
        }
        let files = updates(self.world, &habits, &mut self.rng);
        let place = (Purpose::Update, habits.region, habits.link);
        let parts = (&self.world.root, &*self.world.metadata[1]);
        self.begins(Transaction::new(place, client, parts, files, now), mirror, now);
    }

    /// Somebody installs something that was there before, by a list of now.
    pub(super) fn installs(&mut self, now: f64) {
        let (host, who) = drawn(self.scenario, &mut self.rng);
        let files = installs(self.world, self.scenario.installs.packages, &mut self.rng);
        let client = who.client();
        let mirror = self.named_first(&client, now, now);
        let place = (Purpose::Install, host.region, host.link);
        let parts = (&self.world.root, self.world.metadata(now));
        self.begins(Transaction::new(place, client, parts, files, now), mirror, now);
        self.next_install(now);
    }

    pub(super) fn next_install(&mut self, now: f64) {
        let per_second = self.scenario.installs.per_hour as f64 / 3600.0 / self.scale.weight;
        if per_second > 0.0 {
            let pause = -(1.0 - self.rng.f64()).ln() / per_second;
            self.agenda.add(now + pause, Event::Install);
        }
    }

    /// The mirror that stands first in a list of the time `listed`; None if the nodes do.
    pub(super) fn named_first(&self, client: &Client, listed: f64, now: f64) -> Option<usize> {
        let policy = &self.scenario.policy;
        // A list that is older than the push was made outside of any window.
        let is_pushed = self.world.is_pushed(listed);
        let open = is_pushed && self.phase(now).1;
        if Order::of(policy.delivery, open, policy.outside_window) != Order::MirrorsFirst {
            return None;
        }
        if !is_pushed {
            return self.orders.best(&self.table, client).first().map(|mirror| *mirror as usize);
        }
        let current = self.world.repos(listed).views()[0].history.current()?;
        let listing = Listing { repo: 0, current, https: None, countries: &[], client };
        lists::nearest(&self.table, &self.orders, &listing, 1).first().copied()
    }

    /// Mirrors that hold what is offered, and whether the window is open.
    pub(super) fn phase(&self, now: f64) -> (usize, bool) {
        let view = &self.world.repos(now).views()[0];
        let fresh = self.table.fresh(0, view.sequence());
        (fresh, view.phase(fresh, time(now)).is_open())
    }
}
