//! The crowd: clients of one address each, on links of one rate each, that ask for files for as long as they are let.
//!
//! A client reads no faster than its link; a redirect takes it as long as the mirror would over that link, and then it goes on
//! with another file. One thread looks after all of them: each is due now and then, and takes by then what its link has room for.
//! Bodies are thrown away in the kernel.

use crate::load::http1::{self, Http1};
use crate::load::{Fault, Sink};
use anyhow::{Context, ensure};
use freshet::clock::monotonic;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Socket, Type};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Thrown away at once. Nobody writes to these pages, so there are none.
const DISCARD_BYTES: usize = 8 << 20;
const HEAD_BYTES: usize = 16 << 10;
/// For connecting.
const PATIENCE: Duration = Duration::from_secs(30);
/// A transfer that lasts longer than this has a rate.
const LASTS: Duration = Duration::from_secs(5);
/// A run with more failures has nothing to tell.
const MOST_FAILURES: u64 = 1000;

/// A file of the tree.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// With the leading slash.
    pub path: String,
    /// In bytes.
    pub size: u64,
}

/// Clients that are alike.
#[derive(Clone, Debug)]
pub struct Group {
    /// In reports.
    pub name: &'static str,
    /// How many.
    pub clients: usize,
    /// Connections of each.
    pub connections: usize,
    /// Bits per second of each connection.
    pub link: u64,
    /// What they ask for, each in an order of its own, one after the other.
    pub files: Arc<[Wanted]>,
}

/// What came of a group.
#[derive(Debug, Default)]
pub struct Tally {
    /// Bytes of bodies in each second.
    pub per_second: Vec<u64>,
    /// Complete transfers.
    pub transfers: u64,
    pub redirects: u64,
    /// Of the files that they were redirected for.
    pub redirected_bytes: u64,
    pub failures: u64,
    pub first_failure: Option<String>,
    /// From the request to the first byte of a body.
    pub longest_start: Duration,
    /// Between two bytes of a body, while the link had room.
    pub longest_gap: Duration,
    /// Of a transfer that lasted for more than 5 s, in bytes per second.
    pub slowest: Option<u64>,
}

impl Tally {
    /// Bytes of bodies.
    pub fn bytes(&self) -> u64 {
        self.per_second.iter().sum()
    }

    fn received(&mut self, bytes: u64, second: usize) {
        if self.per_second.len() <= second {
            self.per_second.resize(second + 1, 0);
        }
        self.per_second[second] += bytes;
    }

    fn fails(&mut self, fault: &Fault) {
        self.failures += 1;
        self.first_failure.get_or_insert_with(|| fault.to_string());
    }
}

/// All clients, connected.
pub struct Crowd {
    target: SocketAddr,
    groups: Vec<Group>,
    clients: Vec<Client>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    random: fastrand::Rng,
    discard: Vec<u8>,
}

struct Client {
    group: usize,
    source: Ipv4Addr,
    agent: String,
    socket: TcpStream,
    http: Http1,
    sink: Sink,
    link: Link,
    state: State,
    size: u64,
    /// The files of its group in an order of its own, and the next of them.
    order: Vec<u32>,
    next: usize,
}

/// What a link has let through so far; it lets through its rate, and a little at once.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    bytes_per_second: u64,
    every: Duration,
    at: Instant,
    room: u64,
}

impl Link {
    /// Of so many bits per second.
    pub fn new(bits_per_second: u64, now: Instant) -> Self {
        let bytes_per_second = (bits_per_second / 8).max(1);
        // Not more often than for a page, so that ten thousand slow ones keep nobody waiting.
        let every = Duration::from_secs_f64(4096.0 / bytes_per_second as f64);
        let every = every.clamp(Duration::from_millis(5), Duration::from_secs(1));
        Self { bytes_per_second, every, at: now, room: 0 }
    }

    /// Bytes that it has room for now.
    pub fn room(&mut self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.at).min(self.every * 4);
        self.at = now;
        let earned = u128::from(self.bytes_per_second) * since.as_nanos() / 1_000_000_000;
        self.room = (self.room + u64::try_from(earned).unwrap_or(u64::MAX)).min(self.burst());
        self.room
    }

    fn took(&mut self, bytes: u64) {
        self.room = self.room.saturating_sub(bytes);
    }

    fn burst(&self) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * (self.every * 4).as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1500)
    }

    /// How long `bytes` take.
    fn time(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64)
    }
}

enum State {
    /// Asks when it is next due.
    Free,
    /// Waits for the head.
    Asked(Instant),
    /// Receives a body: since when, and when something last came.
    Receiving { first: Instant, last: Instant, bytes: u64 },
}

impl Crowd {
    /// Connects all clients, each from an address of its own.
    pub fn connect(target: SocketAddr, groups: Vec<Group>, seed: u64) -> anyhow::Result<Self> {
        ensure!(target.ip().is_loopback(), "{target} is not on loopback");
        let mut crowd = Self {
            target,
            groups,
            clients: Vec::new(),
            due: BinaryHeap::new(),
            random: fastrand::Rng::with_seed(seed),
            discard: vec![0; DISCARD_BYTES],
        };
        let mut number: u32 = 0;
        for (group, Group { name, clients, connections, link, .. }) in
            crowd.groups.clone().into_iter().enumerate()
        {
            for client in 0..clients {
                number += 1;
                let [.., high, low] = number.to_be_bytes();
                // Networks of their own, /24.
                let source = Ipv4Addr::new(127, 1 + high, low, 1);
                for _ in 0..connections {
                    let socket = connect(target, source, link).with_context(|| format!("{name} {client}"))?;
                    let order = crowd.shuffled(group);
                    crowd.clients.push(Client {
                        group,
                        source,
                        agent: format!("libdnf ({name} {client})"),
                        socket,
                        http: Http1::default(),
                        sink: Sink::default(),
                        link: Link::new(link, monotonic()),
                        state: State::Free,
                        size: 0,
                        order,
                        next: 0,
                    });
                }
            }
        }
        Ok(crowd)
    }

    fn shuffled(&mut self, group: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0u32..).take(self.groups[group].files.len()).collect();
        self.random.shuffle(&mut order);
        order
    }

    /// Runs for `span`; the second that it is in is told by `second`.
    pub fn run(
        &mut self,
        span: Duration,
        second: &AtomicU64,
        stop: &AtomicBool,
    ) -> anyhow::Result<Vec<Tally>> {
        let begun = monotonic();
        let mut tallies: Vec<Tally> = self.groups.iter().map(|_| Tally::default()).collect();
        self.due.clear();
        for client in 0..self.clients.len() {
            let later = self.clients[client].link.every.mul_f64(self.random.f64());
            self.due.push(Reverse((begun + later, client)));
        }
        while let Some(Reverse((at, number))) = self.due.pop() {
            let mut now = monotonic();
            if now < at {
                std::thread::sleep(at - now);
                now = monotonic();
            }
            if now >= begun + span {
                break;
            }
            ensure!(!stop.load(Ordering::Relaxed), "interrupted");
            let elapsed = (now - begun).as_secs();
            second.store(elapsed, Ordering::Relaxed);
            let group = self.clients[number].group;
            let pause = match self.turn(number, now, usize::try_from(elapsed)?, &mut tallies[group]) {
                Ok(pause) => pause,
                Err(fault) => {
                    tallies[group].fails(&fault);
                    ensure!(
                        tallies[group].failures <= MOST_FAILURES,
                        "more than {MOST_FAILURES} failures: {fault}"
                    );
                    self.renew(number)?;
                    self.clients[number].link.every
                }
            };
            self.due.push(Reverse((now + pause, number)));
        }
        let end = monotonic();
        for client in &self.clients {
            note_end(client, end, &mut tallies[client.group]);
        }
        Ok(tallies)
    }

    /// What one client does when it is due; when it is due again.
    fn turn(
        &mut self,
        number: usize,
        now: Instant,
        second: usize,
        tally: &mut Tally,
    ) -> Result<Duration, Fault> {
        let client = &mut self.clients[number];
        if let State::Free = client.state {
            let files = &self.groups[client.group].files;
            let wanted = &files[client.order[client.next % files.len()] as usize];
            client.next += 1;
            let mut request = Vec::new();
            http1::request(&mut request, &wanted.path, &self.target.to_string(), &client.agent);
            (&client.socket).write_all(&request)?;
            client.size = wanted.size;
            client.state = State::Asked(now);
            return Ok(client.link.every);
        }
        let mut room = client.link.room(now);
        while room > 0 {
            let before = client.sink.bytes;
            let in_body = client.http.left() > 0;
            let most = usize::try_from(if in_body { client.http.left() } else { HEAD_BYTES as u64 });
            let most = most
                .unwrap_or(usize::MAX)
                .min(usize::try_from(room).unwrap_or(usize::MAX))
                .min(DISCARD_BYTES);
            let flags = if in_body { RecvFlags::TRUNC } else { RecvFlags::empty() };
            // A head needs room for itself.
            let most = if in_body { most } else { HEAD_BYTES.min(most.max(2048)) };
            let received = match recv(&client.socket, &mut self.discard[..most], flags) {
                Ok((_, 0)) => return Err(Fault::Closed),
                Ok((_, received)) => received,
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(std::io::Error::from(error).into()),
            };
            let ended = if in_body {
                client.sink.bytes += received as u64;
                client.http.passed(received)
            } else {
                client.http.take(&self.discard[..received], &mut client.sink)?
            };
            client.link.took(received as u64);
            room = room.saturating_sub(received as u64);
            let bytes = client.sink.bytes - before;
            tally.received(bytes, second);
            note_progress(client, now, bytes, tally);
            if let Some(status) = ended {
                note_end(client, now, tally);
                client.state = State::Free;
                return match status {
                    200 => {
                        tally.transfers += 1;
                        Ok(Duration::ZERO)
                    }
                    302 => {
                        tally.redirects += 1;
                        tally.redirected_bytes += client.size;
                        Ok(client.link.time(client.size))
                    }
                    other => Err(Fault::Status(other)),
                };
            }
        }
        Ok(client.link.every)
    }

    fn renew(&mut self, number: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[number];
        client.socket = connect(self.target, client.source, self.groups[client.group].link)?;
        (client.http, client.sink, client.state) = (Http1::default(), Sink::default(), State::Free);
        Ok(())
    }

    /// Connections.
    pub fn connections(&self) -> usize {
        self.clients.len()
    }
}

fn note_progress(client: &mut Client, now: Instant, bytes: u64, tally: &mut Tally) {
    match &mut client.state {
        State::Asked(asked) if bytes > 0 => {
            tally.longest_start = tally.longest_start.max(now - *asked);
            client.state = State::Receiving { first: now, last: now, bytes };
        }
        State::Receiving { last, bytes: so_far, .. } if bytes > 0 => {
            tally.longest_gap = tally.longest_gap.max(now - *last);
            (*last, *so_far) = (now, *so_far + bytes);
        }
        _ => {}
    }
}

/// A transfer is over, or the run is.
fn note_end(client: &Client, now: Instant, tally: &mut Tally) {
    match client.state {
        State::Receiving { first, bytes, last } if now - first > LASTS => {
            let rate = (bytes as f64 / (now - first).as_secs_f64()) as u64;
            tally.slowest = Some(tally.slowest.map_or(rate, |slowest| slowest.min(rate)));
            tally.longest_gap = tally.longest_gap.max(now - last);
        }
        State::Asked(asked) => tally.longest_start = tally.longest_start.max(now - asked),
        _ => {}
    }
}

fn connect(target: SocketAddr, source: Ipv4Addr, link: u64) -> Result<TcpStream, Fault> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    // Else a slow client's kernel would take at once what its link takes minutes for.
    let buffer = usize::try_from(link / 8 / 20).unwrap_or(usize::MAX).clamp(16 << 10, 4 << 20);
    socket.set_recv_buffer_size(buffer)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&target.into(), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    let socket = TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_lets_through_its_rate() {
        let begun = monotonic();
        for bits in [8_000, 8_000_000, 400_000_000] {
            let mut link = Link::new(bits, begun);
            let (mut now, mut taken) = (begun, 0);
            while now < begun + Duration::from_secs(20) {
                now += link.every;
                let room = link.room(now);
                link.took(room);
                taken += room;
            }
            let expected = bits / 8 * 20;
            assert!(taken.abs_diff(expected) <= expected / 20 + link.burst(), "{taken} of {expected}");
        }
    }

    #[test]
    fn what_a_link_does_not_use_is_lost() {
        let begun = monotonic();
        let mut link = Link::new(8_000_000, begun);
        assert!(link.room(begun + Duration::from_secs(60)) <= 20_000);
    }
}
