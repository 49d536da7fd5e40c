//! The question of one request, as `handle` and `explain` both put it: where the path lies, what the snapshots say, and
//! what is decided.

use super::Edge;
use super::taken::Document;
use crate::clock::Timestamp;
use crate::config::{self, Priority};
use crate::http::{TreePath, content_type, hidden};
use crate::policy::decide::{self, Facts};
use crate::policy::fair::Class;
use crate::policy::load::Asker;
use crate::policy::select::{self, Ground, Holding, Unfit, Wanted};
use crate::policy::{
    Client, Currency, Decision, Look, MirrorTable, Past, Place, Reason, Redirect, Repos, sightings,
};
use crate::repo::{Kind, Listed, Pinned, root_document};
use crate::store::{Content, Identity, Meta, Object, Source, Tier};
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// Mirrors that are looked at for a file that no list names.
const MOST_SIGHTED: usize = 4;

/// What is asked, with the snapshots of that moment: one request is decided on one state of the world.
pub struct Question<'a> {
    edge: &'a Edge,
    /// The canonical path.
    pub path: TreePath,
    /// The query, where it counts.
    query: Option<&'a str>,
    client: &'a Client,
    now: Timestamp,
    repos: Arc<Repos>,
    mirrors: Arc<MirrorTable>,
    located: Option<Located>,
}

/// Whether a query can be part of a name, and be sent on as it came.
fn is_sound(query: &str) -> bool {
    const MOST_BYTES: usize = 1024;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'#');
    (1..=MOST_BYTES).contains(&query.len()) && query.bytes().all(is_plain)
}

/// Which of the documents that lie in memory with their generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinnedPath {
    /// repomd.xml, or a list of checksums.
    Root,
    /// Its signature, or the key for that.
    Companion,
}

/// Such a document, as one generation has it.
pub struct PinnedFile {
    /// The repo's number in the config.
    pub repo: usize,
    /// Sequence of the generation.
    pub sequence: u32,
    /// The generation has a signature.
    pub is_signed: bool,
    /// None where that generation has no such document.
    pub content: Option<Content>,
}

/// A [`Place`] without what it borrows.
#[derive(Clone, Copy)]
struct Located {
    index: usize,
    /// Where the path below the repo begins; None: it lies outside of the repo that lists it.
    relative_at: Option<usize>,
    listed: Option<Listed>,
}

impl<'a> Question<'a> {
    /// The question of `client` for `path`, which is replaced by its canonical name, with `query`.
    pub fn new(
        edge: &'a Edge,
        path: &TreePath,
        query: Option<&'a str>,
        client: &'a Client,
        now: Timestamp,
    ) -> Self {
        let path = config::canonical(&edge.config.aliases, path);
        // Mirrors first: a proof that is older than the repos is sound, one that is newer may be of files that these
        // repos list and the mirror has removed since.
        let mirrors = edge.published.mirrors.load_full();
        let repos = edge.published.repos.load_full();
        let located = repos.locate(&path).map(|place| Located {
            index: place.index,
            relative_at: path.as_str().len().checked_sub(place.relative.len()),
            listed: place.listed,
        });
        let counts = edge.config.cache.query == config::QueryKey::Key
            && matches!(edge.config.origin, config::Origin::Http { .. });
        let query = query.filter(|query| counts && is_sound(query));
        Self { edge, path, query, client, now, repos, mirrors, located }
    }

    /// Where the path lies.
    #[must_use]
    pub fn place(&self) -> Option<Place<'_>> {
        let Located { index, relative_at, listed } = self.located?;
        let Some(relative_at) = relative_at else { return self.repos.locate(&self.path) };
        let (view, relative) = (&self.repos.views()[index], &self.path.as_str()[relative_at..]);
        Some(Place { index, view, path: &self.path, relative, listed })
    }

    /// Whether the path is not for clients: a name in it begins with a dot, and neither the config nor a repo names it.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        let is_listed = || self.place().is_some_and(|place| place.listed.is_some());
        self.hides(&self.path) && !is_listed() && self.pinned_path().is_none()
    }

    /// Whether a listing of the path, a directory, shows its entry of this name.
    #[must_use]
    pub fn shows(&self, entry: &str) -> bool {
        let Ok(path) = self.path.join(entry) else { return false };
        !self.hides(&path) || self.repos.locate(&path).is_some_and(|place| place.listed.is_some())
    }

    fn hides(&self, path: &TreePath) -> bool {
        hidden::is_hidden(path, &self.edge.config.tree.shown)
    }

    /// What the store is asked for.
    #[must_use]
    pub fn object(&self) -> Object {
        let entry = self.place().and_then(|place| place.listed).map(|listed| listed.entry);
        let identity = entry.and_then(|entry| Some(Identity { digest: entry.digest?, size: entry.size }));
        Object { path: self.path.clone(), identity, query: None }.with_query(self.query)
    }

    /// The package under its name in the twin of its repo: the same bytes where the repo lists it, what the twin has under that
    /// name where the repo doesn't.
    #[must_use]
    pub fn in_twin(&self) -> Option<Object> {
        let place = self.place()?;
        let twin = &self.repos.views()[place.view.repo.twin?];
        let entry = twin.history.find(place.relative)?.entry;
        let is_same = place.listed.is_none_or(|listed| listed.entry.digest == entry.digest);
        let path = twin.repo.file(place.relative).ok()?;
        let object = Object::listed(path, entry.digest?, entry.size);
        (is_same && entry.kind.is_package()).then_some(object)
    }

    /// Whether the file is listed by an earlier generation alone: a push has removed it since.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.place().and_then(|place| place.listed).is_some_and(|listed| listed.until.is_some())
    }

    /// What the file goes before, or after, while the capacity is used up.
    #[must_use]
    pub fn class(&self) -> Class {
        let Some(place) = self.place() else { return Class::Normal };
        // repomd.xml, which lists all else, is listed nowhere.
        let is_metadata = match place.listed {
            Some(listed) => !listed.entry.kind.is_package(),
            None => place.relative.starts_with("repodata/") || self.pinned_path().is_some(),
        };
        match place.view.repo.priority {
            _ if is_metadata => Class::Metadata,
            Priority::High => Class::High,
            Priority::Normal => Class::Normal,
            Priority::Low => Class::Low,
        }
    }

    /// What caches downstream may do with the answer: only a name that carries its digest is good for ever. All others may
    /// be other bytes after the next push, a package too: one that is signed anew keeps its name. They are kept, and asked for
    /// anew each time by their ETag, which is the digest. (max-age=0 instead of no-cache for packages, since Squid before 3.2
    /// takes the latter for no-store.)
    #[must_use]
    pub fn cache_control(&self) -> HeaderValue {
        HeaderValue::from_static(
            match self.place().and_then(|place| place.listed).map(|listed| listed.entry.kind) {
                Some(Kind::Metadata) => "public, max-age=31536000, immutable",
                Some(Kind::Package | Kind::Replaced) => "public, max-age=0, must-revalidate",
                Some(Kind::Reused) | None => "no-cache",
            },
        )
    }

    /// Which of the documents that lie in memory with a generation the path is.
    #[must_use]
    pub fn pinned_path(&self) -> Option<PinnedPath> {
        let place = self.place()?;
        match place.relative.strip_prefix(root_document(&place.view.repo))? {
            "" => Some(PinnedPath::Root),
            ".asc" | ".key" => Some(PinnedPath::Companion),
            _ => None,
        }
    }

    /// The generation of which the client has what names this document, if `latest` knows what it took of a repo.
    #[must_use]
    pub fn begun_with(&self, latest: impl FnOnce(usize, Document) -> Option<u32>) -> Option<u32> {
        let document = match self.pinned_path()? {
            PinnedPath::Root => Document::Metalink,
            PinnedPath::Companion => Document::Root,
        };
        latest(self.place()?.index, document)
    }

    /// The document as the current generation has it, or the one that the client has begun with, while that is kept.
    #[must_use]
    pub fn pinned(&self, begun_with: Option<u32>) -> Option<PinnedFile> {
        let (place, _) = (self.place()?, self.pinned_path()?);
        let (history, current) = (&place.view.history, place.view.history.current()?);
        let begun = begun_with.and_then(|sequence| history.by_sequence(sequence));
        let generation = begun.unwrap_or(current);
        let content =
            generation.pinned(place.relative).map(|pinned| self.content(pinned, generation.flipped));
        // A key that the current one lacks, the origin is asked for. A signature there may be of another repomd.xml.
        let is_current = generation.sequence == current.sequence;
        let is_signature = place.relative.ends_with(".asc");
        (content.is_some() || !is_current || is_signature).then(|| PinnedFile {
            repo: place.index,
            sequence: generation.sequence,
            is_signed: generation.pinned.len() > 1,
            content,
        })
    }

    fn content(&self, pinned: &Pinned, flipped: Timestamp) -> Content {
        let listed = Identity { digest: pinned.sha256.into(), size: pinned.body.len() as u64 };
        let meta = pinned.derived.get_or_make(|| {
            Meta::listed(listed, pinned.last_modified, content_type::of(&self.path), flipped)
        });
        let source = Source::Memory(pinned.body.clone());
        let stale = self.currency() != Some(Currency::Confirmed);
        Content { meta, source, tier: Tier::Memory, stale }
    }

    /// How sure it is that the repo's metadata are current; `None` outside of all repos.
    #[must_use]
    pub fn currency(&self) -> Option<Currency> {
        let view = self.place()?.view;
        Some(view.currency(&self.edge.config.push, self.now))
    }

    /// Decides.
    #[must_use]
    pub fn decide(&self, is_cached: &dyn Fn() -> bool, past: Past) -> Decision {
        let place = self.place();
        let asker = self.asker(self.size());
        decide::decide(&self.facts(place.as_ref(), is_cached, past), &|mirror| self.has_room(mirror, &asker))
    }

    /// For how long it counts that a mirror was seen to have the file, which no repo lists; `None` where that never counts.
    #[must_use]
    pub fn sighted_for(&self) -> Option<Duration> {
        let is_listed = || self.place().is_some_and(|place| place.listed.is_some());
        config::unlisted(&self.edge.config.unlisted, &self.path).filter(|_| !is_listed())
    }

    /// Decides about a file that no repo lists and that the node has at hand, or would fetch if it is `None`.
    #[must_use]
    pub fn decide_sighted(&self, content: Option<&Content>, age: Duration, past: Past) -> Decision {
        let Some(holding) = self.sighted(content, age) else { return Decision::Serve(Reason::Unlisted) };
        let asker = self.asker(Some(holding.size));
        decide::sighted(&self.facts(None, &|| true, past), &holding, &|mirror| self.has_room(mirror, &asker))
    }

    /// Where a file like the node's own was seen.
    fn sighted(&self, content: Option<&Content>, age: Duration) -> Option<Holding> {
        let look = self.look(content?)?;
        let spots = self.edge.sightings.alike(self.path.as_str(), look, age, self.now);
        Some(Holding { path: self.path.clone(), size: look.size, ground: Ground::Sighted(spots) })
    }

    /// Has the mirrors that are best for the client looked at for such a file, now and then.
    pub fn ask_for_sightings(&self, content: Option<&Content>, age: Duration) {
        let sightings = &self.edge.sightings;
        if content.and_then(|content| self.look(content)).is_none()
            || !sightings.is_due(self.path.as_str(), age, self.now)
        {
            return;
        }
        let order = self.edge.orders.best(&self.mirrors, self.client);
        let up = |index: &usize| self.mirrors.states()[*index].reach.is_up();
        let mirrors = order.iter().map(|index| *index as usize).filter(up).take(MOST_SIGHTED).collect();
        // A full queue: the next client asks again, in a while.
        let _ = self.edge.looks.try_send(sightings::Request { path: self.path.as_str().to_owned(), mirrors });
    }

    /// What the node's own file looks like, if it is current and worth a redirect.
    fn look(&self, content: &Content) -> Option<Look> {
        let (size, modified) = (content.meta.length?, content.meta.last_modified?);
        let counts = !content.stale && content.is_fresh(self.now) && size >= sightings::LEAST_BYTES;
        counts.then(|| Look::new(size, modified))
    }

    /// A mirror, where the node itself can't serve the file.
    #[must_use]
    pub fn last_resort(&self, past: Past, reason: Reason) -> Option<Redirect> {
        let (place, asker) = (self.place(), self.asker(self.size()));
        decide::last_resort(&self.facts(place.as_ref(), &|| false, past), reason, &|mirror| {
            self.has_room(mirror, &asker)
        })
    }

    /// The file's size, where a repo lists it.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.located.as_ref()?.listed.map(|listed| listed.entry.size)
    }

    /// The path by which mirror number `mirror` is proven to hold the file, below its URL.
    #[must_use]
    pub fn path_on(&self, mirror: usize) -> Option<TreePath> {
        let place = self.place()?;
        let holdings = decide::holdings(&self.repos, &place, place.listed.as_ref()?);
        holdings.into_iter().find(|holding| holding.is_on(mirror, &self.mirrors)).map(|holding| holding.path)
    }

    /// When it was asked.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The network of the client.
    #[must_use]
    pub fn client_network(&self) -> u64 {
        self.client.network()
    }

    /// Each mirror that may be asked for the file, which the node has at hand as `content`, best first, or why it may not.
    #[must_use]
    pub fn mirrors(&self, content: Option<&Content>, past: Past) -> Vec<(usize, Result<TreePath, Unfit>)> {
        let place = self.place();
        let listed = place.as_ref().and_then(|place| place.listed.as_ref());
        let holdings = match (&place, listed) {
            (Some(place), Some(listed)) => decide::holdings(&self.repos, place, listed),
            _ => self.sighted_for().and_then(|age| self.sighted(content, age)).into_iter().collect(),
        };
        let is_at_risk = place.as_ref().is_some_and(|place| decide::is_at_risk(self.client, place));
        let (client, failed, now) = (self.client, past.failed, self.now);
        let wanted = Wanted { client, failed, is_at_risk, holdings: &holdings, now };
        let judge = |index: usize| {
            let asker = self.asker(holdings.first().map(|holding| holding.size));
            let has_room = |mirror| self.has_room(mirror, &asker);
            let fit = select::fits(index, &self.mirrors, &wanted, &has_room);
            (index, fit.map(|holding| holding.path.clone()))
        };
        let all = self.mirrors.states().len();
        select::best(&self.mirrors, self.client, 0..all, all).into_iter().map(judge).collect()
    }

    /// Whether redirects are possible at all.
    #[must_use]
    pub fn has_mirrors(&self) -> bool {
        !self.mirrors.states().is_empty()
    }

    fn facts<'f>(
        &'f self,
        place: Option<&'f Place<'f>>,
        is_cached: &'f dyn Fn() -> bool,
        past: Past,
    ) -> Facts<'f> {
        Facts {
            repos: &self.repos,
            mirrors: &self.mirrors,
            orders: &self.edge.orders,
            place,
            is_cached,
            client: self.client,
            past,
            // The last seats aren't for a network that has more than its share.
            shed: if self.edge.seats.is_tight_for(self.client.owner) { 1.0 } else { self.edge.egress.shed() },
            now: self.now,
        }
    }

    /// Of a file of so many bytes. One of an unknown size counts as empty.
    fn asker(&self, size: Option<u64>) -> Asker {
        Asker::new(self.client.owner.network, size.unwrap_or_default())
    }

    fn has_room(&self, mirror: usize, asker: &Asker) -> bool {
        self.edge.load.has_room_for(mirror, asker, self.now)
    }
}
