//! What the integration tests are made of: the real binary, real RPM repositories, real dnf and zypper, an origin that misbehaves
//! on demand, and a client that shows every byte.
//!
//! Everything is on loopback, on ports of its own, and ends with the value that owns it.

pub mod breakage;
pub mod client;
pub mod config;
pub mod dnf;
pub mod geoip;
pub mod http2;
pub mod librepo;
pub mod node;
pub mod origin;
pub mod repo;
pub mod zypper;

use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a test waits for what should come at once: generous, since a passing test never waits it out.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer; panics with `what` once [`PATIENCE`] is at its end.
#[track_caller]
pub fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + PATIENCE;
    loop {
        if let Some(answer) = poll() {
            return answer;
        }
        assert!(now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// [`wait_for`] a condition.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// A directory of the test's own, on the file system of the shared repositories: hard links between them work.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch directory")
}

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// A loopback port that belongs to its owner, even while nobody listens on it: a socket that is bound and never
/// listens. Connections are refused, the kernel gives the port to no one who asks for any, and whoever sets
/// SO_REUSEADDR may listen on it.
pub struct Port {
    addr: SocketAddr,
    _bound: Socket,
}

impl Port {
    /// A free one.
    pub fn reserve() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        let addr = socket.local_addr().expect("a bound address").as_socket().expect("an IP address");
        Self { addr, _bound: socket }
    }

    /// One that is free on 127.0.0.1 and on ::1.
    pub fn reserve_both() -> [Self; 2] {
        // Those of which another has the half stay taken until there is one.
        let mut taken = Vec::new();
        loop {
            let port = Self::reserve();
            match port.on_ipv6() {
                Ok(other) => return [port, other],
                Err(_) => taken.push(port),
            }
            assert!(taken.len() < 100, "no port is free on both addresses");
        }
    }

    /// The same number on ::1.
    fn on_ipv6(&self) -> std::io::Result<Self> {
        let addr = SocketAddr::from((Ipv6Addr::LOCALHOST, self.addr.port()));
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&addr.into())?;
        Ok(Self { addr, _bound: socket })
    }

    /// The same number on another address of loopback.
    pub fn on(&self, ip: Ipv4Addr) -> Self {
        let addr = SocketAddr::from((ip, self.addr.port()));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&addr.into()).expect("a port that is free there, too");
        Self { addr, _bound: socket }
    }

    /// The address and the port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Runs a command to its end; panics with all that it said unless it succeeds.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command wrote, stdout first.
pub fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}
