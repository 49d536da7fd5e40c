//! The loop.

use super::connection::{Connection, Ended, Received, Scratch};
use super::schedule::Schedule;
use super::{Fault, Outcome, Pace, Plan};
use anyhow::{Context, bail, ensure};
use freshet::clock::monotonic;
use rustix::event::epoll;
use rustix::fs::Timespec;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A run with more failures than this has nothing to tell.
const MOST_FAILURES: u64 = 1000;
/// What was due in an open loop may take so long after its end.
const GRACE: Duration = Duration::from_secs(20);
/// Between two looks at whether the run is to be broken off.
const LOOK: Duration = Duration::from_millis(100);
const EVENTS: usize = 256;

/// The connections of a plan. They stay open from one run to the next.
pub struct Engine {
    plan: Plan,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    /// Whether a connection asks again as soon as it has its answer.
    again: bool,
    scratch: Scratch,
    outcome: Outcome,
}

impl Engine {
    /// Connects, and sends nothing yet.
    pub fn connect(plan: Plan) -> anyhow::Result<Self> {
        ensure!(plan.target.ip().is_loopback(), "{} is not on loopback", plan.target);
        ensure!(!plan.paths.is_empty(), "nothing to ask for");
        let mut engine = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::with_capacity(plan.connections),
            idle: Vec::new(),
            again: false,
            scratch: Scratch::new(),
            outcome: Outcome::empty(),
            plan,
        };
        for number in 0..engine.plan.connections {
            let connection = engine.open(number)?;
            engine.connections.push(connection);
            engine.idle.push(number);
        }
        Ok(engine)
    }

    /// Runs for `span`. In a closed loop, answers that are under way at its end go on in the next run, or are given up.
    pub fn run(&mut self, span: Duration) -> anyhow::Result<Outcome> {
        self.outcome = Outcome::empty();
        let begun = monotonic();
        self.again = self.plan.pace == Pace::Closed;
        match self.plan.pace {
            Pace::Closed => self.closed(begun + span)?,
            Pace::Open { rate } => self.open_loop(Schedule::new(begun, rate, span), begun + span + GRACE)?,
        }
        self.outcome.took = monotonic() - begun;
        Ok(std::mem::replace(&mut self.outcome, Outcome::empty()))
    }

    /// Sends one request on each connection and waits for all answers.
    pub fn once(&mut self) -> anyhow::Result<Outcome> {
        self.outcome = Outcome::empty();
        let begun = monotonic();
        self.again = false;
        while let Some(number) = self.idle.pop() {
            self.ask(number, monotonic())?;
        }
        while self.connections.iter().any(|connection| !connection.is_idle()) {
            ensure!(monotonic() < begun + GRACE, "no answer within {GRACE:?}");
            self.turn(LOOK)?;
        }
        self.outcome.took = monotonic() - begun;
        Ok(std::mem::replace(&mut self.outcome, Outcome::empty()))
    }

    fn closed(&mut self, until: Instant) -> anyhow::Result<()> {
        loop {
            while let Some(number) = self.idle.pop() {
                self.ask(number, monotonic())?;
            }
            let now = monotonic();
            if now >= until {
                return Ok(());
            }
            self.turn(until - now)?;
        }
    }

    fn open_loop(&mut self, mut schedule: Schedule, latest: Instant) -> anyhow::Result<()> {
        loop {
            let mut now = monotonic();
            while !self.idle.is_empty()
                && let Some(due) = schedule.take(now)
            {
                let number = self.idle.swap_remove(0);
                self.ask(number, due)?;
                now = monotonic();
            }
            let in_the_air = self.connections.len() - self.idle.len();
            let pause = match schedule.next() {
                None if in_the_air == 0 => return Ok(()),
                Some(due) if !self.idle.is_empty() => due.saturating_duration_since(now),
                _ => LOOK,
            };
            if now > latest {
                bail!("{in_the_air} requests had no answer {GRACE:?} after the end");
            }
            self.turn(pause)?;
        }
    }

    /// Waits for events, and handles them.
    fn turn(&mut self, pause: Duration) -> anyhow::Result<()> {
        if self.plan.stop.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let mut space = [MaybeUninit::uninit(); EVENTS];
        let timeout = Timespec::try_from(pause.min(LOOK)).context("a short time")?;
        let events = match epoll::wait(&self.epoll, &mut space, Some(&timeout)) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error).context("epoll"),
        };
        for event in events {
            let number = usize::try_from(event.data.u64()).expect("it was a usize");
            match self.connections[number].receive(&mut self.scratch) {
                Ok(received) => self.count(number, received)?,
                Err(fault) => self.renew(number, &fault)?,
            }
        }
        Ok(())
    }

    fn count(&mut self, number: usize, received: Received) -> anyhow::Result<()> {
        self.outcome.body_bytes += received.bytes;
        let Some(ended) = received.ended else { return Ok(()) };
        match self.judge(ended) {
            Ok(took) => {
                self.outcome.requests += 1;
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.outcome.latency_us.record(micros).expect("it grows");
            }
            Err(fault) => self.outcome.fails(&fault),
        }
        if self.again {
            return self.ask(number, monotonic());
        }
        self.idle.push(number);
        Ok(())
    }

    /// How long a good answer took.
    fn judge(&self, ended: Ended) -> Result<Duration, Fault> {
        if ended.status != self.plan.status {
            return Err(Fault::Status(ended.status));
        }
        if let (Some(hasher), Some(expected)) = (ended.hasher, self.plan.verify)
            && hasher.finish() != expected
        {
            return Err(Fault::Body);
        }
        Ok(monotonic().saturating_duration_since(ended.asked))
    }

    fn ask(&mut self, number: usize, due: Instant) -> anyhow::Result<()> {
        match self.connections[number].ask(&self.plan, due, &mut self.scratch) {
            Ok(()) => Ok(()),
            Err(fault) => self.renew(number, &fault),
        }
    }

    /// Counts a failure and opens another connection in place of the broken one.
    fn renew(&mut self, number: usize, fault: &Fault) -> anyhow::Result<()> {
        self.outcome.fails(fault);
        ensure!(self.outcome.failures <= MOST_FAILURES, "more than {MOST_FAILURES} failures: {fault}");
        self.connections[number] = self.open(number)?;
        if !self.idle.contains(&number) {
            self.idle.push(number);
        }
        Ok(())
    }

    fn open(&mut self, number: usize) -> anyhow::Result<Connection> {
        let context = || format!("connection {number} to {}", self.plan.target);
        let connection = Connection::open(&self.plan, number, &mut self.scratch).with_context(context)?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, connection.socket(), data, epoll::EventFlags::IN)?;
        Ok(connection)
    }
}
