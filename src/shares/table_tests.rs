use super::*;
use proptest::prelude::*;

const BOUNDS: Bounds = Bounds { entries: 10, of_client: 4, unused_for: 100 };

#[test]
fn a_network_that_floods_forgets_its_own() {
    let mut table = Table::new(BOUNDS);
    for key in 0..3u64 {
        table.insert(Owner::new(key, 1), key, "honest", 0);
    }
    for key in 100..1000u64 {
        table.insert(Owner::new(9, key), key, "flood", 1);
    }
    assert_eq!(table.len(), 10);
    assert!((0..3).all(|key| table.get(key, 1).is_some()));
    assert!((993..1000).all(|key| table.get(key, 1).is_some()), "its latest are there");
}

#[test]
fn of_networks_with_as_many_entries_the_oldest_goes() {
    let mut table = Table::new(BOUNDS);
    for network in (0..10u64).rev() {
        table.insert(Owner::new(network, 1), network, (), 0);
    }
    table.get(9, 1);
    table.insert(Owner::new(100, 1), 100, (), 1);
    table.insert(Owner::new(50, 1), 50, (), 1);
    assert_eq!(
        (0..=100).filter(|key| table.peek(*key, 1).is_some()).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5, 6, 9, 50, 100]
    );
}

#[test]
fn a_client_has_so_many_at_most() {
    let mut table = Table::new(BOUNDS);
    for key in 0..4u64 {
        table.insert(Owner::new(1, 1), key, (), 0);
    }
    table.insert(Owner::new(1, 2), 50, (), 0);
    table.get(0, 1);
    table.insert(Owner::new(1, 1), 4, (), 1);
    assert_eq!((0..5).filter(|key| table.peek(*key, 1).is_some()).collect::<Vec<_>>(), [0, 2, 3, 4]);
    assert!(table.peek(50, 1).is_some());
}

#[test]
fn what_is_not_used_is_forgotten() {
    let mut table = Table::new(BOUNDS);
    table.insert(Owner::new(1, 1), 1u64, (), 0);
    table.insert(Owner::new(1, 1), 2, (), 0);
    assert!(table.get(1, 99).is_some());
    assert!(table.peek(2, 100).is_none() && table.peek(1, 100).is_some());
    table.insert(Owner::new(1, 1), 3, (), 150);
    assert_eq!(table.len(), 2);
    assert!(table.get(1, 199).is_none());
    // A clock that is set back makes nothing last.
    table.insert(Owner::new(1, 1), 4, (), 10);
    assert_eq!(table.len(), 1);
}

proptest! {
    /// The bounds hold, and a network with no more than its even share loses nothing to others.
    #[test]
    fn bounds_hold(draws in prop::collection::vec((0..5u64, 0..3u64, 0..40u64, prop::bool::ANY), 1..400)) {
        let mut table = Table::new(BOUNDS);
        let mut owners: HashMap<u64, Owner> = HashMap::new();
        for (network, client, key, is_read) in draws {
            if is_read {
                table.get(key, 0);
                continue;
            }
            let owner = Owner::new(network, client);
            let before: Vec<u64> = owners.keys().copied().filter(|key| table.peek(*key, 0).is_some()).collect();
            table.insert(owner, key, (), 0);
            owners.insert(key, owner);
            let has = |network: u64| before.iter().filter(|key| owners[key].network == network).count();
            for lost in before.iter().filter(|key| table.peek(**key, 0).is_none()) {
                let loser = owners[lost];
                prop_assert!(loser == owner || loser.network == network || has(loser.network) * 5 >= 10, "{loser:?}");
            }
            prop_assert!(table.len() <= 10 && table.order.len() == table.len());
            let of_client = owners.iter().filter(|(key, of)| **of == owner && table.peek(**key, 0).is_some()).count();
            prop_assert!(of_client <= 4);
        }
        for key in 0..40 {
            table.remove(key);
        }
        prop_assert!(table.networks.is_empty() && table.sizes.is_empty() && table.order.is_empty());
    }
}
