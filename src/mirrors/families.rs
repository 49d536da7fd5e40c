//! IPv4 and IPv6 of one mirror are two mirrors to the prober: each has its own worker, its own proofs, its own reasons. Pure.
//!
//! What clients get is [`merged`]: they choose the family themselves (RFC 8305), so that while both are in use a file counts as
//! held only if both hold it. One that doesn't answer, or has no address, is passed over by clients, and does the other no
//! harm.

use crate::policy::{Covered, Exceptions, MirrorState, Pair, Proof, Reach};
use std::net::IpAddr;
use std::sync::Arc;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Whether the address is of this family.
    pub(super) const fn has(self, addr: IpAddr) -> bool {
        match self {
            Self::V4 => addr.is_ipv4(),
            Self::V6 => addr.is_ipv6(),
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A mirror as its two workers know it, in the order of [`Family::ALL`].
pub(crate) type Both = [Arc<MirrorState>; 2];

/// The mirror as clients find it.
pub(super) fn merged(both: &Both) -> MirrorState {
    let [v4, v6] = both;
    let (mut state, in_use) = match (v4.reach.is_up(), v6.reach.is_up()) {
        (true, false) => (MirrorState::clone(v4), [true, false]),
        (false, true) => (MirrorState::clone(v6), [false, true]),
        (up, _) => (common(v4, v6), [up, up]),
    };
    state.reach = reach(v4, v6);
    [state.ipv4, state.ipv6] = in_use;
    state
}

/// What both are good for.
fn common(v4: &MirrorState, v6: &MirrorState) -> MirrorState {
    let knows =
        |state: &MirrorState| state.pairs.iter().any(|pair| pair.proof.is_some() || pair.seen.is_some());
    // While none answers, one of which nothing was ever known says nothing of the mirror.
    if !v4.reach.is_up() && knows(v4) != knows(v6) {
        return MirrorState::clone(if knows(v4) { v4 } else { v6 });
    }
    let mut state = MirrorState::clone(v4);
    state.ranges = v4.ranges && v6.ranges;
    state.latency = v4.latency.max(v6.latency);
    state.disputed_until = v4.disputed_until.max(v6.disputed_until);
    state.throughput = v4.throughput.into_iter().chain(v6.throughput).min();
    state.pairs = v4.pairs.iter().zip(&v6.pairs).map(|(v4, v6)| pair(v4, v6)).collect();
    state
}

/// What both hold of a repo.
fn pair(v4: &Pair, v6: &Pair) -> Pair {
    let checked = v4.checked.min(v6.checked);
    // What one lacks, some clients wouldn't get.
    let exceptions = v4.exceptions.and(&v6.exceptions);
    let generations = |pair: &Pair| pair.proof.map(Covered::from);
    if (v4.seen, generations(v4)) == (v6.seen, generations(v6)) {
        let verified = |proof: Proof| {
            v6.proof.map(|other| Proof { verified: proof.verified.min(other.verified), ..proof })
        };
        let since = v4.since.max(v6.since);
        // The words of the one whose exceptions are more: they name what is missing.
        let lacking = if v6.exceptions.len() > v4.exceptions.len() { v6 } else { v4 };
        return Pair { proof: v4.proof.and_then(verified), exceptions, checked, since, ..lacking.clone() };
    }
    let both = v4.proof.zip(v6.proof).and_then(|(v4, v6)| narrowed(v4, v6));
    let (family, worse) = if worth(v4) < worth(v6) { (Family::V4, v4) } else { (Family::V6, v6) };
    let note = format!("over {}: {}", family.word(), worse.note).into();
    let exceptions = if both.is_some() { exceptions } else { Exceptions::default() };
    Pair { proof: both, exceptions, seen: worse.seen, note, checked, since: worse.since }
}

/// The proof of what is covered by both.
fn narrowed(v4: Proof, v6: Proof) -> Option<Proof> {
    let bounds = |proof: Proof| (proof.sequence.min(proof.shown), proof.sequence.max(proof.shown));
    let ((oldest4, newest4), (oldest6, newest6)) = (bounds(v4), bounds(v6));
    let (sequence, shown) = (oldest4.min(oldest6), newest4.max(newest6));
    (sequence > 0).then_some(Proof { sequence, shown, verified: v4.verified.min(v6.verified) })
}

/// Orders pairs: without a proof, then by what is proven, then by what is shown.
fn worth(pair: &Pair) -> (u32, bool) {
    (
        pair.proof
            .filter(|proof| Covered::from(*proof) != Covered::default())
            .map_or(0, |proof| proof.sequence),
        pair.seen.is_some(),
    )
}

fn reach(v4: &MirrorState, v6: &MirrorState) -> Reach {
    match (&v4.reach, &v6.reach) {
        // Clients may go over either, so that both have to have been asked.
        (Reach::Untried, _) | (_, Reach::Untried) => Reach::Untried,
        (Reach::Up { seen: one }, Reach::Up { seen: other }) => Reach::Up { seen: *one.min(other) },
        (Reach::Up { seen }, _) | (_, Reach::Up { seen }) => Reach::Up { seen: *seen },
        (Reach::Down { since, why }, Reach::Down { since: other_since, why: other }) => {
            let lacks = |family: Family, why: &str| why == family.lacks();
            let why = match (lacks(Family::V4, why), lacks(Family::V6, other)) {
                (false, true) => why.clone(),
                (true, false) => other.clone(),
                (true, true) => "no address".to_owned(),
                (false, false) if why == other => why.clone(),
                (false, false) => format!("IPv4: {why}; IPv6: {other}"),
            };
            Reach::Down { since: *since.max(other_since), why }
        }
    }
}

impl Family {
    /// Why a mirror is down that has no address of this family.
    pub(super) const fn lacks(self) -> &'static str {
        match self {
            Self::V4 => "no IPv4 address",
            Self::V6 => "no IPv6 address",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::config::Mirror;
    use crate::policy::Fault;
    use crate::repo::{Entry, Kind, Listed, Sha256};
    use proptest::prelude::*;
    use std::time::Duration;

    const AT: Timestamp = Timestamp::from_secs(1000);

    fn up(seconds: u64) -> Reach {
        Reach::Up { seen: Timestamp::from_secs(seconds) }
    }

    fn down(why: &str) -> Reach {
        Reach::Down { since: AT, why: why.to_owned() }
    }

    /// (sequence, shown), or no proof.
    fn state(reach: Reach, proof: Option<(u32, u32)>) -> Arc<MirrorState> {
        let mut state = MirrorState::untried(Arc::new(Mirror::new("m", "http://m.example/")), 1);
        state.reach = reach;
        state.ranges = true;
        state.latency = Some(Duration::from_millis(5));
        state.pairs[0].proof = proof.map(|(sequence, shown)| Proof { sequence, shown, verified: AT });
        state.pairs[0].seen = proof.map(|(_, shown)| Sha256::of(&shown.to_be_bytes()));
        state.pairs[0].note = "a note".into();
        Arc::new(state)
    }

    #[test]
    fn the_worse_counts_while_both_are_in_use_and_the_other_alone_where_one_is_not() {
        let lacks = || down(Family::V6.lacks());
        // (IPv4, IPv6, what holds of the mirror, over IPv4, over IPv6)
        let cases = [
            ((up(9), Some((3, 3))), (up(8), Some((3, 3))), Some((3, 3)), [true, true]),
            ((up(9), Some((3, 3))), (up(8), Some((2, 2))), Some((2, 3)), [true, true]),
            ((up(9), Some((3, 3))), (up(8), None), None, [true, true]),
            ((up(9), Some((3, 3))), (up(8), Some((3, 0))), None, [true, true]),
            ((up(9), Some((2, 3))), (up(8), Some((4, 4))), Some((2, 4)), [true, true]),
            ((up(9), Some((3, 3))), (lacks(), None), Some((3, 3)), [true, false]),
            ((up(9), Some((3, 3))), (down("refused"), Some((1, 1))), Some((3, 3)), [true, false]),
            ((down("refused"), Some((3, 3))), (up(8), Some((2, 2))), Some((2, 2)), [false, true]),
            ((down("refused"), Some((3, 3))), (lacks(), None), Some((3, 3)), [false, false]),
        ];
        for ((reach4, proof4), (reach6, proof6), expected, in_use) in cases {
            let merged = merged(&[state(reach4.clone(), proof4), state(reach6.clone(), proof6)]);
            let found = merged.pairs[0].proof.map(|proof| (proof.sequence, proof.shown));
            assert_eq!(found, expected, "{reach4:?} {proof4:?}, {reach6:?} {proof6:?}");
            assert_eq!([merged.ipv4, merged.ipv6], in_use, "{reach4:?}, {reach6:?}");
        }
    }

    #[test]
    fn words_name_the_family_that_stands_in_the_way() {
        let note = |v4, v6| merged(&[state(up(9), v4), state(up(9), v6)]).pairs[0].note.clone();
        assert_eq!(note(Some((3, 3)), Some((3, 3))), "a note");
        assert_eq!(note(Some((3, 3)), None), "over IPv6: a note");
        assert_eq!(note(Some((2, 2)), Some((3, 3))), "over IPv4: a note");
        let reach = |v4, v6| merged(&[state(v4, None), state(v6, None)]).reach;
        assert_eq!(reach(up(9), up(5)), up(5), "liveness is that of the one that was longer not seen");
        assert_eq!(reach(up(9), Reach::Untried), Reach::Untried);
        assert_eq!(reach(down("refused"), down(Family::V6.lacks())), down("refused"));
        assert_eq!(reach(down("refused"), down("refused")), down("refused"));
        assert_eq!(reach(down("refused"), down("slow")), down("IPv4: refused; IPv6: slow"));
    }

    proptest! {
        /// While both are in use, a file is held by the mirror only if it is over each.
        #[test]
        fn nothing_is_held_that_one_of_them_lacks(
            v4 in prop::option::of((1u32..6, 0u32..6)),
            v6 in prop::option::of((1u32..6, 0u32..6)),
            lacks in any::<[[bool; 2]; 2]>(),
            since in 1u32..6,
            until in prop::option::of(1u32..6),
        ) {
            let files = ["a", "b", "c"];
            let lacking = |state: Arc<MirrorState>, lacks: [bool; 2]| {
                let mut state = MirrorState::clone(&state);
                let pair = &mut state.pairs[0];
                for (path, _) in files.iter().zip(lacks).filter(|(_, lacks)| *lacks && pair.proof.is_some()) {
                    pair.exceptions = pair.exceptions.with(path, Fault::Mirror);
                }
                Arc::new(state)
            };
            let (v4, v6) = (lacking(state(up(9), v4), lacks[0]), lacking(state(up(9), v6), lacks[1]));
            let merged = merged(&[v4.clone(), v6.clone()]);
            let entry = Entry { size: 1, digest: None, kind: Kind::Package, since };
            let listed = Listed { entry, until };
            for path in files {
                let holds = |state: &MirrorState| state.holds(0, &listed, path);
                prop_assert_eq!(holds(&merged), holds(&v4) && holds(&v6), "{}", path);
            }
        }
    }
}
