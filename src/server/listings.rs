//! Rendered directory listings, kept for a moment.

use super::memory::{Memory, Shared};
use crate::http::TreePath;
use crate::permits::{Permit, Permits, Refused};
use crate::shares::{Limits, Owner};
use bytes::Bytes;
use moka::sync::Cache;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// How long a listing is shown without looking again.
const FRESH: Duration = Duration::from_secs(2);
/// Most bytes of kept listings.
const MOST_BYTES: u64 = 64 << 20;
/// Directories read at once: a listing of 10,000 names keeps a thread of the pool busy for some 10 ms, longer on a disk.
const AT_ONCE: u64 = 4;
/// Of one network, so that a turn is left for the first of another.
const OF_NETWORK: u64 = AT_ONCE - 1;
/// Requests that wait, of all networks.
const WAITING: usize = 4096;

/// The listings of a directory origin.
#[derive(Debug)]
pub struct Listings {
    pages: Cache<TreePath, Arc<Shared>>,
    /// The last page of each directory, while a response has it.
    lent: Mutex<HashMap<TreePath, Weak<Shared>>>,
    turns: Arc<Permits<1>>,
    memory: Arc<Memory>,
}

impl Listings {
    /// Pages that count against the ceiling of `memory` while responses have them.
    #[must_use]
    pub fn new(memory: Arc<Memory>) -> Self {
        let weigh = |_: &TreePath, page: &Arc<Shared>| u32::try_from(page.bytes().len()).unwrap_or(u32::MAX);
        let pages = Cache::builder().max_capacity(MOST_BYTES).weigher(weigh).time_to_live(FRESH).build();
        let limits = Limits { places: AT_ONCE, reserved: [0], network: OF_NETWORK, waiters: WAITING };
        Self { pages, lent: Mutex::default(), turns: Permits::new(limits), memory }
    }

    /// A listing that was made just now.
    #[must_use]
    pub fn at_hand(&self, dir: &TreePath) -> Option<Bytes> {
        self.pages.get(dir).map(|page| page.lend())
    }

    /// The right to read a directory, as soon as it is this network's turn.
    ///
    /// # Errors
    /// Too many wait, most of them of this network.
    pub async fn turn(&self, owner: Owner) -> Result<Permit<1>, Refused> {
        self.turns.acquire(owner, 0).await
    }

    /// Keeps a listing. While the directory stays as it is, all that read its page have the same one.
    pub fn keep(&self, dir: &TreePath, html: Bytes) -> Bytes {
        let page = self.lent(dir).filter(|page| page.bytes() == &html);
        let page = page.unwrap_or_else(|| Shared::new(html, self.memory.clone()));
        self.pages.insert(dir.clone(), page.clone());
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        lent.retain(|_, page| page.strong_count() > 0);
        lent.insert(dir.clone(), Arc::downgrade(&page));
        drop(lent);
        page.lend()
    }

    fn lent(&self, dir: &TreePath) -> Option<Arc<Shared>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner).get(dir)?.upgrade()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::IntCounter;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn listings() -> Listings {
        Listings::new(Memory::new(1 << 30, IntCounter::new("ended", "for others").unwrap()))
    }

    #[test]
    fn a_directory_that_stays_as_it_is_has_one_page_however_often_it_is_made() {
        let (listings, dir) = (listings(), TreePath::new("dir").unwrap());
        let make = |html: &str| listings.keep(&dir, Bytes::from(html.to_owned()));
        let (first, again) = (make("a page"), make("a page"));
        assert_eq!((first.as_ptr(), listings.memory.held()), (again.as_ptr(), 6));
        let other = make("another page");
        assert_eq!((&other[..], listings.memory.held()), (&b"another page"[..], 6 + 12));
        assert_eq!(listings.at_hand(&dir).unwrap().as_ptr(), other.as_ptr());
        drop((first, again, other));
        assert_eq!(listings.memory.held(), 0, "none is read");
    }

    #[test]
    fn a_network_that_asks_for_many_listings_leaves_a_turn_for_another() {
        let listings = listings();
        let flood = Owner::new(1, 1);
        let mut turns: Vec<_> = (0..100).map(|_| Box::pin(listings.turn(flood))).collect();
        let mut held: Vec<_> = turns
            .iter_mut()
            .filter_map(|turn| match poll(turn.as_mut()) {
                Poll::Ready(turn) => Some(turn.unwrap()),
                Poll::Pending => None,
            })
            .collect();
        assert_eq!(held.len() as u64, OF_NETWORK);
        let (mut first, mut second) =
            (pin!(listings.turn(Owner::new(2, 1))), pin!(listings.turn(Owner::new(2, 1))));
        let Poll::Ready(Ok(_first)) = poll(first.as_mut()) else {
            panic!("the first of another network waits")
        };
        assert!(poll(second.as_mut()).is_pending());
        // The next that is free is its, too, whatever the other has waiting.
        held.pop();
        assert!(poll(second.as_mut()).is_ready());
    }

    #[test]
    fn where_too_many_wait_the_network_that_has_most_of_them_is_refused() {
        let listings = listings();
        let flood = Owner::new(1, 1);
        let mut turns: Vec<_> = (0..WAITING + 4).map(|_| Box::pin(listings.turn(flood))).collect();
        let polled: Vec<_> = turns.iter_mut().map(|turn| poll(turn.as_mut())).collect();
        let refused = polled.iter().filter(|polled| matches!(polled, Poll::Ready(Err(_)))).count();
        assert_eq!(refused as u64, 4 - OF_NETWORK);
        let mut other = pin!(listings.turn(Owner::new(2, 1)));
        assert!(matches!(poll(other.as_mut()), Poll::Ready(Ok(_))));
    }
}
