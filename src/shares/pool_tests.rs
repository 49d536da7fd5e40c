use super::*;
use proptest::prelude::*;

type Numbers = Pool<u64, 3>;

fn limits(places: u64) -> Limits<3> {
    Limits { places, reserved: [0; 3], network: u64::MAX, waiters: 1000 }
}

fn owner(network: u64) -> Owner {
    Owner::new(network, 1)
}

/// The numbers of those that are granted a place now.
fn granted(pool: &mut Numbers) -> Vec<u64> {
    std::iter::from_fn(|| pool.next_granted()).collect()
}

fn called(pool: &mut Numbers) -> Vec<u64> {
    std::iter::from_fn(|| pool.next_called()).collect()
}

/// The place's number.
fn take(pool: &mut Numbers, owner: Owner, class: usize) -> u64 {
    let Answer::Granted(id) = pool.request(owner, class, 0) else { panic!("no place is free") };
    id
}

/// The waiter's number.
fn wait(pool: &mut Numbers, owner: Owner, class: usize) -> u64 {
    let Answer::Waits(id, None) = pool.request(owner, class, 0) else { panic!("it doesn't wait") };
    id
}

#[test]
fn the_first_of_a_network_goes_before_the_hundredth_of_another() {
    let mut pool = Numbers::new(limits(3));
    let held: Vec<u64> = (0..3).map(|_| take(&mut pool, owner(1), 0)).collect();
    let crowd: Vec<u64> = (0..100).map(|_| wait(&mut pool, owner(1), 0)).collect();
    let (second, third) = (wait(&mut pool, owner(2), 0), wait(&mut pool, owner(3), 0));
    pool.release(held[0]);
    assert_eq!(granted(&mut pool), [second]);
    pool.release(held[1]);
    assert_eq!(granted(&mut pool), [third]);
    pool.release(held[2]);
    assert_eq!(granted(&mut pool), [crowd[0]]);
}

#[test]
fn within_a_network_a_client_goes_first_that_holds_less() {
    let mut pool = Numbers::new(limits(2));
    let (many, one) = (Owner::new(1, 1), Owner::new(1, 2));
    let held = take(&mut pool, many, 0);
    take(&mut pool, many, 0);
    wait(&mut pool, many, 0);
    let waits = wait(&mut pool, one, 0);
    pool.release(held);
    assert_eq!(granted(&mut pool), [waits]);
}

#[test]
fn reserved_places_are_for_their_class_and_those_before_it() {
    let mut pool = Numbers::new(Limits { reserved: [2, 3, 0], ..limits(10) });
    for _ in 0..5 {
        take(&mut pool, owner(1), 2);
    }
    let last = wait(&mut pool, owner(2), 2);
    for _ in 0..3 {
        take(&mut pool, owner(1), 1);
    }
    let listed = wait(&mut pool, owner(2), 1);
    let places = [take(&mut pool, owner(3), 0), take(&mut pool, owner(3), 0)];
    let push = wait(&mut pool, owner(3), 0);
    // What a class gives back is not for those after it.
    pool.release(places[0]);
    assert_eq!(granted(&mut pool), [push]);
    pool.release(places[1]);
    assert_eq!(granted(&mut pool), [] as [u64; 0]);
    pool.cancel(listed);
    assert_eq!(pool.state(last), State::Waiting);
    assert_eq!((pool.held(), pool.waiting()), (9, 1));
}

#[test]
fn a_network_at_its_bound_waits_for_its_own() {
    let mut pool = Numbers::new(Limits { network: 2, ..limits(10) });
    let held = [take(&mut pool, owner(1), 0), take(&mut pool, owner(1), 0)];
    let third = wait(&mut pool, owner(1), 0);
    take(&mut pool, owner(2), 0);
    assert_eq!(granted(&mut pool), [] as [u64; 0]);
    // Only an unused one of its own helps.
    let other = take(&mut pool, owner(3), 0);
    pool.set_use(other, Use::Idle);
    assert_eq!(called(&mut pool), [] as [u64; 0]);
    pool.set_use(held[1], Use::Idle);
    assert_eq!(called(&mut pool), [held[1]]);
    pool.release(held[1]);
    assert_eq!(granted(&mut pool), [third]);
    // A load balancer stands for many.
    for _ in 0..4 {
        take(&mut pool, owner(4).many(), 0);
    }
}

#[test]
fn a_network_at_its_bound_stands_in_no_others_way() {
    let mut pool = Numbers::new(Limits { network: 2, ..limits(8) });
    let balancer = Owner::new(7, 70).many();
    let held: Vec<u64> = (0..6).map(|_| take(&mut pool, balancer, 0)).collect();
    for _ in 0..2 {
        take(&mut pool, owner(1), 0);
    }
    let capped = wait(&mut pool, owner(1), 0);
    let next = wait(&mut pool, balancer, 0);
    pool.release(held[0]);
    assert_eq!(granted(&mut pool), [next], "it holds more, and may have more");
    assert_eq!(pool.state(capped), State::Waiting);
    // Another host of the balancer's network counts for that, and the balancer doesn't.
    let neighbour = wait(&mut pool, owner(7), 0);
    pool.set_use(held[1], Use::Idle);
    assert_eq!(called(&mut pool), [held[1]]);
    pool.release(held[1]);
    assert_eq!(granted(&mut pool), [neighbour]);
}

#[test]
fn unused_places_are_called_back_from_the_largest_and_no_more_than_wait() {
    let mut pool = Numbers::new(limits(6));
    let large: Vec<u64> = (0..4).map(|_| take(&mut pool, owner(1), 0)).collect();
    let small = [take(&mut pool, owner(2), 0), take(&mut pool, owner(3), 0)];
    for id in [large[0], large[1], small[0]] {
        pool.set_use(id, Use::Idle);
    }
    pool.set_use(large[2], Use::Silent);
    pool.set_use(small[1], Use::Abandoned);
    assert_eq!(called(&mut pool), [] as [u64; 0], "nothing is wanted");
    let waits = wait(&mut pool, owner(9), 0);
    assert_eq!(called(&mut pool), [small[1]], "what is wanted no more, even from a network that holds one");
    wait(&mut pool, owner(8), 0);
    assert_eq!(called(&mut pool), [large[2]]);
    wait(&mut pool, owner(7), 0);
    assert_eq!(called(&mut pool), [large[1]], "the youngest");
    // Two are called back from it; it uses one again, and another is called.
    pool.set_use(large[1], Use::Busy);
    assert_eq!(called(&mut pool), [large[0]]);
    assert_eq!(pool.state(large[0]), State::Granted { called: true });
    pool.release(small[1]);
    assert_eq!(granted(&mut pool), [waits]);
    // A network that holds none gets an idle place even of one that holds one.
    wait(&mut pool, owner(6), 0);
    assert_eq!(called(&mut pool), [small[0]]);
    // One that holds as many doesn't.
    wait(&mut pool, owner(1), 0);
    assert_eq!(called(&mut pool), [] as [u64; 0]);
}

#[test]
fn a_full_waiting_room_loses_the_youngest_of_the_largest_network() {
    let mut pool = Numbers::new(Limits { waiters: 3, ..limits(1) });
    take(&mut pool, owner(1), 0);
    for item in 0..3 {
        assert!(matches!(pool.request(owner(1), 0, item), Answer::Waits(_, None)));
    }
    assert_eq!(pool.request(owner(1), 0, 9), Answer::Refused, "its own network has the most");
    let Answer::Waits(second, Some(2)) = pool.request(owner(2), 0, 10) else { panic!() };
    let Answer::Waits(third, Some(1)) = pool.request(owner(3), 0, 11) else { panic!() };
    assert_eq!(pool.request(owner(4), 0, 12), Answer::Refused, "each has one");
    assert_eq!((pool.state(second), pool.state(third)), (State::Waiting, State::Waiting));
}

#[test]
fn another_owner_may_have_a_place() {
    let mut pool = Numbers::new(limits(2));
    let places = [take(&mut pool, owner(1).many(), 0), take(&mut pool, owner(1).many(), 0)];
    let (one, two) = (wait(&mut pool, owner(2), 0), wait(&mut pool, owner(3), 0));
    pool.transfer(places[0], owner(2));
    pool.release(places[1]);
    assert_eq!(granted(&mut pool), [two], "the other holds one");
    pool.release(places[0]);
    assert_eq!(granted(&mut pool), [one]);
}

/// A client of a network; the fifth is a load balancer.
fn of(network: u64, client: u64) -> Owner {
    if network == 5 { Owner::new(1, 500).many() } else { Owner::new(network, client) }
}

/// What happens to a pool.
#[derive(Clone, Debug)]
enum Event {
    Request(u64, u64, usize),
    Release(usize),
    Cancel(usize),
    SetUse(usize, u8),
    Transfer(usize, u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1..6u64, 1..3u64, 0..3usize).prop_map(|(network, client, class)| Event::Request(network, client, class)),
        3 => any::<usize>().prop_map(Event::Release),
        1 => any::<usize>().prop_map(Event::Cancel),
        2 => (any::<usize>(), 0..4u8).prop_map(|(place, how)| Event::SetUse(place, how)),
        1 => (any::<usize>(), 1..6u64).prop_map(|(place, network)| Event::Transfer(place, network)),
    ];
    prop::collection::vec(event, 1..200)
}

/// A pool written down as lists, and by scanning them.
#[derive(Default)]
struct Model {
    held: Vec<(u64, Owner, usize)>,
    waiting: Vec<(u64, Owner, usize)>,
}

impl Model {
    fn holds(&self, network: u64) -> usize {
        self.held.iter().filter(|(_, owner, _)| owner.network == network).count()
    }

    fn is_below(&self, owner: Owner, limits: &Limits<3>) -> bool {
        owner.is_many || (self.holds(owner.network) as u64) < limits.network
    }

    fn may_take(&self, owner: Owner, class: usize, limits: &Limits<3>) -> bool {
        let from = |first| self.held.iter().filter(|(_, _, class)| *class >= first).count() as u64;
        let is_full =
            |first: usize| from(first) + limits.reserved[..first].iter().sum::<u64>() >= limits.places;
        !(0..=class).any(is_full) && self.is_below(owner, limits)
    }
}

const USES: [Use; 4] = [Use::Abandoned, Use::Silent, Use::Idle, Use::Busy];

proptest! {
    /// Whatever happens: bounds hold, nothing lies idle that could be granted, the network that holds least is next, no more
    /// places are called back than are waited for, none that is in use; and when all are gone nothing is left.
    #[test]
    fn shares_hold(events in events(), places in 1..8u64, reserved in 0..3u64, network in 1..9u64, room in 1..20usize) {
        let limits = Limits { places, reserved: [reserved.min(places - 1), 0, 0], network, waiters: room };
        let (mut pool, mut model) = (Pool::<u64, 3>::new(limits), Model::default());
        let mut uses = HashMap::new();
        let mut out: BTreeSet<u64> = BTreeSet::new();
        for event in events {
            match event {
                Event::Request(network, client, class) => {
                    let owner = of(network, client);
                    match pool.request(owner, class, 0) {
                        Answer::Granted(id) => {
                            prop_assert!(model.may_take(owner, class, &limits));
                            model.held.push((id, owner, class));
                        }
                        Answer::Waits(id, gone) => {
                            if gone.is_some() {
                                let of = |network: u64| model.waiting.iter().filter(|(_, owner, _)| owner.network == network).count();
                                let lost: Vec<u64> = model.waiting.iter().map(|(id, ..)| *id).filter(|id| pool.state(*id) == State::Gone).collect();
                                prop_assert_eq!(lost.len(), 1);
                                let loser = model.waiting.iter().find(|(id, ..)| *id == lost[0]).unwrap().1.network;
                                prop_assert!(of(loser) > of(owner.network) + 1, "only a larger network loses a waiter");
                                model.waiting.retain(|(id, ..)| *id != lost[0]);
                            }
                            model.waiting.push((id, owner, class));
                        }
                        Answer::Refused => prop_assert_eq!(model.waiting.len(), room),
                    }
                }
                Event::Release(at) if !model.held.is_empty() => {
                    let (id, ..) = model.held.remove(at % model.held.len());
                    pool.release(id);
                    uses.remove(&id);
                    out.remove(&id);
                }
                Event::Cancel(at) if !model.waiting.is_empty() => {
                    let (id, ..) = model.waiting.remove(at % model.waiting.len());
                    pool.cancel(id);
                }
                Event::SetUse(at, how) if !model.held.is_empty() => {
                    let (id, ..) = model.held[at % model.held.len()];
                    pool.set_use(id, USES[how as usize]);
                    uses.insert(id, USES[how as usize]);
                    if how == 3 {
                        out.remove(&id);
                    }
                }
                Event::Transfer(at, network) if !model.held.is_empty() => {
                    let at = at % model.held.len();
                    let owner = of(network, 7);
                    model.held[at].1 = owner;
                    pool.transfer(model.held[at].0, owner);
                }
                _ => {}
            }
            while let Some(id) = pool.next_granted() {
                let at = model.waiting.iter().position(|(waiter, ..)| *waiter == id).unwrap();
                let (_, owner, class) = model.waiting.remove(at);
                prop_assert!(model.may_take(owner, class, &limits));
                for (_, other, its) in &model.waiting {
                    let is_next = *its != class
                        || !model.is_below(*other, &limits)
                        || model.holds(other.network) >= model.holds(owner.network);
                    prop_assert!(is_next, "the one that holds least, of those that may have more");
                }
                model.held.push((id, owner, class));
            }
            for (_, owner, class) in &model.waiting {
                prop_assert!(!model.may_take(*owner, *class, &limits), "nothing lies idle");
            }
            while let Some(id) = pool.next_called() {
                prop_assert!(uses.get(&id).is_some_and(|how| *how != Use::Busy));
                prop_assert!(out.insert(id), "each once");
            }
            prop_assert!(pool.called <= out.len());
            prop_assert_eq!((pool.held() as usize, pool.waiting()), (model.held.len(), model.waiting.len()));
        }
        for (id, ..) in model.held.drain(..) {
            pool.release(id);
        }
        for (id, ..) in model.waiting.drain(..) {
            pool.cancel(id);
            pool.release(id);
        }
        prop_assert_eq!((pool.networks.len(), pool.called, pool.places.len(), pool.waiters.len()), (0, 0, 0, 0));
        prop_assert!(pool.givers.iter().all(Ranks::is_empty) && pool.crowds.is_empty());
    }

    /// However many places, waiters and clients the networks of an attack have: an honest network that comes gets the first
    /// place that is released, and its even share of places from then on.
    #[test]
    fn an_honest_network_has_its_share(attackers in 1..20u64, clients in 1..50u64, each in 1..50u64) {
        let mut pool = Numbers::new(limits(20));
        let mut held = Vec::new();
        for number in 0..attackers * each {
            let owner = Owner::new(number % attackers, number % clients);
            if let Answer::Granted(id) = pool.request(owner, 0, 0) {
                held.push((id, owner.network));
            }
        }
        let (mut had, mut released) = (0, 0);
        while held.len() == 20 && released < 200 {
            // All replace what they lose, and the honest one has one request at a time.
            let (id, network) = held.remove(0);
            let waits = pool.request(owner(99), 0, 0);
            if network != 99 {
                pool.request(Owner::new(network, released % clients), 0, 0);
            }
            pool.release(id);
            released += 1;
            for id in granted(&mut pool) {
                let is_honest = matches!(waits, Answer::Waits(own, _) if own == id);
                had += u64::from(is_honest);
                held.push((id, if is_honest { 99 } else { pool.places[&id].owner.network }));
            }
            if let Answer::Waits(own, _) = waits {
                pool.cancel(own);
            }
        }
        let share = (20 / (attackers + 1)).max(1);
        prop_assert!(had + 1 >= released * share / 20, "{had} of {released}");
    }
}
