//! The decision.

use super::client::Recovery;
use super::select::{self, Ground, Holding, Wanted};
use super::{Client, MirrorTable, Orders, Past, Phase, Place, Reason, Repos, Standing, client, egress};
use crate::clock::Timestamp;
use crate::config::{Delivery, Scope};
use crate::http::TreePath;
use crate::repo::{Kind, Listed};

/// All that the decision about one request rests on.
pub struct Facts<'a> {
    /// The repos as they are offered.
    pub repos: &'a Repos,
    /// The mirrors as they are proven.
    pub mirrors: &'a MirrorTable,
    /// In which order they are asked.
    pub orders: &'a Orders,
    /// Where the path lies; `None` outside of all repos.
    pub place: Option<&'a Place<'a>>,
    /// Whether the file is in the cache; asked only under pressure.
    pub is_cached: &'a dyn Fn() -> bool,
    /// Who asks.
    pub client: &'a Client,
    /// How the client stands with redirects, and which mirrors failed it.
    pub past: Past,
    /// Share of redirectable requests to be shed, 0 to 1 ([`egress::shed_share`]).
    pub shed: f64,
    /// When.
    pub now: Timestamp,
}

/// Mirrors that a redirect names besides the chosen one, at most (RFC 6249: `Link: rel=duplicate`).
const MOST_OTHERS: usize = 2;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The node answers it itself.
    Serve(Reason),
    /// A mirror takes it.
    Redirect(Redirect),
}

/// Which mirror takes a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The mirror's number.
    pub mirror: usize,
    /// The path of the same bytes on the mirror, below its URL.
    pub path: TreePath,
    /// The next best mirrors, best first, each with its path: at most two. None for a client that trips over a `Link`
    /// field.
    pub others: Vec<(usize, TreePath)>,
    /// Size of the file in bytes, counted against what the mirror donates.
    pub size: u64,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// The reason.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Serve(reason) | Self::Redirect(Redirect { reason, .. }) => *reason,
        }
    }
}

/// Decides one request. `has_room` says whether a mirror may be sent more ([`super::load`]).
#[must_use]
pub fn decide(facts: &Facts<'_>, has_room: &dyn Fn(usize) -> bool) -> Decision {
    let Some((place, listed)) = redirectable(facts) else {
        return Decision::Serve(match facts.place.and_then(|place| place.listed.as_ref()) {
            // One that nothing can be proven of.
            Some(listed) if listed.entry.kind.is_package() => Reason::NoFreshMirror,
            Some(_) => Reason::Metadata,
            None => Reason::Unlisted,
        });
    };
    if let Standing::Bounced { .. } = facts.past.standing {
        return Decision::Serve(Reason::Bounce);
    }
    if facts.client.recovery == Recovery::Boots {
        return Decision::Serve(Reason::Firmware);
    }
    if listed.until.is_some() || place.view.is_leaving(place.relative, listed) {
        return Decision::Serve(Reason::Superseded);
    }
    let kept = keeps(facts, place, listed);
    let reason = match kept.or_else(|| is_at_risk(facts.client, place).then_some(Reason::NoRetry)) {
        None => Reason::Offload,
        Some(_) if is_shed(facts, place, listed) => Reason::Pressure,
        Some(reason) => return Decision::Serve(reason),
    };
    if let Some(reason) = holds_back(facts.past.standing) {
        return Decision::Serve(reason);
    }
    redirect(facts, place, listed, reason, has_room)
        .map_or(Decision::Serve(Reason::NoFreshMirror), Decision::Redirect)
}

/// Decides about a file that no repo lists, of which mirrors were seen to have one like the node's own, where the operator lets them
/// take it. The rules for clients are the same.
#[must_use]
pub fn sighted(facts: &Facts<'_>, holding: &Holding, has_room: &dyn Fn(usize) -> bool) -> Decision {
    if let Standing::Bounced { .. } = facts.past.standing {
        return Decision::Serve(Reason::Bounce);
    }
    if facts.client.recovery == Recovery::Boots {
        return Decision::Serve(Reason::Firmware);
    }
    let is_package = [".rpm", ".drpm"].iter().any(|end| holding.path.as_str().ends_with(end));
    if is_package && facts.client.recovery != Recovery::Retries {
        return Decision::Serve(Reason::NoRetry);
    }
    if matches!(&holding.ground, Ground::Sighted(spots) if spots.is_empty()) || is_zchunk(&holding.path) {
        return Decision::Serve(Reason::Unlisted);
    }
    if let Some(reason) = holds_back(facts.past.standing) {
        return Decision::Serve(reason);
    }
    among(facts, std::slice::from_ref(holding), Reason::Sighted, has_room)
        .map_or(Decision::Serve(Reason::NoFreshMirror), Decision::Redirect)
}

/// Why the client gets no redirect, as it stands.
const fn holds_back(standing: Standing) -> Option<Reason> {
    match standing {
        Standing::Bounced { .. } => Some(Reason::Bounce),
        Standing::CoolingOff => Some(Reason::CoolOff),
        Standing::SlowStart | Standing::Repeated { .. } => Some(Reason::SlowStart),
        Standing::Clear => None,
    }
}

/// Where the node can't serve the file (the origin lacks it or is down): a proven mirror, whatever the window says and
/// however the client stands, since the node could only fail it. A mirror that failed it already is not named again. None for
/// firmware: it would follow nowhere, and the origin may come back while it waits.
#[must_use]
pub fn last_resort(facts: &Facts<'_>, reason: Reason, has_room: &dyn Fn(usize) -> bool) -> Option<Redirect> {
    let (place, listed) = redirectable(facts)?;
    if facts.client.recovery == Recovery::Boots {
        return None;
    }
    redirect(facts, place, listed, reason, has_room)
}

/// Whether a mirror's failure may cost the client its transaction: it isn't known to come back. For images a person can choose
/// another mirror.
#[must_use]
pub fn is_at_risk(client: &Client, place: &Place<'_>) -> bool {
    client.recovery != Recovery::Retries && place.view.repo.checksums.is_none()
}

/// A client of zchunk files asks no other source once one has given it a bad part.
fn is_zchunk(path: &TreePath) -> bool {
    path.as_str().ends_with(".zck")
}

/// The file, if mirrors can be proven to hold its very bytes: it is listed, and its name has never had others.
fn redirectable<'a>(facts: &Facts<'a>) -> Option<(&'a Place<'a>, &'a Listed)> {
    let place = facts.place?;
    let listed = place.listed.as_ref()?;
    let is_provable = listed.entry.kind.is_provable() && listed.entry.digest.is_some();
    (is_provable && !is_zchunk(place.path)).then_some((place, listed))
}

/// Why the node keeps the file for itself, pressure aside; `None`: mirrors should take it.
fn keeps(facts: &Facts<'_>, place: &Place<'_>, listed: &Listed) -> Option<Reason> {
    match place.view.repo.delivery {
        Delivery::Own => return Some(Reason::Own),
        Delivery::Offload => return None,
        Delivery::Window => {}
    }
    let sequence = place.view.sequence();
    let in_scope = match place.view.repo.window_scope {
        Scope::Repo => true,
        Scope::Push => listed.entry.kind == Kind::Metadata || listed.entry.since == sequence,
    };
    match place.view.phase(facts.mirrors.fresh(place.index, sequence), facts.now) {
        Phase::Open { .. } if in_scope => Some(Reason::Window),
        Phase::Extended { .. } if in_scope => Some(Reason::WindowExtended),
        _ => None,
    }
}

fn is_shed(facts: &Facts<'_>, place: &Place<'_>, listed: &Listed) -> bool {
    if facts.shed <= 0.0 {
        return false;
    }
    let draw = select::unit_interval(client::hash(&(facts.client.key, place.relative)));
    let (size, cached, recovers) = (listed.entry.size, (facts.is_cached)(), !is_at_risk(facts.client, place));
    egress::sheds(facts.shed, egress::Candidate { size, cached, recovers }, draw)
}

fn redirect(
    facts: &Facts<'_>,
    place: &Place<'_>,
    listed: &Listed,
    reason: Reason,
    has_room: &dyn Fn(usize) -> bool,
) -> Option<Redirect> {
    among(facts, &holdings(facts.repos, place, listed), reason, has_room)
}

fn among(
    facts: &Facts<'_>,
    holdings: &[Holding],
    reason: Reason,
    has_room: &dyn Fn(usize) -> bool,
) -> Option<Redirect> {
    let Facts { client, now, .. } = *facts;
    let is_at_risk = facts.place.is_some_and(|place| is_at_risk(client, place));
    let wanted = Wanted { client, failed: facts.past.failed, is_at_risk, holdings, now };
    let most = if client.is_yum3 { 1 } else { 1 + MOST_OTHERS };
    let mut ranked = select::ranked(facts.mirrors, facts.orders, &wanted, has_room, most).into_iter();
    let (mirror, holding) = ranked.next()?;
    let others = ranked.map(|(index, holding)| (index, holding.path.clone())).collect();
    Some(Redirect { mirror, path: holding.path.clone(), others, size: holding.size, reason })
}

/// Where mirrors may hold the same bytes: at the same path, and in the repo's twin.
#[must_use]
pub fn holdings(repos: &Repos, place: &Place<'_>, listed: &Listed) -> Vec<Holding> {
    let size = listed.entry.size;
    let below = place.relative.len();
    let above = |path: &TreePath| path.as_str().len().checked_sub(below);
    let ground = Ground::Listed { repo: place.index, listed: *listed, above: above(place.path) };
    let mut holdings = vec![Holding { path: place.path.clone(), size, ground }];
    if let Some(twin) = place.view.repo.twin {
        let view = &repos.views()[twin];
        // Not by a name that proves nothing there, nor by one that a push has removed there, unless it has here.
        let counts = |same: &Listed| {
            same.entry.digest == listed.entry.digest
                && same.entry.kind.is_provable()
                && (listed.until.is_some() || same.until.is_none() && !view.is_leaving(place.relative, same))
        };
        let same = view.history.find(place.relative).filter(counts);
        // The twin's path may be too long to be one.
        if let Some((listed, path)) = same.zip(view.repo.file(place.relative).ok()) {
            let ground = Ground::Listed { repo: twin, listed, above: above(&path) };
            holdings.push(Holding { path, size, ground });
        }
    }
    holdings
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
