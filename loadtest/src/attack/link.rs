//! An attacker's connection, in the clear or over TLS. It never blocks: it sends what the kernel takes, and reads what its
//! appetite says.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Given to TLS at once, so that what it has encrypted stays small.
const PIECE: usize = 64 * 1024;

/// How much of the answers a connection reads in one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appetite {
    /// Nothing, but what a TLS handshake needs.
    Nothing,
    /// So many bytes at most.
    Bytes(usize),
    /// All that is there.
    All,
}

/// See the module.
pub struct Link {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    queue: Vec<u8>,
    sent: usize,
    /// Bytes of answers that were read, TLS taken off.
    pub taken: u64,
    /// For the attack's own use: the HTTP/2 stream that was opened last.
    pub stream: u32,
}

impl Link {
    /// Speaks over a socket that doesn't block, which may be connecting still.
    pub fn new(socket: TcpStream, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Self> {
        let tls = match tls {
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                Some(Box::new(ClientConnection::new(config.clone(), name)?))
            }
            None => None,
        };
        Ok(Self { socket, tls, queue: Vec::new(), sent: 0, taken: 0, stream: 0 })
    }

    /// Where more can be written, once all that was has been sent.
    pub fn room(&mut self) -> Option<&mut Vec<u8>> {
        if self.sent < self.queue.len() {
            return None;
        }
        self.queue.clear();
        self.sent = 0;
        Some(&mut self.queue)
    }

    /// Sends and reads. Returns how many bytes moved; an error once the connection has ended.
    pub fn turn(&mut self, appetite: Appetite, scratch: &mut [u8]) -> io::Result<usize> {
        let mut moved = self.send()?;
        let shakes_hands = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        if appetite == Appetite::Nothing && !shakes_hands {
            return if self.has_ended()? { Err(ErrorKind::ConnectionReset.into()) } else { Ok(moved) };
        }
        let most = if let Appetite::Bytes(most) = appetite { most } else { usize::MAX };
        moved += self.read(most, scratch)?;
        if shakes_hands {
            moved += self.send()?;
        }
        Ok(moved)
    }

    fn send(&mut self) -> io::Result<usize> {
        let mut moved = 0;
        loop {
            let left = &self.queue[self.sent..];
            let Some(tls) = &mut self.tls else {
                if left.is_empty() {
                    return Ok(moved);
                }
                let Some(written) = now(self.socket.write(left))? else { return Ok(moved) };
                self.sent += written;
                moved += written;
                continue;
            };
            if !tls.is_handshaking() && !tls.wants_write() && !left.is_empty() {
                self.sent += tls.writer().write(&left[..left.len().min(PIECE)])?;
            }
            if !tls.wants_write() {
                return Ok(moved);
            }
            let Some(written) = now(tls.write_tls(&mut self.socket))? else { return Ok(moved) };
            moved += written;
        }
    }

    fn read(&mut self, most: usize, scratch: &mut [u8]) -> io::Result<usize> {
        let mut moved = 0;
        while moved < most {
            let room = scratch.len().min(most - moved);
            let found = match &mut self.tls {
                None => now(self.socket.read(&mut scratch[..room]))?,
                Some(tls) => {
                    let found = now(tls.read_tls(&mut self.socket))?;
                    let state = tls.process_new_packets().map_err(io::Error::other)?;
                    let mut plain = state.plaintext_bytes_to_read();
                    self.taken += plain as u64;
                    while plain > 0 {
                        plain -= tls.reader().read(scratch)?;
                    }
                    found
                }
            };
            match found {
                None => break,
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(found) => moved += found,
            }
        }
        if self.tls.is_none() {
            self.taken += moved as u64;
        }
        Ok(moved)
    }

    /// The server has closed it, though there may be something to read.
    fn has_ended(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec::default()))?;
        Ok(fds[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR))
    }
}

/// None where the socket would have to be waited for.
fn now(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        // A socket that is connecting still.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_link_sends_all_reads_what_it_may_and_notices_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let (mut link, mut scratch) = (Link::new(socket, None).unwrap(), [0; 100]);
        link.room().unwrap().extend_from_slice(b"hello");
        assert_eq!(link.turn(Appetite::Nothing, &mut scratch).unwrap(), 5);
        assert!(link.room().unwrap().is_empty());
        let mut five = [0; 5];
        server.read_exact(&mut five).unwrap();
        server.write_all(b"hello, you").unwrap();
        // Loopback delivers before write returns.
        assert_eq!(link.turn(Appetite::Bytes(4), &mut scratch).unwrap(), 4);
        assert_eq!(link.turn(Appetite::All, &mut scratch).unwrap(), 6);
        assert_eq!(link.taken, 10);
        server.write_all(b"more").unwrap();
        drop(server);
        assert!(
            link.turn(Appetite::Nothing, &mut scratch).is_err(),
            "the end is noticed behind unread bytes"
        );
    }
}
