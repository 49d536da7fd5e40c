//! Which generation of a repo a client took last.
//!
//! A client that checks signatures asks for repomd.xml and then for repomd.xml.asc, and one that begins with a metalink asks for
//! the repomd.xml that it names. In between the node may have gone on to the next generation, and two documents of two
//! generations fail the repo. So for a minute a client gets the companions of what it has.
//!
//! What came over the same connection says most; behind one address there may be several clients. Else it is the last that the
//! client's address and User-Agent were given, since librepo opens a connection for each of these requests.

use super::asked::Asked;
use crate::clock::Timestamp;
use crate::policy::Client;
use crate::policy::client::hash;
use crate::shares::{Bounds, Sharded};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// For how long a client gets what belongs to the document that it took.
const MINUTE: Duration = Duration::from_secs(60);
/// Notes at most. Beyond it the oldest are forgotten, of the network that has most: those clients get what is current.
const MOST: usize = 100_000;
/// Of one address, behind which there may be many clients.
const MOST_OF_ADDRESS: usize = 4096;

/// A document that names others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Document {
    /// It names a repomd.xml by its digest.
    Metalink,
    /// repomd.xml, which a signature belongs to.
    Root,
}

/// What clients took lately: sequences of generations.
#[derive(Debug)]
pub struct Taken {
    notes: Sharded<u32>,
    /// Metalinks are asked for here: else no repomd.xml is looked up.
    metalinks: AtomicBool,
}

impl Default for Taken {
    fn default() -> Self {
        let unused_for = MINUTE.as_secs();
        let notes = Sharded::new(Bounds { entries: MOST, of_client: MOST_OF_ADDRESS, unused_for });
        Self { notes, metalinks: AtomicBool::new(false) }
    }
}

/// Who took something: of one connection, or of any.
fn keys(asked: &Asked, repo: usize, document: Document) -> [u64; 2] {
    let client = asked.client.key;
    [hash(&(client, repo, document, asked.link.id())), hash(&(client, repo, document))]
}

impl Taken {
    /// The client was given this document of generation `sequence` of repo number `repo`.
    pub fn note(&self, asked: &Asked, repo: usize, document: Document, sequence: u32) {
        if document == Document::Metalink {
            self.metalinks.store(true, Ordering::Relaxed);
        }
        for key in keys(asked, repo, document) {
            self.notes.insert(asked.client.owner, key, sequence, asked.now.as_secs());
        }
    }

    /// The generation whose document the client took within the last minute.
    pub fn latest(&self, asked: &Asked, repo: usize, document: Document) -> Option<u32> {
        if document == Document::Metalink && !self.metalinks.load(Ordering::Relaxed) {
            return None;
        }
        let (owner, now) = (asked.client.owner, asked.now.as_secs());
        keys(asked, repo, document).into_iter().find_map(|key| self.notes.peek(owner, key, now))
    }

    /// The same for a client, over whatever connection.
    pub fn latest_of(&self, client: &Client, repo: usize, document: Document, now: Timestamp) -> Option<u32> {
        let (owner, key) = (client.owner, hash(&(client.key, repo, document)));
        self.notes.peek(owner, key, now.as_secs())
    }
}
