//! Listening sockets.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that the kernel holds while a worker is busy.
const BACKLOG: i32 = 4096;

/// As many sockets bound to `addr` as there are workers; the kernel spreads connections over them. With port 0 all get
/// the port that the first one got. An IPv6 socket takes IPv6 alone, so that `0.0.0.0` and `[::]` can stand side by side.
///
/// # Errors
/// The address can't be bound.
pub fn bind(addr: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let mut bound = addr;
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let socket =
            Socket::new(Domain::for_address(bound), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if bound.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&bound.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        bound = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok((bound, listeners))
}
