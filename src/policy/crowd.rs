//! Whether one client key is one client, or many hosts behind one address.

use crate::clock::Timestamp;
use std::time::Duration;

/// Connections count for this long after their last request.
const SEEN_FOR: Duration = Duration::from_secs(120);
/// Connections remembered; more would only prove the crowd again.
const REMEMBERED: usize = 16;
/// More distinct connections than this are a crowd. One dnf has three for each URL entry, new ones for each batch:
/// metadata and packages make six.
const MOST_OF_ONE: usize = 8;

/// The connections that one client key was lately seen on.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections {
    seen: Vec<(u64, Timestamp)>,
}

impl Connections {
    /// Takes note of a request on `connection`.
    pub(super) fn sees(&mut self, connection: u64, now: Timestamp) {
        for (_, at) in &mut self.seen {
            *at = (*at).min(now);
        }
        self.seen.retain(|&(known, at)| known != connection && now.since(at) < SEEN_FOR);
        if self.seen.len() == REMEMBERED {
            self.seen.remove(0);
        }
        self.seen.push((connection, now));
    }

    /// More than one client would have.
    pub(super) fn is_crowd(&self) -> bool {
        self.seen.len() > MOST_OF_ONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_nine_connections_within_two_minutes() {
        // (connections, seconds between them, crowd)
        for (count, gap, crowd) in
            [(6, 1, false), (8, 1, false), (9, 1, true), (1000, 1, true), (1000, 20, false)]
        {
            let mut connections = Connections::default();
            let mut now = Timestamp::from_secs(1_000_000);
            for connection in 0..count {
                now = now.plus(Duration::from_secs(gap));
                connections.sees(connection, now);
                connections.sees(connection, now);
            }
            assert_eq!(connections.is_crowd(), crowd, "{count} connections, one in {gap} s");
            assert!(connections.seen.len() <= REMEMBERED);
        }
    }
}
