use super::*;
use crate::mirrors::findings::Findings;
use crate::mirrors::tests::generation;
use crate::repo::History;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_secs(1000);
const KEEP: Duration = Duration::from_secs(1_000_000);

/// Path to content.
type Model = BTreeMap<u8, u8>;

fn history(models: &[Model]) -> History {
    models.iter().fold(History::default(), |history, model| {
        let files: Vec<_> = model
            .iter()
            .map(|(path, content)| (path.to_string(), vec![*content; 1 + *content as usize]))
            .collect();
        let next = generation(&files, history.current().map(|current| &**current));
        history.with(next, KEEP, NOW)
    })
}

fn id(history: &History, sequence: u32) -> Sha256 {
    history.by_sequence(sequence).map_or(Sha256::of(b"other"), |generation| generation.id)
}

fn proof(sequence: u32, shown: u32) -> Option<Proof> {
    Some(Proof { sequence, shown, verified: NOW })
}

/// Checks a generation on a mirror that has a file of these sizes.
fn checked(
    history: &History,
    pair: &Pair,
    target: u32,
    size: impl Fn(&str) -> Option<u64>,
    rng: &mut fastrand::Rng,
) -> Result<Held, Missed> {
    let mut check = Findings::begin(history, Base::of(pair), target, 1000, rng);
    while let Some((number, file)) = check.take() {
        if size(&file.path) == Some(file.size) {
            check.seen(number);
        } else {
            let why = "is missing (404)".to_owned();
            check.missed(number, Missed { path: file.path, why, transient: false }, Fault::Mirror);
        }
    }
    check.result()
}

fn held(files: usize) -> Result<Held, Missed> {
    Ok(Held { files, ..Held::default() })
}

#[test]
fn a_look_moves_the_bounds_of_the_proof() {
    let history = history(&[Model::from([(1, 1)]), Model::from([(2, 2)]), Model::from([(3, 3)])]);
    let unknown = "shows repomd.xml of an unknown generation (d9298a10d1b0…): no redirects until it is known";
    let spot = |sequence, shown| Next::Spot(proof(sequence, shown).unwrap());
    // (proof, generation shown; 9: unknown, next, proof then, note)
    let cases = [
        (None, 3, Next::Verify(3), None, "shows generation 3 of 3, not checked yet"),
        (None, 1, Next::Verify(1), None, "stale: shows generation 1 of 3, not checked yet"),
        (None, 9, Next::Rest, None, unknown),
        (proof(3, 3), 3, spot(3, 3), proof(3, 3), "proven: holds generation 3"),
        (proof(2, 2), 2, spot(2, 2), proof(2, 2), "stale: shows generation 2 of 3, proven for it"),
        (
            proof(2, 2),
            3,
            Next::Verify(3),
            proof(2, 3),
            "shows generation 3 of 3, not checked yet; still proven for generation 2",
        ),
        (proof(2, 2), 9, Next::Rest, proof(2, 0), unknown),
        (proof(3, 3), 9, Next::Rest, proof(3, 0), unknown),
        (proof(2, 3), 9, Next::Rest, proof(2, 0), unknown),
        // It went back before: a flip would leave it on both sides of the proof.
        (proof(3, 2), 9, Next::Rest, None, unknown),
        (
            proof(3, 3),
            1,
            Next::Verify(1),
            proof(3, 1),
            "stale: shows generation 1 of 3, not checked yet; still proven for generation 3",
        ),
        // Back at what it is proven for, after it may have deleted some of it.
        (
            proof(2, 3),
            2,
            Next::Verify(2),
            proof(2, 3),
            "stale: shows generation 2 of 3, not checked yet; still proven for generation 2",
        ),
        // On both sides of the proof.
        (proof(2, 3), 1, Next::Verify(1), None, "stale: shows generation 1 of 3, not checked yet"),
        (proof(7, 7), 3, Next::Verify(3), None, "shows generation 3 of 3, not checked yet"),
    ];
    for (before, shown, next, after, note) in cases {
        let old = Pair { proof: before, ..Pair::default() };
        let seen = id(&history, shown);
        let (pair, found) = look(&history, &old, Seen::Shows(seen), NOW);
        assert_eq!((found, pair.proof, pair.note.as_str()), (next, after, note), "{before:?} shows {shown}");
        assert_eq!((pair.seen, pair.checked), (Some(seen), NOW));
        // The same again leaves words that say more as they are.
        let told = Pair { note: "told".into(), ..pair };
        assert_eq!(look(&history, &told, Seen::Shows(seen), NOW), (told.clone(), found));
        assert_ne!(flipped(&history, &told).note, "told");
    }
    let astray = Pair { proof: proof(3, 0), seen: Some(id(&history, 9)), ..Pair::default() };
    let (back, next) = look(&history, &astray, Seen::Shows(id(&history, 3)), NOW);
    assert_eq!((back.proof, next), (None, Next::Verify(3)), "back from an unknown generation");
    let (other, _) = look(&history, &astray, Seen::Shows(Sha256::of(b"another")), NOW);
    assert_eq!(other.proof, None, "from one unknown generation to another");
    let (unclear, _) = look(&history, &astray, Seen::Unclear("repomd.xml answers 429".to_owned()), NOW);
    assert_eq!((unclear.proof, unclear.note.as_str()), (proof(3, 0), "repomd.xml answers 429"));
    assert_eq!(look(&history, &unclear, Seen::Shows(id(&history, 3)), NOW).0.proof, None);

    let old = Pair { proof: proof(2, 2), seen: Some(id(&history, 2)), ..Pair::default() };
    let (gone, _) = look(&history, &old, Seen::Gone("no repomd.xml (404)".to_owned()), NOW);
    assert_eq!((gone.proof, gone.seen, gone.note.as_str()), (None, None, "no repomd.xml (404)"));
    let (unclear, _) = look(&history, &old, Seen::Unclear("repomd.xml answers 429".to_owned()), NOW);
    assert_eq!(unclear.proof, old.proof);
    assert_eq!(unclear.note, "repomd.xml answers 429; still proven for generation 2");
}

#[test]
fn a_mirror_that_was_ahead_of_the_flip_is_asked_for_the_new_files_only() {
    let models = [Model::from([(1, 1), (2, 2)]), Model::from([(1, 1), (3, 3)])];
    let (before, after) = (history(&models[..1]), history(&models));
    let old = Pair { proof: proof(1, 1), seen: Some(id(&before, 1)), ..Pair::default() };
    let (ahead, next) = look(&before, &old, Seen::Shows(id(&after, 2)), NOW);
    assert_eq!((ahead.proof, next), (proof(1, 0), Next::Rest));
    for path in ["1", "2"] {
        let listed = before.find(path).unwrap();
        assert!(!ahead.covered().covers(&listed), "{path}");
    }
    let flip = flipped(&after, &ahead);
    assert_eq!(flip.proof, proof(1, 2));
    let (looked, next) = look(&after, &flip, Seen::Shows(id(&after, 2)), NOW);
    assert_eq!((looked.proof, next), (proof(1, 2), Next::Verify(2)));
    let base = Base::of(&looked);
    let files = unproven(&after, &base, 2, 1000, &mut fastrand::Rng::with_seed(1));
    assert_eq!(files.into_iter().map(|file| file.path).collect::<Vec<_>>(), ["3"]);
    let promoted = verified(&after, &looked, (2, &base), &held(1), NOW).unwrap();
    assert_eq!(promoted.proof, proof(2, 2));
}

#[test]
fn a_check_proves_only_what_it_was_made_for() {
    let history = history(&[Model::from([(1, 1)]), Model::from([(1, 1), (2, 2)])]);
    let old = Pair { proof: proof(1, 2), seen: Some(id(&history, 2)), ..Pair::default() };
    let base = Base::of(&old);
    let good = verified(&history, &old, (2, &base), &held(1), NOW).unwrap();
    assert_eq!(
        (good.proof, good.note.as_str()),
        (proof(2, 2), "proven: holds generation 2 (1 files checked)")
    );

    let missed = |transient| Missed { path: "2".to_owned(), why: "is missing (404)".to_owned(), transient };
    let bad = verified(&history, &old, (2, &base), &Err(missed(false)), NOW).unwrap();
    let note = "shows generation 2, but 2 is missing (404); still proven for generation 1";
    assert_eq!((bad.proof, bad.note.as_str()), (old.proof, note));

    // The proof that it builds on was dropped, or the generation is no longer kept.
    assert_eq!(verified(&history, &refuted(&old, "x"), (2, &base), &held(1), NOW), None);
    assert_eq!(verified(&history, &old, (7, &base), &held(1), NOW), None);
    let narrowed = Pair { exceptions: Exceptions::default().with("1", Fault::Mirror), ..old.clone() };
    assert_eq!(verified(&history, &narrowed, (2, &base), &held(1), NOW), None, "1 was lost meanwhile");

    let later = Timestamp::from_secs(2000);
    let spotted = |result| spotted(&history, &good, result, later);
    assert_eq!(spotted(Ok(())).proof.map(|proof| proof.verified), Some(later));
    let lapse = |transient, more| Lapse { missed: missed(transient), fault: Fault::Mirror, more };
    assert_eq!(spotted(Err(lapse(true, false))), good);
    let alone = spotted(Err(lapse(false, false)));
    assert_eq!(
        (alone.proof, alone.seen, alone.exceptions.names(9)),
        (good.proof, good.seen, vec!["2".into()])
    );
    assert_eq!(
        alone.note,
        "2 is missing (404), though it was proven; still proven for generation 2, except 2"
    );
    let lost = spotted(Err(lapse(false, true)));
    assert_eq!((lost.proof, lost.seen, lost.exceptions.len()), (None, None, 0));
    assert_eq!(lost.note, "2 is missing (404), though it was proven");
}

#[test]
fn a_proof_is_lost_with_one_file_too_many() {
    let history = history(&[(0..100).map(|path| (path, path)).collect()]);
    let mut pair = Pair { proof: proof(1, 1), ..Pair::default() };
    for lost in 0..5 {
        let missed = Missed { path: lost.to_string(), why: "is missing (404)".to_owned(), transient: false };
        let lapse =
            Lapse { missed, fault: if lost == 0 { Fault::Origin } else { Fault::Mirror }, more: false };
        assert!(witnesses(&history, &pair, &lost.to_string(), &mut fastrand::Rng::with_seed(1)).len() >= 8);
        pair = lapsed(&history, &pair, &lapse, "note");
        // The first isn't the mirror's fault, and three of a hundred are no reason.
        assert_eq!(
            (pair.proof.is_some(), pair.exceptions.len()),
            if lost < 4 { (true, lost + 1) } else { (false, 0) }
        );
    }
}

#[test]
fn what_a_mirror_lacks_is_asked_for_again_at_the_next_check() {
    let models: Vec<Model> =
        vec![(0..50).map(|path| (path, path)).collect(), (0..60).map(|path| (path, path)).collect()];
    let history = history(&models);
    let rng = &mut fastrand::Rng::with_seed(1);
    let shows = |pair: &Pair, sequence| look(&history, pair, Seen::Shows(id(&history, sequence)), NOW);
    let verify = |pair: &Pair, target: u32, lacking: &[u8], rng: &mut fastrand::Rng| {
        let size = |path: &str| {
            let path: u8 = path.parse().unwrap();
            (!lacking.contains(&path)).then_some(u64::from(path) + 1)
        };
        let result = checked(&history, pair, target, size, rng);
        (verified(&history, pair, (target, &Base::of(pair)), &result, NOW).unwrap(), result)
    };
    let (pair, next) = shows(&Pair::default(), 1);
    assert_eq!(next, Next::Verify(1));
    let (pair, _) = verify(&pair, 1, &[7], rng);
    assert_eq!(pair.note, "stale: shows generation 1 of 2, proven for it (49 files checked), except 7");
    let holds =
        |pair: &Pair, path: u8| pair.holds(&history.find(&path.to_string()).unwrap(), &path.to_string());
    assert!(holds(&pair, 6) && !holds(&pair, 7) && !holds(&pair, 55));

    // It goes on to the next generation, lacks one more, and what it lacked before is there.
    let (pair, next) = shows(&pair, 2);
    assert_eq!((next, pair.exceptions.len()), (Next::Verify(2), 1));
    let (pair, result) = verify(&pair, 2, &[55], rng);
    assert_eq!(result.unwrap().files, 10, "nine new ones and the one that was missing");
    assert!(holds(&pair, 7) && !holds(&pair, 55) && pair.covered().is_just(2));

    // Half of what is new is a mirror in the midst of its sync.
    let (half, _) = shows(&Pair { proof: proof(1, 1), ..Pair::default() }, 2);
    let (half, result) = verify(&half, 2, &[50, 51, 52, 53, 54], rng);
    assert!(result.is_err() && !half.covered().is_just(2) && holds(&half, 7) && !holds(&half, 59));
    // One that shows what isn't known keeps them for the time when it is.
    let (astray, _) = shows(&pair, 9);
    assert_eq!(astray.exceptions, pair.exceptions);
    let gone = look(&history, &pair, Seen::Gone("none".into()), NOW).0;
    assert!(gone.exceptions.is_empty() && gone.proof.is_none());
}

#[test]
fn a_large_generation_is_sampled() {
    let history = history(&[(0..100).map(|path| (path, path)).collect()]);
    let paths = |most, base: &Base, seed| -> Vec<String> {
        let rng = &mut fastrand::Rng::with_seed(seed);
        unproven(&history, base, 1, most, rng).into_iter().map(|file| file.path).collect()
    };
    let none = Base::default();
    assert_eq!(paths(1000, &none, 1).len(), 100);
    let sample = paths(10, &none, 1);
    assert_eq!((sample.len(), &sample), (10, &paths(10, &none, 1)));
    assert_ne!(sample, paths(10, &none, 2));
    // What it lacks isn't sampled.
    let exceptions = Exceptions::new([], ["77", "8"].map(|path| (path.to_owned(), Fault::Mirror)));
    for (proof, others) in [(None, 10), (proof(1, 1), 0)] {
        let found = paths(10, &Base { proof, exceptions: exceptions.clone() }, 1);
        assert_eq!((&found[..2], found.len()), (&["77".to_owned(), "8".to_owned()][..], 2 + others));
    }
}

/// What happens between two looks.
#[derive(Clone, Debug)]
enum Event {
    /// The node flips to its next generation.
    Flip,
    /// The mirror moves towards a generation, by way of all between; as it goes it deletes what isn't listed, or not, and
    /// of what is new takes some only.
    Sync { to: usize, takes: u8, deletes: u8 },
}

fn event() -> impl Strategy<Value = Event> {
    let sync = (0..8_usize, any::<u8>(), any::<u8>()).prop_map(|(to, takes, deletes)| Event::Sync {
        to,
        takes,
        deletes,
    });
    prop_oneof![1 => Just(Event::Flip), 4 => sync]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000)))]
    /// The promise: whatever a proof covers, the mirror has. Between two looks it moves one way only.
    #[test]
    fn what_is_proven_is_there(
        models in prop::collection::vec(prop::collection::btree_map(0..6_u8, 0..3_u8, 0..6), 2..8),
        events in prop::collection::vec(event(), 1..25),
        seed in any::<u64>(),
    ) {
        let (mut offered, mut at, mut holds) = (1, 0, Model::new());
        let all = history(&models);
        let mut pair = Pair::default();
        let mut rng = fastrand::Rng::with_seed(seed);
        for event in events {
            let known = history(&models[..offered]);
            match event {
                Event::Flip if offered < models.len() => {
                    offered += 1;
                    pair = flipped(&history(&models[..offered]), &pair);
                }
                Event::Flip => {}
                Event::Sync { to, takes, deletes } => {
                    // It may be ahead of this node.
                    let to = to.min(models.len() - 1);
                    let way: Vec<_> = if to < at { (to..at).rev().collect() } else { (at..=to).collect() };
                    for step in way {
                        holds.retain(|path, _| models[step].contains_key(path) || deletes >> path & 1 == 0);
                        holds.extend(models[step].iter().filter(|(path, _)| takes >> **path & 1 == 1));
                    }
                    at = to;
                    let (looked, next) = look(&known, &pair, Seen::Shows(id(&all, at as u32 + 1)), NOW);
                    pair = looked;
                    if let Next::Verify(target) = next {
                        let there = |path: &str| holds.get(&path.parse().unwrap()).map(|held| u64::from(*held) + 1);
                        let result = checked(&known, &pair, target, there, &mut rng);
                        pair = verified(&known, &pair, (target, &Base::of(&pair)), &result, NOW).unwrap();
                        // Exactly what is missing is excepted.
                        for (path, entry) in known.by_sequence(target).unwrap().catalogue.iter() {
                            let is_there = there(path) == Some(entry.size);
                            prop_assert!(result.is_err() || pair.exceptions.contains(path) != is_there, "{}", path);
                        }
                        prop_assert!(result.is_err() || pair.proof == proof(target, target));
                    }
                }
            }
            let known = history(&models[..offered]);
            for path in 0..6_u8 {
                let Some(listed) = known.find(&path.to_string()) else { continue };
                if pair.holds(&listed, &path.to_string()) {
                    let held = holds.get(&path).map(|held| u64::from(*held) + 1);
                    prop_assert_eq!(held, Some(listed.entry.size), "path {} by {:?}", path, pair);
                }
            }
            if let Some(file) = spot(&known, &pair, &mut rng) {
                let held = holds.get(&file.path.parse().unwrap()).map(|held| u64::from(*held) + 1);
                prop_assert_eq!(held, Some(file.size), "spot {:?} by {:?}", file, pair);
            }
        }
    }
}
