//! Hosts that have a rapid repo beside updates.
//!
//! A look asks each of the two whose metadata have expired: those of the rapid repo long before those of updates. What both have
//! comes by updates, since the rapid repo costs more (`cost` in the `.repo` file), but only a host whose metadata of updates
//! are new enough knows that both have it.

use super::simulation::{A_MOMENT, Event, Simulation};
use super::transaction::{Purpose, Transaction, updates, urgent};
use super::world::Rapid;

impl<'a> Simulation<'a> {
    /// The first time at `from` or later that the host asks for metadata of any repo.
    pub(super) fn asks_from(&self, host: usize, from: f64) -> f64 {
        let habits = &self.hosts[host].0;
        let updates = habits.ask_from(from).at;
        self.world.rapid.as_ref().map_or(updates, |_| updates.min(habits.asks_rapid_from(from)))
    }

    /// A host asks for the metadata that have expired, and fetches what is new in them.
    pub(super) fn asks_both(&mut self, rapid: &'a Rapid, host: usize, now: f64) {
        let (habits, who) = self.hosts[host];
        let is_now = |at: f64| at <= now + A_MOMENT;
        let ask = habits.ask_from(now - A_MOMENT);
        let mirror = if is_now(ask.at) {
            let mirror = self.named_first(&who.client(), ask.listed.min(now), now);
            let knows = mirror.map_or(self.world.is_pushed(now), |mirror| now >= self.synced[mirror].holds);
            knows.then_some(mirror)
        } else {
            None
        };
        if is_now(habits.asks_rapid_from(now - A_MOMENT)) && rapid.is_offered(now) {
            self.takes_rapid(rapid, host, mirror.is_none(), now);
        }
        if let Some(mirror) = mirror {
            return self.takes_updates(rapid, host, mirror, now);
        }
        self.agenda.add(self.asks_from(host, now + A_MOMENT), Event::Asks(host));
    }

    /// The rapid repo's metadata, and what is urgent unless it is there, or is to come by updates.
    fn takes_rapid(&mut self, rapid: &'a Rapid, host: usize, alone: bool, now: f64) {
        if self.has_urgent[host] {
            return;
        }
        let (habits, who) = self.hosts[host];
        let (files, purpose) = if alone {
            self.has_urgent[host] = true;
            (urgent(rapid, &habits, |urgent| &urgent.rapid, &mut self.rng), Purpose::Update)
        } else {
            (Vec::new(), Purpose::Rest)
        };
        let place = (purpose, habits.region, habits.link);
        let parts = (&rapid.root, &*rapid.metadata);
        // Its list names the nodes alone.
        self.begins(Transaction::new(place, who.client(), parts, files, now), None, now);
    }

    /// All that the host lacks, by updates, from a mirror or from the nodes.
    fn takes_updates(&mut self, rapid: &'a Rapid, host: usize, mirror: Option<usize>, now: f64) {
        let (habits, who) = self.hosts[host];
        let mut files = updates(self.world, &habits, &mut self.rng);
        let mut purpose = Purpose::Rest;
        if !self.has_urgent[host] {
            files.extend(urgent(rapid, &habits, |urgent| &urgent.updates, &mut self.rng));
            purpose = Purpose::Update;
        }
        // It asks no more: there is nothing else to come.
        let place = (purpose, habits.region, habits.link);
        let parts = (&self.world.root, &*self.world.metadata[1]);
        self.begins(Transaction::new(place, who.client(), parts, files, now), mirror, now);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Scenario;
    use crate::plan::{Outcome, RegionOutcome, simulate};
    use std::path::Path;

    /// Hosts that look once a day, and take metadata of updates for new for two days; 25 MB are urgent, 50 MB are not.
    const PLAIN: &str = "
[push]
sizes = [\"10 MB\", \"10 MB\", \"10 MB\", \"10 MB\", \"10 MB\"]
metadata = \"10 MB\"
[[checks]]
name = \"dnf\"
expire = \"48h\"
needs = [1, 1]
[[region]]
name = \"all\"
capacity = \"20 Gbit/s\"
[policy]
delivery = \"offload\"
";
    const HOSTS: f64 = 1e6;

    fn scenario(text: &str) -> Scenario {
        Scenario::parse(&format!("{PLAIN}{text}"), Path::new("s.toml")).unwrap().0
    }

    fn play(text: &str) -> Outcome {
        simulate(&scenario(text), 2000)
    }

    fn sum(outcome: &Outcome, of: fn(&RegionOutcome) -> f64) -> f64 {
        outcome.regions.iter().map(of).sum()
    }

    fn of_reason(outcome: &Outcome, reason: &str) -> f64 {
        outcome.reasons.iter().find(|(known, _)| *known == reason).map_or(0.0, |(_, bytes)| *bytes)
    }

    fn is_near(bytes: f64, expected: f64) -> bool {
        (bytes / expected - 1.0).abs() < 0.02
    }

    #[test]
    fn what_is_in_the_rapid_repo_alone_comes_from_the_nodes_at_the_next_look() {
        let outcome = play("[rapid]\nbefore_updates = \"47h\"\n[sync]\nmeasured = [\"90h\"]");
        assert!(outcome.updated.p99.unwrap() < 24.0 * 3600.0, "{:?}", outcome.updated);
        assert!(is_near(of_reason(&outcome, "own"), HOSTS * 25.1e6), "{:?}", outcome.reasons);
        assert_eq!(
            (sum(&outcome, |region| region.redirected), sum(&outcome, |region| region.direct)),
            (0.0, 0.0)
        );
    }

    #[test]
    fn what_is_in_both_comes_by_updates_where_a_host_knows_of_it() {
        let text = "[rapid]\n[sync]\nmeasured = [\"1s\"]";
        let (outcome, scenario) = (play(text), scenario(text));
        // Half of the hosts ask for metadata of updates at their first look after the push. The others have what is urgent
        // from the rapid repo, and the rest a day later.
        let own = of_reason(&outcome, "own");
        assert!(is_near(own, HOSTS * (0.5 * 25e6 + 0.1e6)), "{own}");
        let direct = sum(&outcome, |region| region.direct);
        assert!(is_near(direct, HOSTS * (60e6 + 0.5 * 25e6)), "{direct}");
        assert!(outcome.updated.p99.unwrap() < 24.0 * 3600.0);
        let window = simulate(&scenario.by_window().unwrap(), 2000);
        assert!(window.updated.p99.unwrap() > 40.0 * 3600.0, "metadata of updates expire after two days");
        assert_eq!(of_reason(&window, "own"), 0.0);
        let all = |outcome| {
            sum(outcome, |region| region.served) + sum(outcome, |region| region.redirected + region.direct)
        };
        assert!(is_near(all(&outcome), all(&window) + HOSTS * 0.1e6));
    }

    #[test]
    fn mirrors_take_it_by_the_path_of_updates_where_the_rapid_repo_may_be_offloaded() {
        let text = "[sync]\nmeasured = [\"1s\"]\n[rapid]\ndelivery = ";
        let [own, offload] = ["\"own\"", "\"offload\""].map(|delivery| play(&format!("{text}{delivery}")));
        assert_eq!(sum(&own, |region| region.redirected), 0.0);
        // But for the first file, after which a client is known.
        let redirected = sum(&offload, |region| region.redirected);
        assert!((0.7..1.0).contains(&(redirected / (HOSTS * 0.5 * 25e6))), "{redirected}");
        assert_eq!(own.updated.p50.map(f64::floor), offload.updated.p50.map(f64::floor));
    }
}
