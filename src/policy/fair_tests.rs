use super::*;
use proptest::prelude::*;

/// A link that gives turns at a rate, and transfers that always want more.
struct Link {
    queue: FairQueue,
    flows: Vec<Transfer>,
    /// The transfer in each of the queue's slots.
    by_slot: HashMap<usize, usize>,
    bytes_per_second: u64,
    now: Duration,
    /// Time up to which the budget is spent.
    spent: Duration,
    /// Bytes that were sent beyond the budget.
    beyond: u64,
}

struct Transfer {
    id: FlowId,
    sender: Sender,
    sent: u64,
    first: Option<Duration>,
    last: Duration,
    longest_gap: Duration,
    floor: Floor,
}

const QUANTUM: u64 = 16 << 10;

impl Link {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            queue: FairQueue::default(),
            flows: Vec::new(),
            by_slot: HashMap::new(),
            bytes_per_second,
            now: Duration::ZERO,
            spent: Duration::ZERO,
            beyond: 0,
        }
    }

    fn join(&mut self, client: u64, network: u64, class: Class, connections: usize) {
        for _ in 0..connections {
            let sender = Sender { client, network, class };
            let (id, mut floor) = (self.queue.join(sender), Floor::default());
            let due = floor.due(self.now, self.queue.start(client, network, self.bytes_per_second));
            self.queue.wait(id, QUANTUM, due);
            self.by_slot.insert(id.slot(), self.flows.len());
            let (sent, first, last, longest_gap) = (0, None, self.now, Duration::ZERO);
            self.flows.push(Transfer { id, sender, sent, first, last, longest_gap, floor });
        }
    }

    fn leave(&mut self, flow: usize) {
        self.queue.leave(self.flows[flow].id);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            loop {
                let is_spent = self.spent > self.now;
                let turn = if is_spent { self.queue.next_due(self.now) } else { self.queue.next(self.now) };
                let Some(turn) = turn else { break };
                if is_spent {
                    self.beyond += turn.bytes;
                } else {
                    let took = Duration::from_secs_f64(turn.bytes as f64 / self.bytes_per_second as f64);
                    self.spent = self.spent.max(self.now.saturating_sub(Duration::from_millis(10))) + took;
                }
                let transfer = &mut self.flows[self.by_slot[&turn.flow.slot()]];
                let since = transfer.first.map_or(Duration::ZERO, |_| self.now - transfer.last);
                transfer.longest_gap = transfer.longest_gap.max(since);
                transfer.first.get_or_insert(self.now);
                (transfer.last, transfer.sent) = (self.now, transfer.sent + turn.bytes);
                transfer.floor.had(turn.bytes, self.queue.floor(turn.flow), self.now);
                self.queue.wait(turn.flow, QUANTUM, transfer.floor.due(self.now, LONGEST_GAP));
            }
            self.now += Duration::from_millis(10);
        }
    }

    fn sent_by(&self, client: u64) -> u64 {
        self.flows.iter().filter(|flow| flow.sender.client == client).map(|flow| flow.sent).sum()
    }
}

fn assert_ratio(a: u64, b: u64, expected: f64) {
    let ratio = a as f64 / b as f64;
    assert!((ratio / expected - 1.0).abs() < 0.05, "{a} to {b} is {ratio}, expected {expected}");
}

#[test]
fn ten_connections_get_no_more_than_three() {
    let mut link = Link::new(10_000_000);
    link.join(1, 1, Class::Normal, 10);
    link.join(2, 2, Class::Normal, 3);
    link.join(3, 3, Class::Normal, 1);
    link.run(Duration::from_secs(20));
    assert_ratio(link.sent_by(1), link.sent_by(2), 1.0);
    assert_ratio(link.sent_by(3), link.sent_by(2), 1.0);
    assert_ratio(link.sent_by(1) + link.sent_by(2) + link.sent_by(3), 200_000_000, 1.0);
}

#[test]
fn a_campus_counts_for_its_hosts_up_to_a_cap() {
    // (transfers of one key, hosts that they count for)
    for (transfers, hosts) in [(16, 1.0), (17, 2.0), (96, 6.0), (128, 8.0), (400, 8.0)] {
        let mut link = Link::new(100_000_000);
        link.join(1, 1, Class::Normal, transfers);
        link.join(2, 2, Class::Normal, 3);
        link.run(Duration::from_secs(10));
        assert_ratio(link.sent_by(1), link.sent_by(2), hosts);
    }
}

#[test]
fn a_network_counts_for_64_hosts_at_most() {
    let mut link = Link::new(100_000_000);
    for client in 0..256 {
        link.join(1000 + client, 1, Class::Normal, 1);
    }
    link.join(1, 2, Class::Normal, 1);
    link.run(Duration::from_secs(20));
    let network: u64 = (0..256).map(|client| link.sent_by(1000 + client)).sum();
    assert_ratio(network, link.sent_by(1), 64.0);
}

#[test]
fn metadata_go_first_and_priorities_before_each_other() {
    let mut link = Link::new(1_000_000);
    link.join(1, 1, Class::Low, 3);
    link.join(2, 2, Class::Normal, 3);
    link.run(Duration::from_secs(10));
    assert!(link.sent_by(1) < 2 * 34_000 * 10, "the low one has its floor alone: {}", link.sent_by(1));
    assert!(link.sent_by(1) >= 32_000 * 7, "and has it: {}", link.sent_by(1));
    link.join(3, 3, Class::Metadata, 1);
    link.join(4, 4, Class::High, 1);
    let before = (link.sent_by(2), link.sent_by(4));
    link.run(Duration::from_secs(1));
    assert!(link.sent_by(3) > 900_000, "{}", link.sent_by(3));
    let metadata = 3 + 3 + 1;
    link.leave(metadata - 1);
    link.run(Duration::from_secs(10));
    assert!(link.sent_by(4) - before.1 > 6_000_000, "{}", link.sent_by(4));
    assert!(link.sent_by(2) - before.0 < 2 * 34_000 * 11, "{}", link.sent_by(2) - before.0);
}

#[test]
fn tickets_that_are_used_are_not_kept() {
    let mut link = Link::new(1_000_000);
    // These have nothing but their floor, and nobody leaves.
    link.join(1, 1, Class::Low, 10);
    link.join(2, 2, Class::Normal, 3);
    link.run(Duration::from_secs(600));
    let lines: usize = link.queue.lines.iter().map(BinaryHeap::len).sum();
    assert!(lines <= 300 && link.queue.dues.len() <= 150, "{lines}, {}", link.queue.dues.len());
}

#[test]
fn who_was_quiet_has_saved_nothing() {
    let mut link = Link::new(1_000_000);
    link.join(1, 1, Class::Normal, 1);
    link.run(Duration::from_secs(60));
    link.join(2, 2, Class::Normal, 1);
    let before = link.sent_by(1);
    link.run(Duration::from_secs(10));
    assert_ratio(link.sent_by(1) - before, link.sent_by(2), 1.0);
}

#[test]
fn a_client_that_comes_again_for_each_file_has_no_more_than_its_share() {
    let mut link = Link::new(200_000);
    link.join(1, 1, Class::Normal, 1);
    link.join(2, 2, Class::Normal, 1);
    for _ in 0..4000 {
        link.run(Duration::from_millis(10));
        // Its transfer is over with each turn, and the next one begins.
        let newest = link.flows.iter().rposition(|flow| flow.sender.client == 2).unwrap();
        if link.flows[newest].sent > 0 {
            link.leave(newest);
            link.join(2, 2, Class::Normal, 1);
        }
    }
    assert_ratio(link.sent_by(2), link.sent_by(1), 1.0);
}

/// 1 Gbit/s holds the floors of 3300 clients with three transfers each. 6000 can't be held: no client that has begun falls under
/// its floor or waits for more than 7 s, none waits for more than 20 s for a first byte, and what that takes is sent beyond the
/// budget.
#[test]
fn beyond_the_floors_new_transfers_wait_and_then_the_budget_yields() {
    for (clients, yields) in [(3200, false), (6000, true)] {
        let mut link = Link::new(125_000_000);
        for client in 0..clients {
            link.join(client, client, Class::Normal, 3);
        }
        link.run(Duration::from_secs(60));
        for flow in &link.flows {
            let first = flow.first.expect("everybody begins");
            assert!(first <= Duration::from_secs(20), "{first:?}");
            assert!(flow.longest_gap < Duration::from_secs(7), "{:?}", flow.longest_gap);
            let time = (flow.last - first).as_secs_f64();
            assert!(flow.sent as f64 >= 32_000.0 / 3.0 * time, "{} in {time} s", flow.sent);
        }
        assert_eq!(link.beyond > 0, yields, "{} bytes", link.beyond);
    }
}

/// Clients that hold connections don't hold the capacity. 50 Mbit/s; (networks, connections of each).
#[test]
fn connections_of_few_addresses_leave_others_their_share() {
    // The last one over HTTP/2: a hundred connections with 64 streams each.
    for (networks, connections) in [(1, 600), (10, 60), (100, 6), (1, 6400)] {
        let mut link = Link::new(6_250_000);
        for network in 0..networks {
            link.join(100 + network, 100 + network, Class::Normal, connections);
        }
        link.run(Duration::from_secs(5));
        let honest = link.flows.len();
        link.join(1, 1, Class::Normal, 3);
        link.run(Duration::from_secs(30));
        assert_eq!(link.beyond, 0, "{networks} networks take no more than there is");
        let hosts = networks * (connections as u64).div_ceil(16).min(8);
        let share = 6_250_000.0 * 30.0 / (hosts + 1) as f64;
        let got = link.sent_by(1) as f64;
        assert!(got > 0.9 * share, "{networks} networks: {got} of {share}");
        let first = link.flows[honest].first.expect("it begins") - Duration::from_secs(5);
        assert!(first < Duration::from_secs(1), "{networks} networks: {first:?}");
    }
}

/// Two thousand hosts behind one address, at 50 Mbit/s: each keeps above what librepo needs.
#[test]
fn many_hosts_behind_one_address_live() {
    let mut link = Link::new(6_250_000);
    link.join(1, 1, Class::Normal, 2000);
    link.join(2, 2, Class::Normal, 30);
    let mut before = vec![0; link.flows.len()];
    for window in 0..4 {
        link.run(Duration::from_secs(30));
        for (flow, before) in link.flows.iter().zip(&mut before) {
            assert!(flow.sent - *before >= 30 * 1000, "{} in window {window}", flow.sent - *before);
            *before = flow.sent;
        }
    }
    assert_eq!(link.beyond, 0);
}

proptest! {
    /// Whatever happens, everybody who waits has a turn in the end, nobody has one without waiting, and nothing is kept of
    /// those who left.
    #[test]
    fn everybody_who_waits_has_a_turn(steps in prop::collection::vec((0u8..4, 0u64..6, 0usize..20), 1..400)) {
        let mut queue = FairQueue::default();
        let (mut joined, mut waits): (Vec<FlowId>, Vec<FlowId>) = (Vec::new(), Vec::new());
        let mut now = Duration::ZERO;
        for (step, client, which) in steps {
            now += Duration::from_millis(100);
            let class = [Class::Metadata, Class::High, Class::Normal, Class::Low][which % 4];
            match step {
                0 => joined.push(queue.join(Sender { client, network: client / 2, class })),
                1 if !joined.is_empty() => {
                    let gone = joined.swap_remove(which % joined.len());
                    queue.leave(gone);
                    waits.retain(|id| *id != gone);
                }
                2 if !joined.is_empty() => {
                    let id = joined[which % joined.len()];
                    queue.wait(id, 1000, now + LONGEST_GAP);
                    if !waits.contains(&id) {
                        waits.push(id);
                    }
                }
                _ => {
                    if let Some(turn) = queue.next(now) {
                        prop_assert!(waits.contains(&turn.flow));
                        waits.retain(|id| *id != turn.flow);
                    } else {
                        prop_assert!(waits.is_empty());
                    }
                }
            }
            prop_assert_eq!(queue.waiting(), waits.len());
        }
        while let Some(turn) = queue.next(now) {
            waits.retain(|id| *id != turn.flow);
        }
        prop_assert!(waits.is_empty());
        for id in joined {
            queue.leave(id);
        }
        prop_assert!(queue.networks.is_empty() && queue.clients.is_empty());
        prop_assert_eq!((queue.floors, queue.lives), (0, 0));
        prop_assert!(queue.shares.len() <= 64);
    }
}
