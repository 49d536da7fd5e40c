//! Listening sockets.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that the kernel holds while a worker is busy.
const BACKLOG: i32 = 4096;

/// As many sockets bound to `addr` as there are workers; the kernel spreads connections over them, once [`start`] was called for
/// each. With port 0 all get
/// the port that the first one got. An IPv6 socket takes IPv6 alone, so that `0.0.0.0` and `[::]` can stand side by side.
///
/// # Errors
/// The address can't be bound.
pub fn bind(addr: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    if addr.port() != 0 {
        refuse_company(addr)?;
    }
    let mut bound = addr;
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let socket = socket(bound)?;
        socket.set_reuse_port(true)?;
        socket.bind(&bound.into())?;
        let listener = TcpListener::from(socket);
        bound = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok((bound, listeners))
}

/// Has the kernel take connections.
///
/// # Errors
/// Another process listens there by now.
pub fn start(socket: &TcpListener) -> io::Result<()> {
    Ok(rustix::net::listen(socket, BACKLOG)?)
}

/// With `SO_REUSEPORT` two servers of one user can listen on one port, and the kernel gives each half of the
/// connections. So the port is asked for without it first.
fn refuse_company(addr: SocketAddr) -> io::Result<()> {
    let probe = socket(addr)?;
    probe.bind(&addr.into())?;
    probe.listen(1)
}

fn socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_a_port_and_nobody_else_does() {
        let (addr, sockets) = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == addr));
        sockets.iter().for_each(|socket| start(socket).unwrap());
        assert_eq!(bind(addr, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
