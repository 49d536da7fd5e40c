//! Which mirrors a mirrorlist or metalink names.

use super::select::{self, Nearness};
use super::{Client, MirrorTable, Orders};
use crate::geo::Code;
use crate::repo::Generation;

/// What a list is for.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a> {
    /// The repo's number in the config.
    pub repo: usize,
    /// Its current generation.
    pub current: &'a Generation,
    /// Only mirrors with https, or only those without.
    pub https: Option<bool>,
    /// These come first.
    pub countries: &'a [Code],
    /// Whom it is for.
    pub client: &'a Client,
}

/// The mirrors that are proven to hold the current generation and that the client can use, by number, at most `most`: those in
/// the countries that it asks for, then the others, nearest first.
#[must_use]
pub fn nearest(table: &MirrorTable, orders: &Orders, listing: &Listing<'_>, most: usize) -> Vec<usize> {
    let Listing { repo, current, countries, client, .. } = *listing;
    let all = || table.current(repo, current.sequence).filter(|index| is_usable(table, listing, *index));
    if countries.is_empty() {
        let known = orders.best(table, client);
        let is_fit = |index: &usize| {
            table.is_current(*index, repo, current.sequence) && is_usable(table, listing, *index)
        };
        let named: Vec<usize> = known.iter().map(|index| *index as usize).filter(is_fit).take(most).collect();
        return if named.len() == most { named } else { select::best(table, client, all(), most) };
    }
    let is_wanted = |index: &usize| {
        table.states()[*index].mirror.country.is_some_and(|country| countries.contains(&country))
    };
    let mut named = select::best(table, client, all().filter(is_wanted), most);
    let others = all().filter(|index| !is_wanted(index));
    named.extend(select::best(table, client, others, most - named.len()));
    named
}

fn is_usable(table: &MirrorTable, listing: &Listing<'_>, index: usize) -> bool {
    let Listing { repo, current, https, client, .. } = *listing;
    let state = &table.states()[index];
    let speaks = https.is_none_or(|https| https == state.is_https());
    // A client on IPv6 mostly has IPv4 as well.
    let reaches = state.ipv4 || client.addr.is_ipv6();
    let pair = &state.pairs[repo];
    // One that has all files, but shows another repomd.xml by now, would give clients that one.
    let shows = pair.seen == Some(current.id);
    // A client asks it for everything, and dnf has nothing in place of a delta package that is missing: only what the origin
    // lacks, too, is no worse there than anywhere.
    let is_whole = pair.exceptions.are_the_origins();
    let is_open = !state.mirror.private || select::nearness(state, client) == Nearness::Network;
    speaks && reaches && shows && is_whole && is_open && !state.is_slow()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::config::Mirror;
    use crate::policy::{Exceptions, Fault, MirrorState, Pair, Proof, Reach};
    use crate::repo::{Catalogue, Sha256};
    use std::sync::Arc;

    fn current() -> Generation {
        Generation {
            id: Sha256::of(b"current"),
            sequence: 3,
            published: Timestamp::EPOCH,
            flipped: Timestamp::EPOCH,
            revision: None,
            catalogue: Catalogue::default(),
            pinned: Vec::new(),
            new_files: 0,
            new_bytes: 0,
            left_out: 0,
            verified: true,
        }
    }

    /// One that is proven for it, in this country.
    fn proven(number: usize, country: &str) -> MirrorState {
        let url = format!("{}://m{number}.example/", if number.is_multiple_of(2) { "http" } else { "https" });
        let country: Option<Code> = country.parse().ok();
        let continent = country.and_then(Code::continent);
        let settings = Mirror { country, continent, ..Mirror::new(&format!("m{number}"), &url) };
        let proof = Some(Proof { sequence: 3, shown: 3, verified: Timestamp::EPOCH });
        MirrorState {
            reach: Reach::Up { seen: Timestamp::EPOCH },
            ipv4: true,
            pairs: vec![Pair { proof, seen: Some(current().id), ..Pair::default() }],
            ..MirrorState::untried(Arc::new(settings), 1)
        }
    }

    fn table(mirrors: impl IntoIterator<Item = MirrorState>) -> MirrorTable {
        MirrorTable::new(mirrors.into_iter().map(Arc::new).collect())
    }

    #[test]
    fn only_whom_the_client_can_use() {
        let ok = || proven(0, "DE");
        let older = Proof { sequence: 2, shown: 2, verified: Timestamp::EPOCH };
        let pairs = |pair: Pair| vec![pair];
        let lacking = |fault| Pair {
            exceptions: Exceptions::default().with("Packages/a.rpm", fault),
            ..ok().pairs[0].clone()
        };
        let with = |change: &dyn Fn(&mut Mirror)| {
            let mut settings = Mirror::clone(&ok().mirror);
            change(&mut settings);
            MirrorState { mirror: Arc::new(settings), ..ok() }
        };
        let current = current();
        let of = |addr: &str, state: MirrorState| {
            let client = Client::somewhere(addr, "libdnf");
            let listing =
                Listing { repo: 0, current: &current, https: Some(false), countries: &[], client: &client };
            nearest(&table([state]), &Orders::new(&[]), &listing, 20).len()
        };
        let (v4, v6) = ("192.0.2.1", "2001:db8::1");
        for (state, on_v4, on_v6) in [
            (ok(), 1, 1),
            (MirrorState { reach: Reach::Untried, ..ok() }, 0, 0),
            (
                MirrorState { pairs: pairs(Pair { proof: Some(older), ..ok().pairs[0].clone() }), ..ok() },
                0,
                0,
            ),
            (MirrorState { pairs: pairs(Pair { seen: None, ..ok().pairs[0].clone() }), ..ok() }, 0, 0),
            (MirrorState { pairs: pairs(lacking(Fault::Mirror)), ..ok() }, 0, 0),
            (MirrorState { pairs: pairs(lacking(Fault::Origin)), ..ok() }, 1, 1),
            (MirrorState { throughput: Some(31_999), ..ok() }, 0, 0),
            (MirrorState { throughput: Some(32_000), ..ok() }, 1, 1),
            (MirrorState { ipv4: false, ipv6: true, ..ok() }, 0, 1),
            (with(&|mirror| mirror.private = true), 0, 0),
            (
                with(&|mirror| {
                    (mirror.private, mirror.networks) = (true, vec!["192.0.2.0/24".parse().unwrap()]);
                }),
                1,
                0,
            ),
            (proven(1, "DE"), 0, 0),
        ] {
            assert_eq!((of(v4, state.clone()), of(v6, state.clone())), (on_v4, on_v6), "{state:?}");
        }
    }

    #[test]
    fn wanted_countries_come_first_and_the_shortcut_changes_nothing() {
        let countries = ["DE", "US", "FR", "JP"];
        let table = table((0..200).map(|number| proven(number, countries[number % 4])));
        let (current, client) = (current(), Client::somewhere("192.0.2.1", "libdnf"));
        let codes = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Code>>();
        let list = |countries: &[Code], most| {
            let listing = Listing { repo: 0, current: &current, https: None, countries, client: &client };
            nearest(&table, &Orders::new(&[]), &listing, most)
        };
        assert_eq!(list(&[], 20), select::best(&table, &client, 0..200, 20));
        assert_eq!(list(&[], 100), select::best(&table, &client, 0..200, 100));
        let wanted = list(&codes(&["JP"]), 60);
        assert_eq!(wanted.len(), 60);
        assert!(
            wanted[..50].iter().all(|index| index % 4 == 3)
                && wanted[50..].iter().all(|index| index % 4 != 3)
        );
        assert_eq!(list(&codes(&["CL"]), 20), list(&[], 20), "nobody there: anywhere");
    }
}
