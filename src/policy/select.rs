//! Which of the mirrors that hold a file takes a client.

use super::{Client, Failed, MirrorState, MirrorTable, Orders, Spot};
use crate::clock::Timestamp;
use crate::config::Mirror;
use crate::http::TreePath;
use crate::repo::Listed;
use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::time::Duration;

/// A client that isn't known to recover from a bad redirect is sent for packages only to mirrors seen alive within this time.
const SEEN_LATELY: Duration = Duration::from_secs(30);

/// A file on a mirror. Several when a twin lists the same bytes.
#[derive(Clone, Debug)]
pub struct Holding {
    /// The path of the file in the tree.
    pub path: TreePath,
    /// In bytes.
    pub size: u64,
    /// By what it is known that a mirror has it.
    pub ground: Ground,
}

/// By what it is known that a mirror has a file.
#[derive(Clone, Debug)]
pub enum Ground {
    /// By its proof for a repo.
    Listed {
        /// The repo's number in the config.
        repo: usize,
        /// What its generations say of the file.
        listed: Listed,
        /// Bytes of the path above the repo's root, its slash included. None: the repo lists it outside of its directory.
        above: Option<usize>,
    },
    /// It was seen there ([`super::Sightings`]).
    Sighted(Vec<Spot>),
}

impl Holding {
    /// Whether mirror number `index`, which has to be up, has it.
    #[must_use]
    pub fn is_on(&self, index: usize, table: &MirrorTable) -> bool {
        match &self.ground {
            Ground::Listed { repo, listed, above } => {
                table.holds(index, *repo, listed, &self.as_listed(*above))
            }
            Ground::Sighted(spots) => {
                let mirror = &table.states()[index];
                let seen = |ipv6: bool| spots.contains(&Spot { mirror: index, ipv6 });
                // Clients choose the family: it was seen over each that is in use.
                mirror.reach.is_up() && (!mirror.ipv4 || seen(false)) && (!mirror.ipv6 || seen(true))
            }
        }
    }
}

impl Holding {
    /// The path as the repo lists it.
    fn as_listed(&self, above: Option<usize>) -> Cow<'_, str> {
        let path = self.path.as_str();
        above.map_or_else(|| format!("/{path}").into(), |above| path.get(above..).unwrap_or_default().into())
    }

    /// Whether it is an exception of the mirror's proof.
    fn is_excepted(&self, mirror: &MirrorState) -> bool {
        let Ground::Listed { repo, listed, above } = &self.ground else { return false };
        let below = self.as_listed(*above);
        let pair = mirror.pairs.get(*repo);
        pair.is_some_and(|pair| pair.covered().covers(listed) && pair.exceptions.contains(&below))
    }
}

/// What a mirror is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Who asks.
    pub client: &'a Client,
    /// The mirrors that failed it.
    pub failed: Failed,
    /// The client loses more than a moment where the mirror fails it ([`super::decide::is_at_risk`]).
    pub is_at_risk: bool,
    /// Where mirrors may hold the file, best first.
    pub holdings: &'a [Holding],
    /// When.
    pub now: Timestamp,
}

/// Why a mirror isn't chosen. `explain` shows it for each mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It doesn't answer, or wasn't asked yet.
    Down,
    /// It is not proven to hold the file.
    NotProven,
    /// It is proven for the repo, but lacks this file.
    Lacks,
    /// It wasn't seen to have a file of the same size and time lately, and no repo lists it.
    NotSighted,
    /// It is private, and the client isn't in its networks.
    Private,
    /// It failed this client within the last hour.
    FailedThisClient,
    /// The client came over https and it has none.
    PlainHttp,
    /// The client came over http, it has only https, and the client's CA bundle and TLS are likely too old for it.
    OldTls,
    /// The client comes over an address family that it doesn't answer on.
    Family,
    /// It wasn't seen answering ranges, and the client asks for one.
    Ranges,
    /// The client asks for several ranges at once: servers bound their number, and a 200 instead makes zchunk start over.
    ManyRanges,
    /// It wasn't seen alive just now, and the client isn't known to recover.
    NotSeenLately,
    /// It sends less than 32 kB/s to the node.
    Slow,
    /// Clients come back from it, probes find nothing wrong, and the file is large.
    Disputed,
    /// It is being sent all that it donates.
    Full,
}

impl Unfit {
    /// In words.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Down => "it doesn't answer",
            Self::NotProven => "it is not proven to hold the file",
            Self::Lacks => "it is proven for the repo, but lacks this file or has another one in its place",
            Self::NotSighted => "it wasn't seen lately to have a file of that size and time",
            Self::Private => "it is private and the client is not in its networks",
            Self::FailedThisClient => "it failed this client within the last hour",
            Self::PlainHttp => "the client came over https and it has only http",
            Self::OldTls => {
                "it has only https, and the client is too old to be sure that it trusts it, and can't recover"
            }
            Self::Family => "it doesn't answer on the client's address family",
            Self::Ranges => "the client asks for a range and it wasn't seen answering one",
            Self::ManyRanges => "the client asks for several ranges at once, which mirrors answer variously",
            Self::NotSeenLately => {
                "it wasn't seen alive in the last 30 s and the client isn't known to recover from a failure"
            }
            Self::Slow => "it sends less than 32 kB/s to the node",
            Self::Disputed => "clients of several networks came back from it lately, and the file is large",
            Self::Full => "it is being sent all the bandwidth that it donates",
        }
    }
}

/// From this size on a file isn't risked on a mirror that is disputed: a failure late in it costs its client the most.
const LARGE_BYTES: u64 = 4 << 20;

/// Which of the holdings mirror number `index` can serve, or why it can't serve any.
///
/// # Errors
/// Why not: the first reason of those that [`Unfit`] lists, what the mirror lacks before what the client is like.
pub fn fits<'a>(
    index: usize,
    table: &MirrorTable,
    wanted: &Wanted<'a>,
    has_room: &dyn Fn(usize) -> bool,
) -> Result<&'a Holding, Unfit> {
    let holding = suits(index, table, wanted)?;
    if has_room(index) { Ok(holding) } else { Err(Unfit::Full) }
}

/// The same whatever the mirror is being sent.
fn suits<'a>(index: usize, table: &MirrorTable, wanted: &Wanted<'a>) -> Result<&'a Holding, Unfit> {
    let held = wanted.holdings.iter().find(|holding| holding.is_on(index, table));
    let (client, mirror) = (wanted.client, &*table.states()[index]);
    let Some(holding) = held else {
        let is_sighted = |holding: &Holding| matches!(holding.ground, Ground::Sighted(_));
        return Err(match mirror.reach.is_up() {
            false => Unfit::Down,
            true if wanted.holdings.iter().any(is_sighted) => Unfit::NotSighted,
            true if wanted.holdings.iter().any(|holding| holding.is_excepted(mirror)) => Unfit::Lacks,
            true => Unfit::NotProven,
        });
    };
    let family = if client.addr.is_ipv4() { mirror.ipv4 } else { mirror.ipv6 };
    let is_late = || !mirror.reach.seen_within(SEEN_LATELY, wanted.now);
    match holding {
        _ if wanted.failed.contains(index) => Err(Unfit::FailedThisClient),
        _ if mirror.is_slow() => Err(Unfit::Slow),
        holding if holding.size >= LARGE_BYTES && mirror.is_disputed(wanted.now) => Err(Unfit::Disputed),
        _ if mirror.mirror.private && !is_local(mirror, client) => Err(Unfit::Private),
        _ if client.https && !mirror.is_https() => Err(Unfit::PlainHttp),
        _ if client.is_yum3 && !client.https && mirror.is_https() => Err(Unfit::OldTls),
        _ if !family => Err(Unfit::Family),
        _ if client.many_ranges => Err(Unfit::ManyRanges),
        _ if client.ranged && !mirror.ranges => Err(Unfit::Ranges),
        _ if wanted.is_at_risk && is_late() => Err(Unfit::NotSeenLately),
        holding => Ok(holding),
    }
}

/// How near a mirror is to a client; smaller is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// The client is in one of its networks or autonomous systems.
    Network,
    /// In the client's country.
    Country,
    /// On the client's continent.
    Continent,
    /// Anywhere else, or unknown.
    Anywhere,
}

/// Kilometres within which one mirror is as near as another: what is less makes no difference to a download.
const STEP_KILOMETRES: f64 = 1000.0;
/// Steps to a mirror whose place, or whose client's place, isn't known: not the first choice, nor the last.
const UNKNOWN_STEPS: u8 = 2;

/// How near `mirror` is to `client`.
#[must_use]
pub fn nearness(mirror: &MirrorState, client: &Client) -> Nearness {
    let (settings, there) = (&mirror.mirror, &client.whereabouts);
    if is_local(mirror, client) {
        Nearness::Network
    } else if there.country.is_some() && there.country == settings.country {
        Nearness::Country
    } else if there.continent.is_some() && there.continent == settings.continent {
        Nearness::Continent
    } else {
        Nearness::Anywhere
    }
}

fn is_local(mirror: &MirrorState, client: &Client) -> bool {
    let Mirror { networks, asns, .. } = &*mirror.mirror;
    networks.iter().any(|network| network.contains(&client.addr))
        || client.whereabouts.asn.is_some_and(|asn| asns.contains(&asn))
}

/// Steps of a thousand kilometres between the two.
fn steps(mirror: &MirrorState, client: &Client) -> u8 {
    let (Some(there), Some(here)) = (mirror.mirror.point, client.whereabouts.point) else {
        return UNKNOWN_STEPS;
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most half round the earth: 20"
    )]
    let steps = (there.kilometres_to(here) / STEP_KILOMETRES) as u8;
    steps
}

/// See [`rank`].
pub type Rank = (Reverse<(Nearness, u8)>, f64);

/// A mirror's place in the order for a client: nearness, distance, then weighted rendezvous hashing by the client's network,
/// so that one dnf run stays on one mirror, networks spread in proportion to bandwidth, and a mirror that comes or goes moves
/// only its own share. Greater comes first.
#[must_use]
pub fn rank(mirror: &MirrorState, client: &Client) -> Rank {
    let uniform = unit_interval(mixed(mirror.hash, client.network()));
    #[expect(clippy::cast_precision_loss, reason = "a weight")]
    let weight = mirror.mirror.bandwidth.bits_per_second() as f64;
    (Reverse((nearness(mirror, client), steps(mirror, client))), -weight / uniform.ln())
}

/// The best of these mirrors, by number, at most `most`, best first.
#[must_use]
pub fn best(
    table: &MirrorTable,
    client: &Client,
    mirrors: impl Iterator<Item = usize>,
    most: usize,
) -> Vec<usize> {
    let mut ranked: Vec<_> = mirrors.map(|mirror| (rank(&table.states()[mirror], client), mirror)).collect();
    let by_rank =
        |(a, _): &(Rank, usize), (b, _): &(Rank, usize)| b.partial_cmp(a).unwrap_or(Ordering::Equal);
    if ranked.len() > most {
        ranked.select_nth_unstable_by(most, by_rank);
        ranked.truncate(most);
    }
    ranked.sort_unstable_by(by_rank);
    ranked.into_iter().map(|(_, mirror)| mirror).collect()
}

/// A hash and a number as one hash (the finalizer of `SplitMix64`).
const fn mixed(hash: u64, number: u64) -> u64 {
    let mut mixed = hash.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The hash as a number in (0, 1).
#[must_use]
pub fn unit_interval(hash: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let mantissa = (hash >> 11) as f64;
    (mantissa + 0.5) / (1u64 << 53) as f64
}

/// The best mirrors for the client, at most `most`, best first. `has_room` takes a lock, and is asked of few.
pub fn ranked<'a>(
    table: &MirrorTable,
    orders: &Orders,
    wanted: &Wanted<'a>,
    has_room: &dyn Fn(usize) -> bool,
    most: usize,
) -> Vec<(usize, &'a Holding)> {
    let order = orders.best(table, wanted.client);
    let fit = |index: &u32| {
        let index = *index as usize;
        let holding = fits(index, table, wanted, has_room).ok()?;
        Some((index, holding))
    };
    let best: Vec<_> = order.iter().filter_map(fit).take(most).collect();
    if best.len() == most || order.len() == table.states().len() {
        return best;
    }
    among_all(table, wanted, has_room, most)
}

/// One pass: each is ranked once, and `has_room` is asked only of those that are among the best so far.
fn among_all<'a>(
    table: &MirrorTable,
    wanted: &Wanted<'a>,
    has_room: &dyn Fn(usize) -> bool,
    most: usize,
) -> Vec<(usize, &'a Holding)> {
    let mut best: Vec<(Rank, usize, &'a Holding)> = Vec::with_capacity(most + 1);
    for (index, mirror) in table.states().iter().enumerate() {
        let Ok(holding) = suits(index, table, wanted) else { continue };
        let rank = rank(mirror, wanted.client);
        let place = best.partition_point(|(better, ..)| *better >= rank);
        if place < most && has_room(index) {
            best.insert(place, (rank, index, holding));
            best.truncate(most);
        }
    }
    best.into_iter().map(|(_, index, holding)| (index, holding)).collect()
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
