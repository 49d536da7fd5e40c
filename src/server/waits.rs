//! What a connection waits for, and until when it may.
//!
//! Pure: events and `now` in, a deadline out. A connection that has no request may be idle for a while; one that has
//! begun a head must complete it; and while at least one response has something to send, the client must take
//! something. Time that the node itself needs (an origin, a disk) is bounded elsewhere, and never held against the
//! client.

use crate::shares::Use;
use std::time::{Duration, Instant};

/// A client that has asked for nothing so long after it connected, or has begun to, is silent: its head takes no longer over any
/// line, but one where packets are lost.
const SILENT_AFTER: Duration = Duration::from_secs(2);

/// A client that has taken less than [`LITTLE_BYTES`] of what is ready for it for so long is silent, too: librepo itself gives a
/// transfer up that has less than 1000 B/s for 30 s.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// Half of that, since the node may have less to give while its capacity is used up.
const LITTLE_BYTES: u64 = 15_000;

/// The longest waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between requests.
    pub idle: Duration,
    /// From a request's first byte to the end of its head.
    pub head: Duration,
    /// Without the client taking a byte of what is ready for it.
    pub write: Duration,
}

/// The state of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// Requests whose response isn't over.
    open: u32,
    /// Those of them that wait for the node, not for the client.
    ours: u32,
    /// A head has begun.
    in_head: bool,
    /// A response has ended: from then on the client takes a silent end between requests for no failure.
    answered: bool,
    /// The last response is out, and the client's end is waited for, which has a bound of its own.
    lingering: bool,
    /// Since when what came waits for the node's own turn to read it.
    in_line: Option<Instant>,
    /// When something last went forward.
    moved: Instant,
    /// Since when the client has taken so little, and how little.
    slow_since: Instant,
    taken: u64,
}

impl Waits {
    /// A new connection.
    pub const fn new(now: Instant) -> Self {
        let (in_head, answered, lingering, in_line) = (false, false, false, None);
        let (moved, slow_since, taken) = (now, now, 0);
        Self { open: 0, ours: 0, in_head, answered, lingering, in_line, moved, slow_since, taken }
    }

    /// Bytes came from the client.
    pub const fn received(&mut self, now: Instant) {
        if self.open == 0 && !self.in_head {
            self.in_head = true;
            self.moved = now;
        }
    }

    /// Something came that the node reads in its turn, which is waited for.
    pub const fn lines_up(&mut self, now: Instant) {
        if self.in_line.is_none() {
            self.in_line = Some(now);
        }
    }

    /// The turn is there. The client's time goes on from where it stood.
    pub fn has_its_turn(&mut self, now: Instant) {
        if let Some(since) = self.in_line.take() {
            self.moved += now.saturating_duration_since(since);
        }
    }

    /// So many bytes went to the client.
    pub const fn sent(&mut self, bytes: u64, now: Instant) {
        if self.open > 0 {
            self.moved = now;
        }
        self.taken += bytes;
        if self.taken >= LITTLE_BYTES {
            self.begins_to_take(now);
        }
    }

    const fn begins_to_take(&mut self, now: Instant) {
        (self.slow_since, self.taken) = (now, 0);
    }

    /// A request's head is complete: the node's turn.
    pub const fn begins(&mut self) {
        self.open += 1;
        self.ours += 1;
        self.in_head = false;
    }

    /// A response has something to send: the client's turn.
    pub const fn ready(&mut self, now: Instant) {
        self.ours -= 1;
        self.moved = now;
        self.begins_to_take(now);
    }

    /// A response has nothing to send for the time being: the node's turn.
    pub const fn starved(&mut self) {
        self.ours += 1;
    }

    /// A response is over, or given up; `was_ours`: while the node was to go on.
    pub const fn ends(&mut self, was_ours: bool, now: Instant) {
        self.open -= 1;
        if was_ours {
            self.ours -= 1;
        }
        self.answered = true;
        self.moved = now;
        self.begins_to_take(now);
    }

    /// Nothing more is going to be answered.
    pub const fn lingers(&mut self) {
        self.lingering = true;
    }

    /// Requests whose response isn't over.
    pub const fn transfers(&self) -> u32 {
        self.open
    }

    /// How long ago something last went forward.
    pub fn quiet_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.moved)
    }

    /// All that it asks for waits for the node, or it has asked for nothing yet and can't be read.
    pub const fn is_nodes_turn(&self) -> bool {
        self.in_line.is_some() || self.open > 0 && self.ours == self.open
    }

    /// How the connection uses its seat; and, where the client says or takes nothing, until when that says nothing of it.
    /// `has_unsent`: something waits for the client to take it, whatever is to come after it.
    pub fn seat_use(&self, has_unsent: bool, now: Instant) -> (Use, Option<Instant>) {
        let silent = match (self.open, self.ours) {
            _ if self.lingering || self.in_line.is_some() => return (Use::Busy, None),
            _ if has_unsent => self.slow_since + STALLED_AFTER,
            (0, _) if self.answered && !self.in_head => return (Use::Idle, None),
            (0, _) => self.moved + SILENT_AFTER,
            (_, 0) => self.slow_since + STALLED_AFTER,
            _ => return (Use::Busy, None),
        };
        if now < silent { (Use::Busy, Some(silent)) } else { (Use::Silent, None) }
    }

    /// Until when the connection may go on as it is; `None` while the node itself is to go on. A client whose first bytes the node
    /// can't read within the time for a head is to try again: what would be computed for it then, it may not wait for any more.
    pub fn deadline(&self, patience: Patience) -> Option<Instant> {
        if let Some(since) = self.in_line {
            return (!self.in_head).then_some(since + patience.head);
        }
        match (self.open, self.ours) {
            _ if self.lingering => None,
            (0, _) if self.in_head => Some(self.moved + patience.head),
            (0, _) => Some(self.moved + patience.idle),
            (_, 0) => Some(self.moved + patience.write),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        idle: Duration::from_secs(75),
        head: Duration::from_secs(15),
        write: Duration::from_secs(60),
    };

    /// A connection at work: its state, and the second that it is.
    struct Clock(Waits, Instant, u64);

    impl Clock {
        fn at(&mut self, second: u64) -> (&mut Waits, Instant) {
            self.2 = second;
            (&mut self.0, self.1 + Duration::from_secs(second))
        }

        fn due(&self) -> Option<u64> {
            self.0.deadline(PATIENCE).map(|deadline| (deadline - self.1).as_secs())
        }
    }

    fn clock() -> Clock {
        let now = crate::clock::monotonic();
        Clock(Waits::new(now), now, 0)
    }

    #[test]
    fn idle_then_a_slow_head() {
        let mut clock = clock();
        assert_eq!(clock.due(), Some(75));
        for second in [10, 20, 24] {
            let (waits, now) = clock.at(second);
            waits.received(now);
            assert_eq!(clock.due(), Some(25), "each further byte buys no more time");
        }
    }

    #[test]
    fn the_node_may_take_its_time_and_the_client_may_not() {
        let mut clock = clock();
        assert!(!clock.0.is_nodes_turn());
        clock.at(1).0.begins();
        assert_eq!((clock.due(), clock.0.is_nodes_turn()), (None, true));
        let (waits, now) = clock.at(100);
        waits.ready(now);
        assert_eq!(clock.due(), Some(160));
        let (waits, now) = clock.at(150);
        waits.sent(LITTLE_BYTES, now);
        assert_eq!(clock.due(), Some(210));
        clock.at(151).0.starved();
        assert_eq!(clock.due(), None);
        let (waits, now) = clock.at(500);
        waits.ready(now);
        let (waits, now) = clock.at(501);
        waits.ends(false, now);
        assert_eq!(clock.due(), Some(576));
    }

    #[test]
    fn the_wait_for_the_nodes_own_turn_is_not_the_clients() {
        let mut clock = clock();
        let (waits, now) = clock.at(1);
        waits.lines_up(now);
        assert_eq!((clock.due(), clock.0.seat_use(false, now).0), (Some(16), Use::Busy), "it may try again");
        assert!(clock.0.is_nodes_turn());
        let (waits, now) = clock.at(11);
        assert_eq!(waits.seat_use(false, now).0, Use::Busy);
        waits.has_its_turn(now);
        assert!(!waits.is_nodes_turn());
        assert_eq!(waits.seat_use(false, now).0, Use::Busy, "it has used one second of two");
        waits.received(now);
        assert_eq!(clock.due(), Some(26));
        // Its next flight, 4 s later.
        let (waits, now) = clock.at(15);
        waits.lines_up(now);
        let (waits, now) = clock.at(40);
        waits.lines_up(now);
        assert_eq!((waits.seat_use(false, now).0, clock.due()), (Use::Busy, None));
        let (waits, now) = clock.at(45);
        waits.has_its_turn(now);
        assert_eq!(clock.due(), Some(26 + 30), "turns buy no more time");
        assert_eq!(clock.0.seat_use(false, now).0, Use::Silent);
    }

    #[test]
    fn who_takes_the_rest_is_neither_idle_nor_slow_with_a_head() {
        let mut clock = clock();
        clock.at(1).0.begins();
        let (waits, now) = clock.at(2);
        waits.ends(true, now);
        waits.lingers();
        let (waits, now) = clock.at(3);
        waits.received(now); // a frame of HTTP/2
        assert_eq!(clock.due(), None);
        assert_eq!(clock.0.seat_use(false, now).0, Use::Busy, "nor does it give its seat up");
    }

    #[test]
    fn a_seat_is_silent_busy_or_idle() {
        let mut clock = clock();
        let seconds = |clock: &mut Clock, second| {
            let (waits, now) = clock.at(second);
            waits.seat_use(false, now).0
        };
        assert_eq!(
            [0, 1, 2, 9].map(|second| seconds(&mut clock, second)),
            [Use::Busy, Use::Busy, Use::Silent, Use::Silent]
        );
        let (waits, now) = clock.at(10);
        waits.received(now);
        assert_eq!([10, 12].map(|second| seconds(&mut clock, second)), [Use::Busy, Use::Silent]);
        clock.at(13).0.begins();
        assert_eq!(seconds(&mut clock, 100), Use::Busy);
        let (waits, now) = clock.at(101);
        waits.ends(true, now);
        assert_eq!([101, 160].map(|second| seconds(&mut clock, second)), [Use::Idle, Use::Idle]);
        // A response that is the client's to take.
        clock.at(200).0.begins();
        let (waits, now) = clock.at(200);
        waits.ready(now);
        assert_eq!([229, 230].map(|second| seconds(&mut clock, second)), [Use::Busy, Use::Silent]);
        let (waits, now) = clock.at(231);
        waits.sent(LITTLE_BYTES, now);
        assert_eq!(seconds(&mut clock, 260), Use::Busy);
        // A byte now and then buys no more time.
        for second in 232..262 {
            let (waits, now) = clock.at(second);
            waits.sent(100, now);
        }
        assert_eq!([260, 261].map(|second| seconds(&mut clock, second)), [Use::Busy, Use::Silent]);
        let (waits, now) = clock.at(262);
        waits.sent(LITTLE_BYTES - 30 * 100, now);
        assert_eq!(seconds(&mut clock, 263), Use::Busy);
    }

    #[test]
    fn what_is_unsent_is_the_clients_to_take_whatever_else_the_node_owes_it() {
        let mut clock = clock();
        clock.at(0).0.begins();
        let (waits, now) = clock.at(0);
        waits.ready(now);
        clock.at(0).0.begins();
        let (waits, now) = clock.at(30);
        assert_eq!((waits.seat_use(false, now).0, waits.seat_use(true, now).0), (Use::Busy, Use::Silent));
    }

    #[test]
    fn of_many_streams_one_that_waits_for_the_node_excuses_the_rest_until_it_is_given_up() {
        let mut clock = clock();
        for _ in 0..60 {
            clock.at(1).0.begins();
        }
        for _ in 0..59 {
            let (waits, now) = clock.at(2);
            waits.ready(now);
        }
        assert_eq!((clock.due(), clock.0.is_nodes_turn()), (None, false));
        let (waits, now) = clock.at(30);
        waits.ends(true, now); // the client reset that stream
        assert_eq!(clock.due(), Some(90), "the others are the client's to take");
    }
}
