//! Random operations, a crash in the middle of any of them, and whatever survives it: an object is right or absent.

use super::model::{Machine, Syncs};
use crate::clock::Timestamp;
use crate::http::freshness::Terms;
use crate::http::{ByteRange, Fields, TreePath};
use crate::origin::Version;
use crate::repo::{Algorithm, Digest, Sha256};
use crate::store::disk::files::Files;
use crate::store::disk::{Disk, Draft, Examined, Finding, Look, Parts, Stage, Trust, Verified};
use crate::store::object::{FOREVER, Facts, Meta, Object};
use hyper::header::HeaderValue;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::{Builder, Handle};

const ROOT: &str = "/var/cache";
const OBJECTS: u8 = 4;

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    /// A body of this version arrives in pieces, and is committed.
    Store {
        object: u8,
        version: u8,
        piece: usize,
    },
    /// The first part of a body is put away, to be gone on with.
    Keep {
        object: u8,
        version: u8,
    },
    /// What was put away is completed and committed, if it is still there.
    Complete {
        object: u8,
    },
    /// A body arrives, and breaks off.
    BreakOff {
        object: u8,
        version: u8,
    },
    Look {
        object: u8,
    },
    /// By an eviction or a purge.
    Remove {
        object: u8,
    },
    Walk,
    /// The process is killed, and started again.
    Kill,
    /// Process and machine are shut down in order.
    ShutDown,
    /// The machine loses its power after so many more operations of the file system, whatever they belong to.
    Crash {
        after: u32,
    },
    /// A sync fails.
    FailSync {
        after: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let object = || 0..OBJECTS;
    prop_oneof![
        6 => (object(), 0..4_u8, 100..2000_usize)
            .prop_map(|(object, version, piece)| Step::Store { object, version, piece }),
        3 => (object(), 0..4_u8).prop_map(|(object, version)| Step::Keep { object, version }),
        3 => object().prop_map(|object| Step::Complete { object }),
        1 => (object(), 0..4_u8).prop_map(|(object, version)| Step::BreakOff { object, version }),
        3 => object().prop_map(|object| Step::Look { object }),
        1 => object().prop_map(|object| Step::Remove { object }),
        1 => Just(Step::Walk),
        1 => Just(Step::Kill),
        1 => Just(Step::ShutDown),
        2 => (0..40_u32).prop_map(|after| Step::Crash { after }),
        1 => (0..3_u32).prop_map(|after| Step::FailSync { after }),
    ]
}

fn object(number: u8) -> Object {
    let path = TreePath::new(&format!("object-{number}")).unwrap();
    if number.is_multiple_of(2) {
        Object::unlisted(path)
    } else {
        let body = body(number, 0);
        let algorithm = Algorithm::ALL[usize::from(number / 2) % Algorithm::ALL.len()];
        Object::listed(path, Digest::of(algorithm, &body), body.len() as u64)
    }
}

/// A listed object has but one version.
fn body(object: u8, version: u8) -> Vec<u8> {
    let version = if object.is_multiple_of(2) { version } else { 0 };
    let mut random = fastrand::Rng::with_seed(u64::from(object) << 8 | u64::from(version));
    let length = random.usize(..2500);
    (0..length).map(|_| random.u8(..)).collect()
}

fn meta(body: &[u8]) -> Meta {
    Meta::new(Facts {
        length: Some(body.len() as u64),
        etag: None,
        last_modified: None,
        content_type: HeaderValue::from_static("text/plain"),
        sha256: Some(Sha256::of(body)),
        listed: None,
        stored: Timestamp::from_secs(1_800_000_000),
        fresh_until: FOREVER,
        terms: Terms::none(Timestamp::from_secs(1_800_000_000)),
        fields: Fields::default(),
    })
}

/// The disk tier on its machine, and what may be found in it.
struct Bench {
    machine: Machine,
    disk: Option<Arc<Disk<Machine>>>,
    pool: Handle,
    /// Bodies that may be found; `None` among them: nothing.
    may_be: BTreeMap<u8, BTreeSet<Option<Vec<u8>>>>,
    /// Whether what was committed has to be there.
    durable: bool,
    /// Whether the disk reports as durable what it has in its own cache, for a while.
    lies: bool,
}

impl Bench {
    /// On with it: the disk tier, opened again after a crash if there was one.
    fn disk(&mut self) -> Result<Arc<Disk<Machine>>, TestCaseError> {
        while !self.machine.has_power() || self.disk.is_none() {
            if !self.machine.has_power() {
                self.machine = self.machine.reboot();
                self.disk = None;
            }
            match Disk::open_on(self.machine.clone(), Path::new(ROOT), "origin".to_owned()) {
                Ok(disk) => {
                    let left = self.machine.list(&Path::new(ROOT).join("tmp")).unwrap();
                    prop_assert!(left.is_empty(), "left behind: {left:?}");
                    if self.lies {
                        self.machine.settle();
                    }
                    self.disk = Some(Arc::new(disk));
                }
                Err(error) => {
                    let is_fault = error.to_string() == "EIO";
                    prop_assert!(is_fault || !self.machine.has_power(), "it doesn't open: {error}");
                    self.machine = self.machine.kill();
                }
            }
        }
        Ok(Arc::clone(self.disk.as_ref().unwrap()))
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Store { object: number, version, piece } => self.store(number, version, piece)?,
            Step::Keep { object, version } => self.keep(object, version)?,
            Step::Complete { object } => self.complete(object)?,
            Step::BreakOff { object, version } => {
                let pool = self.pool.clone();
                let Ok(draft) = self.disk()?.draft(None, &pool) else { return self.failed() };
                // As a process that is killed leaves it.
                let _ = self.machine.write_all_at(&draft.file, &body(object, version), 0);
                forget(draft);
            }
            Step::Look { object } => self.look(object)?,
            Step::Remove { object: number } => {
                let disk = self.disk()?;
                let removed = disk.remove(&disk.key(&object(number)));
                let outcomes = self.may_be.entry(number).or_default();
                outcomes.insert(None);
                if removed.is_err() {
                    return self.failed();
                }
                // It isn't synced: a crash may bring it back, but nothing else can.
            }
            Step::Walk => {
                let mut walked = 0;
                let walking = self.disk()?.walk(|_| {
                    walked += 1;
                    true
                });
                prop_assert!(walked <= 2 * usize::from(OBJECTS), "an entry and parts of each");
                if walking.is_err() {
                    return self.failed();
                }
            }
            Step::Kill => {
                self.machine = self.machine.kill();
                self.disk = None;
            }
            Step::ShutDown => {
                if let Err(error) = self.disk()?.close() {
                    let is_fault = error.to_string() == "EIO";
                    prop_assert!(is_fault || !self.machine.has_power(), "it doesn't close: {error}");
                    self.machine = self.machine.kill();
                    self.disk = None;
                    return Ok(());
                }
                if self.lies {
                    self.machine.settle();
                }
                self.machine = self.machine.reboot();
                self.disk = None;
            }
            Step::Crash { after } => self.machine.lose_power_after(after),
            Step::FailSync { after } => self.machine.fail_a_sync_after(after),
        }
        Ok(())
    }

    fn store(&mut self, number: u8, version: u8, piece: usize) -> Result<(), TestCaseError> {
        let (object, body) = (object(number), body(number, version));
        let pool = self.pool.clone();
        let disk = self.disk()?;
        let machine = self.machine.clone();
        let Ok(mut draft) = disk.draft(Some(body.len() as u64), &pool) else { return self.failed() };
        let mut committed = Ok(0);
        for (i, part) in body.chunks(piece).enumerate() {
            if let Err(error) = machine.write_all_at(&draft.file, part, (i * piece) as u64) {
                committed = Err(error);
                break;
            }
        }
        if committed.is_ok() {
            committed = disk.commit(&mut draft, &object, &meta(&body));
            if committed.is_err() {
                // A second try must not make of a failed sync a good one.
                committed = disk.commit(&mut draft, &object, &meta(&body));
            }
        }
        let state = draft.stage;
        forget(draft);
        let outcomes = self.may_be.entry(number).or_insert_with(|| [None].into());
        match committed {
            Ok(_) if self.durable => *outcomes = [Some(body)].into(),
            // What a lie has lost may show what it replaced.
            Ok(_) => outcomes.extend([Some(body)]),
            Err(error) => {
                outcomes.extend([Some(body)]);
                prop_assert!(state == Stage::Spoiled || !self.machine.has_power(), "{error}");
            }
        }
        Ok(())
    }

    fn keep(&mut self, number: u8, version: u8) -> Result<(), TestCaseError> {
        let (object, body) = (object(number), body(number, version));
        let (disk, pool, half) = (self.disk()?, self.pool.clone(), body.len() / 2);
        if half == 0 {
            return Ok(());
        }
        let Ok(mut draft) = disk.draft(None, &pool) else { return self.failed() };
        let of = Version::from_validator(true, HeaderValue::from(u16::from(version)));
        let spans = [ByteRange { start: 0, end: half as u64 }];
        let written = self.machine.write_all_at(&draft.file, &body[..half], 0);
        let kept = written.and_then(|()| disk.keep(&mut draft, &object, &meta(&body), &of, &spans));
        let stage = draft.stage;
        forget(draft);
        // Where the whole lies already, parts are of no use.
        let refused = matches!(&kept, Err(error) if error.kind() == ErrorKind::InvalidInput);
        let excused = refused || stage == Stage::Spoiled || !self.machine.has_power();
        prop_assert!(kept.is_ok() || excused, "{:?}", kept);
        Ok(())
    }

    /// Whatever is found of parts has to be what was put away, of the version that it names.
    fn complete(&mut self, number: u8) -> Result<(), TestCaseError> {
        let object = object(number);
        let (disk, pool) = (self.disk()?, self.pool.clone());
        let Ok(parts) = disk.take_parts(&object, &pool) else { return self.failed() };
        let Some(Parts { mut draft, version, spans, .. }) = parts else { return Ok(()) };
        let version: u8 = version.if_range().to_str().unwrap().parse().unwrap();
        let body = body(number, version);
        let half = usize::try_from(spans[0].end).unwrap();
        let mut there = vec![0; half];
        if self.machine.read_exact_at(&draft.file, &mut there, 0).is_err() {
            forget(draft);
            return self.failed();
        }
        prop_assert!(there == body[..half], "object {}: parts of other bytes", number);
        let rest = self.machine.write_all_at(&draft.file, &body[half..], half as u64);
        // As the pass in order does, which hashes all of it.
        let is_right = there == body[..half];
        let committed = rest.and_then(|()| {
            if is_right { disk.commit(&mut draft, &object, &meta(&body)).map(drop) } else { Ok(()) }
        });
        let stage = draft.stage;
        forget(draft);
        let outcomes = self.may_be.entry(number).or_insert_with(|| [None].into());
        match committed {
            Ok(()) if !is_right => {}
            Ok(()) if self.durable => *outcomes = [Some(body)].into(),
            Ok(()) => outcomes.extend([Some(body)]),
            Err(error) => {
                outcomes.extend([Some(body)]);
                prop_assert!(stage == Stage::Spoiled || !self.machine.has_power(), "{error}");
            }
        }
        Ok(())
    }

    fn look(&mut self, number: u8) -> Result<(), TestCaseError> {
        let (object, durable) = (object(number), self.durable);
        let Ok(look) = self.disk()?.look(&object, Trust::Epoch) else { return self.failed() };
        let found = match look {
            Look::Found(found) => {
                let mut bytes = vec![0; usize::try_from(found.meta.length.unwrap()).unwrap()];
                if self.machine.read_exact_at(&found.file, &mut bytes, 0).is_err() {
                    return self.failed();
                }
                prop_assert_eq!(
                    found.meta.sha256.unwrap(),
                    Sha256::of(&bytes),
                    "object {}: wrong bytes",
                    number
                );
                Some(bytes)
            }
            Look::Suspect(_) => panic!("all are small"),
            Look::Missing | Look::Damaged => None,
        };
        let outcomes = self.may_be.entry(number).or_insert_with(|| [None].into());
        let absent = found.is_none() && !durable;
        let what = found.as_ref().map_or("nothing".to_owned(), |bytes| format!("{} bytes", bytes.len()));
        prop_assert!(outcomes.contains(&found) || absent, "object {number}: {what}");
        Ok(())
    }

    /// Only a machine without power may fail.
    fn failed(&self) -> Result<(), TestCaseError> {
        prop_assert!(!self.machine.has_power(), "an operation failed for no reason");
        Ok(())
    }
}

/// Nothing of it is removed: the process was killed.
fn forget(mut draft: Draft<Machine>) {
    draft.stage = Stage::Committed;
}

/// `durable`: what was committed has to be there.
fn run(steps: &[Step], seed: u64, syncs: Syncs, durable: bool) -> Result<(), TestCaseError> {
    let runtime = Builder::new_current_thread().build().unwrap();
    let machine = Machine::new(seed, syncs);
    machine.make_dir(Path::new("/var")).unwrap();
    machine.sync_dir(Path::new("/")).unwrap();
    let mut bench = Bench {
        machine,
        disk: None,
        pool: runtime.handle().clone(),
        may_be: BTreeMap::new(),
        durable,
        lies: syncs == Syncs::Lied,
    };
    for step in steps {
        bench.step(step)?;
    }
    for number in (0..OBJECTS).chain(0..OBJECTS) {
        bench.look(number)?;
        bench.machine = bench.machine.reboot();
        bench.disk = None;
    }
    Ok(())
}

fn history() -> impl Strategy<Value = (Vec<Step>, u64)> {
    (prop::collection::vec(step(), 1..40), any::<u64>())
}

proptest! {
    #[test]
    fn after_a_crash_an_object_is_right_or_absent((steps, seed) in history()) {
        run(&steps, seed, Syncs::Kept, true)?;
    }

    #[test]
    fn a_disk_that_lies_loses_objects_but_never_gives_wrong_ones((steps, seed) in history()) {
        run(&steps, seed, Syncs::Lied, false)?;
    }
}

#[test]
fn after_the_machine_went_down_bytes_are_verified_once() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (mut machine, root) = (Machine::new(1, Syncs::Kept), Path::new("/cache"));
    let open = |machine: &Machine| Disk::open_on(machine.clone(), root, "origin".to_owned()).unwrap();
    let (object, body) = (object(2), body(2, 1));
    let commit = |disk: &Disk<Machine>| {
        let mut draft = disk.draft(None, runtime.handle()).unwrap();
        disk.files.write_all_at(&draft.file, &body, 0).unwrap();
        disk.commit(&mut draft, &object, &meta(&body)).unwrap();
    };
    let looked = |disk: &Disk<Machine>| match disk.look(&object, Trust::Epoch).unwrap() {
        Look::Found(found) => {
            if found.verified {
                "verified"
            } else {
                "trusted"
            }
        }
        Look::Suspect(_) => "suspect",
        Look::Missing => "missing",
        Look::Damaged => "damaged",
    };
    let disk = open(&machine);
    commit(&disk);
    assert_eq!(looked(&disk), "trusted");
    machine = machine.kill();
    assert_eq!(looked(&open(&machine)), "trusted", "a killed process leaves the page cache");
    machine = machine.reboot();
    let disk = open(&machine);
    assert!(!disk.is_settled());
    assert_eq!([looked(&disk), looked(&disk)], ["verified", "trusted"]);
    disk.settle(disk.epoch()).unwrap();
    machine.settle();
    disk.close().unwrap();
    machine = machine.reboot();
    let disk = open(&machine);
    assert!(disk.is_settled());
    assert_eq!(looked(&disk), "trusted", "after an orderly end");
    machine = machine.reboot();
    let disk = open(&machine);
    let entry = disk.entry_path(&object);
    machine.rot(&entry, 0);
    assert_eq!([looked(&disk), looked(&disk)], ["damaged", "missing"]);
    commit(&disk);
    machine = machine.reboot();
    // Without its state, a directory is taken for one that was left unclean.
    machine.remove(&root.join("boot")).unwrap();
    let disk = open(&machine);
    let Ok(keys) = disk.keys(disk.key(&object).0.as_bytes()[0]) else { panic!("no keys") };
    let Examined::Suspect(mut suspect) = disk.examine(&keys[0]).unwrap() else { panic!("no suspect") };
    assert_eq!(disk.verify(&mut suspect, 0, 1).unwrap(), Verified::Whole(Finding::New));
    assert!(matches!(disk.examine(&keys[0]).unwrap(), Examined::Settled));
    machine = machine.reboot();
    let disk = open(&machine);
    machine.rot(&entry, 0);
    let Examined::Suspect(mut suspect) = disk.examine(&keys[0]).unwrap() else { panic!("no suspect") };
    assert_eq!(disk.verify(&mut suspect, 0, 1).unwrap(), Verified::Damaged(Finding::New));
    assert_eq!(looked(&disk), "missing");
}

#[test]
fn the_model_notices_what_is_left_out() {
    for (syncs, missed) in [(Syncs::OfFilesLied, "object"), (Syncs::OfDirectoriesLied, "object")] {
        let mut runner =
            TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&history(), |(steps, seed)| run(&steps, seed, syncs, true));
        let Err(TestError::Fail(why, _)) = outcome else { panic!("{syncs:?} went unnoticed") };
        println!("{syncs:?}: {why}");
        assert!(why.message().contains(missed), "{syncs:?}: {why}");
    }
}
