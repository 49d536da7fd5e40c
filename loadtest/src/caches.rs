//! Caches to compare with the node's own: what each keeps of a trace, and the best that any could.

use crate::trace::Trace;
use freshet::store::measure::{Counted, MOST_USES, Policy};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A cache of some bytes.
pub trait Cache {
    /// Whether it was there. It is afterwards, if it fits at all.
    fn fetch(&mut self, object: u32, bytes: u64) -> bool;
    /// Whether it is there. No use of it.
    fn holds(&self, object: u32) -> bool;
}

/// Uses of an object in the node's policy.
#[derive(Default)]
struct Uses(Cell<u8>);

impl Counted for Uses {
    fn uses(&self) -> u8 {
        self.0.get()
    }

    fn set_uses(&self, uses: u8) {
        self.0.set(uses);
    }
}

/// The node's policy, used as the disk tier uses it.
pub struct Own {
    policy: Policy<u32, Uses>,
    bound: u64,
}

impl Own {
    pub fn new(bound: u64) -> Self {
        Self { policy: Policy::new(bound), bound }
    }
}

impl Cache for Own {
    fn fetch(&mut self, object: u32, bytes: u64) -> bool {
        if let Some((uses, _)) = self.policy.get(&object) {
            uses.set_uses((uses.uses() + 1).min(MOST_USES));
            return true;
        }
        if bytes <= self.bound {
            while self.policy.bytes() + bytes > self.bound && self.policy.evict().is_some() {}
            self.policy.store(object, bytes);
        }
        false
    }

    fn holds(&self, object: u32) -> bool {
        self.policy.get(&object).is_some()
    }
}

/// What a hit does to an object's place in [`InOrder`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Hits {
    /// LRU.
    Renew,
    /// FIFO.
    Leave,
}

/// LRU or FIFO.
pub struct InOrder {
    hits: Hits,
    bound: u64,
    used: u64,
    clock: u64,
    places: HashMap<u32, (u64, u64)>,
    order: BTreeMap<u64, u32>,
}

impl InOrder {
    pub fn new(bound: u64, hits: Hits) -> Self {
        Self { hits, bound, used: 0, clock: 0, places: HashMap::new(), order: BTreeMap::new() }
    }
}

impl Cache for InOrder {
    fn fetch(&mut self, object: u32, bytes: u64) -> bool {
        self.clock += 1;
        if let Some((place, _)) = self.places.get_mut(&object) {
            if self.hits == Hits::Renew {
                self.order.remove(place);
                *place = self.clock;
                self.order.insert(self.clock, object);
            }
            return true;
        }
        if bytes <= self.bound {
            while self.used + bytes > self.bound {
                let Some((_, oldest)) = self.order.pop_first() else { break };
                self.used -= self.places.remove(&oldest).map_or(0, |(_, bytes)| bytes);
            }
            self.used += bytes;
            self.places.insert(object, (self.clock, bytes));
            self.order.insert(self.clock, object);
        }
        false
    }

    fn holds(&self, object: u32) -> bool {
        self.places.contains_key(&object)
    }
}

/// Hits of a trace, and their bytes.
#[derive(Clone, Copy, Default)]
pub struct Hit {
    pub objects: u64,
    pub bytes: u64,
}

impl Hit {
    fn count(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// What a cache hits of a trace from `from` on; before, it warms up.
pub fn replay(trace: &Trace, from: usize, cache: &mut dyn Cache) -> Hit {
    let mut hit = Hit::default();
    for (number, object) in trace.requests.iter().enumerate() {
        let bytes = trace.size(*object);
        if cache.fetch(*object, bytes) && number >= from {
            hit.count(bytes);
        }
    }
    hit
}

/// What Belady's rule hits: out goes who is needed furthest in the future, which may be the newcomer. The best there is
/// where all sizes are the same; for sizes that differ, merely good: a cache that knows the future and is possible.
pub fn belady(trace: &Trace, from: usize, bound: u64) -> Hit {
    let next = next_uses(trace);
    let (mut held, mut by_need, mut used) =
        (HashMap::<u32, u32>::new(), BTreeSet::<(u32, u32)>::new(), 0_u64);
    let mut hit = Hit::default();
    for (number, object) in trace.requests.iter().enumerate() {
        let bytes = trace.size(*object);
        if let Some(need) = held.remove(object) {
            by_need.remove(&(need, *object));
            used -= bytes;
            if number >= from {
                hit.count(bytes);
            }
        }
        let need = next[number];
        if need == u32::MAX || bytes > bound {
            continue;
        }
        held.insert(*object, need);
        by_need.insert((need, *object));
        used += bytes;
        while used > bound {
            let Some((_, furthest)) = by_need.pop_last() else { break };
            held.remove(&furthest);
            used -= trace.size(furthest);
        }
    }
    hit
}

/// More than any cache can hit (the bound PFOO-L of Berger, Beckmann, Harchol-Balter, "Practical Bounds on Optimal Caching
/// with Variable Object Sizes", 2018): to hit a request, its object has to lie in the cache since the one before. That takes
/// its size times that long; all hits together have the cache's size times the trace's length, and the cheapest are taken.
/// Objects by that cost, bytes by cost for each byte.
pub fn upper_bound(trace: &Trace, from: usize, bound: u64) -> Hit {
    let mut last = vec![u32::MAX; trace.sizes.len()];
    // (requests in between, size)
    let mut stays: Vec<(u32, u64)> = Vec::new();
    for (number, object) in (0_u32..).zip(&trace.requests) {
        let before = std::mem::replace(&mut last[*object as usize], number);
        let bytes = trace.size(*object);
        // A stay that began in the warm-up takes room from where the count begins.
        if before != u32::MAX && number as usize >= from && bytes <= bound {
            stays.push((number - before.max(u32::try_from(from).unwrap_or(0)), bytes));
        }
    }
    let room = u128::from(bound) * (trace.requests.len() - from) as u128;
    let cost = |(length, bytes): &(u32, u64)| u128::from(*length) * u128::from(*bytes);
    let mut hit = Hit::default();
    stays.sort_unstable_by_key(cost);
    let mut left = room;
    for stay in &stays {
        let Some(rest) = left.checked_sub(cost(stay)) else { break };
        left = rest;
        hit.objects += 1;
    }
    stays.sort_unstable();
    left = room;
    for stay in &stays {
        let Some(rest) = left.checked_sub(cost(stay)) else {
            // A part of it: the bound is on fractions, too.
            hit.bytes += u64::try_from(left / u128::from(stay.0.max(1))).unwrap_or(0);
            break;
        };
        left = rest;
        hit.bytes += stay.1;
    }
    hit
}

/// For each request the next one of the same object.
fn next_uses(trace: &Trace) -> Vec<u32> {
    let mut next = vec![u32::MAX; trace.requests.len()];
    let mut seen = vec![u32::MAX; trace.sizes.len()];
    for (number, object) in trace.requests.iter().enumerate().rev() {
        let number_before = u32::try_from(number).expect("some millions");
        next[number] = std::mem::replace(&mut seen[*object as usize], number_before);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(requests: &[u32], sizes: &[u64]) -> Trace {
        Trace { requests: requests.to_vec(), sizes: sizes.to_vec(), cold: 0 }
    }

    #[test]
    fn the_bounds_are_what_can_be_counted_by_hand() {
        // Room for one of two: of a b a b a one may stay, and hits twice at best.
        let two = trace(&[0, 1, 0, 1, 0], &[10, 10]);
        assert_eq!(belady(&two, 0, 10).objects, 2);
        assert_eq!(replay(&two, 0, &mut InOrder::new(10, Hits::Renew)).objects, 0);
        assert_eq!(replay(&two, 0, &mut InOrder::new(20, Hits::Renew)).objects, 3);
        // Each of the three stays takes 20 of 50.
        assert_eq!(upper_bound(&two, 0, 10).objects, 2);
        assert_eq!(upper_bound(&two, 0, 10).bytes, 25);
        assert_eq!(upper_bound(&two, 0, 9).objects, 0, "too large for the cache");
    }

    #[test]
    fn lru_renews_and_fifo_does_not() {
        let three = trace(&[0, 1, 0, 2, 0], &[10, 10, 10]);
        assert_eq!(replay(&three, 0, &mut InOrder::new(20, Hits::Renew)).objects, 2);
        assert_eq!(replay(&three, 0, &mut InOrder::new(20, Hits::Leave)).objects, 1);
        assert_eq!(replay(&three, 3, &mut InOrder::new(20, Hits::Renew)).objects, 1, "after the warm-up");
    }

    #[test]
    fn nobody_beats_the_bound() {
        let requests: Vec<u32> = (0..3000_u32).map(|n| (n * n + n / 7) % 97 % (1 + n % 60)).collect();
        let sizes: Vec<u64> = (0..97).map(|n| 1 + n * n % 31).collect();
        let trace = trace(&requests, &sizes);
        for bound in [20, 60, 200, 600] {
            let best = upper_bound(&trace, 500, bound);
            let own = replay(&trace, 500, &mut Own::new(bound));
            let lru = replay(&trace, 500, &mut InOrder::new(bound, Hits::Renew));
            for hit in [own, lru, belady(&trace, 500, bound)] {
                assert!(hit.objects <= best.objects && hit.bytes <= best.bytes, "{bound}");
            }
        }
    }
}
