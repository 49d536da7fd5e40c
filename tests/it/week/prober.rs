//! The prober, its answers being the models' and its clock the week's: when it asks is what [`freshet::mirrors`] does, what
//! answers mean is its very code.

use super::disks::Disk;
use super::{Event, Week};
use freshet::config::{Mirror, Probes};
use freshet::mirrors::findings::{Base, Findings};
use freshet::mirrors::judge::{self, File, Lapse, Missed, Next, Seen};
use freshet::policy::{Fault, MirrorState, MirrorTable, Orders, Pair, Reach};
use std::sync::Arc;
use std::time::Duration;

/// Between two answers to the HEADs of a check.
const HEAD: Duration = Duration::from_millis(40);

pub struct Prober {
    settings: Probes,
    slots: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    /// The number of its latest look or check: what belongs to an earlier one is void.
    number: u32,
    check: Option<Findings>,
    /// It is under way; else it was broken off, and goes on if nothing has changed.
    checking: bool,
    looking: bool,
    again: bool,
}

impl Prober {
    pub fn new(mirrors: usize) -> (Self, MirrorTable, Orders) {
        let settings: Vec<Mirror> =
            (0..mirrors).map(|n| Mirror::new(&format!("m{n}"), &format!("http://m{n}.example/"))).collect();
        let untried = |mirror: &Mirror| MirrorState {
            ipv4: true,
            ranges: true,
            ..MirrorState::untried(Arc::new(mirror.clone()), 1)
        };
        let states = settings.iter().map(|mirror| Arc::new(untried(mirror))).collect();
        let slots = settings.iter().map(|_| Slot::default()).collect();
        (Self { settings: Probes::default(), slots }, MirrorTable::new(states), Orders::new(&settings))
    }
}

/// The answer to a HEAD.
fn asked(disk: &Disk, file: &File) -> Result<(), Missed> {
    let missed = |why: &str, transient| Missed { path: file.path.clone(), why: why.to_owned(), transient };
    match disk.files.get(file.path.as_str()) {
        _ if !disk.alive => Err(missed("has no answer", true)),
        None => Err(missed("is not there", false)),
        Some(found) if found.size != file.size => Err(missed("has another size", false)),
        Some(_) => Ok(()),
    }
}

impl Week {
    fn pair(&self, mirror: usize) -> &Pair {
        &self.table.states()[mirror].pairs[0]
    }

    fn tell(&mut self, mirror: usize, reach: Option<Reach>, pair: Option<Pair>) {
        let mut state = MirrorState::clone(&self.table.states()[mirror]);
        state.reach = reach.unwrap_or(state.reach);
        state.pairs = pair.map_or(state.pairs, |pair| vec![pair]);
        self.table.replace(mirror, Arc::new(state));
    }

    fn jittered(&mut self, interval: Duration) -> Duration {
        interval.mul_f64(0.9 + 0.2 * self.rng.f64())
    }

    /// As the node tells it: all mirrors are asked within half a second.
    pub fn flipped(&mut self) {
        for mirror in 0..self.mirrors.len() {
            let pair = judge::flipped(self.origin.history(), self.pair(mirror));
            self.tell(mirror, None, Some(pair));
            let slot = &mut self.prober.slots[mirror];
            slot.again = slot.looking || slot.checking;
            if !slot.again {
                self.look_in(mirror, Duration::from_millis(1));
            }
        }
    }

    fn look_in(&mut self, mirror: usize, after: Duration) {
        let after = after + Duration::from_millis(self.rng.u64(..500));
        self.prober.slots[mirror].looking = true;
        self.agenda.add(self.now.plus(after), Event::Look(mirror));
    }

    fn rest(&mut self, mirror: usize) {
        let sequence = self.origin.history().current().unwrap().sequence;
        let is_current = self.table.is_current(mirror, 0, sequence);
        let lags = self.pair(mirror).seen.is_some() && !is_current;
        let settings = &self.prober.settings;
        let pause = if lags { settings.probe_lagging } else { settings.probe_every };
        let pause = self.jittered(pause);
        let slot = &mut self.prober.slots[mirror];
        let pause = if std::mem::take(&mut slot.again) { Duration::ZERO } else { pause };
        // A later look takes the place of this one.
        slot.number += 1;
        slot.looking = false;
        let number = slot.number;
        self.agenda.add(self.now.plus(pause), Event::Head(mirror, number));
    }

    pub fn look(&mut self, mirror: usize) {
        let slot = &mut self.prober.slots[mirror];
        slot.looking = false;
        slot.number += 1;
        slot.checking = false;
        if !self.mirrors[mirror].alive {
            return self.down(mirror);
        }
        let seen = self.mirrors[mirror].shown.map_or_else(|| Seen::Gone("none".into()), Seen::Shows);
        let (pair, next) = judge::look(self.origin.history(), self.pair(mirror), seen, self.now);
        let up = Reach::Up { seen: self.now };
        self.tell(mirror, Some(up), Some(pair));
        match next {
            Next::Rest => self.rest(mirror),
            Next::Spot(_) => {
                let mut rng = self.rng.fork();
                if let Some(file) = judge::spot(self.origin.history(), self.pair(mirror), &mut rng) {
                    let result =
                        asked(&self.mirrors[mirror], &file).map_err(|missed| self.lapse(mirror, missed));
                    let pair = judge::spotted(self.origin.history(), self.pair(mirror), result, self.now);
                    self.tell(mirror, None, Some(pair));
                }
                match self.pair(mirror).proof {
                    Some(proof) if !self.pair(mirror).exceptions.is_empty() => {
                        self.check(mirror, proof.sequence);
                    }
                    _ => self.rest(mirror),
                }
            }
            Next::Verify(target) => self.check(mirror, target),
        }
    }

    fn check(&mut self, mirror: usize, target: u32) {
        let base = Base::of(self.pair(mirror));
        let is_same = |check: &Findings| check.target() == target && check.base().is_of(self.pair(mirror));
        let (slot, most) = (&self.prober.slots[mirror], self.prober.settings.sample);
        let resumed = slot.check.as_ref().is_some_and(is_same);
        let slot = &mut self.prober.slots[mirror];
        match &mut slot.check {
            Some(check) if resumed => check.resume(),
            _ => slot.check = Some(Findings::begin(self.origin.history(), base, target, most, &mut self.rng)),
        }
        slot.checking = true;
        self.agenda.add(self.now.plus(HEAD), Event::Head(mirror, slot.number));
    }

    /// Whether others are gone as well.
    fn lapse(&mut self, mirror: usize, missed: Missed) -> Lapse {
        let mut rng = self.rng.fork();
        let witnesses = judge::witnesses(self.origin.history(), self.pair(mirror), &missed.path, &mut rng);
        let is_gone = |file: &File| asked(&self.mirrors[mirror], file).is_err_and(|missed| !missed.transient);
        Lapse { missed, fault: Fault::Mirror, more: witnesses.iter().any(is_gone) }
    }

    /// The next answer of a check; without one, the pause before a look is over.
    pub fn head(&mut self, mirror: usize, number: u32) {
        let slot = &mut self.prober.slots[mirror];
        if slot.number != number || slot.looking {
            return;
        }
        let Some(check) = slot.check.as_mut().filter(|_| slot.checking) else { return self.look(mirror) };
        let Some((number_of_file, file)) = check.take() else { return self.checked(mirror, None) };
        match asked(&self.mirrors[mirror], &file) {
            Ok(()) => check.seen(number_of_file),
            Err(missed) if missed.transient => {
                check.put_back(number_of_file);
                return self.checked(mirror, Some(missed));
            }
            Err(missed) => check.missed(number_of_file, missed, Fault::Mirror),
        }
        self.agenda.add(self.now.plus(HEAD), Event::Head(mirror, number));
    }

    fn checked(&mut self, mirror: usize, broke_off: Option<Missed>) {
        let slot = &mut self.prober.slots[mirror];
        slot.checking = false;
        let Some(check) = &slot.check else { return };
        let result = broke_off.map_or_else(|| check.result(), Err);
        let known = (check.target(), check.base());
        let pair = &self.table.states()[mirror].pairs[0];
        let judged = judge::verified(self.origin.history(), pair, known, &result, self.now);
        if result.is_ok() {
            slot.check = None;
        }
        match judged {
            Some(pair) => self.tell(mirror, None, Some(pair)),
            None => self.prober.slots[mirror].again = true,
        }
        self.rest(mirror);
    }

    pub fn liveness(&mut self, mirror: usize) {
        let is_up = self.table.states()[mirror].reach.is_up();
        match (self.mirrors[mirror].alive, is_up) {
            (false, true) => self.down(mirror),
            (true, false) if !self.prober.slots[mirror].looking => self.look_in(mirror, Duration::ZERO),
            _ => {}
        }
        let every = self.jittered(self.prober.settings.liveness_every);
        self.agenda.add(self.now.plus(every), Event::Liveness(mirror));
    }

    fn down(&mut self, mirror: usize) {
        let slot = &mut self.prober.slots[mirror];
        (slot.checking, slot.looking) = (false, false);
        slot.number += 1;
        self.tell(mirror, Some(Reach::Down { since: self.now, why: "refused".into() }), None);
    }

    /// A client came back for a file that the mirror was proven to hold.
    pub fn bounced(&mut self, mirror: usize, file: &File) {
        match asked(&self.mirrors[mirror], file) {
            Ok(()) => {}
            Err(_) if !self.mirrors[mirror].alive => self.down(mirror),
            Err(missed) => {
                let lapse = self.lapse(mirror, missed);
                let pair = judge::lapsed(self.origin.history(), self.pair(mirror), &lapse, &lapse.missed.why);
                self.tell(mirror, None, Some(pair));
            }
        }
    }
}
