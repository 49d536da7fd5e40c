use super::*;
use crate::clock::Timestamp;
use crate::mirrors::tests::generation;
use std::time::Duration;

/// Delta packages in a repo.
const DELTAS: usize = 20;

/// A repo of so many packages, and delta packages.
fn history(packages: usize) -> History {
    let packages = (0..packages).map(|number| format!("Packages/p{number:04}.rpm"));
    let deltas = (0..DELTAS).map(|number| format!("drpms/d{number:04}.drpm"));
    let files: Vec<_> = packages.chain(deltas).map(|path| (path, b"bytes".to_vec())).collect();
    History::default().with(generation(&files, None), Duration::from_secs(1), Timestamp::EPOCH)
}

/// Asks for all that is to be asked; what is missing, and how many requests that took.
fn ask(check: &mut Findings, missing: impl Fn(&str) -> bool) -> usize {
    let mut asked = 0;
    while let Some((number, file)) = check.take() {
        asked += 1;
        if missing(&file.path) {
            let missed = Missed { path: file.path, why: "is missing (404)".to_owned(), transient: false };
            check.missed(number, missed, Fault::Mirror);
        } else {
            check.seen(number);
        }
    }
    asked
}

fn begin(history: &History, base: Base) -> Findings {
    Findings::begin(history, base, 1, 5000, &mut fastrand::Rng::with_seed(1))
}

fn proven(exceptions: Exceptions) -> Base {
    Base { proof: Some(Proof { sequence: 1, shown: 1, verified: Timestamp::EPOCH }), exceptions }
}

#[test]
fn a_few_missing_files_are_exceptions_and_more_are_none() {
    for (packages, most) in [(80, 3), (480, 5), (980, 10)] {
        let history = history(packages);
        for lacking in [0, 1, most, most + 1] {
            let mut check = begin(&history, Base::default());
            let is_missing = |path: &str| {
                let number = path.strip_prefix("Packages/p").map(|rest| rest[..4].parse::<usize>().unwrap());
                number.is_some_and(|number| number < lacking)
            };
            ask(&mut check, is_missing);
            match check.result() {
                Ok(held) => {
                    assert!(lacking <= most, "{lacking} of {packages}");
                    assert_eq!((held.files, held.exceptions.len()), (packages + DELTAS - lacking, lacking));
                }
                Err(missed) => {
                    assert!(lacking > most, "{lacking} of {packages}");
                    assert_eq!(missed.path, "Packages/p0000.rpm");
                }
            }
        }
    }
}

#[test]
fn a_group_that_is_left_out_costs_few_questions_and_no_proof() {
    let history = history(90);
    let mut check = begin(&history, Base::default());
    assert_eq!(ask(&mut check, |path| path.starts_with("drpms/")), 90 + GROUP_SAMPLE);
    let held = check.result().unwrap();
    assert_eq!(held.exceptions.names(9), ["drpms/*"]);
    assert!(held.exceptions.contains("drpms/d0019.drpm"), "those that were not asked for are meant, too");

    // At the next check one question tells that they are still missing.
    let mut again = begin(&history, proven(held.exceptions.clone()));
    assert_eq!(ask(&mut again, |path| path.starts_with("drpms/")), 1);
    assert_eq!(again.result().unwrap().exceptions, held.exceptions);
    // They have come, but for one.
    let mut come = begin(&history, proven(held.exceptions.clone()));
    ask(&mut come, |path| path == "drpms/d0007.drpm");
    assert_eq!(come.result().unwrap().exceptions, held.exceptions, "not before all were seen");
    come.resume();
    assert_eq!(ask(&mut come, |_| false), 13, "what was seen isn't asked for again");
    assert!(come.result().unwrap().exceptions.is_empty());

    // A single one of a group is a file like others, and counts for nothing.
    let mut single = begin(&history, Base::default());
    ask(&mut single, |path| path == "drpms/d0001.drpm");
    let held = single.result().unwrap();
    assert_eq!((held.exceptions.names(9), held.exceptions.counted()), (vec!["drpms/d0001.drpm".into()], 0));
}

#[test]
fn what_the_origin_lacks_is_no_fault_of_the_mirror() {
    let history = history(90);
    let mut check = begin(&history, Base::default());
    while let Some((number, file)) = check.take() {
        if file.path.starts_with("Packages/p000") {
            assert!(check.asks_origin(&file));
            let missed = Missed { path: file.path, why: "is missing (404)".to_owned(), transient: false };
            check.missed(number, missed, Fault::Origin);
        } else {
            check.seen(number);
        }
    }
    let held = check.result().unwrap();
    assert_eq!((held.exceptions.len(), held.exceptions.counted()), (10, 0));
    assert!(held.exceptions.are_the_origins());
}

#[test]
fn a_check_that_was_broken_off_goes_on_where_it_was() {
    let history = history(90);
    let mut check = begin(&history, Base::default());
    let mut asked = 0;
    for round in 0.. {
        assert!(round < 20, "it never ends");
        // So many requests, then the mirror is busy; one is under way and gets no answer at all.
        for _ in 0..10 {
            let Some((number, _)) = check.take() else { break };
            asked += 1;
            check.seen(number);
        }
        if check.take().is_none() {
            break;
        }
        check.resume();
    }
    assert_eq!((asked, check.result().unwrap().files), (110, 110));
}
